"""Time limits of whole jobs whose steps run in containers, which nothing but the gateway ends."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeGateway
from tests.support import compose
from tests.support.docker import Engine
from tests.support.gateway import Gateway, wait_for

JOBS = "/api/v1/jobs"
LIMIT = 12.0  # seconds; two containers must have started by then, also on a busy machine
# records its start, and ends by SIGKILL only
DEAF = "trap '' TERM; echo run >> /shared/runs; while :; do sleep 0.05; done"
FIRST_FAILS = f"[ -e /shared/runs ] || {{ echo run >> /shared/runs; exit 3; }}; {DEAF}"
PIPELINE = {"ingester": True, "retries": {"attempts": 3, "wait": 0, "errors": ["any"]}}


def gateway_on(make_gateway: MakeGateway, folder: Path, engine: Engine, script: str, **pipeline: Any) -> Gateway:
    """A gateway with a pipeline `load`, whose ingester is this script in a container, with these settings."""
    fabric = {"compose": {"ingester": {"grace": 1}}}
    projects = {"shop": {"pipelines": {"load": {**PIPELINE, **pipeline}}}}
    compose.write(folder, fabric=fabric, projects=projects, ingester=compose.shell(script))
    return make_gateway(folder, engine.environment)


def triggered(gateway: Gateway, **fields: Any) -> str:
    answer = gateway.call("POST", JOBS, {"pipeline": "load", **fields})
    assert answer.status == 202, answer
    return str(answer.json["jobId"])


def runs(gateway: Gateway) -> int:
    """How often the ingester has started."""
    file = gateway.folder / "runs"
    return len(file.read_text().splitlines()) if file.exists() else 0


def timed_out(gateway: Gateway, job: str, engine: Engine) -> dict[str, Any]:
    """The whole record of a job, which has passed its time limit; none of its containers is alive then."""
    gateway.finished(job)
    assert compose.containers_of(engine, job, all=False) == []
    wait_for(lambda: compose.containers_of(engine, job) == [], f"the containers of {job} to be removed")
    record = gateway.call("GET", f"{JOBS}/{job}").json
    assert (record["status"], record["reason"], record["exitCode"]) == ("failed", "timed_out", -1), record
    return record


def test_the_limit_of_a_pipeline_counts_all_its_attempts(
    tmp_path: Path, engine: Engine, make_gateway: MakeGateway
) -> None:
    gateway = gateway_on(make_gateway, tmp_path, engine, FIRST_FAILS, time_limit=LIMIT)
    job = triggered(gateway)
    record = timed_out(gateway, job, engine)
    assert f"its time limit of {LIMIT:g} s and was stopped during the step ingester" in record["error"]
    assert "raise time_limit of the pipeline load" in record["error"]
    [step] = record["steps"]
    assert [attempt["exitCode"] for attempt in step["attempts"]] == [3, 137]  # and no third one
    assert record["stopped"]["signals"] == ["SIGTERM", "SIGKILL"]
    assert (record["stopped"]["seconds"] >= 1, record["stopped"]["processes"] >= 1) == (True, True)
    assert LIMIT < record["durationSeconds"] < 2 * LIMIT


def test_a_limit_that_passes_under_a_killed_gateway_is_kept_at_its_start(
    tmp_path: Path, engine: Engine, make_gateway: MakeGateway
) -> None:
    gateway = gateway_on(make_gateway, tmp_path, engine, DEAF, time_limit=3600)
    triggered_at = time.monotonic()
    job = triggered(gateway, timeoutSeconds=LIMIT)
    wait_for(lambda: runs(gateway) == 1, "its container")
    gateway.kill()
    time.sleep(max(0.0, triggered_at + LIMIT - time.monotonic()))
    assert compose.containers_of(engine, job, all=False) == [compose.name_of(job)]
    record = timed_out(gateway.start(), job, engine)
    assert f"its time limit of {LIMIT:g} s and was stopped during the step ingester" in record["error"]
    assert "raise timeoutSeconds of the trigger" in record["error"]
    assert record["stopped"]["signals"] == ["SIGTERM", "SIGKILL"]
    assert LIMIT < record["durationSeconds"] < 2 * LIMIT  # it did not begin again with the gateway
    assert runs(gateway) == 1


@pytest.mark.parametrize("seconds", [0.001, 0.3])
def test_a_limit_that_passes_while_a_container_is_made_leaves_none(
    tmp_path: Path, engine: Engine, make_gateway: MakeGateway, seconds: float
) -> None:
    gateway = gateway_on(make_gateway, tmp_path, engine, DEAF)
    record = timed_out(gateway, triggered(gateway, timeoutSeconds=seconds), engine)
    assert f"its time limit of {seconds:g} s" in record["error"]
    assert record["stopped"] is not None
    assert runs(gateway) <= 1
