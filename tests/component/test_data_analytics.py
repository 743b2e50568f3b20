"""The data-analytics API's requests and answers, over real HTTP; no test here needs dbt."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.conftest import MakeApi, MakeGateway
from tests.support import projects
from tests.support.api import Api, until
from tests.support.gateway import PATH, Answer

COMMANDS = ("daily", "run", "build", "test", "deps", "elementary")
# Ends once there is a file `go` beside it.
WAITING = """
    import pathlib, time
    print("ready", flush=True)
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
"""
NO_DBT = {"local": {"resources": {"ingester": "warehouse", "dbt": "warehouse"}, "dbt": {"executable": "/no/dbt"}}}


@pytest.fixture
async def api(project: Path, make_api: MakeApi) -> Api:
    return await make_api(project)


@pytest.fixture
async def waiting(tmp_path: Path, make_api: MakeApi) -> Api:
    """Its ingester waits for the file `go`."""
    return await make_api(projects.make(tmp_path / "waiting", ingester=WAITING))


def refusal(answer: Answer, status: int, code: str) -> str:
    """The text of an error, which must have the common shape."""
    assert answer.status == status, answer
    assert set(answer.json) >= {"success", "code", "error", "output"}
    assert (answer.json["success"], answer.json["code"]) == (False, code), answer
    assert answer.json["error"] == answer.json["output"]
    return str(answer.json["error"])


@pytest.mark.parametrize("body", [{"pipeline": "ingester"}, {"pipeline": "spark"}, {}, b"{", None])
async def test_disabled_triggers_are_refused_before_the_body_is_read(
    tmp_path: Path, make_api: MakeApi, body: Any
) -> None:
    api = await make_api(projects.make(tmp_path / "off", settings={"enabled": False}))
    text = refusal(await api.call("POST", PATH, body), 403, "pipelines_disabled")
    assert "PIPELINE_ENABLED=true" in text
    assert await api.jobs() == []


def test_reads_and_cancels_work_while_triggers_are_disabled(tmp_path: Path, make_gateway: MakeGateway) -> None:
    gateway = make_gateway(projects.make(tmp_path / "project", ingester=WAITING))
    job = gateway.trigger(pipeline="ingester")
    gateway.stop()
    gateway.environment["PIPELINE_ENABLED"] = "false"
    gateway.start()
    assert gateway.call("POST", PATH, {"pipeline": "ingester"}).status == 403
    assert gateway.poll(job)["status"] == "running"
    assert [listed["jobId"] for listed in gateway.call("GET", PATH).json["jobs"]] == [job]
    assert gateway.call("POST", f"/api/v1/jobs/{job}/cancel").status == 202
    assert gateway.finished(job)["reason"] == "cancelled"


@pytest.mark.parametrize(
    ("body", "code", "mentions"),
    [
        ({}, "missing_field", ["'pipeline'"]),
        ({"command": "daily"}, "missing_field", ["'pipeline'"]),
        ({"pipeline": None}, "invalid_field", ["'pipeline'", "'ingester', 'dbt' or 'full'"]),
        ({"pipeline": ""}, "unknown_pipeline", ['""', "'ingester', 'dbt' or 'full'"]),
        ({"pipeline": "spark"}, "unknown_pipeline", ["pipeline", '"spark"', "'ingester', 'dbt' or 'full'"]),
        ({"pipeline": "DBT"}, "unknown_pipeline", ['"DBT"']),
        ({"pipeline": 7}, "invalid_field", ["'pipeline'", "7", "'ingester', 'dbt' or 'full'"]),
        ({"pipeline": ["dbt"]}, "invalid_field", ["'pipeline'", '["dbt"]', "'ingester', 'dbt' or 'full'"]),
        ({"pipeline": "dbt", "command": "nuke"}, "unknown_command", ['"nuke"', *map(repr, COMMANDS)]),
        ({"pipeline": "ingester", "command": "nuke"}, "unknown_command", ['"nuke"']),
        ({"pipeline": "dbt", "command": "--full-refresh"}, "unknown_command", ['"--full-refresh"']),
        ({"pipeline": "dbt", "command": 3}, "invalid_field", ["'command'", "3", *map(repr, COMMANDS)]),
        (
            {"pipeline": "dbt", "enableOpenlineage": "yes"},
            "invalid_field",
            ["'enableOpenlineage'", '"yes"', "true or false"],
        ),
        ({"pipeline": "dbt", "enableOpenlineage": 1}, "invalid_field", ["'enableOpenlineage'", "1", "true or"]),
        (
            {"pipeline": "dbt", "enableElementary": "true"},
            "invalid_field",
            ["'enableElementary'", '"true"', "true or false"],
        ),
        ({"pipeline": "dbt", "enableElementary": {}}, "invalid_field", ["'enableElementary'", "{}", "true or"]),
        ({"pipeline": "dbt", "fullRefresh": 5}, "unknown_field", ["'fullRefresh'", "5"]),
        ({"pipeline": "dbt", "enable_elementary": 5}, "unknown_field", ["'enable_elementary'", "5"]),
    ],
)
async def test_an_invalid_field_is_refused_with_its_value_and_the_choices(
    api: Api, body: Any, code: str, mentions: list[str]
) -> None:
    text = refusal(await api.call("POST", PATH, body), 400, code)
    for word in mentions:
        assert word in text
    assert await api.jobs() == []


@pytest.mark.parametrize(
    ("body", "allowed"),
    [
        ({}, ["'ingester', 'dbt' or 'full'"]),
        ({"pipeline": "dbt", "fullRefresh": 5}, ["pipeline", "command", "enableOpenlineage", "enableElementary"]),
    ],
)
async def test_a_missing_or_unknown_field_is_refused_with_what_is_allowed(
    api: Api, body: Any, allowed: list[str]
) -> None:
    answer = await api.call("POST", PATH, body)
    assert answer.status == 400
    for word in allowed:
        assert word in answer.json["error"]


@pytest.mark.parametrize(("value", "shown"), [(True, "true"), (None, "null")])
async def test_a_refused_value_is_quoted_as_json(api: Api, value: Any, shown: str) -> None:
    answer = await api.call("POST", PATH, {"pipeline": value})
    assert answer.status == 400
    assert shown in answer.json["error"]


@pytest.mark.parametrize("command", COMMANDS)
async def test_every_command_of_the_reference_is_accepted(tmp_path: Path, make_api: MakeApi, command: str) -> None:
    api = await make_api(projects.make(tmp_path / "project", settings={"fabrics": NO_DBT}))
    record = await api.run(pipeline="dbt", command=command)
    steps = [step["name"] for step in record["steps"]]
    assert (record["pipeline"], record["command"]) == ("dbt", command)
    assert steps == (["deps", "build"] if command == "daily" else [command])


async def test_null_means_absent_for_every_optional_field(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(projects.make(tmp_path / "project", settings={"fabrics": NO_DBT}))
    given = await api.run(pipeline="full", command=None, enableOpenlineage=None, enableElementary=None)
    nothing = await api.run(pipeline="full")
    same = ("command", "enableOpenlineage", "enableElementary", "status", "reason")
    assert [given[key] for key in same] == [nothing[key] for key in same]
    assert given["command"] == "daily"


async def test_the_ingester_pipeline_validates_and_ignores_the_other_fields(api: Api) -> None:
    record = await api.run(pipeline="ingester", command="test", enableOpenlineage=True, enableElementary=True)
    assert [step["name"] for step in record["steps"]] == ["ingester"]
    assert (record["status"], record["exitCode"]) == ("completed", 0)


async def test_a_trigger_gets_202_with_a_location_that_works(api: Api) -> None:
    """The body is that of the reference."""
    answer = await api.call("POST", PATH, {"pipeline": "ingester"})
    assert answer.status == 202
    job = answer.json["jobId"]
    assert re.fullmatch(r"ingester-[0-9]{13}-[a-z0-9]{6}", job)
    assert answer.json == {
        "success": True,
        "output": 'Pipeline "ingester" started in background.',
        "exitCode": -1,
        "jobId": job,
        "status": "running",
    }
    assert (await api.get(answer.headers["Location"]))["jobId"] == job


async def test_every_json_answer_ends_with_a_line_end(api: Api) -> None:
    """So that a shell's prompt does not stand behind it."""
    job = (await api.run(pipeline="ingester"))["jobId"]
    paths = (PATH, f"{PATH}?jobId={job}", f"/api/v1/jobs/{job}", "/api/v1/pipelines", "/healthz", "/readyz", "/nowhere")
    answers = [await api.call("GET", path) for path in (*paths, "/api/trigger/pipeline/none")]
    answers += [await api.call("POST", path, {"pipeline": "ingester"}) for path in (PATH, f"/api/v1/jobs/{job}/cancel")]
    assert [answer for answer in answers if not answer.body.endswith(b"}\n")] == []


