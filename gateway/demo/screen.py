"""How a running job is shown: one line per step, with a progress bar that is redrawn in place on a terminal."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any, TextIO

_WIDTH = 24
_ERASE = "\r\x1b[K"
_MARKS = {"completed": "ok", "failed": "failed", "skipped": "skipped"}


class Screen:
    """Shows one job, record after record."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._is_terminal = out.isatty()
        self._ended_steps = 0  # those whose end was shown
        self._last = ""

    def write(self, text: str = "") -> None:
        """Write a line."""
        self._out.write(f"{text}\n")
        self._out.flush()

    def show(self, record: Mapping[str, Any]) -> None:
        """Write what has changed since the last record."""
        steps = record["steps"]
        while self._ended_steps < len(steps) and steps[self._ended_steps]["status"] in _MARKS:
            self._replace(_ended_line(steps[self._ended_steps]))
            self._out.write("\n")
            self._ended_steps += 1
        running = [step for step in steps if step["status"] == "running"]
        if running and (line := _running_line(running[0])) != self._last:
            self._last = line
            self._replace(line)
            if not self._is_terminal:
                self._out.write("\n")
        self._out.flush()

    def _replace(self, line: str) -> None:
        if self._is_terminal:  # a line that wraps could not be redrawn in place
            self._out.write(_ERASE + line[: shutil.get_terminal_size().columns - 1])
        else:
            self._out.write(line)


def _running_line(step: Mapping[str, Any]) -> str:
    progress = step["progress"] or {"done": 0, "total": 0, "current": None}
    done, total = progress["done"], progress["total"]
    filled = _WIDTH * done // total if total else 0
    bar = "█" * filled + "·" * (_WIDTH - filled)
    count = f"{done}/{total}" if total else "..."
    return f"  {step['name']:<11} {bar} {count:>7}  {progress['current'] or ''}".rstrip()


def _ended_line(step: Mapping[str, Any]) -> str:
    mark = _MARKS[step["status"]]
    if step["status"] == "completed" and step["exitCode"]:
        mark = f"exit {step['exitCode']}"
    seconds = "" if step["durationSeconds"] is None else f"{step['durationSeconds']:6.1f} s"
    return f"  {step['name']:<11} {mark:<8} {seconds}  {_counts(step) or step['note'] or ''}".rstrip()


def _counts(step: Mapping[str, Any]) -> str:
    progress = step["progress"]
    if progress is None:
        return ""
    if step["name"] == "ingester":
        return f"{progress['done']} of {progress['total']} tables"
    return " ".join(f"{name.upper()}={progress[name]}" for name in ("pass", "warn", "error", "skip"))
