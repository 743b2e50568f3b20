"""The artifacts and the nodes of jobs, of a real service and a real dbt."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest

from gateway.web.server.links import Links
from tests.conftest import MakeApi
from tests.support import access, projects
from tests.support.api import Api, until
from tests.support.damage import STATE
from tests.support.gateway import Answer

JOBS = "/api/v1/jobs"
# leaves a file that is kept, where nothing can be kept any more
SPOILING = """
    import os, pathlib, shutil
    step = pathlib.Path(os.environ["PIPELINE_GATEWAY_STEP"])
    (step / "lineage.ndjson").write_text("{}\\n")
    shutil.rmtree(step / "artifacts")
    (step / "artifacts").touch()
"""
# leaves each kind of file
LEAVING = """
    import os, pathlib
    step = pathlib.Path(os.environ["PIPELINE_GATEWAY_STEP"])
    (step / "target").mkdir()
    (step / "target/manifest.json").write_text('{"nodes": {}}')
    (step / "lineage.ndjson").write_text('{"event": 1}\\n' * 100_000)
    (step / "elementary_report.html").write_text("<script>document.title = 'report'</script>")
"""
MODELS = {
    "models/broken.sql": "select * from nowhere\n",
    "models/after.sql": "select * from {{ ref('broken') }}\n",
    "tests/no_evens.sql": "select n from {{ ref('evens') }}\n",
    "tests/kept_evens.sql": "{{ config(store_failures=true) }} select n from {{ ref('evens') }}\n",
    "tests/few_evens.sql": "{{ config(severity='warn') }} select n from {{ ref('evens') }}\n",
    "seeds/colours.csv": "id,name\n1,red\n",
}


async def test_an_artifact_that_the_disk_refuses_costs_no_step_its_end(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(projects.make(tmp_path / "project", ingester=SPOILING))
    record = await api.run(pipeline="ingester")
    assert (record["status"], record["exitCode"]) == ("completed", 0), record
    [note] = record["notes"]
    assert note.startswith("lineage.ndjson of the step ingester could not be kept: [Errno 20] Not a directory")
    assert (await api.get(f"{JOBS}/{record['jobId']}/artifacts")) == {"artifacts": []}


@pytest.fixture
async def left(tmp_path: Path, make_api: MakeApi) -> AsyncIterator[tuple[Api, str]]:
    """A service with tokens, and the path of the artifacts of a job that has left files."""
    guarded = access.project(tmp_path / "project")
    projects.write(guarded.folder / "ingest.py", LEAVING)
    api = await make_api(guarded.folder, token=guarded.tokens["run"])
    record = await api.run(pipeline="ingester")
    assert record["exitCode"] == 0, record
    api.token = guarded.tokens["read"]
    yield api, f"{JOBS}/{record['jobId']}/artifacts"
    api.token = guarded.tokens["run"]


async def test_artifacts_are_listed_and_served_with_their_types(left: tuple[Api, str]) -> None:
    api, path = left
    listed = (await api.get(path))["artifacts"]
    assert [(one["step"], one["name"], one["contentType"]) for one in listed] == [
        ("ingester", "manifest.json", "application/json"),
        ("ingester", "lineage.ndjson", "application/x-ndjson"),
        ("ingester", "elementary_report.html", "text/html; charset=utf-8"),
        ("ingester", "command.json", "application/json"),
    ]
    for one in listed:
        assert one["url"] == f"http://localhost{path}/{one['step']}/{one['name']}"
        for method in ("GET", "HEAD"):
            answer = await api.call(method, f"{path}/{one['step']}/{one['name']}")
            assert (answer.status, answer.headers["Content-Type"]) == (200, one["contentType"])
            assert answer.headers["Content-Length"] == str(one["bytes"])
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert len(answer.body) == (one["bytes"] if method == "GET" else 0)
    assert (await api.call("GET", f"{path}/ingester/lineage.ndjson")).body == b'{"event": 1}\n' * 100_000


async def test_a_report_is_served_in_a_sandbox_without_an_origin(left: tuple[Api, str]) -> None:
    api, path = left
    policy = (await api.call("GET", f"{path}/ingester/elementary_report.html")).headers["Content-Security-Policy"]
    rules = dict(rule.strip().partition(" ")[::2] for rule in policy.split(";"))
    assert rules["sandbox"] == "allow-scripts"
    assert (rules["default-src"], rules["frame-ancestors"]) == ("'none'", "'none'")
    plain = (await api.call("GET", f"{path}/ingester/manifest.json")).headers["Content-Security-Policy"]
    assert plain == "default-src 'none'; frame-ancestors 'none'"


async def test_a_known_artifact_is_not_sent_again(left: tuple[Api, str]) -> None:
    api, path = left
    tag = (await api.call("GET", f"{path}/ingester/manifest.json")).headers["ETag"]
    assert re.fullmatch(r'"[0-9a-f-]+"', tag)
    for known, status in ((tag, 304), (f'"x", W/{tag}', 304), ("*", 304), ('"x"', 200)):
        answer = await api.call("GET", f"{path}/ingester/manifest.json", headers={"If-None-Match": known})
        assert (answer.status, answer.headers["ETag"]) == (status, tag)
        assert bool(answer.body) == (status == 200)
    assert (await api.call("GET", f"{path}/ingester/command.json")).headers["ETag"] != tag


@pytest.mark.parametrize(
    ("where", "code"),
    [
        ("ingester/catalog.json", "unknown_artifact"),
        ("ingester/job.json", "unknown_artifact"),
        ("ingester/..%2Fspec.json", "unknown_artifact"),
        ("ingester/..%2F..%2Fjob.json", "unknown_artifact"),
        ("ingester/%00", "unknown_artifact"),
        ("build/manifest.json", "unknown_step"),
        ("..%2F1-ingester/manifest.json", "unknown_step"),
        ("1-ingester/manifest.json", "unknown_step"),
    ],
)
async def test_no_other_path_is_an_artifact(left: tuple[Api, str], where: str, code: str) -> None:
    api, path = left
    for method, suffix in (("GET", ""), ("POST", "/link")):
        answer = await api.call(method, f"{path}/{where}{suffix}")
        assert (answer.status, answer.json["code"]) == (404, code), answer


async def linked(api: Api, path: str) -> str:
    """The path and query of a link, which a token that may only read can make."""
    answer = await api.call("POST", f"{path}/link")
    assert (answer.status, answer.json["seconds"]) == (200, 60)
    assert answer.json["url"].startswith(f"http://localhost{path}?link=")
    return str(answer.json["url"].removeprefix("http://localhost"))


async def test_a_link_opens_its_artifact_without_a_token(left: tuple[Api, str]) -> None:
    api, path = left
    link = await linked(api, f"{path}/ingester/manifest.json")
    api.token = None
    for method in ("GET", "HEAD"):
        assert (await api.call(method, link)).status == 200
    assert (await api.call("GET", link)).json == {"nodes": {}}


async def test_a_link_opens_nothing_but_its_artifact(left: tuple[Api, str]) -> None:
    api, path = left
    link = await linked(api, f"{path}/ingester/manifest.json")
    query = link.partition("?")[2]
    until, _, signature = query.removeprefix("link=").partition("-")
    api.token = None
    refused: list[Answer] = [
        await api.call("GET", f"{path}/ingester/command.json?{query}"),
        await api.call("GET", f"{path}?{query}"),
        await api.call("GET", f"{JOBS}?{query}"),
        await api.call("GET", f"{path}/ingester/../ingester/manifest.json?{query}"),
        await api.call("GET", f"{path}/ingester/%6Danifest.json?{query}"),
        await api.call("POST", link),
        await api.call("POST", f"{path}/ingester/manifest.json/link?{query}"),
        await api.call("GET", f"{link}&{query}"),
        await api.call("GET", f"{path}/ingester/manifest.json?link={float(until) + 60:.3f}-{signature}"),
        await api.call("GET", f"{path}/ingester/manifest.json?link={until}-{'0' * 64}"),
        await api.call("GET", f"{path}/ingester/manifest.json?link=%ED%A0%80-%FF"),
        await api.call("GET", f"{path}/ingester/manifest.json?link={Links().query(path).removeprefix('link=')}"),
    ]
    assert [answer.status for answer in refused] == [401] * len(refused)


@pytest.fixture(scope="module")
def failed_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose build has a model that fails, one that is skipped, and tests that fail and warn."""
    folder = projects.make(tmp_path_factory.mktemp("nodes") / "project", settings={"enable_openlineage": False})
    for file, text in MODELS.items():
        projects.write(folder / "transform" / file, text)
    return folder


