"""The record of one job while it changes: first in the job's folder, then in the database, then in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec, TypeVar

import structlog

from gateway import clock
from gateway.errors import StorageError
from gateway.model.job import Ended, Job
from gateway.storage import job_file
from gateway.storage.store import Store
from runners import durable

_RETRY = 1.0  # seconds between two attempts at a disk that refuses
_PATIENCE = 60.0  # seconds for which a read is tried again

P = ParamSpec("P")
T = TypeVar("T")

_log = structlog.get_logger()


class JobRecord:
    """The one way a job's record changes."""

    def __init__(
        self,
        job: Job,
        store: Store,
        folder: Path,
        on_change: Callable[[], None],
        on_promoted: Callable[[list[str]], None],
    ) -> None:
        """folder: of the job. on_change: called after each change that is durable.

        on_promoted: called with the ids of the queued jobs that hold their resources after this job's end.
        """
        self.job = job
        self._store = store
        self._folder = folder
        self._on_change = on_change
        self._on_promoted = on_promoted
        self._lock = asyncio.Lock()

    async def write_file(self) -> None:
        """Write the record into the job's folder, where an earlier gateway may have left none."""
        async with self._lock:
            await self._write(self.job)

    async def persist(self, change: Callable[[Job], Job]) -> None:
        """Record a change that has happened already. A disk that refuses it is retried until it takes it."""
        while True:
            try:
                await self.update(change)
            except StorageError as error:
                _log.warning("job not recorded", job=self.job.id, error=str(error))
                await asyncio.sleep(_RETRY)
            else:
                return

    async def update(self, change: Callable[[Job], Job]) -> None:
        """Record a change, unless it changes nothing or the job has ended. Raises StorageError."""
        async with self._lock:
            job = change(self.job)
            if job == self.job or isinstance(self.job.state, Ended):
                return
            job = replace(job, revision=self.job.revision + 1, updated=clock.now())
            await self._write(job)
            promoted = await self._store.save(job)
            self.job = job
            self._on_change()
            self._on_promoted(promoted)

    async def update_in_memory(self, change: Callable[[Job], Job]) -> None:
        """Change the record in memory only, since the disk refuses it now; the next recorded change includes it."""
        async with self._lock:
            self.job = change(self.job)
            self._on_change()

    async def _write(self, job: Job) -> None:
        """Write the file before the database, so that the folder has the record whatever happens to the database."""
        try:
            await asyncio.to_thread(job_file.write, self._folder, job)
        except OSError as error:  # then the database alone has this record, and wins by its higher revision
            _log.warning("record not kept in the job's folder", job=job.id, error=str(error))


async def retry_while_it_may_pass(read: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of a read that a full disk, or a host without free descriptors or memory, refuses for a while.

    Raises OSError for any other error, and for one that has not passed after a minute.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return await read(*args, **kwargs)
        except OSError as error:
            if not durable.may_pass(error) or time.monotonic() >= deadline:
                raise
            _log.warning("look at the disk failed", error=str(error))
            await asyncio.sleep(_RETRY)
