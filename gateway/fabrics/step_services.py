"""The compose service of each step: found, free of other containers, and with the checkout mounted."""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.fabrics import fabric as shared
from gateway.fabrics import shell
from gateway.fabrics.checkouts import Checkout
from gateway.fabrics.compose_services import ComposeServices, compose_cli
from gateway.model.plan import Plan, StepName
from gateway.settings.fabric import ComposeSettings, DbtServiceSettings, IngesterServiceSettings, RunnerName
from gateway.settings.project import ProjectSettings
from gateway.settings.settings import Settings
from runners.containers import compose_project
from runners.containers.compose_project import ComposeService, Mount
from runners.containers.docker import Docker
from runners.dbt import project as dbt_project


@dataclass(frozen=True, slots=True)
class StepService:
    """The service that a step runs in, and what is mounted in its container.

    mount: of the checkout. state: of the results that `dbt retry` goes on from.
    """

    service: ComposeService
    mount: Mount | None
    state: Mount | None = None

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """What there is of them."""
        return tuple(mount for mount in (self.mount, self.state) if mount is not None)


def compose_services(settings: Settings, fabric: str, environment: Mapping[str, str], instance: str) -> ComposeServices:
    """The services of a fabric. instance: the gateway's own id, which its containers carry as a label."""
    chosen, _ = shared.fabric_settings(settings, fabric, RunnerName.COMPOSE)
    project = compose_cli(chosen, instance)
    docker = Docker(project.docker, shared.environment(chosen, environment), settings.mask(environment))
    return ComposeServices(project, docker)


class StepServices:
    """Finds the services of one project's steps.

    fabric: its id. environment: of the docker command line. checkout: None where the services have the project.
    """

    def __init__(
        self,
        services: ComposeServices,
        fabric: str,
        settings: ComposeSettings,
        environment: Mapping[str, str],
        project: ProjectSettings,
        checkout: Checkout | None,
    ) -> None:
        self._services = services
        self._fabric = fabric
        self._settings = settings
        self._environment = environment
        self._project = project if checkout is None else checkout.project_in(project)
        self._checkout = checkout

    def lacks_packages(self) -> bool:
        """Whether the checkout does not have the packages yet that its project declares. Blocks."""
        return self._checkout is not None and dbt_project.lacks_packages(self._project.dbt)

    async def find(self, step: StepName) -> ComposeService | str:
        """The service of a step, or what is wrong with it. Raises EngineUnreachableError."""
        missing = [name for name in self._settings.environment if name not in self._environment]
        if missing:
            return (
                f"The variable {missing[0]} of `fabrics.{self._fabric}.compose.environment` is not set where the "
                "gateway runs: set it, or take it off that list, then trigger it again."
            )
        return await self._services.find(self._section(step).service)

    async def mounted(self, step: StepName, service: ComposeService) -> StepService | str:
        """A step's service with the checkout mounted, or why that can't be. Raises EngineUnreachableError."""
        checkout = self._checkout
        if checkout is None or (step is StepName.INGESTER and self._settings.ingester.project is None):
            return StepService(service, None)
        engine_host = await self._services.remote_host()
        if engine_host is not None:
            return (
                f"The engine of the fabric {self._fabric} is on another host ({engine_host}), where a commit can't be "
                "mounted: use an engine of this host, or leave branch and version out."
            )
        found = await asyncio.to_thread(self._mount, step, service, checkout)
        return found if isinstance(found, str) else StepService(service, found)

    async def container_conflict(self, plan: Plan) -> shared.ContainerConflict | None:
        """A running container of the plan's services, not started by the gateway. Raises EngineUnreachableError."""
        wanted = {section.service: section.idle for section in (self._section(step.name) for step in plan.steps)}
        project = await self._services.project()
        if isinstance(project, str):
            return None  # the job's first step says why; without a project there are no containers
        cli, docker = self._services.compose, self._services.docker
        found = await compose_project.find_foreign_container(project, wanted.items(), cli, docker)
        if found is None:
            return None
        section_name = "ingester" if found.service == self._settings.ingester.service else "dbt"
        return shared.ContainerConflict(
            found.container,
            found.service,
            found.since,
            f"wait for its end or stop it; if it is an `up` container that only idles, set "
            f"`fabrics.{self._fabric}.compose.{section_name}.idle: true`",
        )

    def _section(self, step: StepName) -> IngesterServiceSettings | DbtServiceSettings:
        return self._settings.ingester if step is StepName.INGESTER else self._settings.dbt

    def _mount(self, step: StepName, service: ComposeService, checkout: Checkout) -> Mount | str:
        if step is StepName.INGESTER:
            assert self._settings.ingester.project is not None, "else nothing is mounted"
            return _mount(self._project.directory, self._settings.ingester.project, checkout)
        folder = self._project.dbt
        if not (folder / "dbt_project.yml").is_file():  # the engine would make a missing folder
            return (
                f"The dbt project can't be read: there is no {folder / 'dbt_project.yml'}; set `dbt` of the project to "
                "the folder that has it."
            )
        where = dbt_folder(self._settings, service.working_directory)
        if not where.startswith("/") or where.strip("/") == "" or ":" in where:
            return (
                f"The commit can't be mounted at {where}, where dbt runs in the service {service.name}: set "
                f"`fabrics.{self._fabric}.compose.dbt.project` to the folder of its dbt project."
            )
        return _mount(folder, where, checkout)


def ingester_command(
    service: ComposeService, configured: tuple[str, ...], count: int, fabric: str
) -> tuple[str, ...] | str:
    """The command that arguments are added to, empty for the service's own; or why there is none.

    configured: empty for none. count: of the arguments. fabric: the id.
    """
    argv = configured or (service.command or () if count else ())
    entrypoint, key = service.entrypoint or (), f"fabrics.{fabric}.compose.ingester.command"
    if count and not argv and not entrypoint:
        return (
            f"The service {service.name} has no command that the parameters of the pipeline could go to: set "
            f"`{key}`, or give the service one."
        )
    line = shell.corrected((*entrypoint, *argv), count)
    if line is None:
        return argv
    what = f"What the service {service.name} runs"
    if line[: len(entrypoint)] == entrypoint:
        return shared.lost_words(what, key, line[len(entrypoint) :])
    own = shell.corrected(entrypoint, len(argv) + count) or entrypoint
    return shared.lost_words(what, f"services.{service.name}.entrypoint", own, for_compose=True)


def dbt_folder(settings: ComposeSettings, working_directory: str) -> str:
    """The path of the dbt project in a service or container with this working directory."""
    return settings.dbt.project or posixpath.normpath(settings.dbt.working_directory or working_directory)


def _mount(folder: Path, target: str, checkout: Checkout) -> Mount | str:
    source = folder.resolve()
    # A link in a commit must not lead its containers to the rest of this host: the engine would follow it as root.
    if folder.is_relative_to(checkout.root) and not source.is_relative_to(checkout.root.resolve()):
        return f"The folder {folder} of the commit is a link out of it, and can't be mounted: make it a folder."
    if not source.is_dir():
        return f"The folder {folder} is not in the commit: set the project's `directory` to one that is."
    if ":" in str(source):
        return (
            f"The folder {source} can't be mounted, since a colon ends its path for Compose: have no colon in "
            "`state_directory` and the project's folders."
        )
    return Mount(str(source), target)
