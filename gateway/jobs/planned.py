"""A planned request, and the job that it becomes."""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gateway import clock
from gateway.fabrics.fabric import Fabric
from gateway.model.job import (
    AuditAction,
    AuditEntry,
    Job,
    Pending,
    Queued,
    Running,
    Skipped,
    SourceCommit,
    TimeLimit,
)
from gateway.model.plan import Plan, PlannedStep
from gateway.model.request import OnConflict, TriggerRequest
from gateway.model.request_fields import RequestFields
from runners.parameters import ParameterValue

_ID_LETTERS = string.ascii_lowercase + string.digits


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """A request with its plan and the fabric that runs it, before it becomes a job.

    project, fabric_id: ids. source: the commit that it runs on. command: of a built-in pipeline's dbt part.
    built_in: its pipeline is a built-in one. time_limit: of the job.
    parameters: values of the pipeline's parameters, by name.
    retry_of: the id of the job that it is a retry of. done: the states of its first steps, which that job did.
    continues: as in Job.
    """

    request: TriggerRequest
    plan: Plan
    project: str
    fabric_id: str
    fabric: Fabric
    source: SourceCommit | None = None
    command: str | None = None
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    built_in: bool = False
    retry_of: str | None = None
    done: tuple[Skipped, ...] = ()
    continues: str | None = None
    time_limit: TimeLimit | None = None


def new_job(planned: PlannedJob) -> Job:
    """The job of a planned request, made at this moment and not recorded yet."""
    now = clock.now()
    return Job(
        id=_new_id(planned.request.pipeline),
        pipeline=str(planned.request.pipeline),
        command=planned.command,
        project=planned.project,
        fabric=planned.fabric_id,
        plan=planned.plan,
        created=now,
        steps=(*planned.done, *(Pending(),) * (len(planned.plan.steps) - len(planned.done))),
        state=Running(),
        runner=planned.fabric.runner,
        acts=(AuditEntry(AuditAction.TRIGGERED, planned.request.caller, now),),
        source=planned.source,
        parameters=dict(planned.parameters),
        process=planned.request.process,
        time_limit=planned.time_limit,
        request=_request_fields(planned.request, built_in=planned.built_in),
        retry_of=planned.retry_of,
        begins_at=len(planned.done),
        continues=planned.continues,
    )


def _request_fields(request: TriggerRequest, *, built_in: bool) -> RequestFields:
    return RequestFields(
        built_in=built_in,
        openlineage=request.openlineage,
        elementary=request.elementary,
        parameters=dict(request.parameters),
        branch=request.branch,
        version=request.version,
    )


def may_attach(job: Job, planned: PlannedJob) -> bool:
    """Whether a request that attaches may be answered with a job: that does the same, on the same commit.

    A job that has ended or is being cancelled does nothing more.
    """
    asked = new_job(planned)
    fields = ("pipeline", "command", "project", "fabric", "source", "parameters", "process", "begins_at", "time_limit")
    return (
        planned.request.on_conflict is OnConflict.ATTACH
        and isinstance(job.state, Queued | Running)
        and all(getattr(job, name) == getattr(asked, name) for name in fields)
        and [_settled(step) for step in job.plan.steps] == [_settled(step) for step in asked.plan.steps]
    )


def _settled(step: PlannedStep) -> PlannedStep:
    """A step without what only its begin decides."""
    return replace(step, without_elementary=False, with_elementary=False)


def _new_id(pipeline: str) -> str:
    return f"{pipeline}-{time.time_ns() // 1_000_000}-{''.join(secrets.choice(_ID_LETTERS) for _ in range(6))}"
