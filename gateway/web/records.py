"""A job as the APIs show it: the models of the answers, and a job as one of them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from gateway import clock
from gateway.clock import Instant, rfc3339
from gateway.jobs.execution import JobSnapshot
from gateway.model.attempts import step_reason
from gateway.model.job import (
    Active,
    Attempt,
    AuditAction,
    AuditEntry,
    Cancelling,
    Completed,
    Ended,
    Ending,
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
from gateway.model.notification import NotificationState
from gateway.model.plan import PlannedStep
from gateway.model.status import job_outcome, phase, step_exit_code, step_span, step_status, stop_report
from gateway.settings.notify import NotifyOutcome
from gateway.web.answers import Answer, Moment, is_none
from runners.outcome import Span, StopReport
from runners.parameters import ParameterValue
from runners.report import Failure, Progress

_NO_EXIT_CODE = -1
_REMOVED = "Output and files of this job were removed to keep those of all jobs under state_cap."


class ProgressAnswer(Answer):
    """How many nodes of a step have ended, and how."""

    done: int
    total: int
    passed: int = Field(alias="pass")
    warn: int
    error: int
    skip: int
    noop: int
    current: str | None


class AttemptAnswer(Answer):
    """An attempt of a step."""

    exit_code: int | None
    reason: Reason | None
    started_at: Moment | None
    finished_at: Moment | None


class StepAnswer(Answer):
    """A step of a job. note: why it was skipped, or which of its attempts is next.

    peak_memory_bytes: of its largest process, or of its container. Of several attempts, the figures are the last one's.
    """

    name: str
    status: Status
    note: str | None = None
    exit_code: int | None = None
    started_at: Moment | None = None
    finished_at: Moment | None = None
    duration_seconds: float | None = None
    peak_memory_bytes: int | None = None
    cpu_seconds: float | None = None
    progress: ProgressAnswer | None = None
    attempts: Annotated[list[AttemptAnswer] | None, Field(exclude_if=is_none)] = None


class FailureAnswer(Answer):
    """The first node that failed, and how many more did."""

    node: str
    message: str
    more: int


class JobAnswer(Answer):
    """The fields of a job that every API gives but the trigger pipeline API. The last three say how it failed."""

    success: bool
    status: Status
    exit_code: int
    job_id: str
    phase: str
    pipeline: str
    command: str | None
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    duration_seconds: float
    steps: list[StepAnswer]
    progress: ProgressAnswer | None
    output_bytes: int | None
    output_dropped_bytes: int | None
    log_url: str
    first_failure: Annotated[FailureAnswer | None, Field(exclude_if=is_none)] = None
    reason: Annotated[Reason | None, Field(exclude_if=is_none)] = None
    error: Annotated[str | None, Field(exclude_if=is_none)] = None


class AuditAnswer(Answer):
    """What a caller did with a job, and when."""

    action: AuditAction
    token: str | None
    address: str | None
    at: Moment


class ListedJob(JobAnswer):
    """A job in the list of the jobs API."""

    outcome: JobOutcome | None
    project_id: str
    fabric_id: str
    commit: str | None
    branch: str | None
    version: str | None
    parameters: dict[str, ParameterValue]
    process_name: str | None
    enable_openlineage: bool
    enable_elementary: bool
    audit: list[AuditAnswer]
    notes: list[str]
    retry_of: str | None


class WaitsForAnswer(Answer):
    """A job that comes before a queued one, and what both need."""

    job_id: str
    resource: str


class StoppedAnswer(Answer):
    """What was ended of a job, and how: the signals in order, how long it took, and how many processes got them."""

    signals: list[str]
    seconds: float
    processes: int | None


class NotificationAnswer(Answer):
    """A message to a receiver about a job. outcome: what is told. error: of the last attempt that failed."""

    to: str
    outcome: NotifyOutcome
    state: NotificationState
    attempts: int
    error: str | None


class WholeRecord(ListedJob):
    """The whole record of a job, which has all but its output."""

    waits_for: list[WaitsForAnswer]
    notifications: list[NotificationAnswer]
    stopped: Annotated[StoppedAnswer | None, Field(exclude_if=is_none)] = None


def record(snapshot: JobSnapshot, base: str = "", now: Instant | None = None) -> JobAnswer:
    """A job as the data-analytics API shows it. base: what URLs begin with."""
    return JobAnswer(**_fields(snapshot, base, now))


def listed_record(snapshot: JobSnapshot, base: str = "", now: Instant | None = None) -> ListedJob:
    """A job as the list of the jobs API shows it. base: what URLs begin with."""
    return ListedJob(**_listed_fields(snapshot, base, now))


def whole_record(snapshot: JobSnapshot, base: str = "", now: Instant | None = None) -> WholeRecord:
    """The whole record of a job. base: what URLs begin with."""
    before = [WaitsForAnswer(job_id=other.job, resource=other.resource) for other in snapshot.waits_for]
    sent = [
        NotificationAnswer(to=one.to, outcome=one.outcome, state=one.state, attempts=one.attempts, error=one.error)
        for one in snapshot.notifications
    ]
    return WholeRecord(
        **_listed_fields(snapshot, base, now),
        waits_for=before,
        notifications=sent,
        stopped=_stopped(stop_report(snapshot.job)),
    )


def _listed_fields(snapshot: JobSnapshot, base: str, now: Instant | None) -> dict[str, Any]:
    job = snapshot.job
    return _fields(snapshot, base, now) | {
        **({"status": Status.QUEUED} if isinstance(job.state, Queued) else {}),
        "outcome": job_outcome(job),
        "project_id": job.project,
        "fabric_id": job.fabric,
        "commit": None if job.source is None else job.source.commit,
        "branch": None if job.source is None else job.source.branch,
        "version": None if job.source is None else job.source.version,
        "parameters": dict(job.parameters),
        "process_name": job.process,
        "enable_openlineage": any(step.lineage for step in job.plan.steps),
        "enable_elementary": any(step.name == "elementary" for step in job.plan.steps),
        "audit": [_act(act) for act in job.acts],
        "retry_of": job.retry_of,
        "notes": [*job.plan.notes, *([_REMOVED] if snapshot.output.removed else [])],
    }


def _fields(snapshot: JobSnapshot, base: str, now: Instant | None) -> dict[str, Any]:
    job, now = snapshot.job, now or clock.now()
    ended = job.state.at if isinstance(job.state, Ended) else None
    steps = [_step(*pair, snapshot, now) for pair in zip(job.plan.steps, job.steps, strict=True)]
    return {
        **_result(job),
        "job_id": job.id,
        "phase": phase(job, snapshot.liveness),
        "pipeline": job.pipeline,
        "command": job.command,
        "created_at": rfc3339(job.created.wall),
        "started_at": next((step.started_at for step in steps if step.started_at), None),
        "finished_at": None if ended is None else rfc3339(ended.wall),
        "duration_seconds": round(job.created.until(ended or now), 3),
        "steps": steps,
        "progress": next((step.progress for step in reversed(steps) if step.progress), None),
        "output_bytes": snapshot.output.kept,
        "output_dropped_bytes": snapshot.output.dropped,
        "log_url": f"{base}/api/v1/jobs/{job.id}/log",
    }


def _act(act: AuditEntry) -> AuditAnswer:
    return AuditAnswer(action=act.action, token=act.by.token, address=act.by.address, at=rfc3339(act.at.wall))


def _stopped(report: StopReport | None) -> StoppedAnswer | None:
    if report is None:
        return None
    return StoppedAnswer(signals=[*report.signals], seconds=round(report.seconds, 3), processes=report.processes)


def _result(job: Job) -> dict[str, Any]:
    match job.state:
        case Ended(ending=ending):
            return _ending(ending)
        case Queued() | Running() | Cancelling():  # the published example loops stop at any other word
            return {"success": True, "status": Status.RUNNING, "exit_code": _NO_EXIT_CODE}


def _ending(ending: Ending) -> dict[str, Any]:
    match ending:
        case Completed(exit_code=code, failure=failure):
            first = None if failure is None else _failure(failure)
            return {"success": True, "status": Status.COMPLETED, "exit_code": code, "first_failure": first}
        case Failed(reason=reason, error=error):
            result = {"success": False, "status": Status.FAILED, "exit_code": _NO_EXIT_CODE}
            return result | {"reason": reason, "error": error}


def _failure(failure: Failure) -> FailureAnswer:
    return FailureAnswer(node=failure.node, message=failure.message, more=failure.more)


def _step(planned: PlannedStep, state: StepState, snapshot: JobSnapshot, now: Instant) -> StepAnswer:
    name, status = planned.name, step_status(state)
    match state:
        case Pending():
            return StepAnswer(name=name, status=status)
        case Skipped(note=note):
            return StepAnswer(name=name, status=status, note=note)
        case Active(started=started, earlier=earlier):
            first = earlier[0].started if earlier else None
            running = AttemptAnswer(exit_code=None, reason=None, started_at=rfc3339(started.wall), finished_at=None)
            return StepAnswer(
                name=name,
                status=status,
                started_at=rfc3339((first or started).wall),
                duration_seconds=round((first or started).until(now), 3),
                progress=_progress(snapshot.progress),
                attempts=[*(_attempt(one, snapshot.job) for one in earlier), running] if earlier else None,
            )
        case Waiting(last=last, attempts=attempts):
            first = attempts[0].started
            return StepAnswer(
                name=name,
                status=status,
                note=_next_attempt(planned, state),
                started_at=None if first is None else rfc3339(first.wall),
                duration_seconds=None if first is None else round(first.until(now), 3),
                progress=_progress(last.progress),
                attempts=[_attempt(one, snapshot.job) for one in attempts],
            )
        case Finished(outcome=outcome, progress=progress, started=given, earlier=earlier):
            times = _times(step_span(outcome), given)
            last_one = Attempt(outcome, started=given)
            return StepAnswer(
                name=name,
                status=status,
                exit_code=step_exit_code(outcome),
                progress=_progress(progress),
                attempts=[_attempt(one, snapshot.job) for one in (*earlier, last_one)] if earlier else None,
                **(times if not earlier else times | _from_first(earlier[0], given, times)),
            )


def _attempt(attempt: Attempt, job: Job) -> AttemptAnswer:
    times = _times(step_span(attempt.outcome), attempt.started)
    is_cancelled = any(act.action is AuditAction.CANCELLED for act in job.acts)
    return AttemptAnswer(
        exit_code=step_exit_code(attempt.outcome),
        reason=step_reason(attempt.outcome, cancelled=is_cancelled),
        started_at=times.get("started_at"),
        finished_at=times.get("finished_at"),
    )


def _from_first(first: Attempt, last: Instant | None, times: dict[str, Any]) -> dict[str, Any]:
    """When a step of several attempts began, and how long it took with the waits. times: of the last attempt."""
    began = _times(step_span(first.outcome), first.started)
    if first.started is None or last is None:
        return began
    seconds = round(first.started.until(last) + times.get("duration_seconds", 0.0), 3)
    return {"started_at": began["started_at"], "duration_seconds": seconds}


def _next_attempt(planned: PlannedStep, state: Waiting) -> str:
    retries, number = planned.retries, len(state.attempts) + 1
    if retries is None:
        return f"attempt {number} is next"
    return f"attempt {number} of {retries.attempts} begins at {rfc3339(state.since.wall + retries.wait)}"


def _times(span: Span | None, given: Instant | None) -> dict[str, Any]:
    """The times of an attempt by its supervisor's record; without one, only when the runner got it."""
    if span is None:
        return {} if given is None else {"started_at": rfc3339(given.wall)}
    return {
        "started_at": rfc3339(span.started),
        "finished_at": rfc3339(span.finished),
        "duration_seconds": round(span.duration, 3),
        "peak_memory_bytes": span.peak_memory,
        "cpu_seconds": None if span.cpu is None else round(span.cpu, 3),
    }


def _progress(progress: Progress | None) -> ProgressAnswer | None:
    if progress is None:
        return None
    return ProgressAnswer(
        done=progress.done,
        total=progress.total,
        passed=progress.passed,
        warn=progress.warn,
        error=progress.error,
        skip=progress.skip,
        noop=progress.noop,
        current=progress.current,
    )
