"""/readyz: 200 where a trigger would be taken and could run, else 503 with what is in the way."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_aiohttp import AiohttpClient

from runners.process.local_runner import LocalRunner
from runners.runner import Liveness
from tests.conftest import MakeApi
from tests.support import damage, projects
from tests.support.api import Api, app, until
from tests.support.projects import write

NO_DBT = {"fabrics": {"local": {"dbt": {"executable": "/no/dbt"}}}}
OK = {"status": "ready", "recovery": "ok", "disk": "ok", "programs": "ok"}


async def ready(api: Api) -> tuple[int, dict[str, str]]:
    answer = await api.call("GET", "/readyz")
    assert (await api.call("GET", "/healthz")).status == 200
    return answer.status, answer.json


async def test_a_gateway_that_can_run_its_project_is_ready(project: Path, make_api: MakeApi) -> None:
    assert await ready(await make_api(project)) == (200, OK)


async def test_a_gateway_whose_triggers_are_off_is_ready_to_answer_so(project: Path, make_api: MakeApi) -> None:
    assert await ready(await make_api(project, {"PIPELINE_ENABLED": "false"})) == (200, OK)


async def test_a_dbt_project_without_dbt_is_not_ready(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(projects.make(tmp_path / "project", settings=NO_DBT))
    status, checks = await ready(api)
    assert status == 503
    assert checks == {**OK, "status": "not ready", "programs": checks["programs"]}
    assert "/no/dbt" in checks["programs"]
    assert "fabrics.local.dbt.executable" in checks["programs"]


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


async def test_a_program_that_comes_makes_it_ready_without_a_restart(tmp_path: Path, make_api: MakeApi) -> None:
    settings = {"fabrics": {"local": {"dbt": {"executable": str(tmp_path / "dbt")}}}}
    api = await make_api(projects.make(tmp_path / "project", settings=settings))
    assert (await ready(api))[0] == 503
    write(tmp_path / "dbt", "#!/bin/sh\n")
    (tmp_path / "dbt").chmod(0o755)
    assert await ready(api) == (200, OK)


async def test_under_the_floor_of_its_disk_it_is_not_ready_and_says_how_much_is_free(
    project: Path, make_api: MakeApi
) -> None:
    status, checks = await ready(await make_api(project, {"GATEWAY_FREE_DISK_FLOOR": "1000000TiB"}))
    assert status == 503
    assert checks == {**OK, "status": "not ready", "disk": checks["disk"]}
    assert str(project / ".pipeline-gateway") in checks["disk"]
    assert "MiB free" in checks["disk"]
    assert "free_disk_floor" in checks["disk"]


async def test_with_a_fake_runner_that_can_not_look_a_recovered_job_keeps_it_from_being_ready_and_a_new_one_does_not(
    tmp_path: Path, make_api: MakeApi, aiohttp_client: AiohttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fake is an engine that doesn't answer: the real one is stopped in the tests of containers."""
    folder = damage.project(tmp_path / "project")
    (folder / "how").write_text("wait")
    client = await aiohttp_client(app(folder))
    first = Api(client.session, client.make_url("/"), folder)
    job = await first.trigger(pipeline="ingester")
    await until(damage.has(folder / "runs"), "the ingester")
    assert await ready(first) == (200, OK)  # it runs, but nobody doubts it
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
