"""Retries of jobs that have ended: what runs again, on which commit, and when there is nothing to retry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import MakeApi, MakeGateway
from tests.support import projects, repositories
from tests.support.api import Api
from tests.support.gateway import Answer

JOBS = "/api/v1/jobs"
# A program that is ingester and dbt: it says that dbt runs, waits as long as there is a file `hold`, and exits with the
# code that the file of its first argument has.
PROGRAM = """
    #!/bin/sh
    top=$(dirname "$(readlink -f "$0")")
    echo "$1" >> "$top/ran"
    echo '{"data": {}, "info": {"name": "MainReportVersion", "msg": "Running with dbt"}}'
    while [ -e "$top/hold" ]; do sleep 0.01; done
    exit "$(cat "$top/$1" 2>/dev/null || echo 0)"
"""


def project(folder: Path, **settings: Any) -> Path:
    program = str(folder / "program")
    pipelines = {"load": {"ingester": True, "parameters": {"month": {"type": "integer", "option": "--month"}}}}
    ingester = {"command": [program, "load"]}
    made = projects.make(
        folder,
        settings={
            "fabrics": {"local": {"dbt": {"executable": program}}},
            "projects": {"small": {"dbt": "transform", "ingester": ingester, "pipelines": pipelines}},
            **settings,
        },
    )
    projects.write(made / "program", PROGRAM)
    (made / "program").chmod(0o755)
    return made


@pytest.fixture
async def api(tmp_path: Path, make_api: MakeApi) -> Api:
    return await make_api(project(tmp_path / "project"))


def exits(api: Api, name: str, code: int) -> None:
    (api.folder / name).write_text(str(code))


def ran(api: Api) -> list[str]:
    """What the program was called for since the last look."""
    file = api.folder / "ran"
    words = file.read_text().split()
    file.write_text("")
    return words


async def retried(api: Api, job: str, body: Any = None) -> dict[str, Any]:
    """The record of the job that a retry makes, once that has ended."""
    answer = await api.call("POST", f"{JOBS}/{job}/retry", body)
    assert answer.status == 202, answer
    assert answer.headers["Location"] == f"{JOBS}/{answer.json['jobId']}"
    assert answer.json["retryOf"] == job
    return await api.finished(answer.json["jobId"])


async def refused(api: Api, job: str, status: int, code: str, body: Any = None) -> Answer:
    answer = await api.call("POST", f"{JOBS}/{job}/retry", body)
    assert (answer.status, answer.json["code"]) == (status, code), answer
    return answer


async def failed(api: Api) -> str:
    """A job whose second step failed; its id."""
    exits(api, "deps", 2)
    record = await api.run(pipeline="full", command="deps")
    assert (record["exitCode"], record["retryOf"], ran(api)) == (2, None, ["load", "deps"])
    return str(record["jobId"])


@pytest.mark.parametrize("body", [None, {}, {"from": "failed"}, {"from": None, "onConflict": "queue"}])
async def test_a_retry_runs_the_step_that_failed_and_none_before_it(api: Api, body: Any) -> None:
    job = await failed(api)
    exits(api, "deps", 0)
    record = await retried(api, job, body)
    assert (record["outcome"], ran(api)) == ("succeeded", ["deps"])
    assert [(step["name"], step["status"]) for step in record["steps"]] == [
        ("ingester", "skipped"),
        ("deps", "completed"),
    ]
    assert record["steps"][0]["note"] == f"done by the job {job}"
    assert f"Retry of the job {job} from its step deps on, on the same commit." in record["notes"]
    assert (record["pipeline"], record["command"]) == ("full", "deps")


async def test_a_retry_of_a_retry_goes_on_from_there(api: Api) -> None:
    job = await failed(api)
    again = await retried(api, job)
    assert (again["exitCode"], ran(api)) == (2, ["deps"])
    exits(api, "deps", 0)
    last = await retried(api, again["jobId"])
    assert (last["outcome"], ran(api)) == ("succeeded", ["deps"])
    assert last["steps"][0]["note"] == f"done by the job {job}"
    assert len([note for note in last["notes"] if note.startswith("Retry of")]) == 1


async def test_a_retry_from_the_start_makes_the_same_request_again(api: Api) -> None:
    job = await failed(api)
    record = await retried(api, job, {"from": "start"})
    assert (record["exitCode"], ran(api)) == (2, ["load", "deps"])
    exits(api, "load", 3)
    answer = await api.call("POST", JOBS, {"pipeline": "load", "parameters": {"month": "3"}})
    first = await api.finished(answer.json["jobId"])
    for body in ({"from": "start"}, {"from": "failed"}):
        record = await retried(api, first["jobId"], body)
        assert (record["parameters"], record["exitCode"], record["steps"][0]["status"]) == (
            {"month": 3},
            3,
            "completed",
        )


async def test_what_can_not_be_retried_is_refused_with_the_reason(api: Api) -> None:
    await refused(api, "load-1", 404, "unknown_job")
    good = (await api.run(pipeline="ingester"))["jobId"]
    answer = await refused(api, good, 409, "nothing_to_retry")
    assert "succeeded" in answer.json["error"]
    assert '{"from": "start"}' in answer.json["error"]
    await retried(api, good, {"from": "start"})
    (api.folder / "hold").touch()
    running = await api.trigger(pipeline="ingester")
    await refused(api, running, 409, "job_not_ended")
    await refused(api, good, 409, "already_running", {"from": "start"})
    answer = await api.call("POST", f"{JOBS}/{good}/retry", {"from": "start", "onConflict": "queue"})
    assert (answer.status, answer.json["status"]) == (202, "queued")
    await api.call("POST", f"{JOBS}/{answer.json['jobId']}/cancel")
    assert "begun" in (await refused(api, answer.json["jobId"], 409, "nothing_to_retry")).json["error"]
    (api.folder / "hold").unlink()
    await api.finished(running)
    wrong: list[Any] = [{"from": "middle"}, {"start": "failed"}, []]
    for body in wrong:
        assert (await api.call("POST", f"{JOBS}/{good}/retry", body)).status == 400
    answer = await api.call("POST", f"{JOBS}/{good}/retry", {"start": "failed"})
    assert "there are: from, onConflict" in answer.json["error"]


async def test_a_retry_is_refused_where_triggers_are_off(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(project(tmp_path / "project"), {"PIPELINE_ENABLED": "false"})
    await refused(api, "load-1", 403, "pipelines_disabled")


def test_a_retry_from_the_failed_step_needs_its_pipeline_configured(tmp_path: Path, make_gateway: MakeGateway) -> None:
    gateway = make_gateway(project(tmp_path))
    (tmp_path / "load").write_text("3")
    job = gateway.call("POST", JOBS, {"pipeline": "load"}).json["jobId"]
    gateway.finished(job)
    gateway.stop()
    file = tmp_path / "gateway.yaml"
    settings = yaml.safe_load(file.read_text())
    settings["projects"]["small"]["pipelines"] = {}
    file.write_text(yaml.safe_dump(settings))
    gateway.start()
    answer = gateway.call("POST", f"{JOBS}/{job}/retry")
    assert (answer.status, answer.json["code"]) == (409, "nothing_to_retry")
    assert "Pipeline with name `load` not found" in answer.json["error"]
    assert gateway.call("POST", f"{JOBS}/{job}/retry", {"from": "start"}).json["code"] == "unknown_pipeline"


def test_a_retry_holds_what_is_configured_by_now(tmp_path: Path, make_gateway: MakeGateway) -> None:
    """The job may have failed because ingester and dbt held different resources."""
    folder = project(tmp_path / "project")
    file = folder / "gateway.yaml"
    configuration = yaml.safe_load(file.read_text())
    (folder / "deps").write_text("2")
    gateway = make_gateway(folder)
    job = gateway.run(pipeline="full", command="deps")["jobId"]
    gateway.stop()
    configuration["fabrics"]["local"]["resources"] = {"ingester": "warehouse", "dbt": "warehouse"}
    file.write_text(yaml.safe_dump(configuration))
    (folder / "hold").touch()
    gateway.start()
    gateway.trigger(pipeline="ingester")
    refused = gateway.call("POST", f"{JOBS}/{job}/retry")
    assert (refused.status, refused.json["code"]) == (409, "already_running")
    (folder / "hold").unlink()


async def test_a_retry_is_on_the_same_commit_and_one_from_the_start_on_the_head(
    tmp_path: Path, make_api: MakeApi
) -> None:
    repository = repositories.repository(tmp_path / "shop", {"load.sh": "exit 3\n", "transform/dbt_project.yml": ""})
    ingester = {"command": ["sh", "load.sh"]}
    shop = {"directory": str(repository), "branch": "main", "dbt": "transform", "ingester": ingester}
    api = await make_api(projects.make(tmp_path / "project", settings={"projects": {"shop": shop}}))
    first = await api.run(pipeline="ingester")
    head = repositories.commit(repository, {"load.sh": "exit 0\n"})
    again = await retried(api, first["jobId"])
    assert (again["commit"], again["exitCode"]) == (first["commit"], 3)
    anew = await retried(api, first["jobId"], {"from": "start"})
    assert (anew["commit"], anew["exitCode"], anew["branch"]) == (head, 0, "main")
