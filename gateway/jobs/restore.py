"""Brings the database in line with the folders of the jobs, each of which has its own record.

A job's folder has its record first, the database second. So where the two differ the folder is right: the end of a
torn log is silently gone from SQLite, and a database that was lost or damaged begins empty.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from gateway.errors import StorageError
from gateway.jobs import job_file
from gateway.jobs.job import Ended, Job
from gateway.jobs.store import Store
from runners import durable

_log = structlog.get_logger()


async def restore(store: Store, jobs: Path) -> None:
    """Take from the folders in `jobs` what the store lacks."""
    ended = await store.has_ended()
    wanted = [name for name in await asyncio.to_thread(durable.names, jobs) if not ended.get(name, False)]
    found = await asyncio.to_thread(_read, jobs, wanted)
    recorded = await store.active()
    await asyncio.gather(*(_record(store, job) for job in found if job not in recorded))
    lacked = [job for job in found if job.id not in ended]
    if lacked:
        active = [job.id for job in lacked if not isinstance(job.state, Ended)]
        _log.warning(
            "records restored",
            jobs=len(lacked),
            active=active,
            lost="a job that was accepted just before and had not begun may be gone",
        )
    without = sorted(set(wanted) - set(ended) - {job.id for job in found})
    if without:
        _log.warning("folders without a record", jobs=len(without), first=str(jobs / without[0]))


async def _record(store: Store, job: Job) -> None:
    try:
        await store.restore(job)
    except StorageError as error:
        # A full disk. What is recorded is served all the same; its steps' folders keep them from running twice.
        _log.warning("record not restored", job=job.id, error=str(error))


def _read(jobs: Path, names: list[str]) -> list[Job]:
    """The records in these folders, oldest first."""
    found = [job for name in names if (job := job_file.read(jobs / name)) is not None and job.id == name]
    return sorted(found, key=lambda job: job.created.wall)
