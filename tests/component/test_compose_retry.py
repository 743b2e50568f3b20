"""When `dbt retry` is used in a container: where a look finds that the container can read what it goes on from."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from gateway.fabrics import compose_retry, compose_services
from gateway.fabrics.compose_services import ComposeServices
from runners import durable
from runners.containers.compose_project import ComposeCli, ComposeService
from runners.containers.docker import Docker
from runners.dbt.command import state_file
from runners.mask import Mask

_HERE, _ELSEWHERE = "unix:///run/docker.sock", "ssh://warehouse"
_SEEN = "echo seen"
_DOWN = "echo Cannot connect to the Docker daemon >&2; exit 1"


def services(folder: Path, host: str, look: str) -> ComposeServices:
    """Of a fake docker command whose engine has this address, and whose `docker compose run` is this shell script."""
    program = folder / "docker"
    program.write_text(
        f'#!/bin/sh\necho "$*" >> {folder}/asked\ncase "$*" in\n*\'compose \'*) {look};;\n*) echo {host};;\nesac\n'
    )
    program.chmod(0o755)
    cli = ComposeCli("/", (str(program),), instance="feed")
    return ComposeServices(cli, Docker((str(program),), {"PATH": "/usr/bin:/bin"}, Mask()))


async def found() -> ComposeService | str:
    return ComposeService("dbt", "image", (), {}, None, log_rotates=False)


async def not_found() -> ComposeService | str:
    return "there is no service dbt"


def attempts(folder: Path, status: str = "error") -> tuple[Path, Path]:
    """The folders of an attempt with a node that ended so, and of the next one."""
    results = folder / "1-build/target/run_results.json"
    results.parent.mkdir(parents=True)
    nodes = [{"unique_id": "model.a", "status": status}]
    results.write_text(json.dumps({"args": {"which": "build"}, "results": nodes}))
    durable.make_directory(folder / "1-build.2")
    return folder / "1-build", folder / "1-build.2"


async def test_results_that_a_container_can_read_are_mounted_read_only(tmp_path: Path) -> None:
    earlier, folder = attempts(tmp_path)
    assert compose_retry.state_mount(folder) is None
    assert await compose_retry.prepare(services(tmp_path, _HERE, _SEEN), found, earlier, folder) is None
    mount = compose_retry.state_mount(folder)
    assert mount is not None
    assert (mount.source, mount.read_only) == (str(folder / "state"), True)
    [look] = [line for line in (tmp_path / "asked").read_text().splitlines() if "compose " in line]
    assert mount.option in look  # as the step itself has it
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "state", state_file(folder))]
    assert modes == [0o700, 0o755, 0o644]  # every user of a container, and no other user of this host


@pytest.mark.parametrize(
    ("host", "look", "find", "why"),
    [
        (_HERE, "true", found, "a shell in the service dbt can't read"),
        (_HERE, "echo denied >&2; exit 1", found, "a shell in the service dbt can't read"),
        (_HERE, _DOWN, found, "is not known: Cannot connect"),
        (_HERE, _SEEN, not_found, "its service can't be used"),
        (_ELSEWHERE, _SEEN, found, "another host (ssh://warehouse)"),
    ],
)
async def test_a_step_runs_as_a_whole_where_its_container_could_not_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, look: str, find: compose_retry.FindService, why: str
) -> None:
    monkeypatch.setattr(compose_services, "_PATIENCE", 0.0)
    earlier, folder = attempts(tmp_path)
    said = await compose_retry.prepare(services(tmp_path, host, look), find, earlier, folder)
    assert said is not None
    assert why in said
    assert compose_retry.state_mount(folder) is None


async def test_no_path_with_a_colon_is_mounted(tmp_path: Path) -> None:
    earlier, folder = attempts(tmp_path / "a:b")
    said = await compose_retry.prepare(services(tmp_path, _HERE, _SEEN), found, earlier, folder)
    assert (said or "").startswith("a colon in the path of the state directory")
    assert compose_retry.state_mount(folder) is None


async def test_no_container_is_asked_where_dbt_could_not_go_on(tmp_path: Path) -> None:
    earlier, folder = attempts(tmp_path, "success")
    said = await compose_retry.prepare(services(tmp_path, _HERE, _SEEN), found, earlier, folder)
    assert said == "none of its nodes had failed"
    assert not (tmp_path / "asked").exists()
