"""What a step is and how it ended: plain frozen values."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from runners.mask import Mask


@dataclass(frozen=True, slots=True)
class Command:
    """What a step runs, made when it starts.

    argvs: the commands, one after the other; the first that does not exit 0 ends the step.
    cwd: absolute path.
    environment: the whole environment. It may hold secrets, so it is never written to the disk.
    docker: the docker command line (program, context, host) that reaches the engine where the commands make
        containers; empty where they are the step themselves.
    interrupt: the first signal of a stop, to all of the step; SIGTERM and SIGKILL follow.
    grace: seconds between the signals of a stop.
    time_limit: seconds the step may take before it is stopped.
    mask: knows what is secret in its output; as the environment it is never written to the disk.
    """

    argvs: tuple[tuple[str, ...], ...]
    cwd: str
    environment: Mapping[str, str] = field(repr=False)
    docker: tuple[str, ...] = ()
    interrupt: signal.Signals = signal.SIGTERM
    grace: float = 10.0
    time_limit: float = 6 * 3600.0
    mask: Mask = field(default_factory=Mask)

    def check(self) -> None:
        """Refuse what no process can be given, by a name and never by its value. Raises ValueError."""
        texts = [("the working folder", self.cwd)]
        texts += [("the command", argument) for argv in self.argvs for argument in argv]
        texts += [(f"the variable {name}", value) for name, value in self.environment.items()]
        for what, text in texts:
            if b"\0" in os.fsencode(text):
                raise ValueError(f"{what} has a NUL character in it")
        if not self.argvs or not all(self.argvs):
            raise ValueError("the command is empty")


@dataclass(frozen=True, slots=True)
class Span:
    """When a step ran: wall clock for people (epoch seconds), duration by a clock that never jumps."""

    started: float
    finished: float
    duration: float


@dataclass(frozen=True, slots=True)
class Exited:
    """It ran to its end and exited by itself with this code (0 to 255)."""

    code: int
    span: Span
    kind: Literal["exited"] = "exited"


@dataclass(frozen=True, slots=True)
class Killed:
    """A signal that was not ours ended it; out_of_memory: the kernel's, and the engine said so."""

    signal: int
    span: Span
    out_of_memory: bool = False
    kind: Literal["killed"] = "killed"


@dataclass(frozen=True, slots=True)
class NotStarted:
    """It could not be started, or did nothing though it exited 0: a sentence that says why and what to do.

    code: its exit code, where it got that far.
    """

    why: str
    code: int | None = None
    span: Span | None = None
    kind: Literal["not_started"] = "not_started"


@dataclass(frozen=True, slots=True)
class TimedOut:
    """It passed its time limit and was stopped; code is what it left with (128 + n for signal n)."""

    code: int
    span: Span
    kind: Literal["timed_out"] = "timed_out"


@dataclass(frozen=True, slots=True)
class Stopped:
    """It was asked to stop and did; code is what it left with (128 + n for signal n)."""

    code: int
    span: Span
    kind: Literal["stopped"] = "stopped"


@dataclass(frozen=True, slots=True)
class Lost:
    """Nobody saw how it ended: a sentence that says why."""

    why: str
    kind: Literal["lost"] = "lost"


Outcome = Exited | Killed | NotStarted | TimedOut | Stopped | Lost
