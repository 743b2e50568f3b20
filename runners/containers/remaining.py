"""Ends what remains of a step whose own files can't be used: its containers are found by their labels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from runners.containers import step_files
from runners.containers.docker import Docker, EngineUnreachableError
from runners.containers.identity import step_filters
from runners.detached import supervisor
from runners.runner import Liveness

_RETRY_DELAY = 1.0  # seconds
_PATIENCE = 10.0  # seconds that a docker command may need to end by itself
_GRACE, _STOP_TIMEOUT = 10, 60.0  # seconds between the signals of `docker stop`, and for all of it


async def end_containers(folder: Path, docker: Docker, on_liveness: Callable[[Liveness], None]) -> None:
    """End the containers of a step, and the docker commands that run for it under a shim. folder: of the step."""
    await _end_commands(folder, "make-")  # first, since it may be about to create a container
    while True:
        try:
            alive = await docker.containers(*step_filters(folder), columns="{{.ID}}")
        except EngineUnreachableError:
            on_liveness(Liveness.UNREACHABLE)
            await asyncio.sleep(_RETRY_DELAY)
            continue
        if not alive:
            break
        on_liveness(Liveness.SUPERVISED)
        names = (container for (container,) in alive)
        await docker.run("stop", "-t", str(_GRACE), "--", *names, within=_STOP_TIMEOUT)
    await _end_commands(folder, "logs-")


async def _end_commands(folder: Path, prefix: str) -> None:
    for number in _numbers(folder, "container-"):
        container = folder / f"container-{number}"
        for command in (container / f"{prefix}{one}" for one in _numbers(container, prefix)):
            try:
                async with asyncio.timeout(_PATIENCE):
                    await supervisor.wait(command, lambda _: None)
            except TimeoutError:
                await supervisor.stop(command)
                await supervisor.wait(command, lambda _: None)


def _numbers(folder: Path, prefix: str) -> list[int]:
    """As step_files.numbers; none in a folder that can't be read."""
    try:
        return step_files.numbers(folder, prefix)
    except OSError:
        return []
