"""What a step tells about itself: how far it is, and what went wrong first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from runners.output import terminal_text


@dataclass(frozen=True, slots=True)
class Progress:
    """Nodes of a step (models and tests for dbt, tables for an ingester); `total` is 0 until it is known."""

    done: int = 0
    total: int = 0
    passed: int = 0
    warn: int = 0
    error: int = 0
    skip: int = 0
    current: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """The first node that failed, its message in one line, and how many more failed."""

    node: str
    message: str
    more: int = 0


class OutputReader(Protocol):
    """Takes the lines of a step's output as they come and knows how far the step is."""

    @property
    def progress(self) -> Progress | None:
        """How far the step is, None until it said so."""
        ...

    @property
    def last_line(self) -> str:
        """The last line that said anything; empty if none did."""
        ...

    def feed(self, line: str) -> None:
        """Take one line, without its line end."""
        ...

    def skip(self) -> None:
        """Lines were lost or passed over: what they may have said must not be missed."""
        ...


def clean(text: str) -> str:
    """Text that can be encoded: JSON may escape halves of characters that no encoding has."""
    return text.encode(errors="replace").decode()


def one_line(text: str, limit: int = 500) -> str:
    """The text that a terminal would show, with all white space folded, cut at `limit` characters."""
    folded = " ".join(word for line in clean(text).splitlines() for word in terminal_text(line).split())
    return folded if len(folded) <= limit else folded[: limit - 1] + "…"
