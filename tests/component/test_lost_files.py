"""Files of steps that are removed, or damaged, by somebody else: no step runs twice, and none is left running."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_aiohttp import AiohttpClient

from gateway.jobs.record import JobRecord
from gateway.model.job import Active
from gateway.storage import job_file
from runners.detached import supervisor
from tests.conftest import MakeApi
from tests.support import damage, process_facts, projects
from tests.support.api import Api, app, until
from tests.support.damage import STATE, has
from tests.support.gateway import DEADLINE

STEP = "1-ingester"


def _started(job: Path) -> None:
    (job / STEP / "started").unlink()


def _started_and_exit(job: Path) -> None:
    _started(job)
    (job / STEP / "exit").unlink()


def _content_of_step(job: Path) -> None:
    damage.remove(job / STEP)
    (job / STEP).mkdir()


def _step(job: Path) -> None:
    damage.remove(job / STEP)


def _all_jobs(job: Path) -> None:
    damage.remove(job.parent)


REMOVED: list[Callable[[Path], None]] = [
    _started,
    _started_and_exit,
    _content_of_step,
    _step,
    damage.remove,
    _all_jobs,
]
UNKNOWN = ("failed", -1, "unknown")


class Restarted:
    """A project with one service after the other on it, whose ingester waits for a file `go`."""

    def __init__(self, folder: Path, make_client: AiohttpClient) -> None:
        self.folder = damage.project(folder)
        self.state = folder / STATE
        (folder / "how").write_text("wait")
        self._make_client = make_client
        self._client: Any = None

    async def start(self) -> Api:
        self._client = await self._make_client(app(self.folder))
        return Api(self._client.session, self._client.make_url("/"), self.folder)

    async def close(self) -> None:
        await self._client.close()

    async def running(self, *, recorded: bool = True) -> tuple[Api, str, Path]:
        """A service, a job of it whose step runs, and that job's folder. recorded: the record says that it runs."""
        api = await self.start()
        job = await api.trigger(pipeline="ingester")
        await until(has(self.folder / "runs"), "the ingester")
        folder = self.state / "jobs" / job
        if recorded:
            await until(lambda: _is_begun(folder), "the record of the step's begin")
        return api, job, folder

    def go(self) -> None:
        (self.folder / "go").touch()

    def runs(self) -> int:
        return damage.runs(self.folder)


@pytest.fixture
def restarted(tmp_path: Path, aiohttp_client: AiohttpClient) -> Restarted:
    return Restarted(tmp_path / "project", aiohttp_client)


async def _is_begun(folder: Path) -> bool:
    job = job_file.read(folder)
    return job is not None and any(isinstance(step, Active) and step.begun for step in job.steps)


async def _is_quiet(restarted: Restarted) -> bool:
    return process_facts.of_steps(restarted.state) == []


async def end_of(api: Api, job: str) -> tuple[Any, ...]:
    async with asyncio.timeout(DEADLINE / 2):  # shorter than the fixture's own deadline
        record = await api.finished(job)
    return record["status"], record["exitCode"], record.get("reason")


@pytest.mark.parametrize("remove", REMOVED)
async def test_a_step_that_runs_without_its_files_runs_once(
    restarted: Restarted, remove: Callable[[Path], None]
) -> None:
    _, job, folder = await restarted.running()
    await restarted.close()
    remove(folder)
    api = await restarted.start()
    if remove in (_started, _started_and_exit):
        restarted.go()  # its lock leads to its supervisor, so it is followed; otherwise it is ended
    assert await end_of(api, job) == (("completed", 7, None) if remove is _started else UNKNOWN)
    await until(lambda: _is_quiet(restarted), "the end of the supervisor")
    assert restarted.runs() == 1


@pytest.mark.parametrize("remove", REMOVED)
async def test_a_step_that_ended_and_lost_its_files_runs_once(
    restarted: Restarted, remove: Callable[[Path], None]
) -> None:
    _, job, folder = await restarted.running()
    await restarted.close()
    restarted.go()
    await until(lambda: _has_ended(folder / STEP), "the end of the step")
    remove(folder)
    api = await restarted.start()
    assert await end_of(api, job) == (("completed", 7, None) if remove is _started else UNKNOWN)
    assert restarted.runs() == 1


async def _has_ended(step: Path) -> bool:
    return bool((step / "exit").read_bytes().strip())


@pytest.mark.parametrize("remove", REMOVED)
async def test_a_step_that_lost_files_before_it_was_recorded_runs_once(
    restarted: Restarted, monkeypatch: pytest.MonkeyPatch, remove: Callable[[Path], None]
) -> None:
    """The gateway was killed between the start of the step and the record of it."""
    real = JobRecord.update

    async def update(record: JobRecord, change: Any) -> None:
        if not any(getattr(state, "begun", False) for state in change(record.job).steps):
            await real(record, change)

    with monkeypatch.context() as patch:
        patch.setattr(JobRecord, "update", update)
        _, job, folder = await restarted.running(recorded=False)
        await restarted.close()
    remove(folder)
    api = await restarted.start()
    if remove in (_started, _started_and_exit):
        restarted.go()
    assert await end_of(api, job) == (("completed", 7, None) if remove is _started else UNKNOWN)
    assert restarted.runs() == 1