@pytest.fixture
async def built(failed_build: Path, make_api: MakeApi) -> tuple[Api, str]:
    """A service on that project, and the path of the job of its one build."""
    api = await make_api(failed_build)
    jobs = (await api.get(JOBS))["jobs"]
    record = jobs[0] if jobs else await api.run(pipeline="dbt", command="build")
    assert (record["status"], record["exitCode"]) == ("completed", 1), record
    return api, f"{JOBS}/{record['jobId']}"


async def nodes(api: Api, job: str, query: str = "") -> dict[str, Mapping[str, Any]]:
    """The nodes of a job by their names; each is there once."""
    found = (await api.get(f"{job}/nodes{query}"))["nodes"]
    assert len({(node["step"], node["uniqueId"]) for node in found}) == len(found)
    return {node["name"]: node for node in found}


STATUSES = {
    "numbers": "success",
    "evens": "success",
    "colours": "success",
    "broken": "error",
    "after": "skipped",
    "no_evens": "fail",
    "kept_evens": "fail",
    "few_evens": "warn",
    "unique_numbers_n": "pass",
    "not_null_numbers_n": "pass",
    "unique_evens_n": "pass",
}


async def test_each_node_of_a_build_has_its_end_and_its_message(built: tuple[Api, str]) -> None:
    api, job = built
    found = await nodes(api, job)
    assert {name: node["status"] for name, node in found.items()} == STATUSES
    failed, model, unique = found["no_evens"], found["broken"], found["unique_evens_n"]
    assert (failed["failures"], failed["message"]) == (5, "Got 5 results, configured to fail if != 0")
    assert "Table with name nowhere does not exist" in model["message"]
    assert (unique["column"], unique["dependsOn"], unique["failures"]) == ("n", ["model.small.evens"], 0)
    assert (found["after"]["dependsOn"], found["after"]["durationSeconds"]) == (["model.small.broken"], 0)
    assert (found["colours"]["resourceType"], found["colours"]["rowsAffected"]) == ("seed", 1)
    assert (model["path"], unique["path"]) == ("models/broken.sql", "models/models.yml")
    record = await api.get(job)
    [step] = record["steps"]
    for node in found.values():
        assert node["step"] == "build"
        assert node["startedAt"] is None or step["startedAt"] < node["startedAt"] < step["finishedAt"]
        assert node["status"] == "skipped" or (node["durationSeconds"] > 0 and "Thread-" in node["thread"])


