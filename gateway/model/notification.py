"""What receivers are told of a job. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gateway.model.job import JobOutcome
from gateway.model.status import is_good
from gateway.settings.notify import NotifyOutcome, NotifySettings

_BAD = (JobOutcome.ERRORS, JobOutcome.FAILED)


class NotificationState(StrEnum):
    """How far a notification is."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True)
class Notification:
    """A message to a receiver about a job. attempts: those that have ended. error: of the last one that failed."""

    to: str
    outcome: NotifyOutcome
    state: NotificationState
    attempts: int
    error: str | None


def told(
    receiver: NotifySettings, pipeline: str, outcome: JobOutcome, before: JobOutcome | None
) -> NotifyOutcome | None:
    """What a receiver is told when a job of a pipeline ends; None for nothing.

    before: the outcome of the pipeline's last job before, apart from cancelled ones, which say nothing of the pipeline.
    """
    if receiver.pipelines and pipeline not in receiver.pipelines:
        return None
    if NotifyOutcome.RECOVERED in receiver.outcomes and is_good(outcome) and before in _BAD:
        return NotifyOutcome.RECOVERED
    same = NotifyOutcome(outcome)
    return same if same in receiver.outcomes else None
