"""dbt's output while it runs: JSON log events, one a line, and the progress and results that they report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from runners.report import CauseFinder, Failure, Progress, encodable, folded, one_line, without_frames

FAILED_STATUSES = frozenset({"error", "fail", "runtime error", "partial success"})

RESULT_EVENTS = frozenset(
    {"LogModelResult", "LogTestResult", "LogSeedResult", "LogSnapshotResult", "LogFunctionResult", "LogNodeResult"}
)
_EVENT_STARTS = ('{"data": {', '{"info": {')
_RESET = "\x1b[0m"


def parse_event(line: str) -> Mapping[str, Any] | None:
    """The log event of dbt that a line is, None for any other line."""
    if not line.startswith("{") or '"info"' not in line:
        return None
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    info = event.get("info") if isinstance(event, dict) else None
    is_event = isinstance(info, dict) and isinstance(info.get("msg"), str) and isinstance(info.get("name"), str)
    return event if is_event else None


def split_line(line: str) -> tuple[str, str]:
    """A line as what stands before an event of dbt, and the rest, without the reset of colours at its end.

    A model may print text without a line end, and edr quotes events in messages that are coloured.
    """
    starts = [start for begin in _EVENT_STARTS if (start := line.find(begin)) > 0]
    start = min(starts) if starts and not line.startswith("{") else 0
    return line[:start], line[start:].removesuffix(_RESET)


def render_line(line: str) -> str:
    """A line of output, with its line end, as text: an event as dbt's own text log shows it, any other line unchanged.

    A line without its end is the last so far. If it is the beginning of an event it is left out until its rest comes.
    """
    body = line.removesuffix("\n")
    before, rest = split_line(body)
    event = parse_event(rest)
    if event is None:
        is_cut = body == line and rest.startswith(_EVENT_STARTS) and not rest.endswith("}")
        return before if is_cut else line
    info = event["info"]
    return encodable(f"{before}{str(info.get('ts', ''))[11:19]}  {info['msg']}") + line[len(body) :]


@dataclass(frozen=True, slots=True)
class Results:
    """The results of a run: how many nodes have each status, and the first failure.

    only_elementary: besides hooks, all nodes are of the Elementary package; the log does not tell.
    """

    progress: Progress
    failure: Failure | None
    only_elementary: bool = False


class DbtReader:
    """Follows a dbt step by its log events: see OutputReader.

    started: dbt itself ran. loaded: dbt loaded project and profile. connecting: dbt began to use its database.
    invocation_id: of the run, also in its artifacts. Programs after dbt, such as edr, may log events of other runs.
    error: the message of the error that ended dbt, empty for none.
    """

    def __init__(self) -> None:
        self.started = False
        self.loaded = False
        self.connecting = False
        self.invocation_id = ""
        self.error = ""
        self._causes = CauseFinder()
        self._progress: Progress | None = None
        self._failure: Failure | None = None
        self._has_ended = False

    @property
    def results(self) -> Results | None:
        """The results by the log; None if dbt did not log the end of its run."""
        return Results(self._progress or Progress(), self._failure) if self._has_ended else None

    @property
    def cause(self) -> str:
        """The error that ended dbt, else why the step failed in the words of its other output."""
        return self.error or self._causes.cause

    @property
    def progress(self) -> Progress | None:
        """Nodes so far, None until dbt has logged how many there are."""
        return self._progress

    def skip(self) -> None:
        """Note that lines are missing. They may be those with which dbt begins, so dbt counts as started and loaded."""
        self.started = self.loaded = True

    def feed(self, line: str) -> None:
        """Take one line of the step's output."""
        before, rest = split_line(line)
        event = parse_event(rest)
        if event is None:
            self._causes.feed(line)
            return
        if before:
            self._causes.feed(before)
        info, data = event["info"], event.get("data")
        data = data if isinstance(data, dict) else {}
        message = encodable(info["msg"]).strip()
        self.invocation_id = self.invocation_id or str(info.get("invocation_id") or "")
        match info["name"]:
            case "MainReportVersion":
                self.started = True
            case "AdapterRegistered":
                self.loaded = True
            case "MainEncounteredError":
                self.error = message.removeprefix("Encountered an error:")
            case "MainStackTrace":
                return  # the message of MainEncounteredError is the readable one
            case "RunResultError":
                self._add_failure(data)
            case "StatsLine":
                self._has_ended = True
                self._progress = _final(data.get("stats"), self._progress)
            case "NothingToDo":
                self._has_ended = True
            case name:
                self._count(name, data)
        self._causes.say(message, is_error=info.get("level") == "error")

    def _add_failure(self, data: Mapping[str, Any]) -> None:
        """Take one of the failures that dbt logs again at its end, in the order of its results."""
        if self._failure is None:
            node = data.get("node_info")
            name = str(node["unique_id"]) if isinstance(node, dict) and "unique_id" in node else "a node"
            message = str(data.get("msg") or "failed without a message")
            self._failure = Failure(folded(name), folded(without_frames(message)))
        else:
            self._failure = replace(self._failure, more=self._failure.more + 1)

    def _count(self, name: str, data: Mapping[str, Any]) -> None:
        progress = self._progress or Progress()
        if name == "ConcurrencyLine":
            self.connecting = True
            self._progress = replace(progress, total=_number(data.get("node_count")))
        elif name == "LogStartLine":
            self._progress = replace(progress, current=_node_name(data), total=_number(data.get("total")))
        elif name in RESULT_EVENTS:
            self._progress = add_node(progress, str(node_status(name, data)))
        elif name == "SkippingDetails":
            self._progress = add_node(progress, "skipped")
        elif name == "LogNodeNoOpResult":
            self._progress = add_node(progress, "no-op")


def _final(stats: object, progress: Progress | None) -> Progress | None:
    """The counts that dbt itself gives at the end, which are right also where events before it are missing."""
    if not isinstance(stats, dict):
        return progress
    passed, warn, error, skip, noop = (_number(stats.get(key)) for key in ("pass", "warn", "error", "skip", "noop"))
    done = passed + warn + error + skip + noop
    total = max(done, progress.total if progress is not None else 0)
    current = progress.current if progress is not None else None
    return Progress(done, total, passed, warn, error, skip, noop, current)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _node_name(data: Mapping[str, Any]) -> str | None:
    node = data.get("node_info")
    return one_line(str(node["node_name"])) if isinstance(node, dict) and "node_name" in node else None


def node_status(name: str, data: Mapping[str, Any]) -> object:
    """The status of a node. The `status` of a model is text of the adapter ("OK"), so its `node_status` is taken."""
    node = data.get("node_info")
    if name == "LogTestResult" or not isinstance(node, dict):
        return data.get("status")
    return node.get("node_status")


def add_node(progress: Progress, status: str) -> Progress:
    """The progress after one more node, which has ended with this status."""
    progress = replace(progress, done=progress.done + 1)
    if status in FAILED_STATUSES:
        return replace(progress, error=progress.error + 1)
    match status:
        case "warn":
            return replace(progress, warn=progress.warn + 1)
        case "skipped":
            return replace(progress, skip=progress.skip + 1)
        case "no-op":
            return replace(progress, noop=progress.noop + 1)
        case _:
            return replace(progress, passed=progress.passed + 1)
