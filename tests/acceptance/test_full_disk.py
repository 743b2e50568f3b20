"""A disk that fills up, on real small filesystems: no accepted job is lost, and every outcome is right."""

from __future__ import annotations

import configparser
import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from pydantic import ByteSize

from gateway import clock
from gateway.errors import StateBusyError
from gateway.fabrics.checkouts import Checkouts
from gateway.jobs.retention import Retention
from gateway.model.job import Completed
from gateway.settings.settings import Settings
from gateway.storage import job_file, store
from gateway.storage.store import Store
from tests.conftest import MakeGateway
from tests.support import damage
from tests.support.damage import STATE
from tests.support.gateway import DEADLINE, PATH, Gateway, wait_for
from tests.support.jobs import ended, make_job
from tests.support.parts import mounted

PASSING = 75  # exit code at which systemd restarts the service
MIB = 2**20
SIZE, FLOOR = "16m", 6 * MIB
NOTHING, NEARLY = 0, FLOOR // 2  # bytes that are left free
STATE_DISK, OUTPUT_DISK = "the whole state", "only the output"
FLOODING = """
    import os, pathlib, sys
    for number in range(400):
        os.write(1, b"%07d\\n" % number * 8192)
    sys.exit(7)
"""


@contextmanager
def small_disk(folder: Path, what: str) -> Iterator[Path]:
    """A disk of its own for the state of a gateway on this folder, or for its jobs alone."""
    state = folder / STATE
    state.parent.mkdir(parents=True, exist_ok=True)
    if what == OUTPUT_DISK:
        state.mkdir()
    with mounted(state / "jobs" if what == OUTPUT_DISK else state, SIZE) as disk:
        yield disk


@pytest.fixture(params=[STATE_DISK, OUTPUT_DISK])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "project", request.param) as made:
        yield made


@pytest.fixture
def state_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "project", STATE_DISK) as made:
        yield made


@pytest.fixture
def gateway(tmp_path: Path, make_gateway: MakeGateway) -> Iterator[Gateway]:
    """A gateway on the test's disk; that fixture must come first, so that the gateway ends before the disk."""
    made = make_gateway(damage.project(tmp_path / "project"), {"GATEWAY_FREE_DISK_FLOOR": str(FLOOR)})
    yield made
    (made.folder / "go").touch()
    made.stop()


def fill(disk: Path, left: int) -> Path:
    """Fill the disk up to this many free bytes."""
    ballast = disk / "ballast"
    with ballast.open("ab") as opened:
        while (room := free(disk) - left) > 0:
            try:
                os.write(opened.fileno(), b"x" * min(room, 65_536))
            except OSError:
                break
    return ballast


