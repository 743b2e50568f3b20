"""The jobs on disk: SQLite, one writer with group commit. The only SQL of the service."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite
import structlog

from gateway import clock
from gateway.clock import Instant
from gateway.errors import StateBusyError, StateError
from gateway.model.history import JobFilter, Refusal
from gateway.model.job import Ended, Job, Queued, WaitsFor
from gateway.model.request import KeptAnswer, RequestKey
from gateway.model.status import job_outcome, job_status, run_seconds
from gateway.storage import answers, claims, job_file, listing, outbox, refusals
from gateway.storage import integrity as database
from gateway.storage.outbox import Outbox

_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # an accepted job survives a power cut
    "PRAGMA busy_timeout = 5000",
    "PRAGMA foreign_keys = ON",
    # A torn write can destroy only what is in the log alone, so each commit is copied into the database at once.
    "PRAGMA wal_autocheckpoint = 1",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA trusted_schema = OFF",
)
_BATCH = 500
_USUAL_OF = 20  # jobs
_PATIENCE, _AGAIN = 60.0, 1.0  # seconds to wait for a disk at the start, and between two attempts

# The age of a job is measured by the uptime if the host has not rebooted since its end, so that it stays right when the
# clock jumps; else by the wall clock. Each part of the union reads an index of its own.
_RECENT = """
    SELECT record FROM (
        SELECT seq, record FROM job WHERE state <> 'ended'
        UNION ALL
        SELECT * FROM (
            SELECT seq, record FROM job WHERE ended_boot = :boot AND ended_uptime > :uptime - :ttl
            UNION ALL
            SELECT seq, record FROM job WHERE ended_at > :wall - :ttl AND ended_boot <> :boot
            ORDER BY seq DESC LIMIT 1000
        )
    ) ORDER BY seq DESC
"""
_OLDER = """
    SELECT id FROM (
        SELECT seq, id FROM job WHERE ended_boot = :boot AND ended_uptime <= :uptime - :age
        UNION ALL
        SELECT seq, id FROM job WHERE ended_at <= :wall - :age AND ended_boot <> :boot
    ) ORDER BY seq LIMIT 1000
