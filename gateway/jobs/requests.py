"""From a request to a job: what is configured and installed turns a TriggerRequest into a Job with its Fabric."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from gateway.errors import (
    BadRequestError,
    OverloadedError,
    RepositoryUnavailableError,
    RetryRefusedError,
    UnknownTargetError,
)
from gateway.fabrics.fabric import Fabric
from gateway.fabrics.registry import FabricRegistry
from gateway.jobs.planned import PlannedJob
from gateway.model import catalog
from gateway.model.attempts import step_folder
from gateway.model.catalog import Installation, Models
from gateway.model.job import (
    Job,
    SourceCommit,
    TimeLimit,
)
from gateway.model.plan import PlannedStep, Retries, StepName
from gateway.model.request import BuiltinPipeline, TriggerRequest
from gateway.model.retry import failed_step, rest_of
from gateway.model.status import first_started
from gateway.settings.fabric import RetrySettings
from gateway.settings.project import PipelineDbtSettings, PipelineSettings
from gateway.settings.settings import Settings
from runners import parameters
from runners.dbt import arguments as dbt_arguments
from runners.dbt.listing import Node
from runners.parameters import WordError

_MAX_LISTINGS = 10  # calls of `dbt ls` that run or wait
_CONCURRENT_LISTINGS = 2  # each takes a processor and some 200 MB
_MAX_CACHED_LISTINGS = 100
_MAX_LIST_SHOWN, _MAX_NAME_SHOWN = 500, 100  # characters in the message of a refusal
_EVERYTHING = PipelineSettings(ingester=True, dbt=PipelineDbtSettings())  # a built-in pipeline selects nothing less


@dataclass(frozen=True, slots=True)
class PipelineInfo:
    """A pipeline that can be triggered by name, declared or built in.

    steps: without those that depend on what is installed.
    """

    project: str
    name: str
    fabrics: tuple[str, ...]
    steps: tuple[StepName, ...]
    settings: PipelineSettings


class RequestPlanner:
    """Plans requests. It keeps the listings of dbt, since a commit's listing never changes."""

    def __init__(self, settings: Settings, registry: FabricRegistry) -> None:
        self._settings = settings
        self._registry = registry
        self._listing_slots = asyncio.Semaphore(_CONCURRENT_LISTINGS)
        self._listings_open = 0
        self._listings: dict[tuple[str, str, str, PlannedStep], list[Node]] = {}

    def pipelines(self) -> Iterator[PipelineInfo]:
        """What projects declare, then the built-in pipelines of each project that declares none of that name."""
        elementary = self._settings.enable_elementary
        for project, settings in self._settings.projects.items():
            for name, pipeline in settings.pipelines.items():
                steps = catalog.step_names(catalog.builtin_request(pipeline), elementary)
                yield PipelineInfo(project, name, self._settings.fabrics_of(project), steps, pipeline)
        for project in self._settings.projects:
            for builtin in self._undeclared(project):
                steps = catalog.step_names(TriggerRequest(builtin), elementary)
                yield PipelineInfo(project, str(builtin), self._settings.fabrics_of(project), steps, _EVERYTHING)

    def pipeline(self, project: str, name: str) -> PipelineInfo:
        """The pipeline of this name. Raises UnknownTargetError."""
        if project not in self._settings.projects:
            raise _unknown("project", "uid", project, self._settings.projects)
        known = {info.name: info for info in self.pipelines() if info.project == project}
        if name not in known:
            raise _unknown("pipeline", "name", name, known, f" in project `{project}`")
        return known[name]

    async def plan(self, request: TriggerRequest) -> PlannedJob:
        """The job of a request, on its fabric.

        Raises UnknownTargetError, BadRequestError, EngineError, RepositoryUnavailableError, OverloadedError,
        StorageError.
        """
        fabric_id, project, declared = self._find(request)
        pipeline = declared or _EVERYTHING
        builtin = request if declared is None else catalog.builtin_request(declared)
        limit = _time_limit(request, pipeline)
        try:
            values = parameters.resolve_values(pipeline.declared(), request.parameters)
            if request.process is not None:
                dbt_arguments.check_model(request.process)
            source = await self._registry.checkouts.resolve(project, request.branch, request.version)
            fabric = self._fabric(fabric_id, project, source)
            needs_checkout = builtin.pipeline != BuiltinPipeline.INGESTER
            installation = await _installation(builtin, fabric, needs_checkout=needs_checkout)
            command = str(builtin.dbt_command) if declared is None and needs_checkout else None
            if declared is None and request.process is None:
                whole = catalog.plan(builtin, installation)
                planned = PlannedJob(request, whole, project, fabric_id, fabric, source, command, built_in=True)
                return self._with_retries(replace(planned, time_limit=limit), pipeline)
            whole = catalog.declared_plan(pipeline, values, None, installation, builtin)
            built_in = declared is None
            planned = PlannedJob(request, whole, project, fabric_id, fabric, source, command, values, built_in)
            planned = replace(planned, time_limit=limit)
            if request.process is not None:
                stop = await self._stop(request.process, planned)
                plan = catalog.declared_plan(pipeline, values, stop, installation, builtin)
                planned = replace(planned, plan=plan)
        except WordError as error:
            raise BadRequestError("invalid_field", str(error)) from None
        await _must_reach_their_commands(planned)
        return self._with_retries(planned, pipeline)

    async def plan_rest(self, job: Job, request: TriggerRequest) -> PlannedJob:
        """The job of an ended job's failed step and of those after it. request: its own.

        Raises RetryRefusedError, RepositoryUnavailableError, EngineError.
        """
        first = failed_step(job)
        if isinstance(first, str):
            raise _no_rest(f"{first}.")
        try:
            _, _, declared = self._find(request)
        except UnknownTargetError as error:
            raise _no_rest(str(error)) from None
        if self._settings.fabrics[job.fabric].runner is not job.runner:
            raise _no_rest(f"The fabric {job.fabric} has another runner than {job.runner} by now.")
        pipeline, fabric = declared or _EVERYTHING, self._fabric(job.fabric, job.project, job.source)
        builtin = request if declared is None else catalog.builtin_request(declared)
        needs_checkout = any(step.name is not StepName.INGESTER for step in job.plan.steps[first:])
        installation = await _installation(builtin, fabric, needs_checkout=needs_checkout)
        plan, done = rest_of(job, first, needs_packages=installation.needs_packages)
        # what it holds is configured: it may have failed because of that
        resources = catalog.resources_of(plan.steps[len(done) :], pipeline, installation)
        return PlannedJob(
            request,
            replace(plan, resources=resources),
            job.project,
            job.fabric,
            fabric,
            job.source,
            job.command,
            job.parameters,
            built_in=isinstance(request.pipeline, BuiltinPipeline),
            time_limit=job.time_limit,
            retry_of=job.id,
            done=done,
            continues=f"{job.id}/{step_folder(job, first)}" if first_started(job.steps[first]) else None,
        )

    def _with_retries(self, planned: PlannedJob, pipeline: PipelineSettings) -> PlannedJob:
        """The job with the retries of its pipeline, else with those of its project's ingester and its fabric's dbt."""
        ingester, dbt = self._settings.projects[planned.project].ingester, self._settings.fabrics[planned.fabric_id].dbt
        of_ingester = pipeline.retries or (None if ingester is None else ingester.retries)
        of_dbt = pipeline.retries or dbt.retries
        plan = catalog.with_retries(planned.plan, _retries(of_ingester), _retries(of_dbt))
        return replace(planned, plan=plan)

    def _undeclared(self, project: str) -> list[BuiltinPipeline]:
        """The built-in pipelines whose names a project does not give to pipelines of its own."""
        return [builtin for builtin in BuiltinPipeline if builtin not in self._settings.projects[project].pipelines]

    def _fabric(self, fabric: str, project: str, source: SourceCommit | None) -> Fabric:
        return self._registry.get(self._settings.fabrics[fabric].runner, fabric, project, source)

    def _find(self, request: TriggerRequest) -> tuple[str, str, PipelineSettings | None]:
        """The ids of fabric and project, and the pipeline, None for a built-in one.

        Raises UnknownTargetError, BadRequestError.
        """
        fabrics, projects = self._settings.fabrics, self._settings.projects
        fabric = self._settings.default_fabric if request.fabric is None else request.fabric
        project = self._settings.default_project if request.project is None else request.project
        if fabric not in fabrics:
            raise _unknown("fabric", "uid", fabric, fabrics)
        if project not in projects:
            raise _unknown("project", "uid", project, projects)
        if fabric not in self._settings.fabrics_of(project):
            known = ", ".join(self._settings.fabrics_of(project))
            raise UnknownTargetError(
                "unknown_project", f"Project with uid `{project}` not found on fabric `{fabric}`; it is on {known}."
            )
        pipelines, undeclared = projects[project].pipelines, self._undeclared(project)
        if isinstance(request.pipeline, BuiltinPipeline) or request.pipeline in undeclared:
            return fabric, project, None
        if request.pipeline not in pipelines:
            names = [*pipelines, *undeclared]
            raise _unknown("pipeline", "name", request.pipeline, names, f" in project `{project}`")
        _must_ask_for_nothing_builtin(request)
        return fabric, project, pipelines[request.pipeline]

    async def _stop(self, process: str, planned: PlannedJob) -> StepName | Models:
        """The step or the models that a process names, looked for before anything runs. Raises BadRequestError."""
        whole = planned.plan
        if process in [step.name for step in whole.steps]:
            return StepName(process)
        step = next((step for step in whole.steps if step.selective), None)
        nodes = [] if step is None else await self._nodes(process, planned, step)
        found = catalog.find_models(process, nodes, whole)
        if step is not None and len({node.fqn[0] for node in found}) > 1:
            # a model of the project itself comes before those of its packages, as for ref()
            own = await self._nodes(process, planned, _of_project(step))
            found = [node for node in found if node in own] or found
        stop = catalog.stop_at(process, found, nodes, whole)
        if isinstance(stop, str):
            raise BadRequestError("unknown_process", stop)
        return stop

    async def _nodes(self, process: str, planned: PlannedJob, step: PlannedStep) -> list[Node]:
        nodes = await self._list_nodes(planned, step)
        if isinstance(nodes, str):
            raise BadRequestError(
                "unknown_process", f"Whether there is a process `{process}` can't be found out: {nodes}"
            )
        return nodes

    async def _list_nodes(self, planned: PlannedJob, step: PlannedStep) -> list[Node] | str:
        """The nodes that a step would run, or why dbt can't list them."""
        fabric, source = planned.fabric, planned.source
        key = None if source is None else (planned.fabric_id, planned.project, source.commit, step)
        if key is not None and key in self._listings:
            return self._listings[key]
        if self._listings_open >= _MAX_LISTINGS:
            raise OverloadedError("dbt is looking for the processes of other runs; try again in a few seconds.")
        self._listings_open += 1
        try:
            async with self._listing_slots:
                checkout = fabric.checkout
                if checkout is None:
                    nodes = await fabric.list_nodes(step)
                else:
                    nodes = await checkout.inspect(lambda: fabric.list_nodes(step))
        finally:
            self._listings_open -= 1
        if key is not None and not isinstance(nodes, str):
            self._listings[key] = nodes
            while len(self._listings) > _MAX_CACHED_LISTINGS:
                del self._listings[next(iter(self._listings))]
        return nodes


