"""What a record says of a step that failed: the cause, as real tools print it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeApi
from tests.support import projects
from tests.support.projects import write
from tests.support.quick_dbt import QUICK_DBT

PLAIN = {"pipeline": "dbt", "enableOpenlineage": False}
LOADS = """
    def model(dbt, session):
        print("loading...", end="", flush=True)
        return session.sql("select 1 as n")
"""
LACKS = """
    def model(dbt, session):
        import no_such_module
        return session.sql("select 1 as n")
"""
EXPOSURES = "exposures: [{name: page, type: dashboard, owner: {email: a@example.com}, depends_on: [ref('evens')]}]\n"
TRACEBACK = [sys.executable, "-c", "import shutil; shutil.copyfile('/no/such/file', 'copy')"]
SHELL = 'echo "ERROR: disk quota exceeded"; echo "removing 3 files"; exit 3'
BAR = r"""
    printf '\r 10%%|#   | 1/9\r 90%%|### | 8/9'
    echo 'ERROR: disk quota exceeded'
    printf '\r 90%%|### | 8/9\n'
    exit 3
"""


async def test_models_in_python_are_counted_and_fail_with_their_exception(tmp_path: Path, make_api: MakeApi) -> None:
    """Also where they print text without a line end, so that dbt's next event follows it; a no-op is no pass."""
    folder = projects.make(tmp_path / "project")
    for file, text in {"loads.py": LOADS, "lacks.py": LACKS, "page.yml": EXPOSURES}.items():
        write(folder / "transform/models" / file, text)
    api = await make_api(folder)
    record = await api.run(**PLAIN, command="build")
    expected = {"done": 8, "total": 8, "pass": 6, "warn": 0, "error": 1, "skip": 0, "noop": 1, "current": None}
    assert record["progress"] == expected, record
    assert record["firstFailure"] == {
        "node": "model.small.lacks",
        "message": "Runtime Error in model lacks (models/lacks.py) Python model failed: "
        "ModuleNotFoundError: No module named 'no_such_module'",
        "more": 0,
    }
    output = (await api.poll(record["jobId"]))["output"]
    assert "loading..." in output
    assert '{"data"' not in output


async def test_a_usage_error_behind_dbt_ol_is_dbts_own(tmp_path: Path, make_api: MakeApi) -> None:
    fabric = {"dbt": {"executable": str(QUICK_DBT.program), "arguments": ["--nonsense"]}}
    api = await make_api(projects.make(tmp_path / "project", settings={"fabrics": {"local": fabric}}))
    record = await api.run(pipeline="dbt", command="run", enableOpenlineage=True)
    assert "could not be started: Error: No such option" in record["error"]
    assert "OpenLineage" not in record["error"]


async def test_a_git_package_that_can_not_be_had_is_named_to_its_end(tmp_path: Path, make_api: MakeApi) -> None:
    folder = projects.make(tmp_path / "project")
    address = f"/no{'/such' * 150}/package.git"
    write(folder / "transform/packages.yml", f"packages: [{{git: {address}, revision: main}}]\n")
    record = await (await make_api(folder)).run(**PLAIN, command="deps")
    message = record["firstFailure"]["message"]
    assert message.startswith("Internal Error Error checking out")
    assert message.endswith("/such/such/package.git' does not exist")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (TRACEBACK, "FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file'"),
        (["sh", "-c", SHELL], "ERROR: disk quota exceeded"),
        (["sh", "-c", BAR], "ERROR: disk quota exceeded"),
        (["git", "clone", "/no/such/repository"], "fatal: repository '/no/such/repository' does not exist"),
    ],
    ids=["a traceback", "a clean-up", "a progress bar", "git"],
)
async def test_an_ingesters_error_is_its_cause(
    tmp_path: Path, make_api: MakeApi, command: list[str], message: str
) -> None:
    small: dict[str, Any] = {"dbt": "transform", "ingester": {"command": command}}
    api = await make_api(projects.make(tmp_path / "project", settings={"projects": {"small": small}}))
    record = await api.run(pipeline="ingester")
    assert record["firstFailure"] == {"node": "ingester", "message": message, "more": 0}
