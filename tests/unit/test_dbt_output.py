"""dbt's output while it runs: recorded log lines, and lines that only look like log events."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from runners.dbt.output import DbtReader, parse_event, render_line
from runners.report import Progress, one_line
from tests.support.recorded import recorded


def event_line(name: str, message: str = "", **data: Any) -> str:
    """A line of dbt's JSON log with this event."""
    return json.dumps({"data": data, "info": {"msg": message, "name": name, "ts": "2026-11-21T23:10:51.807634Z"}})


def reader_of(*lines: str) -> DbtReader:
    reader = DbtReader()
    for line in lines:
        reader.feed(line)
    return reader


def test_a_build_with_failures_is_counted_node_by_node() -> None:
    reader = DbtReader()
    seen: list[Progress] = []
    for line in recorded("build_failed"):
        reader.feed(line)
        if reader.progress is not None and (not seen or reader.progress != seen[-1]):
            seen.append(reader.progress)
    assert seen[0] == Progress(total=8)
    assert seen[1] == Progress(total=8, current="numbers")
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)
    assert all(progress.total == 8 for progress in seen)
    assert seen[-1] == Progress(done=8, total=8, passed=5, error=2, skip=1, current="unique_evens_n")
    assert (reader.started, reader.loaded, reader.connecting, reader.error) == (True, True, True, "")
    assert "Got 5 results, configured to fail" in reader.cause


@pytest.mark.parametrize(
    ("recording", "started", "loaded", "connecting", "error"),
    [
        ("database_locked", True, True, True, "IO Error: Could not set lock on file"),
        ("compile_error", True, True, False, "Compilation Error"),
        ("deps_failed", True, False, False, "Runtime Error\n  No dbt_project.yml found"),
        ("unknown_target", True, False, False, "Runtime Error\n  The profile 'small' does not have a target"),
        ("nothing_selected", True, True, False, ""),
        ("deps", True, False, False, ""),
        ("usage_error", False, False, False, ""),
        ("no_profiles_folder", False, False, False, ""),
        ("dbt_ol_without_a_project", False, False, False, ""),
    ],
)
def test_the_reader_reports_the_last_phase_of_dbt_and_its_error(
    recording: str, started: bool, loaded: bool, connecting: bool, error: str
) -> None:
    reader = reader_of(*recorded(recording))
    assert (reader.started, reader.loaded, reader.connecting) == (started, loaded, connecting)
    assert reader.error.strip().startswith(error)
    assert bool(reader.error) == bool(error)


@pytest.mark.parametrize(
    ("recording", "last"),
    [
        ("usage_error", "Error: No such option '--nonsense'. Did you mean '--no-defer'?"),
        ("nothing_selected", "Nothing to do. Try checking your model configs and model specification args"),
        ("dbt_ol_without_a_project", "FileNotFoundError: [Errno 2] No such file or directory: '/srv/hc/ok/nowhere/db"),
    ],
)
def test_the_cause_is_the_last_line_with_text(recording: str, last: str) -> None:
    assert reader_of(*recorded(recording), "", "   ").cause.startswith(last)


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("LogModelResult", {"status": "OK", "node_info": {"node_status": "success"}}, Progress(done=1, passed=1)),
        ("LogModelResult", {"status": "ERROR", "node_info": {"node_status": "error"}}, Progress(done=1, error=1)),
        ("LogModelResult", {"node_info": {"node_status": "partial success"}}, Progress(done=1, error=1)),
        ("LogSeedResult", {"status": "INSERT 5", "node_info": {"node_status": "success"}}, Progress(done=1, passed=1)),
        ("LogSnapshotResult", {"node_info": {"node_status": "error"}}, Progress(done=1, error=1)),
        ("LogTestResult", {"status": "pass"}, Progress(done=1, passed=1)),
        ("LogTestResult", {"status": "fail"}, Progress(done=1, error=1)),
        ("LogTestResult", {"status": "error"}, Progress(done=1, error=1)),
        ("LogTestResult", {"status": "warn"}, Progress(done=1, warn=1)),
        ("SkippingDetails", {}, Progress(done=1, skip=1)),
        ("LogNodeNoOpResult", {}, Progress(done=1, noop=1)),
        ("ConcurrencyLine", {"node_count": 41}, Progress(total=41)),
        ("LogStartLine", {"total": 41, "node_info": {"node_name": "orders"}}, Progress(total=41, current="orders")),
    ],
)
def test_each_event_adds_its_counts_to_the_progress(name: str, data: dict[str, Any], expected: Progress) -> None:
    assert reader_of(event_line(name, **data)).progress == expected


@pytest.mark.parametrize("name", ["LogModelResult", "LogTestResult", "LogStartLine", "ConcurrencyLine"])
@pytest.mark.parametrize("data", [None, [], "x", {}, {"node_info": None}, {"total": "many", "node_count": None}])
def test_an_event_with_missing_or_invalid_data_is_still_read(name: str, data: object) -> None:
    reader = reader_of(json.dumps({"info": {"name": name, "msg": "m"}, "data": data}))
    assert reader.progress is not None
    assert reader.cause == "m"


