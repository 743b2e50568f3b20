"""What can be triggered: a request and what is installed become a plan. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from gateway.model.plan import Plan, PlannedStep, StepName
from gateway.settings.project import PipelineSettings
from runners import ingester
from runners.dbt import arguments as dbt_words
from runners.dbt.listing import Node
from runners.parameters import ParameterValue

_MODELS_OR_TESTS_FAILED = 1  # dbt's exit code; 2 is dbt's own failure
_ANY_CODE = 255
_RUN, _BUILT = ("model",), ("model", "seed", "snapshot")  # kinds of nodes that `dbt run` and `dbt build` make
_SHOWN = 20  # names that a refusal shows
_INGESTER_IS_FIXED = (
    "The ingester is what its service has: the commit has no part in it, without compose.ingester.project."
)


class Pipeline(StrEnum):
    """What the data-analytics API triggers."""

    INGESTER = "ingester"
    DBT = "dbt"
    FULL = "full"


class DbtCommand(StrEnum):
    """What its dbt part does."""

    DAILY = "daily"
    RUN = "run"
    BUILD = "build"
    TEST = "test"
    DEPS = "deps"
    ELEMENTARY = "elementary"


_WITH_LINEAGE = (DbtCommand.DAILY, DbtCommand.RUN, DbtCommand.BUILD, DbtCommand.TEST)


@dataclass(frozen=True, slots=True)
class Trigger:
    """A request; None for a toggle that was not given."""

    pipeline: Pipeline
    command: DbtCommand = DbtCommand.DAILY
    openlineage: bool | None = None
    elementary: bool | None = None


@dataclass(frozen=True, slots=True)
class Installation:
    """What a plan depends on besides the request.

    openlineage, elementary: the server's defaults, None where unset.
    has_openlineage, has_elementary: dbt-ol was found; the project has the package.
    ingester_is_fixed: it is what its image has, whatever commit the job is of.
    needs_packages: the project declares some, and is in a checkout, where nobody has installed them.
    """

    openlineage: bool | None
    elementary: bool | None
    has_openlineage: bool
    has_elementary: bool
    ingester_resource: str
    dbt_resource: str
    ingester_may_fail: bool
    ingester_is_fixed: bool = False
    needs_packages: bool = False


def plan(trigger: Trigger, installation: Installation) -> Plan:
    """The steps in their order, what the job holds meanwhile, and a note for each thing that is off for lack of it."""
    ingester = PlannedStep(StepName.INGESTER, tolerates=_ANY_CODE if installation.ingester_may_fail else 0)
    fixed = (_INGESTER_IS_FIXED,) if installation.ingester_is_fixed else ()
    match trigger.pipeline:
        case Pipeline.INGESTER:
            return Plan((ingester,), (installation.ingester_resource,), fixed)
        case Pipeline.DBT:
            steps = _dbt_steps(trigger, installation)
            return Plan(steps, (installation.dbt_resource,), tuple(_notes(trigger, installation)))
        case Pipeline.FULL:
            resources = dict.fromkeys((installation.ingester_resource, installation.dbt_resource))
            steps = (ingester, *_dbt_steps(trigger, installation))
            return Plan(steps, tuple(resources), (*fixed, *_notes(trigger, installation)))


def named_plan(
    pipeline: PipelineSettings, values: Mapping[str, ParameterValue], process: str | None, installation: Installation
) -> Plan:
    """The plan of a project's own pipeline. values: of its parameters, by name.

    process: the step, or the model of its selection, that nothing is run beyond; None for all. Raises WordError.
    """
    trigger = trigger_of(pipeline)
    whole = _with_packages(plan(trigger, installation), installation)
    names = [step.name for step in whole.steps]
    if process is None:
        steps, model = whole.steps, None
    elif process in names:
        steps, model = whole.steps[: names.index(StepName(process)) + 1], None
    else:  # what stops on the way is nothing to report on
        stopping = plan(replace(trigger, elementary=False), installation)
        steps, model = _with_packages(stopping, installation).steps, process
    only_ingester = all(step.name is StepName.INGESTER for step in steps)
    resources = (installation.ingester_resource,) if only_ingester else whole.resources
    return replace(whole, steps=tuple(_fitted(step, pipeline, values, model) for step in steps), resources=resources)


def steps_of(pipeline: PipelineSettings, elementary: bool | None) -> tuple[StepName, ...]:
    """The steps of a project's own pipeline, by the server's default for Elementary alone."""
    installation = Installation(
        openlineage=None,
        elementary=elementary,
        has_openlineage=False,
        has_elementary=False,
        ingester_resource="",
        dbt_resource="",
        ingester_may_fail=False,
    )
    return tuple(step.name for step in plan(trigger_of(pipeline), installation).steps)


def _with_packages(whole: Plan, installation: Installation) -> Plan:
    """In a checkout, where nobody else installs packages, the plan does it before dbt needs them."""
    names = [step.name for step in whole.steps]
    first = next((n for n, name in enumerate(names) if name is not StepName.INGESTER), None)
    if not installation.needs_packages or first is None or StepName.DEPS in names:
        return whole
    return replace(whole, steps=(*whole.steps[:first], PlannedStep(StepName.DEPS), *whole.steps[first:]))


def process_problem(process: str, nodes: Sequence[Node], whole: Plan) -> str | None:
    """Why a run can't stop at a process that is no step; None if it can. nodes: all that the pipeline selects."""
    only_models = StepName.RUN in [step.name for step in whole.steps]
    models = [node.name for node in nodes if node.resource_type in (_RUN if only_models else _BUILT)]
    if process not in models:
        known = dict.fromkeys([*(step.name for step in whole.steps), *sorted(models)])
        shown = ", ".join(list(known)[:_SHOWN]) + (f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else "")
        return f"Process `{process}` not found: it must be a step or a model of the pipeline. There are: {shown}."
    # dbt takes a name for that of a folder or a package as well, and would run all that is in it
    beyond = next((node for node in nodes if process in node.fqn[:-1] and node.name != process), None)
    if beyond is not None:
        return (
            f"Process `{process}` is the name of a model and of a folder or package, in which {beyond.name} is too; "
            "dbt would not stop there: rename one of them."
        )
    return None


