"""Databases and disks that the store can't use, and what it says."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.errors import StateError, StorageError
from gateway.model.job import Completed, Job
from gateway.storage.store import Store
from runners.report import Failure
from tests.support.jobs import ended, held_by, make_job, planned
from tests.support.parts import mounted, remount_read_only


async def refusal(file: Path) -> str:
    with pytest.raises(StateError) as refused:
        await Store.open(file)
    assert "\n" not in str(refused.value)
    return str(refused.value)


async def test_a_database_of_a_newer_schema_is_refused_and_left_unchanged(tmp_path: Path) -> None:
    """The refusal says what to do."""
    file = tmp_path / "gateway.db"
    await (await Store.open(file)).close()
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = file.read_bytes()
    said = await refusal(file)
    assert said.startswith(f"{file}: made by a newer version of the gateway (schema 99, this one knows ")
    assert said.endswith("install that version again, or use another state directory")
    assert file.read_bytes() == before
    assert set_aside(tmp_path) == []


@pytest.mark.parametrize("content", [b"This is not a database, but a longer text. " * 100, os.urandom(8192)])
async def test_a_file_that_is_not_a_database_is_set_aside_and_replaced(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "gateway.db"
    file.write_bytes(content)
    store = await Store.open(file)
    assert await held_by(store, make_job("a")) is None
    await store.close()
    assert [aside.read_bytes() for aside in set_aside(tmp_path)] == [content]


def set_aside(folder: Path) -> list[Path]:
    return list(folder.glob("gateway.db.damaged-*Z"))


async def test_a_missing_folder_or_a_folder_with_the_files_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gateway.db").mkdir()
    for file in (tmp_path / "missing" / "gateway.db", tmp_path / "gateway.db"):
        assert (await refusal(file)).startswith(f"{file}: the database can't be used: ")


async def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    (tmp_path / "gateway.db").touch()
    store = await Store.open(tmp_path / "gateway.db")
    assert await held_by(store, make_job("a")) is None
    await store.close()


async def test_a_record_that_can_not_be_written_fails_its_caller_only(tmp_path: Path) -> None:
    """Half a surrogate pair can't be encoded. The next caller and the next start must not fail for it."""
    store = await Store.open(tmp_path / "gateway.db")
    await store.insert(make_job("a"))
    saving = asyncio.create_task(store.save(ended(make_job("a"), Completed(1, Failure("\ud800", "message")))))
    await asyncio.wait([saving, store.committer], return_when=asyncio.FIRST_COMPLETED)
    alive = not store.committer.done()
    await closed(store)
    assert alive
    with pytest.raises(ValueError, match="surrogate"):
        await saving


async def test_a_store_whose_writer_died_still_closes(tmp_path: Path) -> None:
    """The process ends when a service-wide task dies; waiting for that task would keep it alive for ever."""
    store = await Store.open(tmp_path / "gateway.db")
    store.committer.cancel()
    await asyncio.wait([store.committer])
    waiting = asyncio.create_task(store.insert(make_job("a")))
    await asyncio.sleep(0)
    assert await closed(store)
    waiting.cancel()


async def closed(store: Store) -> bool:
    """Whether the store closes by itself; afterwards it is closed in any case."""
    _, late = await asyncio.wait([asyncio.create_task(store.close())], timeout=30)
    for task in late:
        task.cancel()
        await store._reader.close()
        await store._writer.close()
    return not late


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", "2m") as folder:
        yield folder


async def filled(store: Store) -> list[Job]:
    """The jobs that the store accepted until it refused one."""
    accepted: list[Job] = []
    with pytest.raises(StorageError, match=r"database can't be used now .*free disk space"):
        await fill(store, accepted)
    return accepted


async def fill(store: Store, accepted: list[Job]) -> None:
    for number in range(10_000):
        job = make_job(f"job-{number}", plan=planned(*["run"] * 20, resources=[f"r{number}"]))
        await store.insert(job)
        accepted.append(job)


async def test_a_full_disk_refuses_new_jobs_and_reads_go_on(small_disk: Path) -> None:
    store = await Store.open(small_disk / "gateway.db")
    accepted = await filled(store)
    assert accepted
    assert await store.active() == accepted
    with pytest.raises(StorageError):
        await store.insert(make_job("one-more", plan=planned(*["run"] * 20, resources=["more"])))
    assert await store.active() == accepted
    await store.close()
    again = await Store.open(small_disk / "gateway.db")
    assert await again.active() == accepted  # all accepted jobs and no refused one
    await again.close()


async def test_writes_go_on_once_the_disk_has_room_again(small_disk: Path) -> None:
    store = await Store.open(small_disk / "gateway.db")
    (small_disk / "ballast").write_bytes(b"x" * 2**20)
    accepted = await filled(store)
    (small_disk / "ballast").unlink()
    assert await held_by(store, make_job("after")) is None
    assert [job.id for job in await store.active()] == [*(job.id for job in accepted), "after"]
    await store.close()


async def test_a_read_only_disk_is_refused_at_the_start(small_disk: Path) -> None:
    store = await Store.open(small_disk / "gateway.db")
    await store.insert(make_job("a"))
    await store.close()
    remount_read_only(small_disk)
    assert (await refusal(small_disk / "gateway.db")).endswith("check the disk and the owner")


async def test_a_write_that_the_system_refuses_raises_and_reads_go_on(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "gateway.db")
    await store.insert(make_job("a"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))
    try:
        with pytest.raises(StorageError):
            await store.insert(make_job("b", plan=planned("run", resources=["other"])))
        assert [job.id for job in await store.active()] == ["a"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert await held_by(store, make_job("c", plan=planned("run", resources=["other"]))) is None
    await store.close()


CLAIMS = """
    DROP TABLE claim;
    CREATE TABLE claim (job INTEGER, resource TEXT, phase TEXT CHECK (phase IN ('holds', 'over')));
    CREATE UNIQUE INDEX claim_holder ON claim (resource) WHERE phase = 'holds';
"""


@pytest.mark.parametrize("script", ["DROP INDEX claim_holder", CLAIMS], ids=["two can hold", "no job can wait"])
async def test_a_schema_without_the_constraints_of_claims_is_set_aside(tmp_path: Path, script: str) -> None:
    file = tmp_path / "gateway.db"
    await (await Store.open(file)).close()
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(script)
    await (await Store.open(file)).close()
    assert len(set_aside(tmp_path)) == 1
