"""Files of steps in containers that somebody removes: the container's name finds it, and no step runs twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.conftest import MakeGateway
from tests.support import compose, damage
from tests.support.docker import Engine
from tests.support.gateway import Gateway, wait_for

WAITS = """
    echo run >> runs
    while [ ! -e go ]; do sleep 0.05; done
    exit 7
"""
REMOVED: list[Callable[[Path], None]] = [
    lambda job: (job / "1-ingester/container.json").unlink(),
    lambda job: damage.remove(job / "1-ingester"),
    lambda job: damage.remove(job.parent),
]
UNKNOWN = ("failed", -1, "unknown")


def running(folder: Path, make_gateway: MakeGateway, engine: Engine) -> tuple[Gateway, str, Path]:
    """A gateway, a job of it whose container runs, and that job's folder."""
    project = compose.write(folder, ingester=compose.shell(dedent(WAITS), working_dir="/shared"))
    gateway = make_gateway(project, engine.environment)
    job = gateway.trigger(pipeline="ingester")
    wait_for((project / "runs").exists, "the container")
    return gateway, job, gateway.state / "jobs" / job


def end_of(gateway: Gateway, job: str) -> tuple[Any, ...]:
    record = gateway.finished(job)
    return record["status"], record["exitCode"], record.get("reason")


def runs(gateway: Gateway) -> str:
    return (gateway.folder / "runs").read_text()


@pytest.mark.parametrize("remove", REMOVED, ids=["container.json", "step", "jobs"])
def test_a_container_without_its_files_is_followed_by_the_next_gateway(
    tmp_path: Path, make_gateway: MakeGateway, engine: Engine, remove: Callable[[Path], None]
) -> None:
    gateway, job, folder = running(tmp_path / "lake", make_gateway, engine)
    gateway.kill()
    remove(folder)
    gateway.start()
    (gateway.folder / "go").touch()
    assert end_of(gateway, job) == ("completed", 7, None)
    assert runs(gateway) == "run\n"


def test_a_container_removed_with_its_files_is_not_made_again(
    tmp_path: Path, make_gateway: MakeGateway, engine: Engine
) -> None:
    gateway, job, folder = running(tmp_path / "lake", make_gateway, engine)
    gateway.kill()
    damage.remove(folder)
    engine.docker("rm", "--force", compose.name_of(job))
    gateway.start()
    assert end_of(gateway, job) == UNKNOWN
    assert runs(gateway) == "run\n"


def test_a_container_that_loses_its_files_can_be_cancelled(
    tmp_path: Path, make_gateway: MakeGateway, engine: Engine
) -> None:
    gateway, job, folder = running(tmp_path / "lake", make_gateway, engine)
    damage.remove(folder)
    assert gateway.call("POST", f"/api/v1/jobs/{job}/cancel").status == 202
    assert end_of(gateway, job) == ("failed", -1, "cancelled")
    assert runs(gateway) == "run\n"


def test_a_container_without_its_files_and_its_service_is_stopped(
    tmp_path: Path, make_gateway: MakeGateway, engine: Engine
) -> None:
    """It can't be said any more what it runs, but it did run: never `not_started`, on which callers trigger again."""
    gateway, job, folder = running(tmp_path / "lake", make_gateway, engine)
    gateway.kill()
    damage.remove(folder)
    compose.write(gateway.folder, another=compose.shell("true"))
    gateway.start()
    assert end_of(gateway, job) == UNKNOWN
    assert compose.name_of(job) not in engine.docker("ps", "--all", "--format", "{{.Names}}")
