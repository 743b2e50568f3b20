"""The state of a killed gateway, kept to be damaged in copies, and what can befall its files."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import projects
from tests.support.gateway import PATH, Gateway, wait_for

STATE = ".pipeline-gateway"
DATABASE = "gateway.db"
SIDE_FILES = ("", "-wal", "-shm")
PAGE = 4096
# Does what the file `how` says; counts its runs.
INGESTER = """
    import os, pathlib, signal, sys, time
    with pathlib.Path("runs").open("a") as runs:
        runs.write("run\\n")
    how = pathlib.Path("how").read_text()
    print("how:", how, flush=True)
    while how == "wait" and not pathlib.Path("go").exists():
        time.sleep(0.01)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(7 if how == "wait" else int(how))
"""
# As much of dbt as makes its deps believed. It runs in the folder of the dbt project.
_DBT = """\
#!/bin/sh
echo run >> ../dbt_runs
echo '{"info": {"name": "MainReportVersion", "level": "info", "msg": "Running with dbt=1.11.0"}}'
while [ -e ../dbt_waits ] && [ ! -e ../go ]; do sleep 0.01; done
"""
Damage = Callable[[Path, random.Random], None]


@dataclass(frozen=True)
class Killed:
    """A project whose gateway was killed: jobs that had ended, and two (`meanwhile`) that ended while it was down.

    records: what an undamaged next gateway says of each. runs: how often ingester and dbt had run.
    Its database lags behind its log, which a reader kept from being taken in.
    """

    folder: Path
    meanwhile: tuple[str, str]
    records: dict[str, dict[str, Any]]
    runs: int

    @property
    def jobs(self) -> Path:
        return self.folder / STATE / "jobs"

    def copy(self, to: Path, *, checkpointed: bool = False) -> Path:
        """The project with its state again. checkpointed: its log is in the database, so that this is what counts."""
        shutil.copytree(self.folder, to)
        if checkpointed:
            with closing(sqlite3.connect(to / STATE / DATABASE)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return to


def project(folder: Path) -> Path:
    """A project whose ingester does what `how` says and whose dbt has a resource of its own."""
    program = folder / "dbt.sh"
    projects.make(folder, ingester=INGESTER, settings={"fabrics": {"local": {"dbt": {"executable": str(program)}}}})
    program.write_text(_DBT)
    program.chmod(0o755)
    return folder


def killed(folder: Path) -> Killed:
    """A real gateway's state, made by really killing it."""
    gateway = Gateway(project(folder / "project"))
    gateway.start()
    try:
        return _killed(gateway, folder)
    finally:
        gateway.stop()


