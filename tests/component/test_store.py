"""The job store: a real SQLite database, opened again as after a crash."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from gateway.clock import Instant
from gateway.errors import StateError
from gateway.model.job import Active, Cancelling, Completed, Ended, Failed, Finished, Reason, Skipped, StepState
from gateway.storage.store import Store
from runners.outcome import Exited, Killed, Lost, NotStarted, Stopped, TimedOut
from runners.report import Failure, Progress
from tests.support.jobs import NOON, SPAN, ended, held_by, later, make_job, planned

DONE = Completed(0, None)
DAY = 86_400.0


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "gateway.db")
    yield opened
    await opened.close()


async def after_a_crash(folder: Path) -> Store:
    """The database as the next process finds it, never closed."""
    crashed = folder / "crashed"
    crashed.mkdir(exist_ok=True)
    for name in ("gateway.db", "gateway.db-wal"):
        (crashed / name).write_bytes((folder / name).read_bytes())
    return await Store.open(crashed / "gateway.db")


async def test_an_accepted_job_is_durable_before_the_store_is_closed(store: Store, tmp_path: Path) -> None:
    job = make_job("a", plan=planned("ingester", "deps", resources=["x", "y"]))
    assert await held_by(store, job) is None
    again = await after_a_crash(tmp_path)
    assert await again.get("a") == job
    assert await again.active() == [job]
    assert await held_by(again, make_job("b", plan=planned("deps", resources=["y"]))) == "a"
    await again.close()


async def test_a_record_reads_back_unchanged_in_every_state(store: Store) -> None:
    failure = Failure("model.small.ümlaut 日本", "no such column", 2)
    progress = Progress(done=3, total=5, passed=1, warn=1, error=1, skip=0, current="orders")
    states: list[StepState] = [
        Finished(Exited(1, SPAN), progress, failure),
        Finished(Killed(9, SPAN), None, None),
        Finished(NotStarted("why", 0, SPAN), None, None),
        Finished(NotStarted("why"), None, None),
        Finished(TimedOut(143, SPAN), progress, None, NOON),
        Finished(Stopped(130, SPAN), None, None),
        Finished(Lost("why"), None, None),
        Skipped("packages unchanged"),
        Active(NOON, 2**40),
    ]
    job = make_job("a", plan=planned(*["run"] * len(states)))
    await store.insert(job)
    for n, state in enumerate(states):
        job = job.with_step(n, state)
        await store.save(job)
        assert await store.get("a") == job
    for last in (Cancelling(later(5)), Ended(later(9), Failed(Reason.CANCELLED, "It was cancelled."))):
        await store.save(replace(job, state=last))
        assert await store.get("a") == replace(job, state=last)


async def test_a_conflict_names_the_holder_and_leaves_nothing_behind(store: Store) -> None:
    await store.insert(make_job("holder", plan=planned("deps", resources=["y"])))
    loser = make_job("loser", plan=planned("ingester", "deps", resources=["x", "y", "z"]))
    assert await held_by(store, loser) == "holder"
    assert await store.get("loser") is None
    for resource in ("x", "z"):
        assert await held_by(store, make_job(f"next-{resource}", plan=planned("run", resources=[resource]))) is None


async def test_a_conflict_in_a_group_commit_does_not_affect_the_others(store: Store, tmp_path: Path) -> None:
    holder = make_job("holder")
    await store.insert(holder)
    jobs = [make_job(f"job-{n}", plan=planned("run", resources=[f"r{n}"])) for n in range(5)]
    group: list[Coroutine[Any, Any, object]] = [
        store.insert(jobs[0]),
        held_by(store, make_job("loser-1")),
        store.insert(jobs[1]),
        store.save(holder.with_step(0, Active(NOON, 0))),
        held_by(store, make_job("loser-2")),
        store.insert(jobs[2]),
    ]
    assert await asyncio.gather(*group) == [jobs[0], "holder", jobs[1], [], "holder", jobs[2]]
    again = await after_a_crash(tmp_path)
    assert [job.id for job in await again.active()] == ["holder", "job-0", "job-1", "job-2"]
    await again.close()


async def test_a_bug_in_one_write_does_not_affect_the_others_of_its_group(store: Store, tmp_path: Path) -> None:
    async def not_unicode(connection: aiosqlite.Connection) -> None:
        await connection.execute_fetchall("UPDATE job SET outcome = ?", ("\udcfc",))

    async def too_few_values(connection: aiosqlite.Connection) -> None:
        await connection.execute_fetchall("DELETE FROM job WHERE id = ?", ())

    jobs = [make_job(f"job-{n}", plan=planned("run", resources=[f"r{n}"])) for n in range(3)]
    group = [store.insert(jobs[0]), store._write(not_unicode), store.insert(jobs[1]), store._write(too_few_values)]
    first, encoding, second, values, third = await asyncio.gather(*group, store.insert(jobs[2]), return_exceptions=True)
    assert [first, second, third] == jobs
    assert isinstance(encoding, UnicodeEncodeError)
    assert isinstance(values, sqlite3.ProgrammingError)
    again = await after_a_crash(tmp_path)
    assert [job.id for job in await again.active()] == ["job-0", "job-1", "job-2"]
    await again.close()


async def test_a_job_id_is_accepted_only_once(store: Store) -> None:
    await store.insert(make_job("a"))
    with pytest.raises(sqlite3.IntegrityError):
        await store.insert(make_job("a", plan=planned("run", resources=["other"])))
    assert await held_by(store, make_job("b", plan=planned("run", resources=["other"]))) is None


async def test_resources_are_released_when_the_job_ends_and_not_before(store: Store) -> None:
    job = make_job("a", plan=planned("run", resources=["x", "y"]))
    await store.insert(job)
    for step in (Active(NOON, 0), Finished(Exited(0, SPAN), None, None)):
        await store.save(job.with_step(0, step))
        assert await held_by(store, make_job("b", plan=planned("run", resources=["y"]))) == "a"
    await store.save(ended(job, DONE))
    assert await held_by(store, make_job("b", plan=planned("run", resources=["y"]))) is None
    assert await held_by(store, make_job("c", plan=planned("run", resources=["x"]))) is None


async def test_an_ended_job_never_changes_again(store: Store) -> None:
    job = make_job("a")
    await store.insert(job)
    first = ended(job, Completed(1, None))
    await store.save(first)
    for change in (job, replace(job, state=Cancelling(NOON)), ended(job, Failed(Reason.UNKNOWN, "Lost."), later(9))):
        await store.save(change)
        assert await store.get("a") == first
    assert await store.active() == []
    assert await held_by(store, make_job("b")) is None  # and it holds nothing any more
    await store.save(job)
    assert await held_by(store, make_job("c")) == "b"


async def test_exactly_one_of_200_simultaneous_triggers_wins(store: Store) -> None:
    ids = [f"job-{number}" for number in range(200)]
    random.shuffle(ids)
    answers = await asyncio.gather(*(held_by(store, make_job(job_id)) for job_id in ids))
    [winner] = [job_id for job_id, answer in zip(ids, answers, strict=True) if answer is None]
    assert [answer for answer in answers if answer not in (None, winner)] == []
    assert [job.id for job in await store.active()] == [winner]


@pytest.mark.parametrize("jump", [-DAY, 0.0, DAY])
async def test_a_clock_jump_does_not_change_the_list(store: Store, jump: float) -> None:
    for job_id, age in (("old", 3600), ("recent", 3599), ("now", 0)):
        job = make_job(job_id)
        await store.insert(job)
        await store.save(ended(job, DONE, later(-age)))
    await store.insert(make_job("active", created=later(-30 * DAY)))
    now = Instant(NOON.wall + jump, NOON.uptime, NOON.boot)
    assert [job.id for job in await store.recent(now, 3600)] == ["active", "now", "recent"]
    assert await store.ended_before(now, 3600) == ["old"]


async def test_after_a_reboot_the_wall_clock_gives_the_age_of_a_job(store: Store) -> None:
    for job_id, age in (("old", 3600), ("recent", 3599)):
        job = make_job(job_id)
        await store.insert(job)
        await store.save(ended(job, DONE, later(-age)))
    now = Instant(NOON.wall, 7.0, "boot-2")
    assert [job.id for job in await store.recent(now, 3600)] == ["recent"]
    assert await store.ended_before(now, 3600) == ["old"]


async def test_lists_are_in_order_of_acceptance_whatever_the_clock_says(store: Store) -> None:
    for number, wall in enumerate((5.0, 1.0, 9.0)):
        job = make_job(f"job-{number}", created=later(-wall))
        await store.insert(job)
        await store.save(ended(job, DONE, later(-wall)))
    names = ["job-0", "job-1", "job-2"]
    assert list(await store.known()) == names
    assert await store.ended_before(later(100), 10) == names
    assert [job.id for job in await store.recent(later(1), 3600)] == names[::-1]


async def test_active_jobs_are_listed_however_many_ended_recently(store: Store) -> None:
    await store.insert(make_job("active"))
    jobs = [make_job(f"job-{number}", plan=planned("run", resources=[f"r{number}"])) for number in range(1000)]
    await asyncio.gather(*(store.insert(job) for job in jobs))
    await asyncio.gather(*(store.save(ended(job, DONE)) for job in jobs))
    assert "active" in [job.id for job in await store.recent(later(1), 3600)]


async def test_only_an_ended_job_is_deleted_and_its_claims_with_it(store: Store, tmp_path: Path) -> None:
    job = make_job("a")
    await store.insert(job)
    await store.delete("a")
    assert await store.get("a") == job
    await store.save(ended(job, DONE))
    await store.delete("a")
    await store.delete("a")
    assert (await store.get("a"), await store.known()) == (None, {})
    with sqlite3.connect(tmp_path / "gateway.db") as connection:
        assert connection.execute("SELECT count(*) FROM claim").fetchone() == (0,)
    connection.close()


async def test_an_unknown_job_is_none(store: Store) -> None:
    assert await store.get("unknown") is None


async def test_closing_twice_is_harmless_and_any_use_afterwards_raises(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "gateway.db")
    waiting = asyncio.gather(
        *(held_by(store, make_job(f"j{n}", plan=planned("run", resources=[f"r{n}"]))) for n in range(9))
    )
    await asyncio.sleep(0)
    await store.close()
    await store.close()
    assert await waiting == [None] * 9  # pending writes were done first
    for use in (store.insert(make_job("x")), store.save(make_job("x")), store.delete("x"), store.get("x")):
        with pytest.raises(StateError, match="closed"):
            await use
    for use_ in (store.active(), store.recent(NOON, 1), store.ended_before(NOON, 1), store.known()):
        with pytest.raises(StateError, match="closed"):
            await use_
    again = await Store.open(tmp_path / "gateway.db")
    assert len(await again.active()) == 9
    await again.close()


async def test_a_cancelled_caller_does_not_cancel_its_write(store: Store) -> None:
    task = asyncio.create_task(store.insert(make_job("a")))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert await held_by(store, make_job("b")) == "a"
