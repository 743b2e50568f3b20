"""What dbt says while it runs and leaves when it ends: its log lines, its results, and what they mean."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runners.dbt.command import DbtStep, target
from runners.mask import Mask
from runners.outcome import Exited, Killed, NotStarted, Outcome
from runners.report import Failure, Progress, clean, one_line

_RESULT_EVENTS = frozenset(
    {"LogModelResult", "LogTestResult", "LogSeedResult", "LogSnapshotResult", "LogFunctionResult", "LogNodeResult"}
)
_FAILED = frozenset({"error", "fail", "runtime error", "partial success"})
_HIGHEST_SIGNAL = 64
_EVENT_STARTS = ('{"data": {', '{"info": {')


def event(line: str) -> Mapping[str, Any] | None:
    """The dbt log event that a line holds, None for any other line."""
    if not line.startswith("{") or '"info"' not in line:
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    info = found.get("info") if isinstance(found, dict) else None
    whole = isinstance(info, dict) and isinstance(info.get("msg"), str) and isinstance(info.get("name"), str)
    return found if whole else None


def text(line: str) -> str | None:
    """A line of output as dbt's text log would show it; any other line as it is.

    None for an event that has not arrived whole.
    """
    found = event(line)
    if found is None:
        return None if line.startswith(_EVENT_STARTS) and not line.endswith("}") else line
    info = found["info"]
    return clean(f"{str(info.get('ts', ''))[11:19]}  {info['msg']}")


@dataclass(frozen=True, slots=True)
class Results:
    """What a run has to show: how many nodes of each status, and what failed first."""

    progress: Progress
    failure: Failure | None


class DbtReader:
    """Follows a dbt step by its log events.

    started: dbt itself ran. loaded: it loaded project and profile. connecting: it went on to its database.
    invocation: the id of the run, which its files have too. error: the message of the error that ended dbt, empty if
    there was none.
    """

    def __init__(self) -> None:
        self.started = False
        self.loaded = False
        self.connecting = False
        self.invocation = ""
        self.error = ""
        self.last_line = ""
        self._progress: Progress | None = None
        self._failure: Failure | None = None
        self._summed_up = False

    @property
    def results(self) -> Results | None:
        """What the run said of itself at its end; None if it never came to that."""
        return Results(self._progress or Progress(), self._failure) if self._summed_up else None

    @property
    def progress(self) -> Progress | None:
        """Nodes so far, None until dbt said how many there are."""
        return self._progress

    def skip(self) -> None:
        """The lines that dbt begins with may be among the lost ones, so that they were not seen proves nothing."""
        self.started = self.loaded = True

    def feed(self, line: str) -> None:
        """Take one line of the step's output."""
        found = event(line)
        if found is None:
            self.last_line = line.strip() or self.last_line
            return
        info, data = found["info"], found.get("data")
        data = data if isinstance(data, dict) else {}
        message = clean(info["msg"]).strip()
        self.invocation = str(info.get("invocation_id") or self.invocation)
        match info["name"]:
            case "MainReportVersion":
                self.started = True
            case "AdapterRegistered":
                self.loaded = True
            case "MainEncounteredError":
                self.error = message.removeprefix("Encountered an error:")
            case "MainStackTrace":
                return  # no line for people
            case "RunResultError":
                self._failed(data)
            case "StatsLine" | "NothingToDo":
                self._summed_up = True
            case name:
                self._count(name, data)
        self.last_line = message or self.last_line

    def _failed(self, data: Mapping[str, Any]) -> None:
        """One of the failures that dbt tells again at its end, in the order of its results."""
        if self._failure is None:
            node = data.get("node_info")
            name = str(node["unique_id"]) if isinstance(node, dict) and "unique_id" in node else "a node"
            self._failure = Failure(one_line(name), one_line(str(data.get("msg") or "failed without a message")))
        else:
            self._failure = replace(self._failure, more=self._failure.more + 1)

    def _count(self, name: str, data: Mapping[str, Any]) -> None:
        progress = self._progress or Progress()
        if name == "ConcurrencyLine":
            self.connecting = True
            self._progress = replace(progress, total=_number(data.get("node_count")))
        elif name == "LogStartLine":
            self._progress = replace(progress, current=_node_name(data), total=_number(data.get("total")))
        elif name in _RESULT_EVENTS:
            self._progress = _one_more(progress, str(_status(name, data)))
        elif name == "SkippingDetails":
            self._progress = _one_more(progress, "skipped")


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _node_name(data: Mapping[str, Any]) -> str | None:
    node = data.get("node_info")
    return one_line(str(node["node_name"])) if isinstance(node, dict) and "node_name" in node else None


