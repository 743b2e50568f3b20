"""The run_results.json of a dbt step, and the outcome of a step by its exit code, its log and its results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runners.dbt.command import DbtStep, report_file
from runners.dbt.output import DbtReader
from runners.dbt.results import judge_outcome, read_results
from runners.mask import Mask
from runners.outcome import Exited, Killed, Lost, NotStarted, Outcome, Span, Stopped, TimedOut
from runners.report import Failure, Progress
from tests.support import projects
from tests.support.recorded import recorded

SPAN = Span(started=1_795_262_400.0, finished=1_795_262_402.5, duration=2.5)
BUILD = DbtStep("build")
LINEAGE = DbtStep("build", lineage=True)
DEPS = DbtStep("deps")
ELEMENTARY = DbtStep("run", elementary=True)
REPORT = DbtStep("run", elementary=True, report=True)

PASSED = ["success", "pass"]
FAILED = ["success", "error"]


def outcome_of(
    folder: Path, step: DbtStep, code: int, recording: str | None, statuses: list[str] | None = None
) -> Outcome:
    """The outcome of a step with this recorded output, results of these statuses and this exit code."""
    reader = DbtReader()
    for line in recorded(recording) if recording else []:
        reader.feed(line)
    if statuses is not None:
        nodes = [
            {"unique_id": f"model.small.m{number}", "status": status, "message": f"message {number}"}
            for number, status in enumerate(statuses)
        ]
        (folder / "target").mkdir(exist_ok=True)
        (folder / "target/run_results.json").write_text(json.dumps({"results": nodes}))
    return judge_outcome(
        Exited(code, SPAN), step, reader, read_results(folder), Mask(), has_report=report_file(folder).exists()
    )


@pytest.mark.parametrize(
    ("step", "code", "recording", "statuses"),
    [
        (BUILD, 0, "build_failed", PASSED),
        (BUILD, 0, "nothing_selected", []),
        (BUILD, 0, "build_failed", ["success", "warn", "skipped"]),
        (BUILD, 1, "build_failed", FAILED),
        (LINEAGE, 0, "build_failed", PASSED),
        (LINEAGE, 1, "build_failed", FAILED),
        (LINEAGE, 2, "compile_error", None),
        (BUILD, 2, "compile_error", None),
        (BUILD, 2, "build_failed", PASSED),
        (DEPS, 0, "deps", None),
        (DEPS, 2, "deps_failed", None),
        (ELEMENTARY, 0, "build_failed", ["success"]),
        (ELEMENTARY, 1, "build_failed", FAILED),
        (BUILD, 247, "build_failed", FAILED),
    ],
    ids=[
        "a successful build",
        "a selection that matches nothing is a success for dbt",
        "warnings and skips are no failures",
        "models failed",
        "a successful build through dbt-ol",
        "models failed through dbt-ol",
        "a compile error through dbt-ol",
        "a compile error is a failed run",
        "interrupted, with the results of finished nodes",
        "successful deps",
        "failed deps are a failed run",
        "Elementary's models ran",
        "Elementary's models failed",
        "without dbt-ol 247 is an exit code",
    ],
)
def test_an_exit_code_confirmed_by_log_and_results_is_unchanged(
    tmp_path: Path, step: DbtStep, code: int, recording: str, statuses: list[str] | None
) -> None:
    assert outcome_of(tmp_path, step, code, recording, statuses) == Exited(code, SPAN)


@pytest.mark.parametrize(
    ("step", "code", "recording", "statuses", "why"),
    [
        (BUILD, 0, None, None, "without leaving a run_results.json"),
        (BUILD, 0, "build_failed", None, "without leaving a run_results.json"),
        (LINEAGE, 0, None, None, "without leaving a run_results.json"),
        (BUILD, 0, "build_failed", FAILED, "exited 0, but model.small.m1 failed: message 1"),
        (LINEAGE, 0, "build_failed", FAILED, "exited 0, but model.small.m1 failed: message 1"),
        (DEPS, 0, None, None, "exited 0 without having run"),
        (ELEMENTARY, 0, "nothing_selected", [], "found no model of Elementary to run; run `deps`"),
        (REPORT, 0, "build_failed", ["success"], "edr exited 0 without leaving its report"),
    ],
    ids=[
        "a program without output",
        "dbt ran but left no results",
        "dbt-ol that did not run dbt",
        "a model failed",
        "a model failed through dbt-ol",
        "deps that did not run",
        "Elementary's package has no models",
        "edr left no report",
    ],
)
def test_exit_code_0_not_confirmed_by_log_and_results_is_not_started(
    tmp_path: Path, step: DbtStep, code: int, recording: str | None, statuses: list[str] | None, why: str
) -> None:
    outcome = outcome_of(tmp_path, step, code, recording, statuses)
    assert isinstance(outcome, NotStarted)
    assert why in outcome.why
    assert (outcome.code, outcome.span) == (0, SPAN)


@pytest.mark.parametrize(("package", "is_enough"), [("elementary", False), ("small", True)])
def test_elementarys_models_and_hooks_are_not_what_was_selected(tmp_path: Path, package: str, is_enough: bool) -> None:
    step = DbtStep("build", ("--select=marts",), with_elementary=True, selective=True)
    names = (f"model.{package}.runs", "operation.small.small-on-run-end-0")
    nodes = [{"unique_id": name, "status": "success", "message": None} for name in names]
    projects.write(tmp_path / "target/run_results.json", json.dumps({"results": nodes}))
    outcome = judge_outcome(Exited(0, SPAN), step, DbtReader(), read_results(tmp_path), Mask(), has_report=False)
    assert (outcome == Exited(0, SPAN)) is is_enough
    assert is_enough or "found nothing to do in what was selected (--select=marts)" in str(outcome)


def test_exit_code_0_of_elementary_with_its_report_is_unchanged(tmp_path: Path) -> None:
    (tmp_path / "elementary_report.html").write_text("<html>")
    assert outcome_of(tmp_path, REPORT, 0, "build_failed", ["success"]) == Exited(0, SPAN)


@pytest.mark.parametrize(
    ("step", "code", "recording", "why"),
    [
        (LINEAGE, 1, "dbt_ol_without_a_project", "dbt build could not be started: FileNotFoundError"),
        (LINEAGE, 1, None, "dbt build could not be started: it said nothing"),
        (BUILD, 2, "usage_error", "dbt build could not be started: Error: No such option '--nonsense'."),
        (BUILD, 2, "no_profiles_folder", "dbt build could not be started: Error: Invalid value for '--profiles-dir'"),
        (BUILD, 2, "unknown_target", "The profile 'small' does not have a target named 'nope'"),
        (DEPS, 2, "usage_error", "dbt deps could not be started: Error: No such option"),
        (BUILD, 2, "database_locked", 'could not use its database: IO Error: Could not set lock on file "/srv/hc/ok'),
        (LINEAGE, 2, "database_locked", "could not use its database: IO Error: Could not set lock"),
        (LINEAGE, 2, "postgres_down", 'could not use its database: Database Error connection to server at "127.0.0.1"'),
        (BUILD, 127, None, "dbt build could not be started"),
    ],
    ids=[
        "dbt-ol failed before it ran dbt",
        "dbt-ol without output",
        "an unknown option",
        "no profiles folder",
        "an unknown target",
        "an unknown option of deps",
        "a locked database",
        "a locked database through dbt-ol",
        "PostgreSQL that is down",
        "a missing program",
    ],
)
def test_a_failure_before_dbt_began_its_work_is_not_started(
    tmp_path: Path, step: DbtStep, code: int, recording: str | None, why: str
) -> None:
    outcome = outcome_of(tmp_path, step, code, recording)
    assert isinstance(outcome, NotStarted)
    assert why in outcome.why
    assert "\n" not in outcome.why
    assert (outcome.code, outcome.span) == (code, SPAN)


@pytest.mark.parametrize("after", range(0, 260, 10))
def test_why_a_step_did_not_begin_is_cut_without_secrets(after: int) -> None:
    secret, reader = "correct horse battery staple", DbtReader()
    reader.feed(f"Error: {'begin ' * 100}{secret} {'e' * after} last")
    mask = Mask(("KEY",)).with_secrets_of({"KEY": secret})
    outcome = judge_outcome(Exited(2, SPAN), BUILD, reader, None, mask, has_report=False)
    assert isinstance(outcome, NotStarted)
    assert " last; mend that" in outcome.why
    assert not any(word in outcome.why for word in ("orrect", "horse", "battery", "staple"))


@pytest.mark.parametrize(("code", "number"), [(247, 9), (241, 15), (254, 2), (255, 1), (192, 64)])
def test_a_code_of_dbt_ol_of_256_minus_a_signal_means_killed(tmp_path: Path, code: int, number: int) -> None:
    assert outcome_of(tmp_path, LINEAGE, code, "build_failed") == Killed(number, SPAN)


def test_a_code_of_dbt_ol_below_192_is_an_exit_code(tmp_path: Path) -> None:
    assert outcome_of(tmp_path, LINEAGE, 191, "build_failed", FAILED) == Exited(191, SPAN)


@pytest.mark.parametrize(
    "outcome", [Killed(9, SPAN), TimedOut(143, SPAN), Stopped(2, SPAN), NotStarted("no program"), Lost("nobody saw")]
)
@pytest.mark.parametrize("step", [BUILD, LINEAGE, DEPS, ELEMENTARY, REPORT])
def test_an_outcome_other_than_exited_is_unchanged(outcome: Outcome, step: DbtStep) -> None:
    assert judge_outcome(outcome, step, DbtReader(), None, Mask(), has_report=False) == outcome


def write_results(folder: Path, content: object) -> Path:
    (folder / "target").mkdir(exist_ok=True)
    (folder / "target/run_results.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def node(name: str, status: str, message: str | None = None) -> dict[str, Any]:
    return {"unique_id": name, "status": status, "message": message, "timing": [], "execution_time": 0.1}


def test_results_are_counted_and_the_first_failure_is_one_line(tmp_path: Path) -> None:
    message = 'Runtime Error in model broken\n  Binder Error: Referenced column "nope" not found\n  "n"'
    nodes = [
        node("model.small.numbers", "success", "OK"),
        node("test.small.unique", "pass"),
        node("model.small.broken", "error", message),
        node("model.small.after", "skipped"),
        node("test.small.few", "warn", "Got 5 results, configured to warn if != 0"),
        node("test.small.none", "fail", "Got 5 results, configured to fail if != 0"),
        node("exposure.small.page", "no-op", "NO-OP"),
    ]
    found = read_results(write_results(tmp_path, {"metadata": {}, "results": nodes}))
    assert found is not None
    assert found.progress == Progress(done=7, total=7, passed=2, warn=1, error=2, skip=1, noop=1)
    one_line = 'Runtime Error in model broken Binder Error: Referenced column "nope" not found "n"'
    assert found.failure == Failure("model.small.broken", one_line, 1)


@pytest.mark.parametrize("status", ["error", "fail", "runtime error", "partial success"])
def test_a_failure_without_a_message_says_so(tmp_path: Path, status: str) -> None:
    found = read_results(write_results(tmp_path, {"results": [node("model.a.b", status)]}))
    assert found is not None
    assert found.failure == Failure("model.a.b", "failed without a message", 0)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"results": 5}', '{"results": [5]}', '{"results": [{}]}'])
def test_missing_or_incomplete_results_are_none(tmp_path: Path, content: str) -> None:
    assert read_results(tmp_path) is None
    assert read_results(write_results(tmp_path, content)) is None


def test_results_without_nodes_are_valid(tmp_path: Path) -> None:
    found = read_results(write_results(tmp_path, {"results": []}))
    assert found is not None
    assert (found.progress, found.failure) == (Progress(), None)
