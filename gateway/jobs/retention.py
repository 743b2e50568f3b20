"""Removes records after their days, and the oldest files of ended jobs beyond the cap."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import structlog

from gateway import clock
from gateway.errors import StorageError
from gateway.fabrics.checkouts import Checkouts
from gateway.fabrics.local import LISTING
from gateway.settings.settings import Settings
from gateway.storage import job_file
from gateway.storage.store import Store
from runners import durable

_INTERVAL = 60.0
_DAY = 86400.0
_MAX_PARSE_FILES = 50  # each value of each parameter has one
_PARSE_FILES = "[0-9a-f]" * 32 + ".msgpack"
_JOB_ID = re.compile(r".+-[0-9]{13}-[a-z0-9]{6}")
_LISTING_AGE = 3600.0  # seconds; dbt lists a project within minutes

_log = structlog.get_logger()


class Retention:
    """Removes what is too old or too large. A job that has not ended loses nothing."""

    def __init__(self, settings: Settings, store: Store, checkouts: Checkouts) -> None:
        self.configure(settings, checkouts)
        self.size: int | None = None  # bytes of the state directory at the last sweep, before it removed any
        self._state = settings.state_directory
        self._jobs = settings.state_directory / "jobs"
        self._store = store
        self._sizes: dict[str, int] = {}  # bytes by ended job, whose files never change

    def configure(self, settings: Settings, checkouts: Checkouts) -> None:
        """Keep as long and as much as these settings say from now on."""
        self.cap = int(settings.state_cap)
        self._age = settings.record_days * _DAY
        self._checkouts = checkouts

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            try:
                await self.sweep()
            except (OSError, StorageError) as error:  # a full or failing disk: the next sweep tries again
                _log.warning("retention failed", error=str(error))
            await asyncio.sleep(_INTERVAL)

    async def sweep(self) -> None:
        """One pass: expired records with their files, answers, then the oldest files until all are under the cap."""
        while any([await self._expire(job_id) for job_id in await self._store.ended_before(clock.now(), self._age)]):
            pass  # one read returns a part of them
        await self._checkouts.sweep(await self._store.active())
        known = await self._store.known()
        if await asyncio.to_thread(self._surplus, known) > 0:  # checkouts can be made again, so they go first
            await self._checkouts.sweep(await self._store.active(), unused=0)
        await asyncio.to_thread(self._shrink, known)
        for job_id in await asyncio.to_thread(self._without_record, known):  # last, since a full disk refuses them
            job = await self._store.get(job_id)
            if job is not None:
                await asyncio.to_thread(job_file.write, self._jobs / job_id, job)
        await self._store.remove_answers(clock.now(), _DAY)

    async def _expire(self, job_id: str) -> bool:
        # files first: the next sweep finds a record without files again, but never files without a record
        removed = await asyncio.to_thread(_remove, self._jobs / job_id, record=True)
        if removed:
            await self._store.delete(job_id)
        return removed

    def _without_record(self, known: Mapping[str, bool]) -> list[str]:
        """Ended jobs whose folder lacks their record: an older version left it so, or a full disk."""
        return [name for name, ended in known.items() if ended and not (self._jobs / name / job_file.NAME).exists()]

    def _shrink(self, known: Mapping[str, bool]) -> None:
        surplus = self._surplus(known)
        for job_id, size in list(self._sizes.items()):
            if surplus <= 0:
                return
            if not _remove(self._jobs / job_id, record=False):
                continue
            self._sizes[job_id] = left = _size(self._jobs / job_id)
            if left < size:
                surplus -= size - left
                _log.info("files removed", job=job_id, bytes=size - left)

    def _surplus(self, known: Mapping[str, bool]) -> int:
        """The bytes by which the state directory is over its cap."""
        names = durable.list_names(self._jobs)
        for name in names:
            if name not in known:  # a damaged database lost its record, or the job has just begun
                self._expire_unknown(self._jobs / name)
        sizes = {name: self._sizes.get(name) or _size(self._jobs / name) for name in names if name in known}
        self._sizes = {job_id: sizes[job_id] for job_id, ended in known.items() if ended and job_id in sizes}
        self.size = sum(sizes.values()) + self._size_of_other_files()
        return self.size - self.cap

    def _expire_unknown(self, folder: Path) -> None:
        """Remove a job's folder without a record at the age of an expired record; until then a person can read it."""
        with contextlib.suppress(FileNotFoundError):
            if _JOB_ID.fullmatch(folder.name) and time.time() - folder.stat().st_mtime > self._age:
                _remove(folder, record=True)

    def _size_of_other_files(self) -> int:
        """Bytes of database, parse files, checkouts and mirrors. Removes unused parse files and old listings."""
        parsed = self._state / "parse"
        files = sorted(parsed.glob(_PARSE_FILES), key=_last_written)
        for n, file in enumerate(reversed(files)):
            if n >= _MAX_PARSE_FILES or time.time() - _last_written(file) > self._age:  # at worst a run parses again
                file.unlink()
        for folder in self._state.glob(f"{LISTING}*/"):
            if time.time() - folder.stat().st_mtime > _LISTING_AGE:  # the gateway that made it was killed
                shutil.rmtree(folder, ignore_errors=True)
        kept = (parsed, self._state / "checkouts", self._state / "repositories")
        return sum(map(_size, kept)) + sum(file.stat().st_size for file in self._state.glob("gateway.db*"))


def _last_written(path: Path) -> float:
    return path.stat().st_mtime


def _size(folder: Path) -> int:
    """Bytes of a folder; files that are removed meanwhile are not counted."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118, as os.walk gives them
            except FileNotFoundError:
                continue
    return total


def _remove(folder: Path, *, record: bool) -> bool:
    """Remove the files of a job; true if that worked.

    record: remove the record too. It goes last, so that a folder with files always has one. A folder that can't be
    removed must not keep the sweep from the others.
    """
    try:
        for name in durable.list_names(folder):
            if name != job_file.NAME:
                _delete(folder / name)
        if folder.exists() and (record or not (folder / job_file.NAME).exists()):
            shutil.rmtree(folder)
    except OSError as error:
        _log.warning("files not removed", folder=str(folder), error=str(error))
        return False
    return True


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
