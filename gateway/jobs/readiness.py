"""Whether a trigger would be taken and could run."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from gateway.errors import StorageError
from gateway.fabrics.registry import FabricRegistry
from gateway.settings.settings import Settings
from gateway.storage.store import Store

_INODES = 1000  # files that the jobs that run may still make
_PATIENCE = 2.0  # seconds to wait for a disk


@dataclass(frozen=True, slots=True)
class Readiness:
    """What keeps a trigger from running, a sentence each; None where nothing does.

    triggers: they are off, or the service stops. recovery: of the jobs of an earlier gateway. disk: of the state
    directory. database: another program holds it, or it can't be written. programs: of the fabrics.
    """

    triggers: str | None
    recovery: str | None
    disk: str | None
    database: str | None
    programs: str | None


class BoundedCheck:
    """A check of something that may not answer, such as a mount whose server is down.

    One check runs at a time. Callers that come while it runs wait for its result, each at most two seconds.
    """

    def __init__(self, begin: Callable[[], asyncio.Future[str | None]], what: str, remedy: str) -> None:
        """begin: begins the check; its result is what is wrong, None for nothing.

        what: the thing that is checked. remedy: what to do if it does not answer.
        """
        self._begin = begin
        self._what = what
        self._remedy = remedy
        self._running: asyncio.Future[str | None] | None = None

    async def problem(self) -> str | None:
        """What is wrong, in a sentence that says what to do; None for nothing."""
        if self._running is None or self._running.done():
            self._running = self._begin()
        try:
            async with asyncio.timeout(_PATIENCE):
                return await asyncio.shield(self._running)
        except TimeoutError:
            return f"{self._what} did not answer within {_PATIENCE:.0f} s: {self._remedy}."
        except (OSError, RuntimeError, StorageError) as error:
            return f"{self._what} can't be used: {error}; mend that and try again."


def _in_own_thread(check: Callable[[], str | None]) -> asyncio.Future[str | None]:
    """The result of a check. The thread is a daemon, so the process can end while it hangs."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[str | None] = loop.create_future()

    def fail(error: Exception) -> None:
        done.set_exception(error)
        done.exception()  # marks it as retrieved, since perhaps no caller waits any more

    def work() -> None:
        with suppress(RuntimeError):  # the loop is closed: the service has ended meanwhile
            try:
                found = check()
            except Exception as error:  # noqa: BLE001, it is raised where the result is awaited
                loop.call_soon_threadsafe(fail, error)
            else:
                loop.call_soon_threadsafe(done.set_result, found)

    try:
        threading.Thread(target=work, name="disk-check", daemon=True).start()
    except RuntimeError as error:  # no thread can be started now
        fail(error)
    return done


class ReadinessCheck:
    """Checks what a trigger needs."""

    def __init__(self, settings: Settings, registry: FabricRegistry, store: Store) -> None:
        self._fabrics = tuple(registry.all())
        self._disk = BoundedCheck(
            lambda: _in_own_thread(lambda: disk_problem(settings)),
            f"The disk of {settings.state_directory}",
            "is it on a mount that hangs? Mend that and try again",
        )
        self._programs = BoundedCheck(
            lambda: _in_own_thread(self._missing_program),
            "A folder of a project, or of a program on PATH,",
            "is it on a mount that hangs? Mend that",
        )
        self._database = BoundedCheck(
            lambda: asyncio.create_task(store.check_writable(), name="database-check"),
            f"The database of {settings.state_directory}",
            "another program may hold it, such as a backup or sqlite3; end that",
        )

    async def check(self, triggers: str | None, unsettled: int) -> Readiness:
        """Check all. triggers: why none is taken. unsettled: the number of recovered jobs of unknown state."""
        recovery = f"The state of {unsettled} jobs from before the restart is not known yet." if unsettled else None
        disk, database, programs = await asyncio.gather(
            self._disk.problem(), self._database.problem(), self._programs.problem()
        )
        return Readiness(triggers, recovery, disk, database, programs)

    async def disk_problem(self) -> str | None:
        """Why the disk takes no other job."""
        return await self._disk.problem()

    def _missing_program(self) -> str | None:
        missing = (fabric.missing_program() for fabric in self._fabrics)
        return next((program for program in missing if program is not None), None)


def disk_problem(settings: Settings) -> str | None:
    """Why the disk takes no other job. The floor keeps the rest of it for the jobs that run. Blocks."""
    state, floor = settings.state_directory, settings.free_disk_floor
    for folder in (state, state / "jobs"):  # the output may be on a disk of its own
        try:
            disk = os.statvfs(folder)
        except OSError as error:
            return f"{folder} of the state directory can't be read: {error.strerror}; mend that and try again."
        if disk.f_files and disk.f_favail < _INODES:
            return f"The disk of {folder} has room for only {disk.f_favail} more files; remove some and try again."
        free = disk.f_bavail * disk.f_frsize
        if free < floor:
            return (
                f"The disk of {folder} has {free // 2**20} MiB free, under its floor of {floor // 2**20} MiB "
                "(free_disk_floor); free some and try again."
            )
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            return f"{folder} of the state directory can't be written: {error.strerror}; mend that and try again."
    return None
