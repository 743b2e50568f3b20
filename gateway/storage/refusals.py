"""The table of refused triggers, of which the newest are kept."""

from __future__ import annotations

import json
from typing import Any

import aiosqlite

from gateway.model.history import Refusal

MOST = 1_000

_ADD = """
    INSERT INTO refusal (created_at, project, fabric, pipeline, code, error, conflict) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_REMOVE = "DELETE FROM refusal WHERE seq <= (SELECT max(seq) FROM refusal) - ?"


async def add(connection: aiosqlite.Connection, refusal: Refusal) -> None:
    """Record a refusal, and remove the oldest one beyond those that are kept. Runs inside a transaction."""
    conflict = None if refusal.conflict is None else json.dumps(refusal.conflict)
    named = (refusal.project, refusal.fabric, refusal.pipeline, refusal.code, refusal.error)
    await connection.execute_fetchall(_ADD, (refusal.created_at, *named, conflict))
    await connection.execute_fetchall(_REMOVE, (MOST,))


def load(row: Any) -> Refusal:
    """The refusal of a row of `listing.refusals`."""
    _, created_at, project, fabric, pipeline, code, error, conflict = row
    found = None if conflict is None else json.loads(conflict)
    return Refusal(created_at, project, fabric, pipeline, code, error, found)
