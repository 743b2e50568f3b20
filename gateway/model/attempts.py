"""The attempts of a step, of which there are several where its plan has retries. Pure."""

from __future__ import annotations

from gateway.model.job import Active, Finished, Job, Pending, Reason, Skipped, StepState, Waiting
from gateway.model.plan import StepName
from runners.outcome import Exited, Killed, Lost, NotStarted, Outcome, Stopped, TimedOut


def attempt_number(state: StepState) -> int:
    """Which attempt of a step runs, has ended last, or is the next to run; counted from 1."""
    match state:
        case Pending() | Skipped():
            return 1
        case Active(earlier=earlier) | Finished(earlier=earlier):
            return len(earlier) + 1
        case Waiting(attempts=attempts):
            return len(attempts) + 1


def step_folder(job: Job, n: int, number: int | None = None) -> str:
    """The name of the folder of a step's attempt, which is also in the name of its containers.

    n: of the step, counted from 0. number: of the attempt, counted from 1; None for the one that attempt_number tells.
    """
    number = number or attempt_number(job.steps[n])
    return f"{n + 1}-{job.plan.steps[n].name}{f'.{number}' if number > 1 else ''}"


def is_folder_of(folder: str, step: StepName) -> bool:
    """Whether a path ends with the name of a folder of this step, of any attempt."""
    return folder.rpartition("/")[2].partition("-")[2].partition(".")[0] == step


def step_reason(outcome: Outcome, *, cancelled: bool) -> Reason | None:
    """Why an attempt of a step did not run to its end; None if it did. cancelled: its job was."""
    match outcome:
        case Exited():
            return None
        case Killed():
            return Reason.KILLED
        case Stopped():
            return Reason.CANCELLED if cancelled else Reason.KILLED
        case TimedOut():
            return Reason.TIMED_OUT
        case NotStarted():
            return Reason.NOT_STARTED
        case Lost():
            return Reason.UNKNOWN
