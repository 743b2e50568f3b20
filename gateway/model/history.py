"""Which jobs of the history are asked for, and the triggers in it that made no job. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.model.job import JobOutcome, Status


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs to list: those that have one of the values of each field that has any.

    since, until: bounds of the time of acceptance, in microseconds since the epoch; the second is exclusive.
    """

    statuses: tuple[Status, ...] = ()
    outcomes: tuple[JobOutcome, ...] = ()
    pipelines: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    fabrics: tuple[str, ...] = ()
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A trigger that was refused because of a conflict or a full queue.

    created_at: microseconds since the epoch. conflict: what was in its way, None where the queue was full.
    """

    created_at: int
    project: str
    fabric: str
    pipeline: str
    code: str
    error: str
    conflict: Mapping[str, object] | None
