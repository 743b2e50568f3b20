"""The trigger pipeline API's requests and answers, over real HTTP and with real git; no test here needs dbt."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeApi
from tests.support import access, bakehouse, projects, repositories
from tests.support.api import Api, until
from tests.support.bakehouse import FABRIC, PATH, PIPELINE, PROJECT
from tests.support.gateway import PATH as DATA_ANALYTICS
from tests.support.gateway import Answer
from tests.support.raw import JSON, request, send

LOAD = {"fabricId": FABRIC, "projectId": PROJECT, "pipelineName": "load"}
MOMENT = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}"


@pytest.fixture
async def api(tmp_path: Path, make_api: MakeApi) -> Api:
    return await make_api(bakehouse.make(tmp_path / "bakery"))


async def triggered(api: Api, **fields: Any) -> str:
    """Trigger a pipeline, which must be accepted, and return the run's id."""
    answer = await api.call("POST", PATH, {**LOAD, **fields})
    assert answer.status == 200, answer
    assert set(answer.json) == {"success", "runId", "msg"}
    assert answer.json["success"] is True
    return str(answer.json["runId"])


async def refused(api: Api, status: int, **fields: Any) -> str:
    """The text of a trigger's refusal."""
    return message(await api.call("POST", PATH, {**LOAD, **fields}), status)


def message(answer: Answer, status: int) -> str:
    """The text of a refusal, which must have this API's shape."""
    assert answer.status == status, answer
    assert set(answer.json) == {"success", "msg"}, answer
    assert answer.json["success"] is False
    return str(answer.json["msg"])


async def ended(api: Api, run: str) -> dict[str, Any]:
    """The status of a run once it has ended."""

    async def is_over() -> bool:
        return bool((await api.get(f"{PATH}/{run}"))["runStatus"] != "RUNNING")

    await until(is_over, f"the end of {run}")
    return await api.get(f"{PATH}/{run}")


async def output(api: Api, run: str) -> str:
    return str((await api.poll(run))["output"])


def wait_for_go(api: Api) -> Path:
    """Make the file that ingesters wait for until it is removed."""
    file = api.folder / "home" / "wait"
    file.touch()
    return file


async def test_a_run_reads_as_running_and_then_as_succeeded(api: Api) -> None:
    """Its status has the fields of the reference and no others."""
    go = wait_for_go(api)
    before = datetime.now(UTC).replace(tzinfo=None)
    run = await triggered(api)
    assert re.fullmatch(r"load-\d{13}-[a-z0-9]{6}", run)
    running = await api.get(f"{PATH}/{run}")
    assert {key: value for key, value in running.items() if not key.endswith("At")} == {
        "success": True,
        "runId": run,
        "projectId": PROJECT,
        "pipelineName": "load",
        "fabricId": "33290",
        "runStatus": "RUNNING",
    }
    go.unlink()
    done = await ended(api, run)
    assert (done["runStatus"], set(done)) == ("SUCCEEDED", set(running))
    assert all(re.fullmatch(MOMENT, done[key]) for key in ("createdAt", "updatedAt"))
    assert done["createdAt"] == running["createdAt"]
    created, updated = (datetime.fromisoformat(done[key]) for key in ("createdAt", "updatedAt"))
    assert before <= created < updated <= datetime.now(UTC).replace(tzinfo=None)


async def test_a_whole_second_is_written_with_six_digits(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.clock.time.time", lambda: 1781000000.0)
    run = await triggered(api)
    assert (await ended(api, run))["createdAt"] == "2026-06-09T10:13:20.000000"


FAILING = {"command": ["sh", "-c", "echo no such bucket; exit 3"]}


async def test_the_status_of_a_failed_run_names_its_first_failure(tmp_path: Path, make_api: MakeApi) -> None:
    """`success` is about the request, which succeeded."""
    api = await make_api(bakehouse.make(tmp_path / "bakery", project={"ingester": FAILING}))
    status = await ended(api, await triggered(api))
    assert (status["success"], status["runStatus"]) == (True, "ERROR")
    assert status["errorMessage"] == "ingester: no such bucket"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["no-such-program"], "The ingester's program no-such-program was not found"),
        (["sh", "-c", "kill -9 $$"], "The step ingester was ended by signal 9 that was not the gateway's"),
    ],
)
async def test_a_run_that_could_not_do_its_work_says_why(
    tmp_path: Path, make_api: MakeApi, command: list[str], sentence: str
) -> None:
    api = await make_api(bakehouse.make(tmp_path / "bakery", project={"ingester": {"command": command}}))
    status = await ended(api, await triggered(api))
    assert status["runStatus"] == "ERROR"
    assert status["errorMessage"].startswith(sentence)


