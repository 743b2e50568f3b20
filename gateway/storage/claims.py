"""The table of claims: which job holds a resource, and which jobs wait for it.

Each function runs inside a transaction of the store. The claims of a job are always in the same phase: it waits for all
its resources, holds them all, or has released them all. A waiting job gets its resources as soon as no other job holds
one of them and no earlier job waits for one of them.
"""

from __future__ import annotations

from collections.abc import Iterable

import aiosqlite

from gateway.errors import HeldError, QueueFullError

LONGEST_QUEUE = 1_000  # waiting jobs, for all resources together

_CLAIM = "INSERT INTO claim (job, resource, phase) SELECT seq, ?, ? FROM job WHERE id = ?"
_HOLDER = "SELECT job FROM claim WHERE resource = ? AND phase = 'holds'"
_FIRST_WAITER = "SELECT job FROM claim WHERE resource = ? AND phase = 'waits' ORDER BY job LIMIT 1"
# Of a waiting job: each job that comes first, with the resource. Each part of the union reads an index of its own.
BEFORE = """
    SELECT job.id, other.resource FROM claim AS mine
        JOIN claim AS other ON other.resource = mine.resource AND other.phase = 'holds'
        JOIN job ON job.seq = other.job
        WHERE mine.job = (SELECT seq FROM job WHERE id = :job) AND mine.phase = 'waits'
    UNION ALL
    SELECT job.id, other.resource FROM claim AS mine
        JOIN claim AS other ON other.resource = mine.resource AND other.phase = 'waits' AND other.job < mine.job
        JOIN job ON job.seq = other.job
        WHERE mine.job = (SELECT seq FROM job WHERE id = :job) AND mine.phase = 'waits'
"""
_CLAIMED = "SELECT resource FROM claim WHERE job = ? AND phase <> 'over'"


async def add(connection: aiosqlite.Connection, job_id: str, resources: Iterable[str], *, waits: bool) -> None:
    """Record the claims of a new job."""
    for resource in resources:
        await connection.execute_fetchall(_CLAIM, (resource, "waits" if waits else "holds", job_id))


async def must_wait(connection: aiosqlite.Connection, resources: Iterable[str], *, may_wait: bool) -> bool:
    """Whether another job holds one of a new job's resources, or waits for one: a new job never overtakes.

    Raises HeldError where the new job would have to wait and may not, QueueFullError where too many jobs wait.
    """
    other = await _blocking(connection, resources)
    if other is None:
        return False
    if not may_wait:
        raise HeldError(await _id(connection, other))
    [[waiting]] = await connection.execute_fetchall("SELECT count(*) FROM job WHERE state = 'queued'")
    if waiting >= LONGEST_QUEUE:
        raise QueueFullError(
            f"{waiting:,} jobs wait for their turn and the queue takes no more; try again when some have ended, or "
            "cancel those that are not needed."
        )
    return True


async def release(connection: aiosqlite.Connection, job_id: str) -> list[str]:
    """Release what a job holds or waits for; the ids of the waiting jobs that hold their resources because of that."""
    [[seq]] = await connection.execute_fetchall("SELECT seq FROM job WHERE id = ?", (job_id,))
    resources = await _claimed(connection, seq)
    await connection.execute_fetchall("UPDATE claim SET phase = 'over' WHERE job = ?", (seq,))
    return await _promote(connection, resources)


async def restore(connection: aiosqlite.Connection, job_id: str, resources: Iterable[str], *, waits: bool) -> None:
    """Add the claims that an active job lacks. A job that waits by its record keeps what it holds by the database."""
    for resource in resources:
        values = (resource, "waits" if waits else "holds", job_id)
        await connection.execute_fetchall(_CLAIM.replace("INSERT", "INSERT OR IGNORE", 1), values)
    if not waits:
        await connection.execute_fetchall(
            "UPDATE OR IGNORE claim SET phase = 'holds' WHERE job = (SELECT seq FROM job WHERE id = ?) "
            "AND phase = 'waits'",
            (job_id,),
        )


async def promote_all(connection: aiosqlite.Connection) -> list[str]:
    """Give every waiting job that can hold its resources what it needs; the ids of these jobs."""
    rows = await connection.execute_fetchall("SELECT DISTINCT resource FROM claim WHERE phase = 'waits'")
    return await _promote(connection, [row[0] for row in rows])


async def _promote(connection: aiosqlite.Connection, resources: Iterable[str]) -> list[str]:
    """Give these resources to the first jobs that wait for them; a job must be the first for each of its resources."""
    promoted = []
    for resource in resources:
        for (seq,) in await connection.execute_fetchall(_FIRST_WAITER, (resource,)):
            if await _blocking(connection, await _claimed(connection, seq), waiting=seq) is None:
                await connection.execute_fetchall(
                    "UPDATE claim SET phase = 'holds' WHERE job = ? AND phase = 'waits'", (seq,)
                )
                promoted.append(await _id(connection, seq))
    return promoted


async def _blocking(
    connection: aiosqlite.Connection, resources: Iterable[str], waiting: int | None = None
) -> int | None:
    """The job that holds one of the resources, else the job that has waited longest for one of them.

    waiting: the job that wants them, if it waits already; None for a new one.
    """
    for query in (_HOLDER, _FIRST_WAITER):
        found = [row[0] for resource in resources for row in await connection.execute_fetchall(query, (resource,))]
        others = [seq for seq in found if seq != waiting]
        if others:
            return int(min(others))
    return None


async def _claimed(connection: aiosqlite.Connection, seq: int) -> list[str]:
    return [row[0] for row in await connection.execute_fetchall(_CLAIMED, (seq,))]


async def _id(connection: aiosqlite.Connection, seq: int) -> str:
    [[job_id]] = await connection.execute_fetchall("SELECT id FROM job WHERE seq = ?", (seq,))
    return str(job_id)
