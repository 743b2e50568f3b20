"""Reads artifacts and nodes for clients, in threads of its own: documents of dbt may take seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

from gateway.artifacts import kept, nodes
from gateway.artifacts.kept import Artifact
from gateway.artifacts.nodes import StepNode
from gateway.model.job import Job
from runners.dbt.nodes import Sql
from runners.mask import Mask

_READERS = 2  # threads; as many documents are in memory at once
_CHUNK = 256 << 10  # bytes of a file that are read at once

T = TypeVar("T")


class ArtifactReader:
    """Reads what is kept of jobs."""

    def __init__(
        self,
        folder: Callable[[str], Path],
        find_job: Callable[[str], Awaitable[Job]],
        mask: Callable[[str], Mask],
    ) -> None:
        """Each function takes a job's id. find_job: raises UnknownJobError."""
        self._folder = folder
        self._find_job = find_job
        self._mask = mask
        self._readers = ThreadPoolExecutor(_READERS, "artifacts")
        self._files = ThreadPoolExecutor(_READERS, "artifact files")  # others, so that no document delays a download

    def close(self) -> None:
        """Read no more. Closing twice is harmless."""
        for readers in (self._readers, self._files):
            readers.shutdown(wait=False, cancel_futures=True)

    async def listed(self, job_id: str) -> list[Artifact]:
        """What is kept of a job. Raises UnknownJobError, OSError."""
        job = await self._find_job(job_id)
        return await self._in(self._files, lambda: kept.of_job(self._folder(job.id), job))

    async def open(self, job_id: str, step: str, name: str) -> tuple[Artifact, BinaryIO]:
        """An artifact and its file, which the caller closes. Raises UnknownJobError, UnknownTargetError, OSError."""
        job = await self._find_job(job_id)
        return await self._in(self._files, lambda: kept.open_one(self._folder(job.id), job, step, name))

    async def read(self, file: BinaryIO) -> bytes:
        """The next part of a file, empty at its end. Raises OSError."""
        return await self._in(self._files, lambda: file.read(_CHUNK))

    async def nodes(self, job_id: str, step: str | None, answer: Callable[[list[StepNode]], T]) -> T:
        """An answer of the nodes of a job, or of one step; it is made in a thread too.

        Raises UnknownJobError, UnknownTargetError, OSError.
        """
        job = await self._find_job(job_id)
        mask = self._mask(job.id)
        return await self._in(self._readers, lambda: answer(nodes.of_job(self._folder(job.id), job, step, mask)))

    async def sql(self, job_id: str, unique_id: str, step: str | None) -> Sql:
        """The statements of a node. Raises UnknownJobError, UnknownTargetError, OSError."""
        job = await self._find_job(job_id)
        mask = self._mask(job.id)
        return await self._in(self._readers, lambda: nodes.sql_of(self._folder(job.id), job, unique_id, step, mask))

    async def _in(self, readers: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(readers, work)
