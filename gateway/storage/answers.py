"""The table of answers that are kept by Idempotency-Key. Each function runs inside a transaction of the store."""

from __future__ import annotations

from typing import Any

import aiosqlite

from gateway.clock import Instant
from gateway.errors import AnsweredError, ReusedKeyError
from gateway.model.request import KeptAnswer, RequestKey

_MOST = 100_000  # answers that are kept, so many as one token's triggers have in a day at the default rate

FIND = "SELECT asked, status, location, body FROM answer WHERE path = ? AND token = ? AND key = ?"
_ADD = """
    INSERT INTO answer (path, token, key, asked, job, at, uptime, boot, status, location, body)
        VALUES (?, ?, ?, ?, (SELECT seq FROM job WHERE id = ?), ?, ?, ?, ?, ?, ?)
"""
# Each part of the union reads an index of its own.
_REMOVE = """
    DELETE FROM answer WHERE seq IN (
        SELECT seq FROM answer WHERE boot = :boot AND uptime <= :uptime - :age
        UNION ALL
        SELECT seq FROM answer WHERE at <= :wall - :age AND boot <> :boot
        UNION ALL
        SELECT seq FROM answer WHERE seq <= (SELECT max(seq) FROM answer) - :most
    )
"""


def place(key: RequestKey) -> tuple[str, str, str]:
    """The values of FIND."""
    return key.path, key.token, key.key


def found(key: RequestKey, rows: list[Any]) -> KeptAnswer | None:
    """The answer of what FIND has found. Raises ReusedKeyError where it is that of another request."""
    if not rows:
        return None
    [[asked, status, location, body]] = rows
    if asked != key.asked:
        raise ReusedKeyError(
            f"The Idempotency-Key {key.key[:100]!r} was used within the last day for another body; give each trigger "
            "a key of its own, and repeat it with the same body only."
        )
    return KeptAnswer(status, body, location)


async def must_be_new(connection: aiosqlite.Connection, key: RequestKey) -> None:
    """Raises AnsweredError where the request was answered before, ReusedKeyError where another one had its key."""
    if found(key, list(await connection.execute_fetchall(FIND, place(key)))) is not None:
        raise AnsweredError(f"The request with the Idempotency-Key {key.key[:100]!r} was answered before.")


async def add(connection: aiosqlite.Connection, key: RequestKey, job_id: str, answer: KeptAnswer, now: Instant) -> None:
    """Keep the answer to a request, which has that job."""
    moment = (now.wall, now.uptime, now.boot)
    values = (*place(key), key.asked, job_id, *moment, answer.status, answer.location, answer.body)
    await connection.execute_fetchall(_ADD, values)


async def remove_old(connection: aiosqlite.Connection, moment: dict[str, Any], age: float) -> None:
    """Remove answers that were given `age` seconds ago or before, and the oldest ones beyond the most that are kept."""
    await connection.execute_fetchall(_REMOVE, moment | {"age": age, "most": _MOST})