async def test_a_cancelled_run_and_a_timed_out_run_say_so(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(bakehouse.make(tmp_path / "bakery"))
    wait_for_go(api)
    run = await triggered(api)
    await api.call("POST", f"/api/v1/jobs/{run}/cancel")
    assert (await ended(api, run))["errorMessage"].startswith("The job was cancelled")
    slow = bakehouse.make(tmp_path / "slow", fabric={"time_limit": 0.5})
    (slow / "home" / "wait").touch()
    api = await make_api(slow)
    assert "time limit" in (await ended(api, await triggered(api)))["errorMessage"]


@pytest.mark.parametrize("fabric", [33290, "33290"])
@pytest.mark.parametrize("project", ["41459", 41459])
async def test_ids_are_accepted_as_numbers_and_as_strings(api: Api, fabric: object, project: object) -> None:
    run = await triggered(api, fabricId=fabric, projectId=project)
    status = await ended(api, run)
    assert (status["fabricId"], status["projectId"]) == ("33290", "41459")


async def test_null_means_absent(api: Api) -> None:
    nothing = dict.fromkeys(("parameters", "branch", "version", "processName"))
    assert (await ended(api, await triggered(api, **nothing)))["runStatus"] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("fields", "mentions"),
    [
        ({"fabricId": None}, ["fabricId", "null"]),
        ({"fabricId": "bakery"}, ["fabricId", '"bakery"', "a whole number"]),
        ({"fabricId": "33290 "}, ["fabricId", "a whole number"]),
        ({"fabricId": "٣٣٢٩٠"}, ["fabricId", "a whole number"]),
        ({"fabricId": -1}, ["fabricId", "-1"]),
        ({"fabricId": 33290.5}, ["fabricId", "33290.5"]),
        ({"fabricId": True}, ["fabricId", "true"]),
        ({"fabricId": 2**63}, ["fabricId"]),
        ({"fabricId": "9" * 5000}, ["fabricId"]),
        ({"projectId": ""}, ["projectId"]),
        ({"projectId": ["41459"]}, ["projectId"]),
        ({"pipelineName": 1}, ["pipelineName", "1"]),
        ({"pipelineName": ""}, ["pipelineName"]),
        ({"parameters": []}, ["parameters"]),
        ({"parameters": "month=3"}, ["parameters", "month=3"]),
        ({"branch": ""}, ["branch"]),
        ({"version": 2}, ["version", "2", "a text"]),
        ({"processName": {}}, ["processName"]),
        ({"processname": "ingester"}, ["processname", "not known", "processName"]),
    ],
)
async def test_an_invalid_field_is_refused_by_its_name(api: Api, fields: dict[str, Any], mentions: list[str]) -> None:
    text = await refused(api, 400, **fields)
    assert [part for part in mentions if part not in text] == []
    assert len(text) < 1000


@pytest.mark.parametrize("field", ["fabricId", "projectId", "pipelineName"])
async def test_a_missing_field_is_refused_by_its_name(api: Api, field: str) -> None:
    body = {name: value for name, value in LOAD.items() if name != field}
    assert f"'{field}' is missing" in message(await api.call("POST", PATH, body), 400)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', None])
async def test_a_body_that_is_not_a_json_object_is_refused(api: Api, body: bytes | None) -> None:
    assert "JSON" in message(await api.call("POST", PATH, body), 400)


