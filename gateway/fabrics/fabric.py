"""The work behind a plan: which command a step is in this configuration, and what its end means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from gateway import clock
from gateway.clock import Instant
from gateway.model.catalog import Installation, Trigger
from gateway.model.job import Finished, RunnerName
from gateway.model.plan import Plan, PlannedStep, StepName
from gateway.settings.fabric import FabricSettings
from gateway.settings.project import ProjectSettings
from gateway.settings.settings import Settings
from runners import ingester
from runners.dbt import output as dbt_output
from runners.dbt.command import DbtConfig, DbtStep
from runners.dbt.listing import Node
from runners.mask import Mask
from runners.outcome import Command, Exited, Lost, NotStarted, Outcome
from runners.report import Failure, OutputReader, one_line
from runners.runner import Liveness

OnLiveness = Callable[[Liveness], None]

# Systemd's words to the gateway itself; a step that heard them would speak in the gateway's name.
_NOT_FOR_STEPS = frozenset(
    {
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "LISTEN_PID",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "CREDENTIALS_DIRECTORY",
        "STATE_DIRECTORY",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
    }
)


@dataclass(frozen=True, slots=True)
class ContainerConflict:
    """What holds a plan up that is no job: a container that somebody else started. since: epoch seconds."""

    container: str
    service: str
    since: float
    remedy: str

    def __str__(self) -> str:
        return (
            f"The container {self.container} of the service {self.service} is running since "
            f"{clock.rfc3339(self.since)} and was not started by the gateway; {self.remedy}."
        )


def ignore_liveness(_: Liveness) -> None:
    """Is told how a step was found, and does nothing with it."""


class Fabric(Protocol):
    """Knows, for one project in one fabric, what each step runs and what it should leave behind."""

    @property
    def mask(self) -> Mask:
        """Hides what is secret there, as far as that is known by now."""
        ...

    async def installation(self, trigger: Trigger) -> Installation:
        """What a plan depends on besides the request. Raises EngineError where that can't be found out."""
        ...

    async def missing_program(self) -> str | None:
        """Which program that its steps need is not found, in a sentence that says what to do."""
        ...

    async def container_conflict(self, plan: Plan) -> ContainerConflict | None:
        """What else uses what the plan's steps use. Raises EngineError where that can't be found out."""
        ...

    async def problem(self, planned: PlannedStep, on_liveness: OnLiveness = ignore_liveness) -> str | None:
        """Why a step could not start, in a sentence that says what to do; None if nothing is known to be wrong.

        on_liveness: told while that can't be found out.
        """
        ...

    async def nodes(self, planned: PlannedStep) -> list[Node] | str:
        """What a dbt step would run, by dbt's own word; or why that can't be found out.

        Raises EngineError, StorageError.
        """
        ...

    async def command(
        self, planned: PlannedStep, folder: Path, on_liveness: OnLiveness = ignore_liveness
    ) -> Command | str:
        """What the step runs, with `folder` (which is made) for its own files; or why it can't, in a sentence.

        on_liveness: as above. Raises OSError where the disk keeps it from being prepared.
        """
        ...

    async def conclude(
        self, planned: PlannedStep, started: Instant, outcome: Outcome, reader: OutputReader, folder: Path
    ) -> Finished:
        """What the end of the step means, with its final progress and first failure.

        Raises OSError where the disk can't be looked at now.
        """
        ...


def fabric_settings(settings: Settings, name: str, runner: RunnerName) -> tuple[FabricSettings, bool]:
    """A fabric, and whether it is gone: taken from the configuration, or turned into another kind."""
    found = settings.fabrics.get(name)
    if found is None or RunnerName(found.runner) is not runner:
        return FabricSettings(runner=runner.value), True
    return found, False


def project_settings(settings: Settings, name: str) -> tuple[ProjectSettings, bool]:
    """A project, and whether it is gone from the configuration."""
    found = settings.projects.get(name)
    return (ProjectSettings(), True) if found is None else (found, False)


