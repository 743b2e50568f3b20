"""The life of one job, from wherever its record says it is to its end."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from gateway import clock
from gateway.errors import EngineError, StorageError
from gateway.fabrics.checkouts import Checkout
from gateway.fabrics.fabric import Fabric, masked, output_reader
from gateway.jobs.progress import ProgressFollower
from gateway.jobs.record import JobRecord, retry_on_full_disk
from gateway.model.job import (
    Active,
    Caller,
    Cancelling,
    Ended,
    Failed,
    Finished,
    Job,
    Pending,
    Queued,
    Reason,
    Skipped,
    StepState,
)
from gateway.model.plan import PlannedStep
from gateway.model.transitions import EndJob, RunStep, SkipStep, begin, next_transition, request_cancel
from gateway.storage.store import Store
from runners.outcome import Lost, NotStarted
from runners.output import OutputRing
from runners.report import Progress
from runners.runner import Liveness, Runner

_ASK_AGAIN = 30.0  # seconds after which a job that waits looks by itself whether its turn has come

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class JobSnapshot:
    """A job as it is now: its record, and what is known beyond it.

    progress: of the running step. liveness: how that step was last found.
    removed: its output and files are gone, to keep all of them under their cap.
    """

    job: Job
    progress: Progress | None = None
    liveness: Liveness = Liveness.SUPERVISED
    removed: bool = False


class JobExecution:
    """Runs the steps of one job in order and records what becomes of them.

    Nothing here assumes that it began with the job: every step's folder knows whether it was started, so a life that
    was cut off is lived on by the next one.
    """

    def __init__(
        self,
        job: Job,
        store: Store,
        runner: Runner,
        fabric: Fabric,
        folder: Path,
        checkout: Checkout | None,
        promoted: Callable[[list[str]], None],
    ) -> None:
        """promoted: told of the jobs that waited and hold what they need now, because of this one's end."""
        self._record = JobRecord(job, store, folder, self._notify, promoted)
        self.settled = asyncio.Event()  # the truth about the job is known: it is alive, or it has ended
        self._store = store
        self._runner = runner
        self._fabric = fabric
        self._folder = folder
        self._checkout = checkout
        self._waited = False
        self._turn = asyncio.Event()  # there is news for a job that waits
        self._unrecorded_cancel: Callable[[Job], Job] | None = None  # its cancel that could not be recorded yet
        self._follower: ProgressFollower | None = None
        self._liveness = Liveness.SUPERVISED
        self._changed = asyncio.Event()
        self._released = False

    @property
    def job(self) -> Job:
        """The job by its record."""
        return self._record.job

    def snapshot(self) -> JobSnapshot:
        """The job as it is now."""
        return JobSnapshot(self.job, self._follower.progress if self._follower else None, self._liveness)

    async def wait(self, known: JobSnapshot, seconds: float) -> None:
        """Return once the job is other than `known`, or after that many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.snapshot() == known and not self._released:
                    await self._changed.wait()

    def release(self) -> None:
        """Let go of whoever waits for a change: the service stops."""
        self._released = True
        self._notify()

    def notify_turn(self) -> None:
        """Tell a waiting job that it holds what it needs."""
        self._turn.set()

    async def run(self) -> None:
        """Live until the job has ended. A bug ends the job, and loudly; cancelling this task leaves its steps alone."""
        try:
            await self._record.write_file()
            await self._await_resources()
            await self._check()
            while not isinstance(self.job.state, Ended):
                await self._advance()
        except Exception:  # noqa: BLE001, whatever it is: the job must not read running for ever
            incident = secrets.token_hex(6)
            _log.exception("job broke", job=self.job.id, incident=incident)
            await self._abandon(incident)
        finally:
            if self._checkout is not None:
                self._checkout.remove_user(self.job.id)
        self.settled.set()
        _log.info("job ended", job=self.job.id, state=self.job.state.kind)

    async def cancel(self, by: Caller) -> bool:
        """Ask for the job's end, unless it has ended; whether nobody had asked before."""
        first = False

        def cancelling(job: Job) -> Job:
            nonlocal first
            asked = request_cancel(job, by, clock.now())
            first = asked is not job
            return asked

        try:
            # Durable before anything is stopped, so that a restarted gateway goes on cancelling.
            await self._record.update(cancelling)
        except StorageError as error:
            # The job that filled the disk must be cancellable too; its next record tells of the cancel.
            _log.warning("cancel not recorded yet", job=self.job.id, error=str(error))
            if isinstance(self.job.state, Queued):
                self._unrecorded_cancel = cancelling  # nobody may read of its end before that is durable
            else:
                await self._record.update_in_memory(cancelling)
        self._turn.set()
        await self._stop()
        return first

    async def _await_resources(self) -> None:
        """Until the job holds its resources, or was cancelled."""
        self._waited = isinstance(self.job.state, Queued)
        while isinstance(self.job.state, Queued) and self._unrecorded_cancel is None:
            self._turn.clear()
            if await retry_on_full_disk(self._store.holds_resources, self.job.id):
                await self._record.persist(begin)
            else:
                self.settled.set()
                with contextlib.suppress(TimeoutError):  # and should nobody call, it asks
                    async with asyncio.timeout(_ASK_AGAIN):
                        await self._turn.wait()
        if self._unrecorded_cancel is not None:
            await self._record.persist(self._unrecorded_cancel)

    async def _container_conflict(self) -> str | None:
        """Who came while the job waited and is no job, so that nobody had them wait for it."""
        try:
            holder = await self._fabric.container_conflict(self.job.plan)
        except EngineError:  # what is asked next says so
            return None
        return None if holder is None else str(holder)

    async def _check(self) -> None:
        """Before the first step of a new job: whether every step has what it needs. If not, none is begun."""
        if isinstance(self.job.state, Ended):  # cancelled while it waited
            return
        if any(not isinstance(state, Pending) for state in self.job.steps):
            return
        why = await self._container_conflict() if self._waited else None
        if why is None and self._checkout is not None:
            why = await self._checkout.prepare(self.job.id)
        if why is not None:
            await self._set_steps([masked(Finished(NotStarted(why)), self._fabric.mask)])
            return
        for n, planned in enumerate(self.job.plan.steps):
            why = await self._fabric.problem(planned, self._on_liveness)
            if why is not None:
                before = [Skipped(f"{planned.name} could not have run")] * n
                await self._set_steps([*before, masked(Finished(NotStarted(why)), self._fabric.mask)])
                return

    async def _advance(self) -> None:
        match next_transition(self.job):
            case RunStep(n=n):
                await self._step(n)
            case SkipStep(n=n, note=note):
                await self._record.persist(lambda job: job.with_step(n, Skipped(note)))
            case EndJob(ending=ending):
                await self._record.persist(lambda job: replace(job, state=Ended(clock.now(), ending)))

    async def _step(self, n: int) -> None:
        """Run a step, or go on following it."""
        planned, folder, ring = self.job.plan.steps[n], self._step_folder(n), OutputRing(self._folder)
        state = self.job.steps[n]
        if not isinstance(state, Active):
            active = state = Active(clock.now(), (await retry_on_full_disk(asyncio.to_thread, ring.bounds))[1])
            await self._record.persist(lambda job: job.with_step(n, active))
        obstacle = await self._start(planned, folder)
        if isinstance(self.job.state, Cancelling):
            await self._runner.stop(folder)  # asked for while it was being started
        reads = output_reader(planned)
        self._follower = ProgressFollower(ring, state.output_from, reads)
        following = asyncio.create_task(self._follower.run(self._notify), name=f"follow-{self.job.id}")
        try:
            outcome = await self._runner.wait(folder, self._on_liveness)
        finally:
            following.cancel()
            await asyncio.wait([following])
        await retry_on_full_disk(asyncio.to_thread, self._follower.finish)
        if obstacle is not None and isinstance(outcome, NotStarted):
            outcome = obstacle
        finished = await retry_on_full_disk(self._fabric.conclude, planned, state.started, outcome, reads, folder)
        told = masked(finished, self._fabric.mask)  # before anything of it is written anywhere
        await self._record.persist(lambda job: job.with_step(n, told))
        self._follower, self._liveness = None, Liveness.SUPERVISED
        await self._runner.release(folder)

    async def _start(self, planned: PlannedStep, folder: Path) -> NotStarted | None:
        """Start the step unless it ever was; what kept it from being described, if anything did."""
        try:
            command = await self._fabric.command(planned, folder, self._on_liveness)
        except OSError as error:
            return NotStarted(f"The step {planned.name} can't be prepared: {error}; solve that and trigger it again.")
        if isinstance(command, str):
            return NotStarted(command)
        await self._runner.start(folder, command)
        return None

    async def _stop(self) -> None:
        for n, state in enumerate(self.job.steps):
            if isinstance(state, Active):
                await self._runner.stop(self._step_folder(n))

    async def _abandon(self, incident: str) -> None:
        """End a job that can't be gone on with, once nothing of it is alive."""
        await self._stop()
        for n, state in enumerate(self.job.steps):
            if isinstance(state, Active):
                await self._runner.wait(self._step_folder(n), self._on_liveness)
        lost = Finished(Lost(f"the gateway made a mistake (incident {incident})"))
        await self._set_steps([lost if isinstance(state, Active) else state for state in self.job.steps])
        error = f"The gateway made a mistake and gave this job up; its log tells more under incident {incident}."
        await self._record.persist(lambda job: replace(job, state=Ended(clock.now(), Failed(Reason.UNKNOWN, error))))

    async def _set_steps(self, first: list[StepState]) -> None:
        await self._record.persist(lambda job: replace(job, steps=(*first, *job.steps[len(first) :])))

    def _notify(self) -> None:
        """Wake whoever waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _on_liveness(self, liveness: Liveness) -> None:
        """The runner found the current step alive, or could not look for it."""
        if liveness is not Liveness.UNREACHABLE:
            self.settled.set()
        if liveness is not self._liveness:
            self._liveness = liveness
            self._notify()

    def _step_folder(self, n: int) -> Path:
        return self._folder / f"{n + 1}-{self.job.plan.steps[n].name}"
