"""Where a step runs: the protocol that every runner fulfils."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Protocol

from runners.outcome import Command, Outcome


class Liveness(Enum):
    """How a step was found: alive under its supervisor, alive without it, or not at all, since nobody answers."""

    SUPERVISED = "supervised"
    ORPHANED = "orphaned"
    UNREACHABLE = "unreachable"


class Runner(Protocol):
    """Starts, follows and stops steps that live longer than the process that asked.

    A step's folder is its durable identity: every call takes it and none needs to be made by the process
    that made the call before. Nothing but cancellation leaves a runner as an exception.
    """

    async def start(self, folder: Path, command: Command) -> None:
        """Start the step, unless this folder's step was ever started. A start that fails is told by `wait`."""
        ...

    async def wait(self, folder: Path, on_liveness: Callable[[Liveness], None]) -> Outcome:
        """How the step ended, once nothing of it is alive.

        `on_liveness` is called when the step is found alive, before it is waited for, and when it can't be looked for.
        Cancelling the wait leaves the step alone.
        """
        ...

    async def stop(self, folder: Path) -> None:
        """Ask the step to end, with its whole process tree; `wait` tells when it did. Asking twice is harmless."""
        ...

    async def release(self, folder: Path) -> None:
        """Let go of what the runner keeps of a step besides its folder: its end is on record now."""
        ...
