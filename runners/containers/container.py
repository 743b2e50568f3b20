"""One container of a step: it is created once, followed to its end, and stopped when its step is stopped."""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runners import durable
from runners.containers import step_files
from runners.containers.container_log import ContainerLog
from runners.containers.docker import ContainerState, Docker, EngineUnreachableError
from runners.containers.docker_errors import explain
from runners.containers.identity import belongs_to_step, container_name
from runners.containers.step_files import UnreadableError
from runners.containers.usage import UsageWatch
from runners.detached import shim_files, supervisor
from runners.mask import Mask
from runners.outcome import (
    NOTHING_STOPPED,
    Command,
    Exited,
    Killed,
    Lost,
    NotStarted,
    Outcome,
    Span,
    Stopped,
    StopReport,
    TimedOut,
)
from runners.output import OutputRing
from runners.runner import Liveness

_POLL_INTERVAL = 5.0  # seconds between two inspections of a container that runs
_RETRY_DELAY = 1.0  # seconds
_UNREACHABLE_LIMIT = 30.0  # seconds that the engine may be unreachable before anything of the step was begun
_MAX_ATTEMPTS = 3
_CREATION_TIME_LIMIT = 366 * 86400.0  # seconds for `docker compose run`; the step's own limit is shorter
_CREATION_GRACE = 10.0  # seconds between the signals that stop `docker compose run`
_CREATION_OUTPUT_CAP = 1 << 20  # bytes
_STOP_TIMEOUT = 30.0  # seconds that `docker stop` may need beyond the grace
_KILLED = 128 + signal.SIGKILL  # exit code
_STOP_REASONS = ("asked", "time_limit")
_SIGNALS = frozenset(int(number) for number in signal.Signals if number < 32)


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What a step runs, as it was decided before anything of it began: see Command.

    decided_at: epoch seconds, for people. uptime: then, seconds since the host's boot (see `elapsed`).
    engine: the variables that select the engine. secret_names: see Mask.names.
    begun: containers of the step may exist although its files have nothing of them, so none is created any more.
    """

    argvs: tuple[tuple[str, ...], ...]
    cwd: str
    docker: tuple[str, ...]
    interrupt: int
    grace: float
    time_limit: float
    decided_at: float
    uptime: float
    engine: Mapping[str, str]
    secret_names: tuple[str, ...] = ()
    begun: bool = False

    @property
    def elapsed(self) -> float:
        """Seconds since the decision; since the host's boot, if that was later."""
        return uptime() - self.uptime


