"""Very many jobs: the process leaks nothing, and a start with all their records is fast."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from gateway import clock
from gateway.model.job import Completed, Finished, Job, Running
from gateway.storage.store import Store
from runners.outcome import Exited
from tests.benchmarks.timing import seconds
from tests.conftest import MakeGateway, Tell
from tests.support import projects
from tests.support.gateway import PATH
from tests.support.jobs import SPAN, ended, held_by, make_job, planned
from tests.support.process_facts import of_steps
from tests.support.quick_jobs import quick_project, run_quick, settled, warm_up

pytestmark = pytest.mark.installed  # what the real command holds, and how soon it starts

JOBS = 500  # `python -m tests.benchmarks.soak --jobs 10000` does the same with more
RECORDS = 10_000
LISTED = 1_000
GOAL = 1.0  # seconds from SIGKILL to serving; a test fails at ten times that


@pytest.mark.timeout(600)  # half a minute on an idle machine, several on a busy one
def test_five_hundred_jobs_leak_no_process_thread_or_descriptor(tmp_path: Path, make_gateway: MakeGateway) -> None:
    gateway = make_gateway(quick_project(tmp_path / "project"))
    before = warm_up(gateway)
    run_quick(gateway, JOBS)
    after = settled(gateway, before)
    assert (after.zombies, after.threads, after.descriptors) == (0, before.threads, before.descriptors)
    assert of_steps(gateway.state) == []


def test_a_start_with_ten_thousand_ended_jobs_is_fast(tmp_path: Path, make_gateway: MakeGateway, tell: Tell) -> None:
    """Its list has the newest thousand."""
    gateway = make_gateway(projects.make(tmp_path / "project"))

    def again() -> None:
        gateway.kill()
        gateway.start()

    empty = seconds(again)
    gateway.kill()
    jobs = [_ended_job(number) for number in range(RECORDS)]
    asyncio.run(_record(gateway.state / "gateway.db", jobs))
    for job in jobs:
        folder = gateway.state / "jobs" / job.id
        folder.mkdir(parents=True)
        (folder / f"output.{0:020}").write_text(f"output of {job.id}\n", encoding="utf-8")
    gateway.start()
    took = seconds(again)
    tell(f"SIGKILL to serving with {RECORDS:,} ended jobs: {took:.2f} s (goal {GOAL:.0f}), with none {empty:.2f} s")
    listed = [job["jobId"] for job in gateway.call("GET", PATH).json["jobs"]]
    assert listed == [job.id for job in reversed(jobs[-LISTED:])]
    for job in (jobs[0], jobs[-1]):
        assert gateway.poll(job.id)["output"] == f"output of {job.id}\n"
    assert took < 10 * GOAL


def _ended_job(number: int) -> Job:
    now = clock.now()
    job = make_job(
        f"ingester-1795262400000-{number:06}",
        plan=planned("ingester", resources=[f"resource-{number}"]),  # so that all can be recorded at once
        steps=[Finished(Exited(0, SPAN), started=now)],
        created=now,
    )
    return ended(replace(job, pipeline="ingester", command=None), Completed(0, None), now)


async def _record(file: Path, jobs: list[Job]) -> None:
    store = await Store.open(file)

    async def record(job: Job) -> None:
        assert await held_by(store, replace(job, state=Running())) is None
        await store.save(job)

    await asyncio.gather(*(record(job) for job in jobs))
    await store.close()
