"""The execution of a job's steps: each attempt of a step from its begin, or from where it is found, to its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

import structlog

from gateway import clock
from gateway.artifacts import keeping
from gateway.errors import StorageError
from gateway.fabrics.fabric import Fabric, OnLiveness, finished_by_exit_code, masked, output_reader
from gateway.jobs.record import JobRecord, retry_while_it_may_pass
from gateway.model.attempts import attempt_number, is_folder_of, step_folder
from gateway.model.job import (
    Active,
    Cancelling,
    Finished,
    Job,
    Pending,
    Running,
    Waiting,
)
from gateway.model.plan import PlannedStep, StepName
from gateway.model.status import seconds_left, step_exit_code
from gateway.model.transitions import end_attempt, expire
from gateway.output.parts import OutputSize
from gateway.output.progress import ProgressFollower
from runners import durable
from runners.outcome import Command, Exited, Lost, NotStarted, Outcome
from runners.output import OutputRing
from runners.report import Progress
from runners.runner import Liveness, Runner

_LEAST = 0.001  # seconds, the least time limit of a step
_LONGEST_SLEEP = 60.0  # seconds after which a wait looks at the clock again: a host that was suspended stops timers

_log = structlog.get_logger()


class StepExecution:
    """Runs the steps of one job, one at a time, and records how each attempt of them ends.

    It does not matter whether this process began a step: its folder says whether it was started.
    """

    def __init__(
        self,
        record: JobRecord,
        runner: Runner,
        fabric: Fabric,
        folder: Path,
        readers: Executor,
        notify: Callable[[], None],
        changed: Callable[[], asyncio.Event],
        on_liveness: OnLiveness,
    ) -> None:
        """folder: of the job. readers: the threads in which output is read. notify: wakes all that wait for a change.

        changed: the event that is set at the next change of the job.
        """
        self._record = record
        self._runner = runner
        self._fabric = fabric
        self._folder = folder
        self._readers = readers
        self._notify = notify
        self._changed = changed
        self._on_liveness = on_liveness
        self._follower: ProgressFollower | None = None

    @property
    def progress(self) -> Progress | None:
        """The progress of the running step."""
        return self._follower.progress if self._follower else None

    @property
    def output_size(self) -> OutputSize | None:
        """How much there is of the job's output, None where no step runs."""
        return self._follower.size if self._follower else None

    async def run(self, n: int) -> None:
        """Run an attempt of a step when it is due, or follow it if it runs already; return after its end.

        Return without an attempt where the job was cancelled meanwhile.
        """
        state = self._job.steps[n]
        if isinstance(state, Active):
            # the folder was made before the step became active, so a step without it was perhaps begun
            lost = not await asyncio.to_thread(self._step_folder(n).is_dir)
            begun: bool | None = True if state.begun or lost else None
        else:
            if isinstance(state, Waiting):
                await self._await_attempt(n, state)
            if not await self._begin(n):
                return
            begun = False
        await self._follow(n, begun=begun)

    async def stop(self) -> None:
        """Request the end of the attempt that runs."""
        for n, state in enumerate(self._job.steps):
            if isinstance(state, Active):
                await self._runner.stop(self._step_folder(n))

    async def wait(self) -> None:
        """Wait until nothing of the attempt that runs is alive."""
        for n, state in enumerate(self._job.steps):
            if isinstance(state, Active):
                await self._runner.wait(self._step_folder(n), self._on_liveness)

    @property
    def _job(self) -> Job:
        return self._record.job

    def _step_folder(self, n: int) -> Path:
        return self._folder / step_folder(self._job, n)

    async def _await_attempt(self, n: int, state: Waiting) -> None:
        """Wait until the next attempt is due, also across restarts of the gateway, or until the job is cancelled."""
        self._on_liveness(Liveness.SUPERVISED)  # nothing of the step is alive
        retries = self._job.plan.steps[n].retries
        while retries is not None and isinstance(self._job.state, Running):
            left = retries.wait - state.since.until(clock.now())
            if left <= 0 or not await self._has_time():
                return
            left = min(left, seconds_left(self._job, clock.now()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, _LONGEST_SLEEP)):
                    await self._changed().wait()

    async def _begin(self, n: int) -> bool:
        """Record that an attempt of a step begins; false where none does."""
        state, planned, notes = self._job.steps[n], self._job.plan.steps[n], tuple[str, ...]()
        earlier = state.attempts if isinstance(state, Waiting) else ()
        if not await self._has_time():
            return False
        if isinstance(state, Pending):
            settled = await self._settle(planned)
            if settled is None:
                return False
            planned, notes = settled
            if not await self._has_time():
                return False
        await asyncio.to_thread(_make_folder, self._step_folder(n))
        notes += await self._resume(n, planned)
        try:
            output_from = (await retry_while_it_may_pass(asyncio.to_thread, OutputRing(self._folder).bounds))[1]
        except OSError as error:
            why = f"The job's output can't be kept: {error}; solve that and trigger it again."
            refused = Finished(NotStarted(why), earlier=earlier)
            await self._record.persist(lambda job: job.with_step(n, refused))
            return False
        active = Active(clock.now(), output_from, earlier=earlier)

        def begin(job: Job) -> Job:
            if job.state != Running():
                return job
            return job.with_planned(n, planned, notes).with_step(n, active)

        await self._record.persist(begin)
        return isinstance(self._job.steps[n], Active)

    async def _has_time(self) -> bool:
        """Whether the job's time limit leaves time for another attempt; where it doesn't, that is recorded."""
        if seconds_left(self._job, clock.now()) > 0:
            return True
        await self._record.persist(expire)
        return False

    async def _resume(self, n: int, planned: PlannedStep) -> tuple[str, ...]:
        """Prepare an attempt that another one came before, in this job or in the one that it retries; with notes."""
        job, number = self._job, attempt_number(self._job.steps[n])
        earlier = self._folder / step_folder(job, n, number - 1) if number > 1 else None
        if earlier is None and job.continues is not None and is_folder_of(job.continues, planned.name):
            earlier = self._folder.parent / job.continues
        if earlier is None or planned.name in (StepName.INGESTER, StepName.DEPS):
            return ()
        return await self._fabric.resume(planned, earlier, self._step_folder(n))

    async def _settle(self, planned: PlannedStep) -> tuple[PlannedStep, tuple[str, ...]] | None:
        """A step as it is to run now, with notes for the record; None if the job was cancelled meanwhile."""
        settling = asyncio.create_task(self._fabric.settle(planned), name=f"settle-{self._job.id}")
        try:
            while not settling.done() and not isinstance(self._job.state, Cancelling):
                changing = asyncio.create_task(self._changed().wait())
                try:
                    await asyncio.wait((settling, changing), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changing.cancel()
            return settling.result() if settling.done() else None
        finally:
            settling.cancel()
            await asyncio.wait([settling])

    async def _follow(self, n: int, *, begun: bool | None) -> None:
        """Start an attempt, unless it was begun before, and record its end."""
        planned, folder, state = self._job.plan.steps[n], self._step_folder(n), self._job.steps[n]
        assert isinstance(state, Active), "it was found or recorded so"
        await self._start(n, state, folder, begun=begun)
        if isinstance(self._job.state, Cancelling):
            await self._runner.stop(folder)  # the cancel came while the step was being started
        reader = output_reader(planned)
        self._follower = ProgressFollower(OutputRing(self._folder), state.output_from, reader)
        following = asyncio.create_task(self._follower.run(self._readers, self._notify), name=f"follow-{self._job.id}")
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
        notes = await asyncio.to_thread(keeping.keep, folder, planned.name, self._fabric.mask)
        before = self._job.steps[n]
        recorded = replace(
            masked(finished, self._fabric.mask),
            output_from=state.output_from,
            earlier=state.earlier,
            limited_by_job=isinstance(before, Active) and before.limited_by_job,
        )
        now = clock.now()
        await self._record.persist(lambda job: end_attempt(job.with_planned(n, planned, notes), n, recorded, now))
        self._follower = None
        await self._runner.release(folder)
        if isinstance(self._job.steps[n], Waiting):
            code, attempt = step_exit_code(recorded.outcome), len(state.earlier) + 1
            _log.info("attempt ended", job=self._job.id, step=planned.name, attempt=attempt, exit_code=code)

    async def _start(self, n: int, state: Active, folder: Path, *, begun: bool | None) -> None:
        """Start an attempt, unless it was begun before, and record that it was begun."""
        planned = self._job.plan.steps[n]
        try:
            command = await self._fabric.command(planned, folder, self._on_liveness)
        except OSError as error:
            command = f"The step {planned.name} can't be prepared: {error}; solve that and trigger it again."
        # by its begin, so that a gateway that takes the step up decides the same
        if isinstance(command, Command) and seconds_left(self._job, state.started) < command.time_limit:
            left = max(seconds_left(self._job, clock.now()), _LEAST)  # then the step's supervisor ends it in time
            command, state = replace(command, time_limit=left), replace(state, limited_by_job=True)
        if not begun and not isinstance(command, str):
            await asyncio.to_thread(keeping.keep_command, folder, command)
        await self._runner.start(folder, command, begun=begun)
        if begun or isinstance(command, str):
            return

        def record_begun(job: Job) -> Job:
            return job.with_step(n, replace(state, begun=True))

        try:
            await self._record.update(record_begun)
        except StorageError:  # a full disk: the step runs all the same, and its folder says that it was begun
            await self._record.update_in_memory(record_begun)


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