NOT_EVENTS = [
    "",
    "{",
    "{}",
    "[]",
    '{"info": ',
    '{"info": null}',
    '{"info": []}',
    '{"info": {"name": "MainReportVersion"}}',
    '{"info": {"name": "MainReportVersion", "msg": 5}}',
    '{"info": {"msg": "no name"}}',
    '{"info": {"name": [], "msg": "a name that is a list"}}',
    '{"info": {"name": {}, "msg": "a name that is a mapping"}}',
    '{"info": {"name": null, "msg": "a name that is nothing"}}',
    '{"total": NaN, "info": "Infinity"}',
    '{"info": {"name": "MainReportVersion", "msg": "x"}} and more',
    "\x00\x1b[31m{",
    '{"info": ' + "9" * 5_000 + "}",
    '{"info": ' + '{"a": ' * 100_000 + "}" * 100_001,
    '{"info": ' + "[" * 100_000,
]


@pytest.mark.parametrize("line", NOT_EVENTS, ids=range(len(NOT_EVENTS)))
def test_a_line_that_is_not_a_dbt_event_is_read_as_plain_text(line: str) -> None:
    assert parse_event(line) is None
    reader = reader_of("before", line)
    assert (reader.started, reader.progress) == (False, None)
    assert one_line(reader.cause) == (one_line(line) or "before")


@pytest.mark.parametrize(
    "line",
    [
        '{"table": "flights", "rows": 336776, "done": 1, "total": 5}',
        '{"information": "of another program"}',
        '{"info": "of another program"}',
        '{"info": {"level": "of another program", "msg": "has no name"}}',
        "[2026-11-21 23:11:09,147] [INFO] [openlineage.dbt:151] - Running OpenLineage dbt wrapper version 1.54.0",
        "plain {braces}",
        '{"data": {"rows": 5}} loaded\n',
        '{"info": {"status": "FATAL: disk full"}} (attempt 2)\n',
        '{"info": {"name": "MainReportVersion", "msg": "cut\n',
        "",
    ],
)
def test_a_line_that_is_not_a_dbt_event_is_shown_unchanged(line: str) -> None:
    assert render_line(line) == line


def test_an_event_is_shown_as_in_dbts_text_log() -> None:
    shown = [render_line(line) for line in recorded("build_failed")]
    assert shown[0] == "23:10:48  Running with dbt=1.11.16"
    assert shown[-1] == "23:10:51  Done. PASS=5 WARN=0 ERROR=2 SKIP=1 NO-OP=0 TOTAL=8"
    assert not any(line.startswith("{") for line in shown)


def test_an_incomplete_event_is_not_shown() -> None:
    whole = recorded("build_failed")[0]
    assert render_line(whole[:-40]) == ""


def test_an_event_behind_text_without_a_line_end_is_read() -> None:
    """A model in Python may print such text."""
    event = event_line("LogModelResult", "1 of 1 OK", node_info={"node_status": "success"})
    reader = reader_of(event_line("ConcurrencyLine", node_count=1), f"loading...{event}")
    assert reader.progress == Progress(done=1, total=1, passed=1)
    assert render_line(f"loading...{event}") == "loading...23:10:51  1 of 1 OK"
    assert render_line(f"loading...{event[:-9]}") == "loading..."
    braces = 'loaded {"data": {"rows": 5}} of {"info": {}}'
    assert render_line(braces) == braces


def test_events_that_edr_quotes_in_colour_are_shown_as_text() -> None:
    shown = [render_line(f"{line}\n") for line in recorded("edr_postgres_down")]
    assert not any('{"info"' in line for line in shown)
    assert render_line(f"{event_line('Note', 'said')}\x1b[0m") == "23:10:51  said"


def test_the_final_counts_are_dbts_own_whatever_events_are_missing() -> None:
    lines = [line for line in recorded("build_failed") if "Result" not in line]
    reader = reader_of(*lines)
    assert reader.results is not None
    assert replace(reader.results.progress, current=None) == Progress(done=8, total=8, passed=5, error=2, skip=1)
    stats = {"pass": 1, "warn": 2, "error": 3, "skip": 4, "noop": 5, "total": 15}
    assert reader_of(event_line("StatsLine", stats=stats)).progress == Progress(15, 15, 1, 2, 3, 4, 5)


def test_programs_after_dbt_do_not_change_which_run_it_was() -> None:
    def line(run: str) -> str:
        return json.dumps({"info": {"name": "X", "msg": "m", "invocation_id": run}})

    assert reader_of(line("dbt's"), line("edr's")).invocation_id == "dbt's"


def test_a_line_of_a_million_characters_is_read_as_an_event() -> None:
    trace = event_line("MainStackTrace", "Traceback (most recent call last):\n" + "x" * 1_000_000)
    reader = reader_of(event_line("MainEncounteredError", "Encountered an error:\nboom"), trace)
    assert reader.error.strip() == reader.cause.strip() == "boom"


def test_text_of_an_event_with_a_lone_surrogate_can_be_encoded() -> None:
    """JSON can escape half a surrogate pair, which UTF-8 can't encode: no record or response may have it."""
    line = '{"data": {"node_info": {"node_name": "\\ud800"}}, "info": {"name": "LogStartLine", "msg": "\\udfff"}}'
    reader = reader_of(line)
    assert reader.progress is not None
    for kept in (render_line(line), reader.cause, reader.progress.current):
        assert kept is not None
        kept.encode()
