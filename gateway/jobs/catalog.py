"""What can be triggered: a request and what is installed become a plan. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gateway.jobs.job import Plan, PlannedStep, StepName

_MODELS_OR_TESTS_FAILED = 1  # dbt's exit code; 2 is dbt's own failure
_ANY_CODE = 255


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
    """

    openlineage: bool | None
    elementary: bool | None
    has_openlineage: bool
    has_elementary: bool
    ingester_resource: str
    dbt_resource: str
    ingester_may_fail: bool


def plan(trigger: Trigger, installation: Installation) -> Plan:
    """The steps in their order, what the job holds meanwhile, and a note for each thing that is off for lack of it."""
    ingester = PlannedStep(StepName.INGESTER, tolerates=_ANY_CODE if installation.ingester_may_fail else 0)
    match trigger.pipeline:
        case Pipeline.INGESTER:
            return Plan((ingester,), (installation.ingester_resource,))
        case Pipeline.DBT:
            steps = _dbt_steps(trigger, installation)
            return Plan(steps, (installation.dbt_resource,), tuple(_notes(trigger, installation)))
        case Pipeline.FULL:
            resources = dict.fromkeys((installation.ingester_resource, installation.dbt_resource))
            steps = (ingester, *_dbt_steps(trigger, installation))
            return Plan(steps, tuple(resources), tuple(_notes(trigger, installation)))


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
