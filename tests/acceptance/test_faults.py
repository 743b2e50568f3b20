"""Faults of the host around a running gateway: a lost log, a full disk, a held database, a killed supervisor."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import threading
from contextlib import closing
from pathlib import Path

from tests.conftest import MakeGateway
from tests.support import projects
from tests.support.gateway import COMMAND, PATH, Answer, Gateway, wait_for
from tests.support.parts import mounted

WAITING = """
    import pathlib, time
    print("waiting", flush=True)
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
"""


def waiting(gateway: Gateway) -> str:
    """A job whose ingester runs until the file `go` is there."""
    job = gateway.trigger(pipeline="ingester")
    wait_for(lambda: "waiting" in gateway.poll(job)["output"], "the ingester")
    return job


def test_a_log_whose_reader_is_gone_costs_no_job_anything(tmp_path: Path) -> None:
    folder = projects.make(tmp_path / "project")
    gateway = Gateway(folder)
    process = subprocess.Popen([COMMAND, "serve"], cwd=folder, env=gateway.environment, stderr=subprocess.PIPE)
    assert process.stderr is not None
    gateway.process, gateway.port = process, int(json.loads(process.stderr.readline())["port"])
    process.stderr.close()
    assert gateway.run(pipeline="ingester")["exitCode"] == 0
    assert gateway.call("POST", PATH, b"{}").status == 400
    assert gateway.stop() == 0


def test_a_job_can_be_cancelled_on_a_full_disk_and_ends_once_there_is_room(
    tmp_path: Path, make_gateway: MakeGateway
) -> None:
    with mounted(tmp_path / "disk", "4m") as disk:
        folder = projects.make(tmp_path / "project", ingester=WAITING)
        gateway = make_gateway(folder, {"STATE_DIRECTORY": str(disk / "state"), "GATEWAY_FREE_DISK_FLOOR": "0"})
        job = waiting(gateway)
        started = json.loads((disk / "state/jobs" / job / "1-ingester/started").read_text())
        with (disk / "ballast").open("wb") as ballast:
            filled(ballast.fileno())
        assert gateway.call("POST", PATH, {"pipeline": "dbt", "command": "deps"}).status in (409, 507)
        assert gateway.call("POST", f"/api/v1/jobs/{job}/cancel").status == 202
        wait_for(lambda: not alive(started["pid"]), "the end of everything of the step")
        (disk / "ballast").unlink()
        assert gateway.finished(job)["reason"] == "cancelled"
        gateway.stop()


def filled(descriptor: int) -> None:
    """Write until the disk takes no more."""
    for size in (65_536, 1):
        try:
            while True:
                os.write(descriptor, b"x" * size)
        except OSError:
            continue


def test_a_nearly_full_disk_takes_no_trigger_and_still_answers(tmp_path: Path, make_gateway: MakeGateway) -> None:
    with mounted(tmp_path / "disk", "4m") as disk:
        folder = projects.make(tmp_path / "project")
        gateway = make_gateway(folder, {"STATE_DIRECTORY": str(disk / "state"), "GATEWAY_FREE_DISK_FLOOR": "100MiB"})
        refused = gateway.call("POST", PATH, {"pipeline": "ingester"})
        assert (refused.status, refused.json["code"]) == (507, "storage_unavailable")
        assert "free_disk_floor" in refused.json["error"]
        assert gateway.call("GET", PATH).json == {"success": True, "jobs": []}
        gateway.stop()


def test_a_database_that_somebody_holds_is_waited_for(tmp_path: Path, make_gateway: MakeGateway) -> None:
    folder = projects.make(tmp_path / "project", ingester=WAITING)
    gateway = make_gateway(folder)
    job = waiting(gateway)
    with closing(sqlite3.connect(gateway.state / "gateway.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        (folder / "go").touch()
        refused = gateway.call("POST", PATH, {"pipeline": "dbt", "command": "deps"})
        assert refused.status == 507
        assert gateway.poll(job)["status"] == "running"
        holder.execute("ROLLBACK")
    assert gateway.finished(job)["exitCode"] == 0


def test_a_killed_supervisor_ends_its_job_as_unknown_with_nothing_of_it_alive(
    tmp_path: Path, make_gateway: MakeGateway
) -> None:
    gateway = make_gateway(projects.make(tmp_path / "project", ingester=WAITING))
    job = waiting(gateway)
    shim = json.loads((gateway.state / "jobs" / job / "1-ingester/started").read_text())["pid"]
    [step] = (int(pid) for pid in Path(f"/proc/{shim}/task/{shim}/children").read_text().split())
    os.kill(shim, signal.SIGKILL)
    record = gateway.finished(job)
    assert (record["status"], record["reason"], record["exitCode"]) == ("failed", "unknown", -1)
    assert "supervisor was killed" in record["error"]
    assert record["startedAt"] is not None
    assert not alive(step)


def alive(pid: int) -> bool:
    """Whether a process is; a dead one may wait for whoever inherited it to take note."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def test_who_waits_for_a_change_is_answered_when_the_service_stops(tmp_path: Path, make_gateway: MakeGateway) -> None:
    folder = projects.make(tmp_path / "project", ingester=WAITING)
    gateway = make_gateway(folder)
    job = waiting(gateway)
    answers: list[Answer] = []
    waiter = threading.Thread(target=lambda: answers.append(gateway.call("GET", f"/api/v1/jobs/{job}?wait=60")))
    waiter.start()
    # the answer to a later request on the same loop says that the waiting one has been taken up
    wait_for(lambda: gateway.call("GET", "/healthz").status == 200 and connected(gateway) > 0, "the waiter")
    assert gateway.stop() == 0
    waiter.join()
    assert [answer.status for answer in answers] == [200]
    gateway.start()
    (folder / "go").touch()
    assert gateway.finished(job)["exitCode"] == 0


def connected(gateway: Gateway) -> int:
    """How many connections to the gateway are established, by the kernel's word."""
    port = f":{gateway.port:04X}"
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(port) and row[3] == "01" for row in rows)
