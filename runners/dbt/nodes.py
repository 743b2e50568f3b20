"""The nodes of a dbt step: what became of each, by dbt's results, its manifest and its log.

Documents may have tens of megabytes. Their parsers call Python code for each object of theirs, so that other threads
get their turn, and keep only what is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from runners.dbt.output import RESULT_EVENTS, node_status, parse_event, split_line

RUNNING, INTERRUPTED = "running", "interrupted"  # the status of a node that has begun and not ended
FAILING = frozenset({"fail", "warn"})  # of tests whose rows can be shown

_MESSAGES = {"RunResultError": "error", "RunResultWarningMessage": "warn"}  # each with the status that it implies
_EVENTS = (*RESULT_EVENTS, "LogStartLine", "SkippingDetails", "LogNodeNoOpResult", *_MESSAGES)
_OF_MANIFEST = ("unique_id", "name", "resource_type", "original_file_path", "column_name", "depends_on")
_SQL = ("compiled_code", "relation_name")

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Node:
    """What became of a node. started: epoch seconds. duration: seconds. column: of a test. None: that is not known."""

    unique_id: str
    name: str
    resource_type: str
    status: str
    message: str | None = None
    started: float | None = None
    duration: float | None = None
    thread: str | None = None
    failures: int | None = None
    rows_affected: int | None = None
    path: str | None = None
    column: str | None = None
    depends_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sql:
    """The statements of a node. failures: shows the rows for which a test fails; None where it does not."""

    compiled: str | None
    failures: str | None


def parse_results(content: bytes, sql_of: str | None = None) -> list[Document] | None:
    """The results in a run_results.json, None where it is none. sql_of: the node whose SQL is kept."""

    def reduced(found: dict[str, Any]) -> object:
        if "compiled_code" in found and found.get("unique_id") != sql_of:
            del found["compiled_code"]
        return found

    results = _parse(content, reduced).get("results")
    return results if isinstance(results, list) and all(map(_is_result, results)) else None


def parse_manifest(content: bytes, sql_of: str | None = None) -> Mapping[str, Document]:
    """The nodes of a manifest.json by their ids, empty where it is none. sql_of: the node whose SQL is kept."""

    def reduced(found: dict[str, Any]) -> object:
        if "unique_id" not in found:
            return found
        names = (*_OF_MANIFEST, *(_SQL if found["unique_id"] == sql_of else ()))
        return {name: found[name] for name in names if name in found}

    document = _parse(content, reduced)
    sections = (document.get(name) for name in ("nodes", "unit_tests"))
    return {
        key: node
        for section in sections
        if isinstance(section, dict)
        for key, node in section.items()
        if isinstance(node, dict)
    }


def _parse(content: bytes, reduced: Callable[[dict[str, Any]], object]) -> Document:
    try:
        document = json.loads(content, object_hook=reduced)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _is_result(result: object) -> bool:
    return isinstance(result, dict) and isinstance(result.get("unique_id"), str) and "status" in result


class LogNodes:
    """The nodes that a dbt step has begun or skipped, by its log."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}

    @property
    def nodes(self) -> list[Node]:
        """In the order in which they began."""
        return list(self._nodes.values())

    def feed(self, line: str) -> None:
        """Take one line of the step's output."""
        if '"node_info"' not in line:
            return
        event = parse_event(split_line(line)[1])
        if event is None or event["info"]["name"] not in _EVENTS or not isinstance(event.get("data"), dict):
            return
        info, data = event["info"], event["data"]
        about = data.get("node_info")
        if not isinstance(about, dict) or not isinstance(about.get("unique_id"), str):
            return
        node = self._nodes.get(about["unique_id"]) or _begun(about, info)
        self._nodes[node.unique_id] = _after(node, info["name"], data)


def _begun(about: Document, info: Document) -> Node:
    return Node(
        str(about["unique_id"]),
        str(about.get("node_name")),
        str(about.get("resource_type")),
        RUNNING,
        started=_moment(about.get("node_started_at")),
        thread=_text(info.get("thread")),
    )


def _after(node: Node, name: str, data: Document) -> Node:
    """A node after one more event about it."""
    if name in _MESSAGES:
        status = _MESSAGES[name] if node.status == RUNNING else node.status  # its own event may be gone from the log
        return replace(node, status=status, message=_text(data.get("msg")))
    if name == "SkippingDetails":
        return replace(node, status="skipped")
    if name == "LogNodeNoOpResult":
        return replace(node, status="no-op")
    if name == "LogStartLine":
        return node
    failures = _whole(data.get("num_failures"))
    status = str(node_status(name, data)).lower()
    return replace(node, status=status, duration=_number(data.get("execution_time")), failures=failures)


def joined(
    results: Iterable[Document], logged: Iterable[Node], manifest: Mapping[str, Document], *, runs: bool
) -> list[Node]:
    """Each node of a step once: by its result, else by the log. runs: whether the step runs."""
    known = [_of_result(result) for result in results]
    ids = {node.unique_id for node in known}
    unended = RUNNING if runs else INTERRUPTED
    rest = [
        replace(node, status=unended) if node.status == RUNNING else node
        for node in logged
        if node.unique_id not in ids
    ]
    return [_described(node, manifest.get(node.unique_id, {})) for node in (*known, *rest)]


def _of_result(result: Document) -> Node:
    timing, response = result.get("timing"), result.get("adapter_response")
    first = timing[0] if isinstance(timing, list) and timing and isinstance(timing[0], dict) else {}
    unique_id = result["unique_id"]
    kind, *_, last = unique_id.split(".")
    return Node(
        unique_id,
        last,
        kind,
        str(result["status"]),
        _text(result.get("message")),
        _moment(first.get("started_at")),
        _number(result.get("execution_time")),
        _text(result.get("thread_id")),
        _whole(result.get("failures")),
        _whole(response.get("rows_affected")) if isinstance(response, dict) else None,
    )


def _described(node: Node, entry: Document) -> Node:
    """A node with what the manifest says of it."""
    if not entry:
        return node
    depends_on = entry.get("depends_on")
    before = depends_on.get("nodes") if isinstance(depends_on, dict) else None
    return replace(
        node,
        name=str(entry.get("name") or node.name),
        resource_type=str(entry.get("resource_type") or node.resource_type),
        path=_text(entry.get("original_file_path")),
        column=_text(entry.get("column_name")),
        depends_on=tuple(map(str, before)) if isinstance(before, list) else (),
    )


def sql(unique_id: str, results: Iterable[Document], manifest: Mapping[str, Document]) -> Sql:
    """The statements of a node, by its result and its entry in the manifest, which were parsed with its SQL."""
    result = next((one for one in results if one["unique_id"] == unique_id), {})
    entry = manifest.get(unique_id, {})
    compiled = _text(result.get("compiled_code")) or _text(entry.get("compiled_code"))
    if entry.get("resource_type") != "test" or result.get("status") not in FAILING:
        return Sql(compiled, None)
    # a test has a relation only where it stores the rows for which it fails
    stored = _text(result.get("relation_name")) or _text(entry.get("relation_name"))
    return Sql(compiled, f"select * from {stored}" if stored else compiled)  # noqa: S608, it is shown and not run


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _moment(value: object) -> float | None:
    """A time of dbt as epoch seconds; dbt means UTC where it names no zone."""
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
