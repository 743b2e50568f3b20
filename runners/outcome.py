"""The command and the outcome of a step: frozen values."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from runners.mask import Mask


@dataclass(frozen=True, slots=True)
class Command:
    """What a step runs, made when the step starts.

    argvs: the command lines, run one after the other; the first that does not exit with 0 ends the step.
    cwd: absolute path.
    environment: the whole environment. It may contain secrets, so it is never written to the disk.
    docker: the docker command line (program, context, host) of the engine in which the argvs create containers; empty
        if the argvs themselves are the step.
    interrupt: the first signal of a stop, to all processes of the step; SIGTERM and SIGKILL follow.
    grace: seconds between the signals of a stop.
    time_limit: seconds after which the step is stopped.
    mask: of the step's output. Like the environment, it is never written to the disk.
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
        """Raise ValueError for a command that no process can run. The message has no values of variables."""
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
    """When a step ran, and what it used. started, finished: epoch seconds. duration: seconds by a monotonic clock.

    peak_memory: bytes, of its largest process, or of its largest container with the cache of its files.
    cpu: seconds, of all its processes. None where that is not known.
    """

    started: float
    finished: float
    duration: float
    peak_memory: int | None = None
    cpu: float | None = None


@dataclass(frozen=True, slots=True)
class Exited:
    """It exited by itself with this code (0 to 255)."""

    code: int
    span: Span
    kind: Literal["exited"] = "exited"


@dataclass(frozen=True, slots=True)
class Killed:
    """A signal ended it that the gateway did not send. out_of_memory: the container engine reports lack of memory."""

    signal: int
    span: Span
    out_of_memory: bool = False
    kind: Literal["killed"] = "killed"


@dataclass(frozen=True, slots=True)
class NotStarted:
    """It could not be started, or did not do its work although it exited with 0.

    why: a sentence with the reason and what to do. code: None if no process was started. span: None if no supervisor
    was started.
    """

    why: str
    code: int | None = None
    span: Span | None = None
    kind: Literal["not_started"] = "not_started"


@dataclass(frozen=True, slots=True)
class StopReport:
    """What was ended of a step, and how.

    signals: the names of those that were sent, in order. seconds: from the request, as what ends the step got it, or
    from the time limit, to the end of the last process. processes: how many were alive when a signal was sent; None
    where that is not known.
    """

    signals: tuple[str, ...]
    seconds: float
    processes: int | None


NOTHING_STOPPED = StopReport((), 0.0, 0)


@dataclass(frozen=True, slots=True)
class TimedOut:
    """It was stopped at its time limit. code: its exit code, 128 + n for signal n, -1 if unknown.

    report: None if the supervisor that stopped it, of an older version, wrote none.
    """

    code: int
    span: Span
    report: StopReport | None = None
    kind: Literal["timed_out"] = "timed_out"


@dataclass(frozen=True, slots=True)
class Stopped:
    """It was stopped on request. code, report: as in TimedOut."""

    code: int
    span: Span
    report: StopReport | None = None
    kind: Literal["stopped"] = "stopped"


@dataclass(frozen=True, slots=True)
class Lost:
    """Its end was not observed. why: a sentence with the reason. report: of the processes that it had left."""

    why: str
    report: StopReport | None = None
    kind: Literal["lost"] = "lost"


Outcome = Exited | Killed | NotStarted | TimedOut | Stopped | Lost
