"""Whether a trigger would be taken and could run."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from gateway.fabrics.registry import FabricRegistry
from gateway.settings.settings import Settings

_INODES = 1000  # files that the jobs that run may still make
_PATIENCE = 2.0  # seconds to wait for a disk


@dataclass(frozen=True, slots=True)
class Readiness:
    """What keeps a trigger from running, a sentence each; None where nothing does.

    recovery: of the jobs of an earlier gateway. disk: of the state directory. programs: of the fabrics.
    """

    recovery: str | None
    disk: str | None
    programs: str | None


class DiskCheck:
    """A look at disks that may not answer, such as a mount whose server is gone.

    There is one look at a time, in a thread of its own, which ends when the disk answers. Callers that come meanwhile
    wait for the same look, and none for longer than two seconds.
    """

    def __init__(self, look: Callable[[], str | None], what: str) -> None:
        """look: returns what is wrong, None for nothing. Blocks. what: it looks at."""
        self._look = look
        self._what = what
        self._looking: asyncio.Future[str | None] | None = None

    async def problem(self) -> str | None:
        """What is wrong, in a sentence that says what to do; None for nothing."""
        if self._looking is None or self._looking.done():
            self._looking = _in_own_thread(self._look)
        try:
            async with asyncio.timeout(_PATIENCE):
                return await asyncio.shield(self._looking)
        except TimeoutError:
            return f"{self._what} did not answer within {_PATIENCE:.0f} s; is it on a mount that hangs? Mend that."
        except (OSError, RuntimeError) as error:
            return f"{self._what} can't be looked at: {error}; mend that and try again."


def _in_own_thread(look: Callable[[], str | None]) -> asyncio.Future[str | None]:
    """The result of a look. The thread is a daemon, so that it does not keep the process from its end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[str | None] = loop.create_future()

    def fail(error: Exception) -> None:
        done.set_exception(error)
        done.exception()  # marks it as retrieved, since every caller may have gone

    def work() -> None:
        with suppress(RuntimeError):  # the loop is closed: the service has ended meanwhile
            try:
                found = look()
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

    def __init__(self, settings: Settings, registry: FabricRegistry) -> None:
        self._fabrics = tuple(registry.all())
        self._disk = DiskCheck(lambda: disk_problem(settings), f"The disk of {settings.state_directory}")
        self._programs = DiskCheck(self._missing_program, "The folders of the projects and of their programs")

    async def check(self, unsettled: int) -> Readiness:
        """Check all. unsettled: the number of recovered jobs whose state is not known yet."""
        recovery = f"The state of {unsettled} jobs from before the restart is not known yet." if unsettled else None
        disk, programs = await asyncio.gather(self._disk.problem(), self._programs.problem())
        return Readiness(recovery, disk, programs)

    async def disk_problem(self) -> str | None:
        """Why there is no room for another job."""
        return await self._disk.problem()

    def _missing_program(self) -> str | None:
        missing = (fabric.missing_program() for fabric in self._fabrics)
        return next((program for program in missing if program is not None), None)


def disk_problem(settings: Settings) -> str | None:
    """Why there is no room for another job. The floor keeps the rest of the disk for the jobs that run. Blocks."""
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
    return None
