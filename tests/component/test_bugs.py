"""A bug in the gateway: the job that it hits fails with none of its processes alive, and the other jobs go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytest_aiohttp import AiohttpClient

from gateway.app import BROKEN
from gateway.fabrics.local import LocalFabric
from runners.process.local_runner import LocalRunner
from tests.conftest import MakeApi
from tests.support import projects
from tests.support.api import Api, app

WAITING = """
    import pathlib, time
    pathlib.Path("began").touch()
    while True:
        time.sleep(1)
"""


def broken(*_: Any) -> Any:
    raise RuntimeError("a bug")


async def test_a_bug_ends_its_job_as_failed_with_an_incident_id(
    tmp_path: Path, make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await make_api(projects.make(tmp_path / "project"))
    with monkeypatch.context() as patch:
        patch.setattr(LocalFabric, "conclude", broken)
        record = await api.run(pipeline="ingester")
    assert (record["status"], record["reason"], record["exitCode"]) == ("failed", "unknown", -1)
    assert "incident" in record["error"]
    assert "a bug" not in str(record)
    assert [step["status"] for step in record["steps"]] == ["failed"]
    assert (await api.run(pipeline="ingester"))["exitCode"] == 0


async def test_a_step_left_running_by_a_bug_is_stopped_before_the_job_ends(
    tmp_path: Path, make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LocalRunner.wait
    calls = 0

    async def wait(runner: LocalRunner, folder: Path, seen: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("a bug while the step runs")
        return await real(runner, folder, seen)

    monkeypatch.setattr(LocalRunner, "wait", wait)
    folder = projects.make(tmp_path / "project", ingester=WAITING)
    api = await make_api(folder)
    record = await api.run(pipeline="ingester")
    assert (record["status"], record["reason"]) == ("failed", "unknown")
    ended = folder / ".pipeline-gateway/jobs" / record["jobId"] / "1-ingester/exit"
    assert '"stopped": "asked"' in ended.read_text()


@pytest.mark.parametrize("method", ["wait", "stop"])
async def test_a_runner_that_fails_again_ends_its_job_and_not_the_service(
    tmp_path: Path, aiohttp_client: AiohttpClient, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    folder = projects.make(tmp_path / "project")
    service = app(folder)
    client = await aiohttp_client(service)
    api = Api(client.session, client.make_url("/"), folder)
    with monkeypatch.context() as patch:
        patch.setattr(LocalRunner, "wait", broken)
        patch.setattr(LocalRunner, method, broken)
        record = await api.run(pipeline="ingester")
    assert (record["status"], record["reason"]) == ("failed", "unknown")
    assert "may still run" in record["error"]
    assert not service[BROKEN].done()
    assert (await api.run(pipeline="ingester"))["exitCode"] == 0
