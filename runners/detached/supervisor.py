"""Starts and stops the shim of a step, and waits for it.

All state is in the files of the step's folder, so a later process can go on where an earlier one was killed. A flock
tells whether the shim is alive: the kernel releases it at any death and at a reboot, while a pid may be reused.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
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
from typing import Any

from runners import durable
from runners.detached import pidfd
from runners.outcome import Command, Exited, Killed, Lost, NotStarted, Outcome, Span, Stopped, TimedOut
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
_OVERDUE = 60.0  # seconds after which the end of a step is overdue: its shim should have ended it by then
_LOOK_INTERVAL = 1.0  # seconds between two looks for processes that are to end
_REMEDY = "look at its output and trigger it again"
_DEFAULT_GRACE = 10.0  # seconds, where the spec is damaged or gone


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


@dataclass(frozen=True, slots=True)
class _ShimProcess:
    """The shim of a step. pid: 0 while the file is incomplete. boot: id of the host's boot, empty if unknown.

    time: when it started, epoch seconds.
    """

    pid: int
    starttime: int
    boot: str
    time: float = 0.0


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
        if not ((perhaps_begun and _was_alive(folder)) or has_begun(folder)):
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


def has_begun(folder: Path) -> bool:
    """Whether a file says that a shim began the step: `started`, or `exit`, which the shim makes just before."""
    return any(os.path.exists(folder / name) for name in ("started", "exit"))  # noqa: PTH110, never an OSError


def _was_alive(folder: Path) -> bool:
    """Whether the step has living processes, although no file says so. A new shim gets the time to write `started`."""
    late = time.monotonic() + _LAUNCH_TIME
    found = False
    while not has_begun(folder) and _find_processes(folder):
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
    if outcome := _read_outcome(folder):
        return outcome
    shim = _read_started(folder)
    if _is_locked(folder):
        await _wait_for_shim(folder, shim, on_liveness)
        return None
    # the shim may have written the outcome and released the lock since the first look
    if outcome := _read_outcome(folder):
        return outcome
    if shim is None and (why := _read_refusal(folder)) is not None:
        return NotStarted(why)
    if shim is not None and shim.boot and _boot() not in ("", shim.boot):
        return Lost(f"the host was rebooted while it ran, so its end is unknown; {_REMEDY}")
    await end_processes(folder, on_liveness)
    if shim is not None and _read_json(folder / "overdue") is not None:
        return TimedOut(-1, Span(shim.time, time.time(), pidfd.age(shim.starttime)))
    why = "its supervisor was killed" if shim is not None else "its files were removed"
    return Lost(f"{why}, so its end is unknown, and its remaining processes were stopped; {_REMEDY}")


async def _wait_for_shim(folder: Path, shim: _ShimProcess | None, on_liveness: Callable[[Liveness], None]) -> None:
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
            if shim is not None and pidfd.age(shim.starttime) >= await asyncio.to_thread(_read_longest, folder):
                await asyncio.to_thread(_overrule, folder, shim_fd)
            else:
                pidfd.send(shim_fd, signal.SIGCONT)
    finally:
        os.close(shim_fd)


def _overrule(folder: Path, shim_fd: int) -> None:
    """Kill a shim that does not end its step. What the step has is written down before: see `end_processes`."""
    with suppress(OSError):  # the folder was removed, or the disk is full: the outcome is Lost
        durable.write(folder / "orphans", _find_processes(folder))
        durable.write(folder / "overdue", {})
    pidfd.send(shim_fd, signal.SIGKILL)


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
    shim, is_locked = _read_started(folder), _is_locked(folder)
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


async def end_processes(folder: Path, on_liveness: Callable[[Liveness], None]) -> None:
    """End the processes of a step that has no shim which would do it: SIGTERM to each, SIGKILL after the grace.

    Those that were found are written down before any of them is ended: with their parents gone, nothing else leads to
    those without the marker.
    """
    known = _read_orphans(folder)
    kill_at = time.monotonic() + _read_grace(folder)
    signalled: dict[int, int] = {}
    while found := await asyncio.to_thread(_find_processes, folder, known):
        if not signalled:
            on_liveness(Liveness.ORPHANED)
        if found != known:
            with suppress(OSError):  # the folder was removed, or the disk is full
                await asyncio.to_thread(durable.write, folder / "orphans", found)
        is_late = time.monotonic() >= kill_at
        new = dict(found.items() - signalled.items())
        pidfd.send_to_all(found if is_late else new, signal.SIGKILL if is_late else signal.SIGTERM)
        known = signalled = found
        await pidfd.wait_for_all(found, _LOOK_INTERVAL)


def _find_processes(folder: Path, known: Mapping[int, int] = MappingProxyType({})) -> dict[int, int]:
    return pidfd.find_marked(f"{MARKER}={folder.absolute()}", known)


def _read_orphans(folder: Path) -> dict[int, int]:
    try:
        return {int(pid): int(starttime) for pid, starttime in (_read_json(folder / "orphans") or {}).items()}
    except (TypeError, ValueError):  # damaged
        return {}


def _is_locked(folder: Path) -> bool:
    """Whether a shim is alive."""
    try:
        with durable.open_regular(folder / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if durable.may_pass(error):
            raise
        # the folder is a copy without empty files, for example
    return False


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file of the folder: None without the file, empty if it is damaged. Raises OSError.

    A file that can't be read, such as a folder in its place, is damaged, unless the error may pass.
    """
    try:
        value = json.loads(durable.read_bytes(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if durable.may_pass(error):
            raise
        return {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _read_started(folder: Path) -> _ShimProcess | None:
    content = _read_json(folder / "started")
    if content is None:
        return None
    try:
        started = float(content.get("time", 0.0))
        return _ShimProcess(int(content["pid"]), int(content["starttime"]), str(content["boot"]), started)
    except (KeyError, TypeError, ValueError):  # incomplete
        return _ShimProcess(0, 0, "")


def _read_grace(folder: Path) -> float:
    try:
        return float((_read_json(folder / "spec.json") or {})["grace"])
    except (KeyError, TypeError, ValueError):
        return _DEFAULT_GRACE


def _read_longest(folder: Path) -> float:
    """Seconds from a shim's start after which the end of its step is overdue; no number where the spec is damaged."""
    spec = _read_json(folder / "spec.json") or {}
    try:
        return float(spec["time_limit"]) + 2 * float(spec["grace"]) + _OVERDUE
    except (KeyError, TypeError, ValueError):
        return math.inf


def _read_refusal(folder: Path) -> str | None:
    """Why the step could not be started; None if it was not refused."""
    try:
        return durable.read_bytes(folder / "refused").decode("utf-8", "replace")
    except OSError as error:
        if durable.may_pass(error):
            raise
        return None


def _boot() -> str:
    """The id of the host's boot, empty if it can't be read."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def exit_record(folder: Path) -> Mapping[str, Any]:
    """The object that the shim writes at the end of its step; empty before. Raises OSError."""
    return _read_json(folder / "exit") or {}


def _read_outcome(folder: Path) -> Outcome | None:
    """The outcome that the shim wrote; None if it has written none, or not completely."""
    with suppress(KeyError, TypeError):
        return _outcome(exit_record(folder))
    return None


def _outcome(record: Mapping[str, Any]) -> Outcome:
    times = record["started"], record["finished"], record["duration"]
    span = Span(*times, record.get("peak_memory"), record.get("cpu"))
    code, number = record["code"], record["signal"]
    if record["error"] is not None:
        return NotStarted(record["error"], None, span)
    if record["stopped"] is not None:
        exit_code = code if code is not None else 128 + number if number is not None else -1
        return Stopped(exit_code, span) if record["stopped"] == "asked" else TimedOut(exit_code, span)
    return Exited(code, span) if code is not None else Killed(number, span)
