"""From an ended job to one that does its work again: which request, which steps, or why not. Pure."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from gateway.model.job import Caller, Finished, Job, Skipped, StepState
from gateway.model.plan import Plan, PlannedStep, StepName
from gateway.model.request import BuiltinPipeline, DbtCommand, OnConflict, TriggerRequest
from gateway.model.request_fields import RequestFields
from gateway.model.status import first_started, is_good, job_outcome
from runners.outcome import Exited

_RETRY = "Retry of the job"  # begins the note about it
_PACKAGES = "The checkout was made anew, so deps runs first."


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
    outcome = job_outcome(job)
    if outcome is not None and is_good(outcome):
        return f"The job {job.id} succeeded, so none of its steps failed"
    if all(first_started(state) is None for state in job.steps):
        return f"No step of the job {job.id} was begun"
    not_done = (n for n, state in enumerate(job.steps) if n >= job.begins_at and not _is_done(state))
    return next(not_done, f"Each step of the job {job.id} did its work")


def rest_of(job: Job, first: int, *, needs_packages: bool) -> tuple[Plan, tuple[Skipped, ...]]:
    """The plan of a job from one of its steps on, counted from 0, and the states of those before it, which stay in it.

    needs_packages: the checkout was made anew, so `deps` runs before the first step of dbt, whatever ran before.
    """
    steps = list(zip(job.plan.steps, job.steps, strict=True))
    rest = [planned for planned, _ in steps[first:]]
    of_dbt = next((n for n, planned in enumerate(rest) if planned.name is not StepName.INGESTER), None)
    again = needs_packages and of_dbt is not None and StepName.DEPS not in [planned.name for planned in rest]
    if again:
        rest.insert(of_dbt or 0, PlannedStep(StepName.DEPS))
    before = [(planned, state) for planned, state in steps[:first] if not (again and planned.name is StepName.DEPS)]
    done = tuple(state if isinstance(state, Skipped) else Skipped(f"done by the job {job.id}") for _, state in before)
    notes = [note for note in job.plan.notes if not note.startswith(_RETRY)]
    notes.append(f"{_RETRY} {job.id} from its step {job.plan.steps[first].name} on, on the same commit.")
    if again:
        notes.append(_PACKAGES)
    return replace(job.plan, steps=(*(planned for planned, _ in before), *rest), notes=tuple(notes)), done


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
