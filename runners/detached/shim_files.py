"""The files in a step's folder by which its shim, and the gateway before, say what became of the step.

Any of them may be missing, incomplete or damaged: a host may lose its power at any moment.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runners import durable
from runners.outcome import Exited, Killed, NotStarted, Outcome, Span, Stopped, StopReport, TimedOut

_OVERDUE = 60.0  # seconds after which the end of a step is overdue: its shim should have ended it by then
_DEFAULT_GRACE = 10.0  # seconds, where the spec is damaged or gone


@dataclass(frozen=True, slots=True)
class ShimProcess:
    """The shim of a step. pid: 0 while the file is incomplete. boot: id of the host's boot, empty if unknown.

    time: when it started, epoch seconds.
    """

    pid: int
    starttime: int
    boot: str
    time: float = 0.0


def has_begun(folder: Path) -> bool:
    """Whether a file says that a shim began the step: `started`, or `exit`, which the shim makes just before."""
    return any(os.path.exists(folder / name) for name in ("started", "exit"))  # noqa: PTH110, never an OSError


def read_orphans(folder: Path) -> dict[int, int]:
    """The processes that had lost their shim when a gateway began to end them, pid to start time. Raises OSError."""
    try:
        return {int(pid): int(starttime) for pid, starttime in (read_json(folder / "orphans") or {}).items()}
    except (TypeError, ValueError):  # damaged
        return {}


def read_report(file: Path) -> StopReport | None:
    """What `write_report` wrote; None if it has written nothing, or not completely. Raises OSError."""
    return _report(read_json(file) or {})


def write_report(file: Path, report: StopReport) -> None:
    """Write down how the processes that had lost their shim were ended. Raises OSError."""
    numbers = [int(signal.Signals[name]) for name in report.signals]
    durable.write(file, {"signals": numbers, "seconds": report.seconds, "processes": report.processes})


def _report(record: Mapping[str, Any] | None) -> StopReport | None:
    """The report of a record; None without one, as in the records of older shims."""
    try:
        record = record or {}
        names = tuple(signal.Signals(number).name for number in record["signals"])
        return StopReport(names, float(record["seconds"]), int(record["processes"]))
    except (KeyError, TypeError, ValueError):
        return None


def is_locked(folder: Path) -> bool:
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


def read_json(path: Path) -> dict[str, Any] | None:
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


def read_started(folder: Path) -> ShimProcess | None:
    """The shim that began the step; None if none has. Raises OSError."""
    content = read_json(folder / "started")
    if content is None:
        return None
    try:
        started = float(content.get("time", 0.0))
        return ShimProcess(int(content["pid"]), int(content["starttime"]), str(content["boot"]), started)
    except (KeyError, TypeError, ValueError):  # incomplete
        return ShimProcess(0, 0, "")


def read_grace(folder: Path) -> float:
    """Seconds between the signals of a stop. Raises OSError."""
    try:
        return float((read_json(folder / "spec.json") or {})["grace"])
    except (KeyError, TypeError, ValueError):
        return _DEFAULT_GRACE


def read_longest(folder: Path) -> float:
    """Seconds from a shim's start after which the end of its step is overdue; no number where the spec is damaged."""
    spec = read_json(folder / "spec.json") or {}
    try:
        return float(spec["time_limit"]) + 2 * float(spec["grace"]) + _OVERDUE
    except (KeyError, TypeError, ValueError):
        return math.inf


def read_refusal(folder: Path) -> str | None:
    """Why the step could not be started; None if it was not refused."""
    try:
        return durable.read_bytes(folder / "refused").decode("utf-8", "replace")
    except OSError as error:
        if durable.may_pass(error):
            raise
        return None


def boot() -> str:
    """The id of the host's boot, empty if it can't be read."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def exit_record(folder: Path) -> Mapping[str, Any]:
    """The object that the shim writes at the end of its step; empty before. Raises OSError."""
    return read_json(folder / "exit") or {}


def read_outcome(folder: Path) -> Outcome | None:
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
        report = _report(record.get("stop"))
        return Stopped(exit_code, span, report) if record["stopped"] == "asked" else TimedOut(exit_code, span, report)
    return Exited(code, span) if code is not None else Killed(number, span)