async def test_a_second_trigger_gets_409_that_names_the_holder(waiting: Api) -> None:
    """It leaves neither a record nor a folder."""
    holder = await waiting.trigger(pipeline="ingester")
    await until(lambda: _has_output(waiting, holder, "ready"), "the ingester")
    since = (await waiting.poll(holder))["createdAt"]
    for body in ({"pipeline": "ingester"}, {"pipeline": "dbt"}, {"pipeline": "full", "command": "test"}):
        answer = await waiting.call("POST", PATH, body)
        text = refusal(answer, 409, "already_running")
        assert answer.json["conflict"] == {"jobId": holder, "since": since, "step": "ingester"}
        assert "jobId" not in answer.json, "a script would poll another caller's job as its own"
        assert holder in text
        assert int(answer.headers["Retry-After"]) > 0
    assert [job["jobId"] for job in await waiting.jobs()] == [holder]
    assert [path.name for path in (waiting.folder / ".pipeline-gateway" / "jobs").iterdir()] == [holder]
    (waiting.folder / "go").touch()
    await waiting.finished(holder)
    assert (await waiting.call("POST", PATH, {"pipeline": "ingester"})).status == 202


async def test_of_simultaneous_triggers_exactly_one_is_accepted(waiting: Api) -> None:
    answers = await asyncio.gather(*(waiting.call("POST", PATH, {"pipeline": "ingester"}) for _ in range(20)))
    assert sorted(answer.status for answer in answers) == [202] + [409] * 19
    assert len(await waiting.jobs()) == 1


