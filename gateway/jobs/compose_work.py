"""The work of a fabric whose steps run in the services of a compose project."""

from __future__ import annotations

import asyncio
import posixpath
import shlex
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from gateway.clock import Instant
from gateway.config import Settings
from gateway.errors import EngineError
from gateway.jobs import catalog, work
from gateway.jobs.catalog import Installation, Trigger
from gateway.jobs.compose_services import ComposeServices, compose
from gateway.jobs.job import Finished, Plan, PlannedStep, RunnerName, StepName
from gateway.jobs.work import Seen, nobody
from runners import compose_project, dbt, dbt_output, ingester
from runners.compose import is_decided
from runners.compose_project import Service
from runners.container_identity import container_name
from runners.dbt import DbtStep, Paths
from runners.docker import Docker, EngineSilentError
from runners.docker_words import explain
from runners.mask import Mask
from runners.report import Reader
from runners.runner import Liveness
from runners.step import Command, Outcome

# What a container has only for the gateway to fetch; each step has a container of its own.
_LINEAGE = "/tmp/pipeline-gateway-lineage.ndjson"  # noqa: S108, no file of this host
_REPORT = "/tmp/pipeline-gateway-report.html"  # noqa: S108, no file of this host
_EDR = "/tmp/pipeline-gateway-edr"  # noqa: S108, no folder of this host
# A service that sets one of these has said where its lineage goes.
_LINEAGE_VARIABLES = ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG", "OPENLINEAGE__TRANSPORT", "OPENLINEAGE_DISABLED")
_PATIENCE, _AGAIN = 30.0, 1.0  # seconds that a silent engine is waited for, and until it is asked again
_SILENT = "The container engine doesn't answer"
_HAS_OPENLINEAGE, _HAS_ELEMENTARY, _LOOKED = "openlineage", "elementary", "looked"
_ELEMENTARY_PACKAGE = (
    r"(package|git|tarball|local|name):.*[/ \"](elementary|dbt-data-reliability)(\.git)?/?\"?[[:space:]]*(#.*)?$"
)

T = TypeVar("T")


