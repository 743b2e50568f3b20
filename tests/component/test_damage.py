"""A state directory with damaged files: the service starts, and every job that has a folder is right."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from pytest_aiohttp import AiohttpClient
from structlog.testing import capture_logs

from gateway.app import BROKEN
from gateway.model.job import Completed, Ended, Job
from gateway.storage import job_file, restore
from gateway.storage.store import Store
from runners import durable
from tests.support import damage
from tests.support.api import Api, app, until
from tests.support.damage import DATABASE, PAGE, SIDE_FILES, STATE, Damage, Killed, has
from tests.support.gateway import DEADLINE
from tests.support.jobs import ended, held_by, later, make_job, planned

TEARS = 50


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """The state directory of a killed gateway."""
    return damage.killed(tmp_path_factory.mktemp("killed"))


def records_in_folders(jobs: Path) -> dict[str, Job]:
    """The records in the jobs' own folders."""
    found = {folder.name: job_file.read(folder) for folder in jobs.iterdir()}
    return {name: job for name, job in found.items() if job is not None}


@asynccontextmanager
async def restored(state: Path, jobs: Path) -> AsyncIterator[tuple[dict[str, Job], Store]]:
    """Every job of a state directory as the next gateway restores it, and its store."""
    store = await Store.open(state / DATABASE)
    try:
        await restore.restore(store, jobs)
        found = [await store.get(job_id) for job_id in await store.known()]
        yield {job.id: job for job in found if job is not None}, store
    finally:
        await store.close()