async def test_the_list_is_newest_first_and_without_output(api: Api) -> None:
    jobs = [(await api.run(pipeline="ingester"))["jobId"] for _ in range(3)]
    listed = await api.get(PATH)
    assert (listed["success"], set(listed)) == (True, {"success", "jobs"})
    assert [job["jobId"] for job in listed["jobs"]] == jobs[::-1]
    assert not [job for job in listed["jobs"] if "output" in job]
    assert [job["status"] for job in listed["jobs"]] == ["completed"] * 3


async def test_a_job_leaves_the_list_after_job_ttl_and_stays_in_the_jobs_api(project: Path, make_api: MakeApi) -> None:
    api = await make_api(project, {"JOB_TTL": "0.2"})
    job = (await api.run(pipeline="ingester"))["jobId"]

    async def gone() -> bool:
        return (await api.call("GET", f"{PATH}?jobId={job}")).status == 404

    await until(gone, "the job to leave")
    assert job in refusal(await api.call("GET", f"{PATH}?jobId={job}"), 404, "unknown_job")
    assert await api.jobs() == []
    assert (await api.get(f"/api/v1/jobs/{job}"))["status"] == "completed"


async def test_an_active_job_stays_in_the_list_after_job_ttl(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(projects.make(tmp_path / "project", ingester=WAITING), {"JOB_TTL": "0.001"})
    job = await api.trigger(pipeline="ingester")
    await until(lambda: _has_output(api, job, "ready"), "the ingester")
    assert [listed["jobId"] for listed in await api.jobs()] == [job]


@pytest.mark.parametrize(
    ("query", "status", "code", "mentions"),
    [
        ("jobId=", 400, "invalid_field", "'jobId'"),
        ("job=x", 400, "unknown_field", "'job'"),
        ("jobId=a&verbose=1", 400, "unknown_field", "'verbose'"),
        ("jobId=a&jobId=b", 400, "invalid_field", "'jobId'"),
        ("jobId=dbt-1710460800000-abc123", 404, "unknown_job", "dbt-1710460800000-abc123"),
    ],
)
async def test_an_invalid_query_is_refused_naming_the_parameter(
    api: Api, query: str, status: int, code: str, mentions: str
) -> None:
    assert mentions in refusal(await api.call("GET", f"{PATH}?{query}"), status, code)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "unknown_path"),
        ("POST", "/api/data-analytics/pipeline", 404, "unknown_path"),
        ("GET", f"{PATH}/", 404, "unknown_path"),
        ("DELETE", PATH, 405, "method_not_allowed"),
        ("PUT", "/healthz", 405, "method_not_allowed"),
        ("GET", "/api/v1/jobs/x/cancel", 405, "method_not_allowed"),
        ("PATCH", PATH, 405, "method_not_allowed"),
    ],
)
async def test_unknown_paths_and_methods_get_the_common_error_shape(
    api: Api, method: str, path: str, status: int, code: str
) -> None:
    answer = await api.call(method, path)
    assert path in refusal(answer, status, code)
    assert ("Allow" in answer.headers) == (status == 405)


async def test_a_500_has_a_request_id_and_reveals_no_internals(
    project: Path, make_api: MakeApi, capfd: pytest.CaptureFixture[str]
) -> None:
    async def broken(_: web.Request) -> web.Response:
        raise RuntimeError("secret of the inside")

    api = await make_api(project, routes=[web.get("/broken", broken)])
    answer = await api.call("GET", "/broken")
    text = refusal(answer, 500, "internal")
    named = re.search(r"[0-9a-f]{12}", text)
    assert named is not None
    for inside in (b"secret", b"RuntimeError", b"Traceback", b".py"):
        assert inside not in answer.body
    logged = "".join(capfd.readouterr())
    assert named[0] in logged
    assert "secret of the inside" in logged


async def _has_output(api: Api, job: str, text: str) -> bool:
    return text in (await api.poll(job))["output"]
