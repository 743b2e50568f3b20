"""Containers that were started outside of the gateway: which of them are conflicts, and that they are named."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeGateway
from tests.support.docker import BUSYBOX_IMAGE, Engine
from tests.support.gateway import PATH, Gateway, wait_for
from tests.support.projects import write

WAIT = ["sh", "-c", "trap exit TERM; while true; do sleep 0.1; done"]
SERVICE = {"image": BUSYBOX_IMAGE, "network_mode": "none"}


def make(folder: Path, project: str, **compose: Any) -> Path:
    """A compose project whose ingester ends at once and whose dbt service waits."""
    services = {"ingester": {**SERVICE, "command": ["echo", "done"]}, "dbt": {**SERVICE, "command": WAIT}}
    write(folder / "compose.yaml", json.dumps({"name": project, "services": services}))
    settings = {"fabrics": {"docker": {"runner": "compose", "compose": compose}}, "enable_openlineage": False}
    write(folder / "gateway.yaml", json.dumps({**settings, "enable_elementary": False}))
    return folder


@pytest.fixture
def clean(engine: Engine) -> Iterator[Engine]:
    """The engine, without the containers that a test started by hand."""
    yield engine
    engine.remove_containers()


def by_hand(engine: Engine, folder: Path, *arguments: str) -> None:
    engine.docker("compose", f"--project-directory={folder}", f"--file={folder}/compose.yaml", *arguments)


def trigger(gateway: Gateway, pipeline: str) -> tuple[int, Mapping[str, Any]]:
    answer = gateway.call("POST", PATH, {"pipeline": pipeline})
    return answer.status, answer.json


def test_a_one_off_container_of_the_same_service_is_a_named_conflict(
    tmp_path: Path, clean: Engine, make_gateway: MakeGateway
) -> None:
    folder = make(tmp_path, "one-off")
    by_hand(clean, folder, "run", "--detach", "--name=by-hand", "ingester", *WAIT)
    gateway = make_gateway(folder, clean.environment)
    for pipeline in ("ingester", "full"):
        answer = gateway.call("POST", PATH, {"pipeline": pipeline})
        assert (answer.status, answer.json["code"]) == (409, "already_running")
        assert answer.json["conflict"] | {"since": ""} == {"container": "by-hand", "since": "", "step": "ingester"}
        assert answer.json["conflict"]["since"][:2] == "20"
        assert "by-hand" in answer.json["error"]
        assert int(answer.headers["Retry-After"]) > 0
        assert "jobId" not in answer.json
    assert gateway.call("GET", PATH).json["jobs"] == []
    clean.docker("rm", "--force", "by-hand")
    assert gateway.run(pipeline="ingester")["exitCode"] == 0


def test_an_up_container_is_a_conflict_with_a_hint_at_the_idle_setting(
    tmp_path: Path, clean: Engine, make_gateway: MakeGateway
) -> None:
    folder = make(tmp_path, "up")
    by_hand(clean, folder, "up", "--detach", "dbt")
    status, answer = trigger(make_gateway(folder, clean.environment), "dbt")
    assert (status, answer["conflict"]["container"], answer["conflict"]["step"]) == (409, "up-dbt-1", "dbt")
    assert "`fabrics.docker.compose.dbt.idle: true`" in answer["error"]


def test_an_up_container_declared_idle_is_no_conflict(tmp_path: Path, clean: Engine, make_gateway: MakeGateway) -> None:
    """A one-off container of that service still is."""
    folder = make(tmp_path, "idle", dbt={"idle": True})
    by_hand(clean, folder, "up", "--detach", "dbt")
    gateway = make_gateway(folder, clean.environment)
    assert gateway.run(pipeline="dbt", command="deps")["reason"] == "not_started"  # busybox has no dbt
    by_hand(clean, folder, "run", "--detach", "--name=by-hand", "dbt")
    status, answer = trigger(gateway, "dbt")
    assert (status, answer["conflict"]["container"]) == (409, "by-hand")


def test_ended_containers_and_those_of_other_services_are_no_conflict(
    tmp_path: Path, clean: Engine, make_gateway: MakeGateway
) -> None:
    folder, other = make(tmp_path / "mine", "mine"), make(tmp_path / "other", "other")
    by_hand(clean, other, "run", "--detach", "--name=of-another-project", "ingester", *WAIT)
    by_hand(clean, folder, "run", "--detach", "--name=of-another-service", "dbt")
    by_hand(clean, folder, "run", "--name=of-the-past", "ingester", "true")
    assert make_gateway(folder, clean.environment).run(pipeline="ingester")["exitCode"] == 0


RUNS = "/api/trigger/pipeline"


def test_a_container_started_while_a_run_waits_fails_it_by_name(
    tmp_path: Path, clean: Engine, make_gateway: MakeGateway
) -> None:
    """A new trigger is refused for it."""
    folder = make(tmp_path, "named")
    settings = json.loads((folder / "gateway.yaml").read_text())
    settings["fabrics"] = {"1": {"runner": "compose", "compose": {"ingester": {"command": WAIT}}}}
    settings["projects"] = {"shop": {"pipelines": {"load": {"ingester": True}}}}
    write(folder / "gateway.yaml", json.dumps({**settings, "enabled": True}))
    gateway = make_gateway(folder, clean.environment)
    load = {"fabricId": 1, "projectId": "shop", "pipelineName": "load"}
    first, waiting = (gateway.call("POST", RUNS, load).json["runId"] for _ in range(2))
    wait_for(lambda: gateway.poll(first)["steps"][0]["startedAt"], "the first run")
    by_hand(clean, folder, "run", "--detach", "--name=by-hand", "ingester", *WAIT)
    refused = gateway.call("POST", RUNS, load)
    assert (refused.status, refused.json["success"]) == (409, False)
    assert "by-hand" in refused.json["msg"]
    gateway.call("POST", f"/api/v1/jobs/{first}/cancel")
    record = gateway.finished(waiting)
    assert (record["status"], record["reason"]) == ("failed", "not_started")
    assert "The container by-hand of the service ingester is running since" in record["error"]
    assert gateway.call("GET", f"{RUNS}/{waiting}").json["errorMessage"] == record["error"]
