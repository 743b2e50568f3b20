"""Files of other people in the state directory: no start and no sweep removes them, whatever their names and ages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from gateway import state
from gateway.fabrics.checkouts import Checkouts
from gateway.jobs.retention import Retention
from gateway.settings.settings import Settings
from gateway.storage.store import Store
from runners import durable
from tests.conftest import MakeApi
from tests.support import projects

# Each of these, or the folder around it, is where the gateway itself removes things that it made.
FOREIGN = (
    "gateway.db.0.1.0",
    "mybackup.2026.11",
    "backup.2026.11/dump.sql",
    "gateway.db.damaged-1-copy-for-Z",
    "gateway.db.damaged-2-copy-for-Z",
    "gateway.db.damaged-3-copy-for-Z",
    "gateway.db.damaged-4-copy-for-Z/readme",
    "listing-of-tables/all.txt",
    "parse/readme",
    "parse/backup/manifest.json",
    "jobs/backup/notes",
    "jobs/notes.1.2",
    "checkouts/local/patched/model.sql",
    "repositories/shop.git/HEAD",
)


def make(folder: Path) -> None:
    """Make the files, none of which was used for a year."""
    for name in FOREIGN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    for path in [folder / name for name in FOREIGN] + [path for path in folder.rglob("*") if path.is_dir()]:
        os.utime(path, (1_700_000_000, 1_700_000_000))


def lost(folder: Path) -> list[str]:
    return [name for name in FOREIGN if not (folder / name).exists()]


async def test_a_start_removes_no_file_of_other_people(tmp_path: Path, make_api: MakeApi) -> None:
    project = projects.make(tmp_path / "project", ingester="pass")
    make(project / ".pipeline-gateway")
    assert (await (await make_api(project)).run(pipeline="ingester"))["exitCode"] == 0
    assert lost(project / ".pipeline-gateway") == []


async def test_a_sweep_removes_no_file_of_other_people(tmp_path: Path) -> None:
    make(tmp_path)
    settings = Settings(state_directory=tmp_path, record_days=30)
    store = await Store.open(tmp_path / "gateway.db")
    try:
        await Retention(settings, store, Checkouts(settings, {})).sweep()
    finally:
        await store.close()
    assert lost(tmp_path) == []


# dies as if by SIGKILL after the content was written and before the file got its name
KILLED_WRITER = """
    import os, pathlib, sys
    from runners import durable
    os.fsync = lambda fd: os.kill(os.getpid(), 9)
    durable.write(pathlib.Path(sys.argv[1]), "new")
"""


async def test_the_partial_file_of_a_killed_writer_is_removed_at_the_start(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", textwrap.dedent(KILLED_WRITER), str(tmp_path / "instance")]
    assert subprocess.run(argv, check=False).returncode == -signal.SIGKILL  # noqa: ASYNC221, nothing else runs
    [partial] = durable.list_names(tmp_path)
    async with state.locked(tmp_path):
        assert partial not in durable.list_names(tmp_path)
