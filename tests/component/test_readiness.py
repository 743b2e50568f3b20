"""/readyz: 200 if a trigger would be accepted and could run, else 503 with the reason."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pytest_aiohttp import AiohttpClient

from runners.process.local_runner import LocalRunner
from runners.runner import Liveness
from tests.conftest import MakeApi
from tests.support import damage, hung, parts, projects
from tests.support.api import Api, app, until
from tests.support.gateway import DEADLINE, PATH
from tests.support.projects import write

NO_DBT = {"fabrics": {"local": {"dbt": {"executable": "/no/dbt"}}}}
OK = {"status": "ready"} | dict.fromkeys(("triggers", "recovery", "disk", "database", "programs"), "ok")


async def ready(api: Api) -> tuple[int, dict[str, str]]:
    answer = await api.call("GET", "/readyz")
    assert (await api.call("GET", "/healthz")).status == 200
    return answer.status, answer.json


async def test_a_gateway_that_can_run_its_project_is_ready(project: Path, make_api: MakeApi) -> None:
    assert await ready(await make_api(project)) == (200, OK)


async def test_a_gateway_with_disabled_triggers_is_not_ready(project: Path, make_api: MakeApi) -> None:
    api = await make_api(project, {"PIPELINE_ENABLED": "false"})
    status, checks = await ready(api)
    assert status == 503
    assert checks == {**OK, "status": "not ready", "triggers": checks["triggers"]}
    assert (await api.call("POST", PATH, {})).json["error"] == checks["triggers"]


async def test_a_read_only_state_directory_is_not_ready_and_takes_no_trigger(tmp_path: Path, make_api: MakeApi) -> None:
    """Its disk fails, or an admin mounted it so. Only the folder of the jobs, since the database keeps files open."""
    api = await make_api(projects.make(tmp_path / "project"), {"GATEWAY_FREE_DISK_FLOOR": "1MiB"})
    jobs = api.folder / ".pipeline-gateway" / "jobs"
    with parts.mounted(tmp_path / "disk", "4m") as disk, parts.bound(disk, jobs):
        assert await ready(api) == (200, OK)
        parts.remount_read_only(disk)
        status, checks = await ready(api)
        refused = await api.call("POST", PATH, {"pipeline": "ingester"})
    assert (status, refused.status, refused.json["code"]) == (503, 507, "storage_unavailable")
    assert checks == {**OK, "status": "not ready", "disk": checks["disk"]}
    assert checks["disk"] == refused.json["error"]
    assert f"{jobs} of the state directory can't be written: Read-only file system" in checks["disk"]
    assert await ready(api) == (200, OK)


async def test_a_database_that_another_program_holds_is_not_ready(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(projects.make(tmp_path / "project"))
    database = api.folder / ".pipeline-gateway" / "gateway.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        answers = await asyncio.gather(*(ready(api) for _ in range(40)))
        holder.execute("ROLLBACK")
    for status, checks in answers:
        assert status == 503
        assert checks == {**OK, "status": "not ready", "database": checks["database"]}
        assert "another program may hold it" in checks["database"]
    await until(lambda: _is_ready(api), "readiness")


async def test_a_dbt_project_without_dbt_is_not_ready(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(projects.make(tmp_path / "project", settings=NO_DBT))
    status, checks = await ready(api)
    assert status == 503
    assert checks == {**OK, "status": "not ready", "programs": checks["programs"]}
    assert "/no/dbt" in checks["programs"]
    assert "fabrics.local.dbt.executable" in checks["programs"]


@pytest.mark.parametrize("program", ["openlineage_executable", "edr"])
async def test_a_configured_program_that_is_missing_is_told(tmp_path: Path, make_api: MakeApi, program: str) -> None:
    """Without the toggle that would need it: a default turns itself off."""
    settings = {"fabrics": {"local": {"dbt": {program: "/no/such"}}}}
    status, checks = await ready(await make_api(projects.make(tmp_path / "project", settings=settings)))
    assert status == 503
    assert "The program /no/such was not found" in checks["programs"]
    assert f"`fabrics.local.dbt.{program}`" in checks["programs"]


@pytest.mark.parametrize("command", [["/no/ingest"], ["./no-ingest"], ["no-such-ingester"]])
async def test_an_ingester_without_its_program_is_not_ready(
    tmp_path: Path, make_api: MakeApi, command: list[str]
) -> None:
    settings = {"projects": {"small": {"dbt": "transform", "ingester": {"command": command}}}}
    status, checks = await ready(await make_api(projects.make(tmp_path / "project", settings=settings)))
    assert status == 503
    assert command[0] in checks["programs"]
    assert "projects.small.ingester.command" in checks["programs"]


async def test_without_a_dbt_project_an_ingester_needs_no_dbt(tmp_path: Path, make_api: MakeApi) -> None:
    folder = tmp_path / "project"
    settings = {**NO_DBT, "projects": {"small": {"ingester": {"command": [sys.executable, "ingest.py"]}}}}
    projects.make(folder, settings=settings)
    (folder / "transform").rename(tmp_path / "elsewhere")
    assert await ready(await make_api(folder)) == (200, OK)


async def test_installing_the_program_makes_it_ready_without_a_restart(tmp_path: Path, make_api: MakeApi) -> None:
    settings = {"fabrics": {"local": {"dbt": {"executable": str(tmp_path / "dbt")}}}}
    api = await make_api(projects.make(tmp_path / "project", settings=settings))
    assert (await ready(api))[0] == 503
    write(tmp_path / "dbt", "#!/bin/sh\n")
    (tmp_path / "dbt").chmod(0o755)
    assert await ready(api) == (200, OK)


async def test_below_free_disk_floor_it_is_not_ready_and_shows_the_free_space(project: Path, make_api: MakeApi) -> None:
    status, checks = await ready(await make_api(project, {"GATEWAY_FREE_DISK_FLOOR": "1000000TiB"}))
    assert status == 503
    assert checks == {**OK, "status": "not ready", "disk": checks["disk"]}
    assert str(project / ".pipeline-gateway") in checks["disk"]
    assert "MiB free" in checks["disk"]
    assert "free_disk_floor" in checks["disk"]


async def test_polls_beside_a_hung_mount_leave_triggers_their_threads(tmp_path: Path, make_api: MakeApi) -> None:
    """More polls than the default executor has threads, on a host with any number of processors."""
    (tmp_path / "dead").mkdir()
    loader = {"command": [sys.executable, "ingest.py"]}
    projects_of_both = {"small": {"dbt": "transform", "ingester": loader}, "dead": {"dbt": str(tmp_path / "dead")}}
    settings = {"projects": projects_of_both, "default_project": "small"}
    api = await make_api(projects.make(tmp_path / "project", settings=settings))
    with hung.mounted(tmp_path / "dead"):
        async with asyncio.timeout(DEADLINE):
            answers = await asyncio.gather(*(ready(api) for _ in range(40)))
            assert (await api.run(pipeline="ingester"))["exitCode"] == 0
    for status, checks in answers:
        assert (status, checks["disk"]) == (503, "ok")
        assert "did not answer within" in checks["programs"]
    await until(lambda: _is_ready(api), "readiness")


async def test_a_trigger_on_a_disk_that_hangs_is_refused_in_bounded_time(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(projects.make(tmp_path / "project"))
    state = api.folder / ".pipeline-gateway"
    with hung.mounted(state / "jobs"):
        async with asyncio.timeout(DEADLINE):
            answers = await asyncio.gather(*(api.call("POST", PATH, {"pipeline": "ingester"}) for _ in range(40)))
            assert "did not answer within" in (await ready(api))[1]["disk"]
    assert {(answer.status, answer.json["code"]) for answer in answers} == {(507, "storage_unavailable")}
    assert all(str(state) in answer.json["error"] for answer in answers)
    await until(lambda: _is_ready(api), "readiness")
    assert (await api.run(pipeline="ingester"))["exitCode"] == 0


async def test_a_recovered_job_on_a_fake_silent_engine_makes_it_not_ready(
    tmp_path: Path, make_api: MakeApi, aiohttp_client: AiohttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that it started itself doesn't. The tests of containers stop a real engine."""
    folder = damage.project(tmp_path / "project")
    (folder / "how").write_text("wait")
    client = await aiohttp_client(app(folder))
    first = Api(client.session, client.make_url("/"), folder)
    job = await first.trigger(pipeline="ingester")
    await until(damage.has(folder / "runs"), "the ingester")
    assert await ready(first) == (200, OK)  # it runs, and its state is known
    await client.close()
    real, answers = LocalRunner.wait, asyncio.Event()

    async def wait(runner: LocalRunner, step: Path, seen: Callable[[Liveness], None]) -> Any:
        if not answers.is_set():
            seen(Liveness.UNREACHABLE)
            await answers.wait()
        return await real(runner, step, seen)

    monkeypatch.setattr(LocalRunner, "wait", wait)
    api = await make_api(folder)
    try:
        status, checks = await ready(api)
        phase = (await api.poll(job))["phase"]
    finally:
        answers.set()
    assert (status, phase) == (503, "unreachable")
    assert checks == {**OK, "status": "not ready", "recovery": checks["recovery"]}
    assert "1 jobs" in checks["recovery"]
    await until(lambda: _is_ready(api), "readiness")
    (folder / "go").touch()
    assert (await api.finished(job))["exitCode"] == 7


async def _is_ready(api: Api) -> bool:
    return (await ready(api))[0] == 200
