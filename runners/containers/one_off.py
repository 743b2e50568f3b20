"""Containers of a service of a compose project that are removed at once: run a program, remove a folder."""

from __future__ import annotations

import asyncio
import secrets
import shlex
from collections.abc import Iterable
from pathlib import Path

from runners.containers.compose_project import ComposeCli, ComposeService, Mount, with_entrypoint
from runners.containers.docker import Docker, EngineUnreachableError, is_unreachable
from runners.containers.identity import INSTANCE_LABEL
from runners.program import ProgramResult
from runners.report import one_line

_SHELL_TIMEOUT, _REMOVAL_TIMEOUT = 30.0, 60.0  # seconds
_REMOVAL_MOUNT = "/pipeline-gateway-checkouts"


async def run_shell(
    compose: ComposeCli,
    service: ComposeService,
    script: str,
    directory: str,
    docker: Docker,
    *,
    mount: Mount | None = None,
    names: Iterable[str] = (),
) -> bytes:
    """The output of a shell script in a container of a service; empty if the image has no shell.

    No wrapper that is the service's entrypoint is run, since it may wait or change something.
    directory: its working directory, empty for the service's own. names: as below. Raises EngineUnreachableError.
    """
    options = ["--entrypoint=sh", *_options(directory, mount, names)]
    result = await _run(compose, service, options, ("-c", script), docker, _SHELL_TIMEOUT)
    if result.code is None:
        raise EngineUnreachableError(f"a look into the service {service.name}: {result.error}")
    return result.output


async def run_program(
    compose: ComposeCli,
    service: ComposeService,
    argv: tuple[str, ...],
    directory: str,
    docker: Docker,
    *,
    mount: Mount | None,
    names: Iterable[str],
    within: float,
) -> ProgramResult:
    """The result of a command line in a container of a service, without the output of Compose.

    directory: as above. names: of its variables, whose values are in the environment of docker's command line.
    within: seconds. Raises EngineUnreachableError.
    """
    options, arguments = _program_words(compose, service, argv, directory, mount, names)
    result = await _run(compose, service, options, arguments, docker, within)
    if result.code is None and not result.was_run:
        raise EngineUnreachableError(one_line(result.error))
    return result


def by_hand(
    compose: ComposeCli,
    service: ComposeService,
    argv: tuple[str, ...],
    directory: str,
    *,
    mount: Mount | None,
    names: Iterable[str],
) -> str:
    """The line that does the same in a shell of this host."""
    options, arguments = _program_words(compose, service, argv, directory, mount, names)
    line = (*compose.command, "run", "--rm", "--no-deps", *options, "--", service.name, *arguments)
    return f"cd {shlex.quote(compose.directory)} && {shlex.join(line)}"


async def remove_folder(compose: ComposeCli, service: ComposeService, folder: Path, docker: Docker) -> None:
    """Remove a folder of the engine's host as the root user of a container. Raises EngineUnreachableError."""
    options = ["--entrypoint=rm", "--user=0", Mount(str(folder.parent), _REMOVAL_MOUNT).option]
    arguments = ("-rf", "--", f"{_REMOVAL_MOUNT}/{folder.name}")
    await _run(compose, service, options, arguments, docker, _REMOVAL_TIMEOUT)


def _program_words(
    compose: ComposeCli,
    service: ComposeService,
    argv: tuple[str, ...],
    directory: str,
    mount: Mount | None,
    names: Iterable[str],
) -> tuple[list[str], tuple[str, ...]]:
    """The options of `docker compose run`, and the arguments of the container."""
    overridden, arguments = with_entrypoint(service, argv, compose.entrypoint_program)
    return [*_options(directory, mount, names), *overridden], arguments


def _options(directory: str, mount: Mount | None, names: Iterable[str]) -> list[str]:
    where = [*([f"--workdir={directory}"] if directory else []), *([] if mount is None else [mount.option])]
    return [*(f"--env={name}" for name in sorted(names)), *where]


async def _run(
    compose: ComposeCli,
    service: ComposeService,
    options: Iterable[str],
    arguments: Iterable[str],
    docker: Docker,
    within: float,
) -> ProgramResult:
    name = f"pipeline-gateway-look-{secrets.token_hex(6)}"
    try:
        result = await docker.run(
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
        await docker.run("container", "rm", "--force", "--volumes", "--", name)
        raise
    if result.code is None:  # the command line was killed, and its container may go on
        await docker.run("container", "rm", "--force", "--volumes", "--", name)
    elif is_unreachable(result) and not result.output:
        raise EngineUnreachableError(one_line(result.error))
    return result
