"""Time limits of whole jobs: of a pipeline and of a request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeApi
from tests.support import projects
from tests.support.api import Api

JOBS = "/api/v1/jobs"
# waits as long as there is a file `hold`
HOLDING = "while [ -e hold ]; do sleep 0.01; done"
SETTINGS: dict[str, Any] = {
    "projects": {
        "small": {
            "dbt": "transform",
            "ingester": {"command": ["sh", "-c", HOLDING]},
            "pipelines": {
                "short": {"ingester": True, "time_limit": 0.5},
                "load": {"ingester": True, "time_limit": 3600},
            },
        },
    },
}


@pytest.fixture
async def api(tmp_path: Path, make_api: MakeApi) -> Api:
    folder = projects.make(tmp_path / "project", settings=SETTINGS)
    (folder / "hold").touch()
    return await make_api(folder)


async def triggered(api: Api, **fields: Any) -> str:
    answer = await api.call("POST", JOBS, fields)
    assert answer.status == 202, answer
    return str(answer.json["jobId"])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"pipeline": "short"}, "time_limit of the pipeline short"),
        ({"pipeline": "load", "timeoutSeconds": 0.5}, "timeoutSeconds of the trigger"),
        ({"pipeline": "full", "timeoutSeconds": 0.5}, "timeoutSeconds of the trigger"),
    ],
)
async def test_a_job_that_passes_its_time_limit_is_stopped(api: Api, fields: dict[str, Any], said: str) -> None:
    record = await api.finished(await triggered(api, **fields))
    assert (record["status"], record["exitCode"], record["reason"]) == ("failed", -1, "timed_out")
    assert "its time limit of 0.5 s and was stopped during the step ingester" in record["error"]
    assert said in record["error"]
    first, *others = (step["status"] for step in record["steps"])
    assert (first, set(others) <= {"skipped"}) == ("failed", True)
    assert record["steps"][0]["exitCode"] == 143


@pytest.mark.parametrize(
    ("pipeline", "seconds", "said"),
    [
        ("load", 3601, "time_limit of 3600 s in gateway.yaml: it must be at most that"),
        ("load", 0, "a number above 0"),
        ("load", -1, "a number above 0"),
        ("load", "60", '"timeoutSeconds": 3600'),
        ("ingester", 1e9, "31622400"),
    ],
)
async def test_a_time_limit_over_the_configured_one_is_refused(
    api: Api, pipeline: str, seconds: Any, said: str
) -> None:
    answer = await api.call("POST", JOBS, {"pipeline": pipeline, "timeoutSeconds": seconds})
    assert (answer.status, answer.json["code"]) == (400, "invalid_field")
    assert "'timeoutSeconds'" in answer.json["error"]
    assert said in answer.json["error"], answer.json


async def test_time_in_the_queue_does_not_count(api: Api) -> None:
    await api.call("POST", JOBS, {"pipeline": "short"})
    waiting = await triggered(api, pipeline="load", timeoutSeconds=0.4, onConflict="queue")
    while (await api.get(f"{JOBS}/{waiting}?wait=20"))["phase"] == "queued":
        pass
    (api.folder / "hold").unlink()
    record = await api.finished(waiting)
    assert (record["exitCode"], record["durationSeconds"] > 0.4) == (0, True), record


async def test_a_trigger_attaches_to_no_job_with_another_time_limit(api: Api) -> None:
    first = await triggered(api, pipeline="load", timeoutSeconds=60)
    assert await triggered(api, pipeline="load", timeoutSeconds=60, onConflict="attach") == first
    answer = await api.call("POST", JOBS, {"pipeline": "load", "timeoutSeconds": 30, "onConflict": "attach"})
    assert answer.status == 409
