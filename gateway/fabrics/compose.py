"""A fabric whose steps run in the services of a compose project."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from gateway.clock import Instant
from gateway.errors import EngineError
from gateway.fabrics import compose_dbt, compose_look, compose_retry, step_services
from gateway.fabrics import fabric as shared
from gateway.fabrics.checkouts import Checkout
from gateway.fabrics.compose_look import Look
from gateway.fabrics.compose_services import ComposeServices, ask_patiently
from gateway.fabrics.compose_variables import ContainerVariables
from gateway.fabrics.fabric import OnLiveness, ignore_liveness
from gateway.fabrics.step_services import StepService, StepServices
from gateway.model import catalog
from gateway.model.catalog import Installation
from gateway.model.job import Finished
from gateway.model.plan import Plan, PlannedStep, StepName
from gateway.model.request import BuiltinPipeline, TriggerRequest
from gateway.settings.fabric import RunnerName
from gateway.settings.settings import Settings
from runners import ingester
from runners.containers import compose_project, one_off
from runners.containers.compose_project import ComposeService
from runners.containers.compose_runner import has_spec
from runners.containers.docker import Docker, EngineUnreachableError
from runners.containers.docker_errors import explain
from runners.containers.identity import container_name
from runners.dbt import command as dbt
from runners.dbt import elementary as dbt_elementary
from runners.dbt import listing
from runners.dbt import output as dbt_output
from runners.dbt import profile as dbt_profile
from runners.dbt import project as dbt_project
from runners.dbt.command import DbtConfig, DbtStep
from runners.dbt.listing import Found, Node
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
        self._configured = configured
        self._environment = shared.environment(self._fabric, environment)
        self._mask = settings.mask(environment)
        self.services = services
        self.compose, self.docker = services.compose, services.docker
        self._step_services = StepServices(
            services, fabric, self._fabric.compose, self._environment, configured, checkout
        )
        configured_names = frozenset(self._fabric.environment) | frozenset(self.compose.variables)
        self._variables = ContainerVariables(self._environment, configured_names)
        self._dbt = shared.dbt_config(self._fabric, Path(self._fabric.compose.dbt.working_directory or "."))

    @property
    def mask(self) -> Mask:
        """Hides the secrets of the configuration, of the gateway's environment, and of services and containers seen."""
        return self._mask

    async def installation(self, request: TriggerRequest) -> Installation:
        """What a plan depends on besides the request. Raises EngineError."""
        look, chosen = None, self._settings
        on_checkout = self.checkout is not None and request.pipeline != BuiltinPipeline.INGESTER
        if on_checkout or catalog.depends_on_installation(request, chosen.enable_openlineage, chosen.enable_elementary):
            look = await self.look()
        lost = None if look is None else look.throwaway_database()
        has_package = look is not None and look.has_package
        installed = shared.installation(
            self._settings,
            self._fabric_name,
            lineage_problem=f"{self._dbt.lineage_executable} was not found" if look is None else look.lineage_problem(),
            has_elementary=look is not None and look.has_package and look.no_edr() is None,
            ingester_is_fixed=self.checkout is not None and self._fabric.compose.ingester.project is None,
            needs_packages=await asyncio.to_thread(self._step_services.lacks_packages),
        )
        return replace(
            installed,
            why_no_elementary=f"{self._dbt.edr} was not found" if has_package else installed.why_no_elementary,
            notes=() if lost is None else (lost,),
        )

    async def ask_dbt(self, verb: str, _: Path, within: float) -> shared.DbtAnswer:
        """What `dbt parse` or `dbt debug` says of the project. within: seconds. Raises EngineError."""
        try:
            step_service = await self._step_service(StepName.BUILD)
            if isinstance(step_service, str):
                return shared.DbtAnswer(ProgramResult(None, b"", step_service, was_run=False), "")
            paths, mount = self._paths(step_service, separate=True), step_service.mount
            argv = dbt.examination(self._dbt, verb, paths)
            result = await self._ask(PlannedStep(StepName.BUILD), step_service, argv, paths.cwd, within)
        except EngineUnreachableError as unreachable:
            raise _unavailable(unreachable) from None
        line = dbt.examination(self._dbt, verb, replace(paths, target=None, logs=None))
        by_hand = one_off.by_hand(
            self.compose,
            step_service.service,
            line,
            paths.cwd,
            mount=None if mount is None else replace(mount, source=shared.folder_by_hand(self._configured)),
            names=self._variables.configured,
        )
        return shared.DbtAnswer(result, by_hand)

    async def faults(self) -> list[str]:
        """What a look into the service of dbt finds wrong, in sentences that say what to do. Raises EngineError."""
        look, wants_lineage = await self.look(), shared.wants_lineage(self._settings, self._fabric)
        return [] if look is None else list(look.faults(wants_lineage=wants_lineage))

    async def look(self) -> Look | None:
        """What is in the service of dbt; None where it has no shell, or can't be run at all. Raises EngineError."""
        try:
            step_service = await self._step_service(StepName.BUILD)
            return None if isinstance(step_service, str) else await self._look(step_service)
        except EngineUnreachableError as unreachable:
            raise _unavailable(unreachable) from None

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
            look = (
                await ask_patiently(lambda: self._look(step_service), on_liveness)
                if planned.lineage or elementary
                else None
            )
        except EngineUnreachableError as unreachable:
            return explain(str(unreachable), _NO_ANSWER)
        service = step_service.service.name
        if planned.name is StepName.INGESTER:
            argv = self._ingester_command(planned, step_service.service)
            return argv if isinstance(argv, str) else None
        if look is None:
            return None
        remedy = "install openlineage-dbt in its image beside the fabric's dbt, which must be named `dbt`"
        lineage_problem = look.lineage_problem(remedy) if planned.lineage else None
        if lineage_problem is not None:
            return f"OpenLineage is wanted, but in the service {service} {lineage_problem}, or leave OpenLineage off."
        if elementary and not look.has_package:
            return (
                f"Elementary is wanted, but the dbt project in the service {service} does not have its package: "
                "add elementary-data/elementary to packages.yml, or leave Elementary off."
            )
        return look.no_dbt() or (look.no_edr() if elementary else None)

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
            may_install = self.checkout is not None and self.checkout.is_free
            return await self._ask_dbt(planned, partial(listing.list_nodes, may_install=may_install), separate=True)
        except EngineUnreachableError as unreachable:
            raise _unavailable(unreachable) from None

    async def settle(self, planned: PlannedStep) -> tuple[PlannedStep, tuple[str, ...]]:
        """A step as it is to run now, by what its database has, with notes for the record."""
        if not planned.without_elementary or self._not_configured is not None:
            return planned, ()
        question, selective = dbt_elementary.missing_tables, replace(planned, selective=True)
        try:
            missing = await self._ask_dbt(selective, question, separate=False)
        except EngineUnreachableError as unreachable:
            missing = explain(str(unreachable), _NO_ANSWER)
        return shared.settled_elementary(planned, missing)

    async def resume(self, planned: PlannedStep, earlier: Path, folder: Path) -> tuple[str, ...]:
        """Prepare another attempt of a dbt step; notes about it."""
        why = await compose_retry.prepare(self.services, partial(self.service, planned.name), earlier, folder)
        return shared.resumed(planned, why)

    async def command(
        self, planned: PlannedStep, folder: Path, on_liveness: OnLiveness = ignore_liveness
    ) -> Command | str:
        """The command of a step, or why it has none. Raises OSError where the disk refuses the step's files."""
        if await asyncio.to_thread(has_spec, folder):
            # an earlier gateway has decided the command; only the values of variables are needed again
            environment = self._variables.for_docker(planned)
            limit = self._fabric.time_limit
            return Command((), "", environment, time_limit=limit, docker=self.compose.docker, mask=self._mask)
        if self._not_configured is not None:
            return self._not_configured
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        try:
            step_service = await ask_patiently(lambda: self._step_service(planned.name), on_liveness)
            if isinstance(step_service, str):
                return step_service
            config = await ask_patiently(lambda: self._config(planned, step_service), on_liveness)
        except EngineUnreachableError as unreachable:
            return explain(str(unreachable), _NO_ANSWER)
        mounted = replace(step_service, state=await asyncio.to_thread(compose_retry.state_mount, folder))
        command = self._container_command(planned, mounted, config)
        if isinstance(command, str):
            return command
        if planned.name not in (StepName.INGESTER, StepName.DEPS):
            await self._make_own_target(step_service)
        names = self._variables.names(planned, step_service.service)
        return compose_project.run_command(self.compose, step_service.service, command, names, folder, mounted.mounts)

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

    async def _look(self, step_service: StepService) -> Look | None:
        """What is in the dbt service, None where it has no shell. Raises EngineUnreachableError."""
        chosen, mount, service = self._fabric.compose.dbt, step_service.mount, step_service.service
        project = None if mount is None else mount.target
        script = compose_look.script(self._dbt, service, chosen.profiles_directory, project)
        names, known = self._variables.configured, self._variables.known(service)
        said = await self.services.look(service, script, chosen.working_directory or "", mount, names)
        return await asyncio.to_thread(compose_look.read, said, self._fabric_name, step_service, self._dbt, known)

    async def _config(self, planned: PlannedStep, step_service: StepService) -> DbtConfig:
        """How dbt is run; dbt-ol gets the profile and target that dbt takes. Raises EngineUnreachableError."""
        if not planned.lineage:
            return self._dbt
        known = self._variables.known(step_service.service)
        chosen = self._dbt.with_choices(known)
        look = await self._look(step_service) if chosen.target is None else None
        return chosen if look is None else dbt_profile.lineage_config(look.files, self._dbt, known)

    async def _make_own_target(self, step_service: StepService) -> None:
        if step_service.mount is not None:
            project, known = Path(step_service.mount.source), self._variables.known(step_service.service)
            await asyncio.to_thread(dbt_project.make_own_target, project, known)

    async def _ask_dbt(self, planned: PlannedStep, question: listing.Question[Found], *, separate: bool) -> Found | str:
        """What dbt answers to a question about a step, or why it can't be asked. Raises EngineUnreachableError.

        separate: as in compose_dbt.paths.
        """
        step_service = await self._step_service(planned.name)
        if isinstance(step_service, str):
            return step_service
        if not separate:
            await self._make_own_target(step_service)
        paths, unlined = self._paths(step_service, separate=separate), replace(planned, lineage=False)

        async def ask(argv: tuple[str, ...]) -> ProgramResult:
            return await self._ask(unlined, step_service, argv, paths.cwd, listing.TIMEOUT)

        return await question(self._dbt, shared.dbt_step(unlined, self._dbt), paths, ask, self._mask)

    async def _ask(
        self, planned: PlannedStep, step_service: StepService, argv: tuple[str, ...], cwd: str, within: float
    ) -> ProgramResult:
        """The result of a command line in the container of a step. Raises EngineUnreachableError."""
        service, mount = step_service.service, step_service.mount
        docker = Docker(self.compose.docker, self._variables.for_docker(planned), self._mask)
        names = self._variables.names(planned, service)
        return await one_off.run_program(
            self.compose, service, argv, cwd, docker, mount=mount, names=names, within=within
        )

    def _paths(self, step_service: StepService, *, separate: bool = False) -> dbt.DbtPaths:
        mount, state, chosen = step_service.mount, step_service.state, self._fabric.compose.dbt
        paths = compose_dbt.paths(chosen, None if mount is None else mount.target, separate=separate)
        return replace(paths, state=None if state is None else state.target)

    def _container_command(self, planned: PlannedStep, step_service: StepService, config: DbtConfig) -> Command | str:
        """The command as the container sees it, with the whole environment of the docker command line."""
        chosen, environment = self._fabric.compose, self._variables.for_docker(planned)
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
        known, paths = self._variables.known(step_service.service), self._paths(step_service)
        return dbt.command(
            config,
            shared.dbt_step(planned, self._dbt),
            compose_dbt.lineage_paths(paths, known) if planned.lineage else paths,
            environment,
            grace=self._fabric.dbt.grace,
            time_limit=self._fabric.time_limit,
            mask=self._mask,
        )

    def _ingester_command(self, planned: PlannedStep, service: ComposeService) -> tuple[str, ...] | str:
        configured = self._fabric.compose.ingester.command
        return step_services.ingester_command(service, configured, len(planned.arguments), self._fabric_name)

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
        await compose_dbt.fetch(self.docker, state, target, step, reader, folder, self._mask)


def _unavailable(unreachable: EngineUnreachableError) -> EngineError:
    return EngineError(explain(str(unreachable), "The container engine doesn't answer, so nothing was started"))
