"""A fabric as a job sees it: what each step runs there, and what its end means. The kinds share what is here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from gateway import clock
from gateway.clock import Instant
from gateway.fabrics.checkouts import Checkout
from gateway.model.catalog import Installation
from gateway.model.job import Finished
from gateway.model.plan import Plan, PlannedStep, StepName
from gateway.model.request import TriggerRequest
from gateway.settings.fabric import FabricSettings, RunnerName
from gateway.settings.project import CHECKOUT, ProjectSettings
from gateway.settings.settings import Settings
from runners import ingester
from runners.dbt import output as dbt_output
from runners.dbt.command import DbtConfig, DbtStep
from runners.dbt.listing import Node
from runners.mask import Mask
from runners.outcome import Command, Exited, Lost, NotStarted, Outcome
from runners.program import ProgramResult
from runners.report import Failure, OutputReader, Progress, one_line
from runners.runner import Liveness

OnLiveness = Callable[[Liveness], None]

# systemd's messages to the gateway itself: a step that had them would speak to systemd in the gateway's name.
_GATEWAY_ONLY = frozenset(
    {
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "LISTEN_PID",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "CREDENTIALS_DIRECTORY",
        "CALLERS_FILE",
        "STATE_DIRECTORY",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
    }
)


@dataclass(frozen=True, slots=True)
class ContainerConflict:
    """A container of a service that the plan needs, not started by the gateway. since: epoch seconds."""

    container: str
    service: str
    since: float
    remedy: str

    def __str__(self) -> str:
        return (
            f"The container {self.container} of the service {self.service} is running since "
            f"{clock.rfc3339(self.since)} and was not started by the gateway; {self.remedy}."
        )


@dataclass(frozen=True, slots=True)
class DbtAnswer:
    """What dbt said of a project. by_hand: the line with which a person asks it the same."""

    result: ProgramResult
    by_hand: str


def ignore_liveness(_: Liveness) -> None:
    """The OnLiveness of a caller that does not show how a step is."""


class Fabric(Protocol):
    """One project on one fabric: what each step runs there, and what it should leave behind."""

    @property
    def runner(self) -> RunnerName:
        """Which runner runs the steps."""
        ...

    @property
    def checkout(self) -> Checkout | None:
        """The checkout that the steps run in, None for the project's own directory."""
        ...

    @property
    def mask(self) -> Mask:
        """Hides the secrets of the fabric that are known by now."""
        ...

    async def installation(self, request: TriggerRequest) -> Installation:
        """What a plan depends on besides the request. Raises EngineError where the engine does not answer."""
        ...

    def missing_program(self) -> str | None:
        """A program that the steps need and that was not found, in a sentence that says what to do. Blocks."""
        ...

    async def container_conflict(self, plan: Plan) -> ContainerConflict | None:
        """A container outside the gateway that uses what the plan uses. Raises EngineError."""
        ...

    async def problem(self, planned: PlannedStep, on_liveness: OnLiveness = ignore_liveness) -> str | None:
        """Why a step could not start, in a sentence that says what to do; None if nothing is known to be wrong.

        on_liveness: called with UNREACHABLE while the engine does not answer.
        """
        ...

    async def lost_arguments(self, planned: PlannedStep) -> str | None:
        """Why the arguments of a step would not reach its program, in a sentence that says what to do; None if they do.

        Raises EngineError.
        """
        ...

    async def list_nodes(self, planned: PlannedStep) -> list[Node] | str:
        """The nodes that a dbt step would run, as dbt lists them; or why dbt can't list them.

        Raises EngineError, StorageError.
        """
        ...

    async def settle(self, planned: PlannedStep) -> tuple[PlannedStep, tuple[str, ...]]:
        """A step as it is to run now, by what its database has, with notes for the record.

        Call it only for a step that was not begun: dbt may open the database.
        """
        ...

    async def resume(self, planned: PlannedStep, earlier: Path, folder: Path) -> tuple[str, ...]:
        """Prepare another attempt of a dbt step, which runs only what had failed where that can be; notes about it.

        earlier: the folder of the attempt before. folder: of this one, for `command`.
        """
        ...

    async def command(
        self, planned: PlannedStep, folder: Path, on_liveness: OnLiveness = ignore_liveness
    ) -> Command | str:
        """The command of a step, or why it has none, in a sentence. Makes `folder` for the step's own files.

        on_liveness: as for `problem`. Raises OSError where the disk refuses the step's files.
        """
        ...

    async def conclude(
        self, planned: PlannedStep, started: Instant, outcome: Outcome, reader: OutputReader, folder: Path
    ) -> Finished:
        """What the end of a step means, with its final progress and first failure.

        Raises OSError where the step's files can't be read now.
        """
        ...


