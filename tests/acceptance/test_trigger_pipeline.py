"""Versions, parameters and processes with the real dbt, git and DuckDB, checked in the warehouse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeGateway
from tests.support import bakehouse, projects, repositories
from tests.support.bakehouse import FABRIC, PATH, PIPELINE, PROJECT
from tests.support.gateway import Answer, Gateway, wait_for

BAKEHOUSE = {"fabricId": FABRIC, "projectId": PROJECT, "pipelineName": PIPELINE}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for the tests that do not disturb it; each of them commits on a branch of its own."""
    made = Gateway(bakehouse.make(tmp_path_factory.mktemp("trigger") / "bakery")).start()
    yield made
    made.stop()


def post(gateway: Gateway, **fields: Any) -> Answer:
    return gateway.call("POST", PATH, {**BAKEHOUSE, **fields})


def triggered(gateway: Gateway, **fields: Any) -> str:
    answer = post(gateway, **fields)
    assert answer.status == 200, answer
    return str(answer.json["runId"])


def ended(gateway: Gateway, run: str) -> dict[str, Any]:
    def over() -> dict[str, Any] | None:
        status = gateway.call("GET", f"{PATH}/{run}").json
        return None if status["runStatus"] == "RUNNING" else status

    status: dict[str, Any] = wait_for(over, f"the end of {run}")
    return status


def ran(gateway: Gateway, **fields: Any) -> dict[str, Any]:
    return ended(gateway, triggered(gateway, **fields))


def succeeds(gateway: Gateway, **fields: Any) -> None:
    status = ran(gateway, **fields)
    assert status["runStatus"] == "SUCCEEDED", status


def branch(gateway: Gateway, name: str, files: dict[str, str], remove: tuple[str, ...] = ()) -> None:
    """Commit these files of the dbt project on a new branch of version 2, without those that are to be removed."""
    repository = gateway.folder / "bakehouse"
    repositories.git(repository, "switch", "--quiet", "--create", name, "v2")
    if remove:
        repositories.git(repository, "rm", "-r", "--quiet", *(f"transform/{path}" for path in remove))
    repositories.commit(repository, {f"transform/{path}": text for path, text in files.items()})
    repositories.switch(repository, "main")


@pytest.fixture(scope="module")
def runs(gateway: Gateway) -> list[tuple[set[str], set[int]]]:
    """Tables and franchises after runs of version 1, of version 2 with a parameter, and of version 2 without."""
    found = []
    for fields in ({"version": "1"}, {"version": "2", "parameters": {"franchise_id": 3000009}}, {"version": "2"}):
        succeeds(gateway, **fields)
        ids = bakehouse.rows(gateway.folder, "select franchise_id from franchise_summary")
        found.append((bakehouse.tables(gateway.folder), {franchise for (franchise,) in ids}))
    return found


def test_a_version_builds_the_models_of_its_commit_and_no_others(runs: list[tuple[set[str], set[int]]]) -> None:
    of_1 = {"franchises", "franchise_summary"}
    of_2 = {"franchises", "franchise_reviews", "franchise_summary"}
    assert [tables for tables, _ in runs] == [of_1, of_2, of_2]


def test_a_parameter_changes_the_rows_of_a_gold_table(runs: list[tuple[set[str], set[int]]]) -> None:
    """The run without it does not reuse the parse of the run with it."""
    assert [franchises for _, franchises in runs[1:]] == [{3000009}, {3000007, 3000008, 3000009}]


def test_an_unknown_process_is_refused_by_name_and_nothing_runs(gateway: Gateway) -> None:
    before = gateway.call("GET", "/api/data-analytics/pipeline/trigger").json["jobs"]
    # in the directory, in a commit, and in a pipeline whose selection lacks the model
    for fields in ({}, {"version": "1"}, {"version": "2", "pipelineName": "gold"}):
        answer = post(gateway, processName="franchise_reviews" if fields else "franchise_review", **fields)
        assert answer.status == 400, answer
        assert "Process `franchise_review" in answer.json["msg"]
        assert "` not found" in answer.json["msg"]
        assert "franchise_summary" in answer.json["msg"], "the refusal names the processes that exist"
    assert gateway.call("GET", "/api/data-analytics/pipeline/trigger").json["jobs"] == before