class ComposeWork:
    """Knows what each step runs in the services of a compose project, and what it should leave behind: see Work."""

    def __init__(self, settings: Settings, fabric: str, environment: Mapping[str, str], instance: str) -> None:
        """environment: of the gateway. instance: the gateway's own id, which its containers carry."""
        self._settings = settings
        self._fabric_name = fabric
        # a job that outlived its fabric in the configuration is followed to its end all the same
        self._fabric, self._gone = work.fabric(settings, fabric, RunnerName.COMPOSE)
        self._environment = work.environment(self._fabric, environment)
        self.compose = compose(self._fabric, instance)
        self._mask = settings.mask(environment)
        self.docker = Docker(self.compose.docker, self._environment, self._mask)
        self.services = ComposeServices(self.compose, self.docker)
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
                found = await self.service(StepName.BUILD)
                has = None if isinstance(found, str) else await self._look(found)
            except EngineSilentError as silence:
                raise _unavailable(silence) from None
        return work.installation(
            self._settings,
            self._fabric_name,
            has_openlineage=_HAS_OPENLINEAGE in (has or ()),
            has_elementary=_HAS_ELEMENTARY in (has or ()),
        )

    async def lacks(self) -> str | None:
        """Whether docker's command line is missing; what is in the images only the engine could tell."""
        if await asyncio.to_thread(shutil.which, "docker", path=self._environment.get("PATH")) is None:
            return "The program docker was not found on PATH: install Docker's command line and its Compose v2 plugin."
        return None

    async def occupied(self, plan: Plan) -> work.Occupied | None:
        """A container of the services that the plan uses, started by somebody else. Raises EngineError."""
        chosen = self._fabric.compose
        services = {}
        for planned in plan.steps:
            section = chosen.ingester if planned.name is StepName.INGESTER else chosen.dbt
            services[section.service] = section.idle
        try:
            project = await self.services.project()
            if isinstance(project, str):
                return None  # the job will say so; and what has no project has no containers of it
            found = await compose_project.stranger(project, services.items(), self.compose, self.docker)
        except EngineSilentError as silence:
            raise _unavailable(silence) from None
        if found is None:
            return None
        section_name = "ingester" if found.service == chosen.ingester.service else "dbt"
        return work.Occupied(
            found.container,
            found.service,
            found.since,
            f"wait for its end or stop it; if it is an `up` container that only idles, set "
            f"`fabrics.{self._fabric_name}.compose.{section_name}.idle: true`",
        )

    async def problem(self, planned: PlannedStep, seen: Seen = nobody) -> str | None:
        """Why a step could not start, in a sentence that says what to do."""
        elementary = planned.name is StepName.ELEMENTARY or planned.without_elementary
        try:
            found = await _patiently(lambda: self.service(planned.name), seen)
            if isinstance(found, str):
                return found
            has = await _patiently(lambda: self._look(found), seen) if planned.lineage or elementary else None
        except EngineSilentError as silence:
            return explain(str(silence), _SILENT)
        if has is None:
            return None
        if planned.lineage and _HAS_OPENLINEAGE not in has:
            return (
                f"OpenLineage is wanted, but the program {self._dbt.lineage_executable} was not found in the service "
                f"{found.name}: install openlineage-dbt in its image, or leave OpenLineage off."
            )
        if elementary and _HAS_ELEMENTARY not in has:
            return (
                f"Elementary is wanted, but the dbt project in the service {found.name} does not have its package: "
                "add elementary-data/elementary to packages.yml, or leave Elementary off."
            )
        return None

    async def command(self, planned: PlannedStep, folder: Path, seen: Seen = nobody) -> Command | str:
        """What the step runs, or why it can't. Raises OSError where the disk keeps it from being prepared."""
        if await asyncio.to_thread(is_decided, folder):
            # an earlier gateway has asked compose file and engine, and only the values of variables are still wanted
            environment = self._whole_environment(planned)
            return Command((), "", environment, docker=self.compose.docker, mask=self._mask)
        if self._gone:
            return work.gone(self._fabric_name)
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        try:
            found = await _patiently(lambda: self.service(planned.name), seen)
        except EngineSilentError as silence:
            return explain(str(silence), _SILENT)
        if isinstance(found, str):
            return found
        names = self._handed_on(planned, found)
        return compose_project.run(self.compose, found, self._what(planned), names, folder)

    async def conclude(
        self, planned: PlannedStep, started: Instant, outcome: Outcome, reader: Reader, folder: Path
    ) -> Finished:
        """What the end of the step means. Raises OSError where the disk can't be looked at now."""
        if not isinstance(reader, dbt_output.DbtReader):
            return work.ingester_finished(planned, started, outcome, reader)
        step = work.dbt_step(planned, self._dbt)
        await self._fetch(step, reader, folder)
        # Where the results can't be fetched, the log tells the same.
        left = await asyncio.to_thread(dbt_output.results, folder, self._mask) or reader.results
        outcome = dbt_output.judge(outcome, step, reader, left, reported=dbt.report(folder).exists())
        return work.dbt_finished(planned, started, outcome, reader, left)

    async def service(self, step: StepName) -> Service | str:
        """The service of a step, or what is wrong with it. Raises EngineSilentError."""
        missing = [name for name in self.compose.variables if name not in self._environment]
        if missing:
            return (
                f"The variable {missing[0]} of `fabrics.{self._fabric_name}.compose.environment` is not set where the "
                "gateway runs: set it, or take it off that list, then trigger it again."
            )
        chosen = self._fabric.compose
        name = chosen.ingester.service if step is StepName.INGESTER else chosen.dbt.service
        found = await self.services.find(name)
        if not isinstance(found, str):
            self._mask = self._mask.knowing(found.environment)
        return found

    async def _look(self, service: Service) -> frozenset[str] | None:
        """What the dbt service has; None where no shell could look. Raises EngineSilentError."""
        script = (
            f"command -v {shlex.quote(self._dbt.lineage_executable)} >/dev/null && echo {_HAS_OPENLINEAGE}; "
            f"if [ -f dbt_packages/elementary/dbt_project.yml ] || "
            f"grep -Eqs '{_ELEMENTARY_PACKAGE}' packages.yml dependencies.yml; then echo {_HAS_ELEMENTARY}; fi; "
            f"echo {_LOOKED}"
        )
        found = await self.services.look(service, script, self._fabric.compose.dbt.working_directory or "")
        return frozenset(found.split()) if _LOOKED in found.split() else None

    def _what(self, planned: PlannedStep) -> Command:
        """What the step runs, as its container sees it, with the whole environment of the docker command line."""
        chosen, environment = self._fabric.compose, self._whole_environment(planned)
        if planned.name is StepName.INGESTER:
            settings = chosen.ingester
            return ingester.command(
                ingester.Ingester(settings.command, settings.working_directory or ""),
                environment,
                grace=settings.grace,
                time_limit=self._fabric.time_limit,
                mask=self._mask,
            )
        paths = Paths(
            cwd=chosen.dbt.working_directory or "",
            project=None,
            profiles=chosen.dbt.profiles_directory,
            target=chosen.dbt.target_path,
            logs=None,
            parse=None,
            report=_REPORT,
            edr=_EDR,
        )
        return dbt.command(
            self._dbt,
            work.dbt_step(planned, self._dbt),
            paths,
            environment,
            grace=self._fabric.dbt.grace,
            time_limit=self._fabric.time_limit,
            mask=self._mask,
        )

    def _ours(self, planned: PlannedStep) -> Mapping[str, str]:
        """What the step finds in its environment unless somebody sets it otherwise."""
        if planned.name is StepName.INGESTER:
            return ingester.VARIABLES
        lineage = {"TQDM_DISABLE": "1", **dbt.lineage_variables(_LINEAGE)} if planned.lineage else {}
        return {**dbt.VARIABLES, **lineage}

    def _whole_environment(self, planned: PlannedStep) -> Mapping[str, str]:
        ours = {name: value for name, value in self._ours(planned).items() if name not in self._set_by_us()}
        return {**self._environment, **ours, "COMPOSE_IGNORE_ORPHANS": "true"}

    def _set_by_us(self) -> frozenset[str]:
        """The variables that the configuration sets for containers."""
        return frozenset(self._fabric.environment) | frozenset(self.compose.variables)

    def _handed_on(self, planned: PlannedStep, service: Service) -> list[str]:
        """The names of the variables that the container gets besides those of its service."""
        known = frozenset(service.environment) | self._set_by_us()
        lineage_is_known = any(name.startswith(_LINEAGE_VARIABLES) for name in known)
        ours = (
            name
            for name in self._ours(planned)
            if name not in known and not (lineage_is_known and name.startswith(_LINEAGE_VARIABLES))
        )
        return [*ours, *self._set_by_us()]

    async def _fetch(self, step: DbtStep, reader: dbt_output.DbtReader, folder: Path) -> None:
        """Take from the ended container what tells of the run, unless it is of an earlier one. Raises OSError."""
        name = container_name(folder)
        try:
            state = await self.docker.inspect(name)
            if state is None or state.started == 0:
                return
            self._mask = self._mask.knowing(state.environment)
            target = posixpath.join(state.working_directory, self._fabric.compose.dbt.target_path or "target")
            results = await self.docker.file(name, posixpath.join(target, "run_results.json"))
            lineage = await self.docker.file(name, _LINEAGE) if step.lineage else None
            report = await self.docker.file(container_name(folder, 1), _REPORT) if step.report else None
        except EngineSilentError:
            return
        if results is not None and dbt_output.is_of(results, reader.invocation):
            await asyncio.to_thread(_write, dbt.target(folder) / "run_results.json", results)
        for file, content in ((dbt.lineage(folder), lineage), (dbt.report(folder), report)):
            if content is not None:
                await asyncio.to_thread(_write, file, content)


async def _patiently(ask: Callable[[], Awaitable[T]], seen: Seen) -> T:
    """The answer of an engine that may be starting again. Raises EngineSilentError once that takes too long."""
    limit = time.monotonic() + _PATIENCE
    while True:
        try:
            return await ask()
        except EngineSilentError:
            if time.monotonic() > limit:
                raise
        seen(Liveness.UNREACHABLE)
        await asyncio.sleep(_AGAIN)


def _unavailable(silence: EngineSilentError) -> EngineError:
    return EngineError(explain(str(silence), "The container engine doesn't answer, so nothing was started"))


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
