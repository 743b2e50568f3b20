"""A memory cgroup with a limit of its own, of either version: what the kernel's out-of-memory killer looks at."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.gateway import wait_for
from tests.support.parts import missing

_ROOT = Path("/sys/fs/cgroup")
_WHY = "a memory cgroup of its own needs root and a cgroup tree that may be written to"


class MemoryGroup:
    """Processes that together may have so much memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, pid: int) -> None:
        """Count what this process and its children take from now on."""
        (self._folder / "cgroup.procs").write_text(str(pid))

    @property
    def kills(self) -> int:
        """How many processes the kernel has killed here for want of memory."""
        events = next(
            file for name in ("memory.events", "memory.oom_control") if (file := self._folder / name).exists()
        )
        return next(int(line.split()[1]) for line in events.read_text().splitlines() if line.startswith("oom_kill "))

    def end(self) -> None:
        """End all of it: after a test that failed there is something left."""
        for pid in self._processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not self._processes(), "the end of a memory group")
        self._folder.rmdir()

    def _processes(self) -> list[int]:
        return [int(pid) for pid in (self._folder / "cgroup.procs").read_text().split()]


@contextmanager
def memory_group(limit: int) -> Iterator[MemoryGroup]:
    """A group with this limit in bytes, near this process's own, with nothing of it left; skips where none can be."""
    try:
        folder = _parent() / f"pipeline-gateway-test-{os.getpid()}"
        folder.mkdir()
    except OSError:
        missing(_WHY)
    group = MemoryGroup(folder)
    try:
        try:
            _limit(folder, limit)
        except OSError:
            missing(_WHY)
        yield group
    finally:
        group.end()


def _parent() -> Path:
    """The group nearest to this process's own in which one with a memory limit can be made. Raises OSError."""
    groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    for _, controllers, path in groups:
        if "memory" in controllers.split(","):
            own = _ROOT / "memory" / path.lstrip("/")
            return own if own.exists() else _ROOT / "memory"  # a container may see no more than its own part
    path = next((path for _, controllers, path in groups if not controllers), "/")
    own = _ROOT / path.lstrip("/")
    for folder in (own, *own.parents):
        # one that has processes can't hand the controller on, but a parent may have done so
        if folder.is_relative_to(_ROOT) and "memory" in _text(folder / "cgroup.subtree_control").split():
            return folder
    raise FileNotFoundError("no group hands the memory controller on")


def _limit(folder: Path, limit: int) -> None:
    if (folder / "memory.max").exists():
        (folder / "memory.max").write_text(str(limit))
        swap = folder / "memory.swap.max"
        beyond = 0
    else:
        (folder / "memory.limit_in_bytes").write_text(str(limit))
        swap = folder / "memory.memsw.limit_in_bytes"
        beyond = limit
    if swap.exists():
        swap.write_text(str(beyond))


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""
