"""The services of a fabric's compose project, asked for once by all that ask at the same time."""

from __future__ import annotations

import asyncio
import time

from gateway.fabric import Fabric
from runners import compose_project
from runners.compose_project import Compose, Project, Service
from runners.docker import Docker

_FRESH = 2.0  # seconds that an answer is good for


class ComposeServices:
    """What a compose project has now. A trigger asks several times, and many may come at once."""

    def __init__(self, compose: Compose, docker: Docker) -> None:
        self._compose = compose
        self._docker = docker
        self._lock = asyncio.Lock()
        self._project: tuple[float, Project] | None = None
        self._services: dict[str, tuple[float, Service]] = {}
        self._looks: dict[tuple[str, str, str], tuple[float, str]] = {}

    async def project(self) -> Project | str:
        """The project, or why there is none. Raises EngineSilentError."""
        async with self._lock:
            if self._project is not None and time.monotonic() - self._project[0] < _FRESH:
                return self._project[1]
            found = await compose_project.read(self._compose, self._docker)
            self._project = None if isinstance(found, str) else (time.monotonic(), found)
            return found

    async def find(self, name: str) -> Service | str:
        """A service, or what is wrong with it. Raises EngineSilentError."""
        known = self._services.get(name)
        if known is not None and time.monotonic() - known[0] < _FRESH:
            return known[1]
        project = await self.project()
        if isinstance(project, str):
            return project
        found = await compose_project.service(project, name, self._docker)
        if not isinstance(found, str):
            self._services[name] = time.monotonic(), found
        return found

    async def look(self, service: Service, script: str, where: str) -> str:
        """What a shell in a container of a service prints. Raises EngineSilentError."""
        key = (service.name, script, where)
        async with self._lock:
            if key not in self._looks or time.monotonic() - self._looks[key][0] > _FRESH:
                said = await compose_project.look(self._compose, service, script, where, self._docker)
                self._looks[key] = time.monotonic(), said
            return self._looks[key][1]


def compose(fabric: Fabric, instance: str) -> Compose:
    """How the compose project of a fabric is reached. Every value is glued to its option, so that none can be one."""
    chosen = fabric.compose
    docker = [f"--{key}={value}" for key in ("context", "host") if (value := getattr(chosen, key)) is not None]
    options = [
        *([] if chosen.project_name is None else [f"--project-name={chosen.project_name}"]),
        *(f"--file={file}" for file in chosen.files),
        *(f"--env-file={file}" for file in chosen.env_files),
        *(f"--profile={profile}" for profile in chosen.profiles),
    ]
    return Compose(
        directory=str(chosen.directory),
        docker=("docker", *docker),
        options=tuple(options),
        dependencies=chosen.dependencies,
        variables=chosen.environment,
        instance=instance,
    )
