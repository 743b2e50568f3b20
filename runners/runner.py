"""The protocol of all runners: start a step, wait for it, stop it, release it."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Protocol

from runners.outcome import Command, Outcome


class Liveness(Enum):
    """A step that has not ended: it has a supervisor, has lost its supervisor, or its engine is unreachable."""

    SUPERVISED = "supervised"
    ORPHANED = "orphaned"
    UNREACHABLE = "unreachable"


class Runner(Protocol):
    """Runs steps that outlive the process which started them.

    A step's folder is its durable identity: each method takes it, and each call may be made by another process than
    the call before. No method raises anything but CancelledError.
    """

    async def start(self, folder: Path, command: Command | str, *, begun: bool | None = False) -> None:
        """Start the step, unless it was begun before. `wait` returns the outcome of a failed start.

        command: a sentence where the step has none, which says why. begun: True where it was begun for certain,
        whatever the folder has, since its files may have been removed; None where the record does not tell, since the
        process that began it was killed.
        """
        ...

    async def wait(self, folder: Path, on_liveness: Callable[[Liveness], None]) -> Outcome:
        """The outcome of the step, once no process of it is alive. Cancelling this leaves the step alone.

        on_liveness: called when the step is found alive, before it is waited for, and when that can't be found out.
        """
        ...

    async def stop(self, folder: Path) -> None:
        """Request the end of the step and all its processes; `wait` waits for it. A second call changes nothing."""
        ...

    async def release(self, folder: Path) -> None:
        """Drop what the runner keeps of a step besides its folder. Call it once the outcome is recorded."""
        ...
