"""Whether a trigger would be taken and could run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.fabrics.fabric import Fabric
from gateway.settings.settings import Settings

_INODES = 1000  # files that must be left to the jobs that run


@dataclass(frozen=True, slots=True)
class Readiness:
    """What is in the way of jobs, a sentence each; None where nothing is.

    recovery: of the jobs of an earlier gateway. disk: of the state directory. programs: of the runners.
    """

    recovery: str | None
    disk: str | None
    programs: str | None


async def check(settings: Settings, works: Iterable[Fabric], unsettled: int) -> Readiness:
    """Look at the disk and for the programs. unsettled: recovered jobs about which the truth is not known yet."""
    recovery = f"The truth about {unsettled} jobs of before the start is not known yet." if unsettled else None
    lacking = [await work.missing_program() for work in works]
    return Readiness(
        recovery=recovery,
        disk=await asyncio.to_thread(disk_problem, settings),
        programs=next((lack for lack in lacking if lack is not None), None),
    )


def disk_problem(settings: Settings) -> str | None:
    """Why there is no room for another job: a disk that is nearly full is left to those that run."""
    state, floor = settings.state_directory, settings.free_disk_floor
    for folder in (state, state / "jobs"):  # the output may be on a disk of its own
        try:
            disk = os.statvfs(folder)
        except OSError as error:
            return f"{folder} of the state directory can't be looked at: {error.strerror}; mend that and try again."
        if disk.f_files and disk.f_favail < _INODES:
            return f"The disk of {folder} has room for {disk.f_favail} more files only; remove some and try again."
        free = disk.f_bavail * disk.f_frsize
        if free < floor:
            return (
                f"The disk of {folder} has {free // 2**20} MiB free, under its floor of {floor // 2**20} MiB "
                "(free_disk_floor); free some and try again."
            )
    return None