async def _is_whole(state: Path, jobs: Path) -> None:
    """No job is missing, each is as its folder says, running jobs hold their resources, and the database is sound."""
    expected = records_in_folders(jobs)
    async with restored(state, jobs) as (found, store):
        assert found == expected
        for job in expected.values():
            if not isinstance(job.state, Ended):
                new = make_job(f"new-{job.id}", plan=planned("run", resources=job.plan.resources))
                assert await held_by(store, new) == job.id
    with closing(sqlite3.connect(state / DATABASE)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("how", ["truncated", "flipped", "flipped_in_many_places"])
async def test_a_torn_write_ahead_log_loses_no_job_that_has_a_folder(tmp_path: Path, killed: Killed, how: str) -> None:
    for case in range(TEARS):
        rng = random.Random(case)
        state = tmp_path / f"{case}"
        state.mkdir()
        for suffix in SIDE_FILES:
            shutil.copyfile(killed.folder / STATE / f"{DATABASE}{suffix}", state / f"{DATABASE}{suffix}")
        log = state / f"{DATABASE}-wal"
        if how == "truncated":
            damage.truncated(log, rng)
        for _ in range({"truncated": 0, "flipped": 1}.get(how, 40)):
            damage.byte(log, rng)
        await _is_whole(state, killed.jobs)


async def test_the_write_ahead_log_has_jobs_that_the_database_lacks(tmp_path: Path, killed: Killed) -> None:
    """Without them, the tests that tear the log would prove nothing."""
    shutil.copyfile(killed.folder / STATE / DATABASE, tmp_path / DATABASE)
    store = await Store.open(tmp_path / DATABASE)
    known = await store.known()
    await store.close()
    assert 0 < len(known) < len(killed.records) - 2


def many(how: Damage, times: int) -> list[Damage]:
    return [how] * times


FINDABLE: dict[str, list[Damage]] = {
    "header": [damage.header],
    "noise": [damage.noise],
    "empty page": many(damage.page, 5),
    "truncated": many(damage.truncated, 5),
    "version of a schema": [damage.at(60, value.to_bytes(4, "big")) for value in (2**31 - 1, 2**32 - 5, 0, 1)],
    "version of the format": [damage.at(offset, b"\x09") for offset in (18, 19, 47)],
    "size of a page": [damage.at(16, b"\x00\x07")],
    "digit": many(damage.in_record(b'"exit_code":0', b'"exit_code":4'), 2)
    + many(damage.in_record(b'"created":{"wall":17', b'"created":{"wall":18'), 2),
    "letter": many(damage.in_record(b'"pipeline":"ingester"', b'"pipeline":"ingestor"'), 2)
    + many(damage.in_record(b'"kind":"completed"', b'"kind":"compleTed"'), 2),
    "no text": many(damage.in_record(b'"pipeline":"i', b'"pipeline":"\xff'), 2),
    "no JSON": many(damage.in_record(b'{"id":"', b'{"id"::'), 2),
}
# May damage bytes that are never read, such as free space in a page.
OTHER: dict[str, list[Damage]] = {
    "byte": many(damage.byte, 12),
    "block": many(damage.block, 12),
    "page of another place": many(damage.swapped, 4),
    "empty": [damage.empty],
}
# The files beside a database that is older than its write-ahead log.
SIDE: dict[str, list[Damage]] = {
    "log": [damage.beside("-wal", how) for how in (damage.noise, damage.empty, damage.truncated)],
    "index of the log": [damage.beside("-shm", how) for how in (damage.noise, damage.empty, damage.truncated)],
}


def cases(kinds: dict[str, list[Damage]]) -> list[Any]:
    return [
        pytest.param(how, number, id=f"{kind}-{number}")
        for kind, all_of_it in kinds.items()
        for number, how in enumerate(all_of_it)
    ]


@pytest.mark.parametrize(("how", "seed"), cases(FINDABLE))
async def test_a_damaged_database_is_set_aside_and_every_job_is_restored(
    tmp_path: Path, aiohttp_client: AiohttpClient, killed: Killed, how: Damage, seed: int
) -> None:
    folder = killed.copy(tmp_path / "project", checkpointed=True)
    state = folder / STATE
    how(state / DATABASE, random.Random(seed))
    damaged = (state / DATABASE).read_bytes()
    events = await _serves_all(folder, aiohttp_client, killed)
    [aside] = damage.set_aside(state)
    assert aside.read_bytes() == damaged
    [event] = [entry for entry in events if entry["event"] == "database damaged"]
    assert event["set_aside"] == str(aside)
    assert event["found"]
    [event] = [entry for entry in events if entry["event"] == "records restored"]
    assert event["jobs"] == len(killed.records)
    assert sorted(event["active"]) == sorted(killed.meanwhile)
    assert "may be missing" in event["lost"]


@pytest.mark.parametrize(("how", "seed"), cases(OTHER))
async def test_damage_anywhere_in_the_database_is_set_aside_or_harmless(
    tmp_path: Path, aiohttp_client: AiohttpClient, killed: Killed, how: Damage, seed: int
) -> None:
    folder = killed.copy(tmp_path / "project", checkpointed=True)
    how(folder / STATE / DATABASE, random.Random(1000 + seed))
    events = await _serves_all(folder, aiohttp_client, killed)
    paths = [entry["set_aside"] for entry in events if entry["event"] == "database damaged"]
    assert paths == [str(aside) for aside in damage.set_aside(folder / STATE)]


@pytest.mark.parametrize(("how", "seed"), cases(SIDE))
async def test_a_damaged_wal_or_shm_file_loses_no_job_that_has_a_folder(
    tmp_path: Path, aiohttp_client: AiohttpClient, killed: Killed, how: Damage, seed: int
) -> None:
    folder = killed.copy(tmp_path / "project")
    how(folder / STATE / DATABASE, random.Random(seed))
    await _serves_all(folder, aiohttp_client, killed)


async def _serves_all(folder: Path, aiohttp_client: AiohttpClient, killed: Killed) -> list[Any]:
    """The log of the start, after which every job must be right, none may run again, and a new one must run."""
    with capture_logs() as events:
        api = await _started(folder, aiohttp_client)
    async with asyncio.timeout(DEADLINE / 2):  # shorter than the fixture's own deadline
        for job, expected in killed.records.items():
            await api.finished(job)
            ended_anew = job in killed.meanwhile
            record = await api.get(f"/api/v1/jobs/{job}")
            assert damage.steady(record, ended_anew=ended_anew) == damage.steady(expected, ended_anew=ended_anew)
        assert [job["jobId"] for job in await api.jobs()] == list(killed.records)
        assert damage.runs(folder) == killed.runs
        assert (await api.run(pipeline="ingester"))["exitCode"] == 0
    assert damage.runs(folder) == killed.runs + 1
    return list(events)


async def _started(folder: Path, aiohttp_client: AiohttpClient) -> Api:
    """The service. The usual fixture waits for all jobs at its end, which damage may make impossible."""
    client = await aiohttp_client(app(folder))
    return Api(client.session, client.make_url("/"), folder)


async def test_only_the_three_newest_damaged_databases_are_kept(tmp_path: Path) -> None:
    file = tmp_path / DATABASE
    old = [f"{DATABASE}.damaged-2026-0{month}-01T00-00-00Z" for month in range(1, 7)]
    for name in old:
        for suffix in SIDE_FILES:
            (tmp_path / f"{name}{suffix}").touch()
    file.write_bytes(b"x" * PAGE)
    await (await Store.open(file)).close()
    kept = damage.set_aside(tmp_path)
    assert [aside.name for aside in kept[:2]] == old[-2:]
    assert kept[2].read_bytes() == b"x" * PAGE
    assert len(kept) == 3
    assert sum(".damaged-" in name for name in durable.list_names(tmp_path)) == 2 * len(SIDE_FILES) + 1


@pytest.mark.parametrize("content", [b"", b'{"id": "', b"\0" * 600, bytes(range(256)), b"{}", None])
async def test_a_damaged_job_record_is_skipped_and_logged(
    tmp_path: Path, aiohttp_client: AiohttpClient, killed: Killed, content: bytes | None
) -> None:
    """`None` puts another job's record there. The database is deleted, so that only the folders are left."""
    folder = killed.copy(tmp_path / "project")
    _without_database(folder)
    others = [job for job in killed.records if job not in killed.meanwhile]
    file = folder / STATE / "jobs" / others[3] / job_file.NAME
    file.write_bytes((file.parents[1] / others[4] / job_file.NAME).read_bytes() if content is None else content)
    with capture_logs() as events:
        api = await _started(folder, aiohttp_client)
    expected = [job for job in killed.records if job != others[3]]
    assert [job["jobId"] for job in await api.jobs()] == expected
    [event] = [entry for entry in events if entry["event"] == "folders without a record"]
    assert (event["jobs"], Path(event["first"]).name) == (1, others[3])
    for job in expected:
        assert (await api.finished(job))["exitCode"] == killed.records[job]["exitCode"]


def _without_database(folder: Path) -> None:
    for suffix in SIDE_FILES:
        (folder / STATE / f"{DATABASE}{suffix}").unlink()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"id": 5}', b"\0" * 80, bytes(range(128, 256))])