def uptime() -> float:
    """Seconds since the host's boot: unlike the wall clock, no one sets this clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Container:
    """The container of one command of a step. All its durable state is in the step's folder and in the engine.

    step: the step's folder. number: of the command, from 0. environment: of docker's command lines.
    on_liveness: see Runner.wait. mask: of secrets; those in the container's own environment are added.
    """

    def __init__(
        self,
        step: Path,
        number: int,
        spec: ContainerSpec,
        environment: Mapping[str, str],
        output_cap: int,
        on_liveness: Callable[[Liveness], None],
        mask: Mask,
    ) -> None:
        self.name = container_name(step, number)
        self._step = step
        self._folder = step / f"container-{number + 1}"
        self._spec = spec
        self._argv = spec.argvs[number]
        self._environment = environment
        self._on_liveness = on_liveness
        self._mask = mask
        self._docker = Docker(spec.docker, environment, mask)
        self._log = ContainerLog(self._folder, self.name, spec.docker, environment, step.parent, output_cap)
        self._usage = UsageWatch()
        # The creation is a run of `docker compose run` under a shim. It is begun once: where it was killed and there is
        # no container, one may have run and been removed.
        self._creation: asyncio.Task[Outcome] | None = None
        self._was_created = spec.begun  # then it is never created again, even if the step's folder is removed
        self._creation_end: Outcome | None = None
        self._start_attempts = 0
        self._incomplete_copies = 0
        self._unreachable_since: float | None = None

    async def run(self) -> Outcome:
        """The outcome of the container, once it is not alive. Cancelling this leaves the container alone.

        Raises UnreadableError.
        """
        try:
            while True:
                try:
                    outcome = await self._advance_if_reachable()
                except OSError as error:
                    step_files.raise_unless_passing(error)
                    outcome = None
                    await asyncio.sleep(_RETRY_DELAY)
                if outcome is not None:
                    return outcome
        finally:
            self._log.close()
            self._usage.close()
            if self._creation is not None:
                self._creation.cancel()

    async def _advance_if_reachable(self) -> Outcome | None:
        """One transition, or a pause while the engine is unreachable. Raises OSError."""
        try:
            outcome = await self._advance()
        except EngineUnreachableError as error:
            outcome = await self._outcome_of_unreachable(str(error))
            if outcome is None:
                await asyncio.sleep(_RETRY_DELAY)
            return outcome
        self._unreachable_since = None
        return outcome

    async def _advance(self) -> Outcome | None:
        """One transition by the engine's state of the container; its outcome if that was the last one."""
        creation = await self._creation_outcome()
        state = await self._docker.inspect(self.name)
        if self._creation is not None:
            self._on_liveness(Liveness.SUPERVISED)  # `docker compose run` goes on, and the engine answers
            return None
        if state is None:
            return _removed() if self._was_created else await self._outcome_of_absent(creation)
        self._was_created = True
        if not belongs_to_step(state, self._step):
            return NotStarted(
                f"The container name {self.name} is taken by a container that is not the gateway's; remove it, then "
                "trigger it again."
            )
        if state.alive:
            self._on_liveness(Liveness.SUPERVISED)
            self._usage.begin(state.id, state.pid)
            mask = self._mask.with_secrets_of(state.environment)
            await self._log.follow(_POLL_INTERVAL, mask, rotates=state.log_rotates)
            return None
        if state.started == 0:
            return await self._outcome_of_never_started(state)
        if not await self._has_copied_log(state):
            return None
        if state.exit_code != 0:
            # a second inspection: the engine may learn of the exit before it learns of the lack of memory behind it
            state = await self._docker.inspect(self.name) or state
        seen = await self._docker.saw_exit(state)
        return await asyncio.to_thread(self._outcome, state, exit_was_seen=seen)

    async def _creation_outcome(self) -> Outcome | None:
        """The outcome of `docker compose run`; None if it was not begun, or while it goes on."""
        if self._creation_end is None and self._creation_is_begun():
            if self._creation is None:
                self._creation = asyncio.create_task(self._create(), name=f"create-{self.name}")
            await asyncio.wait([self._creation], timeout=_POLL_INTERVAL)
            if self._creation.done():
                self._creation_end, self._creation = self._creation.result(), None
        return self._creation_end

    async def _create(self) -> Outcome:
        folder = self._creation_folder()
        command = Command(
            (self._argv,),
            self._spec.cwd,
            self._environment,
            grace=_CREATION_GRACE,
            time_limit=_CREATION_TIME_LIMIT,
            mask=self._mask,
        )
        # does nothing unless the gateway died after it made the folder and before it started the command
        why = await supervisor.start(folder, command, supervisor.OutputTarget(self._folder, _CREATION_OUTPUT_CAP))
        return NotStarted(why) if why else await supervisor.wait(folder, self._on_liveness)

    async def _outcome_of_absent(self, creation: Outcome | None) -> Outcome | None:
        """For no container in the engine and no `docker compose run` that goes on; None after that was begun."""
        match creation:
            case None if self._stop_reason() is not None:
                return self._outcome_of_not_created()
            case None:
                self._creation_folder().mkdir(mode=0o700, parents=True)
                return None
            case NotStarted():
                return creation
            case Exited(code=0):
                return _removed()
            case Exited():
                return NotStarted(explain(await asyncio.to_thread(self._creation_output)))
            case Stopped() if self._stop_reason() is not None:
                return self._outcome_of_not_created()
            case Killed() | TimedOut() | Stopped() | Lost():
                return Lost(
                    "`docker compose run` was killed, and whether its container ran before it was removed is unknown; "
                    "find out what kills it (`dmesg` shows kills for lack of memory), then trigger the job again."
                )

    async def _outcome_of_never_started(self, state: ContainerState) -> Outcome | None:
        """For a container that was created and never ran: the engine's reason, or None after it was started now.

        Without a reason, `docker compose run` was killed between creation and start.
        """
        if state.error:
            return NotStarted(explain(state.error))
        if self._stop_reason() is not None:
            return self._outcome_of_not_created()
        if self._start_attempts == _MAX_ATTEMPTS:
            return NotStarted(f"the engine does not start the container {self.name} and does not say why")
        self._start_attempts += 1
        await self._docker.run("container", "start", "--", self.name)
        return None

    async def _has_copied_log(self, state: ContainerState) -> bool:
        """Whether the whole log is in the ring, or several attempts have failed; False while the copy goes on."""
        mask = self._mask.with_secrets_of(state.environment)
        complete = await self._log.finish(_POLL_INTERVAL, mask, rotates=state.log_rotates)
        if complete is False:
            self._incomplete_copies += 1
        return complete is True or self._incomplete_copies == _MAX_ATTEMPTS

    def _outcome(self, state: ContainerState, *, exit_was_seen: bool) -> Outcome:
        """For a container that ran and has exited. exit_was_seen: see Docker.saw_exit."""
        code, duration = state.exit_code, max(0.0, state.finished - state.started)
        span = Span(state.started, state.finished, duration, self._usage.peak_memory, self._usage.cpu)
        reason = self._stop_reason()
        if reason is not None:
            report = self._stop_report(state)
            return TimedOut(code, span, report) if reason == "time_limit" else Stopped(code, span, report)
        if state.out_of_memory and code != 0:
            return Killed(signal.SIGKILL, span, out_of_memory=True)
        if not exit_was_seen:
            return Lost(
                "its engine or the host stopped while it ran, so its end is unknown; look at its output and "
                "trigger it again"
            )
        if code - 128 in _SIGNALS:
            return Killed(code - 128, span)
        return Exited(code, span)

    def _stop_report(self, state: ContainerState) -> StopReport | None:
        """What was sent to the container until it exited; None if that is not known.

        How long that took is by the engine's clock, if this host's, which no one sets, finds it possible.
        """
        try:
            begun = step_files.read(self._folder / "stopping", dict) or {}
            at, since, count = float(begun["at"]), float(begun["uptime"]), begun["processes"]
            processes = None if count is None else int(count)
        except (UnreadableError, KeyError, TypeError, ValueError):
            return None
        signals = [signal.Signals(self._spec.interrupt).name] if (self._folder / "interrupted").exists() else []
        if (self._folder / "terminated").exists():
            signals.append(state.stop_signal)
            if state.exit_code == _KILLED and not state.out_of_memory:
                signals.append("SIGKILL")
        seconds = max(0.0, min(state.finished - at, uptime() - since))
        return StopReport(tuple(dict.fromkeys(signals)), round(seconds, 3), processes)

    async def _outcome_of_unreachable(self, error: str) -> Outcome | None:
        """For an engine that can't be reached: an outcome only if nothing of the step was begun. Raises OSError."""
        self._on_liveness(Liveness.UNREACHABLE)
        if self._creation_is_begun():
            return None
        if self._stop_reason() is not None:
            return self._outcome_of_not_created()
        self._unreachable_since = self._unreachable_since or time.monotonic()
        if time.monotonic() - self._unreachable_since < _UNREACHABLE_LIMIT:
            return None
        return NotStarted(explain(error))

    def _outcome_of_not_created(self) -> Outcome:
        """For a step that was stopped, or reached its time limit, before its container existed."""
        if self._stop_reason() == "time_limit":
            span = Span(self._spec.decided_at, time.time(), self._spec.elapsed)
            return TimedOut(-1, span, NOTHING_STOPPED)
        return NotStarted("it was stopped before its container was made")

    async def stop(self, reason: str) -> None:
        """One attempt to stop the container: the interrupt and its grace, then `docker stop`.

        reason: `asked` or `time_limit`. Raises EngineUnreachableError, OSError.
        """
        begun = self._creation_is_begun()
        if not begun or not shim_files.exit_record(self._creation_folder()):
            self._record_stop(reason)
        if begun:
            await supervisor.stop(self._creation_folder())
        try:
            state = await self._docker.inspect(self.name)
        except EngineUnreachableError:
            self._record_stop(reason)
            raise
        if state is not None and not (state.alive or state.started == 0):
            return  # it has exited by itself
        self._record_stop(reason)
        if state is not None and state.alive and belongs_to_step(state, self._step):
            await self._note_stop()
            if await self._interrupt(state):
                state = await self._docker.inspect(self.name)
                if state is None or not state.alive:
                    return
            with suppress(OSError):  # the disk is full
                (self._folder / "terminated").touch()
            seconds = math.ceil(self._spec.grace)
            await self._docker.run("stop", "-t", str(seconds), "--", self.name, within=seconds + _STOP_TIMEOUT)

    async def _note_stop(self) -> None:
        """Write down when the stop of the container began, and what is alive in it then."""
        file = self._folder / "stopping"
        if not file.exists():
            begun = {"at": time.time(), "uptime": uptime()}
            processes = await self._docker.count_processes(self.name)
            with suppress(OSError):  # as above
                durable.write(file, {**begun, "processes": processes})

    async def _interrupt(self, state: ContainerState) -> bool:
        """Send the step's first signal once, unless `docker stop` sends it, and wait its grace; whether it was sent."""
        interrupted = self._folder / "interrupted"
        if self._spec.interrupt == signal.SIGTERM or interrupted.exists():
            return False
        name = signal.Signals(self._spec.interrupt).name.removeprefix("SIG")
        # First the processes that PID 1 started: a wrapper as PID 1 would die of the signal and take the program that
        # does the work with it. Then PID 1, which is that program itself where it has started no other process.
        all_but_first = ("exec", "--", self.name, "sh", "-c", f"kill -{name} -1")
        first = ("container", "kill", f"--signal={name}", "--", self.name)
        for command in (all_but_first, first) if state.has_own_processes else (first,):
            result = await self._docker.run(*command)
            if result.code == 0:
                interrupted.touch()
                await asyncio.sleep(self._spec.grace)
        return interrupted.exists()

    def _record_stop(self, reason: str) -> None:
        """Write the reason before anything is stopped, so that the exit that follows is not taken for a failure."""
        if self._stop_reason() is None:
            durable.make_directory(self._folder)  # somebody may have removed it
            durable.write(self._step / "ending", reason)

    def _stop_reason(self) -> str | None:
        """Why the step was stopped, `asked` or `time_limit`; None if it was not."""
        file = self._step / "ending"
        reason = step_files.read(file, str)
        if reason not in (None, *_STOP_REASONS):
            raise step_files.damaged(file)
        return reason

    def _creation_output(self) -> str:
        return OutputRing(self._folder).tail(_CREATION_OUTPUT_CAP).data.decode(errors="replace")

    def _creation_is_begun(self) -> bool:
        """Whether `docker compose run` was begun. Raises OSError."""
        return bool(self._creations())

    def _creation_folder(self) -> Path:
        """The folder of `docker compose run`. Raises OSError."""
        return self._folder / f"make-{max(self._creations(), default=1)}"

    def _creations(self) -> list[int]:
        # earlier versions began another one where one was killed
        return step_files.numbers(self._folder, "make-")


def _removed() -> Outcome:
    return Lost("its container was removed by another program; look at its output, then trigger it again.")
