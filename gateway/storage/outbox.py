"""The tables of what is told to others: a row of the outbox for each message to a receiver, and who knows what is late.

A message is written in the transaction that ends its job, so it is lost with that end or not at all. Its id is made of
what it is about: where a lost database is restored, the same message has the same id again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import aiosqlite
import structlog

from gateway import clock
from gateway.clock import Instant
from gateway.model.job import Ended, Job, JobOutcome
from gateway.model.notification import Notification, NotificationState, told
from gateway.model.status import is_good, job_outcome
from gateway.settings.notify import NotifyOutcome, NotifySettings

LIFETIME = 86400.0  # seconds after which a message that was not delivered is given up
MOST_WAITING = 1_000  # messages to one receiver
_KIND = "notification"

_BEFORE = """
    SELECT outcome FROM job WHERE project = ? AND pipeline = ? AND id <> ? AND outcome <> 'cancelled'
    ORDER BY seq DESC LIMIT 1
"""
_WAITING = "SELECT count(*) FROM outbox WHERE kind = ? AND receiver = ? AND state = 'waiting'"
_ADD = """
    INSERT OR IGNORE INTO outbox (id, kind, receiver, job, outcome, state, error, created_at, created_uptime,
        created_boot) SELECT ?, ?, ?, seq, ?, ?, ?, ?, ?, ? FROM job WHERE id = ?
"""
# The message with the fewest attempts comes first, so that one which a receiver never takes holds up no other.
_NEXT = """
    SELECT outbox.seq, outbox.id, job.id, outbox.outcome FROM outbox JOIN job ON job.seq = outbox.job
    WHERE outbox.kind = ? AND outbox.receiver = ? AND outbox.state = 'waiting'
    ORDER BY outbox.attempts, outbox.seq LIMIT 1
"""
_TRIED = "UPDATE outbox SET state = ?, attempts = attempts + 1, error = ? WHERE seq = ?"
_OLD = """
    UPDATE outbox SET state = 'given_up', error = 'given up after a day' || coalesce(': ' || error, '')
    WHERE kind = :kind AND state = 'waiting' AND iif(
        created_boot = :boot, created_uptime <= :uptime - :age, created_at <= :wall - :age
    )
"""
_WITHOUT_RECEIVER = """
    UPDATE outbox SET state = 'given_up', error = 'the configuration has no such receiver any more'
    WHERE kind = ? AND state = 'waiting' AND receiver NOT IN (SELECT value FROM json_each(?))
"""
_KNOWN_TO_NONE = "DELETE FROM late WHERE receiver NOT IN (SELECT value FROM json_each(?))"
_OF_JOB = """
    SELECT receiver, outcome, state, attempts, error FROM outbox
    WHERE kind = ? AND job = (SELECT seq FROM job WHERE id = ?) ORDER BY seq
"""
_LAST_GOOD = """
    SELECT id, ended_at, ended_uptime, ended_boot FROM job
    WHERE project = ? AND pipeline = ? AND outcome IN ('succeeded', 'warnings') ORDER BY seq DESC LIMIT 1
"""
_FIRST = """
    SELECT id, ended_at, ended_uptime, ended_boot FROM job
    WHERE project = ? AND pipeline = ? AND state = 'ended' ORDER BY seq LIMIT 1
