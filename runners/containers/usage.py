"""What a container on this host has used, by its control group.

The kernel keeps the peak and the sum itself, so one reading at the end is exact, and costs nothing before. It is made
when the container's first process ends: the engine removes the group some milliseconds later.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from runners.detached import pidfd

_ROOT = Path("/sys/fs/cgroup")


class UsageWatch:
    """Waits for the end of a container's first process, and then has what the container has used.

    peak_memory: bytes, with the kernel's cache of its files, as a limit of its memory counts them. cpu: seconds.
    None until then, and where that is not known: the engine is on another host or hides its groups, the container ended
    before it was looked at, or this process did not run at the end or was late.
    """

    def __init__(self) -> None:
        self.peak_memory: int | None = None
        self.cpu: float | None = None
        self._pid = 0
        self._task: asyncio.Task[None] | None = None

    def begin(self, container: str, pid: int) -> None:
        """Watch a container, given by its id, whose first process is this one; unless it is watched already."""
        if pid != self._pid:
            self.close()
            self._pid = pid
            self._task = asyncio.create_task(self._read_at_end(container, pid), name=f"usage-{container[:12]}")

    def close(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()

    async def _read_at_end(self, container: str, pid: int) -> None:
        try:
            process = os.pidfd_open(pid)
        except OSError:
            return
        try:
            files = _files(container, pid)  # after opening, so that they belong to the process that is waited for
            if files:
                await pidfd.wait_for_exit(process)
                self._read(files)
        except (OSError, ValueError):
            return
        finally:
            os.close(process)

    def _read(self, files: Mapping[str, Path]) -> None:
        """Read at once, not in a thread: the kernel answers from its memory, and the engine removes the files."""
        for controller, file in files.items():
            with suppress(OSError, ValueError):
                text = file.read_text("ascii")
                if controller == "memory":
                    self.peak_memory = int(text)
                else:
                    self.cpu = _cpu_seconds(text)


def _files(container: str, pid: int) -> dict[str, Path]:
    """The files of a container's own group, by controller; none where the process is not the container's."""
    text = Path(f"/proc/{pid}/cgroup").read_text("utf-8")
    found = {controller: group_file(text, container, controller) for controller in ("cpuacct", "memory")}
    return {controller: file for controller, file in found.items() if file is not None}


def group_file(text: str, container: str, controller: str) -> Path | None:
    """The file that says what a container has used: `memory` or `cpuacct`, None where the group is not its own.

    text: of /proc/PID/cgroup, of either version: `5:cpu,cpuacct:/docker/ID`, or `0::/system.slice/docker-ID.scope`.
    """
    groups = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), path.lstrip("/")))
    version, name = (1, controller) if controller in groups else (2, "")
    path = groups.get(name, "")
    if container not in path:
        return None
    if version == 2:
        return _ROOT / path / ("memory.peak" if controller == "memory" else "cpu.stat")
    return _ROOT / controller / path / ("memory.max_usage_in_bytes" if controller == "memory" else "cpuacct.usage")


def _cpu_seconds(text: str) -> float:
    """From cpuacct.usage, in nanoseconds, or from the first line of cpu.stat, in microseconds."""
    name, _, value = text.partition("\n")[0].rpartition(" ")
    return int(value) / (1e6 if name else 1e9)
