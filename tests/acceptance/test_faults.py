"""Faults of the host around a running gateway: a lost log, a held database, a killed supervisor."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from tests.conftest import MakeGateway
from tests.support import projects
from tests.support.gateway import COMMAND, PATH, Gateway, wait_for

WAITING = """
    import pathlib, time
    print("waiting", flush=True)
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
"""


def waiting(gateway: Gateway) -> str:
    """A job whose ingester runs until there is a file `go`."""
    job = gateway.trigger(pipeline="ingester")
    wait_for(lambda: "waiting" in gateway.poll(job)["output"], "the ingester")
    return job


def test_a_closed_log_pipe_affects_no_job(tmp_path: Path) -> None:
    folder = projects.make(tmp_path / "project")
    gateway = Gateway(folder)
    process = subprocess.Popen([COMMAND, "serve"], cwd=folder, env=gateway.environment, stderr=subprocess.PIPE)
    assert process.stderr is not None
    gateway.process, gateway.port = process, int(json.loads(process.stderr.readline())["port"])
    process.stderr.close()
    assert gateway.run(pipeline="ingester")["exitCode"] == 0
    assert gateway.call("POST", PATH, b"{}").status == 400
    assert gateway.stop() == 0


def test_a_database_locked_by_another_process_is_waited_for(tmp_path: Path, make_gateway: MakeGateway) -> None:
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


def test_a_killed_supervisor_ends_its_job_as_unknown_with_its_step(tmp_path: Path, make_gateway: MakeGateway) -> None:
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
    """Whether a process is alive; a zombie, which its parent has not yet reaped, is not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"
