"""The execution of one job, from the state that its record has to its end."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from gateway import clock
from gateway.errors import EngineError, StorageError
from gateway.fabrics.fabric import Fabric, masked, masked_progress
from gateway.jobs.record import JobRecord, retry_while_it_may_pass
from gateway.jobs.step_execution import StepExecution
from gateway.model.job import (
    Active,
    Caller,
    Completed,
    Ended,
    Failed,
    Finished,
    Job,
    Pending,
    Queued,
    Reason,
    Skipped,
    StepState,
    Waiting,
    WaitsFor,
)
from gateway.model.notification import Notification
from gateway.model.status import has_begun, job_outcome
from gateway.model.transitions import (
    EndJob,
    EndStep,
    RunStep,
    SkipStep,
    begin,
    end_step,
    next_transition,
    request_cancel,
)
from gateway.output.parts import OutputSize
from gateway.storage.store import Store
from runners.mask import Mask
from runners.outcome import Lost, NotStarted
from runners.output import OutputRing
from runners.report import Progress
from runners.runner import Liveness, Runner

_CHECK_QUEUE = 30.0  # seconds after which a queued job looks by itself whether it holds its resources

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class JobSnapshot:
    """A job as it is now: its record, and what the record does not have.

    progress: of the running step. liveness: how that step was last found.
    output: how much there is of its output, as far as it was asked for.
    waits_for: which jobs come before it, where it is queued.
    notifications: what is told of it to others, once it has ended, as far as that was asked for.
    """

    job: Job
    progress: Progress | None = None
    liveness: Liveness = Liveness.SUPERVISED
    output: OutputSize = field(default_factory=OutputSize)
    waits_for: tuple[WaitsFor, ...] = ()
    notifications: tuple[Notification, ...] = ()


class JobExecution:
    """Runs the steps of one job in order and records how each ends.

    It does not matter whether this process began the job: each step's folder says whether the step was started, so the
    execution of a killed gateway is continued by the next gateway.
    """

    def __init__(
        self,
        job: Job,
        store: Store,
        runner: Runner,
        fabric: Fabric,
        folder: Path,
        on_promoted: Callable[[list[str]], None],
        readers: Executor,
    ) -> None:
        """folder: of the job. on_promoted: see JobRecord. readers: the threads in which output is read."""
        self._record = JobRecord(job, store, folder, self.notify, on_promoted)
        self.settled = asyncio.Event()  # set once it is known whether the job is alive, queued or ended
        self._store = store
        self._fabric = fabric
        self._folder = folder
        self._was_queued = False
        self._turn = asyncio.Event()  # set when a queued job may hold its resources, or was cancelled
        self._unrecorded_cancel: Callable[[Job], Job] | None = None  # a cancel that the disk has refused so far
        self._liveness = Liveness.SUPERVISED
        self._changed = asyncio.Event()
        self.final_output = OutputSize()  # what there was of the job's output when it ended
        self._steps = StepExecution(
            self._record, runner, fabric, folder, readers, self.notify, lambda: self._changed, self._on_liveness
        )

    @property
    def job(self) -> Job:
        """The job as its record has it."""
        return self._record.job

    @property
    def mask(self) -> Mask:
        """Hides the secrets of the job's fabric that are known by now."""
        return self._fabric.mask

    def snapshot(self) -> JobSnapshot:
        """The job as it is now."""
        progress = masked_progress(self._steps.progress, self.mask)
        return JobSnapshot(self.job, progress, self._liveness, self._steps.output_size or OutputSize())

    @property
    def changed(self) -> asyncio.Event:
        """Set at the next change of the job. Each change replaces it by a new event."""
        return self._changed

    def notify(self) -> None:
        """Wake all that wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    def notify_turn(self) -> None:
        """Wake a queued job, which may hold its resources now."""
        self._turn.set()

    async def run(self) -> None:
        """Run until the job has ended. A bug ends the job as failed; cancelling this task leaves its steps running."""
        try:
            await self._record.write_file()
            await self._await_resources()
            await self._check_steps()
            while not isinstance(self.job.state, Ended):
                await self._advance()
        except Exception:  # noqa: BLE001, any bug: the job must not stay `running` for ever
            incident = secrets.token_hex(6)
            _log.exception("job broke", job=self.job.id, incident=incident)
            await self._abandon(incident)
        finally:
            if self._fabric.checkout is not None:
                self._fabric.checkout.remove_user(self.job.id)
        self.settled.set()
        _log.info("job ended", job=self.job.id, **_ending_fields(self.job))

    async def cancel(self, by: Caller) -> bool:
        """Ask for the job's end, unless it has ended; true for the first request."""
        first = False

        def cancelling(job: Job) -> Job:
            nonlocal first
            cancelled = request_cancel(job, by, clock.now())
            first = cancelled is not job
            return cancelled

        try:
            # durable before anything is stopped, so that a restarted gateway goes on cancelling
            await self._record.update(cancelling)
        except StorageError as error:
            # the job that filled the disk must be cancellable too; its next recorded change includes the cancel
            _log.warning("cancel not recorded yet", job=self.job.id, error=str(error))
            if isinstance(self.job.state, Queued):
                self._unrecorded_cancel = cancelling  # a cancel ends a queued job, and an end is shown once durable
            else:
                await self._record.update_in_memory(cancelling)
        self._turn.set()
        await self._steps.stop()
        return first

    async def _await_resources(self) -> None:
        """Wait until the job holds its resources, or was cancelled."""
        self._was_queued = isinstance(self.job.state, Queued)
        while isinstance(self.job.state, Queued) and self._unrecorded_cancel is None:
            self._turn.clear()
            if await self._holds_resources():
                await self._record.persist(begin)
            else:
                self.settled.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_CHECK_QUEUE):
                        await self._turn.wait()
        if self._unrecorded_cancel is not None:
            await self._record.persist(self._unrecorded_cancel)

    async def _holds_resources(self) -> bool:
        try:
            return await self._store.holds_resources(self.job.id)
        except StorageError as error:  # the next look asks again
            _log.warning("queue not read", job=self.job.id, error=str(error))
            return False

    async def _container_conflict(self) -> str | None:
        """The container that took a service of the plan while the job was queued, in a sentence; else None."""
        try:
            conflict = await self._fabric.container_conflict(self.job.plan)
        except EngineError:  # the check of the first step says so
            return None
        return None if conflict is None else str(conflict)

    async def _check_steps(self) -> None:
        """Before the first step of a new job: check that each step can run. If one can't, none is begun."""
        if isinstance(self.job.state, Ended):  # cancelled while queued
            return
        if has_begun(self.job):
            return
        why = await self._container_conflict() if self._was_queued else None
        if why is None and self._fabric.checkout is not None:
            why = await self._fabric.checkout.prepare(self.job.id)
        if why is not None:
            await self._refuse_step(self.job.begins_at, why)
            return
        for n, planned in enumerate(self.job.plan.steps):
            if n < self.job.begins_at:
                continue
            why = await self._fabric.problem(planned, self._on_liveness)
            if why is not None:
                await self._refuse_step(n, why)
                return

    async def _refuse_step(self, n: int, why: str) -> None:
        """Record why a step can't run, before any is begun: those before it do not run either."""
        begins_at, name = self.job.begins_at, self.job.plan.steps[n].name
        skipped = [Skipped(f"{name} could not have run")] * (n - begins_at)
        refused = masked(Finished(NotStarted(why)), self._fabric.mask)
        await self._set_steps([*self.job.steps[:begins_at], *skipped, refused])

    async def _advance(self) -> None:
        match next_transition(self.job):
            case RunStep(n=n):
                await self._steps.run(n)
                self._liveness = Liveness.SUPERVISED  # nothing of it is alive any more, however it was found
            case SkipStep(n=n, note=note):
                await self._record.persist(lambda job: job.with_step(n, Skipped(note)))
            case EndStep(n=n):
                await self._record.persist(lambda job: end_step(job, n))
            case EndJob(ending=ending):
                end = await self._output_end()
                await self._record.persist(lambda job: replace(job, state=Ended(clock.now(), ending), output_end=end))

    async def _output_end(self) -> int | None:
        """The bytes of output that the job has printed, None where they can't be counted."""
        try:
            start, end = await retry_while_it_may_pass(asyncio.to_thread, OutputRing(self._folder).bounds)
        except OSError:
            return None
        self.final_output = OutputSize(end - start, start)
        return end

    async def _abandon(self, incident: str) -> None:
        """End a job after a bug, once no process of it is alive. If the runner has a bug too, end the job at once."""
        error = f"The gateway made a mistake and gave this job up; its log tells more under incident {incident}."
        try:
            await self._steps.stop()
            await self._steps.wait()
        except Exception:  # noqa: BLE001, any bug: one job must not end the service, and the next one at its start
            _log.exception("job not stopped", job=self.job.id, incident=incident)
            error += " What it had begun may still run: look for it before you trigger it again."
        lost = Lost(f"the gateway made a mistake (incident {incident})")
        await self._set_steps([_given_up(state, lost) for state in self.job.steps])
        await self._record.persist(lambda job: replace(job, state=Ended(clock.now(), Failed(Reason.UNKNOWN, error))))

    async def _set_steps(self, first: list[StepState]) -> None:
        await self._record.persist(lambda job: replace(job, steps=(*first, *job.steps[len(first) :])))

    def _on_liveness(self, liveness: Liveness) -> None:
        if liveness is not Liveness.UNREACHABLE:
            self.settled.set()
        if liveness is not self._liveness:
            self._liveness = liveness
            self.notify()


def _given_up(state: StepState, lost: Lost) -> StepState:
    """The state of a step once its job was given up."""
    match state:
        case Active(started=started, output_from=output_from, earlier=earlier):
            return Finished(lost, started=started, output_from=output_from, earlier=earlier)
        case Waiting(last=last):
            return last
        case Pending() | Finished() | Skipped():
            return state


def _ending_fields(job: Job) -> dict[str, object]:
    """How a job ended, as fields of a log line."""
    if not isinstance(job.state, Ended):
        return {"state": job.state.kind}
    seconds = round(job.created.until(job.state.at), 3)
    match job.state.ending:
        case Completed(exit_code=code):
            return {"outcome": job_outcome(job), "exit_code": code, "seconds": seconds}
        case Failed(reason=reason, error=error):
            return {"outcome": job_outcome(job), "reason": reason, "error": error, "seconds": seconds}