def free(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def readiness(gateway: Gateway) -> tuple[int, dict[str, str]]:
    answer = gateway.call("GET", "/readyz")
    return answer.status, answer.json


def trigger(gateway: Gateway) -> tuple[int, str]:
    """The answer to a trigger whose resource is free."""
    answer = gateway.call("POST", PATH, {"pipeline": "dbt", "command": "deps"})
    return answer.status, str(answer.json.get("error", answer.json.get("jobId")))


def is_sound(state: Path) -> bool:
    with closing(sqlite3.connect(state / damage.DATABASE)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_below_the_floor_only_triggers_are_refused_until_there_is_room(disk: Path, gateway: Gateway) -> None:
    job = damage.waiting(gateway)
    assert readiness(gateway)[0] == 200
    ballast = fill(disk, NEARLY)
    status, why = trigger(gateway)
    assert status == 507
    assert str(disk) in why
    assert "free_disk_floor" in why
    status, checks = readiness(gateway)
    assert (status, checks["status"], checks["recovery"], checks["programs"]) == (503, "not ready", "ok", "ok")
    assert str(disk) in checks["disk"]
    assert gateway.call("GET", "/healthz").status == 200
    assert [listed["jobId"] for listed in gateway.call("GET", PATH).json["jobs"]] == [job]
    assert gateway.call("GET", f"/api/v1/jobs/{job}?wait=0.1").json["status"] == "running"
    (gateway.folder / "go").touch()
    assert gateway.finished(job)["exitCode"] == 7
    assert trigger(gateway)[0] == 507
    ballast.unlink()
    assert readiness(gateway)[0] == 200
    status, new = trigger(gateway)
    assert status == 202
    assert gateway.finished(new)["exitCode"] == 0


def test_below_the_floor_a_job_can_be_cancelled(disk: Path, gateway: Gateway) -> None:
    job = damage.waiting(gateway)
    fill(disk, NEARLY)
    assert gateway.call("POST", f"/api/v1/jobs/{job}/cancel").status == 202
    assert gateway.finished(job)["reason"] == "cancelled"


def test_a_job_that_fills_the_disk_loses_output_and_not_its_outcome(disk: Path, gateway: Gateway) -> None:
    (gateway.folder / "ingest.py").write_text(FLOODING.replace("\n    ", "\n"))
    job = gateway.trigger(pipeline="ingester")
    exit_file = gateway.state / "jobs" / job / "1-ingester/exit"
    wait_for(lambda: exit_file.exists() and exit_file.read_bytes().strip(), "the end of the step")
    assert json.loads(exit_file.read_bytes())["dropped"] > MIB
    record = wait_for(lambda: over(gateway, job), "the end of the job while the disk is full", DEADLINE / 4)
    assert (record["status"], record["exitCode"]) == ("completed", 7)
    assert free(disk) < FLOOR
    assert trigger(gateway)[0] == 507
    gateway.kill()
    gateway.start()
    assert gateway.poll(job)["exitCode"] == 7


def over(gateway: Gateway, job: str) -> dict[str, object] | None:
    record = gateway.poll(job)
    return None if record["status"] == "running" else record


def test_a_job_that_ends_on_a_full_disk_is_recorded_once_there_is_room(disk: Path, gateway: Gateway) -> None:
    job = damage.waiting(gateway)
    ballast = fill(disk, NOTHING)
    (gateway.folder / "go").touch()
    exit_file = gateway.state / "jobs" / job / "1-ingester/exit"
    wait_for(lambda: exit_file.read_bytes().strip(), "the end of the step")
    assert gateway.poll(job)["status"] in ("running", "completed")
    assert trigger(gateway)[0] == 507
    assert gateway.call("GET", "/healthz").status == 200
    ballast.unlink()
    record = gateway.finished(job)
    assert (record["status"], record["exitCode"]) == ("completed", 7)
    assert is_sound(gateway.state)
    assert gateway.stop() == 0
    assert damage.runs(gateway.folder) == 1


def test_a_job_cancelled_on_a_full_disk_ends_once_there_is_room(disk: Path, gateway: Gateway) -> None:
    job = damage.waiting(gateway)
    ballast = fill(disk, NOTHING)
    assert gateway.call("POST", f"/api/v1/jobs/{job}/cancel").status == 202
    exit_file = gateway.state / "jobs" / job / "1-ingester/exit"
    wait_for(lambda: exit_file.read_bytes().strip(), "the end of the step")
    ballast.unlink()
    assert gateway.finished(job)["reason"] == "cancelled"


def test_no_accepted_job_is_lost_while_the_disk_fills_up(
    state_disk: Path, tmp_path: Path, make_gateway: MakeGateway
) -> None:
    """Without a floor, each write itself meets the full disk."""
    unlimited = {"GATEWAY_FREE_DISK_FLOOR": "0", "GATEWAY_TRIGGER_RATE": "1000"}
    gateway = make_gateway(damage.project(tmp_path / "project"), unlimited)
    (gateway.folder / "how").write_text("0")
    accepted: list[str] = []
    for left in range(600_000, -1, -8192):
        fill(state_disk, left)
        for body in ({"pipeline": "ingester"}, {"pipeline": "dbt", "command": "deps"}):
            answer = gateway.call("POST", PATH, body)
            assert answer.status in (202, 409, 507), answer
            if answer.status == 202:
                accepted.append(answer.json["jobId"])
    gateway.kill()
    (state_disk / "ballast").unlink()
    gateway.start()
    assert accepted
    assert {job["jobId"] for job in gateway.call("GET", PATH).json["jobs"]} >= set(accepted)
    for job in accepted:
        assert gateway.finished(job)["phase"] == "ended"
    assert damage.runs(gateway.folder) <= len(accepted)
    assert is_sound(gateway.state)
    gateway.stop()


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
def test_a_start_on_a_full_disk_serves_at_once_or_once_there_is_room(disk: Path, gateway: Gateway, how: str) -> None:
    """After SIGTERM, SQLite has to make its log anew, which needs room."""
    job = damage.waiting(gateway)
    (gateway.kill if how == "SIGKILL" else gateway.stop)()
    ballast = fill(disk, NOTHING)
    waits = begin(gateway)
    sys.stdout.write(f"after {how} on a full disk it {'waits for room' if waits else 'serves'}\n")
    if not waits:
        assert gateway.poll(job)["status"] == "running"
        assert trigger(gateway)[0] == 507
        assert readiness(gateway)[0] == 503
    ballast.unlink()
    served(gateway)
    assert readiness(gateway)[0] == 200
    (gateway.folder / "go").touch()
    assert gateway.finished(job)["exitCode"] == 7
    assert damage.runs(gateway.folder) == 1
    assert "Traceback" not in gateway.log.read_text()


def begin(gateway: Gateway) -> bool:
    """Start a gateway and return whether it waits for room instead of serving."""
    gateway.launch()

    def said() -> str:
        text = gateway.logged()
        assert gateway.process is not None
        assert gateway.process.poll() is None, text
        return text

    words = ("database not usable yet", '"event": "serving"')
    wait_for(lambda: any(word in said() for word in words), "a log line of the gateway")
    waits = words[1] not in said()
    if not waits:
        served(gateway)
    return waits


def served(gateway: Gateway) -> None:
    """Wait until the started gateway serves, and set its port."""

    def line() -> str | None:
        lines = [line for line in gateway.log.read_text().splitlines() if '"event": "serving"' in line]
        return lines[1] if len(lines) > 1 else None

    gateway.port = int(json.loads(wait_for(line, "a gateway that serves"))["port"])


async def test_a_start_that_waits_too_long_for_room_exits_for_systemd_to_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_PATIENCE", 0.0)
    with mounted(tmp_path / "state", SIZE) as state:
        fill(state, NOTHING)
        with pytest.raises(StateBusyError, match="check the disk") as refused:
            await Store.open(state / damage.DATABASE)
    assert refused.value.exit_code == PASSING
    unit = configparser.RawConfigParser(strict=False)
    unit.read(Path(__file__).parents[2] / "systemd/pipeline-gateway.service")
    assert str(PASSING) not in unit["Service"]["RestartPreventExitStatus"].split()


async def test_files_over_the_cap_are_removed_from_a_full_disk_too(tmp_path: Path) -> None:
    with mounted(tmp_path / "state", SIZE) as state:
        kept = await Store.open(state / damage.DATABASE)
        try:
            for number in range(3):
                job = make_job(f"job-{number}")
                await kept.insert(job)
                await kept.save(ended(job, Completed(0, None), clock.now()))
                folder = state / "jobs" / job.id
                folder.mkdir(parents=True)
                (folder / f"output.{0:020}").write_bytes(b"x" * 2 * MIB)
            fill(state, NOTHING)
            assert free(state) == 0
            settings = Settings(state_directory=state, state_cap=ByteSize(3 * MIB))
            await Retention(settings, kept, Checkouts(settings, {})).sweep()
            assert list((await kept.known()).values()) == [True] * 3
        finally:
            await kept.close()
        assert [folder.name for folder in (state / "jobs").iterdir() if job_file.has_more(folder)] == ["job-2"]
        assert free(state) >= 3 * MIB
