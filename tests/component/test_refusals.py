"""Refused triggers in the history: which are kept, how they are found, and that keeping them changes no answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ConflictError, StorageError
from gateway.fabrics.fabric import ContainerConflict
from gateway.fabrics.local import LocalFabric
from gateway.model.history import JobFilter, Refusal
from gateway.storage import claims, refusals
from gateway.storage.store import Store
from tests.conftest import MakeApi
from tests.support import projects
from tests.support.api import Api

JOBS, REFUSED = "/api/v1/jobs", "/api/v1/jobs?status=refused"
# ends at once, unless there is a file `hold`
HOLDING = "while [ -e hold ]; do sleep 0.01; done"
PROJECT = {
    "dbt": "transform",
    "ingester": {"command": ["sh", "-c", HOLDING]},
    "pipelines": {"l": {"ingester": True}},
}
SETTINGS: dict[str, Any] = {
    "trigger_burst": 100,
    "fabrics": {"1": {"resources": {"ingester": "w", "dbt": "w"}}, "2": {"resources": {"ingester": "w"}}},
    "default_fabric": "1",
    "default_project": "1",
    "projects": {"1": PROJECT, "2": PROJECT},
}
FIELDS = {"createdAt", "pipeline", "code", "error", "conflict"}


@pytest.fixture
async def api(tmp_path: Path, make_api: MakeApi) -> AsyncIterator[Api]:
    """With a job that holds what every other one needs."""
    folder = projects.make(tmp_path / "project", settings=SETTINGS)
    (folder / "hold").touch()
    yield await make_api(folder)
    (folder / "hold").unlink()


async def refused(api: Api, **fields: Any) -> dict[str, Any]:
    answer = await api.call("POST", JOBS, fields)
    assert answer.status in (409, 503), answer
    return answer.json


async def listed(api: Api, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await api.get(f"{REFUSED}{query}"))["jobs"]
    return found


async def test_a_refused_trigger_is_listed_with_what_it_was_told(api: Api) -> None:
    holder = await api.trigger(pipeline="ingester")
    answer = await refused(api, pipeline="dbt", command="deps", onConflict="attach")
    [found] = await listed(api)
    assert set(found) == FIELDS
    assert (found["pipeline"], found["code"], found["error"]) == ("dbt", "already_running", answer["error"])
    assert found["conflict"] == answer["conflict"]
    assert found["conflict"]["jobId"] == holder
    jobs = (await api.get(JOBS))["jobs"]
    assert [job["jobId"] for job in jobs] == [holder]
    assert found["createdAt"] > jobs[0]["createdAt"]


async def test_a_full_queue_and_a_container_in_the_way_are_listed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.trigger(pipeline="ingester")
    with monkeypatch.context() as patch:
        patch.setattr(claims, "LONGEST_QUEUE", 0)
        await refused(api, pipeline="ingester", onConflict="queue")

    async def conflict(*_: object) -> ContainerConflict:
        return ContainerConflict("shop-dbt-run-1", "dbt", 1_800_000_000.0, "end it")

    with monkeypatch.context() as patch:
        patch.setattr(LocalFabric, "container_conflict", conflict)
        await refused(api, pipeline="ingester", onConflict="queue")
    container, full = await listed(api)
    assert (full["code"], full["conflict"]) == ("queue_full", None)
    assert (container["code"], container["conflict"]["container"]) == ("already_running", "shop-dbt-run-1")


async def test_other_refusals_are_not_listed(api: Api) -> None:
    for fields in ({"pipeline": "nightly"}, {"pipeline": "dbt", "command": "all"}, {"pipeline": "l", "fabricId": "9"}):
        assert (await api.call("POST", JOBS, fields)).status in (400, 404)
    assert await listed(api) == []


async def test_refusals_are_found_by_filters_and_pages(api: Api) -> None:
    await api.trigger(pipeline="ingester")
    for fields in ({"pipeline": "l"}, {"pipeline": "l", "projectId": "2"}, {"pipeline": "ingester", "fabricId": "2"}):
        await refused(api, **fields)
    newest, middle, oldest = await listed(api)
    assert await listed(api, "&pipeline=l") == [middle, oldest]
    assert await listed(api, "&project=2") == [middle]
    assert await listed(api, "&fabric=2,3") == [newest]
    at = middle["createdAt"].replace("+", "%2B")
    assert await listed(api, f"&since={at}") == [newest, middle]
    assert await listed(api, f"&until={at}") == [oldest]
    page = await api.get(f"{REFUSED}&limit=2")
    await refused(api, pipeline="l")
    assert page["jobs"] == [newest, middle]
    assert await api.get(f"{REFUSED}&limit=2&cursor={page['next']}") == {"jobs": [oldest], "next": None}


@pytest.mark.parametrize("query", ["status=refused,failed", "status=refused&outcome=errors", "status=refused,refused"])
async def test_refusals_are_listed_alone(api: Api, query: str) -> None:
    answer = await api.call("GET", f"{JOBS}?{query}")
    assert (answer.status, answer.json["code"]) == (400, "invalid_field")
    assert "?status=refused&pipeline=full" in answer.json["error"]


async def test_a_disk_that_refuses_the_refusal_changes_no_answer(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.trigger(pipeline="ingester")

    async def full(*_: object) -> None:
        raise StorageError("The disk is full.")

    monkeypatch.setattr(Store, "add_refusal", full)
    assert (await refused(api, pipeline="ingester"))["code"] == ConflictError.code
    assert await listed(api) == []


async def test_only_the_newest_refusals_are_kept(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "gateway.db")
    one = Refusal(0, "p", "f", "full", "queue_full", "Full.", None)
    try:
        await asyncio.gather(*(store.add_refusal(one) for _ in range(refusals.MOST + 5)))
        found, following = await store.refusals(JobFilter(), None, 2 * refusals.MOST)
    finally:
        await store.close()
    assert (len(found), following) == (1000, None)
