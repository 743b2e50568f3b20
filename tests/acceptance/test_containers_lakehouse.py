"""The worked example: the demo lakehouse as a compose project, with real dlt, dbt and dbt-ol in real containers."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeGateway
from tests.support.command import run, says
from tests.support.docker import HOST_IMAGE, Engine, python_mounts
from tests.support.gateway import Gateway, wait_for
from tests.support.projects import write

STEPS = ["ingester", "deps", "build"]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, shared_engine: Engine) -> Iterator[Gateway]:
    """A gateway with no configuration file at all, on the result of `init`.

    The image is another one, which has this machine's Python, since no registry can be reached.
    """
    folder = tmp_path_factory.mktemp("worked") / "lakehouse"
    says(run("init", folder, cwd=folder.parent), 0)
    service = {"image": HOST_IMAGE, "network_mode": "none", "volumes": python_mounts()}
    write(folder / "compose.override.yaml", json.dumps({"services": {"ingester": service, "dbt": service}}))
    (folder / "gateway.yaml").unlink()
    made = Gateway(folder, shared_engine.environment).start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def full(gateway: Gateway) -> dict[str, Any]:
    """The record of a run of `full`, which has loaded the lakehouse and built its tables."""
    return gateway.run(pipeline="full")


@pytest.fixture
def lakehouse(tmp_path: Path, gateway: Gateway, full: dict[str, Any]) -> Path:
    """A copy of what that run left, with only the six models of silver and the ten tests of bronze."""
    assert full["exitCode"] == 0, full
    folder = tmp_path / "lakehouse"
    shutil.copytree(gateway.folder, folder, ignore=shutil.ignore_patterns(gateway.state.name))
    transform = folder / "transform"
    removed = ("models/gold/*", "models/silver/*.yml", "tests/*.sql")
    for file in [file for pattern in removed for file in transform.glob(pattern)]:
        file.unlink()
    return folder


def test_a_compose_project_runs_full_without_any_configuration(
    gateway: Gateway, shared_engine: Engine, full: dict[str, Any]
) -> None:
    record = full
    assert (record["status"], record["exitCode"]) == ("completed", 0), record
    assert [(step["name"], step["status"], step["exitCode"]) for step in record["steps"]] == [
        (name, "completed", 0) for name in STEPS
    ]
    assert record["steps"][0]["progress"] | {"current": None} == {
        "done": 5,
        "total": 5,
        "pass": 5,
        "warn": 0,
        "error": 0,
        "skip": 0,
        "noop": 0,
        "current": None,
    }
    assert record["progress"] == {
        "done": 85,
        "total": 85,
        "pass": 84,
        "warn": 1,
        "error": 0,
        "skip": 0,
        "noop": 0,
        "current": None,
    }
    assert "Done. PASS=84 WARN=1 ERROR=0" in record["output"]
    wait_for(lambda: shared_engine.containers() == [], "its containers to be removed")
    # OpenLineage is on by default, because dbt-ol is in the image
    events = (gateway.state / "jobs" / record["jobId"] / "3-build/lineage.ndjson").read_text().splitlines()
    assert {json.loads(event)["eventType"] for event in events} == {"START", "COMPLETE"}
    job = f"/api/v1/jobs/{record['jobId']}"
    kept = [(one["step"], one["name"]) for one in gateway.call("GET", f"{job}/artifacts").json["artifacts"]]
    assert kept == [
        ("ingester", "command.json"),
        ("deps", "command.json"),
        *(("build", name) for name in ("run_results.json", "manifest.json", "lineage.ndjson", "command.json")),
    ]
    statuses = Counter(node["status"] for node in gateway.call("GET", f"{job}/nodes").json["nodes"])
    assert (statuses["success"] + statuses["pass"], statuses["warn"], statuses.total()) == (84, 1, 85)


def test_a_cancelled_dbt_under_dbt_ol_shuts_down_in_order(gateway: Gateway, full: dict[str, Any]) -> None:
    assert full["exitCode"] == 0, full
    job = gateway.trigger(pipeline="dbt", command="build", enableOpenlineage=True)
    wait_for(lambda: (gateway.poll(job)["progress"] or {}).get("done"), "the first node to be done")
    gateway.call("POST", f"/api/v1/jobs/{job}/cancel")
    record = gateway.finished(job)
    assert (record["status"], record["reason"]) == ("failed", "cancelled")
    assert record["steps"][0]["exitCode"] == 2  # dbt's own, not that of a signal
    assert "CANCEL query" in record["output"] or "Exited because of keyboard interrupt" in record["output"]


BROKEN = "select nope from {{ ref('flight_details') }}"


def test_a_failed_model_is_reported_as_it_is_without_containers(
    lakehouse: Path, engine: Engine, make_gateway: MakeGateway
) -> None:
    gateway = make_gateway(lakehouse, engine.environment)
    write(lakehouse / "transform/models/gold/broken.sql", BROKEN)
    record = gateway.run(pipeline="dbt", command="build", enableOpenlineage=False)
    assert (record["status"], record["exitCode"]) == ("completed", 1)
    assert record["firstFailure"]["node"] == "model.flights.broken"
    assert "nope" in record["firstFailure"]["message"]


def test_results_of_an_earlier_run_are_ignored(lakehouse: Path, engine: Engine, make_gateway: MakeGateway) -> None:
    gateway = make_gateway(lakehouse, engine.environment)
    assert (lakehouse / "transform/target/run_results.json").exists()
    write(lakehouse / "transform/models/gold/broken.sql", "{{ ref('no_such_model') }}")
    record = gateway.run(pipeline="dbt", command="build", enableOpenlineage=False)
    assert (record["status"], record["exitCode"]) == ("completed", 2), record
    assert "no_such_model" in record["firstFailure"]["message"]
    kept = gateway.call("GET", f"/api/v1/jobs/{record['jobId']}/artifacts").json["artifacts"]
    assert [artifact["name"] for artifact in kept] == ["command.json"]


def test_without_a_readable_target_the_results_come_from_the_log(
    lakehouse: Path, engine: Engine, make_gateway: MakeGateway
) -> None:
    fabric = {"runner": "compose", "compose": {"dbt": {"target_path": "/dev/shm/target"}}}
    write(lakehouse / "gateway.yaml", json.dumps({"fabrics": {"containers": fabric}, "enable_openlineage": False}))
    gateway = make_gateway(lakehouse, engine.environment)
    write(lakehouse / "transform/models/gold/broken.sql", BROKEN)
    record = gateway.run(pipeline="dbt", command="build")
    assert not (gateway.state / "jobs" / record["jobId"] / "1-build/target").exists()
    assert (record["status"], record["exitCode"]) == ("completed", 1)
    assert record["firstFailure"]["node"] == "model.flights.broken"
    assert [record["progress"][what] for what in ("done", "total", "pass", "error")] == [17, 17, 16, 1]


def test_check_reports_engine_services_toggles_and_what_dbt_says(lakehouse: Path, engine: Engine) -> None:
    environment = {**engine.environment, "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
    said = run("check", "--dbt", cwd=lakehouse, **environment)
    assert said.returncode == 0, said.stdout + said.stderr
    for part in (
        "Docker Engine ",
        "project lakehouse in ",
        "services: dbt, ingester",
        f"service ingester: image {HOST_IMAGE}, entrypoint none",
        f"service dbt: image {HOST_IMAGE}, entrypoint none",
        "OpenLineage is on",
        "Elementary is off",
        "compose: dbt parse\n",
        "compose: dbt debug\n",
    ):
        assert part in said.stdout
