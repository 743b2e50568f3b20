"""What kind of error ended a step, by how it ended and by what its programs said. Pure."""

from __future__ import annotations

import re
from enum import StrEnum

from runners.outcome import Exited, Killed, Lost, NotStarted, Outcome, Stopped, TimedOut
from runners.report import Failure


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
