"""Processes that are not children of this one: open, signal and wait for them, and find those of a step."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import MappingProxyType


def open_process(pid: int, starttime: int) -> int | None:
    """A pidfd of the process with this pid and start time (field 22 of its stat); None if it has ended."""
    if pid <= 0:
        return None
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    # read after opening: if the pid was reused, both the descriptor and the start time are the new process's
    with suppress(OSError):
        if int(_read_stat(Path(f"/proc/{pid}"))[19]) == starttime:
            return fd
    os.close(fd)
    return None


def age(starttime: int) -> float:
    """Seconds since a process of this start time began, by a clock that can't be set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - starttime / os.sysconf("SC_CLK_TCK")


def send(pidfd: int, number: signal.Signals) -> None:
    """Send a signal to a process, unless it has ended; continue it too, since a stopped one would not act on it."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)
        signal.pidfd_send_signal(pidfd, signal.SIGCONT)


def send_to_all(processes: Mapping[int, int], number: signal.Signals) -> None:
    """Send a signal to processes, given as pid to start time; those of other users don't get it."""
    for pid, starttime in processes.items():
        pidfd = open_process(pid, starttime)
        if pidfd is not None:
            try:
                with suppress(PermissionError):
                    send(pidfd, number)
            finally:
                os.close(pidfd)


async def wait_for_exit(pidfd: int) -> None:
    """Wait until a process has ended."""
    loop = asyncio.get_running_loop()
    exited = asyncio.Event()
    loop.add_reader(pidfd, exited.set)
    try:
        await exited.wait()
    finally:
        loop.remove_reader(pidfd)


def find_marked(variable: str, known: Mapping[int, int] = MappingProxyType({})) -> dict[int, int]:
    """The processes that began with this NAME=VALUE, or a path below it, in their environment; and their descendants.

    Pid to start time. known: processes that an earlier look found, of which those that are alive are found again: a
    descendant without the variable can't be found any more once its parent has ended.
    A process whose first thread has ended looks like a zombie while its other threads go on.
    """
    mark = os.fsencode(variable)
    starttimes: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    marked: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or its environment can't be read by this user
            stat, pid = _read_stat(folder), int(folder.name)
            is_zombie = stat[0] in (b"Z", b"X")
            if is_zombie and int(stat[17]) <= 1:
                continue
            starttimes[pid] = int(stat[19])
            children.setdefault(int(stat[1]), []).append(pid)
            if known.get(pid) == starttimes[pid] or _has_mark(folder, mark, is_zombie=is_zombie):
                marked.append(pid)
    for pid in marked:
        marked.extend(child for child in children.get(pid, ()) if child not in marked)
    return {pid: starttimes[pid] for pid in marked}


def children(pid: int) -> dict[int, int]:
    """The children of a process, pid to start time. Raises OSError, also where this kernel does not list them."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_bytes().split():
        with suppress(OSError):  # it has ended
            found[int(child)] = int(_read_stat(Path(f"/proc/{int(child)}"))[19])
    return found


def without_descendants(processes: Mapping[int, int]) -> dict[int, int]:
    """Those of the processes (pid to start time) whose parent is none of them."""
    roots = {}
    for pid, starttime in processes.items():
        with suppress(OSError):  # it has ended
            if int(_read_stat(Path(f"/proc/{pid}"))[1]) not in processes:
                roots[pid] = starttime
    return roots


async def wait_for_all(processes: Mapping[int, int], seconds: float) -> None:
    """Wait until all processes (pid to start time) have ended, at most `seconds` in sum."""
    with ExitStack() as stack:
        pidfds = []
        for pid, starttime in processes.items():
            pidfd = open_process(pid, starttime)
            if pidfd is not None:
                stack.callback(os.close, pidfd)
                pidfds.append(pidfd)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for pidfd in pidfds:
                    await wait_for_exit(pidfd)


def _has_mark(folder: Path, mark: bytes, *, is_zombie: bool) -> bool:
    """Whether a process began with a variable. is_zombie: its first thread has ended, so another one has to say so."""
    for thread in folder.glob("task/*") if is_zombie else (folder,):
        with suppress(OSError):
            values = (thread / "environ").read_bytes().split(b"\0")
            if any(value == mark or value.startswith(mark + b"/") for value in values):
                return True
    return False


def _read_stat(folder: Path) -> list[bytes]:
    """The fields of a process's stat from its state on. The process's name stands before, and may hold any bytes."""
    return (folder / "stat").read_bytes().rpartition(b")")[2].split()