@pytest.mark.parametrize(
    ("fields", "mentions"),
    [
        ({"fabricId": 2290}, "Fabric with uid `2290` not found"),
        ({"fabricId": "2290"}, "Fabric with uid `2290` not found"),
        ({"projectId": "1"}, "Project with uid `1` not found"),
        ({"projectId": "../41459"}, "Project with uid `../41459` not found"),
        (
            {"pipelineName": "baker"},
            f"Pipeline with name `baker` not found in project `{PROJECT}`; there are: {PIPELINE}",
        ),
        ({"pipelineName": "x" * 5000}, "Pipeline with name `" + "x" * 100 + "` not found"),
        ({"pipelineName": "\x1b[31m\u202e"}, r"Pipeline with name `\x1b[31m\u202e` not found"),
    ],
)
async def test_an_unknown_fabric_project_or_pipeline_is_a_404_that_names_it(
    api: Api, fields: dict[str, Any], mentions: str
) -> None:
    assert mentions in await refused(api, 404, **fields)


async def test_a_project_not_on_the_fabric_is_a_404_that_names_its_fabrics(tmp_path: Path, make_api: MakeApi) -> None:
    folder = bakehouse.make(tmp_path / "bakery", project={"fabrics": ["33290"]}, fabrics={7: {}})
    api = await make_api(folder)
    assert "not found on fabric `7`; it is on 33290" in await refused(api, 404, fabricId=7)


@pytest.mark.parametrize("run", ["load-1710460800000-abc123", "..", "%2e%2e%2fgateway.db", "x" * 500, "MDAw-xZGY=="])
async def test_an_unknown_run_is_a_404_that_names_it(api: Api, run: str) -> None:
    answer = await api.call("GET", f"{PATH}/{run}")
    assert "Run with id `" in message(answer, 404)
    assert len(answer.body) < 1000


async def test_every_refusal_under_the_prefix_has_the_shape_of_this_api(tmp_path: Path, make_api: MakeApi) -> None:
    project = access.project(tmp_path / "guarded")
    api = await make_api(project.folder)
    assert "token" in message(await api.call("POST", PATH, LOAD), 401)
    api.token = project.tokens["read"]
    assert "scope" in message(await api.call("POST", PATH, LOAD), 403)
    api.token = project.tokens["run"]
    assert message(await api.call("GET", "/api/trigger/pipelines"), 404)
    assert message(await api.call("GET", PATH), 405)
    assert message(await api.call("DELETE", f"{PATH}/x"), 403)
    assert message(await api.call("POST", PATH, b"{}", {"Content-Type": "text/plain"}), 415)
    assert api.base.port is not None
    token = b"X-AUTH-TOKEN: " + api.token.encode()
    assert message(await send(api.base.port, request("POST", PATH, JSON, token, body=b" " * 2_000_000)), 413)
    assert message(await api.call("POST", PATH, LOAD, {"Host": "example.com"}), 421)


