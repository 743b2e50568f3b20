"""The services of a fabric's compose project, read from Compose and the engine and cached for two seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TypeVar

from gateway.settings.fabric import FabricSettings
from runners.containers import compose_project, one_off
from runners.containers.compose_project import ComposeCli, ComposeProject, ComposeService, Mount
from runners.containers.docker import Docker, EngineUnreachableError
from runners.runner import Liveness

_FRESH = 2.0  # seconds that an answer stays in the cache
_PATIENCE, _AGAIN = 30.0, 1.0  # seconds to wait for an engine that does not answer, and between two attempts

T = TypeVar("T")


class ComposeServices:
    """A compose project as it is now. A trigger asks several times, and many triggers may come at once."""

    def __init__(self, compose: ComposeCli, docker: Docker) -> None:
        self.compose = compose
        self.docker = docker
        self._lock = asyncio.Lock()
        self._project: tuple[float, ComposeProject] | None = None
        self._services: dict[str, tuple[float, ComposeService]] = {}
        self._looks: dict[tuple[str, str, str, Mount | None], tuple[float, bytes]] = {}
        self._host: tuple[float, str] | None = None

    async def project(self) -> ComposeProject | str:
        """The project, or why there is none. Raises EngineUnreachableError."""
        async with self._lock:
            if self._project is not None and time.monotonic() - self._project[0] < _FRESH:
                return self._project[1]
            found = await compose_project.read_project(self.compose, self.docker)
            self._project = None if isinstance(found, str) else (time.monotonic(), found)
            return found

    async def find(self, name: str) -> ComposeService | str:
        """A service, or what is wrong with it. Raises EngineUnreachableError."""
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

    async def look(
        self, service: ComposeService, script: str, where: str, mount: Mount | None, names: Iterable[str]
    ) -> bytes:
        """The output of a shell script in a container of a service. names: of its variables, the same for all.

        Raises EngineUnreachableError.
        """
        key = (service.name, script, where, mount)
        async with self._lock:
            self._looks = {one: found for one, found in self._looks.items() if time.monotonic() - found[0] < _FRESH}
            if key not in self._looks:
                said = await one_off.run_shell(
                    self.compose, service, script, where, self.docker, mount=mount, names=names
                )
                self._looks[key] = time.monotonic(), said
            return self._looks[key][1]

    async def remote_host(self) -> str | None:
        """The address of an engine on another host, None for one on this host. Reads docker's configuration only."""
        async with self._lock:
            if self._host is None or time.monotonic() - self._host[0] > _FRESH:
                # docker itself decides between option, variable and context
                said = await self.docker.run("context", "inspect", "--format={{.Endpoints.docker.Host}}")
                self._host = time.monotonic(), said.output.decode(errors="replace").strip()
            found = self._host[1]
        return None if not found or found.startswith("unix://") else found

    async def remove(self, name: str, folder: Path) -> None:
        """Remove a folder of this host by a container of a service, where the engine answers and the service exists."""
        try:
            found = await self.find(name)
            if not isinstance(found, str):
                await one_off.remove_folder(self.compose, found, folder, self.docker)
        except EngineUnreachableError:
            return  # the next sweep tries again


def compose_cli(fabric: FabricSettings, instance: str) -> ComposeCli:
    """The command line of a fabric's compose project. Each value is glued to its option, so it can't be an option."""
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
    """The answer of an engine that may be restarting. Raises EngineUnreachableError after half a minute."""
    limit = time.monotonic() + _PATIENCE
    while True:
        try:
            return await ask()
        except EngineUnreachableError:
            if time.monotonic() > limit:
                raise
        on_liveness(Liveness.UNREACHABLE)
        await asyncio.sleep(_AGAIN)
