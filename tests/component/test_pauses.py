"""Pausing a pipeline: what is refused, what goes on, and what a pause survives."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.jobs.planned import PlannedJob
from gateway.jobs.requests import RequestPlanner
from gateway.model.request import TriggerRequest
from tests.conftest import MakeApi, MakeGateway
from tests.support import access, projects
from tests.support.api import Api
from tests.support.gateway import PATH, Answer

JOBS, RUNS = "/api/v1/jobs", "/api/trigger/pipeline"
WAITING = """
    import pathlib, time
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
"""
SETTINGS: dict[str, Any] = {
    "fabrics": {"1": {"resources": {"ingester": "warehouse", "dbt": "warehouse"}}},
    "projects": {
        "shop": {
            "dbt": "transform",
            "ingester": {"command": [sys.executable, "ingest.py"]},
            "pipelines": {"load": {"ingester": True}},
        },
        "other": {"dbt": "transform", "ingester": {"command": ["true"]}},
    },
    "default_project": "shop",
}


@pytest.fixture
async def api(tmp_path: Path, make_api: MakeApi) -> Api:
    return await make_api(projects.make(tmp_path / "project", ingester=WAITING, settings=SETTINGS))


async def set_paused(api: Api, paused: object, pipeline: str = "shop/load") -> Answer:
    return await api.call("PUT", f"/api/v1/pipelines/{pipeline}/paused", {"paused": paused})


async def listed(api: Api, project: str = "shop", name: str = "load") -> dict[str, Any]:
    found = (await api.get("/api/v1/pipelines"))["pipelines"]
    [pipeline] = [one for one in found if (one["projectId"], one["name"]) == (project, name)]
    assert isinstance(pipeline, dict)
    return pipeline


def named(pipeline: str) -> dict[str, Any]:
    return {"fabricId": 1, "projectId": "shop", "pipelineName": pipeline}


async def test_every_api_refuses_the_triggers_of_a_paused_pipeline(api: Api) -> None:
    for pipeline in ("load", "full"):
        assert (await set_paused(api, True, f"shop/{pipeline}")).status == 200
    for path, body in (
        (JOBS, {"pipeline": "load"}),
        (JOBS, {"pipeline": "load", "onConflict": "queue"}),
        (JOBS, {"pipeline": "full", "onConflict": "attach"}),
        (PATH, {"pipeline": "full"}),
    ):
        answer = await api.call("POST", path, body)
        assert (answer.status, answer.json["code"]) == (409, "paused"), answer
        assert f"`pipeline-gateway unpause shop:{body['pipeline']}`" in answer.json["error"]
    answer = await api.call("POST", RUNS, named("load"))
    assert (answer.status, answer.json["success"]) == (409, False)
    assert "is paused since" in answer.json["msg"]
    assert await api.jobs() == []


async def test_other_pipelines_of_the_same_name_or_project_run_on(api: Api) -> None:
    await set_paused(api, True, "shop/ingester")
    for fields in ({"pipeline": "load"}, {"pipeline": "ingester", "projectId": "other", "onConflict": "queue"}):
        assert (await api.call("POST", JOBS, fields)).status == 202
    (api.folder / "go").touch()


async def test_a_pause_counts_for_a_trigger_that_is_being_planned(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = RequestPlanner.plan

    async def pausing(planner: RequestPlanner, request: TriggerRequest) -> PlannedJob:
        planned = await plan(planner, request)
        await set_paused(api, True)
        return planned

    monkeypatch.setattr(RequestPlanner, "plan", pausing)
    answer = await api.call("POST", JOBS, {"pipeline": "load"})
    assert (answer.status, answer.json["code"]) == (409, "paused")


async def test_a_pipeline_that_is_not_paused_any_more_runs(api: Api) -> None:
    await set_paused(api, True)
    answer = await set_paused(api, False)
    assert (answer.status, answer.json["paused"], answer.json["pausedSince"]) == (200, False, None)
    (api.folder / "go").touch()
    answer = await api.call("POST", JOBS, {"pipeline": "load"})
    assert (await api.finished(answer.json["jobId"]))["outcome"] == "succeeded"


async def test_what_runs_or_waits_when_its_pipeline_is_paused_goes_on(api: Api) -> None:
    fields = {"pipeline": "load", "onConflict": "queue"}
    running, queued, cancelled = [(await api.call("POST", JOBS, fields)).json["jobId"] for _ in range(3)]
    await set_paused(api, True)
    assert (await api.call("POST", f"{JOBS}/{cancelled}/cancel")).status == 202
    (api.folder / "go").touch()
    ended = [(await api.finished(job))["outcome"] for job in (running, queued, cancelled)]
    assert ended == ["succeeded", "succeeded", "cancelled"]


async def test_the_list_says_since_when_and_by_whom_a_pipeline_is_paused(tmp_path: Path, make_api: MakeApi) -> None:
    project = access.project(tmp_path / "project")
    api = await make_api(project.folder, token=project.tokens["admin"])
    assert not (await listed(api, "small", "dbt"))["paused"]
    first = (await set_paused(api, True, "small/dbt")).json
    assert (await set_paused(api, True, "small/dbt")).json == first  # the first pause counts
    assert first == await listed(api, "small", "dbt")
    assert (first["paused"], first["pausedBy"]) == (True, "admin")
    since = datetime.fromisoformat(first["pausedSince"])
    assert since.tzinfo is not None
    api.token = project.tokens["run"]
    refusal = (await api.call("POST", PATH, {"pipeline": "dbt"})).json["error"]
    assert f"paused since {first['pausedSince']} by the token admin" in refusal


async def test_only_the_scope_admin_pauses_and_allows_again(tmp_path: Path, make_api: MakeApi) -> None:
    project = access.project(tmp_path / "project")
    api = await make_api(project.folder, token=project.tokens["run"])
    answer = await set_paused(api, True, "small/dbt")
    assert (answer.status, answer.json["code"]) == (403, "insufficient_scope")


async def test_the_rate_limit_does_not_keep_a_person_from_pausing(tmp_path: Path, make_api: MakeApi) -> None:
    settings = {**SETTINGS, "trigger_rate": 0.001, "trigger_burst": 1}
    api = await make_api(projects.make(tmp_path / "project", settings=settings))
    assert [(await api.call("POST", JOBS, {})).status for _ in range(2)] == [400, 429]
    assert (await set_paused(api, True)).status == 200


@pytest.mark.parametrize(
    ("pipeline", "paused", "status", "code"),
    [
        ("shop/nothing", True, 404, "unknown_pipeline"),
        ("nothing/load", True, 404, "unknown_project"),
        ("shop/..%2Fload", True, 404, "unknown_pipeline"),
        ("shop/load", "yes", 400, "invalid_field"),
        ("shop/load", None, 400, "invalid_field"),
    ],
)
async def test_a_pause_that_can_not_be_is_refused(
    api: Api, pipeline: str, paused: object, status: int, code: str
) -> None:
    answer = await set_paused(api, paused, pipeline)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert not (api.folder / ".pipeline-gateway" / "paused").exists()


def test_a_pause_survives_a_kill_and_the_loss_of_the_database(tmp_path: Path, make_gateway: MakeGateway) -> None:
    """Also with a damaged file: the name of the file says what is paused."""
    gateway = make_gateway(projects.make(tmp_path / "project", settings=SETTINGS))
    for pipeline in ("load", "dbt"):
        answer = gateway.call("PUT", f"/api/v1/pipelines/shop/{pipeline}/paused", {"paused": True})
        assert answer.status == 200
    gateway.kill()
    (gateway.state / "paused" / "shop:dbt").write_bytes(b"\0" * 40)
    for file in gateway.state.glob("gateway.db*"):
        file.write_bytes(b"damaged")
    gateway.start()
    assert gateway.event("database damaged") is not None
    for path, body in ((JOBS, {"pipeline": "load"}), (PATH, {"pipeline": "dbt"})):
        refused = gateway.call("POST", path, body)
        assert (refused.status, refused.json["code"]) == (409, "paused")
    assert gateway.call("PUT", "/api/v1/pipelines/shop/dbt/paused", {"paused": False}).status == 200
    gateway.kill()
    gateway.start()
    assert gateway.call("POST", PATH, {"pipeline": "dbt"}).status == 202


async def test_a_pause_that_the_disk_refuses_is_no_pause(api: Api) -> None:
    state = api.folder / ".pipeline-gateway"
    (state / "paused").write_text("in the way")
    answer = await set_paused(api, True)
    assert (answer.status, answer.json["code"]) == (507, "storage_unavailable")
    assert not (await listed(api))["paused"]
