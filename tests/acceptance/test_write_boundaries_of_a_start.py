"""A starting gateway is killed once at every boundary between two writes; the next start recovers.

The calls are wrapped from outside, as in test_write_boundaries.py.
"""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import closing
from importlib import resources
from pathlib import Path

import pytest

from tests.support.dying import DyingGateway, all_is_well, killed, ran_in_turn, ran_undisturbed, submitted
from tests.support.dying_gateway import points
from tests.support.gateway import PATH, wait_for


@pytest.mark.parametrize("point", points("restoring"))
def test_a_restore_of_a_lost_database_may_be_cut_off(dying: DyingGateway, point: str) -> None:
    old, active = killed(dying)
    for file in dying.state.glob("gateway.db*"):
        file.unlink()
    dying.launch_until(point)
    dying.died()
    dying.start()
    assert sorted(dying.listed()) == sorted([*old, active])
    # the job's claims were restored with it
    refused = dying.call("POST", PATH, {"pipeline": "ingester"})
    assert (refused.status, refused.json.get("conflict", {}).get("jobId")) == (409, active), refused
    dying.release()
    for job in (*old, active):
        ran_undisturbed(dying, job)
    all_is_well(dying)


@pytest.mark.parametrize("point", points("restoring a queue"))
def test_a_restore_of_a_lost_queue_may_be_cut_off_and_keeps_the_order(dying: DyingGateway, point: str) -> None:
    dying.hold()
    dying.serve()
    first = submitted(dying)
    second, third = (dying.submit(wait=True) for _ in range(2))
    wait_for(lambda: all((dying.jobs / str(job) / "job.json").exists() for job in (second, third)), "their folders")
    dying.kill()
    for file in dying.state.glob("gateway.db*"):
        file.unlink()
    dying.launch_until(point)
    dying.died()
    dying.start()
    refused = dying.call("POST", PATH, {"pipeline": "ingester"})
    assert (refused.status, refused.json.get("conflict", {}).get("jobId")) == (409, first), refused
    dying.release()
    ran_in_turn(dying, first, second, third)
    all_is_well(dying)


@pytest.mark.parametrize("point", points("recovering"))
def test_a_recovery_cut_off_by_a_kill_is_done_by_the_next_gateway(dying: DyingGateway, point: str) -> None:
    dying.hold()
    dying.serve()
    jobs = [dying.submit(resources=[resource]) for resource in ("warehouse", "other")]
    wait_for(lambda: all(dying.runs(str(job))[0] for job in jobs), "the first steps")
    dying.kill()
    dying.launch_until(point)
    dying.died()
    dying.start()
    dying.release()
    for job in jobs:
        ran_undisturbed(dying, str(job))
    all_is_well(dying)


@pytest.mark.parametrize("point", points("migrating"))
def test_a_migration_cut_off_by_a_kill_is_done_by_the_next_gateway(dying: DyingGateway, point: str) -> None:
    old, active = killed(dying)
    _turn_back(dying.state / "gateway.db")
    dying.launch_until(point)
    dying.died()
    dying.start()
    assert sorted(dying.listed()) == sorted([*old, active])
    with closing(sqlite3.connect(dying.state / "gateway.db.schema-1")) as backup:
        assert backup.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert backup.execute("PRAGMA user_version").fetchall() == [(1,)]
        assert backup.execute("SELECT id FROM job ORDER BY seq").fetchall() == [(job,) for job in (*old, active)]
    assert list(dying.state.glob("*.damaged-*")) == []
    dying.release()
    ran_undisturbed(dying, active)
    all_is_well(dying)


def _turn_back(file: Path) -> None:
    """Rewrite the database in the first schema, with the same jobs."""
    with closing(sqlite3.connect(file)) as connection:
        jobs = connection.execute(
            "SELECT seq, id, state, ended_at, ended_uptime, ended_boot, record FROM job"
        ).fetchall()
        claims = connection.execute("SELECT id, resource, phase FROM claim JOIN job ON job.seq = claim.job").fetchall()
    for old in file.parent.glob("gateway.db*"):
        old.unlink()
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.executescript(resources.files("gateway.storage").joinpath("schema.sql").read_text(encoding="utf-8"))
        connection.executemany("INSERT INTO job VALUES (?, ?, ?, ?, ?, ?, ?)", jobs)
        connection.executemany("INSERT INTO claim VALUES (?, ?, ?)", claims)
        connection.execute("PRAGMA user_version = 1")


# whether gateway.db and its -wal are still in place
HALF_ASIDE = {
    "setting aside: before gateway.db": (True, True),
    "setting aside: between gateway.db and its -wal": (False, True),
    "setting aside: after its -wal": (False, False),
    "setting aside: after all": (False, False),
}


@pytest.mark.parametrize("point", HALF_ASIDE)
def test_setting_aside_a_damaged_database_may_be_cut_off(dying: DyingGateway, point: str) -> None:
    old, active = killed(dying)
    database, log = (dying.state / name for name in ("gateway.db", "gateway.db-wal"))
    with closing(sqlite3.connect(database)) as reader:
        # with this reader SQLite keeps the log when the gateway closes the database, so that there is a second file
        assert reader.execute("SELECT count(*) FROM job").fetchall() == [(3,)]
        # by another process: closing the file would release this process's own locks
        overwrite = f"head -c {database.stat().st_size} /dev/zero | tr '\\0' x 1<>gateway.db"
        subprocess.run(["sh", "-c", overwrite], cwd=dying.state, check=True)
        dying.launch_until(point)
        dying.died()
        assert (database.exists(), log.exists()) == HALF_ASIDE[point]
    dying.start()
    assert sorted(dying.listed()) == sorted([*old, active])
    aside = [path.name for path in dying.state.glob("gateway.db.damaged-*Z")]
    assert len(aside) == 1
    dying.release()
    ran_undisturbed(dying, active)
    all_is_well(dying)


@pytest.mark.parametrize("point", points("first start"))
def test_a_first_start_may_be_cut_off(dying: DyingGateway, point: str) -> None:
    dying.launch_until(point)
    dying.died()
    dying.start()
    assert dying.listed() == {}
    assert list(dying.state.glob("*.damaged-*")) == []
    all_is_well(dying)
