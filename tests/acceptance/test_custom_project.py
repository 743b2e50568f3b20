"""A project unlike the demo: programs elsewhere, its own folders, another target."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeGateway
from tests.support import projects
from tests.support.gateway import Gateway
from tests.support.quick_dbt import QUICK_DBT


def _program(file: Path, script: str) -> Path:
    projects.write(file, script)
    file.chmod(0o755)
    return file


def _step_folder(gateway: Gateway, job_id: str, step: str) -> Path:
    return gateway.state / "jobs" / job_id / step


def _results(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "target/run_results.json").read_bytes())
    return results


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose dbt, dbt project, profiles and ingester are all in different folders."""
    tmp_path = tmp_path_factory.mktemp("elsewhere")
    dbt = _program(
        tmp_path / "opt/dbt/bin/dbt",
        f"""
        #!/bin/sh
        echo run >> {tmp_path}/dbt_runs
        exec {QUICK_DBT.program} "$@"
        """,
    )
    folder = projects.make(
        tmp_path / "gateway",
        settings={
            "projects": {
                "shop": {
                    "directory": "../shop",
                    "dbt": "models of the shop",
                    "ingester": {
                        "command": ["./load.sh", "a b", "$HOME;x"],
                        "directory": "loading",
                        "environment": {"SHOP": "corner"},
                    },
                }
            },
            "fabrics": {
                "night": {
                    "resources": {"ingester": "warehouse", "dbt": "warehouse"},
                    "dbt": {
                        "executable": str(dbt),
                        "target": "prod",
                        "threads": 3,
                        "profiles_directory": "../profiles",
                        "arguments": ["--fail-fast", '--vars={"who": "shop"}'],
                    },
                }
            },
        },
    )
    _program(tmp_path / "shop/loading/load.sh", '#!/bin/sh\necho "$PWD|$SHOP|$1|$2"\n')
    project = projects.dbt_project(tmp_path / "shop/models of the shop")
    (project / "profiles.yml").unlink()
    projects.write(
        tmp_path / "profiles/profiles.yml",
        """
        small:
          target: dev
          outputs:
            dev: {type: duckdb, path: /nowhere/at/all.duckdb}
            prod: {type: duckdb, path: "{{ env_var('WAREHOUSE') }}", threads: 1}
        """,
    )
    # a project may have this file; it must not redirect lineage
    (project / "openlineage.yml").write_text("transport: {type: console}\n")
    gateway = Gateway(folder, {"WAREHOUSE": str(tmp_path / "prod.duckdb"), "OPENLINEAGE_URL": "http://127.0.0.1:9"})
    yield gateway.start()
    gateway.stop()


@pytest.fixture(scope="module")
def first(elsewhere: Gateway) -> dict[str, Any]:
    """The record of its first run: ingester and build, with lineage; and how often that called dbt."""
    record = elsewhere.run(pipeline="full", command="build", enableOpenlineage=True)
    return {**record, "dbtRuns": (elsewhere.folder.parent / "dbt_runs").read_text().count("run\n")}


def test_a_project_runs_with_everything_as_configured(elsewhere: Gateway, first: dict[str, Any]) -> None:
    """Programs, folders, environment, target and arguments."""
    record, tmp_path = first, elsewhere.folder.parent
    assert (record["status"], record["exitCode"]) == ("completed", 0), record
    assert record["output"].startswith(f"{tmp_path}/shop/loading|corner|a b|$HOME;x\n")
    folder = _step_folder(elsewhere, record["jobId"], "2-build")
    arguments = _results(folder)["args"]
    assert (arguments["fail_fast"], arguments["vars"]) == (True, {"who": "shop"})
    assert "target='prod'" in record["output"]
    assert "Concurrency: 3 threads" in record["output"]
    assert (tmp_path / "prod.duckdb").exists()
    # dbt-ol called the configured dbt too, and lineage went only to the state directory
    assert record["dbtRuns"] == 1
    assert (folder / "lineage.ndjson").stat().st_size > 0
    # and dbt left no files in the project, whose target folder is made as by hand, since a database may be in there
    left = {path.name for path in (tmp_path / "shop/models of the shop").iterdir()}
    assert left == {"dbt_project.yml", "models", "openlineage.yml", "target"}
    assert list((tmp_path / "shop/models of the shop/target").iterdir()) == []


