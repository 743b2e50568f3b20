"""A fabric whose steps run in the services of a compose project."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from gateway.clock import Instant
from gateway.errors import EngineError
from gateway.fabrics import compose_dbt, step_services
from gateway.fabrics import fabric as shared
from gateway.fabrics.checkouts import Checkout
from gateway.fabrics.compose_services import ComposeServices, ask_patiently
from gateway.fabrics.fabric import OnLiveness, ignore_liveness
from gateway.fabrics.step_services import StepService, StepServices
from gateway.model import catalog
from gateway.model.catalog import Installation
from gateway.model.job import Finished
from gateway.model.plan import Plan, PlannedStep, StepName
from gateway.model.request import TriggerRequest
from gateway.settings.fabric import RunnerName
from gateway.settings.settings import Settings
from runners import ingester, shell
from runners.containers import compose_project, one_off
from runners.containers.compose_project import ComposeService
from runners.containers.compose_runner import has_spec
from runners.containers.docker import Docker, EngineUnreachableError
from runners.containers.docker_errors import explain
from runners.containers.identity import container_name
from runners.dbt import command as dbt
from runners.dbt import listing
from runners.dbt import output as dbt_output
from runners.dbt import project as dbt_project
from runners.dbt import variables as dbt_variables
from runners.dbt.command import DbtStep
from runners.dbt.listing import Node
from runners.dbt.results import judge_outcome, read_results
from runners.mask import Mask
from runners.outcome import Command, Outcome
from runners.program import ProgramResult
from runners.report import OutputReader

_NO_ANSWER = "The container engine doesn't answer"


class ComposeFabric:
    """What each step runs in the services of a compose project: see the protocol Fabric."""

    runner = RunnerName.COMPOSE

    def __init__(
        self,
        settings: Settings,
        fabric: str,
        project: str,
        environment: Mapping[str, str],
        services: ComposeServices,
        checkout: Checkout | None = None,
    ) -> None:
        """environment: of the gateway. services: of the fabric. checkout: of the project.

        Without a checkout the steps run on the project that the images and mounts of the services have.
        """
        self._settings = settings
        self._fabric_name = fabric
        # a job is followed to its end also where the configuration has lost its fabric or project
        self._fabric, fabric_is_missing = shared.fabric_settings(settings, fabric, RunnerName.COMPOSE)
        configured, project_is_missing = shared.project_settings(settings, project)
        self._not_configured = shared.not_configured("fabric", fabric) if fabric_is_missing else None
        if project_is_missing and checkout is not None:
            self._not_configured = shared.not_configured("project", project)
        self.checkout = checkout
        self._environment = shared.environment(self._fabric, environment)
        self._mask = settings.mask(environment)
        self.services = services
        self.compose, self.docker = services.compose, services.docker
        self._step_services = StepServices(
            services, fabric, self._fabric.compose, self._environment, configured, checkout
        )
        self._dbt = shared.dbt_config(self._fabric, Path(self._fabric.compose.dbt.working_directory or "."))

    @property
    def mask(self) -> Mask:
        """Hides the secrets of the configuration, of the gateway's environment, and of services and containers seen."""
        return self._mask

    async def installation(self, request: TriggerRequest) -> Installation:
        """What a plan depends on besides the request. Raises EngineError."""
        has: frozenset[str] | None = None
        chosen = self._settings
        if catalog.depends_on_installation(request, chosen.enable_openlineage, chosen.enable_elementary):
            try:
                step_service = await self._step_service(StepName.BUILD)
                has = None if isinstance(step_service, str) else await self._inspect(step_service)
            except EngineUnreachableError as unreachable:
                raise _unavailable(unreachable) from None
        return shared.installation(
            self._settings,
            self._fabric_name,
            lineage_problem=self._lineage_problem(has or frozenset()),
            has_elementary=compose_dbt.HAS_ELEMENTARY in (has or ()),
            ingester_is_fixed=self.checkout is not None and self._fabric.compose.ingester.project is None,
            needs_packages=await asyncio.to_thread(self._step_services.lacks_packages),
        )

    def missing_program(self) -> str | None:
        """The docker command line, where it is missing; programs in images only the engine could tell. Blocks."""
        if shutil.which("docker", path=self._environment.get("PATH")) is None:
            return "The program docker was not found on PATH: install Docker's command line and its Compose v2 plugin."
        return None

    async def container_conflict(self, plan: Plan) -> shared.ContainerConflict | None:
        """A running container of the plan's services that the gateway did not start. Raises EngineError."""
        try:
            return await self._step_services.container_conflict(plan)
        except EngineUnreachableError as unreachable:
            raise _unavailable(unreachable) from None

    async def problem(self, planned: PlannedStep, on_liveness: OnLiveness = ignore_liveness) -> str | None:
        """Why a step could not start, in a sentence that says what to do."""
        if self._not_configured is not None:
            return self._not_configured
        elementary = planned.name is StepName.ELEMENTARY or planned.without_elementary
        try:
            step_service = await ask_patiently(lambda: self._step_service(planned.name), on_liveness)
            if isinstance(step_service, str):
                return step_service
            has = (
                await ask_patiently(lambda: self._inspect(step_service), on_liveness)
                if planned.lineage or elementary
                else None
            )
        except EngineUnreachableError as unreachable:
            return explain(str(unreachable), _NO_ANSWER)
        service = step_service.service.name
        if planned.name is StepName.INGESTER:
            argv = self._ingester_command(planned, step_service.service)
            return argv if isinstance(argv, str) else None
        if has is None:
            return None
        lineage_problem = self._lineage_problem(has)
        if planned.lineage and lineage_problem is not None:
            return (
                f"OpenLineage is wanted, but in the service {service} {lineage_problem}: install openlineage-dbt in "
                "its image beside the fabric's dbt, which must be named `dbt`, or leave OpenLineage off."
            )
        if elementary and compose_dbt.HAS_ELEMENTARY not in has:
            return (
                f"Elementary is wanted, but the dbt project in the service {service} does not have its package: "
                "add elementary-data/elementary to packages.yml, or leave Elementary off."
            )
        return None

    async def lost_arguments(self, planned: PlannedStep) -> str | None:
        """Why the arguments of a step would not reach its program, in a sentence that says what to do.

        A service that can't be found is no reason: the job says what is wrong with it. Raises EngineError.
        """
        if planned.name is not StepName.INGESTER or not planned.arguments:
            return None
        try:
            service = await self.service(planned.name)
        except EngineUnreachableError as unreachable:
            raise _unavailable(unreachable) from None
        argv = () if isinstance(service, str) else self._ingester_command(planned, service)
        return argv if isinstance(argv, str) else None

    async def list_nodes(self, planned: PlannedStep) -> list[Node] | str:
        """The nodes that a dbt step would run, as dbt lists them; or why dbt can't list them. Raises EngineError."""
        try:
            step_service = await self._step_service(planned.name)
            return step_service if isinstance(step_service, str) else await self._nodes(planned, step_service)
        except EngineUnreachableError as unreachable:
            raise _unavailable(unreachable) from None

    async def command(
        self, planned: PlannedStep, folder: Path, on_liveness: OnLiveness = ignore_liveness
    ) -> Command | str:
        """The command of a step, or why it has none. Raises OSError where the disk refuses the step's files."""
        if await asyncio.to_thread(has_spec, folder):
            # an earlier gateway has decided the command; only the values of variables are needed again
            environment = self._whole_environment(planned)
            return Command((), "", environment, docker=self.compose.docker, mask=self._mask)
        if self._not_configured is not None:
            return self._not_configured
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        try:
            step_service = await ask_patiently(lambda: self._step_service(planned.name), on_liveness)
        except EngineUnreachableError as unreachable:
            return explain(str(unreachable), _NO_ANSWER)
        if isinstance(step_service, str):
            return step_service
        command = self._container_command(planned, step_service)
        if isinstance(command, str):
            return command
        if step_service.mount is not None and planned.name not in (StepName.INGESTER, StepName.DEPS):
            project, known = Path(step_service.mount.source), self._known_variables(step_service.service)
            await asyncio.to_thread(dbt_project.make_own_target, project, known)
        names = self._container_variables(planned, step_service.service)
        return compose_project.run_command(
            self.compose, step_service.service, command, names, folder, step_service.mount
        )

    async def conclude(
        self, planned: PlannedStep, started: Instant, outcome: Outcome, reader: OutputReader, folder: Path
    ) -> Finished:
        """What the end of a step means. Raises OSError where the step's files can't be read now."""
        if not isinstance(reader, dbt_output.DbtReader):
            return shared.finished_by_exit_code(planned, started, outcome, reader)
        step = shared.dbt_step(planned, self._dbt)
        with suppress(EngineUnreachableError):
            await self._fetch(step, reader, folder)
        # without a run_results.json the log has the same results
        left = await asyncio.to_thread(read_results, folder) or reader.results
        outcome = judge_outcome(outcome, step, reader, left, self._mask, has_report=dbt.report_file(folder).exists())
        return shared.dbt_finished(planned, started, outcome, reader, left)

    async def service(self, step: StepName) -> ComposeService | str:
        """The service of a step, or what is wrong with it. Raises EngineUnreachableError."""
        found = await self._step_services.find(step)
        if not isinstance(found, str):
            self._mask = self._mask.with_secrets_of(found.environment)
        return found

    async def _step_service(self, step: StepName) -> StepService | str:
        """The service of a step with its mount, or why the step can't run. Raises EngineUnreachableError."""
        found = await self.service(step)
        return found if isinstance(found, str) else await self._step_services.mounted(step, found)

    async def _inspect(self, step_service: StepService) -> frozenset[str] | None:
        """What is installed in the dbt service, None where it has no shell. Raises EngineUnreachableError."""
        script = compose_dbt.script(self._dbt.executable, self._dbt.lineage_executable)
        mount = step_service.mount
        where = (self._fabric.compose.dbt.working_directory or "") if mount is None else mount.target
        found = (await self.services.look(step_service.service, script, where, mount)).split()
        return frozenset(found) if compose_dbt.LOOKED in found else None

    def _lineage_problem(self, has: frozenset[str]) -> str | None:
        """Why steps can't run through dbt-ol, by what is installed."""
        if compose_dbt.HAS_OTHER_DBT in has:
            return f"dbt-ol calls another program than {self._dbt.executable}: the `dbt` of PATH"
        if compose_dbt.HAS_OPENLINEAGE not in has:
            return f"{self._dbt.lineage_executable} was not found"
        return None

    async def _nodes(self, planned: PlannedStep, step_service: StepService) -> list[Node] | str:
        chosen, mount = self._fabric.compose.dbt, step_service.mount
        paths = compose_dbt.paths(chosen, None if mount is None else mount.target, listing=True)
        unlined = replace(planned, lineage=False)
        docker = Docker(self.compose.docker, self._whole_environment(unlined), self._mask)

        async def ask(argv: tuple[str, ...]) -> ProgramResult:
            names = self._container_variables(unlined, step_service.service)
            return await one_off.run_program(
                self.compose,
                step_service.service,
                argv,
                paths.cwd,
                docker,
                mount=mount,
                names=names,
                within=listing.TIMEOUT,
            )

        step, may_install = shared.dbt_step(unlined, self._dbt), self.checkout is not None and self.checkout.is_free
        return await listing.list_nodes(self._dbt, step, paths, ask, self._mask, may_install=may_install)

    def _container_command(self, planned: PlannedStep, step_service: StepService) -> Command | str:
        """The command as the container sees it, with the whole environment of the docker command line."""
        chosen, environment = self._fabric.compose, self._whole_environment(planned)
        if planned.name is StepName.INGESTER:
            argv = self._ingester_command(planned, step_service.service)
            if isinstance(argv, str):
                return argv
            return ingester.command(
                ingester.Ingester(argv, chosen.ingester.working_directory or "", planned.arguments),
                environment,
                grace=chosen.ingester.grace,
                time_limit=self._fabric.time_limit,
                mask=self._mask,
            )
        # dbt-ol does not read dbt's own variables
        known = {
            **step_service.service.environment,
            **{name: environment[name] for name in self._configured_variables()},
        }
        return dbt.command(
            self._dbt.with_choices(known) if planned.lineage else self._dbt,
            shared.dbt_step(planned, self._dbt),
            compose_dbt.paths(chosen.dbt, None if step_service.mount is None else step_service.mount.target),
            environment,
            grace=self._fabric.dbt.grace,
            time_limit=self._fabric.time_limit,
            mask=self._mask,
        )

    def _ingester_command(self, planned: PlannedStep, service: ComposeService) -> tuple[str, ...] | str:
        """The command that arguments are added to, empty for the service's own; or why there is none."""
        configured, count = self._fabric.compose.ingester.command, len(planned.arguments)
        argv = configured or (service.command or () if count else ())
        entrypoint, key = service.entrypoint or (), f"fabrics.{self._fabric_name}.compose.ingester.command"
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

    def _default_variables(self, planned: PlannedStep) -> Mapping[str, str]:
        """Variables that the gateway sets where neither the configuration nor the service does."""
        return (
            ingester.DEFAULT_VARIABLES
            if planned.name is StepName.INGESTER
            else compose_dbt.variables(lineage=planned.lineage)
        )

    def _whole_environment(self, planned: PlannedStep) -> Mapping[str, str]:
        defaults = {
            name: value
            for name, value in self._default_variables(planned).items()
            if name not in self._configured_variables()
        }
        # empty, dbt takes them for unset
        ignored = dict.fromkeys(dbt_variables.SELECTION_VARIABLES, "") if planned.selective else {}
        return {**self._environment, **defaults, **ignored, "COMPOSE_IGNORE_ORPHANS": "true"}

    def _configured_variables(self) -> frozenset[str]:
        """The names of the variables that the configuration sets for containers."""
        return frozenset(self._fabric.environment) | frozenset(self.compose.variables)

    def _known_variables(self, service: ComposeService) -> Mapping[str, str]:
        """The variables of a container of a service, without the gateway's defaults."""
        configured = self._configured_variables() & self._environment.keys()
        return {**service.environment, **{name: self._environment[name] for name in configured}}

    def _container_variables(self, planned: PlannedStep, service: ComposeService) -> list[str]:
        """The names of the variables that the container gets besides those of its service."""
        known = frozenset(service.environment) | self._configured_variables()
        lineage_is_known = any(name.startswith(compose_dbt.LINEAGE_VARIABLES) for name in known)
        defaults = (
            name
            for name in self._default_variables(planned)
            if name not in known and not (lineage_is_known and name.startswith(compose_dbt.LINEAGE_VARIABLES))
        )
        ignored = dbt_variables.SELECTION_VARIABLES & known if planned.selective else frozenset()
        return [*defaults, *(self._configured_variables() | ignored)]

    async def _fetch(self, step: DbtStep, reader: dbt_output.DbtReader, folder: Path) -> None:
        """Copy results, lineage and report out of the ended container. Raises OSError, EngineUnreachableError."""
        state = await self.docker.inspect(container_name(folder))
        if state is None or state.started == 0:
            return
        self._mask = self._mask.with_secrets_of(state.environment)
        chosen = self._fabric.compose
        project = None
        if self.checkout is not None:
            project = step_services.dbt_folder(chosen, state.working_directory)
        target = compose_dbt.target(chosen.dbt, project)
        await compose_dbt.fetch(self.docker, state, target, step, reader, folder)


def _unavailable(unreachable: EngineUnreachableError) -> EngineError:
    return EngineError(explain(str(unreachable), "The container engine doesn't answer, so nothing was started"))