def trigger_of(pipeline: PipelineSettings) -> Trigger:
    """The trigger whose steps are those of a project's own pipeline."""
    if pipeline.dbt is None:
        return Trigger(Pipeline.INGESTER)
    return Trigger(Pipeline.FULL if pipeline.ingester else Pipeline.DBT, DbtCommand(pipeline.dbt.command))


def _fitted(
    step: PlannedStep, pipeline: PipelineSettings, values: Mapping[str, ParameterValue], model: str | None
) -> PlannedStep:
    """A step with what its pipeline, and the parameters of the run, add to it."""
    if step.name is StepName.INGESTER:
        options = pipeline.options()
        words = (ingester.argument(options[name], value) for name, value in values.items() if name in options)
        return replace(step, arguments=tuple(words))
    if step.name in (StepName.DEPS, StepName.ELEMENTARY):
        return replace(step, arguments=tuple(_variables(pipeline, values)))
    return replace(step, arguments=tuple(_dbt_arguments(pipeline, values, model)), selective=True)


def _dbt_arguments(
    pipeline: PipelineSettings, values: Mapping[str, ParameterValue], model: str | None
) -> Iterator[str]:
    chosen = pipeline.dbt
    if chosen is None:
        return
    if model is not None:
        yield dbt_words.select_within(model, chosen.select)
    elif chosen.select is not None:
        yield dbt_words.select(chosen.select)
    if model is not None or chosen.select is not None:
        yield dbt_words.ONLY_BUILDABLE_TESTS
    if chosen.exclude is not None:
        yield dbt_words.exclude(chosen.exclude)
    yield from _variables(pipeline, values)


def _variables(pipeline: PipelineSettings, values: Mapping[str, ParameterValue]) -> Iterator[str]:
    variables = {variable: values[name] for name, variable in pipeline.variables().items() if name in values}
    if variables:
        yield dbt_words.vars_argument(variables)


def leaves_open(trigger: Trigger, openlineage: bool | None, elementary: bool | None) -> bool:
    """Whether the plan depends on what is installed, with these defaults of the server's."""
    if trigger.pipeline is Pipeline.INGESTER:
        return False
    lineage_is_open = trigger.command in _WITH_LINEAGE and trigger.openlineage is None and openlineage is None
    elementary_is_open = trigger.command is DbtCommand.DAILY and trigger.elementary is None and elementary is None
    return lineage_is_open or elementary_is_open


def _dbt_steps(trigger: Trigger, installation: Installation) -> tuple[PlannedStep, ...]:
    lineage = _toggle(trigger.openlineage, installation.openlineage, installation.has_openlineage)
    if trigger.command in (DbtCommand.DEPS, DbtCommand.ELEMENTARY):
        return (PlannedStep(StepName(trigger.command)),)
    if trigger.command is not DbtCommand.DAILY:
        return (PlannedStep(StepName(trigger.command), lineage=lineage),)
    elementary = _toggle(trigger.elementary, installation.elementary, installation.has_elementary)
    build = PlannedStep(
        StepName.BUILD, lineage=lineage, without_elementary=elementary, tolerates=_MODELS_OR_TESTS_FAILED
    )
    last = (PlannedStep(StepName.ELEMENTARY),) if elementary else ()
    return (PlannedStep(StepName.DEPS), build, *last)


def _toggle(given: bool | None, default: bool | None, installed: bool) -> bool:
    if given is not None:
        return given
    return installed if default is None else default


def _notes(trigger: Trigger, installation: Installation) -> list[str]:
    notes = []
    if (
        trigger.command in _WITH_LINEAGE
        and trigger.openlineage is None
        and installation.openlineage is None
        and not installation.has_openlineage
    ):
        notes.append("OpenLineage is off: dbt-ol was not found.")
    if (
        trigger.command is DbtCommand.DAILY
        and trigger.elementary is None
        and installation.elementary is None
        and not installation.has_elementary
    ):
        notes.append("Elementary is off: the project does not have its package.")
    return notes
