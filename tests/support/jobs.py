"""Jobs, plans and outcomes made by hand."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.clock import Instant
from gateway.errors import HeldError
from gateway.fabrics.registry import FabricRegistry
from gateway.jobs.planned import PlannedJob
from gateway.model.job import Ended, Ending, Job, JobState, Pending, Running, StepState
from gateway.model.plan import Plan, PlannedStep, StepName
from gateway.model.request import TriggerRequest
from gateway.settings.fabric import RunnerName
from gateway.storage.store import Store
from runners.outcome import Span

NOON = Instant(wall=1_795_262_400.0, uptime=1_000.0, boot="boot-1")
SPAN = Span(started=1_795_262_400.0, finished=1_795_262_402.5, duration=2.5)


def later(seconds: float, since: Instant = NOON) -> Instant:
    """So many seconds after, by both clocks and without a reboot."""
    return Instant(since.wall + seconds, since.uptime + seconds, since.boot)


def planned(*names: str, resources: Sequence[str] = ("warehouse",)) -> Plan:
    """A plan of these steps, none of which tolerates a failure."""
    return Plan(tuple(PlannedStep(StepName(name)) for name in names), tuple(resources))


def planned_job(
    registry: FabricRegistry, plan: Plan, request: TriggerRequest, fabric: str = "local", project: str = "default"
) -> PlannedJob:
    """A job of this plan, as the service accepts it; its steps are processes of this host."""
    return PlannedJob(request, plan, project, fabric, registry.get(RunnerName.LOCAL, fabric, project))


def make_job(
    job_id: str = "full-1795262400000-abc123",
    *,
    plan: Plan | None = None,
    steps: Sequence[StepState] | None = None,
    state: JobState | None = None,
    created: Instant = NOON,
) -> Job:
    """A job as the service makes it when it accepts a trigger, unless told otherwise."""
    plan = plan or planned("ingester")
    return Job(
        id=job_id,
        pipeline="full",
        command="daily",
        project="default",
        fabric="local",
        plan=plan,
        created=created,
        steps=tuple(steps) if steps is not None else (Pending(),) * len(plan.steps),
        state=state or Running(),
    )


def ended(job: Job, ending: Ending, at: Instant = NOON) -> Job:
    """The same job, ended."""
    return Job(
        job.id,
        job.pipeline,
        job.command,
        job.project,
        job.fabric,
        job.plan,
        job.created,
        job.steps,
        Ended(at, ending),
    )


async def held_by(store: Store, job: Job) -> str | None:
    """Insert a job that may not wait; the id of the one that is in its way, None where it was taken."""
    try:
        await store.insert(job)
    except HeldError as held:
        return held.job
    return None
