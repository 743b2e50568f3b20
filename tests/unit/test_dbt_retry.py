"""What `dbt retry` goes on from, and when a step runs as a whole instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runners.dbt import command as dbt
from runners.dbt.command import DbtConfig, DbtStep
from runners.dbt.results import read_results
from runners.dbt.retry import prepare
from runners.mask import Mask


def left(folder: Path, results: dict[str, str], **arguments: Any) -> Path:
    """The folder of an attempt with these results: statuses by node."""
    target = folder / "target/run_results.json"
    target.parent.mkdir(parents=True)
    nodes = [{"unique_id": node, "status": status, "message": f"{node}: {status}"} for node, status in results.items()]
    target.write_text(json.dumps({"args": {"which": "build", **arguments}, "results": nodes}))
    return folder


def state(folder: Path) -> dict[str, str]:
    found = json.loads(dbt.state_file(folder).read_text())["results"]
    return {result["unique_id"]: result["status"] for result in found}


def test_a_retry_goes_on_from_the_results_of_all_attempts(tmp_path: Path) -> None:
    first = left(tmp_path / "1-build", {"model.a": "success", "model.b": "error", "model.c": "skipped"})
    second, third = tmp_path / "1-build.2", tmp_path / "1-build.3"
    assert prepare(first, second) is None
    left(second, {"model.b": "success", "model.c": "error"})
    assert prepare(second, third) is None
    assert state(third) == {"model.a": "success", "model.b": "success", "model.c": "error"}


def test_an_attempt_that_was_killed_leaves_the_results_before_it(tmp_path: Path) -> None:
    first, second = left(tmp_path / "1-build", {"model.a": "error"}), tmp_path / "1-build.2"
    assert prepare(first, second) is None
    assert prepare(second, tmp_path / "1-build.3") is None
    assert state(tmp_path / "1-build.3") == {"model.a": "error"}


@pytest.mark.parametrize(
    ("results", "arguments", "why"),
    [
        ({"model.a": "success"}, {}, "none of its nodes had failed"),
        ({"operation.small.hook": "error"}, {}, "none of its nodes had failed"),
        ({"model.a": "error"}, {"which": "freshness"}, "was no run that dbt can go on with"),
        (None, {}, "left no results"),
        ({"model.***.a": "error"}, {}, "a secret is part of it"),  # as the results of a container are kept
        ({"model.a": "error"}, {"target": "***"}, "a secret is part of it"),
    ],
)
def test_a_step_runs_as_a_whole_where_dbt_could_not_go_on(
    tmp_path: Path, results: dict[str, str] | None, arguments: dict[str, str], why: str
) -> None:
    earlier = tmp_path / "1-build" if results is None else left(tmp_path / "1-build", results, **arguments)
    said = prepare(earlier, tmp_path / "1-build.2")
    assert said is not None
    assert why in said
    assert not dbt.state_file(tmp_path / "1-build.2").exists()


def test_a_masked_variable_is_given_again_and_so_no_hindrance(tmp_path: Path) -> None:
    called = "dbt build --vars={token: ***}"
    earlier = left(tmp_path / "1", {"model.a": "error"}, vars={"token": "***"}, invocation_command=called)
    assert prepare(earlier, tmp_path / "2") is None


def test_results_that_can_not_be_read_are_no_error(tmp_path: Path) -> None:
    earlier = left(tmp_path / "1", {"model.a": "error"})
    (earlier / "target/run_results.json").unlink()
    (earlier / "target/run_results.json").mkdir()
    said = prepare(earlier, tmp_path / "2")
    assert said is not None
    assert "can't be taken over" in said


def test_what_failed_and_was_not_run_again_still_counts(tmp_path: Path) -> None:
    first, second = left(tmp_path / "1", {"operation.hook": "error", "model.a": "error"}), tmp_path / "2"
    assert prepare(first, second) is None
    left(second, {"model.a": "success"})
    results = read_results(second)
    assert results is not None
    assert results.failure is not None
    assert (results.failure.node, results.progress.done, results.progress.error) == ("operation.hook", 2, 1)


def test_results_of_before_are_no_proof_of_a_retry(tmp_path: Path) -> None:
    assert prepare(left(tmp_path / "1", {"model.a": "error"}), tmp_path / "2") is None
    assert read_results(tmp_path / "2") is None


def test_a_retry_is_plain_dbt_with_the_steps_own_variables(tmp_path: Path) -> None:
    config = DbtConfig(tmp_path, threads=3, arguments=("--full-refresh",))
    step = DbtStep("build", ("--select=a", "--vars={}"), lineage=True)
    gone = str(tmp_path / "gone.msgpack")
    assert prepare(left(tmp_path / "1", {"model.a": "error"}, partial_parse_file_path=gone), tmp_path / "2") is None
    assert gone not in dbt.state_file(tmp_path / "2").read_text()
    paths = dbt.paths(config, tmp_path / "2", tmp_path / "cache", {})
    [argv] = dbt.command(config, step, paths, {}, grace=1, time_limit=1, mask=Mask()).argvs
    assert argv[:2] == ("dbt", "retry")
    assert {f"--state={tmp_path / '2/state'}", "--threads=3", "--vars={}"} < set(argv)
    assert not {"--select=a", "--full-refresh"} & set(argv)
