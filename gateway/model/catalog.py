"""From a request to a plan: which steps a pipeline has, given what is installed. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.model.plan import Plan, PlannedStep, Retries, StepName
from gateway.model.request import BuiltinPipeline, DbtCommand, TriggerRequest
from gateway.settings.project import PipelineSettings
from runners import ingester
from runners.dbt import arguments as dbt_arguments
from runners.dbt import listing
from runners.dbt.listing import Node
from runners.parameters import ParameterValue

_MODELS_OR_TESTS_FAILED = 1  # dbt's exit code; 2 is a failure of dbt itself
_ANY_CODE = 255
_RUN_TYPES, _BUILD_TYPES = ("model",), ("model", "seed", "snapshot")  # resource types that `dbt run`, `dbt build` make
_MAX_NAMES_SHOWN = 20  # in the message of a refusal
_INGESTER_IS_FIXED = (
    "The ingester is what its service has: the commit has no part in it, without compose.ingester.project."
)
_DEPS_FIRST = "The step deps comes first: the checkout of this commit does not have the packages of its project yet."
_LINEAGE_COMMANDS = (DbtCommand.DAILY, DbtCommand.RUN, DbtCommand.BUILD, DbtCommand.TEST)


@dataclass(frozen=True, slots=True)
class Installation:
    """What a plan depends on besides the request.

    openlineage, elementary: the server's defaults, None where unset.
    lineage_problem: why steps can't run through dbt-ol, None if they can. has_elementary: the project has the package.
    ingester_is_fixed: the ingester comes from its image, whatever commit the job runs on.
    needs_packages: the project is a checkout that does not have the packages yet which it declares.
    why_no_elementary: where it has none. notes: what the record says of dbt's steps; lineage_notes: of lineage.
    """

    openlineage: bool | None
    elementary: bool | None
    lineage_problem: str | None
    has_elementary: bool
    ingester_resource: str
    dbt_resource: str
    ingester_may_fail: bool
    ingester_is_fixed: bool = False
    needs_packages: bool = False
    why_no_elementary: str = "the project does not have its package"
    notes: tuple[str, ...] = ()
    lineage_notes: tuple[str, ...] = ()


def plan(request: TriggerRequest, installation: Installation) -> Plan:
    """The plan of a built-in pipeline, with a note for each default that is off because its tool is missing."""
    ingester_step = PlannedStep(StepName.INGESTER, tolerates=_ANY_CODE if installation.ingester_may_fail else 0)
    fixed = (_INGESTER_IS_FIXED,) if installation.ingester_is_fixed else ()
    match BuiltinPipeline(request.pipeline):
        case BuiltinPipeline.INGESTER:
            return Plan((ingester_step,), (installation.ingester_resource,), fixed)
        case BuiltinPipeline.DBT:
            steps = _dbt_steps(request, installation)
            notes = tuple(_notes(request, steps, installation))
            return _with_deps(Plan(steps, (installation.dbt_resource,), notes), installation)
        case BuiltinPipeline.FULL:
            resources = dict.fromkeys((installation.ingester_resource, installation.dbt_resource))
            steps = (ingester_step, *_dbt_steps(request, installation))
            notes = (*fixed, *_notes(request, steps, installation))
            return _with_deps(Plan(steps, tuple(resources), notes), installation)


@dataclass(frozen=True, slots=True)
class Models:
    """The models at which a run stops. words: each selects one of them and no other node. notes: for the record."""

    words: tuple[str, ...]
    notes: tuple[str, ...] = ()


def declared_plan(
    pipeline: PipelineSettings,
    values: Mapping[str, ParameterValue],
    stop: StepName | Models | None,
    installation: Installation,
    builtin: TriggerRequest | None = None,
) -> Plan:
    """The plan of a pipeline that a project declares, or of a built-in one that stops on the way.

    values: of its parameters, by name. stop: the step, or the models of its selection, after which the run stops;
    None for the whole pipeline. builtin: the request of a built-in one, which has its steps. Raises WordError.
    """
    builtin = builtin or builtin_request(pipeline)
    own = pipeline.resources
    installation = replace(
        installation,
        ingester_resource=own.ingester or installation.ingester_resource,
        dbt_resource=own.dbt or installation.dbt_resource,
    )
    whole = plan(builtin, installation)
    steps, notes, models = whole.steps, whole.notes, None
    match stop:
        case None:
            pass
        case StepName():
            steps = whole.steps[: [step.name for step in whole.steps].index(stop) + 1]
            notes = notes if stop is not StepName.INGESTER else tuple(note for note in notes if note != _DEPS_FIRST)
        case Models():  # Elementary reports on a whole build, so a run that stops at a model goes without it
            stopping = plan(replace(builtin, elementary=False), installation)
            steps, models, notes = stopping.steps, stop, (*notes, *stop.notes)
    resources = resources_of(steps, pipeline, installation)
    steps = tuple(_with_arguments(step, pipeline, values, models) for step in steps)
    return Plan(steps, resources, notes)


def resources_of(
    steps: Iterable[PlannedStep], pipeline: PipelineSettings, installation: Installation
) -> tuple[str, ...]:
    """What a pipeline holds while these steps run."""
    own, names = pipeline.resources, {step.name for step in steps}
    needed = [own.ingester or installation.ingester_resource] if StepName.INGESTER in names else []
    if names - {StepName.INGESTER}:
        needed.append(own.dbt or installation.dbt_resource)
    return tuple(dict.fromkeys(needed))


def with_retries(whole: Plan, ingester: Retries | None, dbt: Retries | None) -> Plan:
    """The plan with what says when its steps are tried again."""
    steps = (replace(step, retries=ingester if step.name is StepName.INGESTER else dbt) for step in whole.steps)
    return replace(whole, steps=tuple(steps))


def step_names(builtin: TriggerRequest, elementary: bool | None) -> tuple[StepName, ...]:
    """The steps of a built-in pipeline, by the server's default for Elementary alone."""
    installation = Installation(
        openlineage=None,
        elementary=elementary,
        lineage_problem=None,
        has_elementary=False,
        ingester_resource="",
        dbt_resource="",
        ingester_may_fail=False,
    )
    return tuple(step.name for step in plan(builtin, installation).steps)


