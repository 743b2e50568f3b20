"""How jobs look on a terminal, with colours and a bar, and in a pipe, in plain lines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_COLOURS = {
    "succeeded": "green",
    "completed": "green",
    "warnings": "yellow",
    "errors": "red",
    "failed": "red",
    "cancelled": "magenta",
    "running": "cyan",
    "queued": "blue",
    "skipped": "dim",
    "pending": "dim",
}
_BAR = 24  # columns

console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


def word(text: str) -> Text:
    """A status or an outcome, in its colour."""
    return Text(text, _COLOURS.get(text, ""))


def print_json(value: object) -> None:
    """One line of JSON."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> None:
    """Rows under a head; in a pipe, cells are separated by tabs and nothing is cut."""
    if not console.is_terminal:
        for row in (columns, *rows):
            print("\t".join(str(cell).replace("\t", " ").replace("\n", " ") for cell in row))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for n, column in enumerate(columns[:-1]):  # where the terminal is narrow, only the last column is cut
        table.add_column(column, no_wrap=True, min_width=max(len(row[n]) for row in (columns, *rows)))
    table.add_column(columns[-1], no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def outcome(record: Mapping[str, Any]) -> str:
    """How a job ended in one word, or what it does."""
    return str(record.get("outcome") or record["status"])


def why(record: Mapping[str, Any]) -> str:
    """The sentence that says why a job went wrong; empty where it did not."""
    failure = record.get("firstFailure") or {}
    return str(record.get("error") or failure.get("message") or "")


def local_time(text: str | None) -> str:
    """A time of the API as a clock on this host's wall has it."""
    return "" if text is None else datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def seconds(value: float | None) -> str:
    """A duration for people, such as 1:02:03, 2:03 or 4.5 s."""
    if value is None:
        return ""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def print_record(record: Mapping[str, Any]) -> None:
    """A job: its outcome and why, its steps, its notes."""
    console.print(Text(record["jobId"], "bold"), Text("  "), word(outcome(record)), _code(record), sep="")
    if why(record):
        console.print(f"  {why(record)}")
    started = local_time(record.get("startedAt") or record["createdAt"])
    duration = seconds(record.get("durationSeconds"))
    console.print(f"  {record['pipeline']} on {record['fabricId']}, {started}{duration and f', {duration}'}")
    for step in record["steps"]:
        console.print(_step_line(step))
    if stopped := record.get("stopped"):
        console.print(f"  stopped: {_stopped(stopped)}")
    for note in record.get("notes") or ():
        console.print(f"  note: {note}", style="dim")


def _code(record: Mapping[str, Any]) -> str:
    return f", exit code {record['exitCode']}" if record["status"] == "completed" else ""


def _stopped(stopped: Mapping[str, Any]) -> str:
    if not stopped["signals"]:
        return "no process was running"
    count = stopped["processes"]
    processes = "its processes" if count is None else "1 process" if count == 1 else f"{count} processes"
    return f"{processes} by {', '.join(stopped['signals'])} in {seconds(stopped['seconds'])}"


def _step_line(step: Mapping[str, Any]) -> Text:
    line = Text("  ").append(f"{step['name']:<11} ").append_text(word(step["status"]))
    if step["status"] == "completed" and step["exitCode"]:
        line.append(f" with exit code {step['exitCode']}", "red")
    if step.get("durationSeconds") is not None:
        line.append(f"  {seconds(step['durationSeconds'])}")
    detail = _counts(step) or step.get("note") or ""
    return line.append(f"  {detail}" if detail else "")


def _counts(step: Mapping[str, Any]) -> str:
    progress = step.get("progress")
    if not progress:
        return ""
    if step["name"] == "ingester":
        return f"{progress['done']} of {progress['total']} tables"
    return " ".join(f"{name}={progress[name]}" for name in ("pass", "warn", "error", "skip", "noop") if progress[name])


class JobScreen:
    """Shows one job while it runs: a line for each step that ended, and on a terminal a bar for the one that runs."""

    def __init__(self) -> None:
        self._ended_steps = 0  # those whose end was shown
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, record: Mapping[str, Any]) -> None:
        """Show what has changed since the last record."""
        steps = record["steps"]
        while self._ended_steps < len(steps) and steps[self._ended_steps]["status"] not in ("pending", "running"):
            console.print(_step_line(steps[self._ended_steps]))
            self._ended_steps += 1
        if self._live is not None:
            running = [step for step in steps if step["status"] == "running"]
            self._live.update(_bar(running[0]) if running else Text(f"  {record['phase']}", "dim"), refresh=True)


def _bar(step: Mapping[str, Any]) -> Table:
    progress = step.get("progress") or {"done": 0, "total": 0, "current": None}
    done, total = progress["done"], progress["total"]
    line = Table.grid(padding=(0, 1))
    line.add_row(
        Text(f"  {step['name']:<11}"),
        ProgressBar(total=total or None, completed=done, width=_BAR, pulse=not total),
        Text(f"{done}/{total}" if total else ""),
        Text(progress["current"] or "", "dim"),
    )
    return line
