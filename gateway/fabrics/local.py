"""A fabric whose steps are processes of this host."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from gateway.clock import Instant
from gateway.errors import StorageError
from gateway.fabrics import fabric as shared
from gateway.fabrics import shell
from gateway.fabrics.checkouts import Checkout
from gateway.fabrics.fabric import OnLiveness, ignore_liveness
from gateway.model.catalog import Installation
from gateway.model.job import Finished
from gateway.model.plan import Plan, PlannedStep, StepName
from gateway.model.request import TriggerRequest
from gateway.settings.fabric import FabricSettings, RunnerName
from gateway.settings.settings import Settings
from runners import ingester, program
from runners.dbt import command as dbt
from runners.dbt import elementary as dbt_elementary
from runners.dbt import listing
from runners.dbt import output as dbt_output
from runners.dbt import profile as dbt_profile
from runners.dbt import project as dbt_project
from runners.dbt import retry as dbt_retry
from runners.dbt.command import DbtStep
from runners.dbt.listing import Found, Node
from runners.dbt.results import judge_outcome, read_results
from runners.outcome import Command, Exited, Outcome
from runners.program import ProgramResult
from runners.report import OutputReader

LISTING = "pipeline-gateway-listing-"  # prefix of the folders in which `dbt ls` runs
NOT_SENT = (
    "OpenLineage events are kept in the folder of each local step, in lineage.ndjson, and are sent nowhere: {} has no "
    "effect yet."
)
_LINEAGE_VARIABLES = ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG", "OPENLINEAGE__TRANSPORT")


class LocalFabric:
    """What each step of one project runs on this host: see the protocol Fabric."""

    runner = RunnerName.LOCAL

    def __init__(
        self,
        settings: Settings,
        fabric: str,
        project: str,
        environment: Mapping[str, str],
        checkout: Checkout | None = None,
    ) -> None:
        """checkout: of the project, None for its own directory."""
        self._settings = settings
        self._fabric_name = fabric
        # a job is followed to its end also where the configuration has lost its fabric or project
        self._fabric, fabric_is_missing = shared.fabric_settings(settings, fabric, RunnerName.LOCAL)
        configured, project_is_missing = shared.project_settings(settings, project)
        self._not_configured = shared.not_configured("fabric", fabric) if fabric_is_missing else None
        if project_is_missing:
            self._not_configured = shared.not_configured("project", project)
        self._project = configured if checkout is None else checkout.project_in(configured)
        self._project_name = project
        self.checkout = checkout
        self._is_remote = checkout is None and configured.repository is not None
        self._environment = _environment(self._fabric, environment)
        self.mask = settings.mask(environment)
        self.dbt = shared.dbt_config(self._fabric, self._project.dbt)
        self._parsed = settings.state_directory / "parse"

    @property
    def name(self) -> str:
        """The id of the fabric."""
        return self._fabric_name

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment of every step of the fabric."""
        return self._environment

    async def installation(self, request: TriggerRequest) -> Installation:  # noqa: ARG002, looking costs nothing here
        """What a plan depends on besides the request."""
        return await asyncio.to_thread(self._installation)

    async def container_conflict(self, plan: Plan) -> shared.ContainerConflict | None:  # noqa: ARG002, see below
        """None: only jobs hold the resources of this host."""
        return None

    async def problem(self, planned: PlannedStep, on_liveness: OnLiveness = ignore_liveness) -> str | None:  # noqa: ARG002, files answer
        """Why a step could not start, as far as files tell, in a sentence that says what to do."""
        return await asyncio.to_thread(self._problem, planned) or await self.lost_arguments(planned)

    async def lost_arguments(self, planned: PlannedStep) -> str | None:
        """Why the arguments of a step would not reach its program, in a sentence that says what to do."""
        settings = self._project.ingester
        if planned.name is not StepName.INGESTER or settings is None:
            return None
        line = shell.corrected(settings.command, len(planned.arguments))
        key = f"projects.{self._project_name}.ingester.command"
        return (
            None if line is None else shared.lost_words(f"The ingester of the project {self._project_name}", key, line)
        )

    async def list_nodes(self, planned: PlannedStep) -> list[Node] | str:
        """The nodes that a dbt step would run, as dbt lists them; or why dbt can't list them."""
        problem = await self.problem(planned)
        if problem is not None:
            return problem
        may_install = self.checkout is not None and self.checkout.is_free
        try:
            return await self._ask_dbt(planned, partial(listing.list_nodes, may_install=may_install))
        except OSError as error:
            raise StorageError(f"dbt's listing can't be kept: {error}; free disk space, then try again.") from None

    async def settle(self, planned: PlannedStep) -> tuple[PlannedStep, tuple[str, ...]]:
        """A step as it is to run now, by what its database has, with notes for the record."""
        if not planned.without_elementary or self._not_configured is not None:
            return planned, ()
        try:
            await asyncio.to_thread(dbt_project.make_own_target, self.dbt.project, self._environment)
            missing = await self._ask_dbt(replace(planned, selective=True), dbt_elementary.missing_tables)
        except OSError as error:
            missing = str(error)
        return shared.settled_elementary(planned, missing)

    async def resume(self, planned: PlannedStep, earlier: Path, folder: Path) -> tuple[str, ...]:
        """Prepare another attempt of a dbt step; notes about it."""
        return shared.resumed(planned, await asyncio.to_thread(dbt_retry.prepare, earlier, folder))

    async def command(
        self,
        planned: PlannedStep,
        folder: Path,
        on_liveness: OnLiveness = ignore_liveness,  # noqa: ARG002, files answer at once
    ) -> Command | str:
        """The command of a step, or why it has none. Raises OSError where the disk refuses the step's files."""
        return await asyncio.to_thread(self._command, planned, folder)

    async def conclude(
        self, planned: PlannedStep, started: Instant, outcome: Outcome, reader: OutputReader, folder: Path
    ) -> Finished:
        """What the end of a step means. Raises OSError where the step's files can't be read now."""
        return await asyncio.to_thread(self._conclude, planned, started, outcome, reader, folder)

    async def ask_dbt(self, verb: str, scratch: Path, within: float) -> shared.DbtAnswer:
        """What `dbt parse` or `dbt debug` says of the project. scratch: for its files. within: seconds."""
        paths = dbt.paths(self.dbt, scratch, scratch / "no-parse-cache", self._environment)
        argv = dbt.examination(self.dbt, verb, paths)
        result = await program.run(argv, self._environment, within=within, directory=self.dbt.project)
        line = dbt.examination(self.dbt, verb, replace(paths, project=None, target=None, logs=None))
        configured, _ = shared.project_settings(self._settings, self._project_name)
        folder = shlex.quote(shared.folder_by_hand(configured))
        return shared.DbtAnswer(result, f"cd {folder} && {shlex.join(line)}")

    def connection(self) -> dbt_profile.Output | None:
        """The connection of the dbt project; None where only dbt could tell. Blocks."""
        return dbt_profile.output(self._profile_files(), self.dbt, self._environment)

    def throwaway_database(self) -> str | None:
        """A database that is removed with a checkout, in a sentence that says what to do; else None. Blocks."""
        found = self.connection()
        paths = () if found is None else found.files(self._environment)
        path = next((path for path in paths if not Path(path).is_absolute()), None)
        if found is None or path is None:
            return None
        return (
            f"The database {path} of the target {found.target} in {found.file} has a relative path: on a checkout it "
            "is a file of the checkout, which is removed a day after its last job. Give it an absolute path, such as "
            f"`path: /srv/{self._project_name}/{Path(path).name}`."
        )

    def dropped_receiver(self) -> str | None:
        """What says where OpenLineage events are sent, and has no effect on local steps. Blocks."""
        variables = (name for name in sorted(self._environment) if name.startswith(_LINEAGE_VARIABLES))
        home = Path(self._environment.get("HOME") or Path.home())
        files = (self.dbt.project / "openlineage.yml", home / ".openlineage" / "openlineage.yml")
        return next(variables, None) or next((str(file) for file in files if file.is_file()), None)

    @property
    def has_ingester(self) -> bool:
        """Whether the project has an ingester."""
        return self._project.ingester is not None

    def programs(self) -> list[str]:
        """The paths of the steps' programs that were found. Blocks."""
        dbt_programs = [
            self._find(name) for name in (self.dbt.executable, self.dbt.lineage_executable, self.dbt.edr or "")
        ]
        settings = self._project.ingester
        ingester_program = None if settings is None else self._find(settings.command[0], settings.directory)
        return [program for program in (*dbt_programs, ingester_program) if program]

    async def _ask_dbt(self, planned: PlannedStep, question: listing.Question[Found]) -> Found:
        """What dbt answers to a question about a step. Raises OSError."""
        step = shared.dbt_step(replace(planned, lineage=False), self.dbt)
        cache = self._parse_cache(step)
        with tempfile.TemporaryDirectory(prefix=LISTING, dir=self._settings.state_directory) as made:
            folder = Path(made)

            async def ask(argv: tuple[str, ...]) -> ProgramResult:
                environment = dbt.environment(self._environment, step, folder)
                return await program.run(argv, environment, within=listing.TIMEOUT, directory=self.dbt.project)

            paths = dbt.paths(self.dbt, folder, cache, self._environment)
            found = await question(self.dbt, step, paths, ask, self.mask)
            await asyncio.to_thread(dbt.update_parse_cache, folder, cache)
        return found

    def _installation(self) -> Installation:
        lost, dropped = self.throwaway_database() if self.checkout is not None else None, self.dropped_receiver()
        has_package = dbt_project.has_elementary(self.dbt.project)
        installed = shared.installation(
            self._settings,
            self._fabric_name,
            lineage_problem=self._lineage_problem(),
            has_elementary=has_package and self._edr_problem() is None,
            needs_packages=self.checkout is not None and dbt_project.lacks_packages(self.dbt.project),
        )
        return replace(
            installed,
            why_no_elementary=f"{self.dbt.edr} was not found" if has_package else installed.why_no_elementary,
            notes=() if lost is None else (lost,),
            lineage_notes=() if dropped is None else (NOT_SENT.format(dropped),),
        )

    def missing_program(self) -> str | None:
        """A program that the steps need and that was not found; without a dbt project dbt is not needed. Blocks."""
        project_file, _ = dbt_project.files(self.dbt, self._environment)
        if not (self._is_remote or project_file.exists()):
            return self._ingester_problem() if self.has_ingester else None
        if self._find(self.dbt.executable) is None:
            return self._missing(self.dbt.executable, "dbt", "dbt.executable")
        wants_lineage = shared.wants_lineage(self._settings, self._fabric)
        if wants_lineage and self._find(self.dbt.lineage_executable) is None:
            return self._missing(self.dbt.lineage_executable, "openlineage-dbt", "dbt.openlineage_executable")
        problem = self._edr_problem()
        if problem is not None or self._is_remote:
            return problem
        return self._ingester_problem() if self.has_ingester else None

    def _edr_problem(self) -> str | None:
        if self.dbt.edr is None or self._find(self.dbt.edr) is not None:
            return None
        return self._missing(self.dbt.edr, "elementary-data", "dbt.edr")

    def _problem(self, planned: PlannedStep) -> str | None:
        if self._not_configured is not None:
            return self._not_configured
        if planned.name is StepName.INGESTER:
            return self._ingester_problem()
        problem = self._folder_problem(self.dbt.project)
        if problem is not None:
            return problem
        if self._find(self.dbt.executable) is None:
            return self._missing(self.dbt.executable, "dbt", "dbt.executable")
        if planned.lineage:
            problem = self._lineage_problem(
                "install openlineage-dbt beside the fabric's dbt, which must be named `dbt`"
            )
            if problem is not None:
                return f"OpenLineage is wanted, but {problem}, or leave OpenLineage off."
        if planned.name is StepName.ELEMENTARY or planned.without_elementary:
            if not dbt_project.has_elementary(self.dbt.project):
                return (
                    f"Elementary is wanted, but the dbt project {self.dbt.project} does not have its package: "
                    "add elementary-data/elementary to packages.yml, or leave Elementary off."
                )
            problem = self._edr_problem()
            if problem is not None:
                return problem
        return dbt_project.problem(self.dbt, self._environment)

    def _command(self, planned: PlannedStep, folder: Path) -> Command | str:
        if self._not_configured is not None:
            return self._not_configured
        time_limit = self._fabric.time_limit
        if planned.name is StepName.INGESTER:
            settings = self._project.ingester
            if settings is None or settings.directory is None:
                return f"The project {self._project_name} has no ingester any more; put it back in gateway.yaml."
            return ingester.command(
                ingester.Ingester(settings.command, str(settings.directory), planned.arguments),
                {**ingester.DEFAULT_VARIABLES, **self._environment, **settings.environment},
                grace=settings.grace,
                time_limit=time_limit,
                mask=self.mask,
            )
        step = shared.dbt_step(planned, self.dbt)
        dbt.prepare(step, folder)
        if planned.name is not StepName.DEPS:
            dbt_project.make_own_target(self.dbt.project, self._environment)
        return dbt.command(
            dbt_profile.lineage_config(self._profile_files(), self.dbt, self._environment)
            if step.lineage
            else self.dbt,
            step,
            dbt.paths(self.dbt, folder, self._parse_cache(step), self._environment),
            dbt.environment(self._environment, step, folder),
            grace=self._fabric.dbt.grace,
            time_limit=time_limit,
            mask=self.mask,
        )

    def _conclude(
        self, planned: PlannedStep, started: Instant, outcome: Outcome, reader: OutputReader, folder: Path
    ) -> Finished:
        if not isinstance(reader, dbt_output.DbtReader):
            return shared.finished_by_exit_code(planned, started, outcome, reader)
        step, left = shared.dbt_step(planned, self.dbt), read_results(folder)
        outcome = judge_outcome(outcome, step, reader, left, self.mask, has_report=dbt.report_file(folder).exists())
        if isinstance(outcome, Exited) and left is not None:
            dbt.update_parse_cache(folder, self._parse_cache(step))
        return shared.dbt_finished(planned, started, outcome, reader, left)

    def _folder_problem(self, folder: Path) -> str | None:
        """Why a folder of the project is not there, where not the folder itself is set wrong."""
        if self.checkout is not None:
            return self.checkout.missing_folder(folder)
        directory = self._project.directory
        if directory.is_dir():
            return None
        return (
            f"The folder {directory} of the project {self._project_name} does not exist: set "
            f"`projects.{self._project_name}.directory` to the folder that has it, such as `directory: /srv/shop`."
        )

    def _parse_cache(self, step: DbtStep) -> Path:
        return dbt.parse_cache(self._parsed, self.dbt, step, self._environment)

    def _ingester_problem(self) -> str | None:
        settings = self._project.ingester
        if settings is None or settings.directory is None:
            setting = f"projects.{self._project_name}.ingester.command"
            return f"The project {self._project_name} has no ingester: set `{setting}` in gateway.yaml."
        problem = self._folder_problem(settings.directory)
        if problem is not None:
            return problem
        if not settings.directory.is_dir():
            return f"The ingester's folder {settings.directory} does not exist; set the project's `ingester.directory`."
        program = settings.command[0]
        if self._find(program, settings.directory) is None:
            return (
                f"The ingester's program {program} was not found in {settings.directory} or on PATH, or is not "
                f"executable; set `projects.{self._project_name}.ingester.command`."
            )
        return None

    def _lineage_problem(self, remedy: str = "") -> str | None:
        """Why steps can't run through dbt-ol. remedy: for a missing program."""
        program, problem = self.dbt.lineage_executable, None
        found, expected = self._find("dbt"), self._find(self.dbt.executable)
        if self._find(program) is None:
            problem = f"{program} was not found"
        elif found is None or expected is None or not Path(found).samefile(expected):
            problem = f"dbt-ol calls the program `dbt` of PATH ({found}) and the fabric's is {expected}"
        if problem is not None:
            return f"{problem}: {remedy}" if remedy else problem
        return dbt_profile.lineage_problem(self._profile_files(), self.dbt, self._environment)

    def _profile_files(self) -> dbt_profile.ProfileFiles | None:
        return dbt_profile.read(self.dbt, self._environment)

    def _missing(self, program: str, what: str, setting: str) -> str:
        return shared.missing_program(program, "", f"install {what}", f"{self._fabric_name}.{setting}")

    def _find(self, program: str, directory: Path | None = None) -> str | None:
        if "/" in program and directory is not None:
            program = str(directory / program)
        return shutil.which(program, path=self._environment["PATH"])


def _environment(fabric: FabricSettings, inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of steps, with a PATH that also finds the programs installed beside the gateway."""
    variables = shared.environment(fabric, inherited)
    # dbt-ol runs the first `dbt` on PATH, so the fabric's dbt must be the first
    beside_dbt = [str(Path(fabric.dbt.executable).parent)] if "/" in fabric.dbt.executable else []
    beside_gateway = str(Path(sys.executable).parent)
    variables["PATH"] = os.pathsep.join([*beside_dbt, beside_gateway, variables.get("PATH", os.defpath)])
    return variables
