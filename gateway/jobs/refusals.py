"""Why a trigger is refused for what another job or container holds, and what is recorded of that."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway import clock
from gateway.errors import ConflictError, QueueFullError
from gateway.fabrics.fabric import ContainerConflict
from gateway.jobs.execution import JobSnapshot
from gateway.jobs.planned import PlannedJob
from gateway.model.history import Refusal
from gateway.model.job import Queued
from gateway.model.status import phase

_RETRY_AFTER = 10  # seconds


def held_by_container(conflict: ContainerConflict) -> ConflictError:
    """A container outside the gateway uses a service of the plan."""
    since = clock.rfc3339(conflict.since)
    return ConflictError(
        str(conflict),
        conflict={"container": conflict.container, "since": since, "step": conflict.service},
        retry_after=_RETRY_AFTER,
    )


def held_by_job(holder: JobSnapshot) -> ConflictError:
    """Another job holds a resource of the plan, or waits for it first."""
    job, since = holder.job, clock.rfc3339(holder.job.created.wall)
    step = phase(job, holder.liveness)
    if isinstance(job.state, Queued):
        reason = f"Job {job.id} has been waiting since {since} for what this one needs too, and comes first"
    else:
        reason = f"Job {job.id} is already running since {since} (now: {step}) and holds what this one needs"
    return ConflictError(
        f"{reason}; wait for its end or cancel it.",
        conflict={"jobId": job.id, "since": since, "step": step},
        retry_after=_RETRY_AFTER,
    )


def refusal(planned: PlannedJob, refused: ConflictError | QueueFullError) -> Refusal:
    """What is recorded of a trigger that was refused now."""
    at, pipeline = clock.microseconds(datetime.now(UTC)), str(planned.request.pipeline)
    return Refusal(at, planned.project, planned.fabric_id, pipeline, refused.code, str(refused), refused.conflict)
