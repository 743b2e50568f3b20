"""Starts and stops the shim of a step, and waits for it.

All state is in the files of the step's folder, so a later process can go on where an earlier one was killed. A flock
tells whether the shim is alive: the kernel releases it at any death and at a reboot, while a pid may be reused.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from runners import durable
from runners.detached import pidfd, shim_files
from runners.detached.shim_files import ShimProcess
from runners.outcome import NOTHING_STOPPED, Command, Lost, NotStarted, Outcome, Span, StopReport, TimedOut
from runners.runner import Liveness

# Each process of a step has the step's folder in this variable, so /proc finds it after its shim was killed.
# (An inherited lock does not: Python's subprocess closes inherited descriptors.)
MARKER = "PIPELINE_GATEWAY_STEP"

_SHIM = str(Path(__file__).parents[1] / "shim.py")
_LAUNCHED = (0, 75, 76)  # exit codes of the shim's launcher if the step has a shim now, or had one
_MAX_LAUNCHES = 3
_LAUNCH_TIME = 5.0  # seconds in which a shim writes `started`
_POLL_INTERVAL = 0.05  # seconds between two looks at a shim that can't be opened yet, or that is about to end
_RETRY_DELAY = 1.0  # seconds
_CONTINUE_INTERVAL = 5.0  # seconds after which a shim that may have been stopped is continued
_LOOK_INTERVAL = 1.0  # seconds between two looks for processes that are to end
_REMEDY = "look at its output and trigger it again"


@dataclass(frozen=True, slots=True)
class OutputTarget:
    """The ring of a step's output, in `folder`; it keeps `cap` bytes.

    skip: bytes at the beginning of the output that the ring has already; None for an output that begins a new line.
    flush: whether the bytes that the masker holds back at the end of the output are written.
    """

    folder: Path
    cap: int
    skip: int | None = None
    flush: bool = True


async def start(folder: Path, command: Command, output: OutputTarget, *, perhaps_begun: bool = False) -> str | None:
    """Start the step in `folder`, unless it was begun before.

    perhaps_begun: it may run although its files were removed, so its processes are looked for.
    A failure is written into the folder, for `wait`. Returns the failure if it could not be written.
    """
    # in a thread, because it syncs files and waits for a process, and because cancellation must not interrupt it
    return await asyncio.to_thread(_start, folder, command, output, perhaps_begun)


def _start(folder: Path, command: Command, output: OutputTarget, perhaps_begun: bool) -> str | None:
    folder = folder.absolute()
    try:
        if not ((perhaps_begun and _was_alive(folder)) or shim_files.has_begun(folder)):
            command.check()
            _prepare(folder, command, output)
            _launch(folder, command)
    except (OSError, ValueError) as error:  # UnicodeEncodeError is a ValueError
        why = command.mask.text(f"the step could not be started: {error}; remove the cause and trigger it again")
    else:
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "refused").write_text(why, "utf-8", "replace")
    except OSError:
        return why
    return None


def _was_alive(folder: Path) -> bool:
    """Whether the step has living processes, although no file says so. A new shim gets the time to write `started`."""
    late = time.monotonic() + _LAUNCH_TIME
    found = False
    while not shim_files.has_begun(folder) and _find_processes(folder):
        found = True  # even if they end now, they may have been those of the step
        if time.monotonic() >= late:
            break
        time.sleep(_POLL_INTERVAL)
    return found


def _prepare(folder: Path, command: Command, output: OutputTarget) -> None:
    """Make the folder and its spec.json durable before the step starts."""
    spec = {
        "v": 1,
        "argvs": command.argvs,
        "cwd": command.cwd,
        "environment": sorted(command.environment),
        "interrupt": int(command.interrupt),
        "grace": command.grace,
        "time_limit": command.time_limit,
        "output": str(output.folder.absolute()),
        "output_cap": output.cap,
        "output_skip": output.skip,
        "output_rest": output.flush,
    }
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "refused").unlink(missing_ok=True)
    durable.write(folder / "spec.json", spec)
    for directory in (folder.parent, folder.parent.parent):
        durable.sync(directory)


def _launch(folder: Path, command: Command) -> None:
    """Run the shim's launcher, which exits as soon as the shim is detached. Raises OSError if there is no shim."""
    argv = [sys.executable, "-I", "-S", "-X", "utf8", _SHIM, str(folder)]
    environment = {**command.environment, MARKER: str(folder)}
    code, error = -1, b""
    for _ in range(_MAX_LAUNCHES):
        # a complete file, not a pipe: if the gateway is killed now, the shim must not start without the secrets to mask
        with command.mask.memory_file() as mask_file:
            done = subprocess.run(
                argv,
                env=environment,
                stdin=mask_file,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
                check=False,
            )
        code, error = done.returncode, done.stderr
        # a launcher that was killed may have left a shim; the next one finds that out and makes no second one
        if code >= 0:
            break
    if code not in _LAUNCHED:
        lines = error.decode(errors="replace").strip().splitlines() or ["it gave no reason"]
        raise OSError(f"its supervisor ended with code {code}: {lines[-1]}")


