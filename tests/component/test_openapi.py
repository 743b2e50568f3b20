"""What the service answers is what /openapi.json says of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeApi
from tests.support import access, openapi, projects
from tests.support.api import Api
from tests.support.gateway import PATH, Answer

JOBS = "/api/v1/jobs"
RUNS = "/api/trigger/pipeline"
HOLDING = 'echo loaded "$@"; while [ -e hold ]; do sleep 0.01; done'


class Described:
    """A client whose every answer must be as the document says."""

    def __init__(self, api: Api) -> None:
        self.api = api

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.api.call(method, path, body, given)
        assert openapi.wrong(method, path, answer) == [], (method, path, answer)
        return answer


@pytest.fixture
async def client(tmp_path: Path, make_api: MakeApi) -> Described:
    """A project whose ingester goes on as long as there is a file `hold`."""
    settings = {
        "projects": {
            "1": {
                "dbt": "transform",
                "ingester": {"command": ["sh", "-c", HOLDING, "sh"]},
                "pipelines": {
                    "load": {
                        "ingester": True,
                        "parameters": {"month": {"type": "integer", "option": "--month", "minimum": 1, "default": 1}},
                    }
                },
            }
        },
        "fabrics": {"1": {}},
    }
    return Described(await make_api(projects.make(tmp_path / "project", settings=settings)))


async def test_the_document_is_served_once_it_is_asked_for(client: Described) -> None:
    answer = await client.call("GET", "/openapi.json")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    assert answer.json == openapi.described()


async def test_a_job_reads_in_every_api_as_the_document_says(client: Described) -> None:
    hold = client.api.folder / "hold"
    hold.touch()
    job = (await client.call("POST", PATH, {"pipeline": "ingester"})).json["jobId"]
    queued = (await client.call("POST", JOBS, {"pipeline": "load", "projectId": 1, "onConflict": "queue"})).json[
        "jobId"
    ]
    run = (await client.call("POST", RUNS, {"pipelineName": "load", "projectId": "1", "fabricId": "1"})).json["runId"]
    assert (await client.call("POST", PATH, {"pipeline": "ingester"})).status == 409
    for path in (f"{JOBS}/{queued}", f"{JOBS}/{job}", f"{RUNS}/{run}", f"{PATH}?jobId={job}", PATH, JOBS):
        assert (await client.call("GET", path)).status == 200
    assert (await client.call("POST", f"{JOBS}/{queued}/cancel")).status == 202
    hold.unlink()
    await client.api.finished(run)
    for path in (f"{JOBS}/{queued}", f"{PATH}?jobId={queued}", f"{RUNS}/{queued}", f"{RUNS}/{run}", PATH, JOBS):
        assert (await client.call("GET", path)).status == 200
    assert (await client.call("POST", f"{JOBS}/{job}/cancel")).status == 200
    tag = (await client.call("GET", f"{JOBS}/{job}?wait=1")).headers["ETag"]
    assert (await client.call("GET", f"{JOBS}/{job}", If_None_Match=tag)).status == 304
    assert (await client.call("GET", f"{JOBS}/{job}/log?step=ingester&download")).body.endswith(b"loaded\n")
    assert (await client.call("GET", f"{JOBS}/{job}/log?step=build")).status == 404
    assert (await client.call("GET", "/api/v1/pipelines")).json["pipelines"][0]["lastRun"]["jobId"] == run


async def test_events_have_the_data_that_the_document_says(client: Described) -> None:
    job = (await client.call("POST", JOBS, {"pipeline": "ingester"})).json["jobId"]
    await client.api.finished(job)
    answer = await client.call("GET", f"{JOBS}/{job}/events")
    whole = openapi.strict(openapi.described())
    events = whole["paths"]["/api/v1/jobs/{id}/events"]["get"]["responses"]["200"]["content"]["text/event-stream"]
    names = set()
    for event in answer.body.decode().strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in event.splitlines())
        names.add(fields["event"])
        assert openapi.errors(whole, events["x-events"][fields["event"]], json.loads(fields["data"])) == []
    assert names == {"state", "log"}


async def test_what_a_service_is_asked_reads_as_the_document_says(client: Described) -> None:
    assert (await client.call("GET", "/healthz")).status == 200
    assert (await client.call("GET", "/readyz")).status in (200, 503)  # where there is no dbt-ol


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", PATH, {"pipeline": "nightly"}, 400),
        ("POST", PATH, {"pipeline": "dbt", "command": "x"}, 400),
        ("POST", PATH, {}, 400),
        ("POST", PATH, {"pipeline": "dbt", "x": 1}, 400),
        ("POST", PATH, b"{", 400),
        ("GET", f"{PATH}?jobId=x", None, 404),
        ("GET", f"{PATH}?x=1", None, 400),
        ("POST", RUNS, {"pipelineName": "x", "projectId": "1", "fabricId": 1}, 404),
        ("POST", RUNS, {"pipelineName": "load", "projectId": "1", "fabricId": 9}, 404),
        ("POST", RUNS, {"pipelineName": "load", "projectId": "1", "fabricId": 1, "version": "9"}, 400),
        ("GET", f"{RUNS}/x", None, 404),
        ("POST", JOBS, {"pipeline": "load", "projectId": "x"}, 404),
        ("POST", JOBS, {"pipeline": "load", "parameters": {"month": 0}}, 400),
        ("POST", JOBS, {"pipeline": "load", "processName": "x"}, 400),
        ("GET", f"{JOBS}?limit=0", None, 400),
        ("GET", f"{JOBS}/x", None, 404),
        ("GET", f"{JOBS}/x/log", None, 404),
        ("GET", f"{JOBS}/x/events", None, 404),
        ("POST", f"{JOBS}/x/cancel", None, 404),
    ],
)
async def test_a_refusal_reads_as_the_document_says(
    client: Described, method: str, path: str, body: Any, status: int
) -> None:
    assert (await client.call(method, path, body)).status == status


async def test_the_guards_refusals_read_as_the_document_says(tmp_path: Path, make_api: MakeApi) -> None:
    """On every operation; without a token, with one that may not, from another host, from a page, with a wrong type."""
    project = access.project(tmp_path / "project", {"trigger_rate": 0.01, "trigger_burst": 1})
    client = Described(await make_api(project.folder, token=project.tokens["admin"]))
    for method, template, operation in openapi.operations(openapi.described()):
        path = template.replace("{id}", "x").replace("{runId}", "x")
        statuses = {(await client.call(method, path, Host="x.example")).status}
        statuses.add((await client.call(method, path, Origin="null")).status)
        if "security" not in operation:
            statuses.add((await client.call(method, path, X_AUTH_TOKEN="")).status)
        if method == "post":
            statuses.add((await client.call(method, path, X_AUTH_TOKEN=project.tokens["read"])).status)
        given = {"X_AUTH_TOKEN": project.tokens["admin"], "Content_Type": "text/plain"}
        statuses.add((await client.call(method, path, b"x", **given)).status)
        assert statuses - {401} == {421, 403, 415}
        assert (401 in statuses) == ("security" not in operation)
    answers = await asyncio.gather(
        *(client.call("POST", PATH, b"{", X_AUTH_TOKEN=project.tokens["run"]) for _ in range(3))
    )
    assert sorted(answer.status for answer in answers) == [400, 429, 429]


async def test_triggers_that_are_off_are_refused_as_the_document_says(tmp_path: Path, make_api: MakeApi) -> None:
    client = Described(await make_api(projects.make(tmp_path / "project", settings={"enabled": False})))
    for path in (PATH, RUNS, JOBS):
        assert (await client.call("POST", path, {})).status == 403
    assert (await client.call("GET", "/readyz")).status == 503
