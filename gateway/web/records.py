"""A job as the data-analytics API and the jobs API show it."""

from __future__ import annotations

from typing import Any

from gateway import clock
from gateway.clock import Instant, rfc3339
from gateway.jobs.execution import JobSnapshot
from gateway.model.job import (
    Active,
    AuditEntry,
    Cancelling,
    Completed,
    Ended,
    Ending,
    Failed,
    Finished,
    Job,
    Pending,
    Queued,
    Running,
    Skipped,
    Status,
    StepState,
    job_outcome,
    phase,
    step_exit_code,
    step_span,
    step_status,
)
from gateway.model.plan import PlannedStep
from runners.outcome import Span
from runners.report import Failure, Progress

_NO_EXIT_CODE = -1
_REMOVED = "Output and files of this job were removed to keep those of all jobs under state_cap."


def record(snapshot: JobSnapshot, now: Instant | None = None) -> dict[str, Any]:
    """The fields that both the data-analytics API and the jobs API give of a job."""
    job, now = snapshot.job, now or clock.now()
    ended = job.state.at if isinstance(job.state, Ended) else None
    steps = [_step(*pair, snapshot, now) for pair in zip(job.plan.steps, job.steps, strict=True)]
    started = next((step["startedAt"] for step in steps if step["startedAt"]), None)
    return {
        **_result(job),
        "jobId": job.id,
        "phase": phase(job, snapshot.liveness),
        "pipeline": job.pipeline,
        "command": job.command,
        "createdAt": rfc3339(job.created.wall),
        "startedAt": started,
        "finishedAt": None if ended is None else rfc3339(ended.wall),
        "durationSeconds": round(job.created.until(ended or now), 3),
        "steps": steps,
        "progress": next((step["progress"] for step in reversed(steps) if step["progress"]), None),
    }


def whole_record(snapshot: JobSnapshot, now: Instant | None = None) -> dict[str, Any]:
    """The whole record of a job, which has all but its output."""
    job = snapshot.job
    return record(snapshot, now) | {
        **({"status": Status.QUEUED} if isinstance(job.state, Queued) else {}),
        "outcome": job_outcome(job),
        "waitsFor": [{"jobId": before.job, "resource": before.resource} for before in snapshot.waits_for],
        "projectId": job.project,
        "fabricId": job.fabric,
        "commit": None if job.source is None else job.source.commit,
        "branch": None if job.source is None else job.source.branch,
        "version": None if job.source is None else job.source.version,
        "parameters": dict(job.parameters),
        "processName": job.process,
        "enableOpenlineage": any(step.lineage for step in job.plan.steps),
        "enableElementary": any(step.name == "elementary" for step in job.plan.steps),
        "audit": [_act(act) for act in job.acts],
        "notes": [*job.plan.notes, *([_REMOVED] if snapshot.removed else [])],
    }


def _act(act: AuditEntry) -> dict[str, Any]:
    return {"action": act.action, "token": act.by.token, "address": act.by.address, "at": rfc3339(act.at.wall)}


def _result(job: Job) -> dict[str, Any]:
    match job.state:
        case Ended(ending=ending):
            return _ending(ending)
        case Queued() | Running() | Cancelling():  # the published example loops stop at any other word
            return {"success": True, "status": Status.RUNNING, "exitCode": _NO_EXIT_CODE}


def _ending(ending: Ending) -> dict[str, Any]:
    match ending:
        case Completed(exit_code=code, failure=failure):
            first = {} if failure is None else {"firstFailure": _failure(failure)}
            return {"success": True, "status": Status.COMPLETED, "exitCode": code, **first}
        case Failed(reason=reason, error=error):
            result = {"success": False, "status": Status.FAILED, "exitCode": _NO_EXIT_CODE}
            return result | {"reason": reason, "error": error}


def _failure(failure: Failure) -> dict[str, Any]:
    return {"node": failure.node, "message": failure.message, "more": failure.more}


def _step(planned: PlannedStep, state: StepState, snapshot: JobSnapshot, now: Instant) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "name": planned.name,
        "status": step_status(state),
        "note": None,
        "exitCode": None,
        "startedAt": None,
        "finishedAt": None,
        "durationSeconds": None,
        "progress": None,
    }
    match state:
        case Pending():
            return shown
        case Skipped(note=note):
            return shown | {"note": note}
        case Active(started=started):
            return shown | {
                "startedAt": rfc3339(started.wall),
                "durationSeconds": round(started.until(now), 3),
                "progress": _progress(snapshot.progress),
            }
        case Finished(outcome=outcome, progress=progress, started=given):
            return shown | {
                "exitCode": step_exit_code(outcome),
                "progress": _progress(progress),
                **_times(step_span(outcome), given),
            }


def _times(span: Span | None, given: Instant | None) -> dict[str, Any]:
    """The times of a step by its supervisor's record; without one, only when the runner got the step."""
    if span is None:
        return {} if given is None else {"startedAt": rfc3339(given.wall)}
    return {
        "startedAt": rfc3339(span.started),
        "finishedAt": rfc3339(span.finished),
        "durationSeconds": round(span.duration, 3),
    }


def _progress(progress: Progress | None) -> dict[str, Any] | None:
    if progress is None:
        return None
    return {
        "done": progress.done,
        "total": progress.total,
        "pass": progress.passed,
        "warn": progress.warn,
        "error": progress.error,
        "skip": progress.skip,
        "noop": progress.noop,
        "current": progress.current,
    }
