"""The jobs API: triggers, and waiting for a job's end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from runners.dbt.arguments import FLAG_COMMANDS
from tests.conftest import MakeApi
from tests.support import projects
from tests.support.api import Api
from tests.support.gateway import Answer

JOBS = "/api/v1/jobs"
WAITING = """
    import pathlib, time
    print("begun", flush=True)
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
"""
# ends at once, unless there is a file `hold`
HOLDING = 'echo "$@"; while [ -e hold ]; do sleep 0.01; done'
PIPELINES = {
    "load": {"ingester": True, "parameters": {"month": {"type": "integer", "option": "--month"}}},
    "gold": {"dbt": {"command": "run"}},
    "fresh": {
        "dbt": {"command": "build"},
        "parameters": {
            flag.name.lower(): {"type": "boolean", "flag": flag.value, "default": False}
            for flag in FLAG_COMMANDS
            if "build" in FLAG_COMMANDS[flag]
        },
    },
}


@pytest.fixture
async def api(tmp_path: Path, make_api: MakeApi) -> Api:
    """Two projects on three fabrics, one of which has no number."""
    shared = {"resources": {"ingester": "warehouse", "dbt": "warehouse"}}
    settings = {
        "fabrics": {"local": shared, "7": shared, "other": {}},
        "default_fabric": "local",
        "default_project": "small",
        "projects": {
            "small": {
                "dbt": "transform",
                "ingester": {"command": [sys.executable, "ingest.py"]},
                "pipelines": {"beside": {"ingester": True, "resources": {"ingester": "another"}}},
            },
            "41459": {
                "dbt": "transform",
                "ingester": {"command": ["sh", "-c", HOLDING, "sh"]},
                "pipelines": PIPELINES,
            },
        },
    }
    return await make_api(projects.make(tmp_path / "project", ingester=WAITING, settings=settings))


async def triggered(api: Api, **fields: Any) -> dict[str, Any]:
    """The record in the answer to a trigger, which must be accepted."""
    answer = await api.call("POST", JOBS, fields)
    assert answer.status == 202, answer
    assert answer.headers["Location"] == f"{JOBS}/{answer.json['jobId']}"
    return answer.json


async def refused(api: Api, status: int, code: str, **fields: Any) -> Answer:
    answer = await api.call("POST", JOBS, fields)
    assert (answer.status, answer.json["code"]) == (status, code), answer
    return answer


async def test_a_trigger_answers_the_whole_record_of_its_job(api: Api) -> None:
    record = await triggered(api, pipeline="ingester")
    (api.folder / "go").touch()
    ended = await api.finished(record["jobId"])
    assert set(record) | {"firstFailure"} >= set(ended)
    assert (record["projectId"], record["fabricId"], record["status"]) == ("small", "local", "running")
    assert record["logUrl"] == f"http://localhost{JOBS}/{record['jobId']}/log"
    assert (ended["outputBytes"], ended["outputDroppedBytes"]) == (len("begun\n"), 0)


async def test_a_pipeline_of_any_project_runs_on_any_fabric(api: Api) -> None:
    fields = {"pipeline": "load", "projectId": 41459, "fabricId": "other", "parameters": {"month": "3"}}
    record = await api.finished((await triggered(api, **fields))["jobId"])
    assert (record["projectId"], record["fabricId"], record["parameters"]) == ("41459", "other", {"month": 3})
    assert (await api.poll(record["jobId"]))["output"] == "--month=3\n"


async def test_a_built_in_pipeline_runs_on_the_named_project_and_fabric(api: Api) -> None:
    """With the toggles and commands of the data-analytics API."""
    fields: dict[str, Any] = {"projectId": "41459", "fabricId": 7, "command": "test", "enableOpenlineage": False}
    record = await triggered(api, pipeline="full", **fields)
    assert (record["projectId"], record["fabricId"], record["command"]) == ("41459", "7", "test")
    assert [step["name"] for step in record["steps"]] == ["ingester", "test"]
    assert record["enableOpenlineage"] is False


async def test_dbt_takes_the_flags_that_parameters_switch_on(api: Api) -> None:
    on = {flag.name.lower(): "true" for flag in FLAG_COMMANDS}
    given = {"pipeline": "fresh", "projectId": "41459", "parameters": on, "processName": "numbers"}
    record = await api.finished((await triggered(api, **given))["jobId"])
    assert record["exitCode"] == 0, record
    assert record["parameters"] == dict.fromkeys(on, True)
    spec = (api.folder / ".pipeline-gateway/jobs" / record["jobId"] / "1-build/spec.json").read_text("utf-8")
    assert all(f'"{flag}"' in spec for flag in FLAG_COMMANDS)


async def test_a_built_in_pipeline_stops_at_a_step_or_a_model(api: Api) -> None:
    fields = {"pipeline": "full", "projectId": "41459", "command": "build", "enableOpenlineage": False}
    record = await triggered(api, **fields, processName="ingester")
    assert [step["name"] for step in record["steps"]] == ["ingester"]
    await api.finished(record["jobId"])
    record = await api.finished((await triggered(api, **fields, processName="numbers"))["jobId"])
    assert (record["processName"], record["exitCode"]) == ("numbers", 0)
    assert record["progress"]["total"] == 3  # the model and its two tests, and not the model after it
    assert "evens" not in (await api.poll(record["jobId"]))["output"]


@pytest.mark.parametrize(
    ("fields", "status", "code", "said"),
    [
        ({}, 400, "missing_field", "'pipeline'"),
        ({"pipeline": "nightly"}, 404, "unknown_pipeline", "project `small`; there are: beside, ingester, dbt, full"),
        ({"pipeline": "full", "projectId": "9"}, 404, "unknown_project", "`9`"),
        ({"pipeline": "full", "fabricId": 9}, 404, "unknown_fabric", "`9`"),
        ({"pipeline": "dbt", "command": "compile"}, 400, "unknown_command", "'daily'"),
        ({"pipeline": "dbt", "parameters": {"month": 3}}, 400, "invalid_field", "month"),
        ({"pipeline": "dbt", "onConflict": "wait"}, 400, "invalid_field", "'onConflict' is \"wait\""),
        ({"pipeline": "dbt", "dryRun": True}, 400, "unknown_field", "'dryRun'"),
        ({"pipeline": "gold", "projectId": "41459", "command": "run"}, 400, "invalid_field", "declares its own"),
        ({"pipeline": "gold", "projectId": "41459", "enableElementary": True}, 400, "invalid_field", "'enableEl"),
    ],
)
async def test_a_wrong_trigger_is_refused_by_the_name_of_what_is_wrong(
    api: Api, fields: dict[str, Any], status: int, code: str, said: str
) -> None:
    answer = await refused(api, status, code, **fields)
    assert said in answer.json["error"]


async def test_a_conflict_is_refused_unless_the_trigger_may_queue(api: Api) -> None:
    first = (await triggered(api, pipeline="ingester"))["jobId"]
    answer = await refused(api, 409, "already_running", pipeline="ingester")
    assert answer.json["conflict"]["jobId"] == first
    second = await triggered(api, pipeline="ingester", onConflict="queue")
    assert (second["status"], second["waitsFor"]) == ("queued", [{"jobId": first, "resource": "warehouse"}])
    assert [job["jobId"] for job in (await api.get(f"{JOBS}?status=queued"))["jobs"]] == [second["jobId"]]
    (api.folder / "go").touch()
    await api.finished(second["jobId"])


async def test_a_trigger_may_attach_to_a_job_that_does_the_same(api: Api) -> None:
    asked = {"pipeline": "load", "projectId": "41459", "fabricId": "7", "parameters": {"month": 3}}
    (api.folder / "hold").touch()
    first = (await triggered(api, **asked, onConflict="attach"))["jobId"]
    assert (await triggered(api, **asked | {"parameters": {"month": "3"}}, onConflict="attach"))["jobId"] == first
    for other in ({"parameters": {"month": 4}}, {"parameters": None}, {"fabricId": "local"}, {"pipeline": "ingester"}):
        answer = await refused(api, 409, "already_running", **asked | {"parameters": None} | other, onConflict="attach")
        assert answer.json["conflict"]["jobId"] == first
    assert (await api.call("POST", f"{JOBS}/{first}/cancel")).status == 202
    (api.folder / "hold").unlink()
    await api.finished(first)


async def test_a_trigger_of_the_data_analytics_api_attaches_and_queues_too(api: Api) -> None:
    first = await api.trigger(pipeline="ingester")
    assert await api.trigger(pipeline="ingester", onConflict="attach") == first
    second = await api.trigger(pipeline="ingester", onConflict="queue")
    assert (await api.poll(second))["phase"] == "queued"
    (api.folder / "go").touch()
    await api.finished(second)


async def test_pipelines_with_resources_of_their_own_run_side_by_side(api: Api) -> None:
    first = (await triggered(api, pipeline="ingester"))["jobId"]
    beside = await triggered(api, pipeline="beside")
    assert beside["status"] == "running"
    await refused(api, 409, "already_running", pipeline="beside")
    (api.folder / "go").touch()
    await api.finished(first)
    await api.finished(beside["jobId"])


async def test_triggers_that_are_off_refuse_this_api_too(project: Path, make_api: MakeApi) -> None:
    api = await make_api(project, {"PIPELINE_ENABLED": "false"})
    answer = await api.call("POST", JOBS, {"pipeline": 7})
    assert (answer.status, answer.json["code"]) == (403, "pipelines_disabled")


async def test_a_job_of_this_api_is_one_of_all_apis(api: Api) -> None:
    job = (await triggered(api, pipeline="ingester"))["jobId"]
    assert [one["jobId"] for one in await api.jobs()] == [job]
    assert (await api.get(f"/api/trigger/pipeline/{job}"))["runStatus"] == "RUNNING"
    assert (await api.poll(job))["logUrl"].endswith(f"{JOBS}/{job}/log")
    (api.folder / "go").touch()
    await api.finished(job)


async def test_until_ended_is_answered_at_the_end_and_not_before(api: Api) -> None:
    job = (await triggered(api, pipeline="ingester"))["jobId"]
    short = await api.get(f"{JOBS}/{job}?wait=0.05&until=ended")
    assert short["phase"] != "ended"
    (api.folder / "go").touch()
    ended = await api.get(f"{JOBS}/{job}?wait=60&until=ended")
    assert ended["phase"] == "ended"
    tag = (await api.call("GET", f"{JOBS}/{job}")).headers["ETag"]
    answer = await api.call("GET", f"{JOBS}/{job}?wait=60&until=ended", headers={"If-None-Match": tag})
    assert answer.status == 304
    assert (await api.call("GET", f"{JOBS}/{job}?until=running")).status == 400