async def test_a_job_whose_files_are_removed_while_it_runs_is_unknown(restarted: Restarted) -> None:
    api, job, folder = await restarted.running()
    damage.remove(folder)
    restarted.go()
    assert await end_of(api, job) == UNKNOWN


DAMAGED: dict[str, Callable[[Path], object]] = {
    "zeros": lambda step: (step / "started").write_bytes(bytes(100)),
    "another process": lambda step: (step / "started").write_text('{"pid": 1, "starttime": 1, "boot": ""}'),
    "a FIFO": lambda step: _replace_by_fifo(step / "started"),
    "no file": lambda step: (step / "started").unlink(),
    "no folder": lambda step: damage.remove(step),
}


def _replace_by_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _replace_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("replace", [_replace_by_fifo, _replace_by_folder])
@pytest.mark.parametrize("name", ["exit", "lock", "refused", "1-ingester", "job.json"])
async def test_what_is_no_file_in_the_place_of_a_file_stops_no_start(
    restarted: Restarted, name: str, replace: Callable[[Path], None]
) -> None:
    """The record has to come from the job's folder, since the database is gone."""
    _, job, folder = await restarted.running()
    await restarted.close()
    restarted.go()
    await until(lambda: _has_ended(folder / STEP), "the end of the step")
    if name == "job.json":
        for file in restarted.state.glob("gateway.db*"):
            file.unlink()
        replace(folder / name)
    elif name == STEP:
        damage.remove(folder / STEP)
        (folder / STEP).touch()
        replace(folder / STEP)
    else:
        (folder / STEP / name).touch()
        replace(folder / STEP / name)
    async with asyncio.timeout(DEADLINE / 2):
        api = await restarted.start()
    if name == "job.json":
        assert (await api.call("GET", f"/api/v1/jobs/{job}")).status == 404
    else:
        assert await end_of(api, job) == (UNKNOWN if name in ("exit", STEP) else ("completed", 7, None))
    assert restarted.runs() == 1


@pytest.mark.parametrize("how", DAMAGED)
async def test_a_cancel_ends_a_step_whose_started_file_is_damaged(restarted: Restarted, how: str) -> None:
    api, job, folder = await restarted.running()
    DAMAGED[how](folder / STEP)
    async with asyncio.timeout(DEADLINE / 2):
        assert (await api.call("POST", f"/api/v1/jobs/{job}/cancel")).status == 202
    status, code, reason = await end_of(api, job)
    assert (status, code, reason) == ("failed", -1, "unknown" if how == "no folder" else "cancelled")
    await until(lambda: _is_quiet(restarted), "the end of the supervisor")


async def test_a_cancel_ends_a_step_whose_supervisor_is_stopped(restarted: Restarted) -> None:
    api, job, folder = await restarted.running()
    os.kill(json.loads((folder / STEP / "started").read_bytes())["pid"], signal.SIGSTOP)
    assert (await api.call("POST", f"/api/v1/jobs/{job}/cancel")).status == 202
    assert await end_of(api, job) == ("failed", -1, "cancelled")


async def test_the_time_limit_ends_a_step_that_has_stopped_its_supervisor(
    tmp_path: Path, make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_CONTINUE_INTERVAL", 0.1)
    stopping = """
        import os, signal, time
        os.kill(os.getppid(), signal.SIGSTOP)
        while True:
            time.sleep(60)
    """
    limit = {"fabrics": {"local": {"time_limit": 1}}}
    api = await make_api(projects.make(tmp_path / "project", ingester=stopping, settings=limit))
    assert await end_of(api, await api.trigger(pipeline="ingester")) == ("failed", -1, "timed_out")


# dbt, after which its results can't be read: what is in their place is made by the words behind `&&`
SPOILING_DBT = """
    #!/bin/sh
    {dbt} "$@"
    code=$?
    cd "$PIPELINE_GATEWAY_STEP/target" && rm run_results.json && {spoil}
    exit $code
"""


@pytest.mark.parametrize(
    ("spoil", "model", "expected"),
    [
        ("ln -s run_results.json run_results.json", "select 1 as n", UNKNOWN),
        ("mkdir run_results.json", "select * from nowhere", ("completed", 1, None)),
    ],
    ids=["loop", "folder"],
)
async def test_a_dbt_step_whose_results_can_not_be_read_ends(
    tmp_path: Path, make_api: MakeApi, spoil: str, model: str, expected: tuple[Any, ...]
) -> None:
    """An exit code of 0 proves nothing then, another one is right."""
    dbt = tmp_path / "dbt"
    projects.write(dbt, SPOILING_DBT.format(dbt=Path(sys.executable).with_name("dbt"), spoil=spoil))
    dbt.chmod(0o755)
    settings = {"fabrics": {"local": {"dbt": {"executable": str(dbt)}}}, "enable_openlineage": False}
    folder = projects.make(tmp_path / "project", settings=settings)
    projects.write(folder / "transform/models/numbers.sql", model)
    api = await make_api(folder)
    job = await api.trigger(pipeline="dbt", command="build")
    assert await end_of(api, job) == expected
    record = await api.finished(job)
    said = record["error"] if expected == UNKNOWN else record["firstFailure"]["message"]
    assert said
    assert ("run_results.json" in said) == (expected == UNKNOWN)
