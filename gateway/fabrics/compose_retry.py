"""`dbt retry` in a container: the results that it goes on from are mounted from the folder of the step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from gateway.fabrics.compose_services import ComposeServices, ask_patiently
from gateway.fabrics.fabric import ignore_liveness
from runners.containers import one_off
from runners.containers.compose_project import ComposeService, Mount
from runners.containers.docker import EngineUnreachableError
from runners.dbt import retry
from runners.dbt.command import state_file

_STATE = "/tmp/pipeline-gateway-state"  # noqa: S108, no folder of this host
_SEEN = b"seen"

FindService = Callable[[], Awaitable[ComposeService | str]]  # raises EngineUnreachableError


async def prepare(services: ComposeServices, find: FindService, earlier: Path, folder: Path) -> str | None:
    """Make the state that `dbt retry` goes on from, where a container can read it; why not, as the end of a sentence.

    find: the service of the step. earlier, folder: as in runners.dbt.retry.
    """
    why = await asyncio.to_thread(retry.prepare, earlier, folder)
    if why is not None:
        return why
    try:
        why = await ask_patiently(lambda: _why_unreadable(services, find, folder), ignore_liveness)
    except (EngineUnreachableError, OSError) as error:
        why = f"whether a container can read the results of its last attempt is not known: {error}"
    if why is not None:
        with suppress(OSError):
            await asyncio.to_thread(state_file(folder).unlink)
    return why


def state_mount(folder: Path) -> Mount | None:
    """The mount of the state of `dbt retry`, None for a step that runs as a whole. folder: of the step. Blocks."""
    file = state_file(folder)
    return Mount(str(file.parent), _STATE, read_only=True) if file.exists() else None


async def _why_unreadable(services: ComposeServices, find: FindService, folder: Path) -> str | None:
    """Why a container of the step can't read its state; None if it can. Raises EngineUnreachableError, OSError.

    Only a container can tell: the engine may have other files than this host under the same path, as where the gateway
    itself runs in a container, and SELinux or a user namespace may keep the container from reading them.
    """
    engine_host = await services.remote_host()
    if engine_host is not None:
        return f"its engine is on another host ({engine_host}), where the results of its last attempt can't be mounted"
    if ":" in str(folder):
        return "a colon in the path of the state directory ends it for Compose, so the results can't be mounted"
    service = await find()
    if isinstance(service, str):
        return "its service can't be used"
    await asyncio.to_thread(_let_read, folder)
    script = f"test -r {_STATE}/{state_file(folder).name} && echo {_SEEN.decode()}"
    mount = state_mount(folder)
    said = await one_off.run_shell(services.compose, service, script, "", services.docker, mount=mount)
    if _SEEN in said.split():
        return None
    return f"a shell in the service {service.name} can't read the results of its last attempt"


def _let_read(folder: Path) -> None:
    """Let every user of a container read the state. On this host the folders above it don't let others in.

    Raises OSError.
    """
    state_file(folder).parent.chmod(0o755)
    state_file(folder).chmod(0o644)
