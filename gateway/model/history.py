"""Which jobs of the history are asked for. Pure."""

from __future__ import annotations

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
