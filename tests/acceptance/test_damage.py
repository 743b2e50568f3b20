"""A state directory damaged or lost under a real gateway: running jobs are adopted once and end normally.

The many kinds of damage are those of tests/component/test_damage.py.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeGateway
from tests.support import damage
from tests.support.damage import DATABASE, SIDE_FILES
from tests.support.gateway import DEADLINE, PATH, Gateway, wait_for

BUG = 70


@pytest.fixture
def gateway(tmp_path: Path, make_gateway: MakeGateway) -> Iterator[Gateway]:
    """A gateway with some ended jobs."""
    made = make_gateway(damage.project(tmp_path / "project"))
    for how in ("0", "3"):
        damage.ingest(made, how)
    yield made
    (made.folder / "go").touch()
    made.stop()


def listed(gateway: Gateway) -> dict[str, dict[str, Any]]:
    return {job["jobId"]: job for job in gateway.call("GET", PATH).json["jobs"]}


def is_adopted(gateway: Gateway, job: str, before: dict[str, dict[str, Any]]) -> bool:
    """Whether the job is running, holds its resources, runs once and ends normally, and the others are unchanged."""
    now = listed(gateway)
    assert now[job]["status"] == "running"
    assert {name: record for name, record in now.items() if name != job} == before
    refused = gateway.call("POST", PATH, {"pipeline": "ingester"})
    assert (refused.status, refused.json["conflict"]["jobId"]) == (409, job)
    (gateway.folder / "go").touch()
    record = gateway.finished(job)
    assert (record["status"], record["exitCode"], record["output"]) == ("completed", 7, "how: wait\n")
    assert damage.runs(gateway.folder) == len(before) + 1
    (gateway.folder / "go").unlink()
    assert damage.ingest(gateway, "0")["exitCode"] == 0
    return True


def logged(gateway: Gateway, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


@pytest.mark.parametrize("gone", [("",), SIDE_FILES], ids=["without_its_log", "with_its_log"])
def test_without_its_database_a_gateway_restores_jobs_from_their_folders(
    gateway: Gateway, gone: tuple[str, ...]
) -> None:
    before, job = listed(gateway), damage.waiting(gateway)
    gateway.kill()
    for suffix in gone:
        (gateway.state / f"{DATABASE}{suffix}").unlink()
    gateway.start()
    [event] = logged(gateway, "records restored")
    assert event["active"] == [job]
    assert "may be missing" in event["lost"]
    assert is_adopted(gateway, job, before)


def test_a_running_job_is_adopted_despite_a_damaged_database(gateway: Gateway) -> None:
    before, job = listed(gateway), damage.waiting(gateway)
    gateway.kill()
    for suffix in SIDE_FILES[1:]:
        (gateway.state / f"{DATABASE}{suffix}").unlink()
    damage.noise(gateway.state / DATABASE, random.Random(1))
    gateway.start()
    [event] = logged(gateway, "database damaged")
    assert [event["set_aside"]] == [str(aside) for aside in damage.set_aside(gateway.state)]
    assert is_adopted(gateway, job, before)


def test_a_running_job_is_adopted_despite_a_torn_write_ahead_log(gateway: Gateway) -> None:
    before, job = listed(gateway), damage.waiting(gateway)
    gateway.kill()
    log = gateway.state / f"{DATABASE}-wal"
    os.truncate(log, log.stat().st_size // 2)
    gateway.start()
    assert is_adopted(gateway, job, before)


def went_down(gateway: Gateway) -> bool:
    """Whether the gateway ends within twenty requests; each answer until then must be a valid one."""
    process = gateway.process
    assert process is not None
    for _ in range(10):
        for method, body in (("POST", {"pipeline": "dbt", "command": "deps"}), ("GET", None)):
            try:
                answer = gateway.call(method, PATH, body)
            except OSError:
                wait_for(lambda: process.poll() is not None, "the end of the gateway", DEADLINE)
                return True
            assert answer.status in (200, 202, 409, 503, 507), answer
    return False


def test_damage_under_a_running_gateway_loses_no_job(
    gateway: Gateway,
) -> None:
    """The gateway ends with an error, or never reads the damaged pages."""
    before, job = listed(gateway), damage.waiting(gateway)
    for name in (DATABASE, f"{DATABASE}-wal"):
        file = gateway.state / name
        damage.overwrite(file, 0, random.Random(1).randbytes(file.stat().st_size))
    if went_down(gateway):
        assert gateway.stop() == BUG
        assert logged(gateway, "crashed")
        assert logged(gateway, "database damaged")
        assert gateway.log.read_text().count("Traceback") <= 1  # that of the crash
    else:  # SQLite's pages in memory are intact, and it writes those
        gateway.kill()
    gateway.start()
    assert listed(gateway)[job]["status"] == "running"
    others = {name: record for name, record in listed(gateway).items() if name in before}
    assert others == before
    (gateway.folder / "go").touch()
    assert gateway.finished(job)["exitCode"] == 7
    assert all(record["status"] != "failed" for record in listed(gateway).values())
