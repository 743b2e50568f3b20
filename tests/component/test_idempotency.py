"""Idempotency-Key: a trigger that is sent again makes no other job and gets the first answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway import clock
from gateway.clock import Instant
from gateway.errors import AnsweredError, ReusedKeyError
from gateway.jobs.planned import PlannedJob
from gateway.jobs.requests import RequestPlanner
from gateway.model.job import Completed
from gateway.model.request import KeptAnswer, RequestKey, TriggerRequest
from gateway.storage import answers
from gateway.storage.store import Store
from tests.conftest import MakeApi
from tests.support import access, projects
from tests.support.api import Api
from tests.support.gateway import PATH, Answer
from tests.support.jobs import ended, make_job

JOBS, NAMED = "/api/v1/jobs", "/api/trigger/pipeline"
# ends at once, unless there is a file `hold`
HOLDING = "while [ -e hold ]; do sleep 0.01; done"
SETTINGS: dict[str, Any] = {
    "trigger_burst": 1000,
    "fabrics": {"1": {}},
    "projects": {"1": {"dbt": "transform", "ingester": {"command": ["sh", "-c", HOLDING]}}},
}
BODIES: dict[str, dict[str, Any]] = {
    PATH: {"pipeline": "ingester"},
    NAMED: {"fabricId": 1, "projectId": "1", "pipelineName": "ingester"},
    JOBS: {"pipeline": "ingester", "onConflict": "queue"},
}


@pytest.fixture
async def api(tmp_path: Path, make_api: MakeApi) -> Api:
    return await make_api(projects.make(tmp_path / "project", settings=SETTINGS))


async def sent(api: Api, path: str, body: Any, *keys: str) -> Answer:
    return await api.call("POST", path, body, {"Idempotency-Key": keys[0]} if keys else {})


def what(answer: Answer) -> tuple[int, str | None, bytes]:
    return answer.status, answer.headers.get("Location"), answer.body


async def ids(api: Api) -> list[str]:
    return [job["jobId"] for job in (await api.get(f"{JOBS}?limit=200"))["jobs"]]


@pytest.mark.parametrize("path", BODIES)
async def test_a_trigger_sent_again_gets_its_first_answer_byte_for_byte(api: Api, path: str) -> None:
    (api.folder / "hold").touch()
    first = await sent(api, path, BODIES[path], "night 1")
    (api.folder / "hold").unlink()
    [job] = await ids(api)
    await api.finished(job)
    again = await sent(api, path, BODIES[path], "night 1")
    assert what(again) == what(first)
    assert ("Idempotent-Replayed" in first.headers, again.headers["Idempotent-Replayed"]) == (False, "true")
    assert await ids(api) == [job]


@pytest.mark.parametrize("path", BODIES)
async def test_a_hundred_equal_triggers_at_once_make_one_job(
    api: Api, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one plan: planning may call git and dbt."""
    plan, plans = RequestPlanner.plan, list[TriggerRequest]()

    async def counted(planner: RequestPlanner, request: TriggerRequest) -> PlannedJob:
        plans.append(request)
        return await plan(planner, request)

    monkeypatch.setattr(RequestPlanner, "plan", counted)
    answers = await asyncio.gather(*(sent(api, path, BODIES[path], "one") for _ in range(100)))
    assert len({what(answer) for answer in answers}) == 1
    assert answers[0].status in (200, 202)
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    assert (len(await ids(api)), len(plans)) == (1, 1)


async def test_a_key_with_another_body_is_refused(api: Api) -> None:
    first = await sent(api, PATH, BODIES[PATH], "k")
    assert first.status == 202
    answer = await sent(api, PATH, {"pipeline": "ingester", "onConflict": "queue"}, "k")
    assert (answer.status, answer.json["code"]) == (422, "idempotency_key_reused")
    assert "'k'" in answer.json["error"]
    assert len(await ids(api)) == 1


async def test_the_same_fields_in_another_spelling_are_the_same_body(api: Api) -> None:
    first = await sent(api, PATH, b'{"pipeline": "ingester", "onConflict": "queue"}', "k")
    again = await sent(api, PATH, b'{ "command": null, "onConflict":"queue","pipeline":"ingester" }', "k")
    assert what(again) == what(first)


async def test_the_same_key_on_another_path_is_another_key(api: Api) -> None:
    bodies = {**BODIES, PATH: {"pipeline": "ingester", "onConflict": "queue"}}
    for path, body in bodies.items():
        assert "Idempotent-Replayed" not in (await sent(api, path, body, "k")).headers
    assert len(await ids(api)) == len(bodies)


