"""Where steps run: as detached processes on this host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runners.detached import supervisor as process
from runners.detached.supervisor import OutputTarget
from runners.outcome import Command, NotStarted, Outcome
from runners.runner import Liveness


class LocalRunner:
    """Runs steps on this host, each under a shim of its own.

    output_cap: bytes of output kept for a job.
    """

    def __init__(self, output_cap: int) -> None:
        self._output_cap = output_cap
        self._refused: dict[Path, str] = {}  # failed starts that couldn't be written to the disk

    async def start(self, folder: Path, command: Command) -> None:
        """Start the step, unless this folder's step was ever started. A start that fails is told by `wait`."""
        why = await process.start(folder, command, OutputTarget(folder.parent, self._output_cap))
        if why is not None:
            self._refused[folder] = why

    async def wait(self, folder: Path, on_liveness: Callable[[Liveness], None]) -> Outcome:
        """How the step ended, once nothing of it is alive."""
        why = self._refused.pop(folder, None)
        if why is not None:
            return NotStarted(why)
        return await process.wait(folder, on_liveness)

    async def stop(self, folder: Path) -> None:
        """Ask the step to end, with its whole process tree; `wait` tells when it did. Asking twice is harmless."""
        await process.stop(folder)

    async def release(self, folder: Path) -> None:
        """Nothing is kept of a step but its folder."""
