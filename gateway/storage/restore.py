"""Brings the database up to date with the records in the folders of the jobs.

A change is written into the job's folder first and then into the database, so a folder is ahead by one change at most,
while the database is intact. But SQLite silently drops the end of a torn log, and a database that was lost or damaged
begins empty.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from gateway.errors import StateBusyError, StateError, StorageError
from gateway.model.job import Ended, Job, Queued
from gateway.storage import job_file
from gateway.storage.store import Store
from runners import durable

_log = structlog.get_logger()


async def restore(store: Store, jobs: Path) -> None:
    """Record what the store lacks from the folders in `jobs`, and give active jobs the claims that they must have.

    Raises StateError if the folders can't be read, StateBusyError if a job can't be recorded now.
    """
    known = await store.known()
    recorded = {job.id: job for job in await store.active()}
    try:
        names = await asyncio.to_thread(durable.list_names, jobs)
    except OSError as error:
        raise StateError(f"{jobs} can't be read: {error.strerror}; check its type and owner.") from None
    wanted = [name for name in names if not known.get(name, False)]
    found = await asyncio.to_thread(_read, jobs, wanted)
    missing = [job for job in found if job.id not in known]
    ahead = [job for job in found if job.id in recorded and job.revision > recorded[job.id].revision]
    await asyncio.gather(*(_record(store, job, must=job.id not in known) for job in (*missing, *ahead)))
    active = await store.active()
    await asyncio.gather(*(_hold(store, job) for job in active))
    if any(isinstance(job.state, Queued) for job in active):
        await _promote(store)
    _log_restored(missing, sorted(set(wanted) - set(known) - {job.id for job in found}))


async def _record(store: Store, job: Job, *, must: bool) -> None:
    try:
        await store.save(job)
    except StorageError as error:
        if must:
            raise StateBusyError(f"The job {job.id} of an earlier gateway can't be recorded: {error}") from None
        # The older record is served until the next change. The folders of the steps keep them from running twice.
        _log.warning("record not brought up to its folder's", job=job.id, error=str(error))


async def _hold(store: Store, job: Job) -> None:
    try:
        await store.restore_claims(job)
    except StorageError as error:
        if isinstance(job.state, Queued):
            raise StateBusyError(f"The job {job.id} can't be queued again: {error}") from None
        # A running job goes on. While the disk is full, no trigger is accepted that could take its resources.
        _log.warning("resources not held again", job=job.id, error=str(error))


async def _promote(store: Store) -> None:
    try:
        await store.promote_waiting()
    except StorageError as error:
        raise StateBusyError(f"The next jobs of the queue can't be recorded: {error}") from None


def _read(jobs: Path, names: list[str]) -> list[Job]:
    """The jobs recorded in these folders, oldest first."""
    found = [job for name in names if (job := job_file.read(jobs / name)) is not None and job.id == name]
    return sorted(found, key=lambda job: job.created.wall)


def _log_restored(missing: list[Job], without: list[str]) -> None:
    if missing:
        _log.warning(
            "records restored",
            jobs=len(missing),
            active=[job.id for job in missing if not isinstance(job.state, Ended)],
            lost="jobs accepted shortly before the loss that had not started may be missing",
        )
    if without:
        _log.warning("folders without a record", jobs=len(without), first=without[0])
