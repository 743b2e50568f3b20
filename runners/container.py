"""One container of a step: made once, followed to its end, ended when that is wanted."""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runners import process
from runners.container_log import ContainerLog
from runners.docker import Docker, EngineSilentError, State
from runners.docker_words import explain
from runners.output import Ring
from runners.runner import Liveness
from runners.step import Command, Exited, Killed, Lost, NotStarted, Outcome, Span, Stopped, TimedOut

INSTANCE_LABEL = "pipeline-gateway.instance"
JOB_LABEL = "pipeline-gateway.job"
STEP_LABEL = "pipeline-gateway.step"

_BEAT = 5.0  # seconds between two looks at a container that runs
_LATER = 1.0
_PATIENCE = 30.0  # seconds that an engine may be silent before anything of the step was begun
_ATTEMPTS = 3
_YEAR = 366 * 86400.0
_GRACE = 10.0  # for the command line that makes it
_WORDS = 1 << 20  # bytes of what that says
_STOP_TAKES = 30.0  # seconds that `docker stop` may need beyond the grace
_LOST = 255  # what an engine that starts again says of a container that is gone; programs can leave with it too
_SIGNALS = frozenset(int(number) for number in signal.Signals if number < 32)


@dataclass(frozen=True, slots=True)
class Spec:
    """What was decided about a step before anything of it began: see Command. since: epoch seconds."""

    argvs: tuple[tuple[str, ...], ...]
    cwd: str
    docker: tuple[str, ...]
    interrupt: int
    grace: float
    time_limit: float
    since: float


def container_name(step: Path, number: int = 0) -> str:
    """The name of a container of the step whose folder this is; a step has one for each of its commands."""
    name = f"pipeline-gateway-{step.parent.name}-{step.name}"
    return f"{name}-{number + 1}" if number else name