def _killed(gateway: Gateway, folder: Path) -> Killed:
    here = gateway.folder
    for how in ("0", "1", "0", "kill", "2"):
        ingest(gateway, how)
    gateway.run(pipeline="dbt", command="deps")
    cancelled = waiting(gateway)
    gateway.call("POST", f"/api/v1/jobs/{cancelled}/cancel")
    gateway.finished(cancelled)
    with closing(sqlite3.connect(gateway.state / DATABASE, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM job").fetchall()
        for how in ("0", "3", "0"):
            ingest(gateway, how)
        gateway.run(pipeline="dbt", command="deps")
        (here / "dbt_waits").touch()
        meanwhile = (waiting(gateway), gateway.trigger(pipeline="dbt", command="deps"))
        wait_for(lambda: gateway.poll(meanwhile[1])["phase"] == "deps", "dbt")
        wait_for((gateway.state / "jobs" / meanwhile[1] / "1-deps/started").exists, "the supervisor of dbt")
        gateway.kill()
        (here / "go").touch()
        for job, step in zip(meanwhile, ("1-ingester", "1-deps"), strict=True):
            exit_file = gateway.state / "jobs" / job / step / "exit"
            wait_for(lambda exit_file=exit_file: exit_file.read_bytes().strip(), f"the end of {job}")
        (here / "how").write_text("0")
        (here / "dbt_waits").unlink()
        kept = shutil.copytree(here, folder / "kept")
    assert (kept / STATE / f"{DATABASE}-wal").stat().st_size > 20 * PAGE
    gateway.start()
    jobs = [job["jobId"] for job in gateway.call("GET", PATH).json["jobs"]]
    for job in jobs:
        gateway.finished(job)
    records = {job: gateway.call("GET", f"/api/v1/jobs/{job}").json for job in jobs}
    assert len(records) == 13
    return Killed(kept, meanwhile, records, runs(kept))


def remove(folder: Path) -> None:
    """Remove a folder in which a process may still write: again, until nothing is left."""

    def removed() -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()

    wait_for(removed, f"the end of {folder}")


def ingest(gateway: Gateway, how: str) -> dict[str, Any]:
    """The record of an ingester that did as told."""
    (gateway.folder / "how").write_text(how)
    return gateway.run(pipeline="ingester")


def waiting(gateway: Gateway) -> str:
    """A job whose ingester runs until the file `go` is there, then leaves with 7."""
    (gateway.folder / "how").write_text("wait")
    job = gateway.trigger(pipeline="ingester")
    wait_for(lambda: "how: wait" in gateway.poll(job)["output"], "the ingester")
    return job


def runs(folder: Path) -> int:
    """How often any step of a project ran."""
    files = (folder / "runs", folder / "dbt_runs")
    return sum(len(file.read_text().splitlines()) for file in files if file.exists())


def has(file: Path) -> Callable[[], Awaitable[bool]]:
    """A look whether a file says anything."""

    async def look() -> bool:
        return await asyncio.to_thread(lambda: file.exists() and bool(file.read_bytes().strip()))

    return look


def set_aside(state: Path) -> list[Path]:
    """The databases that were found damaged, oldest first."""
    return sorted(state.glob(f"{DATABASE}.damaged-*Z"))


def steady(record: dict[str, Any], *, ended_anew: bool) -> dict[str, Any]:
    """What of a record must be the same after every start. ended_anew: this start is what found its end."""
    moving = {"finishedAt", "durationSeconds"} if ended_anew else set()
    return {name: value for name, value in record.items() if name not in moving}


def overwrite(file: Path, offset: int, data: bytes) -> None:
    """Put other bytes into a file in place."""
    with file.open("r+b") as opened:
        opened.seek(offset)
        opened.write(data)


def byte(file: Path, chance: random.Random) -> None:
    """One byte is another."""
    flip(file, chance.randrange(file.stat().st_size), chance)


def flip(file: Path, offset: int, chance: random.Random) -> None:
    """The byte at that place is another."""
    overwrite(file, offset, bytes([file.read_bytes()[offset] ^ chance.randrange(1, 256)]))


def block(file: Path, chance: random.Random) -> None:
    """40 bytes are others."""
    overwrite(file, chance.randrange(file.stat().st_size - 40), chance.randbytes(40))


def page(file: Path, chance: random.Random) -> None:
    """A page is empty."""
    overwrite(file, chance.randrange(file.stat().st_size // PAGE) * PAGE, bytes(PAGE))


def swapped(file: Path, chance: random.Random) -> None:
    """A page is what another one is."""
    source, target = chance.sample(range(file.stat().st_size // PAGE), 2)
    overwrite(file, target * PAGE, file.read_bytes()[source * PAGE : (source + 1) * PAGE])


def truncated(file: Path, chance: random.Random) -> None:
    """The end is gone."""
    with file.open("r+b") as opened:
        opened.truncate(chance.randrange(1, file.stat().st_size))


def empty(file: Path, chance: random.Random) -> None:
    """Nothing is left in it."""
    file.write_bytes(b"")


def header(file: Path, chance: random.Random) -> None:
    """The first 100 bytes are empty."""
    overwrite(file, 0, bytes(100))


def noise(file: Path, chance: random.Random) -> None:
    """All of it is something else."""
    file.write_bytes(chance.randbytes(max(PAGE, file.stat().st_size)))


def at(offset: int, data: bytes) -> Damage:
    """These bytes are there instead."""
    return lambda file, _: overwrite(file, offset, data)


def in_record(old: bytes, new: bytes) -> Damage:
    """Words in one of the records are others of the same length."""
    assert len(old) == len(new)

    def change(file: Path, chance: random.Random) -> None:
        content = file.read_bytes()
        places = [place for place in range(len(content)) if content.startswith(old, place)]
        overwrite(file, chance.choice(places), new)

    return change


def beside(suffix: str, damage: Damage) -> Damage:
    """Damage to the file beside the database with this suffix."""
    return lambda file, chance: damage(file.with_name(file.name + suffix), chance)