async def test_a_damaged_instance_id_is_replaced(tmp_path: Path, aiohttp_client: AiohttpClient, content: bytes) -> None:
    folder = damage.project(tmp_path / "project")
    (folder / STATE).mkdir()
    (folder / STATE / "instance").write_bytes(content)
    api = await _started(folder, aiohttp_client)
    assert await api.jobs() == []


BROKEN_FILES = {
    "empty": b"",
    "zeros": bytes(512),
    "noise": bytes(range(256)),
    "another_object": b'{"code": 0}',
    "other_types": b'{"pid": "x", "starttime": [], "boot": 1, "grace": null, "code": "x", "started": null, '
    b'"finished": 0, "duration": 0, "signal": 0, "error": null, "stopped": null}',
}


@pytest.mark.parametrize("name", ["spec.json", "started", "exit"])
@pytest.mark.parametrize("content", BROKEN_FILES.values(), ids=BROKEN_FILES)
@pytest.mark.parametrize("ends_first", [True, False], ids=["ended_meanwhile", "running"])
async def test_damaged_files_of_a_step_end_its_job_and_not_the_service(
    tmp_path: Path, aiohttp_client: AiohttpClient, name: str, content: bytes, ends_first: bool
) -> None:
    folder = damage.project(tmp_path / "project")
    (folder / "how").write_text("wait")
    first = await aiohttp_client(app(folder))
    api = Api(first.session, first.make_url("/"), folder)
    job = await api.trigger(pipeline="ingester")
    step = folder / STATE / "jobs" / job / "1-ingester"
    await until(has(folder / "runs"), "the ingester")
    await first.close()
    if ends_first:
        (folder / "go").touch()
        await until(has(step / "exit"), "its end")
    (step / name).write_bytes(content)
    next_one = app(folder)
    second = await aiohttp_client(next_one)
    (folder / "go").touch()
    async with asyncio.timeout(DEADLINE / 2):
        record = await Api(second.session, second.make_url("/"), folder).finished(job)
    right = ("completed", 7, None)
    assert (record["status"], record["exitCode"], record.get("reason")) in (right, ("failed", -1, "unknown"))
    if name == "spec.json" or (name == "started" and ends_first):
        assert record["exitCode"] == 7  # the damaged file is not needed any more
    assert damage.runs(folder) == 1
    assert not next_one[BROKEN].done()


async def test_two_thousand_jobs_are_restored_from_their_folders(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    made = [make_job(f"job-{number}", created=later(number)) for number in range(2000)]
    made = [ended(job, Completed(0, None), later(number + 1)) for number, job in enumerate(made)]
    for job in made:
        folder = tmp_path / "jobs" / job.id
        folder.mkdir(parents=True)
        job_file.write(folder, job)
    begun = time.monotonic()
    async with restored(tmp_path, tmp_path / "jobs") as (found, _):
        seconds = time.monotonic() - begun
    record_property("seconds", round(seconds, 2))
    sys.stdout.write(f"\n2,000 jobs restored in {seconds:.2f} s\n")
    assert list(found.values()) == made
