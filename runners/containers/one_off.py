"""Short-lived containers of a service of a compose project: what a program in one says, and what it removes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from pathlib import Path

from runners.containers.compose_project import ComposeCli, ComposeService, Mount, with_entrypoint
from runners.containers.docker import Docker, EngineUnreachableError, is_unreachable
from runners.containers.identity import INSTANCE_LABEL
from runners.program import ProgramResult
from runners.report import one_line

_LOOK_TAKES, _REMOVAL_TAKES = 30.0, 60.0
_THERE = "/pipeline-gateway-checkouts"


async def look(
    compose: ComposeCli, service: ComposeService, script: str, where: str, docker: Docker, mount: Mount | None = None
) -> str:
    """What a shell in a container of a service prints; empty where it can't. Raises EngineSilentError.

    where: the folder it looks in, empty for the service's own.
    """
    options = ["--entrypoint=sh", *_placed(where, mount)]
    said = await _ask(compose, service, options, ("-c", script), docker, _LOOK_TAKES)
    if said.code is None:
        raise EngineUnreachableError(f"a look into the service {service.name}: {said.error}")
    return said.output.decode(errors="replace")


async def ask(
    compose: ComposeCli,
    service: ComposeService,
    argv: tuple[str, ...],
    where: str,
    docker: Docker,
    *,
    mount: Mount | None,
    names: Iterable[str],
    within: float,
) -> ProgramResult:
    """What a program says in a container of a service, apart from what Compose does. Raises EngineSilentError.

    where: as above. names: of the variables that it gets, whose values docker's command line has. within: seconds.
    """
    overridden, arguments = with_entrypoint(service, argv, compose.entrypoint_program)
    options = [*(f"--env={name}" for name in sorted(names)), *overridden, *_placed(where, mount)]
    said = await _ask(compose, service, options, arguments, docker, within)
    if said.code is None and not said.was_run:
        raise EngineUnreachableError(one_line(said.error))
    return said


async def remove(compose: ComposeCli, service: ComposeService, folder: Path, docker: Docker) -> None:
    """Remove what a container has left in a folder of the engine's host, as its root. Raises EngineSilentError."""
    options = ["--entrypoint=rm", "--user=0", Mount(str(folder.parent), _THERE).option]
    await _ask(compose, service, options, ("-rf", "--", f"{_THERE}/{folder.name}"), docker, _REMOVAL_TAKES)


def _placed(where: str, mount: Mount | None) -> list[str]:
    return [*([f"--workdir={where}"] if where else []), *([] if mount is None else [mount.option])]


async def _ask(
    compose: ComposeCli,
    service: ComposeService,
    options: Iterable[str],
    arguments: Iterable[str],
    docker: Docker,
    within: float,
) -> ProgramResult:
    name = f"pipeline-gateway-look-{secrets.token_hex(6)}"
    try:
        said = await docker.call(
            "compose",
            *compose.options,
            "--progress=quiet",
            "run",
            "--rm",
            "--no-TTY",
            "--interactive=false",
            "--no-deps",
            f"--name={name}",
            f"--label={INSTANCE_LABEL}={compose.instance}",
            *options,
            "--",
            service.name,
            *arguments,
            within=within,
            directory=compose.directory,
        )
    except asyncio.CancelledError:
        await docker.call("container", "rm", "--force", "--volumes", "--", name)
        raise
    if said.code is None:  # its container may hang on, whoever has stopped waiting for it
        await docker.call("container", "rm", "--force", "--volumes", "--", name)
    elif is_unreachable(said) and not said.output:
        raise EngineUnreachableError(one_line(said.error))
    return said
