"""What the record of a job tells: its status, outcome and phase, and those of its steps. Pure."""

from __future__ import annotations

import math

from gateway.clock import Instant
from gateway.model.job import (
    Active,
    Cancelling,
    Completed,
    Ended,
    Failed,
    Finished,
    Job,
    JobOutcome,
    Pending,
    Queued,
    Reason,
    Running,
    Skipped,
    Status,
    StepState,
    Waiting,
)
from runners.outcome import (
    NOTHING_STOPPED,
    Exited,
    Killed,
    Lost,
    NotStarted,
    Outcome,
    Span,
    Stopped,
    StopReport,
    TimedOut,
)
from runners.runner import Liveness


def job_status(job: Job) -> Status:
    """What the APIs call the state of a job."""
    match job.state:
        case Queued():
            return Status.QUEUED
        case Running() | Cancelling():
            return Status.RUNNING
        case Ended(ending=ending):
            return Status.COMPLETED if isinstance(ending, Completed) else Status.FAILED


def run_seconds(job: Job) -> float | None:
    """The seconds from the begin of an ended job's first step to its end, without those that it was queued."""
    if not isinstance(job.state, Ended):
        return None
    starts = (first_started(state) for state in job.steps)
    first = next((start for start in starts if start is not None), None)
    return None if first is None else first.until(job.state.at)


def first_started(state: StepState) -> Instant | None:
    """When the runner got the first attempt of a step, None if it never did."""
    match state:
        case Pending() | Skipped():
            return None
        case Active(started=started, earlier=earlier) | Finished(started=started, earlier=earlier):
            return earlier[0].started if earlier else started
        case Waiting(attempts=attempts):
            return attempts[0].started


def has_begun(job: Job) -> bool:
    """Whether a step of the job has begun or ended, or was skipped by the job itself."""
    return any(not isinstance(state, Pending) for state in job.steps[job.begins_at :])


def seconds_left(job: Job, now: Instant) -> float:
    """What is left of a job's time limit, which begins with its first step; infinite without one."""
    if job.time_limit is None:
        return math.inf
    starts = (first_started(state) for state in job.steps)
    first = next((start for start in starts if start is not None), now)
    return job.time_limit.seconds - first.until(now)


def job_outcome(job: Job) -> JobOutcome | None:
    """How a job ended, None while it is active. `errors`: a step exited non-zero; `failed`: it did not do its work."""
    if not isinstance(job.state, Ended):
        return None
    match job.state.ending:
        case Failed(reason=reason):
            return JobOutcome.CANCELLED if reason is Reason.CANCELLED else JobOutcome.FAILED
        case Completed(exit_code=code) if code != 0:
            return JobOutcome.ERRORS
        case Completed():
            return JobOutcome.WARNINGS if any(map(_has_warned, job.steps)) else JobOutcome.SUCCEEDED


def is_good(outcome: JobOutcome) -> bool:
    """Whether a job with this outcome has done its work."""
    return outcome in (JobOutcome.SUCCEEDED, JobOutcome.WARNINGS)


def _has_warned(state: StepState) -> bool:
    return isinstance(state, Finished) and state.progress is not None and state.progress.warn > 0


def step_status(state: StepState) -> Status:
    """What the APIs call the state of a step."""
    match state:
        case Pending():
            return Status.PENDING
        case Active() | Waiting():
            return Status.RUNNING
        case Skipped():
            return Status.SKIPPED
        case Finished(outcome=Exited()):
            return Status.COMPLETED
        case Finished():
            return Status.FAILED


def step_exit_code(outcome: Outcome) -> int | None:
    """The step's own exit code, 128 + n for signal n, None where it had none."""
    match outcome:
        case Exited(code=code) | Stopped(code=code) | TimedOut(code=code):
            return code if code >= 0 else None
        case Killed(signal=signal):
            return 128 + signal
        case NotStarted(code=code):
            return code
        case Lost():
            return None


def step_span(outcome: Outcome) -> Span | None:
    """When the step ran, None where that is not known."""
    match outcome:
        case Exited(span=span) | Killed(span=span) | TimedOut(span=span) | Stopped(span=span):
            return span
        case NotStarted(span=span):
            return span
        case Lost():
            return None


def stop_report(job: Job) -> StopReport | None:
    """What was ended of an ended job, and how: of one that was cancelled or timed out, or had lost its supervisor.

    None where nothing was ended, and in a record of an older version.
    """
    match job.state:
        case Ended(ending=Failed(reason=reason)):
            ended = [state.outcome for state in job.steps if isinstance(state, Finished)]
        case _:
            return None
    for outcome in ended:
        match outcome:
            case Stopped(report=report) | TimedOut(report=report) | Lost(report=report):
                return report
            case Exited() | Killed() | NotStarted():
                pass
    return NOTHING_STOPPED if reason is Reason.CANCELLED else None


def phase(job: Job, liveness: Liveness = Liveness.SUPERVISED) -> str:
    """The phase: `queued`, `starting`, the running step, `cancelling`, `orphaned`, `unreachable` or `ended`."""
    match job.state:
        case Ended():
            return "ended"
        case Queued():
            return "queued"
        case _ if liveness is not Liveness.SUPERVISED:
            return str(liveness.value)
        case Cancelling():
            return "cancelling"
        case Running():
            return current_step(job) or "starting"


def current_step(job: Job) -> str | None:
    """The name of the step that runs or waits for its next attempt, None where there is none."""
    for planned, state in zip(job.plan.steps, job.steps, strict=True):
        if isinstance(state, Active | Waiting):
            return planned.name
    return None