def _no_rest(why: str) -> RetryRefusedError:
    remedy = 'Retry all of it, which may resolve another commit: {"from": "start"}.'
    return RetryRefusedError("nothing_to_retry", f"{why} {remedy}")


def _retries(given: RetrySettings | None) -> Retries | None:
    return None if given is None else Retries(given.attempts, given.wait, given.errors)


def _must_ask_for_nothing_builtin(request: TriggerRequest) -> None:
    """Refuse what only a built-in pipeline takes in the request of a declared one. Raises BadRequestError."""
    given = {
        "command": request.command,
        "enableOpenlineage": request.openlineage,
        "enableElementary": request.elementary,
    }
    for field_name, value in given.items():
        if value is not None:
            raise BadRequestError(
                "invalid_field",
                f"The field '{field_name}' is for the pipelines {', '.join(BuiltinPipeline)}; "
                f"`{request.pipeline}` declares its own in gateway.yaml: leave the field out.",
            )


def _time_limit(request: TriggerRequest, pipeline: PipelineSettings) -> TimeLimit | None:
    """The time limit of a request's job. Raises BadRequestError where that of its pipeline is lower."""
    asked, most = request.time_limit, pipeline.time_limit
    if asked is None:
        return None if most is None else TimeLimit(most, by_request=False)
    if most is not None and asked > most:
        raise BadRequestError(
            "invalid_field",
            f"The field 'timeoutSeconds' is {asked:g}, but the pipeline `{request.pipeline}` has a time_limit of "
            f'{most:g} s in gateway.yaml: it must be at most that, such as "timeoutSeconds": {most:g}.',
        )
    return TimeLimit(asked, by_request=True)