async def test_the_log_says_of_a_build_what_its_results_say(built: tuple[Api, str]) -> None:
    """But for what dbt does not log."""
    api, job = built
    kept = await nodes(api, job)
    folder = api.folder / STATE / "jobs" / Path(job).name / "1-build"
    documents = [*folder.glob("*/run_results.json"), *folder.glob("*/manifest.json")]
    for file in documents:
        file.rename(file.with_suffix(".away"))
    try:
        logged = await nodes(api, job)
    finally:
        for file in documents:
            file.with_suffix(".away").rename(file)
    assert {name: node["status"] for name, node in logged.items()} == STATUSES
    for name, node in logged.items():
        for field in ("uniqueId", "resourceType", "thread"):
            assert node[field] == kept[name][field], (name, field)
        assert node["durationSeconds"] in (None, pytest.approx(kept[name]["durationSeconds"], abs=0.2))
        assert (node["failures"] or 0) == (kept[name]["failures"] or 0)
        if node["status"] in ("error", "fail", "warn"):
            assert node["message"].split() == kept[name]["message"].split()


async def test_nodes_are_filtered_and_unknown_words_are_refused(built: tuple[Api, str]) -> None:
    api, job = built
    assert set(await nodes(api, job, "?status=error,skipped")) == {"broken", "after"}
    assert set(await nodes(api, job, "?resourceType=seed,snapshot")) == {"colours"}
    assert set(await nodes(api, job, "?step=build&status=warn&resourceType=test")) == {"few_evens"}
    for query, status, code in (
        ("?step=test", 404, "unknown_step"),
        ("?status=failed", 400, "invalid_field"),
        ("?resourceType=tests", 400, "invalid_field"),
        ("?name=x", 400, "unknown_field"),
    ):
        answer = await api.call("GET", f"{job}/nodes{query}")
        assert (answer.status, answer.json["code"]) == (status, code), answer


