"""What is kept, and for how long: records for days, files of ended jobs up to a cap."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import structlog

from gateway import clock
from gateway.config import Settings
from gateway.errors import StorageError
from gateway.jobs.store import Store

_INTERVAL = 60.0
_DAY = 86400.0

_log = structlog.get_logger()


class Retention:
    """Removes what is too old or too much. A job that has not ended loses nothing."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._jobs = settings.state_directory / "jobs"
        self._sizes: dict[str, int] = {}  # of ended jobs, whose files never change

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            try:
                await self.sweep()
            except (OSError, StorageError) as error:  # a full or failing disk: the next sweep may do better
                _log.warning("retention failed", error=str(error))
            await asyncio.sleep(_INTERVAL)

    async def sweep(self) -> None:
        """One pass: expired records with their files, then the oldest files until all are under the cap."""
        while expired := await self._store.older(clock.now(), self._settings.record_days * _DAY):
            for job_id in expired:
                # The files first: a record without files is found again by the next sweep, files without one never.
                await asyncio.to_thread(_remove, self._jobs / job_id)
                await self._store.delete(job_id)
            _log.info("records expired", count=len(expired))
        await asyncio.to_thread(self._shrink, await self._store.ended())

    def _shrink(self, ended: list[str]) -> None:
        sizes = {path.name: self._sizes.get(path.name) or _size(path) for path in self._folders()}
        self._sizes = {job_id: sizes[job_id] for job_id in ended if job_id in sizes}
        surplus = sum(sizes.values()) - self._settings.state_cap
        for job_id, size in list(self._sizes.items()):
            if surplus <= 0:
                return
            _remove(self._jobs / job_id)
            del self._sizes[job_id]
            surplus -= size
            _log.info("files removed", job=job_id, bytes=size)

    def _folders(self) -> list[Path]:
        return list(self._jobs.iterdir()) if self._jobs.exists() else []


def _size(folder: Path) -> int:
    """Bytes of a folder; what vanishes meanwhile counts nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118, as os.walk gives them
            except FileNotFoundError:
                continue
    return total


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
