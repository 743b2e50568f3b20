"""Processes that are not our children: name one for sure, wait for its end, find those of a step and end them."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import ExitStack, suppress
from pathlib import Path


def of(pid: int, starttime: int) -> int | None:
    """A descriptor of that very process (start time: field 22 of its stat), unless it is gone."""
    if pid <= 0:
        return None
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    # read after opening: if the number was given to another process, the descriptor is that one's and so is the time
    with suppress(OSError):
        if int(_stat(Path(f"/proc/{pid}"))[19]) == starttime:
            return fd
    os.close(fd)
    return None


def send(process: int, number: signal.Signals) -> None:
    """Send a signal to the process behind a descriptor, if it is still there."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(process, number)


async def ended(process: int) -> None:
    """Wait until the process behind a descriptor has ended."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(process, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(process)


def marked(variable: str) -> dict[int, int]:
    """The processes with this NAME=VALUE in the environment they began with, and all below: pid and start time."""
    times: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone meanwhile, or its environment is not ours to read
            stat, pid = _stat(folder), int(folder.name)
            if stat[0] in (b"Z", b"X"):
                continue
            times[pid] = int(stat[19])
            children.setdefault(int(stat[1]), []).append(pid)
            if os.fsencode(variable) in (folder / "environ").read_bytes().split(b"\0"):
                found.append(pid)
    for pid in found:
        found.extend(child for child in children.get(pid, ()) if child not in found)
    return {pid: times[pid] for pid in found}


async def end(processes: dict[int, int], number: signal.Signals, patience: float) -> None:
    """Send a signal to these processes (pid: start time) and give all of them together that long to go."""
    with ExitStack() as stack:
        opened = []
        for pid, starttime in processes.items():
            process = of(pid, starttime)
            if process is not None:
                stack.callback(os.close, process)
                opened.append(process)
        for process in opened:
            with suppress(PermissionError):
                send(process, number)
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                for process in opened:
                    await ended(process)


def _stat(folder: Path) -> list[bytes]:
    """The fields of a process's stat from its state on; what comes before, its name, may hold anything."""
    return (folder / "stat").read_bytes().rpartition(b")")[2].split()
