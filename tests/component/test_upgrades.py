"""State directories of every earlier schema: they open, and their records are unchanged."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway import clock
from gateway.fabrics.checkouts import Checkouts
from gateway.jobs.retention import Retention
from gateway.model.job import Ended
from gateway.storage import integrity as database
from gateway.storage import restore
from gateway.storage.integrity import _MIGRATIONS
from gateway.storage.store import Store
from tests.conftest import MakeApi
from tests.fixtures.make import HERE
from tests.fixtures.state import DATABASE, Kept, counted, lasting, schemas, whole_record
from tests.support.api import Api
from tests.support.settings import load

CURRENT = len(_MIGRATIONS)


def version(file: Path) -> int:
    with closing(sqlite3.connect(file)) as connection:
        [[found]] = connection.execute("PRAGMA user_version")
    return int(found)


def rows(file: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute("SELECT id, state, ended_at, ended_uptime, record FROM job ORDER BY seq").fetchall()


def test_there_is_a_state_directory_of_every_schema() -> None:
    assert schemas() == list(range(1, CURRENT + 1))


def test_the_recorded_state_directories_are_small_and_name_no_machine() -> None:
    files = [file for file in HERE.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert sum(file.stat().st_size for file in files) < 150_000 * CURRENT
    for file in HERE.glob("schema-*/**/spec.json"):
        assert '"cwd": "@PROJECT@' in file.read_text("utf-8")


async def list_finds_each(api: Api, kept: Kept, field: str) -> None:
    """A filter of the list finds the jobs that have each value of a field."""
    by_value: dict[str, set[str]] = {}
    for job, record in kept.answers["records"].items():
        by_value.setdefault(whole_record(record)[field], set()).add(job)
    for value, jobs in by_value.items():
        listed = (await api.get(f"/api/v1/jobs?{field}={value}"))["jobs"]
        assert {job["jobId"] for job in listed} == jobs, value


@pytest.mark.parametrize("schema", schemas())
async def test_every_record_after_the_upgrade_is_what_its_version_answered(
    tmp_path: Path, make_api: MakeApi, monkeypatch: pytest.MonkeyPatch, schema: int
) -> None:
    kept = Kept(schema, tmp_path / "project")
    with closing(sqlite3.connect(kept.state / DATABASE)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = ON")
        for job in kept.active:  # another test is about its supervisor
            shutil.rmtree(kept.state / "jobs" / job)
            connection.execute("DELETE FROM job WHERE id = ?", (job,))
    now = kept.soon_after()
    monkeypatch.setattr(clock, "now", lambda: now)  # the list shows jobs of one hour
    api = await make_api(kept.folder)
    for job, expected in kept.answers["records"].items():
        assert lasting(await api.get(f"/api/v1/jobs/{job}")) == whole_record(expected)
        assert lasting(await api.poll(job)) == counted(kept.answers["polls"][job])
    expected = [counted(job) for job in kept.answers["list"] if job["jobId"] not in kept.active]
    assert [lasting(job) for job in await api.jobs()] == expected
    for fields in ("status", "outcome"):
        await list_finds_each(api, kept, fields)
    assert version(kept.state / DATABASE) == CURRENT


@pytest.mark.parametrize("schema", schemas())
async def test_the_upgrade_keeps_a_copy_of_the_old_database(tmp_path: Path, schema: int) -> None:
    kept = Kept(schema, tmp_path / "project")
    before = rows(kept.state / DATABASE)
    for _ in range(2):
        await (await Store.open(kept.state / DATABASE)).close()
    copies = sorted(file.name for file in kept.state.glob(f"{DATABASE}.schema-*"))
    assert copies == ([] if schema == CURRENT else [f"{DATABASE}.schema-{schema}"])
    for name in copies:
        assert version(kept.state / name) == schema
        assert rows(kept.state / name) == before
    assert rows(kept.state / DATABASE) == before


@pytest.mark.parametrize("schema", [schema for schema in schemas() if schema < CURRENT])
async def test_an_interrupted_upgrade_is_done_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schema: int
) -> None:
    kept = Kept(schema, tmp_path / "project")
    before = rows(kept.state / DATABASE)
    with monkeypatch.context() as patch:
        patch.setattr(database, "_MIGRATIONS", (*_MIGRATIONS[:schema], "no-such.sql"))
        with pytest.raises(FileNotFoundError):
            database._open(kept.state / DATABASE)
    assert version(kept.state / DATABASE) == schema
    await (await Store.open(kept.state / DATABASE)).close()
    assert version(kept.state / DATABASE) == CURRENT
    assert rows(kept.state / DATABASE) == before


@pytest.mark.parametrize("schema", schemas())
async def test_a_database_lost_after_the_upgrade_is_restored_from_the_folders(tmp_path: Path, schema: int) -> None:
    """Also for a version whose folders had no record: the first sweep writes it."""
    kept = Kept(schema, tmp_path / "project")
    settings = load(tmp_path, f"{{state_directory: {kept.state}, record_days: 36500}}")
    for turn in range(2):
        store = await Store.open(kept.state / DATABASE)
        try:
            await restore.restore(store, kept.state / "jobs")
            await Retention(settings, store, Checkouts(settings, {})).sweep()
            ended = [job for job, over in (await store.known()).items() if over]
            jobs = [await store.get(job) for job in ended]
        finally:
            await store.close()
        assert set(ended) == set(kept.answers["records"]), f"turn {turn}"
        assert all(job is not None and isinstance(job.state, Ended) for job in jobs)
        (kept.state / DATABASE).unlink()
