"""Starts, re-attaches to and stops the shim of a step.

Whoever asks need not be the process that started it: everything is told by the files of the step's folder.
A flock is the truth about whether the shim is alive: it is let go at any death and at a reboot, whatever a pid says.
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

# Every process of a step carries its folder in its environment, so it is found in /proc when its shim was killed.
# (A lock that the step inherits would not do: Python's subprocess closes descriptors, and so do wrappers.)
MARKER = "PIPELINE_GATEWAY_STEP"

_SHIM = str(Path(__file__).parents[1] / "shim.py")
_HAS_ONE = (0, 75, 76)  # what the shim exits with when the step has a supervisor, or had one
_LAUNCHES = 3
_SOON = 0.05  # seconds until a look at what no descriptor tells
_LATER = 1.0


@dataclass(frozen=True, slots=True)
class OutputTarget:
    """Where a step's output goes: the ring in `folder`, which keeps `cap` bytes.

    skip: what comes first and is left out, since the ring has it, bytes. None: it begins, on a line of its own.
    rest: whether what may begin a secret is written too where nothing comes after it.
    """

    folder: Path
    cap: int
    skip: int | None = None
    rest: bool = True


@dataclass(frozen=True, slots=True)
class _Started:
    """Who supervises the step; pid 0 while that is not readable."""

    pid: int
    starttime: int
    boot: str


async def start(folder: Path, command: Command, output: OutputTarget) -> str | None:
    """Start the step in `folder` unless it was ever started.

    A failure is written into the folder, for `wait`; what is returned is a failure that couldn't be written.
    """
    # in a thread: it syncs files and waits for a process; and a cancelled caller leaves no half-made start behind
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
    """Write the spec so that a power cut can't take it, or the folder, away from a step that was started."""
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
        "output_rest": output.rest,
    }
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    durable.write(folder / "spec.json", spec)
    for directory in (folder.parent, folder.parent.parent):
        durable.sync(directory)


def _launch(folder: Path, command: Command) -> None:
    """Run the shim's launcher, which ends as soon as the shim stands on its own."""
    argv = [sys.executable, "-I", "-S", "-X", "utf8", _SHIM, str(folder)]
    environment = {**command.environment, MARKER: str(folder)}
    code, said = -1, b""
    for _ in range(_LAUNCHES):
        # whole before anybody reads it: a gateway that is killed now must not leave a step that shows its secrets
        with command.mask.memory_file() as secrets:
            done = subprocess.run(
                argv,
                env=environment,
                stdin=secrets,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
                check=False,
            )
        code, said = done.returncode, done.stderr
        # A launcher that was killed may have left a shim or not; the next one finds out, and never makes a second.
        if code >= 0:
            break
    if code not in _HAS_ONE:
        why = said.decode(errors="replace").strip().splitlines() or ["it gave no reason"]
        raise OSError(f"its supervisor ended with code {code}: {why[-1]}")


async def wait(folder: Path, on_liveness: Callable[[Liveness], None]) -> Outcome:
    """How the step ended, once nothing of it is alive; cancelling leaves it alone."""
    while True:
        try:
            outcome = await _look(folder, on_liveness)
        except OSError:  # out of descriptors, say: what can't be looked at is not decided
            await asyncio.sleep(_LATER)
            continue
        if outcome is not None:
            return outcome


async def _look(folder: Path, on_liveness: Callable[[Liveness], None]) -> Outcome | None:
    """One round of `wait`; None if the supervisor was alive."""
    if outcome := _ended(folder):
        return outcome
    started = _started(folder)
    if started is None:
        return NotStarted(_refusal(folder))
    if _held(folder):
        supervisor = pidfd.of(started.pid, started.starttime)
        if supervisor is None:
            await asyncio.sleep(_SOON)  # it is just being born, or dying
        else:
            try:
                on_liveness(Liveness.SUPERVISED)
                await pidfd.ended(supervisor)
            finally:
                os.close(supervisor)
        return None
    # it may have written the end and let go since the first look
    return _ended(folder) or await _lost(folder, started, on_liveness)


async def stop(folder: Path) -> None:
    """Ask the shim, if it is alive, to end its step."""
    while True:
        try:
            if _asked(folder):
                return
        except OSError:
            await asyncio.sleep(_LATER)
        else:
            await asyncio.sleep(_SOON)


def _asked(folder: Path) -> bool:
    """Done with asking; false if there is a supervisor that can't be named yet."""
    started = _started(folder)
    if started is None or not _held(folder):
        return True
    supervisor = pidfd.of(started.pid, started.starttime)
    if supervisor is None:
        return False
    try:
        pidfd.send(supervisor, signal.SIGTERM)
    finally:
        os.close(supervisor)
    return True


async def _lost(folder: Path, started: _Started, on_liveness: Callable[[Liveness], None]) -> Lost:
    """The supervisor is gone without a word: end what it left, then say so."""
    if started.boot and _boot() not in ("", started.boot):
        return Lost(
            "the host was rebooted while it ran, so nobody knows how it would have ended; "
            "look at its output and trigger it again"
        )
    found = await asyncio.to_thread(_alive, folder)
    if found:
        on_liveness(Liveness.ORPHANED)
        await pidfd.end(found, signal.SIGTERM, _grace(folder))
    while found := await asyncio.to_thread(_alive, folder):
        await pidfd.end(found, signal.SIGKILL, _LATER)
    return Lost(
        "its supervisor was killed, so nobody saw how it ended, and what was left of it was stopped; "
        "look at its output and trigger it again"
    )


def _alive(folder: Path) -> dict[int, int]:
    return pidfd.marked(f"{MARKER}={folder.absolute()}")


def _held(folder: Path) -> bool:
    """Whether a shim is alive. Only to be asked once `started` exists: before that, the look would be in its way."""
    try:
        with (folder / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass  # a copy of the folder, say, without its empty files
    return False


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON file of the folder: None if there is none, empty if it is not (yet) whole."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _started(folder: Path) -> _Started | None:
    record = _read(folder / "started")
    if record is None:
        return None
    try:
        return _Started(int(record["pid"]), int(record["starttime"]), str(record["boot"]))
    except (KeyError, TypeError, ValueError):  # not whole (yet)
        return _Started(0, 0, "")


def _grace(folder: Path) -> float:
    try:
        return float((_read(folder / "spec.json") or {})["grace"])
    except (KeyError, TypeError, ValueError):
        return 0.0


def _refusal(folder: Path) -> str:
    try:
        return (folder / "refused").read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return "it was never started"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def record(folder: Path) -> Mapping[str, Any]:
    """What the shim wrote at the end of its step, empty while there is none. Raises OSError."""
    return _read(folder / "exit") or {}


def _ended(folder: Path) -> Outcome | None:
    """The outcome that the shim wrote, if it did; what is not as it wrote it says nothing."""
    with suppress(KeyError, TypeError):
        return _outcome(record(folder))
    return None


def _outcome(end: Mapping[str, Any]) -> Outcome:
    span = Span(end["started"], end["finished"], end["duration"])
    code, number = end["code"], end["signal"]
    if end["error"] is not None:
        return NotStarted(end["error"], None, span)
    if end["stopped"] is not None:
        left = code if code is not None else 128 + number if number is not None else -1
        return Stopped(left, span) if end["stopped"] == "asked" else TimedOut(left, span)
    return Exited(code, span) if code is not None else Killed(number, span)
