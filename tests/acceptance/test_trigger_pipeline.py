"""Versions, parameters, processes and the queue with the real dbt, git and DuckDB, checked in the warehouse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import MakeGateway
from tests.support import bakehouse, projects, repositories
from tests.support.bakehouse import FABRIC, PATH, PIPELINE, PROJECT
from tests.support.gateway import Answer, Gateway, wait_for

BAKEHOUSE = {"fabricId": FABRIC, "projectId": PROJECT, "pipelineName": PIPELINE}
FRANCHISES = {3000007, 3000008, 3000009}


@pytest.fixture
def gateway(tmp_path: Path, make_gateway: MakeGateway) -> Gateway:
    return make_gateway(bakehouse.make(tmp_path / "bakery"))


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


def franchises(gateway: Gateway) -> set[int]:
    return {found for (found,) in bakehouse.rows(gateway.folder, "select franchise_id from franchise_summary")}


def test_a_version_builds_the_models_of_its_commit_and_no_others(gateway: Gateway) -> None:
    succeeds(gateway, version="1")
    assert bakehouse.tables(gateway.folder) == {"franchises", "franchise_summary"}
    succeeds(gateway, version="2")
    assert bakehouse.tables(gateway.folder) == {"franchises", "franchise_reviews", "franchise_summary"}
    succeeds(gateway, branch="dev")
    assert "only_on_dev" in bakehouse.tables(gateway.folder)


def test_a_parameter_changes_the_rows_of_a_gold_table(gateway: Gateway) -> None:
    succeeds(gateway, version="2")
    assert franchises(gateway) == FRANCHISES
    for given in ("3000008", 3000009):
        succeeds(gateway, version="2", parameters={"franchise_id": given})
        assert franchises(gateway) == {int(given)}
    succeeds(gateway, version="2")  # it must not reuse the parse of a run with a parameter
    assert franchises(gateway) == FRANCHISES


def test_a_run_up_to_a_silver_model_runs_neither_gold_nor_its_tests(gateway: Gateway) -> None:
    run = triggered(gateway, version="2", processName="franchise_reviews")
    assert ended(gateway, run)["runStatus"] == "SUCCEEDED"
    assert bakehouse.tables(gateway.folder) == {"franchises", "franchise_reviews"}
    assert "nothing_lost" not in gateway.poll(run)["output"]


def test_a_run_up_to_a_model_stays_within_the_pipelines_selection(gateway: Gateway) -> None:
    succeeds(gateway, version="2")
    run = triggered(gateway, pipelineName="gold", version="2", processName="franchise_summary")
    assert ended(gateway, run)["runStatus"] == "SUCCEEDED"
    progress = gateway.poll(run)["progress"]
    assert progress["total"] == 2, "the one model of gold, and the test of it and what is upstream"
    refused = post(gateway, pipelineName="gold", version="2", processName="franchise_reviews")
    assert refused.status == 400
    assert "Process `franchise_reviews` not found" in refused.json["msg"]


@pytest.mark.parametrize("source", [{}, {"version": "2"}])
def test_an_unknown_process_is_refused_by_name_and_nothing_runs(gateway: Gateway, source: dict[str, str]) -> None:
    for process in ("franchise_review", "silver", "nothing_lost", "bakehouse", "deps"):
        answer = post(gateway, processName=process, **source)
        assert answer.status == 400, answer
        assert f"Process `{process}` not found" in answer.json["msg"]
        assert "franchise_reviews" in answer.json["msg"], "the refusal names the processes that exist"
    for process in ("+franchises", "franchises+", "tag:x", "models/silver", "a b", "--full-refresh", "*", "{{ x }}"):
        answer = post(gateway, processName=process, **source)
        assert answer.status == 400, answer
        assert "is refused: it must be one name" in answer.json["msg"]
    assert gateway.call("GET", "/api/data-analytics/pipeline/trigger").json["jobs"] == []
    assert not (gateway.folder / "home/warehouse.duckdb").exists()


def test_a_process_of_a_broken_project_is_refused_in_dbts_words(gateway: Gateway) -> None:
    model = gateway.folder / "bakehouse/transform/models/gold/lost.sql"
    model.write_text("select * from {{ ref('nowhere') }}")
    answer = post(gateway, processName="franchises")
    assert answer.status == 400
    assert "depends on a node named 'nowhere' which was not found" in answer.json["msg"]


def test_a_process_is_found_in_a_checkout_without_installed_packages(gateway: Gateway) -> None:
    repository = gateway.folder / "bakehouse"
    package = gateway.folder / "home/shared"
    projects.write(package / "dbt_project.yml", "name: shared\nversion: '1.0'\n")
    projects.write(package / "macros/stars.sql", "{% macro most() %}5{% endmacro %}\n")
    projects.write(repository / "transform/models/silver/best.sql", "select {{ shared.most() }} as stars\n")
    repositories.commit(repository, {"transform/packages.yml": f"packages: [{{local: {package}}}]\n"})
    repositories.tag(repository, "v3")
    pipelines = {PIPELINE: {"dbt": {"command": "daily"}}}
    settings = yaml.safe_load((gateway.folder / "gateway.yaml").read_text())
    settings["projects"][PROJECT]["pipelines"] = pipelines
    (gateway.folder / "gateway.yaml").write_text(yaml.safe_dump(settings))
    gateway.stop()
    gateway.start()
    succeeds(gateway, version="3", processName="best")
    assert bakehouse.tables(gateway.folder) == {"best"}


def test_elementary_is_on_only_if_the_commit_has_its_package(tmp_path: Path, make_gateway: MakeGateway) -> None:
    pipelines = {"daily": {"dbt": {"select": "franchises"}}}
    folder = bakehouse.make(tmp_path / "bakery", project={"pipelines": pipelines})
    repository = folder / "bakehouse"
    projects.add_elementary(repository / "transform")
    repositories.commit(repository, {})
    repositories.tag(repository, "v3")
    gateway = make_gateway(folder)
    for version, last in (("3", "elementary"), ("2", "build")):
        run = triggered(gateway, pipelineName="daily", version=version)
        assert ended(gateway, run)["runStatus"] == "SUCCEEDED"
        assert gateway.poll(run)["steps"][-1]["name"] == last


def test_an_empty_selection_is_an_error(gateway: Gateway) -> None:
    repository = gateway.folder / "bakehouse"
    repositories.git(repository, "rm", "-r", "--quiet", "transform/models/gold", "transform/tests")
    repositories.commit(repository, {})
    status = ran(gateway, pipelineName="gold", branch="main")
    assert status["runStatus"] == "ERROR"
    assert (
        "found nothing to do in what was selected (--select=gold --indirect-selection=buildable --exclude=never)"
        in status["errorMessage"]
    )


def test_the_first_failure_is_named_with_the_number_of_others(gateway: Gateway) -> None:
    models = gateway.folder / "bakehouse/transform/models/gold"
    (models / "broken_too.sql").write_text("select 1 as one from nowhere_else")
    message = ran(gateway)["errorMessage"]
    assert message.startswith("model.bakehouse.broken")
    assert "does not exist" in message
    assert message.endswith("(1 more failed)")


def test_queued_runs_survive_a_killed_gateway_in_order(gateway: Gateway) -> None:
    wait = gateway.folder / "home/wait"
    wait.touch()
    runs = [triggered(gateway, version="2", processName="ingester", parameters={"source": s}) for s in SOURCES]
    wait_for(lambda: gateway.poll(runs[0])["phase"] == "ingester", "the first run")
    for _ in range(2):
        gateway.kill()
        gateway.start()
        assert [gateway.poll(run)["phase"] for run in runs] == ["ingester", "queued", "queued"]
        assert [gateway.call("GET", f"{PATH}/{run}").json["runStatus"] for run in runs] == ["RUNNING"] * 3
    wait.unlink()
    assert [ended(gateway, run)["runStatus"] for run in runs] == ["SUCCEEDED"] * 3
    began = [gateway.poll(run)["startedAt"] for run in runs]
    assert began == sorted(began)
    assert [gateway.poll(run)["output"].split()[1] for run in runs] == [f"--source={source}" for source in SOURCES]


SOURCES = ("reviews", "orders", "reviews")


def test_a_run_of_a_commit_survives_a_kill_and_the_loss_of_its_checkout(gateway: Gateway) -> None:
    wait = gateway.folder / "home/wait"
    wait.touch()
    first = triggered(gateway, processName="ingester")
    waiting = triggered(gateway, version="2")
    wait_for(lambda: gateway.poll(first)["phase"] == "ingester", "the first run")
    gateway.kill()
    checkouts = gateway.state / "checkouts"
    if checkouts.exists():
        checkouts.rename(gateway.folder / "lost")
    repositories.git(gateway.folder / "bakehouse", "tag", "--delete", "v2")
    gateway.start()
    wait.unlink()
    assert ended(gateway, waiting)["runStatus"] == "SUCCEEDED"
    assert franchises(gateway) == FRANCHISES


def test_the_other_api_runs_a_repository_on_its_working_branch(tmp_path: Path, make_gateway: MakeGateway) -> None:
    project = {"repository": "bakehouse", "directory": ".", "branch": "dev"}
    gateway = make_gateway(bakehouse.make(tmp_path / "bakery", project=project))
    record = gateway.run(pipeline="full")
    assert (record["status"], record["exitCode"]) == ("completed", 0), record
    assert "only_on_dev" in bakehouse.tables(gateway.folder)
    commit = repositories.git(gateway.folder / "bakehouse", "rev-parse", "dev")
    assert gateway.call("GET", f"/api/v1/jobs/{record['jobId']}").json["commit"] == commit
