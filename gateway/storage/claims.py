"""Who holds a resource and who waits for it: the table of claims. Each call is a part of a transaction of the store's.

A job's claims are all in one phase: it waits for all it needs, holds all of it, or is over. It holds as soon as nobody
holds any of its resources and nobody who came before waits for one of them.
"""

from __future__ import annotations

from collections.abc import Iterable

import aiosqlite

from gateway.errors import HeldError, QueueFullError

LONGEST_QUEUE = 1_000  # jobs that wait, all together

_CLAIM = "INSERT INTO claim (job, resource, phase) SELECT seq, ?, ? FROM job WHERE id = ?"
_HOLDER = "SELECT job FROM claim WHERE resource = ? AND phase = 'holds'"
_FIRST_WAITER = "SELECT job FROM claim WHERE resource = ? AND phase = 'waits' ORDER BY job LIMIT 1"
_CLAIMED = "SELECT resource FROM claim WHERE job = ? AND phase <> 'over'"


async def add(connection: aiosqlite.Connection, job_id: str, resources: Iterable[str], *, waits: bool) -> None:
    """The claims of a new job."""
    for resource in resources:
        await connection.execute_fetchall(_CLAIM, (resource, "waits" if waits else "holds", job_id))


async def must_wait(connection: aiosqlite.Connection, resources: Iterable[str], *, may_wait: bool) -> bool:
    """Whether somebody holds one of a newcomer's resources, or waits for one: it never overtakes.

    Raises HeldError where it may not wait then, QueueFullError where too many do.
    """
    other = await _in_the_way(connection, resources)
    if other is None:
        return False
    if not may_wait:
        raise HeldError(await _id(connection, other))
    [[waiting]] = await connection.execute_fetchall("SELECT count(*) FROM job WHERE state = 'queued'")
    if waiting >= LONGEST_QUEUE:
        raise QueueFullError(
            f"{waiting:,} jobs wait for their turn and the queue takes no more; try again when some have ended, or "
            "cancel those that nobody needs."
        )
    return True


async def release(connection: aiosqlite.Connection, job_id: str) -> list[str]:
    """End what a job holds or waits for; the ids of those that hold now because of that."""
    [[seq]] = await connection.execute_fetchall("SELECT seq FROM job WHERE id = ?", (job_id,))
    resources = await _claimed(connection, seq)
    await connection.execute_fetchall("UPDATE claim SET phase = 'over' WHERE job = ?", (seq,))
    return await _promote(connection, resources)


async def restore(connection: aiosqlite.Connection, job_id: str, resources: Iterable[str], *, waits: bool) -> None:
    """Give an active job the claims that it lacks; one that waits by its record keeps what it holds."""
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
    """See that whoever can hold holds; their ids."""
    rows = await connection.execute_fetchall("SELECT DISTINCT resource FROM claim WHERE phase = 'waits'")
    return await _promote(connection, [row[0] for row in rows])


async def _promote(connection: aiosqlite.Connection, resources: Iterable[str]) -> list[str]:
    """Only the first that waits for a resource can come to hold it, and it needs to be the first everywhere."""
    promoted = []
    for resource in resources:
        for (seq,) in await connection.execute_fetchall(_FIRST_WAITER, (resource,)):
            if await _in_the_way(connection, await _claimed(connection, seq), of=seq) is None:
                await connection.execute_fetchall(
                    "UPDATE claim SET phase = 'holds' WHERE job = ? AND phase = 'waits'", (seq,)
                )
                promoted.append(await _id(connection, seq))
    return promoted


async def _in_the_way(connection: aiosqlite.Connection, resources: Iterable[str], of: int | None = None) -> int | None:
    """Who holds one of the resources; else who has waited longest for one. of: somebody who waits, else a newcomer."""
    for query in (_HOLDER, _FIRST_WAITER):
        found = [row[0] for resource in resources for row in await connection.execute_fetchall(query, (resource,))]
        others = [seq for seq in found if seq != of]
        if others:
            return int(min(others))
    return None


async def _claimed(connection: aiosqlite.Connection, seq: int) -> list[str]:
    return [row[0] for row in await connection.execute_fetchall(_CLAIMED, (seq,))]


async def _id(connection: aiosqlite.Connection, seq: int) -> str:
    [[job_id]] = await connection.execute_fetchall("SELECT id FROM job WHERE seq = ?", (seq,))
    return str(job_id)
