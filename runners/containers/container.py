"""One container of a step: made once, followed to its end, ended when that is wanted."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runners import durable
from runners.containers.container_log import ContainerLog
from runners.containers.docker import ContainerState, Docker, EngineUnreachableError
from runners.containers.docker_errors import explain
from runners.containers.identity import belongs_to_step, container_name
from runners.detached import supervisor as process
from runners.mask import Mask
from runners.outcome import Command, Exited, Killed, Lost, NotStarted, Outcome, Span, Stopped, TimedOut
from runners.output import OutputRing
from runners.runner import Liveness

_BEAT = 5.0  # seconds between two looks at a container that runs
_LATER = 1.0
_PATIENCE = 30.0  # seconds that an engine may be silent before anything of the step was begun
_ATTEMPTS = 3
_LONGEST = 366 * 86400.0  # seconds; the step's own limit is shorter
_GRACE = 10.0  # for the command line that makes it
_WORDS = 1 << 20  # bytes of what that says
_STOP_TAKES = 30.0  # seconds that `docker stop` may need beyond the grace
_LOST = 255  # what an engine that starts again says of a container that is gone; programs can leave with it too
_SIGNALS = frozenset(int(number) for number in signal.Signals if number < 32)


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What was decided about a step before anything of it began: see Command.

    since: epoch seconds. engine: the variables that say which one. secrets: names of variables, see Mask.
    """

    argvs: tuple[tuple[str, ...], ...]
    cwd: str
    docker: tuple[str, ...]
    interrupt: int
    grace: float
    time_limit: float
    since: float
    engine: Mapping[str, str]
    secrets: tuple[str, ...] = ()


