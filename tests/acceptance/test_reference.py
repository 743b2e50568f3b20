"""Every example of the published reference, as printed except for the host, the port and the job's id.

A real gateway process, real bash, curl and jq, the real dbt and dbt-ol on DuckDB. Elementary is a stand-in package:
the real one comes from the dbt hub. The status and the headers of an answer, which the commands do not print, come from
curl's own configuration file, so that the commands stay as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import projects
from tests.support.bash import bash
from tests.support.gateway import PATH, Gateway
from tests.support.reference import EXAMPLES, POLL, POLL_UNTIL_DONE, QUICK_START, Example

LOCATION = re.compile(re.escape(PATH) + r"\?jobId=(?P<id>[A-Za-z0-9][A-Za-z0-9_.-]*)")


def poll_until_done(gateway: Gateway, job: str) -> dict[str, Any]:
    """The record with which the reference's loop ends."""
    text = bash(gateway, POLL_UNTIL_DONE.replace("dbt-1710460800000-abc123", job)).text
    *statuses, last = text.partition("{")[0].splitlines()
    assert set(statuses) <= {"Status: running"}
    assert last in ("Status: completed", "Status: failed")
    record: dict[str, Any] = json.loads(text[text.index("{") :])
    return record


def step_folder(gateway: Gateway, record: dict[str, Any], name: str) -> Path:
    steps = [step["name"] for step in record["steps"]]
    return gateway.state / "jobs" / str(record["jobId"]) / f"{steps.index(name) + 1}-{name}"


def built(gateway: Gateway, record: dict[str, Any]) -> list[str]:
    """The models that the steps of a job built, one entry for each time."""
    files = (gateway.state / "jobs" / record["jobId"]).glob("*/target/run_results.json")
    nodes = [result["unique_id"] for file in files for result in json.loads(file.read_bytes())["results"]]
    return sorted(node for node in nodes if node.startswith("model."))


def lineage_events(gateway: Gateway, record: dict[str, Any]) -> list[dict[str, Any]]:
    files = (gateway.state / "jobs" / record["jobId"]).glob("*/lineage.ndjson")
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway on a small project that has dbt-ol and Elementary, with no toggle set on the server."""
    folder = projects.make(tmp_path_factory.mktemp("reference") / "project")
    projects.add_elementary(folder / "transform")
    gateway = Gateway(folder).start()
    yield gateway
    gateway.stop()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_works_as_printed(gateway: Gateway, name: str) -> None:
    example = EXAMPLES[name]
    answer = bash(gateway, example.text)
    job = answer.json["jobId"]
    assert answer.status == 202
    assert re.fullmatch(rf"{example.pipeline}-[0-9]{{13}}-[a-z0-9]{{6}}", job)
    assert answer.json == {
        "success": True,
        "output": f'Pipeline "{example.pipeline}" started in background.',
        "exitCode": -1,
        "jobId": job,
        "status": "running",
    }
    location = LOCATION.fullmatch(answer.headers["Location"])
    assert location is not None
    assert location["id"] == job

    record = poll_until_done(gateway, job)
    assert (record["success"], record["status"], record["exitCode"]) == (True, "completed", 0), record
    assert (record["jobId"], record["pipeline"]) == (job, example.pipeline)
    assert [(step["name"], step["status"]) for step in record["steps"]] == [(s, "completed") for s in example.steps]
    assert ("Done. PASS=" in record["output"]) == (example.pipeline != "ingester")
    assert len(record["output"].encode()) <= 10_240
    uses_lineage_where_it_should(gateway, record, example)
    if "build" in example.steps:
        builds_everything_once(gateway, record)


def uses_lineage_where_it_should(gateway: Gateway, record: dict[str, Any], example: Example) -> None:
    """dbt-ol leaves events, dbt does not; deps and elementary are never dbt-ol's."""
    for name in example.steps:
        exists = (step_folder(gateway, record, name) / "lineage.ndjson").exists()
        assert exists == (example.lineage and name == "build"), name
    events = lineage_events(gateway, record)
    for event in events:
        assert event["eventType"] in ("START", "RUNNING", "COMPLETE", "FAIL", "ABORT", "OTHER")
        assert event["run"]["runId"]
        assert event["job"]["namespace"]
        assert event["job"]["name"]
    if example.lineage:
        assert {"START", "COMPLETE"} <= {event["eventType"] for event in events}


def builds_everything_once(gateway: Gateway, record: dict[str, Any]) -> None:
    """Elementary's models too: by its own step where there is one, else by build, which also makes missing tables."""
    own = ["model.small.evens", "model.small.numbers"]
    names = ("alerts", "dbt_run_results", "elementary_test_results")
    elementary = [f"model.elementary.{name}" for name in names]
    build = json.loads((step_folder(gateway, record, "build") / "target" / "run_results.json").read_bytes())
    in_build = [result["unique_id"] for result in build["results"] if "model.elementary." in result["unique_id"]]
    in_step = elementary if "elementary" in [step["name"] for step in record["steps"]] else []
    notes = gateway.call("GET", f"/api/v1/jobs/{record['jobId']}").json["notes"]
    are_missing = any("makes Elementary's models too" in note for note in notes)
    assert sorted(in_build) == (elementary if are_missing or not in_step else [])
    assert built(gateway, record) == sorted(own + in_build + in_step)


def test_the_quick_start_is_accepted_and_reads_as_running(gateway: Gateway) -> None:
    answer = bash(gateway, QUICK_START)
    job = answer.json["jobId"]
    assert (answer.status, answer.json["output"]) == (202, 'Pipeline "full" started in background.')
    polled = bash(gateway, POLL.replace("<jobId>", job))
    assert polled.status == 200
    assert {key: polled.json[key] for key in ("success", "jobId", "status", "exitCode")} == {
        "success": True,
        "jobId": job,
        "status": "running",
        "exitCode": -1,
    }
    gateway.call("POST", f"/api/v1/jobs/{job}/cancel")
    record = poll_until_done(gateway, job)
    assert (record["status"], record["success"], record["exitCode"]) == ("failed", False, -1)


def test_all_jobs_are_listed(gateway: Gateway) -> None:
    job = gateway.run(pipeline="ingester")["jobId"]
    listed = bash(gateway, 'curl -s "$BASE/api/data-analytics/pipeline/trigger" | jq .')
    assert (listed.status, listed.json["success"], listed.json["jobs"][0]["jobId"]) == (200, True, job)


def trigger(body: str) -> str:
    """A curl command in the reference's form."""
    return f"""
curl -s -X POST "$BASE/api/data-analytics/pipeline/trigger" \\
-H "Content-Type: application/json" \\
-d '{body}' | jq .
"""


@pytest.mark.parametrize(
    ("script", "status", "mentions"),
    [
        (trigger('{"pipeline": "everything"}'), 400, "everything"),
        (trigger('{"pipeline": "dbt", "command": "drop"}'), 400, "drop"),
        (trigger("{}"), 400, "pipeline"),
        (POLL.replace("<jobId>", "dbt-1710460800000-abc123"), 404, "dbt-1710460800000-abc123"),
    ],
)
def test_a_refusal_has_the_status_of_the_reference_and_its_reason(
    gateway: Gateway, script: str, status: int, mentions: str
) -> None:
    answer = bash(gateway, script)
    assert (answer.status, answer.json["success"]) == (status, False)
    assert mentions in answer.json["error"]
