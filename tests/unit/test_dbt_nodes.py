"""The nodes of a dbt step by documents and logs that are whole, half, strange or large."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from runners.dbt.nodes import LogNodes, Node, Sql, joined, parse_manifest, parse_results, sql
from tests.support.recorded import recorded

NODE = "model.small.evens"
RESULT: dict[str, Any] = {
    "unique_id": NODE,
    "status": "success",
    "timing": [{"name": "compile", "started_at": "2026-11-30T16:23:31.594540Z"}, {"name": "execute"}],
    "thread_id": "Thread-1 (worker)",
    "execution_time": 0.25,
    "adapter_response": {"_message": "INSERT 5", "rows_affected": 5},
    "message": "INSERT 5",
    "failures": None,
    "compiled_code": "select 1",
    "relation_name": '"w"."main"."evens"',
}
ENTRY: dict[str, Any] = {
    "unique_id": NODE,
    "name": "evens",
    "resource_type": "model",
    "original_file_path": "models/evens.sql",
    "column_name": None,
    "depends_on": {"macros": [], "nodes": ["model.small.numbers"]},
    "raw_code": "select 1",
    "compiled_code": "select 1",
}
EVENS = Node(
    NODE,
    "evens",
    "model",
    "success",
    "INSERT 5",
    1796055811.59454,
    0.25,
    "Thread-1 (worker)",
    None,
    5,
    "models/evens.sql",
    None,
    ("model.small.numbers",),
)


def results(*found: Any) -> bytes:
    return json.dumps({"metadata": {}, "results": found}).encode()


def manifest(*nodes: dict[str, Any], **sections: Any) -> bytes:
    return json.dumps({"metadata": {}, "nodes": {node["unique_id"]: node for node in nodes}, **sections}).encode()


def logged(*lines: str) -> list[Node]:
    nodes = LogNodes()
    for line in lines:
        nodes.feed(line)
    return nodes.nodes


def test_a_node_is_told_by_its_result_and_the_manifest() -> None:
    assert joined(parse_results(results(RESULT)) or [], [], parse_manifest(manifest(ENTRY)), runs=False) == [EVENS]


def test_a_node_without_a_manifest_is_named_by_its_id() -> None:
    [node] = joined(parse_results(results(RESULT)) or [], [], {}, runs=False)
    assert (node.name, node.resource_type, node.path, node.depends_on) == ("evens", "model", None, ())


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"results": {}}', b'{"results": [1]}', b'{"results": [{}]}', b"[" * 100_000],
)
def test_what_is_no_document_of_dbt_is_none(content: bytes) -> None:
    assert parse_results(content) is None
    assert parse_manifest(content) == {}


@pytest.mark.parametrize("value", [None, 1, "x", [], {}, [1], True])
def test_a_field_of_another_type_is_unknown(value: Any) -> None:
    names = ("timing", "thread_id", "execution_time", "adapter_response", "message", "failures", "compiled_code")
    strange = {**RESULT, **dict.fromkeys(names, value)}
    entry = {**ENTRY, **{name: value for name in ENTRY if name != "unique_id"}}
    [node] = joined(parse_results(results(strange)) or [], [], parse_manifest(manifest(entry)), runs=False)
    assert (node.unique_id, node.status) == (NODE, "success")
    assert node.failures in (None, 1)
    assert node.message in (None, "x")
    assert node.depends_on == ()
    assert sql(NODE, [strange], {NODE: entry}).compiled in (None, "x")


def test_the_log_of_a_build_has_each_node_once() -> None:
    found = logged(*recorded("build_failed"))
    assert {node.name: node.status for node in found} == {
        "numbers": "success",
        "not_null_numbers_n": "pass",
        "broken": "error",
        "unique_numbers_n": "pass",
        "evens": "success",
        "after": "skipped",
        "none_even": "fail",
        "unique_evens_n": "pass",
    }
    broken = next(node for node in found if node.name == "broken")
    assert 'column "nope" not found' in str(broken.message)
    assert broken.duration is not None


def test_a_node_whose_events_are_gone_from_the_log_ends_by_its_message() -> None:
    lines = [line for line in recorded("build_failed") if "RunResultError" in line]
    assert {node.status for node in logged(*lines)} == {"error"}


def test_nodes_that_have_not_ended_run_or_were_interrupted() -> None:
    lines = [line for line in recorded("build_failed") if "LogStartLine" in line]
    started = logged(*lines)
    for runs, status in ((True, "running"), (False, "interrupted")):
        found = joined(
            parse_results(results({**RESULT, "unique_id": "model.small.numbers"})) or [], started, {}, runs=runs
        )
        assert [node.unique_id for node in found].count("model.small.numbers") == 1
        assert {node.status for node in found if node.name != "numbers"} == {status}


@pytest.mark.parametrize(
    ("result", "entry", "expected"),
    [
        ({"status": "success"}, {}, Sql("select 1", None)),
        ({"status": "fail"}, {"resource_type": "test"}, Sql("select 1", "select 1")),
        ({"status": "warn"}, {"resource_type": "test"}, Sql("select 1", "select 1")),
        ({"status": "pass"}, {"resource_type": "test"}, Sql("select 1", None)),
        ({"status": "error", "compiled_code": None}, {"resource_type": "test"}, Sql("select 1", None)),
        (
            {"status": "fail", "relation_name": '"w"."audit"."evens"'},
            {"resource_type": "test"},
            Sql("select 1", 'select * from "w"."audit"."evens"'),
        ),
    ],
    ids=["a model", "a test that failed", "one that warned", "one that passed", "one with an error", "stored failures"],
)
def test_only_a_failing_test_has_a_statement_of_failures(
    result: dict[str, Any], entry: dict[str, Any], expected: Sql
) -> None:
    given = {**RESULT, "relation_name": None, **result}
    found = parse_results(results(given), sql_of=NODE)
    assert sql(NODE, found or [], parse_manifest(manifest({**ENTRY, **entry}), sql_of=NODE)) == expected


def test_only_the_sql_that_is_asked_for_is_kept() -> None:
    other = {**ENTRY, "unique_id": "model.small.odds"}
    found = parse_manifest(manifest(ENTRY, other), sql_of="model.small.odds")
    assert ["compiled_code" in found[node] for node in (NODE, "model.small.odds")] == [False, True]
    assert "compiled_code" not in (parse_results(results(RESULT)) or [])[0]


async def test_a_large_manifest_leaves_the_event_loop_its_turn() -> None:
    """Parsed in one piece, it would have the interpreter for seconds."""
    columns = {f"c{n}": {"name": f"c{n}", "description": "x" * 80, "meta": {}, "tags": []} for n in range(20)}
    content = manifest(*({**ENTRY, "unique_id": f"model.small.m{n}", "columns": columns} for n in range(2_000)))
    began = turn = time.monotonic()
    parsing = asyncio.get_running_loop().run_in_executor(None, parse_manifest, content)
    longest = 0.0
    while not parsing.done():
        await asyncio.sleep(0)
        longest, turn = max(longest, time.monotonic() - turn), time.monotonic()
    assert len(await parsing) == 2_000
    assert longest < (turn - began) / 2, f"{longest:.3f} s of {turn - began:.3f} s"