class Container:
    """The nth container of a step, as this process follows it: it keeps nothing that folder and engine don't know.

    step: the step's folder. environment: of the command lines. seen: told how it was found. mask: knows what is secret,
    but for what only the container has in its environment.
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
        self._maker: asyncio.Task[Outcome] | None = None  # the `docker compose run` that goes on
        self._made: dict[int, Outcome] = {}  # how those that are over ended
        self._starts = 0
        self._unread = 0
        self._silent_since: float | None = None

    async def run(self) -> Outcome:
        """Its outcome, once it is not alive. Cancelling this leaves it alone."""
        try:
            while True:
                try:
                    outcome = await self._try()
                except OSError:  # out of descriptors or of disk: nothing is decided by that
                    outcome = None
                    await asyncio.sleep(_LATER)
                if outcome is not None:
                    return outcome
        finally:
            self._log.close()
            if self._maker is not None:
                self._maker.cancel()

    async def _try(self) -> Outcome | None:
        """One step forward, as far as the engine lets it. Raises OSError."""
        try:
            outcome = await self._advance()
        except EngineUnreachableError as silence:
            given_up = await self._silence(str(silence))
            if given_up is None:
                await asyncio.sleep(_LATER)
            return given_up
        self._silent_since = None
        return outcome

    async def _advance(self) -> Outcome | None:
        made = await self._how_made()
        state = await self._docker.inspect(self.name)
        if self._maker is not None:
            self._on_liveness(Liveness.SUPERVISED)  # it is still being made, and the engine answers
            return None
        if state is None:
            return await self._absent(made)
        if not belongs_to_step(state, self._step):
            return NotStarted(
                f"The container name {self.name} is taken by a container that is not the gateway's; remove it, then "
                "trigger it again."
            )
        if state.alive:
            self._on_liveness(Liveness.SUPERVISED)
            await self._log.follow(_BEAT, self._mask.with_secrets_of(state.environment), rotates=state.log_rotates)
            return None
        if state.started == 0:
            return await self._never_ran(state)
        if not await self._copied_to_the_end(state):
            return None
        if state.exit_code != 0:
            # asked again, for an engine may learn of the end before it learns that memory was the cause
            state = await self._docker.inspect(self.name) or state
        return await asyncio.to_thread(self._outcome, state)

    async def _how_made(self) -> Outcome | None:
        """How the last `docker compose run` ended; None if there was none, or while it goes on."""
        number = self._makers()
        if number == 0 or number in self._made:
            return self._made.get(number)
        if self._maker is None:
            self._maker = asyncio.create_task(self._make(number), name=f"make-{self.name}")
        await asyncio.wait([self._maker], timeout=_BEAT)
        if self._maker.done():
            maker, self._maker = self._maker, None
            self._made[number] = maker.result()
        return self._made.get(number)

    async def _make(self, number: int) -> Outcome:
        folder = self._maker_folder(number)
        command = Command(
            (self._argv,), self._spec.cwd, self._environment, grace=_GRACE, time_limit=_LONGEST, mask=self._mask
        )
        # a no-op unless the gateway died between making the folder and this
        why = await process.start(folder, command, process.OutputTarget(self._folder, _WORDS))
        return NotStarted(why) if why else await process.wait(folder, self._on_liveness)

    async def _absent(self, made: Outcome | None) -> Outcome | None:
        """There is no such container, and nobody is making it."""
        match made:
            case NotStarted():
                return made
            case Exited(code=0):
                return _removed()
            case Exited():
                return NotStarted(explain(await asyncio.to_thread(self._words)))
            case Killed() | TimedOut() | Stopped() | Lost() | None:
                pass  # not made by it, then
        if made is not None and await self._docker.was_started(self.name, self._spec.since):
            return _removed()
        if self._ended_by() is not None:
            return self._not_begun()
        makers = self._makers()
        if makers == _ATTEMPTS:
            return NotStarted(
                "`docker compose run` was killed again and again; find out by whom, then trigger it again."
            )
        self._maker_folder(makers + 1).mkdir(mode=0o700, parents=True)
        return None

    async def _never_ran(self, state: ContainerState) -> Outcome | None:
        """It was made, but nothing of it ever ran: the engine says why, or the command line was killed in between."""
        if state.error:
            return NotStarted(explain(state.error))
        if self._ended_by() is not None:
            return self._not_begun()
        if self._starts == _ATTEMPTS:
            return NotStarted(f"the engine does not start the container {self.name} and does not say why")
        self._starts += 1
        await self._docker.call("container", "start", "--", self.name)
        return None

    async def _copied_to_the_end(self, state: ContainerState) -> bool:
        """Whether all of its log is in the ring, or can't be had; false while the copy goes on."""
        whole = await self._log.finish(_BEAT, self._mask.with_secrets_of(state.environment), rotates=state.log_rotates)
        if whole is False:
            self._unread += 1
        return whole is True or self._unread == _ATTEMPTS

    def _outcome(self, state: ContainerState) -> Outcome:
        code, span = state.exit_code, Span(state.started, state.finished, max(0.0, state.finished - state.started))
        ended_by = self._ended_by()
        if ended_by is not None:
            return TimedOut(code, span) if ended_by == "time_limit" else Stopped(code, span)
        if state.out_of_memory and code != 0:
            return Killed(signal.SIGKILL, span, out_of_memory=True)
        if code == _LOST and self._log.was_broken():
            return Lost(
                "its engine or the host stopped while it ran, so nobody saw how it ended; look at its output and "
                "trigger it again"
            )
        if code - 128 in _SIGNALS:
            return Killed(code - 128, span)
        return Exited(code, span)

    async def _silence(self, why: str) -> Outcome | None:
        """Nothing is known now. Only a step of which nothing was ever begun may be given up. Raises OSError."""
        self._on_liveness(Liveness.UNREACHABLE)
        if self._makers():
            return None
        if self._ended_by() is not None:
            return self._not_begun()
        self._silent_since = self._silent_since or time.monotonic()
        if time.monotonic() - self._silent_since < _PATIENCE:
            return None
        return NotStarted(explain(why))

    def _not_begun(self) -> Outcome:
        if self._ended_by() == "time_limit":
            now = time.time()
            return TimedOut(-1, Span(self._spec.since, now, max(0.0, now - self._spec.since)))
        return NotStarted("it was stopped before its container was made")

    async def end(self, reason: str) -> None:
        """One round of ending it: the interrupt, a grace, then what `docker stop` does. Raises EngineSilentError."""
        makers = self._makers()
        if makers == 0 or not process.record(self._maker_folder(makers)):
            self._note_end(reason)
        if makers:
            await process.stop(self._maker_folder(makers))
        try:
            state = await self._docker.inspect(self.name)
        except EngineUnreachableError:
            self._note_end(reason)
            raise
        if state is not None and not (state.alive or state.started == 0):
            return  # it ended by itself
        self._note_end(reason)
        if state is not None and state.alive and belongs_to_step(state, self._step):
            await self._interrupt(state)
            seconds = math.ceil(self._spec.grace)
            await self._docker.call("stop", "-t", str(seconds), "--", self.name, within=seconds + _STOP_TAKES)

    async def _interrupt(self, state: ContainerState) -> None:
        """The step's first signal, unless that is what `docker stop` sends, and its grace; once."""
        interrupted = self._folder / "interrupted"
        if self._spec.interrupt == signal.SIGTERM or interrupted.exists():
            return
        name = signal.Signals(self._spec.interrupt).name.removeprefix("SIG")
        # First the processes that PID 1 started: a wrapper as PID 1 would die of the signal and take the program that
        # does the work with it. Then PID 1, which is that program itself where it has started no other process.
        everybody = ("exec", "--", self.name, "sh", "-c", f"kill -{name} -1")
        first = ("container", "kill", f"--signal={name}", "--", self.name)
        for command in (everybody, first) if state.has_own_processes else (first,):
            said = await self._docker.call(*command)
            if said.code == 0:
                interrupted.touch()
                await asyncio.sleep(self._spec.grace)

    def _note_end(self, reason: str) -> None:
        """Durable before anything is ended, so that whoever sees it ended knows by whom."""
        if self._ended_by() is None:
            durable.write(self._step / "ending", reason)

    def _ended_by(self) -> str | None:
        """Why the step was ended, if it was: `asked` or `time_limit`."""
        with suppress(FileNotFoundError):
            return str(json.loads((self._step / "ending").read_bytes()))
        return None

    def _words(self) -> str:
        return OutputRing(self._folder).tail(_WORDS).data.decode(errors="replace")

    def _maker_folder(self, number: int) -> Path:
        return self._folder / f"make-{number}"

    def _makers(self) -> int:
        """How often `docker compose run` was begun. Raises OSError."""
        return sum(name.startswith("make-") for name in durable.names(self._folder))


def _removed() -> Outcome:
    return Lost("its container was removed by somebody else; look at its output, then trigger it again.")
