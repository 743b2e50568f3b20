"""Whether a trigger would be taken and could run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.fabrics.fabric import Fabric
from gateway.settings.settings import Settings

_INODES = 1000  # files that the jobs that run may still make


@dataclass(frozen=True, slots=True)
class Readiness:
    """What keeps a trigger from running, a sentence each; None where nothing does.

    recovery: of the jobs of an earlier gateway. disk: of the state directory. programs: of the fabrics.
    """

    recovery: str | None
    disk: str | None
    programs: str | None


async def check(settings: Settings, fabrics: Iterable[Fabric], unsettled: int) -> Readiness:
    """Check the disk and the programs. unsettled: the number of recovered jobs whose state is not known yet."""
    recovery = f"The state of {unsettled} jobs from before the restart is not known yet." if unsettled else None
    missing = [await fabric.missing_program() for fabric in fabrics]
    return Readiness(
        recovery=recovery,
        disk=await asyncio.to_thread(disk_problem, settings),
        programs=next((program for program in missing if program is not None), None),
    )


def disk_problem(settings: Settings) -> str | None:
    """Why there is no room for another job. The floor keeps the rest of the disk for the jobs that run."""
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
