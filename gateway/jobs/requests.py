"""The pipelines of projects: from what somebody asks for to what is recorded as a job."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from gateway.errors import BadRequestError, OverloadedError, RepositoryUnavailableError, UnknownTargetError
from gateway.fabrics.checkouts import Checkouts
from gateway.fabrics.fabric import Fabric
from gateway.fabrics.registry import FabricRegistry
from gateway.model import catalog
from gateway.model.catalog import Installation, Trigger
from gateway.model.job import RunnerName, SourceCommit
from gateway.model.plan import Plan, PlannedStep, StepName
from gateway.settings.project import PipelineSettings
from gateway.settings.settings import Settings
from runners import parameters
from runners.dbt import arguments as dbt_words
from runners.dbt.listing import Node
from runners.parameters import ParameterValue
from runners.words import WordError

_MOST_LOOKS = 10  # that run or wait
_REMEMBERED = 100  # answers of dbt's
_LOOKS = 2  # dbt projects that are looked into at a time: each takes a processor and some 200 MB
_LONGEST_LIST, _LONGEST_NAME = 500, 100  # characters that a refusal shows


@dataclass(frozen=True, slots=True)
class Run:
    """A request for a run of a project's pipeline; None for what was not given. fabric: its id."""

    fabric: str
    project: str
    pipeline: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    branch: str | None = None
    version: str | None = None
    process: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """All that a job is made of. The fields are those of a Job."""

    pipeline: str
    command: str | None
    project: str
    fabric: str
    runner: RunnerName
    plan: Plan
    source: SourceCommit | None = None
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    process: str | None = None


@dataclass(frozen=True, slots=True)
class PipelineInfo:
    """A pipeline that can be triggered by name. steps: without those that depend on what is installed."""

    project: str
    name: str
    fabrics: tuple[str, ...]
    steps: tuple[StepName, ...]
    settings: PipelineSettings