async def test_the_statement_of_a_failing_test_shows_its_failing_rows(built: tuple[Api, str]) -> None:
    api, job = built
    found = await nodes(api, job)
    statements = {name: await api.get(f"{job}/nodes/{node['uniqueId']}/sql") for name, node in found.items()}
    with duckdb.connect(str(api.folder / "warehouse.duckdb"), read_only=True) as connection:
        for name in ("no_evens", "kept_evens", "few_evens"):
            rows = connection.execute(statements[name]["failuresSql"]).fetchall()
            assert sorted(rows) == [(0,), (2,), (4,), (6,), (8,)], name
    assert statements["kept_evens"]["failuresSql"].endswith('dbt_test__audit"."kept_evens"')
    assert statements["no_evens"]["failuresSql"] == statements["no_evens"]["compiledSql"]
    assert statements["broken"] == {"compiledSql": "select * from nowhere", "failuresSql": None}
    assert statements["after"] == {"compiledSql": None, "failuresSql": None}
    assert 'from "warehouse"."main"."evens"' in statements["unique_evens_n"]["compiledSql"]
    assert statements["unique_evens_n"]["failuresSql"] is None


async def test_an_unknown_node_is_named(built: tuple[Api, str]) -> None:
    api, job = built
    answer = await api.call("GET", f"{job}/nodes/model.small.none/sql")
    assert (answer.status, answer.json["code"]) == (404, "unknown_node")
    assert "'model.small.none' not found in the job" in answer.json["error"]
    answer = await api.call("GET", f"{job}/nodes/model.small.evens/sql?step=elementary")
    assert (answer.status, answer.json["code"]) == (404, "unknown_step")
    assert (await api.call("GET", f"{job}/nodes/model.small.evens/sql?step=build")).status == 200
    assert (await api.call("GET", f"{JOBS}/none/nodes")).status == 404


# dbt as far as a build that never ends
HALF = """
    #!/bin/sh
    event() { printf '{"data": {%s}, "info": {"name": "%s", "msg": "", "thread": "Thread-1"}}\\n' "$2" "$1"; }
    node() { printf '"node_info": {"unique_id": "model.small.%s", "node_name": "%s", "resource_type": "model", ' $1 $1
             printf '"node_started_at": "2026-11-21T23:10:51", "node_status": "%s"}' $2; }
    event MainReportVersion
    event LogStartLine "$(node numbers started)"
    event LogModelResult "$(node numbers success), \\"execution_time\\": 1.5"
    event RunResultError "$(node numbers None), \\"msg\\": \\"password \\u0068unter22x\\""
    event LogStartLine "$(node evens started)"
    event SkippingDetails "$(node odds skipped)"
    [ -e ended ] || exec sleep 600
    exit 2
"""


async def test_nodes_of_a_build_that_runs_and_is_cancelled_come_from_its_log(tmp_path: Path, make_api: MakeApi) -> None:
    dbt = tmp_path / "dbt"
    projects.write(dbt, HALF)
    dbt.chmod(0o755)
    settings = {"fabrics": {"local": {"dbt": {"executable": str(dbt)}}}, "enable_openlineage": False}
    secrets = {"WAREHOUSE_PASSWORD": "hunter22x"}
    api = await make_api(projects.make(tmp_path / "project", settings=settings), secrets)
    job = f"{JOBS}/{await api.trigger(pipeline='dbt', command='build')}"

    async def three() -> dict[str, Mapping[str, Any]]:
        found = await nodes(api, job)
        return found if len(found) == 3 else {}

    found = await until(three, "three nodes")
    assert {name: node["status"] for name, node in found.items()} == {
        "numbers": "success",
        "evens": "running",
        "odds": "skipped",
    }
    assert (found["numbers"]["durationSeconds"], found["numbers"]["thread"]) == (1.5, "Thread-1")
    assert found["numbers"]["message"] == "password ***"  # the log has another spelling of it
    assert found["evens"]["startedAt"] == "2026-11-21T23:10:51.000000+00:00"
    await api.call("POST", f"{job}/cancel")
    await api.finished(Path(job).name)
    found = await nodes(api, job)
    assert [found[name]["status"] for name in ("numbers", "evens", "odds")] == ["success", "interrupted", "skipped"]
    answer = await api.get(f"{job}/nodes/model.small.evens/sql")
    assert answer == {"compiledSql": None, "failuresSql": None}