def not_configured(what: str, name: str) -> str:
    """Why a step is not begun in a fabric, or of a project, that is gone."""
    return f"The {what} {name} is not in the configuration any more; put it back, or trigger another one."


def environment(fabric: FabricSettings, inherited: Mapping[str, str]) -> dict[str, str]:
    """The gateway's own environment, less what is meant for it alone, and the fabric's."""
    variables = {name: value for name, value in inherited.items() if name not in _NOT_FOR_STEPS}
    return {**variables, **fabric.environment}


def dbt(fabric: FabricSettings, project: Path) -> DbtConfig:
    """How a fabric runs dbt for the project in this folder."""
    chosen = fabric.dbt
    return DbtConfig(
        project=project,
        executable=chosen.executable,
        lineage_executable=chosen.openlineage_executable,
        edr=chosen.edr,
        profiles=chosen.profiles_directory,
        target=chosen.target,
        threads=chosen.threads,
        arguments=chosen.arguments,
    )


def installation(
    settings: Settings,
    fabric: str,
    *,
    has_openlineage: bool,
    has_elementary: bool,
    ingester_is_fixed: bool = False,
    needs_packages: bool = False,
) -> Installation:
    """What a plan depends on, with what was found in the fabric."""
    ingester_resource, dbt_resource = settings.resources(fabric)
    return Installation(
        openlineage=settings.enable_openlineage,
        elementary=settings.enable_elementary,
        has_openlineage=has_openlineage,
        has_elementary=has_elementary,
        ingester_resource=ingester_resource,
        dbt_resource=dbt_resource,
        ingester_may_fail=settings.ingester_failure == "continue",
        ingester_is_fixed=ingester_is_fixed,
        needs_packages=needs_packages,
    )


def output_reader(planned: PlannedStep) -> OutputReader:
    """What follows the step's output."""
    return ingester.IngesterReader() if planned.name is StepName.INGESTER else dbt_output.DbtReader()


def dbt_step(planned: PlannedStep, dbt: DbtConfig) -> DbtStep:
    """The dbt step of a planned one."""
    if planned.name is StepName.ELEMENTARY:
        return DbtStep("run", planned.arguments, elementary=True, report=dbt.edr is not None)
    return DbtStep(
        planned.name,
        planned.arguments,
        lineage=planned.lineage,
        without_elementary=planned.without_elementary,
        selective=planned.selective,
    )


def ingester_finished(planned: PlannedStep, started: Instant, outcome: Outcome, reader: OutputReader) -> Finished:
    """The end of an ingester: its exit code is all there is to go by."""
    return Finished(outcome, reader.progress, _failure(planned, outcome, reader.last_line, None), started)


def dbt_finished(
    planned: PlannedStep,
    started: Instant,
    outcome: Outcome,
    reader: dbt_output.DbtReader,
    left: dbt_output.Results | None,
) -> Finished:
    """The end of a dbt step whose outcome has been judged by what it left."""
    progress = left.progress if left is not None else reader.progress
    failed_node = left.failure if left is not None else None
    failure = _failure(planned, outcome, reader.error or reader.last_line, failed_node)
    return Finished(outcome, progress, failure, started)


def masked(finished: Finished, mask: Mask) -> Finished:
    """The end of a step with nothing secret in it, as it may be recorded."""
    outcome, failure = finished.outcome, finished.failure
    if isinstance(outcome, NotStarted | Lost):
        outcome = replace(outcome, why=mask.text(outcome.why))
    if failure is not None:
        failure = replace(failure, node=mask.text(failure.node), message=mask.text(failure.message))
    return replace(finished, outcome=outcome, failure=failure)


def _failure(planned: PlannedStep, outcome: Outcome, said: str, failed_node: Failure | None) -> Failure | None:
    """What went wrong first in a step that left with a non-zero code; without a failed node, its last words."""
    if not isinstance(outcome, Exited) or outcome.code == 0:
        return None
    return failed_node or Failure(planned.name, one_line(said or "it said nothing"))
