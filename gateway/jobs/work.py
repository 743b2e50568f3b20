"""The work behind a plan: which command a step is in this configuration, and what its end means."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from gateway.clock import Instant
from gateway.config import Fabric, Project, Settings
from gateway.jobs.catalog import Installation
from gateway.jobs.job import Finished, PlannedStep, StepName
from runners import dbt, dbt_output, ingester
from runners.dbt import Dbt, DbtStep
from runners.report import Failure, Progress, Reader, one_line
from runners.step import Command, Exited, Outcome

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
_ELEMENTARY = "elementary"


class Work:
    """Knows, for one project in one fabric, what each step runs and what it should leave behind."""

    def __init__(self, settings: Settings, fabric: str, project: str, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._fabric_name = fabric
        # a job that outlived its fabric or project in the configuration is followed to its end all the same
        self._fabric = settings.fabrics.get(fabric, Fabric())
        self._project = settings.projects.get(project, Project())
        self._project_name = project
        self._environment = _environment(self._fabric, environment)
        chosen = self._fabric.dbt
        self.dbt = Dbt(
            project=self._project.dbt,
            executable=chosen.executable,
            lineage_executable=chosen.openlineage_executable,
            edr=chosen.edr,
            profiles=chosen.profiles_directory,
            target=chosen.target,
            threads=chosen.threads,
            arguments=chosen.arguments,
        )
        self._parsed = settings.state_directory / "parse"

    @property
    def environment(self) -> Mapping[str, str]:
        """What every step of the fabric finds in its environment."""
        return self._environment

    def installation(self) -> Installation:
        """What a plan depends on besides the request. Looks at the disk."""
        ingester_resource, dbt_resource = self._settings.resources(self._fabric_name)
        return Installation(
            openlineage=self._settings.enable_openlineage,
            elementary=self._settings.enable_elementary,
            has_openlineage=self._find(self.dbt.lineage_executable) is not None,
            has_elementary=dbt.has_elementary(self.dbt.project),
            ingester_resource=ingester_resource,
            dbt_resource=dbt_resource,
            ingester_may_fail=self._settings.ingester_failure == "continue",
        )

    @property
    def has_ingester(self) -> bool:
        """Whether the project says how its data comes in."""
        return self._project.ingester is not None

    def programs(self) -> list[str]:
        """The programs of its steps that are there. Looks at the disk."""
        dbt_programs = [
            self._find(name) for name in (self.dbt.executable, self.dbt.lineage_executable, self.dbt.edr or "")
        ]
        settings = self._project.ingester
        ingester_program = None if settings is None else self._find(settings.command[0], settings.directory)
        return [program for program in (*dbt_programs, ingester_program) if program]

    def problem(self, planned: PlannedStep) -> str | None:
        """Why a step could not start, as far as files tell, in a sentence that says what to do. Looks at the disk."""
        if planned.name is StepName.INGESTER:
            return self._ingester_problem()
        if self._find(self.dbt.executable) is None:
            return self._missing(self.dbt.executable, "dbt", "dbt.executable")
        if planned.lineage:
            obstacle = self._lineage_problem()
            if obstacle is not None:
                return obstacle
        if planned.name is StepName.ELEMENTARY or planned.without_elementary:
            if not dbt.has_elementary(self.dbt.project):
                return (
                    f"Elementary is wanted, but the dbt project {self.dbt.project} does not have its package: "
                    "add elementary-data/elementary to packages.yml, or leave Elementary off."
                )
            if self.dbt.edr is not None and self._find(self.dbt.edr) is None:
                return self._missing(self.dbt.edr, "edr", "dbt.edr")
        return dbt.problem(self.dbt, self._environment)

    def command(self, planned: PlannedStep, folder: Path) -> Command:
        """What the step runs, with `folder` (which is made) for its own files. Raises OSError if that can't be."""
        time_limit = self._fabric.time_limit
        if planned.name is StepName.INGESTER:
            settings = self._project.ingester
            if settings is None or settings.directory is None:
                raise FileNotFoundError(f"the project {self._project_name} has no ingester any more")
            return ingester.command(
                ingester.Ingester(settings.command, settings.directory),
                {**self._environment, **settings.environment},
                grace=settings.grace,
                time_limit=time_limit,
            )
        step = self._dbt_step(planned)
        dbt.prepare(step, folder)
        return dbt.command(
            self.dbt,
            step,
            folder=folder,
            parse_cache=dbt.parse_cache(self._parsed, self.dbt, step),
            environment=self._environment,
            grace=self._fabric.dbt.grace,
            time_limit=time_limit,
        )

    def reader(self, planned: PlannedStep) -> Reader:
        """What follows the step's output."""
        return ingester.IngesterReader() if planned.name is StepName.INGESTER else dbt_output.DbtReader()

    def conclude(
        self, planned: PlannedStep, started: Instant, outcome: Outcome, reader: Reader, folder: Path
    ) -> Finished:
        """What the end of the step means, with its final progress and first failure. Looks at the disk.

        Raises OSError where the disk can't be looked at now.
        """
        if not isinstance(reader, dbt_output.DbtReader):
            return Finished(outcome, reader.progress, _failure(planned, outcome, reader, None), started)
        step = self._dbt_step(planned)
        outcome = dbt_output.judge(outcome, step, reader, folder)
        left = dbt_output.results(folder)
        if isinstance(outcome, Exited) and left is not None:
            dbt.keep_parse(folder, dbt.parse_cache(self._parsed, self.dbt, step))
        progress: Progress | None = left.progress if left is not None else reader.progress
        failure = _failure(planned, outcome, reader, left.failure if left else None)
        return Finished(outcome, progress, failure, started)

    def _dbt_step(self, planned: PlannedStep) -> DbtStep:
        if planned.name is StepName.ELEMENTARY:
            return DbtStep("run", ("--select", _ELEMENTARY), elementary=True, report=self.dbt.edr is not None)
        selection = ("--exclude", _ELEMENTARY) if planned.without_elementary else ()
        return DbtStep(planned.name, selection, lineage=planned.lineage)

    def _ingester_problem(self) -> str | None:
        settings = self._project.ingester
        if settings is None or settings.directory is None:
            setting = f"projects.{self._project_name}.ingester.command"
            return f"The project {self._project_name} has no ingester: set `{setting}` in gateway.yaml."
        if not settings.directory.is_dir():
            return f"The ingester's folder {settings.directory} does not exist; set the project's `ingester.directory`."
        program = settings.command[0]
        if self._find(program, settings.directory) is None:
            return (
                f"The ingester's program {program} was not found in {settings.directory} or on PATH, or is not "
                f"executable; set `projects.{self._project_name}.ingester.command`."
            )
        return None

    def _lineage_problem(self) -> str | None:
        if self._find(self.dbt.lineage_executable) is None:
            return (
                f"OpenLineage is wanted, but the program {self.dbt.lineage_executable} was not found: "
                "install openlineage-dbt beside dbt, or leave OpenLineage off."
            )
        found, expected = self._find("dbt"), self._find(self.dbt.executable)
        if found is None or expected is None or not Path(found).samefile(expected):
            return (
                f"OpenLineage is wanted, but dbt-ol calls the program `dbt` of PATH ({found}) and the fabric's is "
                f"{expected}: name the fabric's dbt executable `dbt`, or leave OpenLineage off."
            )
        return None

    def _missing(self, program: str, what: str, setting: str) -> str:
        return (
            f"The program {program} was not found or is not executable: install {what}, or set "
            f"`fabrics.{self._fabric_name}.{setting}` in gateway.yaml."
        )

    def _find(self, program: str, directory: Path | None = None) -> str | None:
        if "/" in program and directory is not None:
            program = str(directory / program)
        return shutil.which(program, path=self._environment["PATH"])


def _environment(fabric: Fabric, inherited: Mapping[str, str]) -> dict[str, str]:
    """The gateway's own environment and the fabric's, and a PATH that finds what is installed beside the gateway."""
    variables = {name: value for name, value in inherited.items() if name not in _NOT_FOR_STEPS}
    variables.update(fabric.environment)
    # dbt-ol runs the first `dbt` on PATH, so the fabric's own has to be that.
    beside_dbt = [str(Path(fabric.dbt.executable).parent)] if "/" in fabric.dbt.executable else []
    beside_gateway = str(Path(sys.executable).parent)
    variables["PATH"] = os.pathsep.join([*beside_dbt, beside_gateway, variables.get("PATH", os.defpath)])
    return variables


def _failure(planned: PlannedStep, outcome: Outcome, reader: Reader, failed_node: Failure | None) -> Failure | None:
    """What went wrong first in a step that left with a non-zero code; without a failed node, its last words."""
    if not isinstance(outcome, Exited) or outcome.code == 0:
        return None
    said = reader.error if isinstance(reader, dbt_output.DbtReader) and reader.error else reader.last_line
    return failed_node or Failure(planned.name, one_line(said or "it said nothing"))
