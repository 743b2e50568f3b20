"""All fabrics: finds what runs the steps of a project on a fabric."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from gateway.errors import ConfigError
from gateway.fabrics import step_services
from gateway.fabrics.checkouts import Checkout, Checkouts
from gateway.fabrics.compose import ComposeFabric
from gateway.fabrics.compose_services import ComposeServices
from gateway.fabrics.fabric import Fabric
from gateway.fabrics.local import LocalFabric
from gateway.model.job import SourceCommit
from gateway.settings.fabric import RunnerName
from gateway.settings.settings import Settings
from runners.containers.docker import Docker
from runners.mask import Mask


def must_have_lasting_databases(settings: Settings, environment: Mapping[str, str]) -> None:
    """Refuse a project that runs from checkouts, and whose database would be removed with them. Raises ConfigError.

    As far as the files of this host tell: `check` also looks at the commits. Blocks.
    """
    for name, project in settings.projects.items():
        if project.repository is None and (project.branch is not None or project.version is not None):
            fabrics = (one for one in settings.fabrics_of(name) if settings.fabrics[one].runner is RunnerName.LOCAL)
            for fabric in fabrics:
                problem = LocalFabric(settings, fabric, name, environment).throwaway_database()
                if problem is not None:
                    raise ConfigError(f"projects.{name} on fabrics.{fabric}: {problem}")


class FabricRegistry:
    """Makes the Fabric of any project, and owns the checkouts.

    mask: hides the secrets of the configuration and of the gateway's environment.
    environment: of the gateway. instance: the gateway's own id, which its containers carry as a label.
    earlier: the registry of the configuration before, whose secrets and checkouts this one knows too.
    """

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str],
        instance: str,
        earlier: FabricRegistry | None = None,
    ) -> None:
        mask, checkouts = settings.mask(environment), None
        if earlier is not None:
            mask, checkouts = replace(mask, values=mask.values | earlier.mask.values), earlier.checkouts
        self.mask: Mask = mask
        self.checkouts: Checkouts = Checkouts(settings, environment, self.remove_folder, checkouts)
        self._settings = settings
        self._environment = environment
        self._instance = instance
        self._uncommitted: dict[tuple[RunnerName, str, str], Fabric] = {}  # those without a checkout
        self._services: dict[str, ComposeServices] = {}

    def get(self, runner: RunnerName, fabric: str, project: str, source: SourceCommit | None = None) -> Fabric:
        """What runs the steps of a project on a fabric, also where the configuration does not have them any more.

        source: the commit that is checked out, None for the project's own directory.
        """
        if source is not None:
            return self._make(runner, fabric, project, self.checkouts.checkout(fabric, source))
        key = (runner, fabric, project)
        if key not in self._uncommitted:
            self._uncommitted[key] = self._make(*key, None)
        return self._uncommitted[key]

    def all(self) -> Iterable[Fabric]:
        """Every fabric, with every project where the steps are processes of this host."""
        for name, fabric in self._settings.fabrics.items():
            local = fabric.runner is RunnerName.LOCAL
            for project in self._settings.projects if local else [self._settings.default_project]:
                yield self.get(fabric.runner, name, project)

    def engines(self) -> Iterable[Docker]:
        """The container engines of the fabrics, each once."""
        dockers = [
            self._services_of(name).docker
            for name, fabric in self._settings.fabrics.items()
            if fabric.runner is RunnerName.COMPOSE
        ]
        return {docker.command: docker for docker in dockers}.values()

    async def remove_folder(self, fabric: str, folder: Path) -> bool:
        """Remove a folder by a container of the fabric; true if the folder does not exist any more.

        Containers write as their own users, often root, so this process may not have the right to remove their files.
        """
        configured = self._settings.fabrics.get(fabric)
        if configured is None or configured.runner is not RunnerName.COMPOSE:
            return False
        await self._services_of(fabric).remove(configured.compose.dbt.service, folder)
        # the container may have the right to empty the folder and not to remove it
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        return not await asyncio.to_thread(folder.exists)

    def _make(self, runner: RunnerName, fabric: str, project: str, checkout: Checkout | None) -> Fabric:
        match runner:
            case RunnerName.LOCAL:
                return LocalFabric(self._settings, fabric, project, self._environment, checkout)
            case RunnerName.COMPOSE:
                services = self._services_of(fabric)
                return ComposeFabric(self._settings, fabric, project, self._environment, services, checkout)

    def _services_of(self, fabric: str) -> ComposeServices:
        if fabric not in self._services:
            made = step_services.compose_services(self._settings, fabric, self._environment, self._instance)
            self._services[fabric] = made
        return self._services[fabric]