async def test_a_refused_trigger_keeps_no_answer(api: Api) -> None:
    (api.folder / "hold").touch()
    holder = await api.trigger(pipeline="ingester")
    assert (await sent(api, PATH, BODIES[PATH], "k")).status == 409
    (api.folder / "hold").unlink()
    await api.finished(holder)
    answer = await sent(api, PATH, BODIES[PATH], "k")
    assert answer.status == 202
    assert "Idempotent-Replayed" not in answer.headers


async def test_a_trigger_that_attached_gets_the_same_job_again(api: Api) -> None:
    (api.folder / "hold").touch()
    body = {"pipeline": "ingester", "onConflict": "attach"}
    holder = (await sent(api, JOBS, body)).json["jobId"]
    first = await sent(api, JOBS, body, "k")
    (api.folder / "hold").unlink()
    await api.finished(holder)
    again = await sent(api, JOBS, body, "k")
    assert (what(again), again.json["jobId"]) == (what(first), holder)


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "caf\xe9", "a\tb"])
async def test_a_key_that_is_no_printable_text_is_refused(api: Api, key: str) -> None:
    answer = await sent(api, PATH, BODIES[PATH], key)
    assert (answer.status, answer.json["code"]) == (400, "invalid_idempotency_key"), answer
    assert "Idempotency-Key: 6f1c" in answer.json["error"]
    assert await ids(api) == []


async def test_a_body_nested_too_deep_is_refused_with_a_key_too(api: Api) -> None:
    for depth in range(900, 1000, 7):
        body = f'{{"pipeline": "ingester", "parameters": {{"x": {"[" * depth}{"]" * depth}}}}}'
        assert (await sent(api, JOBS, body.encode(), "k")).status == 400


async def test_an_answer_is_kept_by_the_token_that_asked(tmp_path: Path, make_api: MakeApi) -> None:
    guarded = access.project(tmp_path / "project", SETTINGS)
    api = await make_api(guarded.folder, token=guarded.tokens["run"])
    body = {"pipeline": "ingester", "onConflict": "queue"}
    first = await sent(api, PATH, body, "k")
    api.token = guarded.tokens["admin"]
    other = await sent(api, PATH, body, "k")
    assert (first.status, other.status) == (202, 202)
    assert first.json["jobId"] != other.json["jobId"]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "gateway.db")
    yield opened
    await opened.close()


DAY = 86_400.0
KEY = RequestKey(PATH, "", "k", "asked")
GIVEN = KeptAnswer(202, "{}\n", "/there")


async def test_two_requests_that_planned_side_by_side_make_one_job(store: Store) -> None:
    """As where the first one's client was cut off while its job was being recorded."""
    jobs = [make_job(f"ingester-{n}-abc123") for n in range(3)]
    keys = [KEY, KEY, RequestKey(PATH, "", "k", "other")]
    results = await asyncio.gather(
        *(store.insert(job, once=(key, lambda *_: GIVEN)) for job, key in zip(jobs, keys, strict=True)),
        return_exceptions=True,
    )
    assert [type(result) for result in results[1:]] == [AnsweredError, ReusedKeyError]
    assert await store.known() == {jobs[0].id: False}
    assert await store.answer(KEY) == GIVEN


@pytest.mark.parametrize("reboots", [False, True])
async def test_an_answer_is_kept_a_day_by_a_clock_that_does_not_jump(store: Store, reboots: bool) -> None:
    now = Instant(1_800_000_000.0, 1_000.0, "boot-1")
    await store.insert(make_job(created=now), once=(KEY, lambda *_: GIVEN))

    def later(seconds: float) -> Instant:
        if reboots:
            return Instant(now.wall + seconds, 5.0, "boot-2")
        return Instant(now.wall + 10 * DAY, now.uptime + seconds, now.boot)

    await store.remove_answers(later(DAY - 1), DAY)
    assert await store.answer(KEY) == GIVEN
    await store.remove_answers(later(DAY), DAY)
    assert await store.answer(KEY) is None


async def test_the_kept_answers_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_MOST", 3)
    keys = [RequestKey(PATH, "", f"{n}", "asked") for n in range(5)]
    for number, key in enumerate(keys):
        job = make_job(f"ingester-{number}-abc123", created=clock.now())
        await store.insert(job, once=(key, lambda *_: GIVEN))
        await store.save(ended(job, Completed(0, None), clock.now()))
    await store.remove_answers(clock.now(), DAY)
    assert [await store.answer(key) is not None for key in keys] == [False, False, True, True, True]
    await store.delete("ingester-4-abc123")
    assert await store.answer(keys[4]) is None
