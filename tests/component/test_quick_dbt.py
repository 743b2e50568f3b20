"""The quick dbt of other tests behaves as the installed one: it is what they call dbt."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support import projects
from tests.support.quick_dbt import QUICK_DBT


def test_the_quick_dbt_exits_and_names_itself_as_dbt_does(tmp_path: Path) -> None:
    done = subprocess.run([QUICK_DBT.program, "nonsense"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: dbt [OPTIONS]")


def test_the_quick_dbt_has_the_environment_folder_and_umask_of_its_call(tmp_path: Path) -> None:
    project = projects.dbt_project(tmp_path / "transform")
    projects.write(project / "models/evens.sql", "select '{{ env_var(\"WORD\") }}' as n")
    command = [str(QUICK_DBT.program), "compile", "--quiet", "--select=evens", "--log-path=logs"]
    done = subprocess.run(command, cwd=project, env={**os.environ, "WORD": "given"}, umask=0o077, capture_output=True)
    assert (done.returncode, "select 'given' as n" in done.stdout.decode()) == (0, True), done
    assert (project / "logs/dbt.log").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_quick_dbt_that_is_ended_by_a_signal_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    project = projects.dbt_project(tmp_path / "transform")
    with subprocess.Popen([QUICK_DBT.program, "build"], cwd=project, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"Running with dbt" in process.stdout.readline()
        process.send_signal(number)
        process.stdout.read()  # to the end, so no process has it any more
        assert process.wait() == -number
    assert not (project / "target/run_results.json").exists()
