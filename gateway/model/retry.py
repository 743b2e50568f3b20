"""From an ended job to one that does its work again: which request, which steps, or why not. Pure."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from gateway.model.job import Caller, Finished, Job, JobOutcome, Skipped, StepState
from gateway.model.plan import Plan
from gateway.model.request import BuiltinPipeline, DbtCommand, OnConflict, TriggerRequest
from gateway.model.request_fields import RequestFields
from gateway.model.status import first_started, job_outcome
from runners.outcome import Exited

_RETRY = "Retry of the job"  # begins the note about it


class RetryFrom(StrEnum):
    """Where a retry begins: with the step that failed, or with the whole request."""

    FAILED = "failed"
    START = "start"


def same_request(job: Job, on_conflict: OnConflict, caller: Caller) -> TriggerRequest:
    """The request of a job, made again by this caller."""
    given = job.request or _request_fields(job)
    return TriggerRequest(
        BuiltinPipeline(job.pipeline) if given.built_in else job.pipeline,
        DbtCommand(job.command) if given.built_in and job.command is not None else None,
        openlineage=given.openlineage,
        elementary=given.elementary,
        project=job.project,
        fabric=job.fabric,
        parameters=given.parameters,
        branch=given.branch,
        version=given.version,
        process=job.process,
        on_conflict=on_conflict,
        caller=caller,
        time_limit=job.time_limit.seconds if job.time_limit is not None and job.time_limit.by_request else None,
    )


def failed_step(job: Job) -> int | str:
    """The first step of an ended job that did not do its work, counted from 0; or why there is none to begin with."""
    if job_outcome(job) in (JobOutcome.SUCCEEDED, JobOutcome.WARNINGS):
        return f"The job {job.id} succeeded, so none of its steps failed"
    if all(first_started(state) is None for state in job.steps):
        return f"No step of the job {job.id} was begun"
    return next(n for n, state in enumerate(job.steps) if n >= job.begins_at and not _is_done(state))


def rest_of(job: Job, first: int) -> Plan:
    """The plan of a job from one of its steps on, counted from 0; the steps before it stay in it."""
    notes = (note for note in job.plan.notes if not note.startswith(_RETRY))
    name = job.plan.steps[first].name
    return replace(job.plan, notes=(*notes, f"{_RETRY} {job.id} from its step {name} on, on the same commit."))


def done_before(job: Job, first: int) -> tuple[Skipped, ...]:
    """The states of the steps that a retry leaves out, since this job or an earlier one did them."""
    states = (state if isinstance(state, Skipped) else Skipped(f"done by the job {job.id}") for state in job.steps)
    return tuple(states)[:first]


def _is_done(state: StepState) -> bool:
    return isinstance(state, Finished) and isinstance(state.outcome, Exited) and state.outcome.code == 0


def _request_fields(job: Job) -> RequestFields:
    """What the request of an older version's job gave, as far as the record tells."""
    built_in = job.command is not None or job.pipeline == BuiltinPipeline.INGESTER
    source = job.source
    return RequestFields(
        built_in=built_in,
        parameters=job.parameters,
        branch=None if source is None or source.version is not None else source.branch,
        version=None if source is None else source.version,
    )
