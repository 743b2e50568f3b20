"""What the output of a step reports: its progress, and the sentence in it that says why the step failed."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from runners.output import terminal_text

_LONGEST_WORD = 100  # characters
_HALF_TEXT = 1 << 16  # characters at both ends of a text that are looked at


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of the nodes of a step (models and tests of dbt, tables of an ingester); `total` is 0 until it is known.

    done = passed + warn + error + skip + noop. noop: nodes that have nothing to run, such as exposures.
    current: the name of the node that was begun last.
    """

    done: int = 0
    total: int = 0
    passed: int = 0
    warn: int = 0
    error: int = 0
    skip: int = 0
    noop: int = 0
    current: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """The first node that failed, its message in one line, and the number of further failures.

    A record has a short message without secrets; what reads output and results gives it whole.
    """

    node: str
    message: str
    more: int = 0


class OutputReader(Protocol):
    """Reads the output of a step line by line."""

    @property
    def progress(self) -> Progress | None:
        """The progress of the step, None until its output has reported one."""
        ...

    @property
    def cause(self) -> str:
        """Why the step failed, in the words of its output; empty if it printed nothing."""
        ...

    def feed(self, line: str) -> None:
        """Take one line, without its line end."""
        ...

    def skip(self) -> None:
        """Note that lines are missing between the last line and the next one."""
        ...


def encodable(text: str) -> str:
    """The text without lone surrogates, which JSON can escape and no encoding has."""
    return text.encode(errors="replace").decode()


def folded(text: str) -> str:
    """The text as a terminal shows it, in one line, white space folded. A very long text loses its middle."""
    if len(text) > 2 * _HALF_TEXT:
        text = f"{text[:_HALF_TEXT]}…{text[-_HALF_TEXT:]}"
    return " ".join(word for line in encodable(text).split("\n") for word in terminal_text(line).split())


def one_line(text: str, limit: int = 500, hide: Callable[[str], str] = str) -> str:
    """The text folded, and without secrets, as far as `hide` knows them. A text longer than `limit` loses its middle.

    Secrets are hidden before the cut, since the end of one is not found any more. Where they are hidden later, a word
    of usual length that the cut divides is lost too, so that no end of a secret is left.
    """
    whole = hide(folded(text))
    if len(whole) <= limit:
        return whole
    end = len(whole) - limit // 2
    next_word = whole.find(" ", end - 1, end + _LONGEST_WORD) + 1
    return f"{whole[: limit // 2 - 1]}…{whole[max(end, next_word) :]}"


def without_frames(text: str) -> str:
    """A message without the frames of a Python traceback in it: what stands before it, and its exception."""
    before, found, _ = text.partition(_TRACEBACK)
    if not found:
        return text
    finder = CauseFinder()
    for line in text.split("\n"):
        finder.feed(line)
    return f"{before}{finder.cause}"


class _Rank(IntEnum):
    """How likely a line says why the step failed."""

    NOTHING, NOISE, PLAIN, WRAPPER, REFUSAL, ERROR = range(6)


_TRACEBACK = "Traceback (most recent call last):"
_HALF_LINE = 2048  # characters at both ends of a line that are looked at
_MAX_LINES = 20  # of one cause

_NOISE = re.compile(
    # a log line of another level, and what tools say of their telemetry
    r"(?:^|[\s\[—|:-])(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING)(?=[\s\]—|:-])|posthog|snowplow|telemetry"
    r"|^.{0,60}?\d{1,3}%\s*[|\[]",  # a progress bar
)
_ERROR = re.compile(
    r"(?<![A-Za-z_])(?:ERROR|FATAL|CRITICAL|PANIC)\b(?!=)"
    r"|(?:Error|Exception)(?=:|\(|$| in )"
    r"|\b(?:error|fatal|panic):"
)
_REFUSAL = re.compile(
    r"not found|no such file|permission denied|access denied|refused|could not|cannot|can't|unable to|failed|timed out",
    re.IGNORECASE,
)
# what a program says of the exit of another, whose own words stand before
_WRAPPER = re.compile(r"\bexit(?:ed)?(?: with)?(?: status| code)+:? -?\d+|\bError \d+$")
_NAME_LETTERS = f"{string.ascii_letters}_."  # of an exception
_DETAIL = re.compile(r"\s|<class |[A-Z][A-Za-z ]{0,40}Error\b")  # begins the further lines of an exception's message


def _rank(text: str) -> _Rank:
    if _NOISE.search(text):
        return _Rank.NOISE
    if _WRAPPER.search(text):
        return _Rank.WRAPPER
    if _ERROR.search(text):
        return _Rank.ERROR
    return _Rank.REFUSAL if _REFUSAL.search(text) else _Rank.PLAIN


def _without_progress_bar(text: str) -> str:
    """An error without the progress bar that it was printed behind."""
    found = _ERROR.search(text)
    bar = text[: found.start()].rstrip(_NAME_LETTERS) if found is not None else ""
    return text[len(bar) :] if "%" in bar else text


class CauseFinder:
    """Finds the sentence that a person who read the whole output would quote as the reason of a failure.

    That is the last line that reports an error, with the lines that belong to it, and not what a clean-up, a wrapper or
    telemetry said after it; in a traceback, the exception. Without such a line it is the last one.
    """

    def __init__(self) -> None:
        self._rank = _Rank.NOTHING
        self._lines: list[str] = []
        self._goes_on = False  # the next line may belong to the cause
        self._is_exception = False
        self._frames: int | None = None  # in a traceback: how far its first line is indented

    @property
    def cause(self) -> str:
        """The sentence so far, with line feeds; empty before the first line."""
        return "\n".join(self._lines)

    def feed(self, line: str) -> None:
        """Take one line of the output, without its line end."""
        whole = len(line) <= 2 * _HALF_LINE
        text = terminal_text(line if whole else f"{line[:_HALF_LINE]}…{line[-_HALF_LINE:]}").rstrip()
        indentation = len(text) - len(text.lstrip())
        if not text or (self._frames is not None and indentation > self._frames):
            return
        if text.endswith(_TRACEBACK):
            self._frames, self._goes_on = indentation, False
            return
        ends_traceback, self._frames = self._frames is not None, None
        if self._goes_on and not ends_traceback and self._belongs(text):
            self._lines = [*self._lines, text][:_MAX_LINES]
            return
        text = _without_progress_bar(text)
        rank = _rank(text)
        if ends_traceback and rank is not _Rank.WRAPPER:
            rank = _Rank.ERROR
        self._take(text, rank)
        self._is_exception = ends_traceback

    def say(self, message: str, *, is_error: bool) -> None:
        """Take a message whose level is known."""
        if message:
            self._take(message, _Rank.ERROR if is_error else _Rank.PLAIN)
        self._goes_on, self._frames = False, None

    def _take(self, text: str, rank: _Rank) -> None:
        self._goes_on = rank >= max(self._rank, _Rank.WRAPPER)
        if rank >= self._rank:
            self._rank, self._lines = rank, [text]

    def _belongs(self, text: str) -> bool:
        """Whether a line goes on with the cause."""
        before = self._lines[-1]
        if _NOISE.search(text):
            return False
        if text[0].isspace() or before.endswith(":"):
            return True
        return self._is_exception and (before.startswith("<class ") or _DETAIL.match(text) is not None)