def _status(name: str, data: Mapping[str, Any]) -> object:
    """A model's own status is the adapter's text ("OK"); its node's is dbt's word."""
    node = data.get("node_info")
    if name == "LogTestResult" or not isinstance(node, dict):
        return data.get("status")
    return node.get("node_status")


def _one_more(progress: Progress, status: str) -> Progress:
    progress = replace(progress, done=progress.done + 1)
    if status in _FAILED:
        return replace(progress, error=progress.error + 1)
    match status:
        case "warn":
            return replace(progress, warn=progress.warn + 1)
        case "skipped":
            return replace(progress, skip=progress.skip + 1)
        case _:
            return replace(progress, passed=progress.passed + 1)


def is_of_run(document: bytes, invocation: str) -> bool:
    """Whether a run_results.json is of this run and not of an earlier one."""
    try:
        return bool(invocation) and json.loads(document)["metadata"]["invocation_id"] == invocation
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def read_results(folder: Path, mask: Mask) -> Results | None:
    """The results that the step whose folder this is left behind; None if it left none that can be understood.

    The folder is the step's own, so results in it are never those of an earlier run. mask: they are dbt's own file, and
    nobody has masked it. Raises OSError where it can't be
    found out whether there are any.
    """
    try:
        document = json.loads((target(folder) / "run_results.json").read_bytes())
        nodes = [(str(node["status"]), str(node["unique_id"]), node.get("message")) for node in document["results"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    progress = functools.reduce(_one_more, (status for status, _, _ in nodes), Progress(total=len(nodes)))
    failed = [(node, message) for status, node, message in nodes if status in _FAILED]
    failure = None
    if failed:
        node, message = failed[0]
        said = str(message or "failed without a message")
        failure = Failure(one_line(mask.text(node)), one_line(mask.text(said)), len(failed) - 1)
    return Results(progress, failure)


def judge_outcome(
    outcome: Outcome, step: DbtStep, reader: DbtReader, left: Results | None, *, reported: bool
) -> Outcome:
    """What the end of a dbt step means: an exit code is a claim, which the step's log and results must bear out.

    left: the results, if it left any. reported: whether it left a report.
    """
    match outcome:
        case Exited(code=0):
            lie = _broken_promise(step, reader, left, reported=reported)
            return NotStarted(lie, 0, outcome.span) if lie else outcome
        case Exited(code=code) if step.lineage and code >= 256 - _HIGHEST_SIGNAL:
            return Killed(256 - code, outcome.span)  # dbt-ol leaves with minus the signal that ended its dbt
        case Exited(code=code):
            obstacle = _obstacle(step, reader, left)
            return NotStarted(f"dbt {step.verb} {obstacle}", code, outcome.span) if obstacle else outcome
        case _:
            return outcome


def _broken_promise(step: DbtStep, reader: DbtReader, left: Results | None, *, reported: bool) -> str | None:
    """Why a step that exited 0 did not do its work."""
    if step.verb == "deps":
        return None if reader.started else "dbt deps exited 0 without having run; is it dbt 1.x? Look at its output."
    if left is None:
        return f"dbt {step.verb} exited 0 without leaving a run_results.json: it did not run; look at its output."
    if left.failure is not None:
        return f"dbt {step.verb} exited 0, but {left.failure.node} failed: {left.failure.message}"
    if step.elementary and left.progress.done == 0:
        return "dbt found no model of Elementary to run; run `deps`, and see that the package is enabled."
    if step.selective and left.progress.done == 0:
        selected = " ".join(step.arguments)
        return f"dbt {step.verb} found nothing to do in what was selected ({selected}); see that it exists."
    if step.report and not reported:
        return "edr exited 0 without leaving its report; look at its output."
    return None


def _obstacle(step: DbtStep, reader: DbtReader, left: Results | None) -> str | None:
    """What kept a step that exited non-zero from even beginning its work; None if it began.

    A run that began has results, or nodes that are done, or an error in its models. Before that lie the program, the
    project and its profile, and the database: without them nothing was started.
    """
    if left is not None or (reader.progress is not None and reader.progress.done > 0):
        return None
    why = one_line(reader.error or reader.last_line or "it said nothing")
    if not reader.started:
        return f"could not be started: {why}; mend that and trigger it again."
    if step.verb == "deps":
        return None
    if not reader.loaded:
        return f"could not load its project or profile: {why}; mend that and trigger it again."
    if reader.connecting:
        return (
            f"could not use its database: {why}; make sure it can be reached and is not in use, then trigger it again."
        )
    return None
