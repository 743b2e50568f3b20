"""The queue: in order, bounded, across restarts, with a real database and the service over real HTTP."""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.app import REGISTRY, SETTINGS
from gateway.errors import HeldError, QueueFullError, StorageError
from gateway.model.job import Completed, Ended, Job, Queued, Running
from gateway.model.request import OnConflict, TriggerRequest
from gateway.model.transitions import begin
from gateway.storage import claims, job_file, restore
from gateway.storage import store as stores
from gateway.storage.claims import LONGEST_QUEUE
from gateway.storage.store import Store
from gateway.web import SERVICE
from gateway.web.server.access import CALLER
from tests.conftest import MakeApi, Tell
from tests.support import projects
from tests.support.api import Api, until
from tests.support.gateway import PATH
from tests.support.jobs import ended, held_by, later, make_job, planned, planned_job

DATABASE = "gateway.db"
DONE = Completed(0, None)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / DATABASE)
    yield opened
    await opened.close()


def needing(job_id: str, *resources: str, at: float = 0) -> Job:
    return make_job(job_id, plan=planned("ingester", resources=resources), created=later(at))


async def queued(store: Store, *jobs: Job) -> list[Job]:
    return [await store.insert(job, may_wait=True) for job in jobs]


async def test_a_job_is_queued_only_if_one_of_its_resources_is_held(store: Store) -> None:
    first, second, third = await queued(store, needing("1", "x"), needing("2", "x"), needing("3", "y"))
    assert (first.state, second.state, third.state) == (Running(), Queued(), Running())
    assert await store.active() == [first, second, third]
    assert [await store.holds_resources(job.id) for job in (first, second, third)] == [True, False, True]


async def test_queued_jobs_are_promoted_in_order_of_arrival(store: Store) -> None:
    jobs = await queued(store, *(needing(f"{number}", "x") for number in range(20)))
    for job, following in itertools.pairwise(jobs):
        assert await store.save(ended(job, DONE)) == [following.id]
        assert await store.holds_resources(following.id)
    assert await store.save(ended(jobs[-1], DONE)) == []
    assert await held_by(store, needing("new", "x")) is None


async def test_a_job_is_promoted_once_all_its_resources_are_free(
    store: Store,
) -> None:
    """No later job overtakes it meanwhile."""
    a, b, c, d = await queued(store, needing("a", "1"), needing("b", "2"), needing("c", "1", "2"), needing("d", "2"))
    assert await store.save(ended(b, DONE)) == []  # the resource of d is free, but c came before it
    assert await held_by(store, needing("new", "2")) == "c"
    assert await store.save(ended(a, DONE)) == ["c"]
    assert await store.save(ended(c, DONE)) == ["d"]
    assert await store.save(ended(d, DONE)) == []


async def test_a_cancelled_queued_job_blocks_no_other_job(store: Store) -> None:
    a, b, c, d = await queued(store, needing("a", "1"), needing("b", "2"), needing("c", "1", "2"), needing("d", "2"))
    await store.save(ended(b, DONE))
    assert await store.save(ended(c, DONE)) == ["d"]
    assert await store.save(ended(a, DONE)) == []
    assert await held_by(store, needing("new", "1")) is None
    assert await held_by(store, needing("late", "2")) == d.id


async def test_the_end_of_one_job_may_promote_several(store: Store) -> None:
    all_of_it, *others = await queued(store, needing("all", "1", "2", "3"), *(needing(n, n) for n in "321"))
    assert sorted(await store.save(ended(all_of_it, DONE))) == ["1", "2", "3"]
    assert all([await store.holds_resources(job.id) for job in others])


async def test_a_conflict_names_the_holder_else_the_first_queued_job(store: Store) -> None:
    await queued(store, needing("a", "1"), needing("b", "1", "2"), needing("c", "2"))
    assert await held_by(store, needing("x", "1")) == "a"
    assert await held_by(store, needing("x", "2")) == "b"
    assert await held_by(store, needing("x", "2", "1")) == "a"
    assert await store.get("x") is None
    assert await held_by(store, needing("x", "3")) is None


