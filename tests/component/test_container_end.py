"""How a container is ended; a fake docker command records its calls."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from runners.containers.container import Container, ContainerSpec
from runners.mask import Mask

TOP, STOP = "container top", "stop -t 1"


def make_container(folder: Path, pid_mode: str, *, exec_code: int = 0) -> None:
    """A step's folder with a running container, and a fake docker command that reports this container."""
    step = folder / "job" / "1-build"
    (step / "container-1/make-1").mkdir(parents=True)
    (step / "container-1/make-1/exit").write_text(json.dumps({"code": 0}))
    found = {
        "Id": "id",
        "State": {
            "Status": "running",
            "ExitCode": 0,
            "Error": "",
            "OOMKilled": False,
            "StartedAt": "2026-11-22T01:38:08.416147388Z",
            "FinishedAt": "0001-01-01T00:00:00Z",
        },
        "Config": {"Labels": {"pipeline-gateway.job": "job", "pipeline-gateway.step": "1-build"}, "WorkingDir": ""},
        "HostConfig": {"LogConfig": {"Type": "json-file", "Config": {}}, "PidMode": pid_mode},
    }
    (folder / "found").write_text(json.dumps([found]))
    program = folder / "docker"
    program.write_text(
        f"""#!/bin/sh
case "$*" in
*inspect*) cat {folder}/found;;
exec*) echo "$*" >>{folder}/asked; exit {exec_code};;
*) echo "$*" >>{folder}/asked;;
esac
"""
    )
    program.chmod(0o755)


async def calls_after_stop(folder: Path, interrupt: int = 2) -> list[str]:
    """The docker calls so far, after one more stop of the container."""
    docker = (str(folder / "docker"),)
    spec = ContainerSpec((("docker",),), "/", docker, interrupt, 0.05, 60.0, 0.0, 0.0, {})
    container = Container(folder / "job" / "1-build", 0, spec, os.environ, 1 << 20, lambda _: None, Mask())
    await container.stop("asked")
    return [line.split(container.name)[0].strip(" -") for line in (folder / "asked").read_text().splitlines()]


async def test_an_interrupt_is_sent_to_the_main_process_after_the_others(
    tmp_path: Path,
) -> None:
    """`docker stop` follows."""
    make_container(tmp_path, pid_mode="")
    assert await calls_after_stop(tmp_path) == [TOP, "exec", "container kill --signal=INT", STOP]


@pytest.mark.parametrize("pid_mode", ["host", "container:other"])
async def test_with_a_shared_pid_namespace_only_the_main_process_is_interrupted(tmp_path: Path, pid_mode: str) -> None:
    make_container(tmp_path, pid_mode=pid_mode)
    assert await calls_after_stop(tmp_path) == [TOP, "container kill --signal=INT", STOP]


async def test_a_step_interrupted_by_sigterm_gets_only_docker_stop(tmp_path: Path) -> None:
    make_container(tmp_path, pid_mode="")
    assert await calls_after_stop(tmp_path, interrupt=15) == [TOP, STOP]


async def test_an_interrupt_is_sent_once_and_the_reason_is_recorded(tmp_path: Path) -> None:
    make_container(tmp_path, pid_mode="", exec_code=1)
    await calls_after_stop(tmp_path)
    assert json.loads((tmp_path / "job/1-build/ending").read_text()) == "asked"
    assert (await calls_after_stop(tmp_path))[-2:] == [STOP, STOP]
