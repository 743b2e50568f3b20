"""The services of a fabric's compose project, asked for once by all that ask at the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from gateway.settings.fabric import FabricSettings
from runners.containers import compose_project
from runners.containers import one_off as compose_look
from runners.containers.compose_project import ComposeCli, ComposeProject, ComposeService, Mount
from runners.containers.docker import Docker, EngineUnreachableError
from runners.runner import Liveness

_FRESH = 2.0  # seconds that an answer is good for
_PATIENCE, _AGAIN = 30.0, 1.0  # seconds that a silent engine is waited for, and until it is asked again

T = TypeVar("T")


class ComposeServices:
    """What a compose project has now. A trigger asks several times, and many may come at once."""

    def __init__(self, compose: ComposeCli, docker: Docker) -> None:
        self.compose = compose
        self.docker = docker
        self._lock = asyncio.Lock()
        self._project: tuple[float, ComposeProject] | None = None
        self._services: dict[str, tuple[float, ComposeService]] = {}
        self._looks: dict[tuple[str, str, str, Mount | None], tuple[float, str]] = {}
        self._host: tuple[float, str] | None = None

    async def project(self) -> ComposeProject | str:
        """The project, or why there is none. Raises EngineSilentError."""
        async with self._lock:
            if self._project is not None and time.monotonic() - self._project[0] < _FRESH:
                return self._project[1]
            found = await compose_project.read_project(self.compose, self.docker)
            self._project = None if isinstance(found, str) else (time.monotonic(), found)
            return found

    async def find(self, name: str) -> ComposeService | str:
        """A service, or what is wrong with it. Raises EngineSilentError."""
        known = self._services.get(name)
        if known is not None and time.monotonic() - known[0] < _FRESH:
            return known[1]
        project = await self.project()
        if isinstance(project, str):
            return project
        found = await compose_project.find_service(project, name, self.docker)
        if not isinstance(found, str):
            self._services[name] = time.monotonic(), found
        return found

    async def look(self, service: ComposeService, script: str, where: str, mount: Mount | None) -> str:
        """What a shell in a container of a service prints. Raises EngineSilentError."""
        key = (service.name, script, where, mount)
        async with self._lock:
            self._looks = {one: found for one, found in self._looks.items() if time.monotonic() - found[0] < _FRESH}
            if key not in self._looks:
                said = await compose_look.look(self.compose, service, script, where, self.docker, mount)
                self._looks[key] = time.monotonic(), said
            return self._looks[key][1]

    async def other_host(self) -> str | None:
        """The address of the engine, where that is on another host. Asks docker's configuration alone."""
        async with self._lock:
            if self._host is None or time.monotonic() - self._host[0] > _FRESH:
                # what of option, variable and context decides is docker's to say
                said = await self.docker.call("context", "inspect", "--format={{.Endpoints.docker.Host}}")
                self._host = time.monotonic(), said.output.decode(errors="replace").strip()
            found = self._host[1]
        return None if not found or found.startswith("unix://") else found

    async def remove(self, name: str, folder: Path) -> None:
        """Have a container of a service remove a folder of this host, as far as the engine answers and has it."""
        try:
            found = await self.find(name)
            if not isinstance(found, str):
                await compose_look.remove(self.compose, found, folder, self.docker)
        except EngineUnreachableError:
            return  # the next time, then


def compose_cli(fabric: FabricSettings, instance: str) -> ComposeCli:
    """How the compose project of a fabric is reached. Every value is glued to its option, so that none can be one."""
    chosen = fabric.compose
    docker = [f"--{key}={value}" for key in ("context", "host") if (value := getattr(chosen, key)) is not None]
    options = [
        *([] if chosen.project_name is None else [f"--project-name={chosen.project_name}"]),
        *(f"--file={file}" for file in chosen.files),
        *(f"--env-file={file}" for file in chosen.env_files),
        *(f"--profile={profile}" for profile in chosen.profiles),
    ]
    return ComposeCli(
        directory=str(chosen.directory),
        docker=("docker", *docker),
        options=tuple(options),
        dependencies=chosen.dependencies,
        variables=chosen.environment,
        instance=instance,
        entrypoint_program="dbt",
    )


async def ask_patiently(ask: Callable[[], Awaitable[T]], on_liveness: Callable[[Liveness], None]) -> T:
    """The answer of an engine that may be starting again. Raises EngineSilentError once that takes too long."""
    limit = time.monotonic() + _PATIENCE
    while True:
        try:
            return await ask()
        except EngineUnreachableError:
            if time.monotonic() > limit:
                raise
        on_liveness(Liveness.UNREACHABLE)
        await asyncio.sleep(_AGAIN)
