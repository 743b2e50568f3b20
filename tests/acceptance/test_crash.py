"""SIGKILL at the worst time: no job is lost or run twice, and its record is that of an undisturbed run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeGateway
from tests.support import projects
from tests.support.gateway import wait_for
from tests.support.quick_dbt import QUICK_DBT, REAL_DBT

pytestmark = pytest.mark.installed  # one place where what is killed is the installed command

TALKER = """
    import pathlib, sys, time
    with pathlib.Path("runs").open("a") as runs:
        runs.write("run\\n")
    for number in range(200):
        print("line", number, flush=True)
        time.sleep(0.01)
    print("waiting", flush=True)
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    print("done", flush=True)
    sys.exit({code})
"""


def _outline(record: dict[str, Any]) -> dict[str, Any]:
    """The part of a record that must not depend on whether the gateway was killed."""
    return {
        "status": record["status"],
        "success": record["success"],
        "exitCode": record["exitCode"],
        "firstFailure": record.get("firstFailure"),
        "steps": [(step["name"], step["status"], step["exitCode"], step["progress"]) for step in record["steps"]],
    }


def test_a_killed_gateway_adopts_the_running_job_and_its_exit_code(tmp_path: Path, make_gateway: MakeGateway) -> None:
    folder = projects.make(tmp_path / "project", ingester=TALKER.format(code=7))
    gateway = make_gateway(folder)
    job = gateway.trigger(pipeline="ingester")
    wait_for(lambda: "line 5\n" in gateway.poll(job)["output"], "some output")
    gateway.kill()
    gateway.start()
    record = gateway.poll(job)
    assert (record["status"], record["phase"]) == ("running", "ingester")
    (folder / "go").touch()
    record = gateway.finished(job)
    assert (record["status"], record["exitCode"]) == ("completed", 7)
    expected = "".join(f"line {number}\n" for number in range(200)) + "waiting\ndone\n"
    assert record["output"] == expected
    assert (folder / "runs").read_text() == "run\n"


def test_a_job_that_ended_without_a_gateway_has_ended_at_the_first_poll(
    tmp_path: Path, make_gateway: MakeGateway
) -> None:
    folder = projects.make(tmp_path / "project", ingester=TALKER.format(code=3))
    gateway = make_gateway(folder)
    job = gateway.trigger(pipeline="ingester")
    wait_for(lambda: "waiting" in gateway.poll(job)["output"], "the end of the lines")
    gateway.kill()
    (folder / "go").touch()
    exit_file = gateway.state / "jobs" / job / "1-ingester" / "exit"
    wait_for(lambda: exit_file.read_bytes().strip(), "the exit record")
    gateway.start()
    record = gateway.poll(job)
    assert (record["status"], record["exitCode"]) == ("completed", 3)
    assert record["output"].endswith("waiting\ndone\n")


# It ignores SIGTERM, and so does its child in a session of its own.
STUBBORN = """
    import os, pathlib, signal, time
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pathlib.Path("child").touch()
    else:
        signal.signal(signal.SIGTERM, lambda *_: pathlib.Path("told").touch())
        while not pathlib.Path("child").exists():
            time.sleep(0.01)
        print("waiting", flush=True)
    while True:
        time.sleep(60)
"""


def test_a_cancel_goes_on_after_a_kill_and_says_what_it_stopped(tmp_path: Path, make_gateway: MakeGateway) -> None:
    ingester = {"command": [sys.executable, "ingest.py"], "grace": 1}
    settings = {"projects": {"small": {"dbt": "transform", "ingester": ingester}}}
    folder = projects.make(tmp_path / "project", ingester=STUBBORN, settings=settings)
    gateway = make_gateway(folder)
    job = gateway.trigger(pipeline="ingester")
    wait_for(lambda: "waiting" in gateway.poll(job)["output"], "both processes")
    assert gateway.call("POST", f"/api/v1/jobs/{job}/cancel").status == 202
    wait_for((folder / "told").exists, "the first signal")
    gateway.kill()
    gateway.start()
    assert gateway.finished(job)["reason"] == "cancelled"
    stopped = gateway.call("GET", f"/api/v1/jobs/{job}").json["stopped"]
    assert (stopped["signals"], stopped["processes"]) == (["SIGTERM", "SIGKILL"], 2)
    assert stopped["seconds"] >= 1


def test_sigkill_during_full_gives_the_record_of_an_undisturbed_run(tmp_path: Path, make_gateway: MakeGateway) -> None:
    """Each kill meets the installed dbt, whose commands take long enough; the undisturbed run has the quick one."""
    dbt = tmp_path / "dbt"
    dbt.symlink_to(QUICK_DBT.program)
    gateway = make_gateway(projects.make(tmp_path / "project", dbt=dbt))
    undisturbed = gateway.run(pipeline="full")
    assert undisturbed["exitCode"] == 0, undisturbed
    dbt.unlink()
    dbt.symlink_to(REAL_DBT)
    job = gateway.trigger(pipeline="full")
    for phase in ("deps", "build"):
        wait_for(lambda phase=phase: gateway.poll(job)["phase"] == phase, f"the step {phase}")
        gateway.kill()
        gateway.start()
    record = gateway.finished(job)
    assert _outline(record) == _outline(undisturbed)
    assert "Done. PASS=5 " in record["output"]
