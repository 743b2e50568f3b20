"""A job's time limit across a SIGKILL of the gateway: the supervisor of its step keeps it meanwhile."""

from __future__ import annotations

import time
from pathlib import Path

from tests.conftest import MakeGateway
from tests.support import process_facts, projects
from tests.support.gateway import Gateway, wait_for

JOBS = "/api/v1/jobs"
LIMIT = 3.0
WAITING = """
    import pathlib, time
    pathlib.Path("begun").touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
"""


def killed_gateway(tmp_path: Path, make_gateway: MakeGateway) -> tuple[Gateway, str]:
    """One that was killed in the first step of a job with a time limit."""
    gateway = make_gateway(projects.make(tmp_path / "project", ingester=WAITING))
    job = str(gateway.call("POST", JOBS, {"pipeline": "full", "timeoutSeconds": LIMIT}).json["jobId"])
    wait_for((gateway.folder / "begun").exists, "the first step")
    gateway.kill()
    return gateway, job


def test_a_time_limit_ends_the_step_while_the_gateway_is_down(tmp_path: Path, make_gateway: MakeGateway) -> None:
    gateway, job = killed_gateway(tmp_path, make_gateway)
    assert process_facts.of_steps(gateway.state)
    wait_for(lambda: not process_facts.of_steps(gateway.state), "the end of the step")
    record = gateway.start().finished(job)
    assert (record["status"], record["reason"]) == ("failed", "timed_out")
    assert f"its time limit of {LIMIT:g} s and was stopped during the step ingester" in record["error"]
    assert [step["status"] for step in record["steps"]][:2] == ["failed", "skipped"]


def test_no_step_begins_where_the_limit_passed_while_the_gateway_was_down(
    tmp_path: Path, make_gateway: MakeGateway
) -> None:
    gateway, job = killed_gateway(tmp_path, make_gateway)
    (gateway.folder / "go").touch()
    wait_for(lambda: not process_facts.of_steps(gateway.state), "the end of the step")
    time.sleep(LIMIT)  # more of the limit than what is left of it
    record = gateway.start().finished(job)
    assert (record["status"], record["reason"]) == ("failed", "timed_out")
    assert f"its time limit of {LIMIT:g} s and was ended between two steps" in record["error"]
    assert [step["status"] for step in record["steps"]][:2] == ["completed", "skipped"]
