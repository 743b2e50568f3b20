"""What the benchmarks share: a stopwatch, and a line of print."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.monotonic()
    call()
    return time.monotonic() - started


def compare(what: str, by_hand: Iterable[float], triggered: Iterable[float]) -> None:
    """Say the medians of the same thing done by hand and through the gateway, and their ratio."""
    hand, gate = statistics.median(by_hand), statistics.median(triggered)
    say(f"{what} by hand      {hand:.2f} s")
    say(f"{what} triggered    {gate:.2f} s, {gate / hand:.2f} times that, {gate - hand:+.2f} s")


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{line}\n")
