"""The list of the jobs API: filters, pages, and 100,000 jobs."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import rfc3339
from gateway.model.history import JobFilter
from gateway.model.job import Completed, Ended, Ending, Failed, Finished, Job, JobOutcome, Reason, Status
from gateway.storage import listing
from gateway.storage.store import Store
from runners.outcome import Exited
from runners.report import Progress
from tests.conftest import MakeApi
from tests.support import projects
from tests.support.api import Api
from tests.support.jobs import SPAN, later, make_job, planned

MANY = 100_000
JOBS = "/api/v1/jobs"
# How each job of the history ended, oldest first; one a minute was accepted.
ENDINGS: dict[str, Ending] = {
    "good": Completed(0, None),
    "warned": Completed(0, None),
    "bad": Completed(1, None),
    "stopped": Failed(Reason.CANCELLED, "It was cancelled."),
    "killed": Failed(Reason.KILLED, "It was killed."),
}


def ended_job(name: str, minute: int, ending: Ending, **fields: Any) -> Job:
    """A job that was accepted so many minutes after noon and ran for as many seconds."""
    warned = Progress(done=1, total=1, warn=1) if name == "warned" else None
    begun = later(60 * minute + 10)  # it was queued before
    steps = [Finished(Exited(0, SPAN), warned, started=begun)]
    job = make_job(name, plan=planned("build", resources=()), steps=steps, created=later(60 * minute))
    return replace(job, state=Ended(later(minute, begun), ending), **fields)


@pytest.fixture
async def api(tmp_path: Path, make_api: MakeApi) -> Api:
    """The service with a history, which ended long before JOB_TTL."""
    folder = projects.make(tmp_path / "project", settings={"record_days": 36500})
    (folder / ".pipeline-gateway").mkdir()
    store = await Store.open(folder / ".pipeline-gateway/gateway.db")
    for minute, (name, ending) in enumerate(ENDINGS.items()):
        fields = {"pipeline": "gold", "project": "shop"} if name in ("bad", "stopped") else {"fabric": "7"}
        await store.insert(ended_job(name, minute, ending, **fields))
    await store.close()
    return await make_api(folder)


async def names(api: Api, query: str) -> list[str]:
    return [job["jobId"] for job in (await api.get(f"{JOBS}?{query}"))["jobs"]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["killed", "stopped", "bad", "warned", "good"]),
        ("status=completed", ["bad", "warned", "good"]),
        ("status=failed,completed&limit=4", ["killed", "stopped", "bad", "warned"]),
        ("status=running,queued", []),
        *((f"outcome={outcome}", [name]) for outcome, name in zip(JobOutcome, ENDINGS, strict=True)),
        ("outcome=errors,failed", ["killed", "bad"]),
        ("pipeline=gold", ["stopped", "bad"]),
        ("pipeline=gold,full", ["killed", "stopped", "bad", "warned", "good"]),
        ("project=shop&outcome=errors", ["bad"]),
        ("project=no-such", []),
        ("fabric=7&status=failed", ["killed"]),
        ("since=2026-11-21T12:03:00Z", ["killed", "stopped"]),
        ("until=2026-11-21T12:03:00Z", ["bad", "warned", "good"]),
        ("since=2026-11-21T13:01:00%2B01:00&until=2026-11-21T13:03:00+01:00", ["bad", "warned"]),
        ("since=2026-11-21T12:03:00.000001Z", ["killed"]),
    ],
)
async def test_each_filter_finds_its_jobs_newest_first(api: Api, query: str, expected: list[str]) -> None:
    assert await names(api, query) == expected


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=done", "status"),
        ("outcome=", "outcome"),
        ("pipeline=a,,b", "pipeline"),
        ("since=yesterday", "since"),
        ("since=2026-11-21", "since"),
        ("since=2026-11-21T12:00:00", "since"),
        ("until=2026-13-41T12:00:00Z", "until"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=-1", "cursor"),
        ("order=oldest", "order"),
        ("limit=1&limit=2", "limit"),
        ("fabric=" + ",".join("x" * 101), "fabric"),
    ],
)
async def test_a_wrong_query_is_refused_by_the_name_of_its_field(api: Api, query: str, field: str) -> None:
    answer = await api.call("GET", f"{JOBS}?{query}")
    assert answer.status == 400
    assert f"query parameter '{field}'" in answer.json["error"]


async def test_pages_lead_to_the_end_also_while_jobs_are_added(api: Api) -> None:
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await api.get(f"{JOBS}?limit=2" + (f"&cursor={cursor}" if cursor else ""))
        seen += [job["jobId"] for job in page["jobs"]]
        cursor = page["next"]
        await api.run(pipeline="ingester")
    assert seen == ["killed", "stopped", "bad", "warned", "good"]


async def test_the_list_finds_a_job_long_after_it_left_the_data_analytics_api(api: Api) -> None:
    assert await api.jobs() == []
    [bad] = (await api.get(f"{JOBS}?outcome=errors"))["jobs"]
    assert (bad["createdAt"], bad["outcome"], bad["projectId"]) == (rfc3339(later(120).wall), "errors", "shop")
    assert bad | {"waitsFor": [], "notifications": []} == await api.get(f"{JOBS}/bad")


async def test_the_usual_duration_is_the_median_without_queue_and_failures(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "gateway.db")
    assert await store.usual_seconds("default", "full") is None
    for minute in range(30):  # the last 20 that ran to their end took 8 to 27 seconds
        ending = Completed(minute % 2, None) if minute < 28 else ENDINGS["killed"]
        await store.insert(ended_job(f"job-{minute}", minute, ending))
    await store.insert(replace(ended_job("other", 1000, Completed(0, None)), pipeline="gold"))
    assert await store.usual_seconds("default", "full") == pytest.approx(17.5)
    await store.close()


@pytest.fixture
async def large(tmp_path: Path) -> AsyncIterator[Store]:
    """A store with 100,000 jobs, one of 1,000 of which failed."""
    store = await Store.open(tmp_path / "gateway.db")
    await store.insert(ended_job("job-0", 0, Completed(0, None)))
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as connection, connection:
        connection.execute(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ? - 1) "
            "INSERT INTO job (id, state, ended_at, ended_uptime, ended_boot, record, project, pipeline, fabric, "
            "status, outcome, created_at, seconds) SELECT 'job-' || n, state, ended_at, ended_uptime, ended_boot, "
            "json_set(record, '$.id', 'job-' || n), project, pipeline, fabric, iif(n % 1000, status, 'failed'), "
            "iif(n % 1000, outcome, 'failed'), created_at + n, seconds FROM job, n",
            (MANY,),
        )
    yield store
    await store.close()


async def test_pages_of_100000_jobs_have_each_once_while_jobs_are_added(large: Store) -> None:
    """The first pages, and those from a cursor near the end on."""
    before: int | None = None
    for start, newest in ((None, MANY), (1001, 1000)):
        seen: list[str] = []
        before = start
        for number in range(5):
            jobs, before = await large.page(JobFilter(), before, 200)
            seen += [job.id for job in jobs]
            if start is None:
                await large.insert(ended_job(f"new-{number}", number, Completed(0, None)))
        assert seen == [f"job-{n}" for n in reversed(range(newest - 1000, newest))]
    assert before is None


async def test_a_rare_outcome_is_found_among_100000_jobs(large: Store, tmp_path: Path) -> None:
    wanted = JobFilter(statuses=(Status.FAILED,), outcomes=(JobOutcome.FAILED,), since=0)
    jobs, following = await large.page(wanted, None, 60)
    assert [job.id for job in jobs] == [f"job-{n}" for n in range(MANY - 1000, MANY - 61_000, -1000)]
    jobs, following = await large.page(wanted, following, 60)
    assert ([job.id for job in jobs][-1], len(jobs), following) == ("job-1000", 39, None)
    assert await large.last_successes()
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as connection:
        for query, values in (listing.page(wanted, 5, 10), (listing.LAST_SUCCESSES, [])):
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", values)]
            assert [line for line in plan if "COVERING INDEX job_listed" in line]  # no record is read but those shown
            assert not [line for line in plan if line.startswith("SCAN job") and "INDEX" not in line]