class Pipelines:
    """Knows the pipelines of the configuration, and what a run of one would be."""

    def __init__(self, settings: Settings, works: FabricRegistry, sources: Checkouts) -> None:
        self._settings = settings
        self._works = works
        self._sources = sources
        self._looks = asyncio.Semaphore(_LOOKS)
        self._looking = 0
        self._listed: dict[tuple[str, str, str, PlannedStep], list[Node]] = {}

    def all(self) -> Iterator[PipelineInfo]:
        """Every pipeline that can be triggered by name."""
        for project, chosen in self._settings.projects.items():
            for name, pipeline in chosen.pipelines.items():
                steps = catalog.steps_of(pipeline, self._settings.enable_elementary)
                yield PipelineInfo(project, name, self._settings.fabrics_of(project), steps, pipeline)

    def work(self, order: Order) -> Fabric:
        """The work of a job to be."""
        checkout = self._sources.checkout(order.fabric, order.source)
        return self._works.of(order.runner, order.fabric, order.project, checkout)

    async def default(self, trigger: Trigger) -> Order:
        """A job of the default project on the default fabric. Raises BadRequestError, RepositoryUnavailableError."""
        fabric, project = self._settings.default_fabric, self._settings.default_project
        source = await self._sources.resolve(project, None, None)
        defaults = self._settings.enable_openlineage, self._settings.enable_elementary
        seen = catalog.leaves_open(trigger, *defaults)
        installation = await self._installation(trigger, fabric, project, source, seen=seen)
        command = None if trigger.pipeline is catalog.Pipeline.INGESTER else str(trigger.command)
        plan = catalog.plan(trigger, installation)
        return Order(str(trigger.pipeline), command, project, fabric, self._runner(fabric), plan, source)

    async def named(self, run: Run) -> Order:
        """A job of a project's own pipeline.

        Raises UnknownTargetError, BadRequestError, EngineError, RepositoryUnavailableError, OverloadedError,
        StorageError.
        """
        pipeline = self._find(run)
        try:
            values = parameters.resolve_values(pipeline.declared(), run.parameters)
            if run.process is not None:
                dbt_words.select_up_to(run.process)  # a step's name is such a word too
            source = await self._sources.resolve(run.project, run.branch, run.version)
            trigger, seen = catalog.trigger_of(pipeline), pipeline.dbt is not None
            installation = await self._installation(trigger, run.fabric, run.project, source, seen=seen)
            whole = catalog.named_plan(pipeline, values, None, installation)
            plan = catalog.named_plan(pipeline, values, run.process, installation)
        except WordError as error:
            raise BadRequestError("invalid_field", str(error)) from None
        if run.process is not None and run.process not in [step.name for step in whole.steps]:
            await self._must_be_a_process(run, whole, source)
        runner = self._runner(run.fabric)
        return Order(run.pipeline, None, run.project, run.fabric, runner, plan, source, values, run.process)

    async def _installation(
        self, trigger: Trigger, fabric: str, project: str, source: SourceCommit | None, *, seen: bool
    ) -> Installation:
        """What a plan depends on. seen: what the commit has to do with it must be seen where it is checked out."""
        checkout, work = self._sources.checkout(fabric, source), self._work(fabric, project, source)
        if checkout is None or not seen:
            return await work.installation(trigger)
        found = await checkout.inspect(lambda: work.installation(trigger))
        if isinstance(found, str):
            raise RepositoryUnavailableError(found)
        return found

    def _find(self, run: Run) -> PipelineSettings:
        fabrics, projects = self._settings.fabrics, self._settings.projects
        if run.fabric not in fabrics:
            raise _unknown("fabric", "uid", run.fabric, fabrics)
        if run.project not in projects:
            raise _unknown("project", "uid", run.project, projects)
        if run.fabric not in self._settings.fabrics_of(run.project):
            known = ", ".join(self._settings.fabrics_of(run.project))
            raise UnknownTargetError(
                "unknown_project",
                f"Project with uid `{run.project}` not found on fabric `{run.fabric}`; it is on {known}.",
            )
        pipelines = projects[run.project].pipelines
        if run.pipeline not in pipelines:
            raise _unknown("pipeline", "name", run.pipeline, pipelines, f" in project `{run.project}`")
        return pipelines[run.pipeline]

    async def _must_be_a_process(self, run: Run, whole: Plan, source: SourceCommit | None) -> None:
        """What a run stops at is a model of the pipeline: known before anything runs. Raises BadRequestError."""
        assert run.process is not None, "there is one to look for"
        step = next((step for step in whole.steps if step.selective), None)
        nodes = [] if step is None else await self._nodes(run, step, source)
        if isinstance(nodes, str):
            raise BadRequestError(
                "unknown_process", f"Whether there is a process `{run.process}` can't be found out: {nodes}"
            )
        problem = catalog.process_problem(run.process, nodes, whole)
        if problem is not None:
            raise BadRequestError("unknown_process", problem)

    async def _nodes(self, run: Run, step: PlannedStep, source: SourceCommit | None) -> list[Node] | str:
        """What a step would run. A commit's answer is remembered, for it stays the same."""
        key = None if source is None else (run.fabric, run.project, source.commit, step)
        if key is not None and key in self._listed:
            return self._listed[key]
        if self._looking >= _MOST_LOOKS:
            raise OverloadedError("dbt is looking for the processes of other runs; try again in a few seconds.")
        self._looking += 1
        try:
            async with self._looks:
                found = await self._look(run, step, source)
        finally:
            self._looking -= 1
        if key is not None and not isinstance(found, str):
            self._listed[key] = found
            while len(self._listed) > _REMEMBERED:
                del self._listed[next(iter(self._listed))]
        return found

    async def _look(self, run: Run, step: PlannedStep, source: SourceCommit | None) -> list[Node] | str:
        checkout, work = self._sources.checkout(run.fabric, source), self._work(run.fabric, run.project, source)
        return await work.nodes(step) if checkout is None else await checkout.inspect(lambda: work.nodes(step))

    def _work(self, fabric: str, project: str, source: SourceCommit | None) -> Fabric:
        checkout = self._sources.checkout(fabric, source)
        return self._works.of(self._runner(fabric), fabric, project, checkout)

    def _runner(self, fabric: str) -> RunnerName:
        return RunnerName(self._settings.fabrics[fabric].runner)


def _unknown(what: str, key: str, value: str, known: Iterable[str], where: str = "") -> UnknownTargetError:
    there = ", ".join(known) or "none"
    there = there if len(there) <= _LONGEST_LIST else f"{there[:_LONGEST_LIST]}…"
    shown = ascii(value[:_LONGEST_NAME])[1:-1]
    message = f"{what.capitalize()} with {key} `{shown}` not found{where}; there are: {there}."
    return UnknownTargetError(f"unknown_{what}", message)
