"""Retries by configuration: attempts of a step in the record, in the output and on the disk, and what ends them."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.conftest import MakeApi, MakeGateway
from tests.support import projects
from tests.support.api import Api, until
from tests.support.gateway import wait_for

JOBS = "/api/v1/jobs"
# Fails as often as there are lines in `failures`, with the first of them, and counts its runs.
FLAKY = """
    echo run >> runs
    read -r why < failures || exit 0
    sed -i 1d failures
    echo "begins"; echo "error: $why" >&2
    exit 3
"""
REFUSED = "connection to server at localhost failed: Connection refused"


def project(folder: Path, *failures: str, pipelines: Any = None, **retries: Any) -> Path:
    """A project whose ingester fails so often, and is tried again so."""
    ingester = {"command": ["sh", "../flaky.sh"], "directory": "work", "retries": retries or None}
    made = projects.make(
        folder,
        settings={"projects": {"small": {"dbt": "transform", "ingester": ingester, "pipelines": pipelines or {}}}},
    )
    projects.write(made / "flaky.sh", FLAKY)
    projects.write(made / "work/failures", "".join(f"{failure}\n" for failure in failures))
    return made


def runs(folder: Path) -> int:
    file = folder / "work/runs"
    return len(file.read_text().splitlines()) if file.exists() else 0


async def test_a_step_is_tried_again_and_each_attempt_is_in_the_record(tmp_path: Path, make_api: MakeApi) -> None:
    folder = project(tmp_path, REFUSED, REFUSED, wait=0, attempts=3, errors=["database_unavailable"])
    api = await make_api(folder)
    record = await api.run(pipeline="ingester")
    [step] = record["steps"]
    assert (record["outcome"], record["exitCode"], step["status"], step["exitCode"]) == ("succeeded", 0, "completed", 0)
    assert [(one["exitCode"], one["reason"]) for one in step["attempts"]] == [(3, None), (3, None), (0, None)]
    times = [moment for one in step["attempts"] for moment in (one["startedAt"], one["finishedAt"])]
    assert times == sorted(times)
    assert (step["startedAt"], step["finishedAt"]) == (times[0], times[-1])
    assert step["durationSeconds"] <= record["durationSeconds"]
    names = sorted(
        path.name for path in (folder / ".pipeline-gateway/jobs" / record["jobId"]).iterdir() if path.is_dir()
    )
    assert names == ["1-ingester", "1-ingester.2", "1-ingester.3"]


async def test_the_output_of_each_attempt_begins_with_a_line_that_names_it(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(project(tmp_path, REFUSED, wait=0, errors=["network"]))
    job = (await api.run(pipeline="ingester"))["jobId"]
    projects.write(api.folder / "work/failures", f"{REFUSED}\n{REFUSED}\n{REFUSED}\n")
    failed = await api.run(pipeline="ingester")
    said = f"begins\nerror: {REFUSED}\n"
    expected = "".join(f"==> ingester{attempt} <==\n{said}" for attempt in ("", ", attempt 2", ", attempt 3"))
    for query in ("", "?step=ingester"):
        assert (await api.call("GET", f"{JOBS}/{failed['jobId']}/log{query}")).body.decode() == expected
    assert (await api.call("GET", f"{JOBS}/{job}/log")).body.decode() == f"==> ingester <==\n{said}"
    assert failed["firstFailure"]["message"] == f"error: {REFUSED}"
    assert [one["exitCode"] for one in failed["steps"][0]["attempts"]] == [3, 3, 3]


async def test_an_error_of_another_kind_is_not_tried_again(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(project(tmp_path, "no such column", wait=0, errors=["network", "locked", "killed"]))
    record = await api.run(pipeline="ingester")
    assert (record["exitCode"], runs(api.folder), "attempts" in record["steps"][0]) == (3, 1, False)


async def test_the_retries_of_a_pipeline_win_over_those_of_ingester_and_fabric(
    tmp_path: Path, make_api: MakeApi
) -> None:
    pipelines = {
        "patient": {"ingester": True, "retries": {"attempts": 2, "wait": 0, "errors": ["any"]}},
        "once": {"ingester": True, "retries": {"attempts": 1}},
    }
    api = await make_api(project(tmp_path, *["anything"] * 9, pipelines=pipelines, wait=0, errors=["any"]))
    for pipeline, attempts in (("ingester", 3), ("patient", 2), ("once", 1)):
        before = runs(api.folder)
        answer = await api.call("POST", JOBS, {"pipeline": pipeline})
        await api.finished(answer.json["jobId"])
        assert runs(api.folder) - before == attempts, pipeline


async def test_a_fabric_says_when_its_dbt_is_tried_again(tmp_path: Path, make_api: MakeApi) -> None:
    """A dbt that exits 0 and says nothing did not run."""
    dbt = {"executable": "true", "retries": {"attempts": 2, "wait": 0, "errors": ["any"]}}
    api = await make_api(projects.make(tmp_path, settings={"fabrics": {"local": {"dbt": dbt}}}))
    record = await api.run(pipeline="dbt", command="build", enableOpenlineage=False)
    assert "The step build runs as a whole again: its last attempt left no results." in record["notes"]
    assert [one["reason"] for one in record["steps"][0]["attempts"]] == ["not_started"] * 2
    assert record["reason"] == "not_started"


async def between_attempts(api: Api) -> str:
    """A job that waits for its second attempt; its id."""
    job = await api.trigger(pipeline="ingester")

    async def waits() -> bool:
        [step] = (await api.poll(job))["steps"]
        return bool(step.get("note"))

    await until(waits, "the end of the first attempt")
    return job


async def test_a_job_says_that_it_waits_for_its_next_attempt(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(project(tmp_path, REFUSED, wait=600, attempts=2, errors=["network"]))
    record = await api.poll(await between_attempts(api))
    [step] = record["steps"]
    assert (record["status"], record["phase"], step["status"]) == ("running", "ingester", "running")
    assert step["note"].startswith("attempt 2 of 2 begins at 20")
    assert [one["exitCode"] for one in step["attempts"]] == [3]


async def test_a_cancel_between_two_attempts_works_at_once(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(project(tmp_path, REFUSED, wait=600, attempts=2, errors=["network"]))
    job = await between_attempts(api)
    began = time.monotonic()
    assert (await api.call("POST", f"{JOBS}/{job}/cancel")).status == 202
    record = await api.finished(job)
    assert time.monotonic() - began < 10
    assert (record["reason"], record["outcome"], runs(api.folder)) == ("cancelled", "cancelled", 1)
    assert [(step["status"], step["exitCode"]) for step in record["steps"]] == [("failed", 3)]


def test_a_gateway_that_is_killed_between_two_attempts_goes_on_waiting(
    tmp_path: Path, make_gateway: MakeGateway
) -> None:
    gateway = make_gateway(project(tmp_path, REFUSED, wait=3, attempts=2, errors=["network"]))
    job = gateway.trigger(pipeline="ingester")
    wait_for(lambda: gateway.poll(job)["steps"][0].get("note"), "the end of the first attempt")
    gateway.kill()
    gateway.start()
    [step] = gateway.poll(job)["steps"]
    assert (step["status"], len(step["attempts"]), runs(tmp_path)) == ("running", 1, 1)
    record = gateway.finished(job)
    first, second = record["steps"][0]["attempts"]
    assert (record["exitCode"], first["exitCode"], second["exitCode"], runs(tmp_path)) == (0, 3, 0, 2)
    waited = wall(second["startedAt"]) - wall(first["finishedAt"])
    assert 2.9 < waited < 20, waited


def wall(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
