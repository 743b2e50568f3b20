"""Submits, finds, cancels and recovers jobs; owns the task of every job that has not ended."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from gateway import clock
from gateway.artifacts.reader import ArtifactReader
from gateway.errors import (
    ConflictError,
    DrainingError,
    HeldError,
    PipelinesDisabledError,
    QueueFullError,
    RetryRefusedError,
    StorageError,
    UnknownJobError,
)
from gateway.fabrics.fabric import Fabric
from gateway.fabrics.registry import FabricRegistry
from gateway.jobs import refusals
from gateway.jobs.execution import JobExecution, JobSnapshot
from gateway.jobs.metrics import JobMetrics
from gateway.jobs.output_reader import OutputReader
from gateway.jobs.planned import PlannedJob, may_attach, new_job
from gateway.jobs.readiness import Readiness, ReadinessCheck
from gateway.jobs.requests import PipelineInfo, RequestPlanner
from gateway.model.history import JobFilter, Refusal
from gateway.model.job import Caller, Ended, Job, Queued, WaitsFor
from gateway.model.request import KeptAnswer, OnConflict, RequestKey, TriggerRequest
from gateway.model.retry import RetryFrom, same_request
from gateway.model.status import has_begun, job_status, phase
from gateway.output.parts import OutputSize
from gateway.settings.fabric import RunnerName
from gateway.settings.settings import Settings
from gateway.storage.pauses import Pauses
from gateway.storage.store import Store
from runners import durable
from runners.mask import Mask
from runners.runner import Runner

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_STOPPING = "The gateway is stopping; try again in a few seconds."
_SETTLE = 2.0  # seconds that recovery waits for its jobs before the service listens; the rest settle later

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Once:
    """A request that makes one job however often it is sent. answer: to the first one, kept for the others."""

    key: RequestKey
    answer: Callable[[JobSnapshot], KeptAnswer]

    def of_new_job(self, job: Job, waits_for: tuple[WaitsFor, ...]) -> KeptAnswer:
        """The answer with a job of which nothing has begun."""
        return self.answer(_new_snapshot(job, waits_for))


class JobService:
    """The service that every API is a skin over."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        pauses: Pauses,
        runners: Mapping[RunnerName, Runner],
        registry: FabricRegistry,
        on_broken: Callable[[asyncio.Task[None]], None],
    ) -> None:
        """on_broken: called with a job's task that died while its job had not ended."""
        self._store = store
        self.pauses = pauses
        self.metrics = JobMetrics()
        self.configure(settings, runners, registry)
        self._on_broken = on_broken
        self._jobs = settings.state_directory / "jobs"
        self._executions: dict[str, tuple[JobExecution, asyncio.Task[None]]] = {}
        self._recovered: set[str] = set()
        self._draining = False
        self.output = OutputReader(self.folder, self._job, self._mask)
        self.artifacts = ArtifactReader(self.folder, self._job, self._mask)

    def configure(self, settings: Settings, runners: Mapping[RunnerName, Runner], registry: FabricRegistry) -> None:
        """Plan requests by this configuration from now on. Jobs, and requests that are being planned, keep theirs."""
        readiness, planner = ReadinessCheck(settings, registry, self._store), RequestPlanner(settings, registry)
        # all of it at once, after what may raise, and without an await between
        self.settings, self._runners, self.registry = settings, runners, registry
        self._readiness, self._planner = readiness, planner
        self.metrics.know((info.project, info.name) for info in planner.pipelines())

    def must_be_enabled(self) -> None:
        """Raises PipelinesDisabledError where triggers are off."""
        if not self.settings.enabled:
            raise PipelinesDisabledError

    def _why_closed(self) -> str | None:
        if self._draining:
            return str(DrainingError(_STOPPING))
        return None if self.settings.enabled else str(PipelinesDisabledError())

    async def submit(self, request: TriggerRequest, once: Once | None = None) -> Job:
        """Plan a request, record its job and start it. Once this returns the job is durable; nothing is spawned yet.

        A request that attaches may get a job that runs already.
        Raises UnknownTargetError, BadRequestError, RepositoryUnavailableError, OverloadedError, DrainingError,
        StorageError, QueueFullError, PausedError, ConflictError, EngineError, AnsweredError, ReusedKeyError.
        """
        await self._must_have_room()  # before git and dbt, which would fail on a full disk with other words
        return await self.accept(await self._planner.plan(request), once)

    async def retry(
        self, job_id: str, start: RetryFrom, on_conflict: OnConflict, caller: Caller, once: Once | None = None
    ) -> Job:
        """Do the work of an ended job again, as a new job: from the step that failed on, or all of it.

        Raises UnknownJobError, RetryRefusedError, and what `submit` does.
        """
        job = await self._job(job_id)
        if not isinstance(job.state, Ended):
            raise RetryRefusedError(
                "job_not_ended", f"Job {job.id} has not ended (now: {phase(job)}): wait for its end, or cancel it."
            )
        await self._must_have_room()
        request = same_request(job, on_conflict, caller)
        if start is RetryFrom.FAILED:
            return await self.accept(await self._planner.plan_rest(job, request), once)
        return await self.accept(replace(await self._planner.plan(request), retry_of=job.id), once)

    async def accept(self, planned: PlannedJob, once: Once | None = None) -> Job:
        """Record a planned job and start it. A refusal for a conflict or a full queue is recorded too.

        Raises DrainingError, StorageError, QueueFullError, PausedError, ConflictError, EngineError, AnsweredError,
        ReusedKeyError.
        """
        if self._draining:
            raise DrainingError(_STOPPING)
        await self._must_have_room()
        self.pauses.must_not_be_paused(planned.project, str(planned.request.pipeline))
        try:
            conflict = await planned.fabric.container_conflict(planned.plan)
            if conflict is not None:
                raise refusals.held_by_container(conflict)
            return await self._record(planned, once)
        except (ConflictError, QueueFullError) as refused:
            try:
                await self._store.add_refusal(refusals.refusal(planned, refused))
            except StorageError as error:  # the answer to the trigger stays the same
                _log.warning("refusal not recorded", pipeline=str(planned.request.pipeline), error=str(error))
            raise

    async def _record(self, planned: PlannedJob, once: Once | None) -> Job:
        """Record a job that no container is in the way of, and start it."""
        try:
            may_wait = planned.request.on_conflict is OnConflict.QUEUE
            kept = None if once is None else (once.key, once.of_new_job)
            job = await self._store.insert(new_job(planned), may_wait=may_wait, once=kept)
        except HeldError as held:
            holder = self._executions.get(held.job)
            if holder is None or not may_attach(holder[0].job, planned):
                raise refusals.held_by_job(await self._find(held.job)) from None
            job = holder[0].job
            if once is not None:
                answer = once.answer(await self.accepted(job))
                await self._store.keep_answer(once.key, job.id, answer, clock.now())
            return job
        self._launch(job, planned.fabric)
        steps = [str(step.name) for step in job.plan.steps]
        caller = _caller_fields(planned.request.caller)
        _log.info("job accepted", job=job.id, state=job.state.kind, steps=steps, **caller)
        return job

    async def accepted(self, job: Job) -> JobSnapshot:
        """A job as the answer to its trigger has it; one of which a step has begun was attached to."""
        if has_begun(job):
            return await self.get(job.id)
        return _new_snapshot(job, await self._store.waits_for(job.id) if isinstance(job.state, Queued) else ())

    async def answer(self, key: RequestKey) -> KeptAnswer | None:
        """The answer to the first request with this key. Raises ReusedKeyError."""
        return await self._store.answer(key)

    def pipelines(self) -> list[PipelineInfo]:
        """The pipelines that projects declare."""
        return list(self._planner.pipelines())

    def pipeline(self, project: str, name: str) -> PipelineInfo:
        """The pipeline of this name. Raises UnknownTargetError."""
        return self._planner.pipeline(project, name)

    async def last_run(self, pipeline: PipelineInfo) -> JobSnapshot | None:
        """The newest job of a pipeline, None if it never ran."""
        job = await self._store.last_of_pipeline(pipeline.project, pipeline.name)
        return None if job is None else self._snapshot(job)

    async def usual_seconds(self, pipeline: PipelineInfo) -> float | None:
        """The median duration of a pipeline's last jobs that ran to their end, None without one."""
        return await self._store.usual_seconds(pipeline.project, pipeline.name)

    async def get(self, job_id: str) -> JobSnapshot:
        """A job as it is now. Raises UnknownJobError."""
        [snapshot] = await self.output.sized([await self._find(job_id)])
        return snapshot

    async def with_notifications(self, snapshot: JobSnapshot) -> JobSnapshot:
        """A job with what is told of it to others."""
        if not isinstance(snapshot.job.state, Ended):  # nothing is yet
            return snapshot
        return replace(snapshot, notifications=await self._store.outbox.of_job(snapshot.job.id))

    async def _find(self, job_id: str) -> JobSnapshot:
        """A job as it is now, without what only the disk knows. Raises UnknownJobError."""
        if job_id in self._executions:
            snapshot = self._executions[job_id][0].snapshot()
            if isinstance(snapshot.job.state, Queued):
                return replace(snapshot, waits_for=await self._store.waits_for(job_id))
            return snapshot
        job = await self._store.get(job_id) if _ID.fullmatch(job_id) else None
        if job is None:
            raise UnknownJobError(f"Job {job_id[:100]!a} not found. It may never have been, or its record has expired.")
        return self._snapshot(job)

    async def get_recent(self, job_id: str) -> JobSnapshot:
        """A job that is active or ended within the last JOB_TTL seconds. Raises UnknownJobError."""
        snapshot = await self.get(job_id)
        state = snapshot.job.state
        if isinstance(state, Ended) and state.at.until(clock.now()) >= self.settings.job_ttl:
            raise UnknownJobError(f"Job {job_id} ended long ago and left the list; GET /api/v1/jobs/{job_id} has it.")
        return snapshot

    async def recent(self) -> list[JobSnapshot]:
        """The active jobs and those that ended within the last JOB_TTL seconds, newest first."""
        jobs = await self._store.recent(clock.now(), self.settings.job_ttl)
        return await self.output.sized([self._snapshot(job) for job in jobs])

    async def page(self, wanted: JobFilter, before: int | None, limit: int) -> tuple[list[JobSnapshot], int | None]:
        """The newest jobs that are wanted, at most `limit`, and where the next page begins: see Store.page."""
        jobs, following = await self._store.page(wanted, before, limit)
        found = [self._snapshot(job) for job in jobs]
        # a job may have ended since the database was read, and must not be in a list of others
        still = [one for one in found if not wanted.statuses or job_status(one.job) in wanted.statuses]
        return await self.output.sized(still), following

    async def refusals(self, wanted: JobFilter, before: int | None, limit: int) -> tuple[list[Refusal], int | None]:
        """The newest refused triggers that are wanted, as `page` has jobs."""
        return await self._store.refusals(wanted, before, limit)

    async def wait(self, job_id: str, has_changed: Callable[[JobSnapshot], bool], seconds: float) -> JobSnapshot:
        """The job once `has_changed` is true of it, or after that many seconds. Raises UnknownJobError."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while job_id in self._executions and not self._draining:
                    changed = self._executions[job_id][0].changed
                    now = await self._find(job_id)
                    begins = isinstance(now.job.state, Queued) and not now.waits_for  # its begin is the change
                    if has_changed(now) and not begins:
                        break
                    await changed.wait()
        return await self.get(job_id)

    async def cancel(self, job_id: str, by: Caller) -> JobSnapshot:
        """Ask for a job's end. It ends when no process of it is alive; a job that has ended stays as it is.

        Raises UnknownJobError.
        """
        if job_id in self._executions:
            first = await self._executions[job_id][0].cancel(by)
            if first:
                _log.info("job cancelled", job=job_id, **_caller_fields(by))
        return await self.get(job_id)

    def active(self) -> list[Job]:
        """The jobs that have not ended."""
        return [execution.job for execution, _ in self._executions.values()]

    def folder(self, job_id: str) -> Path:
        """The folder of a job's output and of its steps' files."""
        return self._jobs / job_id

    def changed(self, job_id: str) -> asyncio.Event | None:
        """Set at the next change of an active job, also when the gateway stops; None for a job that has ended."""
        return self._executions[job_id][0].changed if job_id in self._executions else None

    @property
    def is_draining(self) -> bool:
        """Whether the service is stopping."""
        return self._draining

    async def _job(self, job_id: str) -> Job:
        """The record of a job. Raises UnknownJobError."""
        return self._executions[job_id][0].job if job_id in self._executions else (await self._find(job_id)).job

    def _mask(self, job_id: str) -> Mask:
        """Hides the secrets that a job's output may have."""
        return self._executions[job_id][0].mask if job_id in self._executions else self.registry.mask

    async def readiness(self) -> Readiness:
        """Whether a trigger would be taken and could run."""
        unsettled = sum(not self._executions[job_id][0].settled.is_set() for job_id in self._recovered)
        return await self._readiness.check(self._why_closed(), unsettled)

    async def recover(self) -> None:
        """Launch every job that had not ended, and wait up to two seconds until it is known how each is."""
        self.metrics.restore(await self._store.last_successes())
        jobs = await self._store.active()
        for job in jobs:
            await asyncio.to_thread(_tidy, self.folder(job.id))
        for job in jobs:  # all before any runs: a checkout must know its users before a job begins in it
            _log.info("job recovered", job=job.id)
            self._recovered.add(job.id)
            self._launch(job, self.registry.get(job.runner, job.fabric, job.project, job.source))
        waiters = [asyncio.create_task(execution.settled.wait()) for execution, _ in self._executions.values()]
        if waiters:
            _, late = await asyncio.wait(waiters, timeout=_SETTLE)
            for waiter in late:
                waiter.cancel()

    def drain(self) -> None:
        """Take no more jobs, and let every waiting request be answered."""
        self._draining = True
        for execution, _ in self._executions.values():
            execution.notify()

    async def close(self) -> None:
        """Stop following the jobs, which run on; the next start takes them up. Closing twice is harmless."""
        self.drain()
        tasks = [task for _, task in self._executions.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self.output.close()
        self.artifacts.close()

    def _snapshot(self, job: Job) -> JobSnapshot:
        """A job that was read from the store, as it is now."""
        return self._executions[job.id][0].snapshot() if job.id in self._executions else JobSnapshot(job)

    def _launch(self, job: Job, fabric: Fabric) -> None:
        if fabric.checkout is not None and has_begun(job):
            fabric.checkout.add_user(job.id)
        runner, folder = self._runners[job.runner], self.folder(job.id)
        execution = JobExecution(job, self._store, runner, fabric, folder, self._notify_turn, self.output.readers)
        task = asyncio.create_task(execution.run(), name=f"job-{job.id}")
        self._executions[job.id] = execution, task
        task.add_done_callback(lambda _: self._forget(job, task))

    def _notify_turn(self, promoted: list[str]) -> None:
        """Wake queued jobs that hold their resources now; one that is not launched yet looks by itself."""
        for job_id in promoted:
            if job_id in self._executions:
                self._executions[job_id][0].notify_turn()

    def _forget(self, job: Job, task: asyncio.Task[None]) -> None:
        ended, _ = self._executions.pop(job.id)
        self.metrics.ended(ended.job, ended.final_output)
        self._recovered.discard(job.id)
        for execution, _ in self._executions.values():
            if isinstance(execution.job.state, Queued) and not set(job.plan.resources).isdisjoint(
                execution.job.plan.resources
            ):
                execution.notify()  # it waits for one job less
        if not task.cancelled() and task.exception() is not None:
            self._on_broken(task)

    async def _must_have_room(self) -> None:
        """Raises StorageError."""
        why = await self._readiness.disk_problem()
        if why is not None:
            raise StorageError(why)


def _new_snapshot(job: Job, waits_for: tuple[WaitsFor, ...]) -> JobSnapshot:
    return JobSnapshot(job, output=OutputSize(0, 0), waits_for=waits_for)


def _caller_fields(caller: Caller) -> dict[str, str | None]:
    """A caller as fields of a log line."""
    return {"token": caller.token, "address": caller.address}


def _tidy(folder: Path) -> None:
    """Remove the half-written files that a killed gateway left in the folders of a job and of its steps."""
    with contextlib.suppress(OSError):
        for directory in (folder, *folder.glob("*-*/"), *folder.glob("*-*/artifacts/")):
            durable.remove_partial_files(directory)
