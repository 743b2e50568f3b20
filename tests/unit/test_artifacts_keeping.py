"""What is kept of the files that a step leaves: which of them, without secrets, and what becomes of the others."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gateway.artifacts.keeping import LARGEST, keep, keep_command
from gateway.model.plan import StepName
from runners.dbt import artifacts
from runners.mask import Mask
from runners.outcome import Command

SECRET = 'p"ss wörd/1'
MASK = Mask(values=frozenset({SECRET}))
WHOLE = '{"metadata": {}}'


def leave(step: Path, artifact: str, text: str = WHOLE) -> Path:
    """A file that a step leaves, where dbt or its companions write it."""
    file = artifacts.files(step)[artifact]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")
    return file


def kept(step: Path) -> dict[str, str]:
    return {file.name: file.read_text("utf-8") for file in (step / "artifacts").iterdir()}


def kept_of(step: Path) -> tuple[str, ...]:
    return keep(step, StepName.BUILD, MASK)


def test_each_artifact_of_a_step_is_kept_under_its_name(tmp_path: Path) -> None:
    names = ["run_results.json", "manifest.json", "catalog.json", "sources.json"]
    names += ["docs.html", "lineage.ndjson", "elementary_report.html"]
    for name in names:
        leave(tmp_path, name, f'{{"{name}": 1}}\n')
    leave(tmp_path, "manifest.json").with_name("graph_summary.json").write_text(WHOLE)
    assert kept_of(tmp_path) == ()
    assert sorted(kept(tmp_path)) == sorted(names)
    assert kept(tmp_path)["docs.html"] == '{"docs.html": 1}\n'


def test_a_step_that_leaves_nothing_has_no_artifacts(tmp_path: Path) -> None:
    assert keep(tmp_path / "removed", StepName.BUILD, MASK) == ()
    assert not (tmp_path / "removed").exists()


def test_secrets_are_masked_in_what_is_kept(tmp_path: Path) -> None:
    padding = "x" * ((1 << 20) - 20)  # the first secret is where two pieces meet
    document = {"padding": padding, "message": f"no {SECRET} here", "url": "postgresql://loader:hunter22@db/x"}
    leave(tmp_path, "run_results.json", json.dumps(document))
    leave(tmp_path, "lineage.ndjson", json.dumps({"sql": SECRET}, ensure_ascii=False) + "\n")
    assert kept_of(tmp_path) == ()
    assert json.loads(kept(tmp_path)["run_results.json"]) == {
        "padding": padding,
        "message": "no *** here",
        "url": "postgresql://loader:***@db/x",
    }
    assert kept(tmp_path)["lineage.ndjson"] == '{"sql": "***"}\n'


def test_a_file_that_is_too_large_is_not_kept_and_noted(tmp_path: Path) -> None:
    os.truncate(leave(tmp_path, "manifest.json"), LARGEST + 1)
    leave(tmp_path, "run_results.json")
    [note] = kept_of(tmp_path)
    assert note == (
        "manifest.json of the step build is not kept: it has 67108865 bytes, and the most for one artifact is 67108864."
    )
    assert list(kept(tmp_path)) == ["run_results.json"]


@pytest.mark.parametrize("half", ["", '{"metadata": {"a": 1}, "results": [{"status": "suc'])
def test_a_document_that_dbt_left_half_written_is_not_kept(tmp_path: Path, half: str) -> None:
    leave(tmp_path, "run_results.json", half)
    [note] = kept_of(tmp_path)
    assert note == "run_results.json of the step build is not kept: dbt was stopped while it wrote the file."
    assert not (tmp_path / "artifacts").exists()


def test_what_is_no_regular_file_is_not_kept(tmp_path: Path) -> None:
    leave(tmp_path, "run_results.json")
    os.mkfifo(artifacts.files(tmp_path)["manifest.json"])
    [note] = kept_of(tmp_path)
    assert note.startswith("manifest.json of the step build could not be kept: ")
    assert list(kept(tmp_path)) == ["run_results.json"]


def test_the_command_of_a_step_is_kept_masked_as_decided_first(tmp_path: Path) -> None:
    argv = ("dbt", "build", f"--vars={json.dumps({'password': SECRET})}")
    keep_command(tmp_path, Command((argv,), "/srv/shop", {"PATH": "/bin", "DBT_PASSWORD": SECRET}, mask=MASK))
    keep_command(tmp_path, Command((("dbt", "run"),), "/", {}))
    assert json.loads(kept(tmp_path)["command.json"]) == {
        "argvs": [["dbt", "build", '--vars={"password": "***"}']],
        "cwd": "/srv/shop",
        "variables": ["DBT_PASSWORD", "PATH"],
    }


def test_a_command_that_can_not_be_kept_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "artifacts").touch()
    keep_command(tmp_path, Command((("dbt", "run"),), "/", {}))


@pytest.mark.parametrize(("content", "is_from"), [('{"metadata": {"invocation_id": "a-b"}}', True), (WHOLE, False)])
def test_a_file_is_of_a_run_only_if_it_has_its_id(content: str, is_from: bool) -> None:
    assert artifacts.is_from_run(content.encode(), "a-b") is is_from
    assert not artifacts.is_from_run(content.encode(), "")
