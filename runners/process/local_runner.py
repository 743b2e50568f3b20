"""Runs steps as detached processes on this host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runners.detached import shim_files, supervisor
from runners.detached.supervisor import OutputTarget
from runners.outcome import Command, NotStarted, Outcome
from runners.runner import Liveness


class LocalRunner:
    """Runs each step under a shim of its own: see Runner.

    output_cap: bytes of output kept for a job.
    """

    def __init__(self, output_cap: int) -> None:
        self._output_cap = output_cap
        self._start_errors: dict[Path, str] = {}  # errors of starts that could not be written to the disk

    async def start(self, folder: Path, command: Command | str, *, begun: bool | None = False) -> None:
        """Start the step, unless it was begun before: see Runner."""
        if begun:
            return
        if isinstance(command, str):
            error: str | None = command
        else:
            output = OutputTarget(folder.parent, self._output_cap)
            error = await supervisor.start(folder, command, output, perhaps_begun=begun is None)
        if error is not None:
            self._start_errors[folder] = error

    async def wait(self, folder: Path, on_liveness: Callable[[Liveness], None]) -> Outcome:
        """The outcome of the step, once no process of it is alive."""
        error = self._start_errors.pop(folder, None)
        if error is not None and not shim_files.has_begun(folder):
            return NotStarted(error)
        return await supervisor.wait(folder, on_liveness)

    async def stop(self, folder: Path) -> None:
        """Request the end of the step and all its processes; `wait` waits for it. A second call changes nothing."""
        await supervisor.stop(folder)

    async def release(self, folder: Path) -> None:
        """Nothing to do: the runner keeps nothing of a step besides its folder."""