class Container:
    """The nth container of a step, as this process follows it: it keeps nothing that folder and engine don't know.

    step: the step's folder. environment: of the command lines. seen: told how it was found.
    """

    def __init__(
        self,
        step: Path,
        number: int,
        spec: Spec,
        environment: Mapping[str, str],
        output_cap: int,
        seen: Callable[[Liveness], None],
    ) -> None:
        self.name = container_name(step, number)
        self._step = step
        self._folder = step / f"container-{number + 1}"
        self._spec = spec
        self._argv = spec.argvs[number]
        self._environment = environment
        self._seen = seen
        self._docker = Docker(spec.docker, environment)
        self._log = ContainerLog(self._folder, self.name, spec.docker, environment, step.parent, output_cap)
        self._made: dict[int, Outcome] = {}  # how the attempts to make it ended, as far as this process knows
        self._starts = 0
        self._silent_since: float | None = None
        self._copier_left = False

    async def run(self) -> Outcome:
        """Its outcome, once it is not alive. Cancelling this leaves it alone."""
        try:
            while True:
                outcome = await self._try()
                if outcome is not None:
                    return outcome
        finally:
            self._log.close()

    async def _try(self) -> Outcome | None:
        """One step forward, as far as engine and disk let it."""
        try:
            outcome = await self._advance()
        except EngineSilentError as silence:
            outcome = self._silence(str(silence))
        except OSError:  # out of descriptors or of disk: nothing is decided by that
            outcome = None
        else:
            self._silent_since = None
            return outcome
        if outcome is None:
            await asyncio.sleep(_LATER)
        return outcome

    async def _advance(self) -> Outcome | None:
        made = await self._attempted()
        state = await self._docker.inspect(self.name)
        if state is None:
            return self._absent(made)
        if not self._is_ours(state):
            return NotStarted(
                f"the container name {self.name} is taken by a container that is not the gateway's; remove it and "
                "trigger it again"
            )
        if state.alive:
            await self._follow()
            return None
        if state.started == 0:
            return await self._never_ran(state)
        await self._copy_the_rest()
        return await asyncio.to_thread(self._outcome, state)

    async def _attempted(self) -> Outcome | None:
        """How the last attempt to make the container ended, once it has; None if there was none."""
        number = self._attempts()
        if number and number not in self._made:
            folder = self._attempt(number)
            command = Command(
                argvs=(self._argv,), cwd=self._spec.cwd, environment=self._environment, grace=_GRACE, time_limit=_YEAR
            )
            # a no-op unless the gateway died between the folder and the start
            why = await process.start(folder, command, process.Output(self._folder, _WORDS))
            self._made[number] = NotStarted(why) if why else await process.wait(folder, self._seen)
        return self._made.get(number)

    def _absent(self, made: Outcome | None) -> Outcome | None:
        """There is no such container, and nobody is making it."""
        match made:
            case NotStarted():
                return made
            case Exited(code=0):
                return Lost("its container was removed by somebody else; look at its output and trigger it again")
            case Exited():
                return NotStarted(explain(self._words()))
            case Killed() | TimedOut() | Stopped() | Lost() | None:
                pass  # not made by it, then
        if self._ended_by() is not None:
            return self._not_begun()
        attempts = self._attempts()
        if attempts == _ATTEMPTS:
            return NotStarted("`docker compose run` was killed again and again; find out by whom and trigger it again")
        self._attempt(attempts + 1).mkdir(mode=0o700, parents=True)
        return None

    async def _never_ran(self, state: State) -> Outcome | None:
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

    async def _follow(self) -> None:
        """Copy its log while it runs, and look after it every now and then: a copier may hang, or hear nothing."""
        self._seen(Liveness.SUPERVISED)
        if self._copier_left:
            await asyncio.sleep(_LATER)  # the log can't be read, or it was just lost: try again, but don't spin
        self._copier_left = not await self._log.follow(_BEAT)

    async def _copy_the_rest(self) -> None:
        for _ in range(_ATTEMPTS):
            if await self._log.finish():
                return
            if await self._docker.inspect(self.name) is None:
                return  # with its log; and an engine that went silent is waited for

    def _outcome(self, state: State) -> Outcome:
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

    def _silence(self, why: str) -> Outcome | None:
        """Nothing is known now. Only a step of which nothing was ever begun may be given up."""
        self._seen(Liveness.UNREACHABLE)
        if self._attempts():
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
        try:
            state = await self._docker.inspect(self.name)
        except EngineSilentError:
            self._note_end(reason)
            raise
        if state is not None and not (state.alive or state.started == 0):
            return  # it ended by itself
        self._note_end(reason)
        attempts = self._attempts()
        if attempts:
            await process.stop(self._attempt(attempts))
        if state is not None and state.alive and self._is_ours(state):
            await self._stop()

    async def _stop(self) -> None:
        interrupted = self._folder / "interrupted"
        if self._spec.interrupt != signal.SIGTERM and not interrupted.exists():
            interrupted.touch()
            name = signal.Signals(self._spec.interrupt).name
            await self._docker.call("container", "kill", f"--signal={name}", "--", self.name)
            await asyncio.sleep(self._spec.grace)
        seconds = math.ceil(self._spec.grace)
        await self._docker.call("container", "stop", f"--time={seconds}", "--", self.name, within=seconds + _STOP_TAKES)

    def _note_end(self, reason: str) -> None:
        """Durable before anything is ended, so that whoever sees it ended knows by whom."""
        if self._ended_by() is None:
            (self._step / "ending").write_text(reason, "ascii")

    def _ended_by(self) -> str | None:
        """Why the step was ended, if it was: `asked` or `time_limit`."""
        with suppress(FileNotFoundError):
            return (self._step / "ending").read_text("ascii") or "asked"
        return None

    def _is_ours(self, state: State) -> bool:
        return (state.labels.get(JOB_LABEL), state.labels.get(STEP_LABEL)) == (self._step.parent.name, self._step.name)

    def _words(self) -> str:
        return Ring(self._folder).tail(_WORDS).data.decode(errors="replace")

    def _attempt(self, number: int) -> Path:
        return self._folder / f"make-{number}"

    def _attempts(self) -> int:
        return len(list(self._folder.glob("make-*")))