def _of_project(step: PlannedStep) -> PlannedStep:
    """The step with all nodes of the project itself and none of its packages."""
    variables = (argument for argument in step.arguments if dbt_arguments.are_variables(argument))
    return replace(step, arguments=(dbt_arguments.select("package:this"), *variables))


async def _installation(request: TriggerRequest, fabric: Fabric, *, needs_checkout: bool) -> Installation:
    """What the plan depends on. needs_checkout: the commit decides it, so its checkout is made first."""
    if fabric.checkout is None or not needs_checkout:
        return await fabric.installation(request)
    installation = await fabric.checkout.inspect(lambda: fabric.installation(request))
    if isinstance(installation, str):
        raise RepositoryUnavailableError(installation)
    return installation


def _unknown(kind: str, key: str, value: str, known: Iterable[str], where: str = "") -> UnknownTargetError:
    names = ", ".join(known) or "none"
    names = names if len(names) <= _MAX_LIST_SHOWN else f"{names[:_MAX_LIST_SHOWN]}…"
    shown = ascii(value[:_MAX_NAME_SHOWN])[1:-1]
    message = f"{kind.capitalize()} with {key} `{shown}` not found{where}; there are: {names}."
    return UnknownTargetError(f"unknown_{kind}", message)


async def _must_reach_their_commands(planned: PlannedJob) -> None:
    """Raises BadRequestError where a step's command would drop an argument."""
    for step in planned.plan.steps:
        lost = await planned.fabric.lost_arguments(step)
        if lost is not None:
            raise BadRequestError("invalid_field", planned.fabric.mask.text(lost))
