"""Submits, finds, cancels and recovers jobs; owns the task of every job that has not ended."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import string
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from gateway import clock
from gateway.errors import (
    ConflictError,
    DrainingError,
    HeldError,
    PipelinesDisabledError,
    StorageError,
    UnknownJobError,
)
from gateway.fabrics.checkouts import Checkouts
from gateway.fabrics.fabric import Fabric
from gateway.fabrics.registry import FabricRegistry
from gateway.jobs import readiness
from gateway.jobs.execution import JobExecution, JobSnapshot
from gateway.jobs.readiness import Readiness
from gateway.jobs.requests import Order, PipelineInfo, Pipelines, Run
from gateway.model.catalog import Trigger
from gateway.model.job import (
    AuditAction,
    AuditEntry,
    Caller,
    Ended,
    Finished,
    Job,
    Pending,
    Queued,
    RunnerName,
    Running,
    phase,
)
from gateway.model.plan import Plan
from gateway.settings.settings import Settings
from gateway.storage import job_file
from gateway.storage.store import Store
from runners import durable
from runners.runner import Runner

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_ID_LETTERS = string.ascii_lowercase + string.digits
_RETRY_AFTER_CONFLICT = 10
_SETTLE = 2.0  # seconds that recovery waits before it listens; what needs longer settles in the background

_log = structlog.get_logger()


class JobService:
    """What both published APIs and the jobs API are skins over."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        runners: Mapping[RunnerName, Runner],
        registry: FabricRegistry,
        checkouts: Checkouts,
        broken: Callable[[asyncio.Task[None]], None],
    ) -> None:
        """broken: told of a job's task that died with its job not ended."""
        self._settings = settings
        self._store = store
        self._runners = runners
        self._registry = registry
        self._checkouts = checkouts
        self._pipelines = Pipelines(settings, registry, checkouts)
        self._broken = broken
        self._jobs = settings.state_directory / "jobs"
        self._executions: dict[str, tuple[JobExecution, asyncio.Task[None]]] = {}
        self._recovered: set[str] = set()
        self._draining = False

    async def trigger(self, trigger: Trigger, by: Caller) -> Job:
        """Plan and submit a job of the default project on the default fabric.

        Raises PipelinesDisabledError, DrainingError, StorageError, ConflictError, EngineError.
        """
        self.must_be_enabled()
        return await self._accept(await self._pipelines.default(trigger), by)

    async def run(self, run: Run, by: Caller) -> Job:
        """Submit a job of a project's own pipeline, which waits for others where it must.

        Raises PipelinesDisabledError, UnknownTargetError, BadRequestError, RepositoryUnavailableError, DrainingError,
        StorageError, ConflictError, EngineError.
        """
        self.must_be_enabled()
        await self._must_have_room()  # git and dbt would only stumble over it
        return await self._accept(await self._pipelines.named(run), by, may_wait=True)

    def pipelines(self) -> list[PipelineInfo]:
        """The pipelines that can be run by name."""
        return list(self._pipelines.all())

    async def last_run(self, pipeline: PipelineInfo) -> JobSnapshot | None:
        """The newest job of a pipeline."""
        job = await self._store.last_of_pipeline(pipeline.project, pipeline.name)
        return None if job is None else await self.get(job.id)

    async def _accept(self, order: Order, by: Caller, *, may_wait: bool = False) -> Job:
        await self._must_be_free(self._pipelines.work(order), order.plan)
        return await self.submit(order, by, may_wait=may_wait)

    def must_be_enabled(self) -> None:
        """Raises PipelinesDisabledError where triggers are off."""
        if not self._settings.enabled:
            raise PipelinesDisabledError

    async def submit(self, order: Order, by: Caller, *, may_wait: bool = False) -> Job:
        """Record a job and start it; once this returns it is durable, and nothing has been spawned yet.

        may_wait: where others hold what it needs, it is queued. Raises DrainingError, StorageError, QueueFullError,
        ConflictError.
        """
        if self._draining:
            raise DrainingError("The gateway is stopping; try again in a few seconds.")
        await self._must_have_room()
        now = clock.now()
        job = Job(
            id=_new_id(order.pipeline),
            pipeline=order.pipeline,
            command=order.command,
            project=order.project,
            fabric=order.fabric,
            plan=order.plan,
            created=now,
            steps=(Pending(),) * len(order.plan.steps),
            state=Running(),
            runner=order.runner,
            acts=(AuditEntry(AuditAction.TRIGGERED, by, now),),
            source=order.source,
            parameters=order.parameters,
            process=order.process,
        )
        try:
            job = await self._store.insert(job, may_wait=may_wait)
        except HeldError as held:
            raise await self._conflict(held.job) from None
        self._launch(job)
        steps = [str(step.name) for step in order.plan.steps]
        _log.info("job accepted", job=job.id, state=job.state.kind, steps=steps, **_who(by))
        return job

    async def get(self, job_id: str) -> JobSnapshot:
        """A job as it is now. Raises UnknownJobError."""
        if job_id in self._executions:
            return self._executions[job_id][0].snapshot()
        job = await self._store.get(job_id) if _ID.fullmatch(job_id) else None
        if job is None:
            raise UnknownJobError(f"Job {job_id[:100]!a} not found. It may never have been, or its record has expired.")
        return self._at_rest(job)

    async def get_recent(self, job_id: str) -> JobSnapshot:
        """A job that is active or ended within the list's hour. Raises UnknownJobError."""
        snapshot = await self.get(job_id)
        state = snapshot.job.state
        if isinstance(state, Ended) and state.at.until(clock.now()) >= self._settings.job_ttl:
            raise UnknownJobError(f"Job {job_id} ended long ago and left the list; GET /api/v1/jobs/{job_id} has it.")
        return snapshot

    async def recent(self) -> list[JobSnapshot]:
        """The active jobs and those that ended within the list's hour, newest first."""
        jobs = await self._store.recent(clock.now(), self._settings.job_ttl)
        return [
            self._executions[job.id][0].snapshot() if job.id in self._executions else self._at_rest(job) for job in jobs
        ]

    async def wait(self, job_id: str, known: JobSnapshot, seconds: float) -> JobSnapshot:
        """The job once it is other than `known`, or after that many seconds. Raises UnknownJobError."""
        if job_id in self._executions:
            await self._executions[job_id][0].wait(known, seconds)
        return await self.get(job_id)

    async def cancel(self, job_id: str, by: Caller) -> JobSnapshot:
        """Ask for a job's end; it ends when nothing of it is alive. A job that has ended stays as it is.

        Raises UnknownJobError.
        """
        if job_id in self._executions:
            first = await self._executions[job_id][0].cancel(by)
            if first:
                _log.info("job cancelled", job=job_id, **_who(by))
        return await self.get(job_id)

    def folder(self, job_id: str) -> Path:
        """Where a job's output and its steps' files are."""
        return self._jobs / job_id

    async def readiness(self) -> Readiness:
        """Whether a trigger would be taken and could run."""
        unsettled = sum(not self._executions[job_id][0].settled.is_set() for job_id in self._recovered)
        return await readiness.check(self._settings, self._registry.all(), unsettled)

    async def recover(self) -> None:
        """Take up every job that had not ended, and wait a moment for the truth about each."""
        jobs = await self._store.active()
        for job in jobs:
            await asyncio.to_thread(_tidy, self.folder(job.id))
        for job in jobs:  # all at once: none begins in a checkout before those that are at it have said so
            _log.info("job recovered", job=job.id)
            self._recovered.add(job.id)
            self._launch(job)
        waiters = [asyncio.create_task(execution.settled.wait()) for execution, _ in self._executions.values()]
        if waiters:
            _, late = await asyncio.wait(waiters, timeout=_SETTLE)
            for waiter in late:
                waiter.cancel()

    def drain(self) -> None:
        """Take no more jobs, and keep nobody waiting."""
        self._draining = True
        for execution, _ in self._executions.values():
            execution.release()

    async def close(self) -> None:
        """Let go of the jobs, which run on; a later start takes them up again. Closing twice is harmless."""
        self.drain()
        tasks = [task for _, task in self._executions.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _at_rest(self, job: Job) -> JobSnapshot:
        ran = any(isinstance(state, Finished) and state.started is not None for state in job.steps)
        return JobSnapshot(job, removed=ran and not job_file.has_more(self.folder(job.id)))

    def _launch(self, job: Job) -> None:
        checkout = self._checkouts.checkout(job.fabric, job.source)
        if checkout is not None and any(not isinstance(state, Pending) for state in job.steps):
            checkout.add_user(job.id)
        work = self._registry.of(job.runner, job.fabric, job.project, checkout)
        execution = JobExecution(
            job, self._store, self._runners[job.runner], work, self.folder(job.id), checkout, self._notify_turn
        )
        task = asyncio.create_task(execution.run(), name=f"job-{job.id}")
        self._executions[job.id] = execution, task
        task.add_done_callback(lambda _: self._forget(job.id, task))

    def _notify_turn(self, promoted: list[str]) -> None:
        """Tell jobs whose turn has come; one whose execution has not begun finds out by itself."""
        for job_id in promoted:
            if job_id in self._executions:
                self._executions[job_id][0].notify_turn()

    def _forget(self, job_id: str, task: asyncio.Task[None]) -> None:
        del self._executions[job_id]
        self._recovered.discard(job_id)
        if not task.cancelled() and task.exception() is not None:
            self._broken(task)

    async def _must_have_room(self) -> None:
        """Raises StorageError."""
        why = await asyncio.to_thread(readiness.disk_problem, self._settings)
        if why is not None:
            raise StorageError(why)

    async def _must_be_free(self, work: Fabric, plan: Plan) -> None:
        """Whoever else uses what the plan's steps use comes first. Raises ConflictError, EngineError."""
        holder = await work.container_conflict(plan)
        if holder is not None:
            since = clock.rfc3339(holder.since)
            raise ConflictError(
                str(holder),
                conflict={"container": holder.container, "since": since, "step": holder.service},
                retry_after=_RETRY_AFTER_CONFLICT,
            )

    async def _conflict(self, holder: str) -> ConflictError:
        snapshot = await self.get(holder)
        since = clock.rfc3339(snapshot.job.created.wall)
        step = phase(snapshot.job, snapshot.liveness)
        if isinstance(snapshot.job.state, Queued):
            first = f"Job {holder} has been waiting since {since} for what this one needs too, and comes first"
        else:
            first = f"Job {holder} is already running since {since} (now: {step}) and holds what this one needs"
        return ConflictError(
            f"{first}; wait for its end or cancel it.",
            conflict={"jobId": holder, "since": since, "step": step},
            retry_after=_RETRY_AFTER_CONFLICT,
        )


def _new_id(pipeline: str) -> str:
    return f"{pipeline}-{time.time_ns() // 1_000_000}-{''.join(secrets.choice(_ID_LETTERS) for _ in range(6))}"


def _who(by: Caller) -> dict[str, str | None]:
    """A caller as the log tells of one."""
    return {"token": by.token, "address": by.address}


def _tidy(folder: Path) -> None:
    """Remove what the gateway of before was just writing into a job's folder and those of its steps."""
    with contextlib.suppress(OSError):
        for directory in (folder, *folder.glob("*-*/")):
            durable.tidy(directory)