def find_models(process: str, nodes: Sequence[Node], whole: Plan) -> list[Node]:
    """The models of this name that a plan builds, in all packages: of several versions all, unless one is named.

    nodes: all that the pipeline selects.
    """
    models, name = _models(nodes, whole), unicodedata.normalize("NFC", process)

    def called(words: Callable[[Node], tuple[str, ...]]) -> list[Node]:
        return [node for node in models if name in (unicodedata.normalize("NFC", word) for word in words(node))]

    return called(lambda node: node.words) or called(lambda node: (node.name,))


def stop_at(process: str, found: Sequence[Node], nodes: Sequence[Node], whole: Plan) -> Models | str:
    """The models at which a run stops, or why it can't stop there. found: those of the process."""
    if not found:
        known = list(dict.fromkeys([*(step.name for step in whole.steps), *sorted(_names(_models(nodes, whole)))]))
        more = f" and {len(known) - _MAX_NAMES_SHOWN} more" if len(known) > _MAX_NAMES_SHOWN else ""
        shown = ", ".join(known[:_MAX_NAMES_SHOWN]) + more
        return f"Process `{process}` not found: it must be a step or a model of the pipeline. There are: {shown}."
    packages = sorted({node.fqn[0] for node in found})
    if len(packages) > 1:
        return (
            f"Process `{process}` is a model of several packages ({', '.join(packages)}): select one in the pipeline."
        )
    words = [listing.word_for(node, nodes) for node in found]
    unique = tuple(word for word in words if word is not None)
    if len(unique) < len(words):
        return (
            f"Process `{process}` is the name of a model and of a folder or package, in which other nodes are too; "
            "dbt would not stop there: rename one of them."
        )
    if len(found) == 1:
        return Models(unique)
    note = f"{process} has several versions, and all of them are built: name one of {', '.join(_names(found))} for it."
    return Models(unique, (note,))


def _models(nodes: Sequence[Node], whole: Plan) -> list[Node]:
    """The nodes that a plan builds."""
    types = _RUN_TYPES if StepName.RUN in [step.name for step in whole.steps] else _BUILD_TYPES
    return [node for node in nodes if node.resource_type in types]


def _names(nodes: Sequence[Node]) -> list[str]:
    return [node.words[0] for node in nodes]


def builtin_request(pipeline: PipelineSettings) -> TriggerRequest:
    """The request of a built-in pipeline whose steps are those of a declared one."""
    if pipeline.dbt is None:
        return TriggerRequest(BuiltinPipeline.INGESTER)
    builtin = BuiltinPipeline.FULL if pipeline.ingester else BuiltinPipeline.DBT
    return TriggerRequest(builtin, DbtCommand(pipeline.dbt.command))


