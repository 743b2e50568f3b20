"""What the output of a step reports: its progress and its first failure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from runners.output import terminal_text


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of the nodes of a step (models and tests of dbt, tables of an ingester); `total` is 0 until it is known.

    done = passed + warn + error + skip. current: the name of the node that was begun last.
    """

    done: int = 0
    total: int = 0
    passed: int = 0
    warn: int = 0
    error: int = 0
    skip: int = 0
    current: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """The first node that failed, its message in one line, and the number of further failures."""

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
    def last_line(self) -> str:
        """The last line that is not blank, empty if there is none."""
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


def one_line(text: str, limit: int = 500) -> str:
    """The text as a terminal shows it, in one line, white space folded, cut at `limit` characters."""
    folded = " ".join(word for line in encodable(text).splitlines() for word in terminal_text(line).split())
    return folded if len(folded) <= limit else folded[: limit - 1] + "…"
