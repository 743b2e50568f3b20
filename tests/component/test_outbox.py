"""The outbox: what is written with the end of a job, and how long it stays; a real database."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway import clock
from gateway.clock import Instant
from gateway.model.job import Completed, Ending, Failed, Job, Reason
from gateway.model.notification import NotificationState
from gateway.settings.notify import NotifySettings
from gateway.storage import job_file, outbox, restore
from gateway.storage.outbox import LIFETIME
from gateway.storage.store import Store
from tests.support.jobs import NOON, ended, later, make_job, planned

GOOD, BAD = Completed(0, None), Completed(1, None)
CANCELLED = Failed(Reason.CANCELLED, "It was cancelled.")
HOUR = 3600.0
SHOP = ("default", "other")  # projects


def receiver(name: str = "a", **given: Any) -> NotifySettings:
    return NotifySettings.model_validate({"name": name, "command": ["true"], **given})


def wants_late(name: str = "a") -> NotifySettings:
    return receiver(name, outcomes=["late"], late_after=HOUR, pipelines=["full"])


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[Instant]:
    """The clock of the gateway: the last of these."""
    moments = [NOON]
    monkeypatch.setattr(clock, "now", lambda: moments[-1])
    return moments


@asynccontextmanager
async def opened(file: Path) -> AsyncIterator[Store]:
    store = await Store.open(file)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(tmp_path: Path, now: list[Instant]) -> AsyncIterator[Store]:
    assert now
    async with opened(tmp_path / "gateway.db") as one:
        yield one


async def ends(store: Store, name: str, ending: Ending, at: Instant = NOON, **fields: Any) -> None:
    job = replace(make_job(name, plan=planned("run", resources=[])), **fields)
    await store.insert(job)
    await store.save(replace(job, state=ended(job, ending, at).state))


async def told(store: Store, name: str) -> list[tuple[str, str, str]]:
    return [(one.to, one.outcome, one.state) for one in await store.outbox.of_job(name)]


async def test_a_message_is_in_the_commit_that_ends_its_job(store: Store, tmp_path: Path) -> None:
    store.outbox.receivers = (receiver("a"), receiver("b", outcomes=["succeeded"]))
    statements: list[str] = []
    await store._writer.set_trace_callback(statements.append)
    await ends(store, "job", BAD)
    ordered = [line.split("(")[0].strip() for line in statements]
    added = ordered.index("INSERT OR IGNORE INTO outbox")
    update = max(n for n, line in enumerate(ordered[:added]) if line.startswith("INSERT INTO job"))
    assert "COMMIT" not in ordered[update:added]
    assert await told(store, "job") == [("a", "errors", "waiting")]
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as connection:  # as another process finds it
        assert connection.execute("SELECT receiver, state FROM outbox").fetchall() == [("a", "waiting")]


async def test_the_message_with_the_fewest_attempts_is_next(store: Store) -> None:
    store.outbox.receivers = (receiver("a"), receiver("b"))
    for name in ("one", "two"):
        await ends(store, name, BAD)
    first = await store.outbox.next("a")
    assert first is not None
    await store.outbox.tried(first, NotificationState.WAITING, "refused")
    second = await store.outbox.next("a")
    assert second is not None
    assert (first.job, second.job) == ("one", "two")
    await store.outbox.tried(second, NotificationState.DELIVERED, None)
    assert await store.outbox.next("a") == first
    [kept] = [one for one in await store.outbox.of_job("one") if one.to == "a"]
    assert (kept.attempts, kept.error, kept.state) == (1, "refused", "waiting")
    assert await told(store, "two") == [("a", "errors", "delivered"), ("b", "errors", "waiting")]
    other = await store.outbox.next("b")
    assert other is not None
    assert other.id != first.id


async def test_a_receiver_has_at_most_1000_messages_waiting(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outbox.MOST_WAITING == 1000
    monkeypatch.setattr(outbox, "MOST_WAITING", 3)
    store.outbox.receivers = (receiver("a"), receiver("b", pipelines=["dbt"]))
    for number in range(4):
        await ends(store, f"job-{number}", BAD)
    assert await told(store, "job-2") == [("a", "errors", "waiting")]
    [over] = await store.outbox.of_job("job-3")
    assert (over.state, over.attempts, over.error) == ("given_up", 0, "3 messages waited for this receiver already")
    await ends(store, "dbt", BAD, pipeline="dbt")
    assert await told(store, "dbt") == [("a", "errors", "given_up"), ("b", "errors", "waiting")]


@pytest.mark.parametrize("jump", [0, -30 * LIFETIME, 30 * LIFETIME])
async def test_a_message_is_given_up_after_a_day_by_the_uptime(store: Store, now: list[Instant], jump: float) -> None:
    store.outbox.receivers = (receiver(),)
    await ends(store, "job", BAD)
    message = await store.outbox.next("a")
    assert message is not None
    await store.outbox.tried(message, NotificationState.WAITING, "refused")
    for seconds, given_up in ((LIFETIME - 1, 0), (LIFETIME, 1)):
        at = later(seconds)
        assert await store.outbox.give_up(Instant(at.wall + jump, at.uptime, at.boot)) == given_up
    [kept] = await store.outbox.of_job("job")
    assert (kept.state, kept.attempts, kept.error) == ("given_up", 1, "given up after a day: refused")
    assert await store.outbox.next("a") is None
    assert now


async def test_a_message_to_a_receiver_that_is_no_more_is_given_up(store: Store) -> None:
    store.outbox.receivers = (receiver("a"), receiver("b"))
    await ends(store, "job", BAD)
    store.outbox.receivers = (receiver("b"),)
    assert await store.outbox.give_up(NOON) == 1
    gone, kept = await store.outbox.of_job("job")
    assert (gone.to, gone.error) == ("a", "the configuration has no such receiver any more")
    assert (kept.to, kept.state) == ("b", "waiting")


async def test_messages_go_with_the_record_of_their_job(store: Store, tmp_path: Path) -> None:
    store.outbox.receivers = (receiver(),)
    await ends(store, "job", BAD)
    await store.delete("job")
    assert await store.outbox.next("a") is None
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as connection:
        assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (0,)


async def test_a_pipeline_is_recovered_also_after_a_cancelled_job(store: Store) -> None:
    store.outbox.receivers = (receiver(outcomes=["recovered"]),)
    endings: dict[str, Ending] = {"1": GOOD, "2": BAD, "3": CANCELLED, "4": GOOD, "5": GOOD}
    for name, ending in endings.items():
        await ends(store, name, ending)
        await ends(store, f"of-another-project-{name}", GOOD, project="other")
        await ends(store, f"of-another-pipeline-{name}", GOOD, pipeline="dbt")
    found = [name for name in await store.known() if await told(store, name)]
    assert found == ["4"]


async def look(store: Store, now: list[Instant], seconds: float) -> None:
    """Look for what is late, so many seconds after noon."""
    now.append(later(seconds))
    await store.outbox.give_up(now[-1])
    await store.outbox.look_for_late(SHOP, now[-1])


async def test_a_late_pipeline_is_told_once_until_it_is_good_again(store: Store, now: list[Instant]) -> None:
    store.outbox.receivers = (wants_late(),)
    await look(store, now, 0)  # there is no job yet
    await ends(store, "good", GOOD, NOON)
    await ends(store, "bad", BAD, later(HOUR - 10))
    await look(store, now, HOUR - 1)
    assert await told(store, "bad") == []
    await look(store, now, HOUR)
    await look(store, now, 2 * HOUR)
    assert await told(store, "bad") == [("a", "late", "waiting")]
    await ends(store, "worse", BAD, later(2 * HOUR))
    await look(store, now, 9 * HOUR)
    assert await told(store, "worse") == []
    await ends(store, "good again", GOOD, later(9 * HOUR))
    await look(store, now, 10 * HOUR - 1)
    assert await told(store, "good again") == []
    await look(store, now, 10 * HOUR)
    assert await told(store, "good again") == [("a", "late", "waiting")]


async def test_a_late_pipeline_is_told_once_across_restarts(tmp_path: Path, now: list[Instant]) -> None:
    """Also where the records of its jobs have expired meanwhile."""
    for turn in range(3):
        async with opened(tmp_path / "gateway.db") as store:
            store.outbox.receivers = (wants_late(),)
            await ends(store, f"bad-{turn}", BAD, later(turn))
            if turn == 2:
                await store.delete("bad-0")
            await look(store, now, (turn + 1) * HOUR)
            assert await told(store, f"bad-{turn}") == ([("a", "late", "waiting")] if turn == 0 else []), turn


async def test_each_project_and_each_receiver_is_late_by_itself(store: Store, now: list[Instant]) -> None:
    store.outbox.receivers = (wants_late("a"), wants_late("b"), receiver("c"))
    await ends(store, "one", GOOD)
    await ends(store, "two", GOOD, project="other")
    await ends(store, "not configured any more", GOOD, project="gone")
    await ends(store, "three", GOOD, later(HOUR), project="other")
    await look(store, now, HOUR + 1)
    assert await told(store, "one") == [("a", "late", "waiting"), ("b", "late", "waiting")]
    for name in ("two", "three", "not configured any more"):
        assert await told(store, name) == []


def kept(folder: Path, job: Job) -> None:
    job_file.write(folder / job.id, job)


async def test_a_lost_database_tells_the_last_day_again_with_the_same_ids(tmp_path: Path, now: list[Instant]) -> None:
    jobs = tmp_path / "jobs"
    fresh = ended(make_job("fresh", plan=planned("run", resources=[])), BAD, NOON)
    kept(jobs, fresh)
    kept(jobs, ended(make_job("old", plan=planned("run", resources=[])), BAD, later(-LIFETIME)))
    now.append(later(1))
    ids = []
    for turn in range(2):
        async with opened(tmp_path / f"{turn}.db") as store:
            store.outbox.receivers = (receiver(),)
            await restore.restore(store, jobs)
            assert await told(store, "old") == []
            message = await store.outbox.next("a")
            assert message is not None
            assert message.job == "fresh"
            ids.append(message.id)
    assert ids[0] == ids[1]
