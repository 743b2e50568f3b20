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
from gateway.fabrics.fabric import Work, masked, reader
from gateway.jobs.progress import Follower
from gateway.jobs.record import Keeper, insist
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
from gateway.model.transitions import EndJob, RunStep, SkipStep, begun, cancelled, next_move
from gateway.storage.store import Store
from runners.outcome import Lost, NotStarted
from runners.output import Ring
from runners.report import Progress
from runners.runner import Liveness, Runner

_ASK_AGAIN = 30.0  # seconds after which a job that waits looks by itself whether its turn has come

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A job as it is now: its record, and what is known beyond it.

    progress: of the running step. liveness: how that step was last found.
    removed: its output and files are gone, to keep all of them under their cap.
    """

    job: Job
    progress: Progress | None = None
    liveness: Liveness = Liveness.SUPERVISED
    removed: bool = False


class Life:
    """Runs the steps of one job in order and records what becomes of them.

    Nothing here assumes that it began with the job: every step's folder knows whether it was started, so a life that
    was cut off is lived on by the next one.
    """

    def __init__(
        self,
        job: Job,
        store: Store,
        runner: Runner,
        work: Work,
        folder: Path,
        checkout: Checkout | None,
        promoted: Callable[[list[str]], None],
    ) -> None:
        """promoted: told of the jobs that waited and hold what they need now, because of this one's end."""
        self._keeper = Keeper(job, store, folder, self._notify, promoted)
        self.settled = asyncio.Event()  # the truth about the job is known: it is alive, or it has ended
        self._store = store
        self._runner = runner
        self._work = work
        self._folder = folder
        self._checkout = checkout
        self._waited = False
        self._turn = asyncio.Event()  # there is news for a job that waits
        self._given_up: Callable[[Job], Job] | None = None  # its cancel that could not be recorded yet
        self._follower: Follower | None = None
        self._liveness = Liveness.SUPERVISED
        self._changed = asyncio.Event()
        self._released = False

    @property
    def job(self) -> Job:
        """The job by its record."""
        return self._keeper.job

    def snapshot(self) -> Snapshot:
        """The job as it is now."""
        return Snapshot(self.job, self._follower.progress if self._follower else None, self._liveness)

    async def wait(self, known: Snapshot, seconds: float) -> None:
        """Return once the job is other than `known`, or after that many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.snapshot() == known and not self._released:
                    await self._changed.wait()

    def release(self) -> None:
        """Let go of whoever waits for a change: the service stops."""
        self._released = True
        self._notify()

    def call(self) -> None:
        """Tell a waiting job that it holds what it needs."""
        self._turn.set()

    async def run(self) -> None:
        """Live until the job has ended. A bug ends the job, and loudly; cancelling this task leaves its steps alone."""
        try:
            await self._keeper.begin()
            await self._await_turn()
            await self._check()
            while not isinstance(self.job.state, Ended):
                await self._move()
        except Exception:  # noqa: BLE001, whatever it is: the job must not read running for ever
            incident = secrets.token_hex(6)
            _log.exception("job broke", job=self.job.id, incident=incident)
            await self._abandon(incident)
        finally:
            if self._checkout is not None:
                self._checkout.leave(self.job.id)
        self.settled.set()
        _log.info("job ended", job=self.job.id, state=self.job.state.kind)

    async def cancel(self, by: Caller) -> bool:
        """Ask for the job's end, unless it has ended; whether nobody had asked before."""
        first = False

        def cancelling(job: Job) -> Job:
            nonlocal first
            asked = cancelled(job, by, clock.now())
            first = asked is not job
            return asked

        try:
            # Durable before anything is stopped, so that a restarted gateway goes on cancelling.
            await self._keeper.update(cancelling)
        except StorageError as error:
            # The job that filled the disk must be cancellable too; its next record tells of the cancel.
            _log.warning("cancel not recorded yet", job=self.job.id, error=str(error))
            if isinstance(self.job.state, Queued):
                self._given_up = cancelling  # nobody may read of its end before that is durable
            else:
                await self._keeper.remember(cancelling)
        self._turn.set()
        await self._stop()
        return first

    async def _await_turn(self) -> None:
        """Until the job holds its resources, or was cancelled."""
        self._waited = isinstance(self.job.state, Queued)
        while isinstance(self.job.state, Queued) and self._given_up is None:
            self._turn.clear()
            if await insist(self._store.holds, self.job.id):
                await self._keeper.persist(begun)
            else:
                self.settled.set()
                with contextlib.suppress(TimeoutError):  # and should nobody call, it asks
                    async with asyncio.timeout(_ASK_AGAIN):
                        await self._turn.wait()
        if self._given_up is not None:
            await self._keeper.persist(self._given_up)

    async def _occupied(self) -> str | None:
        """Who came while the job waited and is no job, so that nobody had them wait for it."""
        try:
            holder = await self._work.occupied(self.job.plan)
        except EngineError:  # what is asked next says so
            return None
        return None if holder is None else str(holder)

    async def _check(self) -> None:
        """Before the first step of a new job: whether every step has what it needs. If not, none is begun."""
        if isinstance(self.job.state, Ended):  # cancelled while it waited
            return
        if any(not isinstance(state, Pending) for state in self.job.steps):
            return
        why = await self._occupied() if self._waited else None
        if why is None and self._checkout is not None:
            why = await self._checkout.ready(self.job.id)
        if why is not None:
            await self._set_steps([masked(Finished(NotStarted(why)), self._work.mask)])
            return
        for n, planned in enumerate(self.job.plan.steps):
            why = await self._work.problem(planned, self._see)
            if why is not None:
                before = [Skipped(f"{planned.name} could not have run")] * n
                await self._set_steps([*before, masked(Finished(NotStarted(why)), self._work.mask)])
                return

    async def _move(self) -> None:
        match next_move(self.job):
            case RunStep(n=n):
                await self._step(n)
            case SkipStep(n=n, note=note):
                await self._keeper.persist(lambda job: job.with_step(n, Skipped(note)))
            case EndJob(ending=ending):
                await self._keeper.persist(lambda job: replace(job, state=Ended(clock.now(), ending)))

    async def _step(self, n: int) -> None:
        """Run a step, or go on following it."""
        planned, folder, ring = self.job.plan.steps[n], self._step_folder(n), Ring(self._folder)
        state = self.job.steps[n]
        if not isinstance(state, Active):
            active = state = Active(clock.now(), (await insist(asyncio.to_thread, ring.bounds))[1])
            await self._keeper.persist(lambda job: job.with_step(n, active))
        obstacle = await self._start(planned, folder)
        if isinstance(self.job.state, Cancelling):
            await self._runner.stop(folder)  # asked for while it was being started
        reads = reader(planned)
        self._follower = Follower(ring, state.output_from, reads)
        following = asyncio.create_task(self._follower.run(self._notify), name=f"follow-{self.job.id}")
        try:
            outcome = await self._runner.wait(folder, self._see)
        finally:
            following.cancel()
            await asyncio.wait([following])
        await insist(asyncio.to_thread, self._follower.finish)
        if obstacle is not None and isinstance(outcome, NotStarted):
            outcome = obstacle
        finished = await insist(self._work.conclude, planned, state.started, outcome, reads, folder)
        told = masked(finished, self._work.mask)  # before anything of it is written anywhere
        await self._keeper.persist(lambda job: job.with_step(n, told))
        self._follower, self._liveness = None, Liveness.SUPERVISED
        await self._runner.release(folder)

    async def _start(self, planned: PlannedStep, folder: Path) -> NotStarted | None:
        """Start the step unless it ever was; what kept it from being described, if anything did."""
        try:
            command = await self._work.command(planned, folder, self._see)
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
                await self._runner.wait(self._step_folder(n), self._see)
        lost = Finished(Lost(f"the gateway made a mistake (incident {incident})"))
        await self._set_steps([lost if isinstance(state, Active) else state for state in self.job.steps])
        error = f"The gateway made a mistake and gave this job up; its log tells more under incident {incident}."
        await self._keeper.persist(lambda job: replace(job, state=Ended(clock.now(), Failed(Reason.UNKNOWN, error))))

    async def _set_steps(self, first: list[StepState]) -> None:
        await self._keeper.persist(lambda job: replace(job, steps=(*first, *job.steps[len(first) :])))

    def _notify(self) -> None:
        """Wake whoever waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _see(self, liveness: Liveness) -> None:
        """The runner found the current step alive, or could not look for it."""
        if liveness is not Liveness.UNREACHABLE:
            self.settled.set()
        if liveness is not self._liveness:
            self._liveness = liveness
            self._notify()

    def _step_folder(self, n: int) -> Path:
        return self._folder / f"{n + 1}-{self.job.plan.steps[n].name}"
