"""Fifty jobs run in parallel and leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.fabrics.registry import FabricRegistry
from gateway.jobs.service import JobService
from gateway.model.job import Completed, Ended, Job
from gateway.model.plan import Plan
from gateway.model.request import TriggerRequest
from gateway.settings.fabric import RunnerName
from gateway.storage.pauses import Pauses
from gateway.storage.store import Store
from runners.process.local_runner import LocalRunner
from tests.support.api import until
from tests.support.jobs import planned, planned_job
from tests.support.settings import load

JOBS = 50
SETTINGS = """
enabled: true
free_disk_floor: 0
projects:
  quick: {ingester: {command: ["true"]}}
  waiting: {ingester: {command: [sh, -c, "touch alive/$$; until [ -e go ]; do sleep 0.05; done"]}}
default_project: quick
"""


def broken(task: asyncio.Task[None]) -> None:
    raise AssertionError(f"{task} died")


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[JobService]:
    (tmp_path / "alive").mkdir()
    settings = load(tmp_path, SETTINGS)
    (settings.state_directory / "jobs").mkdir(parents=True)
    store = await Store.open(settings.state_directory / "gateway.db")
    runner = LocalRunner(settings.output_cap)
    registry = FabricRegistry(settings, os.environ, instance="")
    pauses = Pauses(settings.state_directory / "paused")
    service = JobService(settings, store, pauses, {RunnerName.LOCAL: runner}, registry, on_broken=broken)
    yield service
    (tmp_path / "go").touch()
    await service.close()
    await store.close()


def plan(number: int) -> Plan:
    return planned("ingester", resources=[f"resource-{number}"])


async def submitted(service: JobService, project: str) -> list[Job]:
    registry, trigger = service.registry, TriggerRequest("ingester")
    jobs = [planned_job(registry, plan(number), trigger, project=project) for number in range(JOBS)]
    return await asyncio.gather(*(service.accept(job) for job in jobs))


async def ended(service: JobService, job: Job) -> Ended:
    snapshot = await service.get(job.id)
    while not isinstance(snapshot.job.state, Ended):
        known = snapshot
        snapshot = await service.wait(job.id, known.__ne__, 60)
    return snapshot.job.state


def held() -> dict[str, list[str]]:
    """What this process has: descriptors by kind, threads, child processes, tasks."""
    descriptors = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            descriptors.append(str(entry.readlink()).split(":")[0])
        except FileNotFoundError:
            continue  # the one that lists them
    children = [task.joinpath("children").read_text() for task in Path("/proc/self/task").iterdir()]
    return {
        "descriptors": sorted(descriptors),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "children": [child for text in children for child in text.split()],
        "tasks": sorted(task.get_name() for task in asyncio.all_tasks()),
    }


def started_in(folder: Path) -> list[str]:
    """Processes that work in this folder: steps and their supervisors."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            about = process.joinpath("cmdline").read_bytes() + bytes((process / "cwd").readlink())
        except OSError:
            continue  # it ended meanwhile
        if str(folder).encode() in about and process.name != str(os.getpid()):
            found.append(about.decode(errors="replace"))
    return found


async def test_fifty_jobs_leave_no_descriptor_thread_child_or_task_behind(service: JobService, tmp_path: Path) -> None:
    others = held()["children"]
    await asyncio.gather(
        *(asyncio.to_thread(threading.Event().wait, 0.2) for _ in range(64))
    )  # all threads of the pool
    for job in await submitted(service, "quick"):
        assert (await ended(service, job)).ending == Completed(0, None)
    before = held()
    for job in await submitted(service, "quick"):
        assert (await ended(service, job)).ending == Completed(0, None)

    async def all_is_as_before() -> bool:
        return held() == before and not started_in(tmp_path)

    await until(all_is_as_before, f"{held()} to be {before}, and no process in {started_in(tmp_path)}")
    assert [name for name in held()["tasks"] if name.startswith(("job-", "follow-"))] == []
    assert held()["children"] == others


async def test_fifty_jobs_on_fifty_resources_run_side_by_side(service: JobService, tmp_path: Path) -> None:
    jobs = await submitted(service, "waiting")

    async def all_alive() -> bool:
        return len(list((tmp_path / "alive").iterdir())) == JOBS

    await until(all_alive, "fifty ingesters")
    for pid in (tmp_path / "alive").iterdir():
        os.kill(int(pid.name), 0)
    states = [(await service.get(job.id)).job.state for job in jobs]
    assert not any(isinstance(state, Ended) for state in states)
    (tmp_path / "go").touch()
    endings = await asyncio.gather(*(ended(service, job) for job in jobs))
    assert [state.ending for state in endings] == [Completed(0, None)] * JOBS