def fabric_settings(settings: Settings, fabric: str, runner: RunnerName) -> tuple[FabricSettings, bool]:
    """A fabric's settings, and whether the configuration lacks a fabric of this id and runner by now."""
    configured = settings.fabrics.get(fabric)
    if configured is None or configured.runner is not runner:
        return FabricSettings(runner=runner), True
    return configured, False


def project_settings(settings: Settings, project: str) -> tuple[ProjectSettings, bool]:
    """A project's settings, and whether the configuration lacks it by now."""
    configured = settings.projects.get(project)
    return (ProjectSettings(), True) if configured is None else (configured, False)


def not_configured(kind: str, name: str) -> str:
    """Why a step does not begin: its fabric or project is not configured any more. kind: `fabric` or `project`."""
    return f"The {kind} {name} is not in the configuration any more; put it back, or trigger another one."


def environment(fabric: FabricSettings, inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of steps: the gateway's own, without what is for the gateway alone, and the fabric's."""
    variables = {name: value for name, value in inherited.items() if name not in _GATEWAY_ONLY}
    return {**variables, **fabric.environment}


def dbt_config(fabric: FabricSettings, project: Path) -> DbtConfig:
    """How a fabric runs dbt for the project in this folder."""
    configured = fabric.dbt
    return DbtConfig(
        project=project,
        executable=configured.executable,
        lineage_executable=configured.openlineage_executable,
        edr=configured.edr,
        profiles=configured.profiles_directory,
        target=configured.target,
        threads=configured.threads,
        arguments=configured.arguments,
    )


def installation(
    settings: Settings,
    fabric: str,
    *,
    lineage_problem: str | None,
    has_elementary: bool,
    ingester_is_fixed: bool = False,
    needs_packages: bool = False,
) -> Installation:
    """What a plan depends on: the configuration, and what was found in the fabric."""
    ingester_resource, dbt_resource = settings.resources(fabric)
    return Installation(
        openlineage=settings.enable_openlineage,
        elementary=settings.enable_elementary,
        lineage_problem=lineage_problem,
        has_elementary=has_elementary,
        ingester_resource=ingester_resource,
        dbt_resource=dbt_resource,
        ingester_may_fail=settings.ingester_failure == "continue",
        ingester_is_fixed=ingester_is_fixed,
        needs_packages=needs_packages,
    )


def output_reader(planned: PlannedStep) -> OutputReader:
    """The reader of a step's output."""
    return ingester.IngesterReader() if planned.name is StepName.INGESTER else dbt_output.DbtReader()


def dbt_step(planned: PlannedStep, config: DbtConfig) -> DbtStep:
    """The dbt step of a planned one."""
    if planned.name is StepName.ELEMENTARY:
        return DbtStep("run", planned.arguments, elementary=True, report=config.edr is not None)
    return DbtStep(
        planned.name,
        planned.arguments,
        lineage=planned.lineage,
        without_elementary=planned.without_elementary,
        with_elementary=planned.with_elementary,
        selective=planned.selective,
    )


def settled_elementary(planned: PlannedStep, missing: Sequence[str] | str) -> tuple[PlannedStep, tuple[str, ...]]:
    """A step that leaves Elementary's models to a later one, as it is to run, and a note about why.

    missing: Elementary's tables that its target does not have, or why that is not known. Its hooks keep the results of
    a run after the last model, so a step that makes the tables itself loses none.
    """
    if not missing:
        why = "the target has their tables"
        return planned, (f"The step {planned.name} leaves Elementary's models to the step elementary: {why}.",)
    if isinstance(missing, str):
        why = f"whether the target has their tables is not known: {missing}"
    else:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        why = f"without their tables its own results would be lost, and the target lacks {missing[0]}{more}."
    included = replace(planned, without_elementary=False, with_elementary=True)
    return included, (f"The step {planned.name} makes Elementary's models too: {why}",)


def resumed(planned: PlannedStep, why_not: str | None) -> tuple[str, ...]:
    """The notes about another attempt of a dbt step. why_not: why it runs as a whole, None where only what failed."""
    if why_not is not None:
        return (f"The step {planned.name} runs as a whole again: {why_not}.",)
    lineage = "; without OpenLineage, since dbt-ol emits nothing for it" if planned.lineage else ""
    return (f"The step {planned.name} runs only what had failed or was skipped, by `dbt retry`{lineage}.",)


def folder_by_hand(project: ProjectSettings) -> str:
    """Where a person has the dbt project: its folder, or from the top of a clone of its repository."""
    if not project.dbt.is_relative_to(CHECKOUT):
        return str(project.dbt)
    return f"./{project.dbt.relative_to(CHECKOUT)}".removesuffix("/.")


def missing_program(program: str, where: str, remedy: str, setting: str) -> str:
    """The sentence about a program that was not found. where: begins with a space. setting: of `fabrics`."""
    return (
        f"The program {program} was not found or is not executable{where}: {remedy}, or set `fabrics.{setting}` in "
        "gateway.yaml."
    )


def wants_lineage(settings: Settings, fabric: FabricSettings) -> bool:
    """Whether the configuration asks for dbt-ol, so that a missing one is more than a default that is off."""
    return "openlineage_executable" in fabric.dbt.model_fields_set or settings.enable_openlineage is True


def lost_words(what: str, key: str, line: tuple[str, ...], *, for_compose: bool = False) -> str:
    """The sentence about a shell script that drops the parameters. what: the command. key, line: what would be right.

    for_compose: the key is of a compose file, in which `$$` stands for `$`.
    """
    shown = json.dumps(line)
    return (
        f"{what} is a shell script that does not pass on the words after it, so the pipeline's parameters would be "
        f"lost: set `{key}: {shown.replace('$', '$$') if for_compose else shown}`."
    )


def finished_by_exit_code(planned: PlannedStep, started: Instant, outcome: Outcome, reader: OutputReader) -> Finished:
    """The end of a step that is judged by its exit code alone."""
    return Finished(outcome, reader.progress, _failure(planned, outcome, reader.cause, None), started)


def dbt_finished(
    planned: PlannedStep,
    started: Instant,
    outcome: Outcome,
    reader: dbt_output.DbtReader,
    results: dbt_output.Results | None,
) -> Finished:
    """The end of a dbt step. outcome: as judged by the step's log and results."""
    progress = results.progress if results is not None else reader.progress
    failed_node = results.failure if results is not None else None
    failure = _failure(planned, outcome, reader.cause, failed_node)
    return Finished(outcome, progress, failure, started)


def masked(finished: Finished, mask: Mask) -> Finished:
    """The end of a step without secrets, and with a short message, as it may be recorded."""
    outcome, failure = finished.outcome, finished.failure
    if isinstance(outcome, NotStarted | Lost):
        outcome = replace(outcome, why=_masked_text(outcome.why, mask))
    if failure is not None:
        node, message = (one_line(text, hide=mask.text) for text in (failure.node, failure.message))
        failure = replace(failure, node=node, message=message)
    return replace(finished, outcome=outcome, failure=failure, progress=masked_progress(finished.progress, mask))


def masked_progress(progress: Progress | None, mask: Mask) -> Progress | None:
    """Progress without secrets: the name of a node may have one that was escaped or coloured when it was printed."""
    if progress is None or progress.current is None:
        return progress
    return replace(progress, current=_masked_text(progress.current, mask))


def _masked_text(text: str, mask: Mask) -> str:
    """Mask a text that may be cut at `…`; a secret that begins before the cut is masked too."""
    return "…".join(map(mask.text, text.split("…")))


def _failure(planned: PlannedStep, outcome: Outcome, message: str, failed_node: Failure | None) -> Failure | None:
    """The first failure of a step whose exit code is not 0: its failed node, else its last message."""
    if not isinstance(outcome, Exited) or outcome.code == 0:
        return None
    return failed_node or Failure(planned.name, message or "it said nothing")
