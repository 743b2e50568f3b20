"""Finds the work of a fabric: what its steps run depends on where."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from gateway.fabrics import compose_mounts as compose_places
from gateway.fabrics.checkouts import Checkout
from gateway.fabrics.compose import ComposeFabric
from gateway.fabrics.compose_services import ComposeServices
from gateway.fabrics.fabric import Fabric
from gateway.fabrics.local import LocalFabric
from gateway.model.job import RunnerName
from gateway.settings.settings import Settings
from runners.containers.docker import Docker


class FabricRegistry:
    """Makes the work of any fabric and project.

    environment: of the gateway. instance: the gateway's own id, which its containers carry.
    """

    def __init__(self, settings: Settings, environment: Mapping[str, str], instance: str) -> None:
        self._settings = settings
        self._environment = environment
        self._instance = instance
        self._made: dict[tuple[RunnerName, str, str], Fabric] = {}
        self._services: dict[str, ComposeServices] = {}

    def of(self, runner: RunnerName, fabric: str, project: str, checkout: Checkout | None = None) -> Fabric:
        """The work of a project in a fabric, as far as the configuration (still) has them.

        checkout: where the project is, None for its own directory, for which the work is always the same one.
        """
        if checkout is not None:
            return self._make(runner, fabric, project, checkout)
        key = (runner, fabric, project)
        if key not in self._made:
            self._made[key] = self._make(*key, None)
        return self._made[key]

    def _make(self, runner: RunnerName, fabric: str, project: str, checkout: Checkout | None) -> Fabric:
        match runner:
            case RunnerName.LOCAL:
                return LocalFabric(self._settings, fabric, project, self._environment, checkout)
            case RunnerName.COMPOSE:
                services = self._services_of(fabric)
                return ComposeFabric(self._settings, fabric, project, self._environment, services, checkout)

    def _services_of(self, fabric: str) -> ComposeServices:
        if fabric not in self._services:
            made = compose_places.services(self._settings, fabric, self._environment, self._instance)
            self._services[fabric] = made
        return self._services[fabric]

    async def remove(self, fabric: str, folder: Path) -> bool:
        """Remove a folder with what containers of a fabric have left in it; whether it is gone.

        Their users, root most of all, may have made what only they can remove.
        """
        chosen = self._settings.fabrics.get(fabric)
        if chosen is None or RunnerName(chosen.runner) is not RunnerName.COMPOSE:
            return False
        await self._services_of(fabric).remove(chosen.compose.dbt.service, folder)
        # the container may have been let to empty the folder and not to remove it
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        return not await asyncio.to_thread(folder.exists)

    def all(self) -> Iterable[Fabric]:
        """The work of every fabric, with every project where they run it themselves."""
        for name, fabric in self._settings.fabrics.items():
            runner = RunnerName(fabric.runner)
            projects = self._settings.projects if runner is RunnerName.LOCAL else [self._settings.default_project]
            for project in projects:
                yield self.of(runner, name, project)

    def engines(self) -> Iterable[Docker]:
        """The container engines of the fabrics, each once."""
        dockers = [
            self._services_of(name).docker
            for name, fabric in self._settings.fabrics.items()
            if RunnerName(fabric.runner) is RunnerName.COMPOSE
        ]
        return {docker.command: docker for docker in dockers}.values()
