"""Starts and stops the shim of a step, and waits for it.

All state is in the files of the step's folder, so a later process can go on where an earlier one was killed. A flock
tells whether the shim is alive: the kernel releases it at any death and at a reboot, while a pid may be reused.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
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
_POLL_INTERVAL = 0.05  # seconds between two looks at a shim that can't be opened yet, or that is about to end
_RETRY_DELAY = 1.0  # seconds


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
    """The shim of a step. pid: 0 while the file is incomplete. boot: id of the host's boot, empty if unknown."""

    pid: int
    starttime: int
    boot: str


async def start(folder: Path, command: Command, output: OutputTarget) -> str | None:
    """Start the step in `folder`, unless it was started before.

    A failure is written into the folder, for `wait`. Returns the failure if it could not be written.
    """
    # in a thread, because it syncs files and waits for a process, and because cancellation must not interrupt it
    return await asyncio.to_thread(_start, folder, command, output)


def _start(folder: Path, command: Command, output: OutputTarget) -> str | None:
    folder = folder.absolute()
    try:
        if not (folder / "started").exists():
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
    if shim is None:
        return NotStarted(_read_refusal(folder))
    if _is_locked(folder):
        shim_fd = pidfd.open_process(shim.pid, shim.starttime)
        if shim_fd is None:
            await asyncio.sleep(_POLL_INTERVAL)  # it has not written `started` completely, or is about to exit
        else:
            try:
                on_liveness(Liveness.SUPERVISED)
                await pidfd.wait_for_exit(shim_fd)
            finally:
                os.close(shim_fd)
        return None
    # the shim may have written the outcome and released the lock since the first look
    return _read_outcome(folder) or await _end_lost_step(folder, shim, on_liveness)


async def stop(folder: Path) -> None:
    """Request the end of the step from its shim, if that is alive."""
    while True:
        try:
            if _signal_shim(folder):
                return
        except OSError:
            await asyncio.sleep(_RETRY_DELAY)
        else:
            await asyncio.sleep(_POLL_INTERVAL)


def _signal_shim(folder: Path) -> bool:
    """Send SIGTERM to the shim, if it is alive; False if it is alive and can't be opened yet. Raises OSError."""
    shim = _read_started(folder)
    if shim is None or not _is_locked(folder):
        return True
    shim_fd = pidfd.open_process(shim.pid, shim.starttime)
    if shim_fd is None:
        return False
    try:
        pidfd.send(shim_fd, signal.SIGTERM)
    finally:
        os.close(shim_fd)
    return True


async def _end_lost_step(folder: Path, shim: _ShimProcess, on_liveness: Callable[[Liveness], None]) -> Lost:
    """End the processes of a step whose shim died without writing an outcome."""
    if shim.boot and _boot() not in ("", shim.boot):
        return Lost(
            "the host was rebooted while it ran, so its end is unknown; look at its output and trigger it again"
        )
    processes = await asyncio.to_thread(_live_processes, folder)
    if processes:
        on_liveness(Liveness.ORPHANED)
        await pidfd.signal_and_wait(processes, signal.SIGTERM, _read_grace(folder))
    while processes := await asyncio.to_thread(_live_processes, folder):
        await pidfd.signal_and_wait(processes, signal.SIGKILL, _RETRY_DELAY)
    return Lost(
        "its supervisor was killed, so its end is unknown, and its remaining processes were stopped; "
        "look at its output and trigger it again"
    )


def _live_processes(folder: Path) -> dict[int, int]:
    return pidfd.find_marked(f"{MARKER}={folder.absolute()}")


def _is_locked(folder: Path) -> bool:
    """Whether a shim is alive. Call it only once `started` exists: before that, it could keep a shim from the lock."""
    try:
        with (folder / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass  # the folder is a copy without empty files, for example
    return False


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file of the folder: None without the file, empty if the file is incomplete."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _read_started(folder: Path) -> _ShimProcess | None:
    content = _read_json(folder / "started")
    if content is None:
        return None
    try:
        return _ShimProcess(int(content["pid"]), int(content["starttime"]), str(content["boot"]))
    except (KeyError, TypeError, ValueError):  # incomplete
        return _ShimProcess(0, 0, "")


def _read_grace(folder: Path) -> float:
    try:
        return float((_read_json(folder / "spec.json") or {})["grace"])
    except (KeyError, TypeError, ValueError):
        return 0.0


def _read_refusal(folder: Path) -> str:
    try:
        return (folder / "refused").read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return "it was never started"


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
    span = Span(record["started"], record["finished"], record["duration"])
    code, number = record["code"], record["signal"]
    if record["error"] is not None:
        return NotStarted(record["error"], None, span)
    if record["stopped"] is not None:
        exit_code = code if code is not None else 128 + number if number is not None else -1
        return Stopped(exit_code, span) if record["stopped"] == "asked" else TimedOut(exit_code, span)
    return Exited(code, span) if code is not None else Killed(number, span)