async def wait(folder: Path, on_liveness: Callable[[Liveness], None]) -> Outcome:
    """The outcome of the step, once no process of it is alive. Cancelling this leaves the step alone."""
    while True:
        try:
            outcome = await _wait_once(folder, on_liveness)
        except OSError:  # out of descriptors, for example: no fact about the step
            await asyncio.sleep(_RETRY_DELAY)
            continue
        if outcome is not None:
            return outcome


async def _wait_once(folder: Path, on_liveness: Callable[[Liveness], None]) -> Outcome | None:
    """Wait for the shim if it is alive, and return None; otherwise return the outcome. Raises OSError."""
    if outcome := shim_files.read_outcome(folder):
        return outcome
    shim = shim_files.read_started(folder)
    if shim_files.is_locked(folder):
        await _wait_for_shim(folder, shim, on_liveness)
        return None
    # the shim may have written the outcome and released the lock since the first look
    if outcome := shim_files.read_outcome(folder):
        return outcome
    if shim is None and (why := shim_files.read_refusal(folder)) is not None:
        return NotStarted(why)
    if shim is not None and shim.boot and shim_files.boot() not in ("", shim.boot):
        return Lost(f"the host was rebooted while it ran, so its end is unknown; {_REMEDY}")
    report = await end_processes(folder, on_liveness)
    if shim is not None and shim_files.read_json(folder / "overdue") is not None:
        span = Span(shim.time, time.time(), pidfd.age(shim.starttime))
        return TimedOut(-1, span, report or NOTHING_STOPPED)
    why = "its supervisor was killed" if shim is not None else "its files were removed"
    return Lost(f"{why}, so its end is unknown, and its remaining processes were stopped; {_REMEDY}", report)


async def _wait_for_shim(folder: Path, shim: ShimProcess | None, on_liveness: Callable[[Liveness], None]) -> None:
    """Wait until the shim has ended, or for a moment if it can't be opened.

    A shim that was stopped (`kill -STOP $PPID` in its step) could neither heed a request nor the time limit: it is
    continued. One that has not ended its step long after the time limit is killed, and `wait` ends the step.
    """
    shim_fd = None if shim is None else pidfd.open_process(shim.pid, shim.starttime)
    if shim_fd is None:
        if shim is None or shim.pid == 0:  # `started` is damaged, or not written completely yet
            on_liveness(Liveness.SUPERVISED)
        await asyncio.sleep(_POLL_INTERVAL)
        return
    try:
        on_liveness(Liveness.SUPERVISED)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CONTINUE_INTERVAL):
                    await pidfd.wait_for_exit(shim_fd)
                    return
            # not by the wall clock, which may be set: so a next gateway measures the same
            longest = await asyncio.to_thread(shim_files.read_longest, folder)
            if shim is not None and pidfd.age(shim.starttime) >= longest:
                await asyncio.to_thread(_overrule, folder, shim, shim_fd)
            else:
                pidfd.send(shim_fd, signal.SIGCONT)
                if shim is not None:
                    await asyncio.to_thread(_note_adopted, folder, shim)
    finally:
        os.close(shim_fd)


