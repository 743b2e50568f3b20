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
from gateway.fabrics.fabric import Fabric, finished_by_exit_code, masked, masked_progress, output_reader
from gateway.jobs.output import OutputSize
from gateway.jobs.progress import ProgressFollower
from gateway.jobs.record import JobRecord, retry_while_it_may_pass
from gateway.model.job import (
    Active,
    Caller,
    Cancelling,
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
    WaitsFor,
    job_outcome,
    seconds_left,
)
from gateway.model.plan import PlannedStep
from gateway.model.transitions import EndJob, RunStep, SkipStep, begin, expire, next_transition, request_cancel
from gateway.storage.store import Store
from runners import durable
from runners.mask import Mask
from runners.outcome import Command, Exited, Lost, NotStarted, Outcome
from runners.output import OutputRing
from runners.report import Progress
from runners.runner import Liveness, Runner

_LEAST = 0.001  # seconds, the least time limit of a step
_CHECK_QUEUE = 30.0  # seconds after which a queued job looks by itself whether it holds its resources

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class JobSnapshot:
    """A job as it is now: its record, and what the record does not have.

    progress: of the running step. liveness: how that step was last found.
    output: how much there is of its output, as far as it was asked for.
    waits_for: which jobs come before it, where it is queued.
    """

    job: Job
    progress: Progress | None = None
    liveness: Liveness = Liveness.SUPERVISED
    output: OutputSize = field(default_factory=OutputSize)
    waits_for: tuple[WaitsFor, ...] = ()


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
        self._runner = runner
        self._fabric = fabric
        self._folder = folder
        self._readers = readers
        self._was_queued = False
        self._turn = asyncio.Event()  # set when a queued job may hold its resources, or was cancelled
        self._unrecorded_cancel: Callable[[Job], Job] | None = None  # a cancel that the disk has refused so far
        self._follower: ProgressFollower | None = None
        self._liveness = Liveness.SUPERVISED
        self._changed = asyncio.Event()

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
        progress = masked_progress(self._follower.progress if self._follower else None, self.mask)
        size = self._follower.size if self._follower else None
        return JobSnapshot(self.job, progress, self._liveness, size or OutputSize())

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
        await self._stop()
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
        if any(not isinstance(state, Pending) for state in self.job.steps):
            return
        why = await self._container_conflict() if self._was_queued else None
        if why is None and self._fabric.checkout is not None:
            why = await self._fabric.checkout.prepare(self.job.id)
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
                await self._run_step(n)
            case SkipStep(n=n, note=note):
                await self._record.persist(lambda job: job.with_step(n, Skipped(note)))
            case EndJob(ending=ending):
                end = await self._output_end()
                await self._record.persist(lambda job: replace(job, state=Ended(clock.now(), ending), output_end=end))

    async def _output_end(self) -> int | None:
        """The bytes of output that the job has printed, None where they can't be counted."""
        try:
            return (await retry_while_it_may_pass(asyncio.to_thread, OutputRing(self._folder).bounds))[1]
        except OSError:
            return None

    async def _run_step(self, n: int) -> None:
        """Run a step, or follow it if it runs already."""
        planned, folder, ring = self.job.plan.steps[n], self._step_folder(n), OutputRing(self._folder)
        state = self.job.steps[n]
        if isinstance(state, Active):
            # the folder was made before the step became active, so a step without it was perhaps begun
            lost = not await asyncio.to_thread(folder.is_dir)
            begun: bool | None = True if state.begun or lost else None
        else:
            begun = False
            settled = await self._settle(planned) if await self._has_time() else None
            if settled is None or not await self._has_time():
                return
            planned, notes = settled
            await asyncio.to_thread(_make_folder, folder)
            try:
                output_from = (await retry_while_it_may_pass(asyncio.to_thread, ring.bounds))[1]
            except OSError as error:
                why = f"The job's output can't be kept: {error}; solve that and trigger it again."
                await self._record.persist(lambda job: job.with_step(n, Finished(NotStarted(why))))
                return
            active = state = Active(clock.now(), output_from)
            await self._record.persist(lambda job: job.with_planned(n, planned, notes).with_step(n, active))
        await self._start(n, state, folder, begun=begun)
        if isinstance(self.job.state, Cancelling):
            await self._runner.stop(folder)  # the cancel came while the step was being started
        reader = output_reader(planned)
        self._follower = ProgressFollower(ring, state.output_from, reader)
        following = asyncio.create_task(self._follower.run(self._readers, self.notify), name=f"follow-{self.job.id}")
        try:
            outcome = await self._runner.wait(folder, self._on_liveness)
        finally:
            following.cancel()
            await asyncio.wait([following])
        try:
            await retry_while_it_may_pass(asyncio.to_thread, self._follower.finish)
            finished = await retry_while_it_may_pass(
                self._fabric.conclude, planned, state.started, outcome, reader, folder
            )
        except OSError as error:  # then only its exit code and its output say how it ended
            finished = finished_by_exit_code(planned, state.started, _without_proof(outcome, error), reader)
        before = self.job.steps[n]
        recorded = replace(
            masked(finished, self._fabric.mask),
            output_from=state.output_from,
            limited_by_job=isinstance(before, Active) and before.limited_by_job,
        )
        await self._record.persist(lambda job: job.with_step(n, recorded))
        self._follower, self._liveness = None, Liveness.SUPERVISED
        await self._runner.release(folder)

    async def _has_time(self) -> bool:
        """Whether the job's time limit leaves time for another step; where it doesn't, that is recorded."""
        if seconds_left(self.job, clock.now()) > 0:
            return True
        await self._record.persist(expire)
        return False

    async def _settle(self, planned: PlannedStep) -> tuple[PlannedStep, tuple[str, ...]] | None:
        """A step as it is to run now, with notes for the record; None if the job was cancelled meanwhile."""
        settling = asyncio.create_task(self._fabric.settle(planned), name=f"settle-{self.job.id}")
        try:
            while not settling.done() and not isinstance(self.job.state, Cancelling):
                changing = asyncio.create_task(self._changed.wait())
                try:
                    await asyncio.wait((settling, changing), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changing.cancel()
            return settling.result() if settling.done() else None
        finally:
            settling.cancel()
            await asyncio.wait([settling])

    async def _start(self, n: int, state: Active, folder: Path, *, begun: bool | None) -> None:
        """Start the step, unless it was begun before, and record that it was begun."""
        planned = self.job.plan.steps[n]
        try:
            command = await self._fabric.command(planned, folder, self._on_liveness)
        except OSError as error:
            command = f"The step {planned.name} can't be prepared: {error}; solve that and trigger it again."
        left = seconds_left(self.job, clock.now())
        if isinstance(command, Command) and left < command.time_limit:  # the step's supervisor ends it in time
            command, state = replace(command, time_limit=max(left, _LEAST)), replace(state, limited_by_job=True)
        await self._runner.start(folder, command, begun=begun)
        if begun or isinstance(command, str):
            return

        def record_begun(job: Job) -> Job:
            return job.with_step(n, replace(state, begun=True))

        try:
            await self._record.update(record_begun)
        except StorageError:  # a full disk: the step runs all the same, and its folder says that it was begun
            await self._record.update_in_memory(record_begun)

    async def _stop(self) -> None:
        for n, state in enumerate(self.job.steps):
            if isinstance(state, Active):
                await self._runner.stop(self._step_folder(n))

    async def _abandon(self, incident: str) -> None:
        """End a job after a bug, once no process of it is alive. If the runner has a bug too, end the job at once."""
        error = f"The gateway made a mistake and gave this job up; its log tells more under incident {incident}."
        try:
            await self._stop()
            for n, state in enumerate(self.job.steps):
                if isinstance(state, Active):
                    await self._runner.wait(self._step_folder(n), self._on_liveness)
        except Exception:  # noqa: BLE001, any bug: one job must not end the service, and the next one at its start
            _log.exception("job not stopped", job=self.job.id, incident=incident)
            error += " What it had begun may still run: look for it before you trigger it again."
        lost = Finished(Lost(f"the gateway made a mistake (incident {incident})"))
        await self._set_steps([lost if isinstance(state, Active) else state for state in self.job.steps])
        await self._record.persist(lambda job: replace(job, state=Ended(clock.now(), Failed(Reason.UNKNOWN, error))))

    async def _set_steps(self, first: list[StepState]) -> None:
        await self._record.persist(lambda job: replace(job, steps=(*first, *job.steps[len(first) :])))

    def _on_liveness(self, liveness: Liveness) -> None:
        if liveness is not Liveness.UNREACHABLE:
            self.settled.set()
        if liveness is not self._liveness:
            self._liveness = liveness
            self.notify()

    def _step_folder(self, n: int) -> Path:
        return self._folder / f"{n + 1}-{self.job.plan.steps[n].name}"


def _without_proof(outcome: Outcome, error: OSError) -> Outcome:
    """The outcome of a step whose results can't be read: exit code 0 alone does not prove that it did its work."""
    if not isinstance(outcome, Exited) or outcome.code != 0:
        return outcome
    return Lost(
        f"it exited 0, but what it left can't be read: {error}; make that readable for the gateway's user, see whether "
        "the step did its work, and trigger it again"
    )


def _make_folder(folder: Path) -> None:
    """Make the folder of a step durable. Where the disk refuses that, starting the step says so."""
    with contextlib.suppress(OSError):
        durable.make_directory(folder)


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