def depends_on_installation(request: TriggerRequest, openlineage: bool | None, elementary: bool | None) -> bool:
    """Whether the plan depends on what is installed, with these defaults of the server."""
    if request.pipeline == BuiltinPipeline.INGESTER:
        return False
    lineage_is_open = request.dbt_command in _LINEAGE_COMMANDS and request.openlineage is None and openlineage is None
    elementary_is_open = request.dbt_command is DbtCommand.DAILY and request.elementary is None and elementary is None
    return lineage_is_open or elementary_is_open


def _with_deps(whole: Plan, installation: Installation) -> Plan:
    """The plan of dbt with the step `deps` before the first dbt step, where a checkout lacks packages, and a note."""
    names = [step.name for step in whole.steps]
    if not installation.needs_packages or StepName.DEPS in names:
        return whole
    first = next(n for n, name in enumerate(names) if name is not StepName.INGESTER)
    steps = (*whole.steps[:first], PlannedStep(StepName.DEPS), *whole.steps[first:])
    return replace(whole, steps=steps, notes=(*whole.notes, _DEPS_FIRST))


def _with_arguments(
    step: PlannedStep, pipeline: PipelineSettings, values: Mapping[str, ParameterValue], models: Models | None
) -> PlannedStep:
    """A step with the arguments of its pipeline and of the run's parameters."""
    if step.name is StepName.INGESTER:
        options = pipeline.options()
        words = (ingester.argument(options[name], value) for name, value in values.items() if name in options)
        return replace(step, arguments=tuple(words))
    if step.name in (StepName.DEPS, StepName.ELEMENTARY):
        return replace(step, arguments=tuple(_variables(pipeline, values)))
    return replace(step, arguments=tuple(_dbt_arguments(step.name, pipeline, values, models)), selective=True)


def _dbt_arguments(
    step: StepName, pipeline: PipelineSettings, values: Mapping[str, ParameterValue], models: Models | None
) -> Iterator[str]:
    settings = pipeline.dbt
    if settings is None:
        return
    if models is not None:
        yield dbt_arguments.select_up_to(*models.words, within=settings.select)
    elif settings.select is not None:
        yield dbt_arguments.select(settings.select)
    if models is not None or settings.select is not None:
        yield dbt_arguments.ONLY_BUILDABLE_TESTS
    if settings.exclude is not None:
        yield dbt_arguments.exclude(settings.exclude)
    yield from _variables(pipeline, values)
    for name, flag in pipeline.flags().items():
        if values.get(name) is True and step in dbt_arguments.FLAG_COMMANDS[flag]:
            yield flag.value


def _variables(pipeline: PipelineSettings, values: Mapping[str, ParameterValue]) -> Iterator[str]:
    variables = {variable: values[name] for name, variable in pipeline.variables().items() if name in values}
    if variables:
        yield dbt_arguments.vars_argument(variables)


def _dbt_steps(request: TriggerRequest, installation: Installation) -> tuple[PlannedStep, ...]:
    lineage = _toggle(request.openlineage, installation.openlineage, installation.lineage_problem is None)
    if request.dbt_command in (DbtCommand.DEPS, DbtCommand.ELEMENTARY):
        return (PlannedStep(StepName(request.dbt_command)),)
    if request.dbt_command is not DbtCommand.DAILY:
        return (PlannedStep(StepName(request.dbt_command), lineage=lineage),)
    elementary = _toggle(request.elementary, installation.elementary, installation.has_elementary)
    build = PlannedStep(
        StepName.BUILD, lineage=lineage, without_elementary=elementary, tolerates=_MODELS_OR_TESTS_FAILED
    )
    last = (PlannedStep(StepName.ELEMENTARY),) if elementary else ()
    return (PlannedStep(StepName.DEPS), build, *last)


def _toggle(requested: bool | None, default: bool | None, installed: bool) -> bool:
    if requested is not None:
        return requested
    return installed if default is None else default


def _notes(request: TriggerRequest, steps: Sequence[PlannedStep], installation: Installation) -> list[str]:
    notes = [*installation.notes, *(installation.lineage_notes if any(step.lineage for step in steps) else ())]
    if (
        request.dbt_command in _LINEAGE_COMMANDS
        and request.openlineage is None
        and installation.openlineage is None
        and installation.lineage_problem is not None
    ):
        notes.append(f"OpenLineage is off: {installation.lineage_problem}.")
    if (
        request.dbt_command is DbtCommand.DAILY
        and request.elementary is None
        and installation.elementary is None
        and not installation.has_elementary
    ):
        notes.append(f"Elementary is off: {installation.why_no_elementary}.")
    return notes
