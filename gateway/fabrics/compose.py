"""The work of a fabric whose steps run in the services of a compose project."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from gateway.clock import Instant
from gateway.errors import EngineError
from gateway.fabrics import compose_dbt
from gateway.fabrics import compose_mounts as compose_places
from gateway.fabrics import fabric as work
from gateway.fabrics.checkouts import Checkout
from gateway.fabrics.compose_mounts import StepService, StepServices
from gateway.fabrics.compose_services import ComposeServices, ask_patiently
from gateway.fabrics.fabric import OnLiveness, ignore_liveness
from gateway.model import catalog
from gateway.model.catalog import Installation, Trigger
from gateway.model.job import Finished, RunnerName
from gateway.model.plan import Plan, PlannedStep, StepName
from gateway.settings.settings import Settings
from runners import ingester
from runners.containers import compose_project
from runners.containers import one_off as compose_look
from runners.containers.compose_project import ComposeService
from runners.containers.compose_runner import is_decided
from runners.containers.docker import Docker, EngineUnreachableError
from runners.containers.docker_errors import explain
from runners.containers.identity import container_name
from runners.dbt import command as dbt
from runners.dbt import listing
from runners.dbt import output as dbt_output
from runners.dbt.command import DbtStep
from runners.dbt.listing import Node
from runners.dbt.results import judge_outcome, read_results
from runners.mask import Mask
from runners.outcome import Command, Outcome
from runners.program import ProgramResult
from runners.report import OutputReader

_SILENT = "The container engine doesn't answer"


class ComposeFabric:
    """Knows what each step runs in the services of a compose project, and what it should leave behind: see Work."""

    def __init__(
        self,
        settings: Settings,
        fabric: str,
        project: str,
        environment: Mapping[str, str],
        services: ComposeServices,
        checkout: Checkout | None = None,
    ) -> None:
        """environment: of the gateway. services: the fabric's. checkout: where the project is, None for the service's.

        Without a checkout the steps run on what images and mounts of the services have.
        """
        self._settings = settings
        self._fabric_name = fabric
        # a job that outlived its fabric or project in the configuration is followed to its end all the same
        self._fabric, fabric_is_gone = work.fabric_settings(settings, fabric, RunnerName.COMPOSE)
        configured, project_is_gone = work.project_settings(settings, project)
        self._gone = work.not_configured("fabric", fabric) if fabric_is_gone else None
        if project_is_gone and checkout is not None:
            self._gone = work.not_configured("project", project)
        self._checkout = checkout
        self._environment = work.environment(self._fabric, environment)
        self._mask = settings.mask(environment)
        self.services = services
        self.compose, self.docker = services.compose, services.docker
        self._places = StepServices(services, fabric, self._fabric.compose, self._environment, configured, checkout)
        self._dbt = work.dbt(self._fabric, Path(self._fabric.compose.dbt.working_directory or "."))

    @property
    def mask(self) -> Mask:
        """Hides what is secret: in the configuration, the gateway's environment, and services and containers seen."""
        return self._mask

    async def installation(self, trigger: Trigger) -> Installation:
        """What a plan depends on besides the request. Raises EngineError."""
        has: frozenset[str] | None = None
        chosen = self._settings
        if catalog.leaves_open(trigger, chosen.enable_openlineage, chosen.enable_elementary):
            try:
                place = await self._place(StepName.BUILD)
                has = None if isinstance(place, str) else await self._look(place)
            except EngineUnreachableError as silence:
                raise _unavailable(silence) from None
        return work.installation(
            self._settings,
            self._fabric_name,
            has_openlineage=compose_dbt.HAS_OPENLINEAGE in (has or ()),
            has_elementary=compose_dbt.HAS_ELEMENTARY in (has or ()),
            ingester_is_fixed=self._checkout is not None and self._fabric.compose.ingester.project is None,
            needs_packages=self._checkout is not None and self._places.declares_packages(),
        )

    async def missing_program(self) -> str | None:
        """Whether docker's command line is missing; what is in the images only the engine could tell."""
        if await asyncio.to_thread(shutil.which, "docker", path=self._environment.get("PATH")) is None:
            return "The program docker was not found on PATH: install Docker's command line and its Compose v2 plugin."
        return None

    async def container_conflict(self, plan: Plan) -> work.ContainerConflict | None:
        """A container of the services that the plan uses, started by somebody else. Raises EngineError."""
        try:
            return await self._places.container_conflict(plan)
        except EngineUnreachableError as silence:
            raise _unavailable(silence) from None

    async def problem(self, planned: PlannedStep, on_liveness: OnLiveness = ignore_liveness) -> str | None:
        """Why a step could not start, in a sentence that says what to do."""
        if self._gone is not None:
            return self._gone
        elementary = planned.name is StepName.ELEMENTARY or planned.without_elementary
        try:
            place = await ask_patiently(lambda: self._place(planned.name), on_liveness)
            if isinstance(place, str):
                return place
            has = await ask_patiently(lambda: self._look(place), on_liveness) if planned.lineage or elementary else None
        except EngineUnreachableError as silence:
            return explain(str(silence), _SILENT)
        service = place.service.name
        if planned.name is StepName.INGESTER:
            argv = self._ingester_command(planned, place.service)
            return argv if isinstance(argv, str) else None
        if has is None:
            return None
        if planned.lineage and compose_dbt.HAS_OPENLINEAGE not in has:
            return (
                f"OpenLineage is wanted, but the program {self._dbt.lineage_executable} was not found in the service "
                f"{service}: install openlineage-dbt in its image, or leave OpenLineage off."
            )
        if elementary and compose_dbt.HAS_ELEMENTARY not in has:
            return (
                f"Elementary is wanted, but the dbt project in the service {service} does not have its package: "
                "add elementary-data/elementary to packages.yml, or leave Elementary off."
            )
        return None

    async def nodes(self, planned: PlannedStep) -> list[Node] | str:
        """What a dbt step would run, by dbt's own word; or why it can't be found out. Raises EngineError."""
        try:
            place = await self._place(planned.name)
            return place if isinstance(place, str) else await self._nodes(planned, place)
        except EngineUnreachableError as silence:
            raise _unavailable(silence) from None

    async def command(
        self, planned: PlannedStep, folder: Path, on_liveness: OnLiveness = ignore_liveness
    ) -> Command | str:
        """What the step runs, or why it can't. Raises OSError where the disk keeps it from being prepared."""
        if await asyncio.to_thread(is_decided, folder):
            # an earlier gateway has asked compose file and engine, and only the values of variables are still wanted
            environment = self._whole_environment(planned)
            return Command((), "", environment, docker=self.compose.docker, mask=self._mask)
        if self._gone is not None:
            return self._gone
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        try:
            place = await ask_patiently(lambda: self._place(planned.name), on_liveness)
        except EngineUnreachableError as silence:
            return explain(str(silence), _SILENT)
        if isinstance(place, str):
            return place
        what = self._what(planned, place)
        if isinstance(what, str):
            return what
        names = self._handed_on(planned, place.service)
        return compose_project.run_command(self.compose, place.service, what, names, folder, place.mount)

    async def conclude(
        self, planned: PlannedStep, started: Instant, outcome: Outcome, reader: OutputReader, folder: Path
    ) -> Finished:
        """What the end of the step means. Raises OSError where the disk can't be looked at now."""
        if not isinstance(reader, dbt_output.DbtReader):
            return work.ingester_finished(planned, started, outcome, reader)
        step = work.dbt_step(planned, self._dbt)
        with suppress(EngineUnreachableError):
            await self._fetch(step, reader, folder)
        # Where the results can't be fetched, the log tells the same.
        left = await asyncio.to_thread(read_results, folder, self._mask) or reader.results
        outcome = judge_outcome(outcome, step, reader, left, has_report=dbt.report_file(folder).exists())
        return work.dbt_finished(planned, started, outcome, reader, left)

    async def service(self, step: StepName) -> ComposeService | str:
        """The service of a step, or what is wrong with it. Raises EngineSilentError."""
        found = await self._places.service(step)
        if not isinstance(found, str):
            self._mask = self._mask.with_secrets_of(found.environment)
        return found

    async def _place(self, step: StepName) -> StepService | str:
        """The service of a step and what is mounted there, or why it can't run. Raises EngineSilentError."""
        found = await self.service(step)
        return found if isinstance(found, str) else await self._places.of(step, found)

    async def _look(self, place: StepService) -> frozenset[str] | None:
        """What the dbt service has; None where no shell could look. Raises EngineSilentError."""
        script = compose_dbt.script(self._dbt.lineage_executable)
        mount = place.mount
        where = (self._fabric.compose.dbt.working_directory or "") if mount is None else mount.target
        found = (await self.services.look(place.service, script, where, mount)).split()
        return frozenset(found) if compose_dbt.LOOKED in found else None

    async def _nodes(self, planned: PlannedStep, place: StepService) -> list[Node] | str:
        chosen, mount = self._fabric.compose.dbt, place.mount
        paths = compose_dbt.paths(chosen, None if mount is None else mount.target, listing=True)
        unlined = replace(planned, lineage=False)
        docker = Docker(self.compose.docker, self._whole_environment(unlined), self._mask)

        async def ask(argv: tuple[str, ...]) -> ProgramResult:
            names = self._handed_on(unlined, place.service)
            return await compose_look.ask(
                self.compose, place.service, argv, paths.cwd, docker, mount=mount, names=names, within=listing.TIMEOUT
            )

        step, may_install = work.dbt_step(unlined, self._dbt), self._checkout is not None and self._checkout.is_free
        return await listing.list_nodes(self._dbt, step, paths, ask, self._mask, may_install=may_install)

    def _what(self, planned: PlannedStep, place: StepService) -> Command | str:
        """What the step runs, as its container sees it, with the whole environment of the docker command line."""
        chosen, environment = self._fabric.compose, self._whole_environment(planned)
        if planned.name is StepName.INGESTER:
            argv = self._ingester_command(planned, place.service)
            if isinstance(argv, str):
                return argv
            return ingester.command(
                ingester.Ingester(argv, chosen.ingester.working_directory or "", planned.arguments),
                environment,
                grace=chosen.ingester.grace,
                time_limit=self._fabric.time_limit,
                mask=self._mask,
            )
        return dbt.command(
            self._dbt,
            work.dbt_step(planned, self._dbt),
            compose_dbt.paths(chosen.dbt, None if place.mount is None else place.mount.target),
            environment,
            grace=self._fabric.dbt.grace,
            time_limit=self._fabric.time_limit,
            mask=self._mask,
        )

    def _ingester_command(self, planned: PlannedStep, service: ComposeService) -> tuple[str, ...] | str:
        """What arguments go behind, empty for the service's own command; or that there is nothing."""
        configured = self._fabric.compose.ingester.command
        if configured or not planned.arguments or service.command:
            return configured or (service.command or () if planned.arguments else ())
        if service.entrypoint:
            return ()  # which takes them, as it takes everything
        return (
            f"The service {service.name} has no command that the parameters of the pipeline could go to: set "
            f"`fabrics.{self._fabric_name}.compose.ingester.command`, or give the service one."
        )

    def _ours(self, planned: PlannedStep) -> Mapping[str, str]:
        """What the step finds in its environment unless somebody sets it otherwise."""
        return (
            ingester.VARIABLES if planned.name is StepName.INGESTER else compose_dbt.variables(lineage=planned.lineage)
        )

    def _whole_environment(self, planned: PlannedStep) -> Mapping[str, str]:
        ours = {name: value for name, value in self._ours(planned).items() if name not in self._set_by_us()}
        return {**self._environment, **ours, "COMPOSE_IGNORE_ORPHANS": "true"}

    def _set_by_us(self) -> frozenset[str]:
        """The variables that the configuration sets for containers."""
        return frozenset(self._fabric.environment) | frozenset(self.compose.variables)

    def _handed_on(self, planned: PlannedStep, service: ComposeService) -> list[str]:
        """The names of the variables that the container gets besides those of its service."""
        known = frozenset(service.environment) | self._set_by_us()
        lineage_is_known = any(name.startswith(compose_dbt.LINEAGE_VARIABLES) for name in known)
        ours = (
            name
            for name in self._ours(planned)
            if name not in known and not (lineage_is_known and name.startswith(compose_dbt.LINEAGE_VARIABLES))
        )
        return [*ours, *self._set_by_us()]

    async def _fetch(self, step: DbtStep, reader: dbt_output.DbtReader, folder: Path) -> None:
        """Take from the ended container what tells of the run. Raises OSError, EngineSilentError."""
        state = await self.docker.inspect(container_name(folder))
        if state is None or state.started == 0:
            return
        self._mask = self._mask.with_secrets_of(state.environment)
        chosen = self._fabric.compose
        project = None
        if self._checkout is not None:
            project = compose_places.dbt_folder(chosen, state.working_directory)
        target = compose_dbt.target(chosen.dbt, project)
        await compose_dbt.fetch(self.docker, state, target, step, reader, folder)


def _unavailable(silence: EngineUnreachableError) -> EngineError:
    return EngineError(explain(str(silence), "The container engine doesn't answer, so nothing was started"))
