"""Keeps the record of one job while it changes: on the disk first, then for everyone to see."""

from __future__ import annotations

import asyncio
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

_RETRY = 1.0  # seconds until a disk that refused is asked again

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
        changed: Callable[[], None],
        promoted: Callable[[list[str]], None],
    ) -> None:
        """folder: of the job. changed: told of each change that is on the disk.

        promoted: told of the jobs that waited and hold what they need now, because of this one's end.
        """
        self.job = job
        self._store = store
        self._folder = folder
        self._changed = changed
        self._promoted = promoted
        self._lock = asyncio.Lock()

    async def write_file(self) -> None:
        """Have the record in the job's folder, as an earlier gateway may not have had."""
        async with self._lock:
            await self._write(self.job)

    async def persist(self, change: Callable[[Job], Job]) -> None:
        """Record what has happened. It has happened, so a disk that refuses is asked again until it takes it."""
        while True:
            try:
                await self.update(change)
            except StorageError as error:
                _log.warning("job not recorded", job=self.job.id, error=str(error))
                await asyncio.sleep(_RETRY)
            else:
                return

    async def update(self, change: Callable[[Job], Job]) -> None:
        """Record a change, unless there is none or the job has ended. Raises StorageError."""
        async with self._lock:
            job = change(self.job)
            if job == self.job or isinstance(self.job.state, Ended):
                return
            job = replace(job, revision=self.job.revision + 1, updated=clock.now())
            await self._write(job)
            promoted = await self._store.save(job)
            self.job = job
            self._changed()
            self._promoted(promoted)

    async def update_in_memory(self, change: Callable[[Job], Job]) -> None:
        """Have the next change that is recorded tell of this one too: the disk does not take it now."""
        async with self._lock:
            self.job = change(self.job)
            self._changed()

    async def _write(self, job: Job) -> None:
        """Write the record into the job's folder, before the database: whatever becomes of that, the folder knows."""
        try:
            await asyncio.to_thread(job_file.write, self._folder, job)
        except OSError as error:  # the database alone has it then, and is right by its higher revision
            _log.warning("record not kept in the job's folder", job=job.id, error=str(error))


async def retry_on_full_disk(look: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """The answer of a look at the disk; a host that is out of descriptors, say, is asked again, and nothing decided."""
    while True:
        try:
            return await look(*args, **kwargs)
        except (OSError, StorageError) as error:
            _log.warning("look at the disk failed", error=str(error))
            await asyncio.sleep(_RETRY)