"""
_ALL_WAITING = "SELECT receiver, count(*) FROM outbox WHERE kind = ? AND state = 'waiting' GROUP BY receiver"
_LAST = "SELECT id FROM job WHERE project = ? AND pipeline = ? AND state = 'ended' ORDER BY seq DESC LIMIT 1"

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Message:
    """A message that waits. job: the id of the job that it is about."""

    seq: int
    id: str
    job: str
    outcome: NotifyOutcome


class Outbox:
    """The messages to all receivers. receivers: those that are told of jobs that end from now on."""

    def __init__(self, read: Callable[..., Awaitable[list[Any]]], write: Callable[..., Awaitable[Any]]) -> None:
        """read, write: of the store; all errors are those of the store."""
        self._read = read
        self._write = write
        self._added = asyncio.Event()
        self.receivers: tuple[NotifySettings, ...] = ()

    @property
    def added(self) -> asyncio.Event:
        """Set when there may be another message. Each time it is replaced by a new event."""
        return self._added

    def notify(self) -> None:
        """Wake all that wait for a message."""
        self._added.set()
        self._added = asyncio.Event()

    async def next(self, receiver: str) -> Message | None:
        """The message that a receiver is to get next."""
        for seq, message, job, outcome in await self._read(_NEXT, (_KIND, receiver)):
            return Message(seq, message, job, NotifyOutcome(outcome))
        return None

    async def tried(self, message: Message, state: NotificationState, error: str | None) -> None:
        """Record an attempt to deliver a message. error: why it failed."""
        await self._write(_statement(_TRIED, (state, error, message.seq)))

    async def waiting(self) -> dict[str, int]:
        """How many messages wait, by receiver."""
        return dict(await self._read(_ALL_WAITING, (_KIND,)))

    async def of_job(self, job_id: str) -> tuple[Notification, ...]:
        """What was and will be told of a job."""
        rows = await self._read(_OF_JOB, (_KIND, job_id))
        return tuple(
            Notification(to, NotifyOutcome(outcome), NotificationState(state), attempts, error)
            for to, outcome, state, attempts, error in rows
        )

    async def give_up(self, now: Instant) -> int:
        """Give up messages of a day ago, and those to receivers that there are no more; how many."""
        age = {"kind": _KIND, "wall": now.wall, "uptime": now.uptime, "boot": now.boot, "age": LIFETIME}
        names = json.dumps([receiver.to for receiver in self.receivers])

        async def operation(connection: aiosqlite.Connection) -> int:
            await connection.execute_fetchall(_KNOWN_TO_NONE, (names,))
            old = await _changed(connection, _OLD, age)
            return old + await _changed(connection, _WITHOUT_RECEIVER, (_KIND, names))

        return int(await self._write(operation))

    async def look_for_late(self, projects: Iterable[str], now: Instant) -> None:
        """Tell those receivers that want to know of each pipeline that has become late."""
        wanted = [
            (receiver, project, pipeline)
            for receiver in self.receivers
            if receiver.late_after is not None
            for project, pipeline in product(projects, receiver.pipelines)
        ]

        async def operation(connection: aiosqlite.Connection) -> None:
            for receiver, project, pipeline in wanted:
                await _tell_late(connection, receiver, project, pipeline, now)

        if wanted:
            await self._write(operation)
            self.notify()


async def add(connection: aiosqlite.Connection, job: Job, receivers: Sequence[NotifySettings]) -> None:
    """Record what receivers are to be told of a job that ends, in the transaction of its end.

    Nothing is told of a job that ended a day ago: it was restored from its folder, since the database was lost.
    """
    outcome, now = job_outcome(job), clock.now()
    if outcome is None or not isinstance(job.state, Ended):
        return
    if is_good(outcome):
        await connection.execute_fetchall(
            "DELETE FROM late WHERE project = ? AND pipeline = ?", (job.project, job.pipeline)
        )
    if not receivers or job.state.at.until(now) > LIFETIME:
        return
    rows = await connection.execute_fetchall(_BEFORE, (job.project, job.pipeline, job.id))
    before = next((JobOutcome(row[0]) for row in rows), None)
    for receiver in receivers:
        what = told(receiver, job.pipeline, outcome, before)
        if what is not None:
            await _add(connection, receiver, job.id, what, now)


async def _add(
    connection: aiosqlite.Connection,
    receiver: NotifySettings,
    job_id: str,
    outcome: NotifyOutcome,
    now: Instant,
    since: str = "",
) -> None:
    """Add a message. since: the job after whose end the pipeline was not good."""
    [[waiting]] = await connection.execute_fetchall(_WAITING, (_KIND, receiver.to))
    state, error = NotificationState.WAITING, None
    if waiting >= MOST_WAITING:
        state, error = NotificationState.GIVEN_UP, f"{MOST_WAITING:,} messages waited for this receiver already"
        _log.warning("notification given up", job=job_id, to=receiver.to, error=error)
    about = "\n".join((_KIND, receiver.to, job_id, outcome, since))
    message = f"msg_{hashlib.sha256(about.encode()).hexdigest()[:32]}"
    values = (message, _KIND, receiver.to, outcome, state, error, now.wall, now.uptime, now.boot, job_id)
    await connection.execute_fetchall(_ADD, values)


async def _tell_late(
    connection: aiosqlite.Connection, receiver: NotifySettings, project: str, pipeline: str, now: Instant
) -> None:
    """Add a message about a pipeline that was not good for long enough, unless the receiver knows."""
    assert receiver.late_after is not None
    good = await connection.execute_fetchall(_LAST_GOOD, (project, pipeline))
    # one that was never good is measured from its first end on; one without a job is not late
    found = list(good) or list(await connection.execute_fetchall(_FIRST, (project, pipeline)))
    if not found:
        return
    [(since, *ended)] = found
    if Instant(*ended).until(now) < receiver.late_after:
        return
    known = "INSERT OR IGNORE INTO late (receiver, project, pipeline) VALUES (?, ?, ?)"
    if await _changed(connection, known, (receiver.to, project, pipeline)):
        [[last]] = await connection.execute_fetchall(_LAST, (project, pipeline))
        await _add(connection, receiver, last, NotifyOutcome.LATE, now, since)


async def _changed(connection: aiosqlite.Connection, statement: str, values: Any) -> int:
    """Run a statement; how many rows it changed."""
    async with connection.execute(statement, values) as cursor:
        return cursor.rowcount


def _statement(statement: str, values: Any) -> Callable[[aiosqlite.Connection], Awaitable[None]]:
    async def operation(connection: aiosqlite.Connection) -> None:
        await connection.execute_fetchall(statement, values)

    return operation