def test_a_second_run_reuses_the_parse_of_the_first(elsewhere: Gateway, first: dict[str, Any]) -> None:
    assert first["exitCode"] == 0, first
    [shared] = (elsewhere.state / "parse").iterdir()
    job = elsewhere.trigger(pipeline="dbt", command="run")
    assert elsewhere.finished(job)["exitCode"] == 0
    log = (_step_folder(elsewhere, job, "1-run") / "logs/dbt.log").read_text()
    assert str(shared) in log
    assert "Partial parsing enabled: 0 files deleted, 0 files added, 0 files changed" in log


def test_elementary_with_a_fake_edr_runs_last_even_after_failed_tests(
    tmp_path: Path, make_gateway: MakeGateway
) -> None:
    edr = _program(
        tmp_path / "edr",
        """
        #!/bin/sh
        for argument; do case "$argument" in --file-path=*) echo report > "${argument#--file-path=}";; esac; done
        echo "edr was called with $1"
        """,
    )
    dbt = {"executable": str(QUICK_DBT.program), "edr": str(edr)}
    folder = projects.make(tmp_path / "project", settings={"fabrics": {"local": {"dbt": dbt}}})
    projects.add_elementary(folder / "transform")
    projects.write(folder / "transform/tests/never.sql", "select 1 as wrong\n")
    gateway = make_gateway(folder)
    job = gateway.trigger(pipeline="dbt", enableOpenlineage=False)
    record = gateway.finished(job)
    assert (record["status"], record["success"], record["exitCode"]) == ("completed", True, 1)
    assert "ERROR=1" in record["output"]
    assert record["firstFailure"] == {
        "node": "test.small.never",
        "message": "Got 1 result, configured to fail if != 0",
        "more": 0,
    }
    assert [(step["name"], step["exitCode"]) for step in record["steps"]] == [
        ("deps", 0),
        ("build", 1),
        ("elementary", 0),
    ]
    assert (_step_folder(gateway, job, "3-elementary") / "elementary_report.html").read_text() == "report\n"
    assert record["output"].endswith("edr was called with report\n")


def test_a_database_locked_by_another_process_is_named_in_the_error(tmp_path: Path, make_gateway: MakeGateway) -> None:
    duckdb = pytest.importorskip("duckdb")
    gateway = make_gateway(projects.make(tmp_path / "project"))
    with duckdb.connect(str(tmp_path / "project/warehouse.duckdb")):
        record = gateway.run(pipeline="dbt", command="run")
    assert (record["status"], record["reason"], record["exitCode"]) == ("failed", "not_started", -1)
    assert "Could not set lock" in record["error"]
    assert record["error"].endswith("trigger it again.")


def test_a_model_that_does_not_compile_completes_the_job_with_exit_code_2(
    tmp_path: Path, make_gateway: MakeGateway
) -> None:
    folder = projects.make(tmp_path / "project")
    projects.write(folder / "transform/models/broken.sql", "select {{ nonsense( }}\n")
    gateway = make_gateway(folder)
    record = gateway.run(pipeline="dbt", command="build")
    assert (record["status"], record["success"], record["exitCode"]) == ("completed", True, 2)
    assert "Compilation Error" in record["firstFailure"]["message"]


def test_a_missing_adapter_is_reported_in_dbts_own_words(tmp_path: Path, make_gateway: MakeGateway) -> None:
    """The gateway knows nothing of adapters."""
    folder = projects.make(tmp_path / "project")
    profile = folder / "transform/profiles.yml"
    profile.write_text(profile.read_text().replace("duckdb,", "teradata,"))
    gateway = make_gateway(folder)
    record = gateway.run(pipeline="dbt", command="run")
    assert (record["status"], record["reason"]) == ("failed", "not_started")
    assert "teradata" in record["error"]