async def test_a_refusal_in_a_group_commit_does_not_affect_the_others(store: Store) -> None:
    [holder] = await queued(store, needing("holder", "x"))
    answers = await asyncio.gather(
        store.insert(needing("1", "x"), may_wait=True),
        store.insert(needing("2", "x")),
        store.insert(needing("3", "x"), may_wait=True),
        store.save(ended(holder, DONE)),
        store.insert(needing("4", "x")),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [Job, HeldError, Job, list, HeldError]
    assert answers[3] == ["1"]
    assert [job.id for job in await store.active()] == ["1", "3"]


async def test_a_full_queue_refuses_jobs_until_one_leaves_it(store: Store) -> None:
    jobs = await asyncio.gather(*(store.insert(needing(f"{n}", "x"), may_wait=True) for n in range(LONGEST_QUEUE + 1)))
    assert [isinstance(job.state, Queued) for job in jobs] == [False] + [True] * LONGEST_QUEUE
    with pytest.raises(QueueFullError, match="1,000 jobs wait"):
        await store.insert(needing("more", "x"), may_wait=True)
    assert await store.get("more") is None
    assert await held_by(store, needing("other", "y")) is None  # a job that need not wait is accepted
    await store.save(ended(jobs[500], DONE))  # cancelled
    [last] = await queued(store, needing("more", "x"))
    assert last.state == Queued()


@pytest.mark.parametrize("seed", range(20))
async def test_random_operations_keep_the_order_of_the_queue(tmp_path: Path, seed: int) -> None:
    """Against a model that has one rule: a job holds if no earlier job needs any of its resources."""
    rng, model = random.Random(seed), list[Job]()
    store = await Store.open(tmp_path / DATABASE)
    for number in range(150):
        if rng.random() < 0.1:
            await store.close()
            store = await Store.open(tmp_path / DATABASE)
            await store.promote_waiting()
        if model and rng.random() < 0.5:
            before = holding(model)
            gone = model.pop(rng.randrange(len(model)))
            promoted = await store.save(ended(gone, DONE))
            assert sorted(promoted) == sorted(holding(model) - before)
        else:
            job = needing(f"{number}", *rng.sample("abcde", rng.randint(1, 3)))
            may_wait = rng.random() < 0.8
            try:
                recorded = await store.insert(job, may_wait=may_wait)
            except HeldError:
                assert not may_wait
                assert job.id not in holding([*model, job])
            else:
                model.append(job)
                assert isinstance(recorded.state, Running) == (job.id in holding(model))
        assert {job.id for job in model if await store.holds_resources(job.id)} == holding(model)
    await store.close()


def holding(jobs: Iterable[Job]) -> set[str]:
    """The jobs that hold their resources, of jobs in order of arrival."""
    wanted, found = set[str](), set[str]()
    for job in jobs:
        if wanted.isdisjoint(job.plan.resources):
            found.add(job.id)
        wanted.update(job.plan.resources)
    return found


def write_to_folders(folder: Path, jobs: Iterable[Job]) -> Path:
    for job in jobs:
        (folder / job.id).mkdir(parents=True)
        job_file.write(folder / job.id, job)
    return folder


async def active_states(store: Store) -> list[tuple[str, str, bool]]:
    """Of every active job in order: its id, its state, and whether it holds its resources."""
    return [(job.id, job.state.kind, await store.holds_resources(job.id)) for job in await store.active()]


async def test_a_lost_database_is_restored_with_its_queue_in_order(store: Store, tmp_path: Path) -> None:
    jobs = [needing("d", "x", at=1), needing("c", "x", at=2), needing("b", "x", "y", at=3), needing("a", "y", at=4)]
    waiting = [jobs[0], *(replace(job, state=Queued()) for job in jobs[1:])]
    await restore.restore(store, write_to_folders(tmp_path / "jobs", waiting))
    assert await active_states(store) == [
        ("d", "running", True),
        ("c", "queued", False),
        ("b", "queued", False),
        ("a", "queued", False),
    ]
    assert await store.save(ended(jobs[0], DONE)) == ["c"]
    assert await store.save(ended(jobs[1], DONE)) == ["b"]
    assert await store.save(ended(jobs[2], DONE)) == ["a"]


async def test_after_a_restart_no_job_waits_for_a_job_that_has_ended(store: Store, tmp_path: Path) -> None:
    """That the holder ended and that the first queued job began is only in their folders."""
    a, b, c = await queued(store, needing("a", "x"), needing("b", "x"), needing("c", "x"))
    over = replace(ended(a, DONE), revision=9)
    began = replace(begin(b), revision=9)
    await restore.restore(store, write_to_folders(tmp_path / "jobs", [over, began, c]))
    assert await active_states(store) == [("b", "running", True), ("c", "queued", False)]


async def test_lost_claims_are_restored_for_running_jobs_before_queued_ones(store: Store, tmp_path: Path) -> None:
    await queued(store, needing("a", "x"), needing("b", "x"), needing("c", "y"), needing("d", "y"))
    await store.save(ended(needing("c", "y"), DONE))  # so that d is promoted, which its record does not say yet
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection, connection:
        connection.execute("DELETE FROM claim WHERE resource = 'x'")
    (tmp_path / "jobs").mkdir()
    await restore.restore(store, tmp_path / "jobs")
    assert await active_states(store) == [("a", "running", True), ("b", "queued", False), ("d", "queued", True)]


async def test_a_running_job_holds_its_resources_in_an_outdated_database_too(store: Store, tmp_path: Path) -> None:
    a, b = await queued(store, needing("a", "x"), needing("b", "x"))
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection, connection:
        connection.execute("UPDATE claim SET phase = 'over' WHERE phase = 'holds'")
    over, began = replace(ended(a, DONE), revision=9), replace(begin(b), revision=9)
    await restore.restore(store, write_to_folders(tmp_path / "jobs", [over, began]))
    assert await active_states(store) == [("b", "running", True)]


async def test_a_job_whose_claims_can_not_be_made_is_not_recorded(store: Store) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        await store.insert(needing("twice", "x", "x"))
    assert await store.get("twice") is None
    assert await held_by(store, needing("other", "x")) is None


async def test_the_last_job_of_a_pipeline_is_the_newest_accepted(store: Store) -> None:
    jobs = [replace(needing(f"{n}", f"{n}"), pipeline="p" if n % 2 else "q", project="a") for n in range(6)]
    for job in jobs:
        await store.insert(job)
    await store.save(ended(jobs[1], DONE, later(99)))
    assert await store.last_of_pipeline("a", "p") == jobs[5]
    assert await store.last_of_pipeline("a", "q") == jobs[4]
    assert await store.last_of_pipeline("b", "p") is None


# The queries of a trigger, of a job's end, and for the last job of a pipeline.
QUERIES = {
    "SELECT job FROM claim WHERE resource = ? AND phase = 'holds'": "claim_holder",
    "SELECT job FROM claim WHERE resource = ? AND phase = 'waits' ORDER BY job LIMIT 1": "claim_waiter",
    "SELECT count(*) FROM job WHERE state = 'queued'": "job_queued",
    stores._LAST: "job_of_pipeline",
    claims.BEFORE.partition("UNION ALL")[0]: "claim_holder",
    claims.BEFORE.partition("UNION ALL")[2]: "claim_waiter",
}
EVERYTHING = 100_000


async def test_indexes_keep_queries_fast_with_a_hundred_thousand_ended_jobs(tmp_path: Path, tell: Tell) -> None:
    file = tmp_path / DATABASE
    await (await Store.open(file)).close()
    _fill(file)
    with closing(sqlite3.connect(file)) as connection:
        for query, index in QUERIES.items():
            values = {"job": ""} if ":job" in query else ("",) * query.count("?")
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", values)]
            assert any(index in step for step in plan), (query, plan)
            assert not any(step.startswith("SCAN") and "USING" not in step for step in plan), (query, plan)
    store = await Store.open(file)
    try:
        await queued(store, needing("holder", "x"), *(needing(f"w{n}", "x") for n in range(500)))
        taken: dict[str, float] = {}
        for kind, may_wait, resource in (("free", False, "y"), ("waiting", True, "x")):
            jobs = [needing(f"{kind}-{n}", resource if may_wait else f"{resource}{n}") for n in range(50)]
            taken[f"insert of a {kind} job"] = await each_takes(store.insert(j, may_wait=may_wait) for j in jobs)
            taken[f"end of a {kind} job"] = await each_takes(store.save(ended(job, DONE)) for job in jobs)
        order = [needing("holder", "x"), *(needing(f"w{n}", "x") for n in range(50))]
        taken["end with a promotion"] = await each_takes(store.save(ended(job, DONE)) for job in order)
        taken["last of a pipeline"] = await each_takes(store.last_of_pipeline("default", "full") for _ in range(50))
    finally:
        await store.close()
    tell(
        f"with {EVERYTHING:,} ended jobs: " + ", ".join(f"{what} {1000 * took:.2f} ms" for what, took in taken.items())
    )
    assert max(taken.values()) < 0.05


async def each_takes(calls: Iterable[Coroutine[Any, Any, object]]) -> float:
    """The median of the seconds that each call takes, one after the other."""
    taken = []
    for call in calls:
        began = time.perf_counter()
        await call
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _fill(file: Path) -> None:
    """Insert many ended jobs, as the store writes them: one of them, each time with another id."""
    row = stores._row(ended(make_job("old-0"), DONE))
    rows = (
        [value.replace("old-0", f"old-{number}") if isinstance(value, str) else value for value in row]
        for number in range(EVERYTHING)
    )
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.executemany(stores._INSERT, rows)
        connection.execute("INSERT INTO claim SELECT seq, 'x', 'over' FROM job")


# Records that its job began, and waits for a file `go` or one with the job's name.
INGESTER = """
    import os, pathlib, time
    job = os.environ["PIPELINE_GATEWAY_STEP"].rsplit("/", 2)[1]
    with open("began", "a") as began:
        began.write(job + "\\n")
    while not (pathlib.Path("go").exists() or pathlib.Path("go-" + job).exists()):
        time.sleep(0.01)
"""
SUBMIT = "/test/submit"


async def _submit(request: web.Request) -> web.Response:
    wanted = await request.json()
    settings, service = request.app[SETTINGS], request.app[SERVICE]
    plan = planned("ingester", resources=wanted["resources"])
    trigger = TriggerRequest("ingester", on_conflict=OnConflict.QUEUE, caller=request[CALLER])
    fabric, project = settings.default_fabric, settings.default_project
    job = await service.accept(planned_job(request.app[REGISTRY], plan, trigger, fabric, project))
    return web.json_response({"jobId": job.id}, status=202)


class Waiting:
    """The service, which can be started again on the same folder."""

    def __init__(self, make_api: MakeApi, folder: Path) -> None:
        self.folder = projects.make(folder, ingester=INGESTER)
        self._make_api = make_api
        self.api: Api

    async def start(self) -> Waiting:
        self.api = await self._make_api(self.folder, routes=[web.post(SUBMIT, _submit)])
        return self

    async def submit(self, *resources: str) -> str:
        answer = await self.api.call("POST", SUBMIT, {"resources": resources or ["warehouse"]})
        assert answer.status == 202, answer
        return str(answer.json["jobId"])

    async def record(self, job: str) -> dict[str, Any]:
        return await self.api.get(f"/api/v1/jobs/{job}")

    def release(self, job: str = "") -> None:
        (self.folder / f"go-{job}" if job else self.folder / "go").touch()

    async def began(self, *jobs: str) -> None:
        """Wait until these jobs began, in this order, and no others."""

        async def so() -> bool:
            return self.order() == list(jobs)

        await until(so, f"{jobs} to have begun")

    def began_all(self, *jobs: str) -> Callable[[], Awaitable[bool]]:
        """Whether these began, in any order."""

        async def so() -> bool:
            return set(jobs) <= set(self.order())

        return so

    def order(self) -> list[str]:
        file = self.folder / "began"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
async def waiting(tmp_path: Path, make_api: MakeApi) -> AsyncIterator[Waiting]:
    made = await Waiting(make_api, tmp_path / "project").start()
    yield made
    made.release()


async def test_a_queued_job_reads_as_documented_and_runs_in_its_turn(waiting: Waiting) -> None:
    first = await waiting.submit()
    await waiting.began(first)
    second = await waiting.submit()
    poll, record = await waiting.api.poll(second), await waiting.record(second)
    expected = {"success": True, "status": "running", "phase": "queued", "exitCode": -1, "startedAt": None}
    assert {name: poll[name] for name in expected} == expected
    assert record["status"] == record["phase"] == "queued"
    assert [(job["jobId"], job["phase"]) for job in await waiting.api.jobs()] == [
        (second, "queued"),
        (first, "ingester"),
    ]
    watching = asyncio.create_task(waiting.api.get(f"/api/v1/jobs/{second}?wait=30"))
    waiting.release(first)
    await waiting.began(first, second)
    assert (await watching)["phase"] != "queued"  # the waiting request gets the change
    waiting.release(second)
    assert [(await waiting.api.finished(job))["exitCode"] for job in (first, second)] == [0, 0]


async def test_a_queued_job_says_which_jobs_it_waits_for(waiting: Waiting) -> None:
    a = await waiting.submit("x")
    b = await waiting.submit("y")
    c = await waiting.submit("x", "z")
    d = await waiting.submit("z", "x", "y")
    record = await waiting.record(d)
    expected = [(a, "x"), (b, "y"), (c, "x"), (c, "z")]
    assert sorted((before["jobId"], before["resource"]) for before in record["waitsFor"]) == sorted(expected)
    assert (await waiting.record(a))["waitsFor"] == []
    watching = asyncio.create_task(waiting.api.get(f"/api/v1/jobs/{d}?wait=60"))
    waiting.release(b)
    assert b not in [before["jobId"] for before in (await watching)["waitsFor"]]  # told when it changes
    for job in (a, c, d):
        waiting.release(job)
    assert (await waiting.api.finished(d))["waitsFor"] == []


async def test_a_409_names_the_job_that_holds_or_else_the_first_queued(waiting: Waiting) -> None:
    first = await waiting.submit("other")
    await waiting.began(first)
    second = await waiting.submit("other", "warehouse")
    refused = await waiting.api.call("POST", PATH, {"pipeline": "ingester"})
    assert refused.status == 409
    assert refused.headers["Retry-After"]
    assert refused.json["conflict"]["jobId"] == second
    assert refused.json["conflict"]["step"] == "queued"
    assert "comes first" in refused.json["error"]
    waiting.release(first)
    await waiting.began(first, second)
    refused = await waiting.api.call("POST", PATH, {"pipeline": "ingester"})
    assert (refused.status, refused.json["conflict"]["jobId"]) == (409, second)
    assert "is already running" in refused.json["error"]


async def test_cancelling_a_queued_job_ends_it_and_promotes_the_next(waiting: Waiting) -> None:
    a, b = await waiting.submit("1"), await waiting.submit("2")
    await until(waiting.began_all(a, b), "the first two")
    c, d = await waiting.submit("1", "2"), await waiting.submit("2")
    waiting.release(b)
    await waiting.api.finished(b)
    assert (await waiting.record(d))["phase"] == "queued"
    await waiting.api.call("POST", f"/api/v1/jobs/{c}/cancel")
    record = await waiting.record(c)
    assert (record["status"], record["success"], record["exitCode"]) == ("failed", False, -1)
    assert (record["reason"], record["phase"]) == ("cancelled", "ended")
    assert record["error"] == "The job was cancelled while it waited for its turn."
    assert [step["status"] for step in record["steps"]] == ["skipped"]
    assert record["stopped"] == {"signals": [], "seconds": 0.0, "processes": 0}
    assert [act["action"] for act in record["audit"]] == ["triggered", "cancelled"]
    await until(waiting.began_all(d), "the job behind it")
    assert c not in waiting.order()
    again = await waiting.api.call("POST", f"/api/v1/jobs/{c}/cancel")
    assert again.status == 200
    assert len((await waiting.record(c))["audit"]) == 2


async def test_a_cancel_is_carried_out_although_the_disk_is_full(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await waiting.submit()
    await waiting.began(first)
    second = await waiting.submit()
    save = Store.save

    async def refused(store: Store, job: Job) -> list[str]:
        if isinstance(job.state, Ended):
            raise StorageError("The disk is full, says the test.")
        return await save(store, job)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "save", refused)
        answer = await waiting.api.call("POST", f"/api/v1/jobs/{second}/cancel")
        assert (answer.status, answer.json["phase"]) == (202, "queued")
    assert (await waiting.api.finished(second))["reason"] == "cancelled"
    waiting.release()
    await waiting.api.finished(first)
    assert waiting.order() == [first]


async def test_a_full_queue_is_a_503_with_retry_after(waiting: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.storage.claims.LONGEST_QUEUE", 2)
    jobs = [await waiting.submit() for _ in range(3)]
    refused = await waiting.api.call("POST", SUBMIT, {"resources": ["warehouse"]})
    assert (refused.status, refused.json["code"]) == (503, "queue_full")
    assert int(refused.headers["Retry-After"]) > 0
    await waiting.api.call("POST", f"/api/v1/jobs/{jobs[1]}/cancel")
    await waiting.submit()


async def test_the_record_says_when_it_last_changed(waiting: Waiting) -> None:
    first = await waiting.submit()
    await waiting.began(first)
    waiting.release()
    await waiting.api.finished(first)
    job = job_file.read(waiting.folder / ".pipeline-gateway/jobs" / first)
    assert job is not None
    assert isinstance(job.state, Ended)
    assert job.updated is not None
    assert job.created.until(job.updated) > 0
    assert 0 <= job.state.at.until(job.updated) < 1
