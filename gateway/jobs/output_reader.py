"""Reads the output of jobs for clients, in threads of its own: what was printed decides how long a read takes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from gateway.jobs.execution import JobSnapshot
from gateway.model.job import Job
from gateway.output.log import JobLog, OutputPart, OutputRange, is_final
from gateway.output.parts import output_size, rendered_tail
from runners.mask import Mask

_READERS = 2  # threads that read output for clients and for the progress of jobs
_LOOK = 2.0  # seconds for a look at how much output there is
_KEPT_PARTS = 64  # parts of output that are kept for other followers, 64 KiB each, or one line

T = TypeVar("T")


class OutputReader:
    """Reads ends, ranges and next parts of the output of jobs."""

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
        self.readers = ThreadPoolExecutor(_READERS, "output")
        self._log_readers = ThreadPoolExecutor(_READERS, "log")  # others, so that followers never delay polls
        self._parts: dict[tuple[str, int], asyncio.Future[OutputPart | None]] = {}

    def close(self) -> None:
        """Read no more. Closing twice is harmless."""
        for readers in (self.readers, self._log_readers):
            readers.shutdown(wait=False, cancel_futures=True)

    async def sized(self, snapshots: list[JobSnapshot]) -> list[JobSnapshot]:
        """The snapshots with how much output there is of each, as far as the disk says so in time."""

        def read() -> list[JobSnapshot]:
            return [
                replace(one, output=output_size(self._folder(one.job.id), one.job)) if one.output.kept is None else one
                for one in snapshots
            ]

        if all(one.output.kept is not None for one in snapshots):  # those that run are read all the time
            return snapshots
        try:
            async with asyncio.timeout(_LOOK):
                return await asyncio.get_running_loop().run_in_executor(self.readers, read)
        except TimeoutError:
            return snapshots

    async def tail(self, job: Job, size: int) -> str:
        """The last `size` bytes of a job's output as a terminal shows it, without secrets. Raises OSError."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self.readers, rendered_tail, self._folder(job.id), job, size, self._mask(job.id)
        )

    async def find(
        self, job_id: str, *, offset: int | None, tail: int | None, until: int | None, step: str | None
    ) -> tuple[Job, OutputRange]:
        """The job, and what of its output can be served now. Raises UnknownJobError, UnknownTargetError, OSError."""
        job, end, final = await self._printed(job_id)
        return job, await self._log(
            job, lambda log: log.find(end, offset=offset, tail=tail, until=until, step=step, is_final=final)
        )

    async def part(self, job: Job, offset: int, end: int) -> OutputPart | None:
        """The next part of a range that was found. Raises OSError."""
        return await self._log(job, lambda log: log.read(offset, end, is_final=True))

    async def line_start(self, job_id: str, offset: int) -> int:
        """Where the line of an offset begins: see JobLog. Raises UnknownJobError, OSError."""
        return await self._log(await self._find_job(job_id), lambda log: log.line_start(offset))

    async def next_part(self, job_id: str, offset: int) -> OutputPart | None:
        """What a follower gets next, None where there is nothing yet. Raises UnknownJobError, OSError."""
        job, end, final = await self._printed(job_id)
        key = (job_id, offset)
        if key not in self._parts:  # the followers of a job ask for the same parts
            reading = self._log(job, lambda log: log.read(offset, end, is_final=final))
            self._parts[key] = asyncio.ensure_future(reading)
            while len(self._parts) > _KEPT_PARTS:
                del self._parts[next(iter(self._parts))]
        found = self._parts[key]
        part = None
        try:
            part = await asyncio.shield(found)
        finally:
            if part is None and self._parts.get(key) is found:
                del self._parts[key]
        return part

    async def _printed(self, job_id: str) -> tuple[Job, int, bool]:
        """A job, how many bytes it had printed by then, and whether a last line without an end is whole.

        The record is read again, since it must have each step that printed them. Raises UnknownJobError, OSError.
        """
        before = await self._find_job(job_id)
        _, end = await self._log(before, JobLog.bounds)
        return await self._find_job(job_id), end, is_final(before)

    async def _log(self, job: Job, read: Callable[[JobLog], T]) -> T:
        log = JobLog(self._folder(job.id), job, self._mask(job.id))
        return await asyncio.get_running_loop().run_in_executor(self._log_readers, read, log)
