"""The command and the outcome of a step, as frozen values, and what kind of error an outcome is."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from runners.mask import Mask
from runners.report import Failure


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


class StepError(StrEnum):
    """The kinds of errors after which a step may be tried again."""

    DATABASE_UNAVAILABLE = "database_unavailable"
    LOCKED = "locked"
    NETWORK = "network"
    TIMED_OUT = "timed_out"
    KILLED = "killed"
    ANY = "any"


_LOCKED = re.compile(
    r"could not set lock on|conflicting lock is held|database is locked|deadlock detected|could not obtain lock"
    r"|lock timeout|lock wait timeout|could not serialize access|write-write conflict",
    re.IGNORECASE,
)
# what only a server says that is not there for its clients
_DATABASE_UNAVAILABLE = re.compile(
    r"the database system is (?:starting up|shutting down|in recovery mode|not accepting|not yet accepting)"
    r"|server closed the connection unexpectedly|terminating connection due to|too many (?:clients|connections)"
    r"|remaining connection slots are reserved|is the server running on|could not connect to server",
    re.IGNORECASE,
)
_NETWORK = re.compile(
    r"connection (?:refused|reset|aborted|timed out|closed by)|(?:network|host) is unreachable|no route to host"
    r"|broken pipe|failed to resolve|could not resolve|could not translate host name|name or service not known"
    r"|name resolution|max retries exceeded|remote end closed|read timed out|connect(?:ion)? timeout|timeout expired"
    r"|could not connect|\b50[234] (?:bad gateway|service unavailable|gateway time-?out)",
    re.IGNORECASE,
)
_OF_DATABASE = re.compile(r"database|connection to server|OperationalError", re.IGNORECASE)
_TESTS = ("test.", "unit_test.")
_TEST_ERROR = re.compile(r"\w+ Error\b")  # begins the message of a test that could not be run


def error_kinds(outcome: Outcome, failure: Failure | None) -> frozenset[StepError]:
    """The kinds of the error that ended a step; none for a step that exited 0, or whose end was not observed.

    failure: the first thing that went wrong in a step that exited by itself.
    """
    match outcome:
        case Exited(code=0) | Lost():  # what was lost may have done anything
            return frozenset()
        case Exited():
            return frozenset({StepError.ANY, *_said(_message(failure))})
        case NotStarted(why=why):
            return frozenset({StepError.ANY, *_said(why)})
        case TimedOut():
            return frozenset({StepError.ANY, StepError.TIMED_OUT})
        case Killed() | Stopped():
            return frozenset({StepError.ANY, StepError.KILLED})


def _message(failure: Failure | None) -> str:
    """What a failure says; nothing for a test that failed, whose message may quote data."""
    if failure is None or (failure.node.startswith(_TESTS) and not _TEST_ERROR.match(failure.message)):
        return ""
    return failure.message


def _said(text: str) -> set[StepError]:
    kinds = set()
    if _LOCKED.search(text):
        kinds.add(StepError.LOCKED)
    if _NETWORK.search(text):
        kinds.add(StepError.NETWORK)
    if _DATABASE_UNAVAILABLE.search(text) or (StepError.NETWORK in kinds and _OF_DATABASE.search(text)):
        kinds.add(StepError.DATABASE_UNAVAILABLE)
    return kinds