def test_a_process_of_a_broken_project_is_refused_in_dbts_words(gateway: Gateway) -> None:
    branch(gateway, "lost", {"models/gold/lost.sql": "select * from {{ ref('nowhere') }}"})
    answer = post(gateway, branch="lost", processName="franchises")
    assert answer.status == 400
    assert "depends on a node named 'nowhere' which was not found" in answer.json["msg"]


def test_a_process_is_found_in_a_checkout_without_installed_packages(gateway: Gateway) -> None:
    package = gateway.folder / "home/shared"
    projects.write(package / "dbt_project.yml", "name: shared\nversion: '1.0'\n")
    projects.write(package / "macros/stars.sql", "{% macro most() %}5{% endmacro %}\n")
    best = {"models/silver/best.sql": "select {{ shared.most() }} as stars\n"}
    branch(gateway, "packages", {**best, "packages.yml": f"packages: [{{local: {package}}}]\n"})
    succeeds(gateway, branch="packages", processName="best")
    assert bakehouse.rows(gateway.folder, "select stars from best") == [(5,)]


def test_an_empty_selection_is_an_error(gateway: Gateway) -> None:
    branch(gateway, "no_gold", {}, remove=("models/gold", "tests"))
    status = ran(gateway, pipelineName="gold", branch="no_gold")
    assert status["runStatus"] == "ERROR"
    assert (
        "found nothing to do in what was selected (--select=gold --indirect-selection=buildable --exclude=never)"
        in status["errorMessage"]
    )


def test_a_queued_run_survives_a_kill_and_the_loss_of_its_commit(tmp_path: Path, make_gateway: MakeGateway) -> None:
    """It runs on the commit that its record names, with its parameters, though its checkout and its tag are gone."""
    gateway = make_gateway(bakehouse.make(tmp_path / "bakery"))
    wait = gateway.folder / "home/wait"
    wait.touch()
    commit = repositories.git(gateway.folder / "bakehouse", "rev-parse", "v2^{commit}")
    first = triggered(gateway, processName="ingester")
    waiting = triggered(gateway, version="2", processName="ingester", parameters={"source": "orders"})
    wait_for(lambda: gateway.poll(first)["phase"] == "ingester", "the first run")
    gateway.kill()
    checkouts = gateway.state / "checkouts"
    if checkouts.exists():
        checkouts.rename(gateway.folder / "lost")
    repositories.git(gateway.folder / "bakehouse", "tag", "--delete", "v2")
    gateway.start()
    assert gateway.call("GET", f"{PATH}/{waiting}").json["runStatus"] == "RUNNING"
    wait.unlink()
    assert ended(gateway, waiting)["runStatus"] == "SUCCEEDED"
    assert gateway.poll(waiting)["output"] == f"ingester --source=orders in {checkouts / str(FABRIC) / commit}\n"


def test_the_other_api_runs_a_repository_on_its_working_branch(tmp_path: Path, make_gateway: MakeGateway) -> None:
    project = {"repository": "bakehouse", "directory": ".", "branch": "dev"}
    gateway = make_gateway(bakehouse.make(tmp_path / "bakery", project=project))
    record = gateway.run(pipeline="dbt", command="build")
    assert (record["status"], record["exitCode"]) == ("completed", 0), record
    assert "only_on_dev" in bakehouse.tables(gateway.folder)
    commit = repositories.git(gateway.folder / "bakehouse", "rev-parse", "dev")
    assert gateway.call("GET", f"/api/v1/jobs/{record['jobId']}").json["commit"] == commit