"""
_LAST = "SELECT record FROM job WHERE project = ? AND pipeline = ? ORDER BY seq DESC LIMIT 1"
_HOLDS = "SELECT 1 FROM claim WHERE job = (SELECT seq FROM job WHERE id = ?) AND phase = 'holds' LIMIT 1"
_INSERT = """
    INSERT INTO job (id, state, ended_at, ended_uptime, ended_boot, record, project, pipeline, fabric, status, outcome,
        created_at, seconds, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# A job that has ended never changes again.
_PUT = f"""
    {_INSERT} ON CONFLICT (id) DO UPDATE SET state = excluded.state, ended_at = excluded.ended_at,
        ended_uptime = excluded.ended_uptime, ended_boot = excluded.ended_boot, record = excluded.record,
        status = excluded.status, outcome = excluded.outcome, created_at = excluded.created_at,
        seconds = excluded.seconds, checksum = excluded.checksum WHERE job.state <> 'ended'
"""

_log = structlog.get_logger()

T = TypeVar("T")
Operation = Callable[[aiosqlite.Connection], Awaitable[Any]]
MakeAnswer = Callable[[Job, tuple[WaitsFor, ...]], KeptAnswer]


class Store:
    """All jobs. A write is durable once the call has returned. Raises StorageError for errors of the disk."""

    def __init__(self, writer: aiosqlite.Connection, reader: aiosqlite.Connection) -> None:
        self._writer = writer
        self._reader = reader
        self._waiting: asyncio.Queue[tuple[Operation, asyncio.Future[Any]]] = asyncio.Queue(maxsize=10_000)
        self._closed = False
        self.outbox = Outbox(self._read, self._write)
        # Gets the error of SQLite by which the database was found damaged; it must not be used any more then.
        self.damaged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.committer = asyncio.create_task(self._commit_groups(), name="store-writer")

    @classmethod
    async def open(cls, file: Path) -> Store:
        """Open or create the database. Raises StateError if it can't be used or is of a newer version.

        Waits for a minute where the error may pass, as that of a full disk: the service can do nothing without it.
        """
        limit = time.monotonic() + _PATIENCE
        while True:
            try:
                await asyncio.to_thread(database.prepare, file)
                break
            except StateBusyError as busy:
                if time.monotonic() > limit:
                    raise
                _log.warning("database not usable yet", error=str(busy))
                await asyncio.sleep(_AGAIN)
        try:
            writer = await _connect(f"{file.as_uri()}?mode=rw")
            try:
                reader = await _connect(f"{file.as_uri()}?mode=ro")
            except BaseException:
                await writer.close()
                raise
        except sqlite3.Error as error:
            raise StateError(f"{file}: the database can't be used: {error}; check the disk and the owner") from None
        return cls(writer, reader)

    async def close(self) -> None:
        """Commit the waiting writes, then close. Closing twice is harmless; any use afterwards raises StateError."""
        if self._closed:
            return
        self._closed = True
        written = asyncio.create_task(self._waiting.join())
        await asyncio.wait([written, self.committer], return_when=asyncio.FIRST_COMPLETED)
        for task in (written, self.committer):
            task.cancel()
        await asyncio.wait([written, self.committer])
        self.damaged.cancel()
        await self._reader.close()
        await self._writer.close()

    async def insert(
        self, job: Job, *, may_wait: bool = False, once: tuple[RequestKey, MakeAnswer] | None = None
    ) -> Job:
        """Record a new job with all its claims; the job as recorded, which is queued where other jobs come first.

        once: the key of its request, and what makes the answer that is kept by it.
        Raises HeldError where other jobs come first and it may not wait, QueueFullError where too many wait,
        AnsweredError and ReusedKeyError where the key is known.
        """
        queued = replace(job, state=Queued())
        row, waiting_row = _row(job), _row(queued)

        async def operation(connection: aiosqlite.Connection) -> Job:
            if once is not None:
                await answers.must_be_new(connection, once[0])
            waits = await claims.must_wait(connection, job.plan.resources, may_wait=may_wait)
            await connection.execute_fetchall(_INSERT, waiting_row if waits else row)
            await claims.add(connection, job.id, job.plan.resources, waits=waits)
            recorded = queued if waits else job
            if once is not None:
                key, make = once
                before = _waits_for(list(await connection.execute_fetchall(claims.BEFORE, {"job": job.id})))
                await answers.add(connection, key, job.id, make(recorded, before), job.created)
            return recorded

        return await self._write(operation)

    async def answer(self, key: RequestKey) -> KeptAnswer | None:
        """The answer that is kept by a key. Raises ReusedKeyError where it is that of another request."""
        return answers.found(key, await self._read(answers.FIND, answers.place(key)))

    async def keep_answer(self, key: RequestKey, job_id: str, answer: KeptAnswer, now: Instant) -> None:
        """Keep the answer to a request that was given a job which is recorded already.

        Raises AnsweredError, ReusedKeyError.
        """

        async def operation(connection: aiosqlite.Connection) -> None:
            await answers.must_be_new(connection, key)
            await answers.add(connection, key, job_id, answer, now)

        await self._write(operation)

    async def remove_answers(self, now: Instant, age: float) -> None:
        """Remove the answers that were given `age` seconds ago or before."""
        await self._write(lambda connection: answers.remove_old(connection, _moment(now), age))

    async def save(self, job: Job) -> list[str]:
        """Record a job's new state, or a job that the database lacks.

        The end of a job releases its resources, and adds what is to be told of it to the outbox.

        Returns the ids of the waiting jobs that hold their resources because of that.
        """
        row = _row(job)

        async def operation(connection: aiosqlite.Connection) -> list[str]:
            await connection.execute_fetchall(_PUT, row)
            if not isinstance(job.state, Ended):
                return []
            await outbox.add(connection, job, self.outbox.receivers)
            return await claims.release(connection, job.id)

        promoted = await self._write(operation)
        if isinstance(job.state, Ended):
            self.outbox.notify()
        return promoted

    async def restore_claims(self, job: Job) -> None:
        """Add the claims that an active job lacks."""

        async def operation(connection: aiosqlite.Connection) -> None:
            waits = isinstance(job.state, Queued)
            await claims.restore(connection, job.id, job.plan.resources, waits=waits)

        await self._write(operation)

    async def promote_waiting(self) -> None:
        """Give each waiting job that can now hold all its resources those resources."""
        await self._write(claims.promote_all)

    async def delete(self, job_id: str) -> None:
        """Delete the record of an ended job."""
        statement = "DELETE FROM job WHERE id = ? AND state = 'ended'"
        await self._write(lambda connection: connection.execute_fetchall(statement, (job_id,)))

    async def get(self, job_id: str) -> Job | None:
        """The record of a job."""
        rows = await self._read("SELECT record FROM job WHERE id = ?", (job_id,))
        return _load(rows[0]) if rows else None

    async def last_of_pipeline(self, project: str, pipeline: str) -> Job | None:
        """The newest job of a pipeline."""
        rows = await self._read(_LAST, (project, pipeline))
        return _load(rows[0]) if rows else None

    async def holds_resources(self, job_id: str) -> bool:
        """Whether a job holds its resources."""
        return bool(await self._read(_HOLDS, (job_id,)))

    async def active(self) -> list[Job]:
        """The jobs that have not ended, oldest first."""
        return [_load(row) for row in await self._read("SELECT record FROM job WHERE state <> 'ended' ORDER BY seq")]

    async def recent(self, now: Instant, ttl: float) -> list[Job]:
        """The active jobs and those that ended within `ttl` seconds (the last 1,000 of them), newest first."""
        return [_load(row) for row in await self._read(_RECENT, _moment(now) | {"ttl": ttl})]

    async def page(self, wanted: JobFilter, before: int | None, limit: int) -> tuple[list[Job], int | None]:
        """The newest `limit` jobs that are wanted, newest first, and where the next page begins; None after the last.

        before: where an earlier page said that this one begins; None for the first page.
        """
        rows = await self._read(*listing.page(wanted, before, limit + 1))
        jobs = [job_file.load(record) for _, record in rows[:limit]]
        return jobs, int(rows[limit - 1][0]) if len(rows) > limit else None

    async def add_refusal(self, refusal: Refusal) -> None:
        """Record a refused trigger."""
        await self._write(lambda connection: refusals.add(connection, refusal))

    async def refusals(self, wanted: JobFilter, before: int | None, limit: int) -> tuple[list[Refusal], int | None]:
        """The newest `limit` refused triggers that are wanted, as `page` has jobs."""
        rows = await self._read(*listing.refusals(wanted, before, limit + 1))
        following = int(rows[limit - 1][0]) if len(rows) > limit else None
        return [refusals.load(row) for row in rows[:limit]], following

    async def usual_seconds(self, project: str, pipeline: str) -> float | None:
        """The median duration of the last 20 jobs of a pipeline that ran to their end; None where there are none."""
        rows = await self._read(listing.USUAL, (project, pipeline, _USUAL_OF))
        seconds = [row[0] for row in rows if row[0] is not None]
        return statistics.median(seconds) if seconds else None

    async def last_successes(self) -> dict[tuple[str, str], float]:
        """When the latest job of each pipeline that succeeded has ended (epoch seconds), by project and pipeline."""
        return {(project, pipeline): at for project, pipeline, at in await self._read(listing.LAST_SUCCESSES)}

    async def ended_before(self, now: Instant, age: float) -> list[str]:
        """The ids of up to 1,000 jobs that ended `age` seconds ago or before, oldest first."""
        return [row[0] for row in await self._read(_OLDER, _moment(now) | {"age": age})]

    async def known(self) -> dict[str, bool]:
        """The ids of all jobs, oldest first, each with whether it has ended."""
        return {row[0]: row[1] == "ended" for row in await self._read("SELECT id, state FROM job ORDER BY seq")}

    async def ping(self) -> None:
        """Return once the database has answered."""
        await self._read("SELECT 1 FROM job LIMIT 1")

    async def check_writable(self) -> None:
        """Return once a write would be taken: not while another program holds the database."""

        async def nothing(_: aiosqlite.Connection) -> None:
            pass

        await self._write(nothing)

    async def waits_for(self, job_id: str) -> tuple[WaitsFor, ...]:
        """What a waiting job waits for: the holders of its resources, and the jobs that have waited for longer."""
        return _waits_for(await self._read(claims.BEFORE, {"job": job_id}))

    async def _read(self, query: str, values: Any = ()) -> list[Any]:
        if self._closed:
            raise StateError("the store is closed")
        try:
            return list(await self._reader.execute_fetchall(query, values))
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise self._translated(error) from None

    async def _write(self, operation: Callable[[aiosqlite.Connection], Awaitable[T]]) -> T:
        if self._closed:
            raise StateError("the store is closed")
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        await self._waiting.put((operation, done))
        # A cancelled caller must not cancel the future: the operation may be committed already.
        return await asyncio.shield(done)

    async def _commit_groups(self) -> None:
        """Commit all waiting operations in one transaction, for one sync of the disk."""
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < _BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            try:
                results = await self._commit([operation for operation, _ in batch])
            except Exception as broken:  # noqa: BLE001, any error is given to the callers, and the writer goes on
                results = [(None, self._translated(broken))] * len(batch)
            for (_, done), (result, error) in zip(batch, results, strict=True):
                self._waiting.task_done()
                if error is None:
                    done.set_result(result)
                else:
                    done.set_exception(error)
                    done.exception()  # marks it as retrieved, because the caller may have been cancelled

    async def _commit(self, operations: list[Operation]) -> list[tuple[Any, Exception | None]]:
        try:
            await self._writer.execute_fetchall("BEGIN IMMEDIATE")
            results = [await self._attempt(operation) for operation in operations]
            await self._writer.execute_fetchall("COMMIT")
        finally:
            if self._writer.in_transaction:
                await self._writer.execute_fetchall("ROLLBACK")
        return results

    async def _attempt(self, operation: Operation) -> tuple[Any, Exception | None]:
        """Run one operation of the group. Where it fails, it alone is undone."""
        await self._writer.execute_fetchall("SAVEPOINT one")
        result: Any = None
        error: Exception | None = None
        try:
            result = await operation(self._writer)
        except Exception as raised:
            if database.concerns_all(raised):
                raise
            error = raised
            await self._writer.execute_fetchall("ROLLBACK TO one")
        await self._writer.execute_fetchall("RELEASE one")
        return result, error

    def _translated(self, error: Exception) -> Exception:
        if database.is_damage(error) and not self.damaged.done():
            self.damaged.set_exception(error)
        return database.storage_error(error)


async def _connect(uri: str) -> aiosqlite.Connection:
    # A connection that fails to open leaves a thread of aiosqlite, which may outlive the loop. So try sqlite3 first.
    await asyncio.to_thread(lambda: sqlite3.connect(uri, uri=True).close())
    connection = await aiosqlite.connect(uri, uri=True, isolation_level=None)
    try:
        for pragma in _PRAGMAS:
            await connection.execute_fetchall(pragma)
    except BaseException:
        await connection.close()
        raise
    return connection


def _waits_for(rows: list[Any]) -> tuple[WaitsFor, ...]:
    return tuple(WaitsFor(*row) for row in rows)


def _moment(now: Instant) -> dict[str, Any]:
    return {"wall": now.wall, "uptime": now.uptime, "boot": now.boot}


def _row(job: Job) -> tuple[Any, ...]:
    at = job.state.at if isinstance(job.state, Ended) else None
    ended = (None, None, None) if at is None else (at.wall, at.uptime, at.boot)
    created = clock.microseconds(datetime.fromtimestamp(job.created.wall, UTC))
    columns = (
        *(job.id, job.state.kind, *ended, job_file.dump(job), job.project, job.pipeline, job.fabric),
        *(job_status(job), job_outcome(job), created, run_seconds(job)),
    )
    return (*columns, database.checksum(*columns))


def _load(row: Any) -> Job:
    return job_file.load(row[0])
