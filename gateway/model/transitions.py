"""What comes next for a job, decided from its record alone, so that a restarted gateway decides the same. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.clock import Instant
from gateway.model.job import (
    Active,
    AuditAction,
    AuditEntry,
    Caller,
    Cancelling,
    Completed,
    Ended,
    Ending,
    Failed,
    Finished,
    Job,
    Pending,
    Queued,
    Reason,
    Running,
    Skipped,
    Waiting,
)
from gateway.model.plan import PlannedStep, StepName
from gateway.model.status import step_exit_code, step_span
from runners.outcome import (
    NOTHING_STOPPED,
    Exited,
    Killed,
    Lost,
    NotStarted,
    Outcome,
    Span,
    Stopped,
    TimedOut,
    error_kinds,
)

CANCELLED = "the job was cancelled"
OVERDUE = "the job passed its time limit"


@dataclass(frozen=True, slots=True)
class RunStep:
    """Next: run an attempt of step n when it is due, or follow it if it runs already."""

    n: int


@dataclass(frozen=True, slots=True)
class SkipStep:
    """Next: step n does not run."""

    n: int
    note: str


@dataclass(frozen=True, slots=True)
class EndStep:
    """Next: step n, which waits for another attempt, has none."""

    n: int


@dataclass(frozen=True, slots=True)
class EndJob:
    """Next: the job ends."""

    ending: Ending


def begin(job: Job) -> Job:
    """The job once it holds its resources: a queued one runs, any other stays as it is."""
    return replace(job, state=Running()) if isinstance(job.state, Queued) else job


def expire(job: Job) -> Job:
    """The job after it passed its time limit between two steps; one that is being cancelled stays as it is."""
    return replace(job, state=Running(overdue=True)) if isinstance(job.state, Running) else job


def request_cancel(job: Job, by: Caller, now: Instant) -> Job:
    """The job after a caller asked for its end; the same object where that changes nothing."""
    acts = (*job.acts, AuditEntry(AuditAction.CANCELLED, by, now))
    match job.state:
        case Queued():
            ending = Failed(Reason.CANCELLED, "The job was cancelled while it waited for its turn.")
            given_up = tuple(Skipped(CANCELLED) if isinstance(state, Pending) else state for state in job.steps)
            return replace(job, state=Ended(now, ending), steps=given_up, acts=acts)
        case Running():
            return replace(job, state=Cancelling(now), acts=acts)
        case Cancelling() | Ended():
            return job


def end_attempt(job: Job, n: int, finished: Finished, now: Instant) -> Job:
    """The job after an attempt of its nth step: the step has ended, or waits for its next attempt."""
    retries = job.plan.steps[n].retries
    if (
        retries is None
        or not isinstance(job.state, Running)
        or finished.started is None
        or len(finished.earlier) + 1 >= retries.attempts
        or (finished.limited_by_job and isinstance(finished.outcome, TimedOut))  # the job has no time for another
        or error_kinds(finished.outcome, finished.failure).isdisjoint(retries.errors)
    ):
        return job.with_step(n, finished)
    return job.with_step(n, Waiting(finished, now))


def end_step(job: Job, n: int) -> Job:
    """The job after a cancel or its time limit ended its nth step between two attempts.

    The step is stopped, or timed out, with the exit code of its last attempt.
    """
    state = job.steps[n]
    if not isinstance(state, Waiting):
        return job
    span, code = step_span(state.last.outcome), step_exit_code(state.last.outcome)
    if isinstance(job.state, Running):
        nothing = Span(state.since.wall, state.since.wall, 0.0)
        late = TimedOut(-1 if code is None else code, span or nothing, NOTHING_STOPPED)
        return job.with_step(n, replace(state.last, outcome=late, limited_by_job=True))
    why = f"The job was cancelled between two attempts of the step {job.plan.steps[n].name}."
    outcome = NotStarted(why) if span is None else Stopped(-1 if code is None else code, span)
    return job.with_step(n, replace(state.last, outcome=outcome))


def next_transition(job: Job) -> RunStep | SkipStep | EndStep | EndJob:
    """What to do next with a job that holds its resources."""
    stopped_by: str | None = None
    for n, (planned, state) in enumerate(zip(job.plan.steps, job.steps, strict=True)):
        match state:
            case Waiting() if job.state != Running():
                return EndStep(n)
            case Active() | Waiting():
                return RunStep(n)
            case Pending() if stopped_by is not None:
                return SkipStep(n, stopped_by)
            case Pending() if isinstance(job.state, Cancelling):
                return SkipStep(n, CANCELLED)
            case Pending() if job.state == Running(overdue=True):
                return SkipStep(n, OVERDUE)
            case Pending():
                return RunStep(n)
            case Finished(outcome=outcome) if stopped_by is None and not _plan_continues(planned, outcome):
                stopped_by = f"earlier step failed: {planned.name}"
            case Finished() | Skipped():
                pass
    return EndJob(_ending(job))


def _plan_continues(planned: PlannedStep, outcome: Outcome) -> bool:
    match outcome:
        case Exited(code=code):
            return code <= planned.tolerates
        case Killed() | NotStarted() | TimedOut() | Stopped() | Lost():
            return False


def _ending(job: Job) -> Ending:
    """How the job ends: by the first step that failed, else with the first exit code that is not 0."""
    code, failure = 0, None
    for planned, state in zip(job.plan.steps, job.steps, strict=True):
        if not isinstance(state, Finished):
            continue
        if isinstance(state.outcome, TimedOut) and state.limited_by_job:
            return Failed(Reason.TIMED_OUT, _overdue(job, f"was stopped during the step {planned.name}"))
        if isinstance(state.outcome, Exited):
            if code == 0:
                code, failure = state.outcome.code, state.failure
        else:
            return _failed(planned.name, state.outcome, cancelled=isinstance(job.state, Cancelling))
    if Skipped(CANCELLED) in job.steps:
        return Failed(Reason.CANCELLED, "The job was cancelled between two steps.")
    if Skipped(OVERDUE) in job.steps:
        return Failed(Reason.TIMED_OUT, _overdue(job, "was ended between two steps"))
    return Completed(code, failure)


def _overdue(job: Job, how: str) -> str:
    limit = job.time_limit
    assert limit is not None, "only a limit can be passed"
    raised = "timeoutSeconds of the trigger" if limit.by_request else f"time_limit of the pipeline {job.pipeline}"
    return f"The job passed its time limit of {limit.seconds:g} s and {how}; raise {raised} or make the job faster."


def _failed(name: StepName, outcome: Killed | NotStarted | TimedOut | Stopped | Lost, *, cancelled: bool) -> Failed:
    match outcome:
        case NotStarted(code=None) if cancelled:
            return Failed(Reason.CANCELLED, f"The job was cancelled before the step {name} began.")
        case NotStarted(why=why):
            return Failed(Reason.NOT_STARTED, why)
        case TimedOut(span=span):
            return Failed(
                Reason.TIMED_OUT,
                f"The step {name} passed its time limit and was stopped after {span.duration:.0f} s; "
                "raise time_limit of the fabric or make the step faster.",
            )
        case Stopped() if cancelled:
            return Failed(Reason.CANCELLED, f"The job was cancelled during the step {name}.")
        case Stopped():
            return Failed(
                Reason.KILLED,
                f"The step {name} was stopped by a SIGTERM to its supervisor that was not the gateway's "
                "(a shutdown of the host?); trigger it again.",
            )
        case Killed(out_of_memory=True):
            return Failed(
                Reason.KILLED,
                f"The step {name} ran out of memory and was ended by the kernel; give its container more memory or "
                "make the step use less.",
            )
        case Killed(signal=signal):
            return Failed(
                Reason.KILLED,
                f"The step {name} was ended by signal {signal} that was not the gateway's"
                f"{' (out of memory?)' if signal == 9 else ''}; look at the host's log and trigger it again.",
            )
        case Lost(why=why):
            return Failed(Reason.UNKNOWN, f"How the step {name} ended can't be known: {why}")
