"""Retention of records and files, with a real database and real files."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ByteSize

from gateway import clock
from gateway.clock import Instant
from gateway.fabrics.checkouts import Checkouts
from gateway.jobs.retention import Retention
from gateway.model.job import Active, Completed
from gateway.model.request import KeptAnswer, RequestKey
from gateway.settings.settings import Settings
from gateway.storage import job_file
from gateway.storage.store import Store
from tests.support.jobs import ended, later, make_job, planned

DAY = 86_400.0
MIB = 2**20
CAP = ByteSize(100 * MIB)
DONE = Completed(0, None)


class Kept:
    """A state directory with jobs and their files, and its retention."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.jobs = folder / "jobs"
        self.jobs.mkdir()
        self.store = store
        settings = Settings(state_directory=folder, record_days=30, state_cap=CAP)
        self.retention = Retention(settings, store, Checkouts(settings, {}))

    async def add(self, job_id: str, *, ended_at: Instant | None, size: int = 1000) -> None:
        """Add a job, ended at that time or active, with files of that size."""
        job = make_job(job_id, plan=planned("build", resources=[job_id]))
        await self.store.insert(job)
        if ended_at is None:
            await self.store.save(job.with_step(0, Active(clock.now(), 0)))
        else:
            await self.store.save(ended(job, DONE, ended_at))
        self.write(job_id, size)

    def write(self, job_id: str, size: int) -> None:
        step = self.jobs / job_id / "1-build"
        (step / "artifacts").mkdir(parents=True)
        for file, part in (
            (self.jobs / job_id / f"output.{0:020}", size // 2),
            (step / "artifacts" / "manifest.json", size - size // 2),
        ):
            file.touch()
            os.truncate(file, part)

    def files(self) -> list[str]:
        """The jobs that have files besides their record."""
        return sorted(folder.name for folder in self.jobs.iterdir() if job_file.has_more(folder))

    async def records(self) -> list[str]:
        return sorted(await self.store.known())


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    store = await Store.open(tmp_path / "gateway.db")
    yield Kept(tmp_path, store)
    await store.close()


async def test_a_record_and_its_files_are_removed_after_record_days(kept: Kept) -> None:
    now = clock.now()
    await kept.add("expired", ended_at=later(-30 * DAY - 60, now))
    await kept.add("kept", ended_at=later(-30 * DAY + 600, now))
    await kept.add("active", ended_at=None)
    await kept.retention.sweep()
    assert kept.files() == await kept.records() == ["active", "kept"]


async def test_the_answer_to_a_trigger_is_removed_after_a_day(kept: Kept) -> None:
    ages = {RequestKey("/", "", f"{hours}", ""): hours for hours in (1, 23, 25)}
    for key, hours in ages.items():
        job = make_job(
            f"{hours}", plan=planned("build", resources=[key.key]), created=later(-3600 * hours, clock.now())
        )
        await kept.store.insert(job, once=(key, lambda *_: KeptAnswer(202, "{}")))
    await kept.retention.sweep()
    assert [await kept.store.answer(key) is not None for key in ages] == [True, True, False]


async def test_an_expired_record_without_files_is_removed(kept: Kept) -> None:
    await kept.add("expired", ended_at=later(-31 * DAY, clock.now()))
    (kept.jobs / "expired" / f"output.{0:020}").unlink()
    (kept.jobs / "expired" / "1-build" / "artifacts" / "manifest.json").unlink()
    await kept.retention.sweep()
    await kept.retention.sweep()
    assert kept.files() == await kept.records() == []


@pytest.mark.parametrize("jump", [-40 * DAY, 40 * DAY])
async def test_a_clock_jump_does_not_change_when_a_job_expires(kept: Kept, jump: float) -> None:
    """The jobs ended while the wall clock was wrong by that much; since then it was corrected."""
    now = clock.now()
    for job_id, age in (("expired", 31 * DAY), ("kept", 1 * DAY)):
        at = later(-age, now)
        await kept.add(job_id, ended_at=replace(at, wall=at.wall + jump))
    await kept.retention.sweep()
    assert kept.files() == await kept.records() == ["kept"]


async def test_a_thousand_expired_records_are_removed_by_two_sweeps(kept: Kept) -> None:
    at = later(-31 * DAY, clock.now())
    jobs = [make_job(f"job-{number}", plan=planned("run", resources=[f"r{number}"])) for number in range(1001)]
    await asyncio.gather(*(kept.store.insert(job) for job in jobs))
    await asyncio.gather(*(kept.store.save(ended(job, DONE, at)) for job in jobs))
    for _ in range(2):
        await kept.retention.sweep()
    assert await kept.records() == []


async def test_the_database_and_the_parse_files_count_towards_the_cap(kept: Kept) -> None:
    await kept.add("ended", ended_at=clock.now(), size=30 * MIB)
    parse = kept.jobs.parent / "parse"
    parse.mkdir()
    cache = parse / f"{0:032x}.msgpack"
    cache.touch()
    os.truncate(cache, 65 * MIB)
    await kept.retention.sweep()
    assert kept.files() == ["ended"]
    os.truncate(cache, 75 * MIB)
    await kept.retention.sweep()
    assert kept.files() == []
    assert cache.exists()


async def test_a_parse_file_unused_for_record_days_is_removed(kept: Kept) -> None:
    parse = kept.jobs.parent / "parse"
    parse.mkdir()
    old, young = (parse / f"{number:032x}.msgpack" for number in range(2))
    for file, age in ((old, 31 * DAY), (young, 29 * DAY)):
        file.touch()
        moment = clock.now().wall - age
        os.utime(file, (moment, moment))
    await kept.retention.sweep()
    assert list(parse.iterdir()) == [young]


async def test_over_the_cap_the_oldest_files_of_ended_jobs_are_removed_first(kept: Kept) -> None:
    """The records of their jobs stay."""
    now = clock.now()
    for number in range(5):
        await kept.add(f"job-{number}", ended_at=later(number - 3600, now), size=30 * MIB)
    await kept.retention.sweep()
    assert kept.files() == ["job-2", "job-3", "job-4"]
    assert len(await kept.records()) == 5
    await kept.add("job-5", ended_at=now, size=30 * MIB)
    await kept.retention.sweep()
    assert kept.files() == ["job-3", "job-4", "job-5"]


async def test_an_active_job_keeps_its_files_over_the_cap(kept: Kept) -> None:
    await kept.add("oldest-active", ended_at=None, size=300 * MIB)
    await kept.add("ended", ended_at=clock.now())
    await kept.retention.sweep()
    assert kept.files() == ["oldest-active"]
    assert (kept.jobs / "oldest-active" / f"output.{0:020}").stat().st_size == 150 * MIB
    assert await kept.records() == ["ended", "oldest-active"]


async def test_files_written_by_an_active_job_count_once_it_has_ended(kept: Kept) -> None:
    await kept.add("first", ended_at=None)
    await kept.retention.sweep()
    (kept.jobs / "first" / "1-build" / "late").touch()
    os.truncate(kept.jobs / "first" / "1-build" / "late", 200 * MIB)
    job = await kept.store.get("first")
    assert job is not None
    await kept.store.save(ended(job, DONE, clock.now()))
    await kept.retention.sweep()
    assert kept.files() == []


async def test_under_the_cap_or_without_any_files_nothing_is_removed(kept: Kept) -> None:
    await kept.add("small", ended_at=clock.now())
    await kept.retention.sweep()
    assert kept.files() == ["small"]
    (kept.jobs / "small").rename(kept.jobs.parent / "elsewhere")
    kept.jobs.rmdir()
    await kept.retention.sweep()
    assert await kept.records() == ["small"]


async def test_files_that_vanish_during_a_sweep_do_no_harm(kept: Kept) -> None:
    """A thread makes and removes files while the sweeps run."""
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            for number in range(20):
                (kept.jobs / "active" / f"file-{number}").write_bytes(b"x" * 1000)
            for number in range(20):
                (kept.jobs / "active" / f"file-{number}").unlink()

    await kept.add("active", ended_at=None)
    churning = threading.Thread(target=churn)
    churning.start()
    try:
        for _ in range(200):
            await kept.retention.sweep()
    finally:
        stop.set()
        churning.join()
    assert kept.files() == ["active"]
