"""Processes that are not children of this one: open, signal and wait for them, and find those of a step."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import ExitStack, suppress
from pathlib import Path


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


def send(pidfd: int, number: signal.Signals) -> None:
    """Send a signal to a process, unless it has ended."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


async def wait_for_exit(pidfd: int) -> None:
    """Wait until a process has ended."""
    loop = asyncio.get_running_loop()
    exited = asyncio.Event()
    loop.add_reader(pidfd, exited.set)
    try:
        await exited.wait()
    finally:
        loop.remove_reader(pidfd)


def find_marked(variable: str) -> dict[int, int]:
    """The processes that began with this NAME=VALUE in their environment, and their descendants: pid to start time."""
    starttimes: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    marked: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or its environment can't be read by this user
            stat, pid = _read_stat(folder), int(folder.name)
            if stat[0] in (b"Z", b"X"):
                continue
            starttimes[pid] = int(stat[19])
            children.setdefault(int(stat[1]), []).append(pid)
            if os.fsencode(variable) in (folder / "environ").read_bytes().split(b"\0"):
                marked.append(pid)
    for pid in marked:
        marked.extend(child for child in children.get(pid, ()) if child not in marked)
    return {pid: starttimes[pid] for pid in marked}


async def signal_and_wait(processes: dict[int, int], number: signal.Signals, seconds: float) -> None:
    """Send a signal to processes (pid to start time) and wait until all have ended, at most `seconds` in sum."""
    with ExitStack() as stack:
        pidfds = []
        for pid, starttime in processes.items():
            pidfd = open_process(pid, starttime)
            if pidfd is not None:
                stack.callback(os.close, pidfd)
                pidfds.append(pidfd)
        for pidfd in pidfds:
            with suppress(PermissionError):
                send(pidfd, number)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for pidfd in pidfds:
                    await wait_for_exit(pidfd)


def _read_stat(folder: Path) -> list[bytes]:
    """The fields of a process's stat from its state on. The process's name stands before, and may hold any bytes."""
    return (folder / "stat").read_bytes().rpartition(b")")[2].split()