async def test_disabled_triggers_are_refused_before_the_body_is_read(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(bakehouse.make(tmp_path / "bakery", settings={"enabled": False}))
    for body in (LOAD, {}, b"{"):
        assert "PIPELINE_ENABLED" in message(await api.call("POST", PATH, body), 403)


async def test_a_job_has_one_record_whichever_api_started_it(api: Api) -> None:
    run = await triggered(api)
    await ended(api, run)
    assert (await api.poll(run))["pipeline"] == "load"
    assert (await api.get(f"/api/v1/jobs/{run}"))["projectId"] == PROJECT
    job = await api.trigger(pipeline="ingester")
    status = await ended(api, job)
    assert (status["pipelineName"], status["projectId"], status["fabricId"]) == ("ingester", PROJECT, "33290")


async def test_a_run_stays_readable_after_it_has_left_the_list(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(bakehouse.make(tmp_path / "bakery", settings={"job_ttl": 0.1}))
    run = await triggered(api)
    await ended(api, run)

    async def gone() -> bool:
        return (await api.call("GET", f"{DATA_ANALYTICS}?jobId={run}")).status == 404

    await until(gone, "the end of the list's time")
    assert (await api.get(f"{PATH}/{run}"))["runStatus"] == "SUCCEEDED"


async def test_a_run_that_waits_for_another_reads_as_running(api: Api) -> None:
    go = wait_for_go(api)
    runs = [await triggered(api) for _ in range(3)]
    assert [(await api.get(f"{PATH}/{run}"))["runStatus"] for run in runs] == ["RUNNING"] * 3

    async def is_first() -> bool:
        return bool((await api.poll(runs[0]))["phase"] == "ingester")

    await until(is_first, "the first run")
    assert [(await api.poll(run))["phase"] for run in runs[1:]] == ["queued", "queued"]
    assert (await api.poll(runs[1]))["status"] == "running"
    assert (await api.get(f"/api/v1/jobs/{runs[1]}"))["status"] == "queued"
    refusal = await api.call("POST", DATA_ANALYTICS, {"pipeline": "ingester"})
    assert (refusal.status, refusal.json["conflict"]["jobId"]) == (409, runs[0])
    cancels = [await api.call("POST", f"/api/v1/jobs/{runs[1]}/cancel") for _ in range(2)]
    assert [cancel.status for cancel in cancels] == [202, 200]
    assert (await ended(api, runs[1]))["errorMessage"] == "The job was cancelled while it waited for its turn."
    go.unlink()
    assert [(await ended(api, run))["runStatus"] for run in (runs[0], runs[2])] == ["SUCCEEDED"] * 2


async def test_parameters_reach_the_ingester_as_separate_arguments(api: Api) -> None:
    run = await triggered(api, pipelineName=PIPELINE, parameters={"source": "orders"}, processName="ingester")
    assert (await ended(api, run))["runStatus"] == "SUCCEEDED"
    assert "ingester --source=orders in" in await output(api, run)
    record = await api.get(f"/api/v1/jobs/{run}")
    assert record["parameters"] == {"source": "orders"}
    assert [step["name"] for step in record["steps"]] == ["ingester"]


async def test_a_parameter_without_a_value_gets_its_default(api: Api) -> None:
    run = await triggered(api, pipelineName=PIPELINE, parameters={"source": None}, processName="ingester")
    await ended(api, run)
    assert "ingester --source=reviews in" in await output(api, run)


@pytest.mark.parametrize(
    ("parameters", "mentions"),
    [
        ({"franchise": "3000007"}, "'franchise' is refused: it must be one of those declared (franchise_id, source)"),
        ({"franchise_id": "x"}, "franchise_id = 'x' is refused: it must be an integer from 3000001 to 3999999"),
        ({"franchise_id": 7}, "franchise_id = 7 is refused"),
        ({"franchise_id": "{{ 3000007 }}"}, "franchise_id = '{{ 3000007 }}' is refused"),
        ({"source": "{% do drop() %}"}, "source = '{% do drop() %}' is refused: it must be one of reviews, orders"),
        ({"source": "reviews --force"}, "source = 'reviews --force' is refused"),
        ({"source": ["reviews"]}, "source = ['reviews'] is refused"),
        ({"source": {"&a": "*a"}}, "source = {'&a': '*a'} is refused"),
        ({"--source": "orders"}, "'--source' is refused"),
    ],
)
async def test_an_undeclared_or_invalid_parameter_is_refused_by_name(
    api: Api, parameters: dict[str, Any], mentions: str
) -> None:
    assert mentions in await refused(api, 400, pipelineName=PIPELINE, parameters=parameters)
    assert await api.jobs() == []


async def test_without_branch_and_version_a_run_uses_the_directory_as_it_is(api: Api) -> None:
    run = await triggered(api)
    await ended(api, run)
    assert f"in {api.folder / 'bakehouse'}" in await output(api, run)
    assert (await api.get(f"/api/v1/jobs/{run}"))["commit"] is None


async def test_a_branch_or_version_runs_on_a_checkout_of_exactly_its_commit(api: Api) -> None:
    repository = api.folder / "bakehouse"
    dev, version = (repositories.git(repository, "rev-parse", f"{ref}^{{commit}}") for ref in ("dev", "v2"))
    for fields, commit in (({"branch": "dev"}, dev), ({"version": "2"}, version), ({"version": "v2"}, version)):
        run = await triggered(api, **fields)
        assert (await ended(api, run))["runStatus"] == "SUCCEEDED"
        record = await api.get(f"/api/v1/jobs/{run}")
        assert record["commit"] == commit
        assert {key: record[key] for key in fields} == fields
        [folder] = re.findall(r"in (\S+)", await output(api, run))
        assert Path(folder).name == commit
        assert files(Path(folder)) == repositories.git(repository, "ls-tree", "-r", "--name-only", commit).splitlines()


def files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


async def test_a_branch_means_its_head_at_the_time_of_the_trigger(api: Api) -> None:
    await ended(api, await triggered(api, branch="main"))
    commit = repositories.commit(api.folder / "bakehouse", {"new": ""})
    run = await triggered(api, branch="main")
    assert (await api.get(f"/api/v1/jobs/{run}"))["commit"] == commit
    await ended(api, run)


async def test_a_project_can_default_to_a_branch_or_to_the_latest_version(tmp_path: Path, make_api: MakeApi) -> None:
    for number, (project, ref) in enumerate([({"branch": "dev"}, "dev"), ({"version": "latest"}, "v2")]):
        api = await make_api(bakehouse.make(tmp_path / str(number), project=project))
        commit = repositories.git(api.folder / "bakehouse", "rev-parse", f"{ref}^{{commit}}")
        run = await triggered(api)
        await ended(api, run)
        job = await api.run(pipeline="ingester")  # the other API's default project is the same
        records = [await api.get(f"/api/v1/jobs/{found}") for found in (run, job["jobId"])]
        assert [record["commit"] for record in records] == [commit, commit]
        await api.end()


async def test_a_project_needs_only_a_repository(tmp_path: Path, make_api: MakeApi) -> None:
    project = {"repository": "bakehouse", "directory": ".", "branch": "main"}
    api = await make_api(bakehouse.make(tmp_path / "bakery", project=project))
    run = await triggered(api)
    assert (await ended(api, run))["runStatus"] == "SUCCEEDED"
    assert (await api.call("GET", "/readyz")).json["status"] == "ready"


@pytest.mark.parametrize(
    ("fields", "mentions"),
    [
        ({"version": "9"}, "has no version '9': none of the tags 9, v9, 41459/9, 41459/v9, bakehouse/9"),
        ({"branch": "prod"}, "has no branch 'prod'"),
        ({"version": "v2", "branch": "dev"}, None),
        ({"version": "1", "branch": "other"}, "is not on the branch 'other'"),
        ({"branch": "--upload-pack=touch injected"}, "'--upload-pack=touch injected' is refused"),
        ({"version": "--upload-pack=touch injected"}, "'--upload-pack=touch injected' is refused"),
        ({"branch": "../../main"}, "'../../main' is refused"),
        ({"branch": "@{-1}"}, "'@{-1}' is refused"),
        ({"version": "2:refs/heads/main"}, "is refused"),
    ],
)
async def test_an_unknown_or_hostile_ref_is_refused_by_name(
    api: Api, fields: dict[str, str], mentions: str | None
) -> None:
    repository = api.folder / "bakehouse"
    repositories.git(repository, "switch", "--quiet", "--orphan", "other")
    repositories.commit(repository, {"ingest.py": "print('another history')"})
    if mentions is None:  # this version is on that branch
        await ended(api, await triggered(api, **fields))
        return
    assert mentions in await refused(api, 400, **fields)
    assert await api.jobs() == []
    assert list(api.folder.rglob("injected")) == []


async def test_files_outside_the_projects_directory_are_of_the_commit_too(tmp_path: Path, make_api: MakeApi) -> None:
    project = {
        "directory": "bakehouse/transform",
        "dbt": ".",
        "ingester": {"command": ["sh", "-c", "pwd"], "directory": ".."},
    }
    api = await make_api(bakehouse.make(tmp_path / "bakery", project=project))
    run = await triggered(api, version="2")
    await ended(api, run)
    commit = (await api.get(f"/api/v1/jobs/{run}"))["commit"]
    assert (await output(api, run)).strip() == str(api.folder / ".pipeline-gateway/checkouts/33290" / commit)


async def test_a_dbt_project_outside_the_repository_has_no_versions(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(bakehouse.make(tmp_path / "bakery", project={"dbt": "../elsewhere"}))
    assert "is not in the repository" in await refused(api, 400, version="2")


async def test_a_refused_process_name_is_shown_printable_and_shortened(api: Api) -> None:
    for process in ("\x1b]0;pwned\x07\x1b[31mred", "x" * 60_000, "no-such"):
        answer = await api.call("POST", PATH, {**LOAD, "processName": process})
        text = message(answer, 400)
        assert len(text) < 500
        assert text.isprintable()


@pytest.mark.parametrize(
    "process", ["+franchises", "franchises+", "tag:x", "models/silver", "a b", "--full-refresh", "*", "{{ x }}"]
)
async def test_a_process_that_is_more_than_a_name_is_refused(api: Api, process: str) -> None:
    for fields in ({}, {"version": "2"}):
        text = await refused(api, 400, pipelineName=PIPELINE, processName=process, **fields)
        assert "is refused: it must be one name" in text
    assert await api.jobs() == []


async def test_elementary_is_on_only_if_the_commit_has_its_package(tmp_path: Path, make_api: MakeApi) -> None:
    pipelines = {"daily": {"dbt": {"command": "daily"}}}
    no_dbt = {"dbt": {"executable": "/no/dbt"}}
    api = await make_api(bakehouse.make(tmp_path / "bakery", project={"pipelines": pipelines}, fabric=no_dbt))
    projects.add_elementary(api.folder / "bakehouse/transform")
    repositories.commit(api.folder / "bakehouse", {})
    repositories.tag(api.folder / "bakehouse", "v3")
    for version, there in (("3", True), ("2", False)):
        record = await api.finished(await triggered(api, pipelineName="daily", version=version))
        steps = [step["name"] for step in record["steps"]]
        assert steps == ["deps", "build", *(["elementary"] if there else [])]
        assert record["enableElementary"] is there


async def test_a_directory_without_git_has_neither_branches_nor_versions(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(bakehouse.make(tmp_path / "bakery"))
    (api.folder / "bakehouse" / ".git").rename(api.folder / "no.git")
    for fields in ({"branch": "main"}, {"version": "2"}):
        assert "is not in a git repository" in await refused(api, 400, **fields)
    assert (await ended(api, await triggered(api)))["runStatus"] == "SUCCEEDED"


async def test_a_missing_repository_is_a_503_that_names_it(tmp_path: Path, make_api: MakeApi) -> None:
    project = {"repository": "gone.git", "directory": ".", "branch": "main"}
    api = await make_api(bakehouse.make(tmp_path / "bakery", project=project))
    answer = await api.call("POST", PATH, LOAD)
    assert "gone.git can't be read" in message(answer, 503)
    assert answer.headers["Retry-After"] == "30"


async def test_simultaneous_runs_of_one_commit_share_its_checkout(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(bakehouse.make(tmp_path / "bakery"))
    go = wait_for_go(api)
    runs = await asyncio.gather(*(triggered(api, version="2") for _ in range(5)))
    go.unlink()
    assert [(await ended(api, run))["runStatus"] for run in runs] == ["SUCCEEDED"] * 5
    folders = {re.findall(r"in (\S+)", await output(api, run))[0] for run in runs}
    assert len(folders) == 1


async def test_changes_that_a_run_made_in_its_checkout_are_undone_for_the_next(
    tmp_path: Path, make_api: MakeApi
) -> None:
    spoil = "grep -c . transform/dbt_project.yml; ls; echo >> transform/dbt_project.yml; touch leftover; rm .gitignore"
    api = await make_api(bakehouse.make(tmp_path / "bakery", project={"ingester": {"command": ["sh", "-c", spoil]}}))
    said = []
    for _ in range(2):
        run = await triggered(api, version="2")
        await ended(api, run)
        said.append(await output(api, run))
    assert said[0] == said[1]
    assert "leftover" not in said[1]


async def test_the_users_working_directory_is_not_changed(api: Api) -> None:
    repository = api.folder / "bakehouse"
    (repository / "uncommitted").write_text("mine")
    before = contents(repository)
    for fields in ({"branch": "dev"}, {"version": "1"}):
        await ended(api, await triggered(api, **fields))
    assert contents(repository) == before


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    found = (file for file in folder.rglob("*") if file.is_file())
    return {str(file): (file.stat().st_mtime_ns, file.read_bytes()) for file in found}


async def test_only_fabrics_with_a_number_are_offered_as_fabric_ids(tmp_path: Path, make_api: MakeApi) -> None:
    """Each that is offered can be triggered."""
    loader = {"ingester": {"command": ["true"]}, "pipelines": {"load": {"ingester": True}}}
    fabrics: dict[str, dict[str, str]] = {name: {} for name in ("007", "7", "local")}
    settings = {"fabrics": fabrics, "default_fabric": "7", "projects": {"small": loader}}
    api = await make_api(projects.make(tmp_path / "project", settings=settings))
    listed, *_ = (await api.get("/api/v1/pipelines"))["pipelines"]
    assert (listed["fabricIds"], listed["fabrics"]) == (["7"], ["007", "7", "local"])
    for fabric in listed["fabricIds"]:
        run = {"fabricId": fabric, "projectId": "small", "pipelineName": "load"}
        answer = await api.call("POST", "/api/trigger/pipeline", run)
        assert (await api.finished(answer.json["runId"]))["fabricId"] == fabric


async def test_pipelines_are_listed_with_their_parameters_and_last_run(api: Api) -> None:
    first, second, third, *builtin = (await api.get("/api/v1/pipelines"))["pipelines"]
    optional = {"default": None, "required": False}
    assert first == {
        "name": PIPELINE,
        "projectId": PROJECT,
        "fabricIds": ["33290"],
        "fabrics": ["33290"],
        "steps": ["ingester", "build"],
        "parameters": [
            {**optional, "name": "franchise_id", "type": "integer", "minimum": 3000001, "maximum": 3999999},
            {**optional, "name": "source", "type": "string", "default": "reviews", "choices": ["reviews", "orders"]},
        ],
        "lastRun": None,
        "usualSeconds": None,
        "paused": False,
        "pausedSince": None,
        "pausedBy": None,
    }
    assert [(one["name"], one["parameters"]) for one in builtin] == [("ingester", []), ("dbt", []), ("full", [])]
    assert (second["name"], second["steps"], third["name"], third["steps"]) == ("gold", ["build"], "load", ["ingester"])
    runs = [await triggered(api) for _ in range(2)]
    for run in runs:
        await ended(api, run)
    third = (await api.get("/api/v1/pipelines"))["pipelines"][2]
    assert third["usualSeconds"] > 0
    assert third["lastRun"] | {"durationSeconds": None} == {
        "jobId": runs[1],
        "status": "completed",
        "outcome": "succeeded",
        "exitCode": 0,
        **{key: third["lastRun"][key] for key in ("createdAt", "startedAt", "finishedAt")},
        "durationSeconds": None,
    }


async def test_a_parameter_that_the_ingesters_shell_would_drop_is_refused(tmp_path: Path, make_api: MakeApi) -> None:
    """The refusal shows the line that is right; with it the parameter arrives. Without a value nothing is lost."""
    pipelines = {"load": {"ingester": True, "parameters": {"since": {"option": "--since"}}}}

    def settings(command: list[str]) -> dict[str, Any]:
        projected = {"41459": {"ingester": {"command": command}, "pipelines": pipelines}}
        return {"fabrics": {str(FABRIC): {"resources": {"ingester": "one"}}}, "projects": projected}

    wrong, right = ["sh", "-c", "echo all"], ["sh", "-c", 'echo all "$@"', "sh"]
    api = await make_api(projects.make(tmp_path / "wrong", settings=settings(wrong)))
    said = await refused(api, 400, projectId="41459", parameters={"since": "2026-01-31"})
    assert f"`projects.41459.ingester.command: {json.dumps(right)}`" in said
    assert (await ended(api, await triggered(api, projectId="41459")))["runStatus"] == "SUCCEEDED"
    api = await make_api(projects.make(tmp_path / "right", settings=settings(right)))
    run = await triggered(api, projectId="41459", parameters={"since": "2026-01-31"})
    await ended(api, run)
    assert await output(api, run) == "all --since=2026-01-31\n"