def _overrule(folder: Path, shim: ShimProcess, shim_fd: int) -> None:
    """Kill a shim that does not end its step. What the step has is written down before: see `end_processes`."""
    with suppress(OSError):  # the folder was removed, or the disk is full: the outcome is Lost
        processes = _find_processes(folder)
        processes.pop(shim.pid, None)
        durable.write(folder / "orphans", processes)
        durable.write(folder / "overdue", {})
    pidfd.send(shim_fd, signal.SIGKILL)


def _note_adopted(folder: Path, shim: ShimProcess) -> None:
    """Write down the children of a shim, if it has others than the one that it started.

    They have lost their parent. If the shim is killed too, nothing else leads to those without the marker.
    """
    with suppress(OSError):  # as above
        children = pidfd.children(shim.pid)
        if len(children) > 1 and not children.items() <= shim_files.read_orphans(folder).items():
            durable.write(folder / "orphans", children)


async def stop(folder: Path) -> None:
    """Request the end of the step from its shim, if that is alive."""
    while True:
        try:
            if await asyncio.to_thread(_request_end, folder):
                return
        except OSError:
            await asyncio.sleep(_RETRY_DELAY)
        else:
            await asyncio.sleep(_POLL_INTERVAL)


def _request_end(folder: Path) -> bool:
    """Send SIGTERM to the shim, if it is alive; False if it is alive and can't be found yet. Raises OSError.

    Where `started` does not lead to the shim, its environment does: it is the parent of all processes of the step.
    """
    shim, is_locked = shim_files.read_started(folder), shim_files.is_locked(folder)
    shim_fd = pidfd.open_process(shim.pid, shim.starttime) if shim is not None and is_locked else None
    if shim_fd is None:
        found = pidfd.without_descendants(_find_processes(folder))
        pidfd.send_to_all(found, signal.SIGTERM)
        return bool(found) or not is_locked
    try:
        pidfd.send(shim_fd, signal.SIGTERM)
    finally:
        os.close(shim_fd)
    return True


async def end_processes(folder: Path, on_liveness: Callable[[Liveness], None]) -> StopReport | None:
    """End the processes of a step that has no shim which would do it: SIGTERM to each, SIGKILL after the grace.

    Those that were found are written down before any of them is ended: with their parents gone, nothing else leads to
    those without the marker. Returns what was ended, now or by an earlier call; None if there was nothing.
    """
    known = shim_files.read_orphans(folder)
    grace, began, kill_at = shim_files.read_grace(folder), time.monotonic(), math.inf
    sent: list[str] = []
    alive: dict[int, int] = {}
    ended: dict[int, int] = {}
    while found := await asyncio.to_thread(_find_processes, folder, known):
        if not sent:
            on_liveness(Liveness.ORPHANED)
        if not found.items() <= known.items():
            known |= found
            with suppress(OSError):  # the folder was removed, or the disk is full
                await asyncio.to_thread(durable.write, folder / "orphans", known)
        number = signal.SIGKILL if time.monotonic() >= kill_at else signal.SIGTERM
        new = dict(found.items() - alive.items())
        if number.name not in sent:
            sent.append(number.name)
        pidfd.send_to_all(found if number is signal.SIGKILL else new, number)
        if math.isinf(kill_at):  # not before: the look may take longer than a short grace
            kill_at = time.monotonic() + grace
        alive = found
        ended |= found
        await pidfd.wait_for_all(found, _LOOK_INTERVAL)
    file = folder / "stopped"
    if not sent:
        return shim_files.read_report(file)
    report = StopReport(tuple(sent), round(time.monotonic() - began, 3), len(ended))
    with suppress(OSError):  # as above
        await asyncio.to_thread(shim_files.write_report, file, report)
    return report


def _find_processes(folder: Path, known: Mapping[int, int] = MappingProxyType({})) -> dict[int, int]:
    return pidfd.find_marked(f"{MARKER}={folder.absolute()}", known)
