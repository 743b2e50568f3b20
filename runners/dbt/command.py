"""The command lines of dbt, dbt-ol and edr, their environment, and the files of a dbt step."""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from runners.dbt import variables as dbt_variables
from runners.dbt.arguments import are_variables, exclude, is_selection, only_variables, select, without_flags
from runners.mask import Mask
from runners.outcome import Command

# Options that the gateway sets itself, because it reads the outcome of a run from what they write.
RESERVED_ARGUMENTS = frozenset(
    {
        "--project-dir",
        "--profiles-dir",
        "--profile",
        "--target",
        "-t",
        "--target-path",
        "--log-path",
        "--log-format",
        "--log-format-file",
        "--log-level",
        "--log-level-file",
        "--threads",
        "--quiet",
        "-q",
        "--partial-parse-file-path",
        "--no-write-json",
        "--consume-structured-logs",
    }
)

# The environment of dbt and edr, where the gateway's environment and the configuration do not set these variables.
DEFAULT_VARIABLES = {"DO_NOT_TRACK": "1", "EDR_REPORT_OPEN_BROWSER": "false"}

# The keys of each JSON object that `dbt ls` prints; runners.dbt.listing reads them.
_LIST_KEYS = ("name", "resource_type", "fqn", "version")
ELEMENTARY = "elementary"  # the name of its package


@dataclass(frozen=True, slots=True)
class DbtConfig:
    """How dbt is run for one project in one environment.

    project: absolute folder of dbt_project.yml.
    executable, lineage_executable, edr: programs, by path or by name on PATH; without edr no report is made.
    profiles: absolute folder of profiles.yml; None for dbt's own search. profile, target: None for dbt's own choice.
    arguments: added to build, run and test.
    """

    project: Path
    executable: str = "dbt"
    lineage_executable: str = "dbt-ol"
    edr: str | None = None
    profiles: Path | None = None
    profile: str | None = None
    target: str | None = None
    threads: int | None = None
    arguments: tuple[str, ...] = ()

    def with_choices(self, environment: Mapping[str, str]) -> DbtConfig:
        """With the profile and target that dbt takes from its variables, for programs that don't read them."""
        target = self.target or dbt_variables.value(environment, "TARGET")
        return replace(self, profile=dbt_variables.value(environment, "PROFILE"), target=target)


@dataclass(frozen=True, slots=True)
class DbtStep:
    """One dbt step.

    verb: dbt's subcommand. arguments: its selections and variables, from runners.dbt.arguments.
    lineage: dbt runs through dbt-ol.
    elementary: the step runs the models of the Elementary package, and fails if there are none.
    without_elementary: the step leaves the models of the Elementary package out.
    with_elementary: the step runs them too, whatever else it selects.
    report: edr makes its report after dbt.
    selective: the arguments come from the caller, and the step fails if they select nothing.
    """

    verb: str
    arguments: tuple[str, ...] = ()
    lineage: bool = False
    elementary: bool = False
    without_elementary: bool = False
    with_elementary: bool = False
    report: bool = False
    selective: bool = False

    @property
    def selection(self) -> tuple[str, ...]:
        """All arguments that select and parametrize: Elementary's first, since dbt adds up several --exclude."""
        if self.elementary:
            return (select(ELEMENTARY), *self.arguments)
        if self.without_elementary:
            return (exclude(ELEMENTARY), *self.arguments)
        return self.arguments


@dataclass(frozen=True, slots=True)
class DbtPaths:
    """The files and folders of a step, as dbt itself sees them; None for dbt's own default.

    cwd: the folder in which dbt is called; empty for the default of the service or host.
    partial_parse: the shared partial-parse file, which must exist.
    report: the file of edr's report. edr: edr's folder. edr_profiles: the folder of profiles.yml for edr, which calls
        dbt in a folder of its own.
    """

    cwd: str
    project: str | None
    profiles: str | None
    target: str | None
    logs: str | None
    partial_parse: str | None
    report: str
    edr: str
    edr_profiles: str | None


def paths(dbt: DbtConfig, folder: Path, parse_cache: Path, environment: Mapping[str, str]) -> DbtPaths:
    """The paths of a step on this host.

    folder: absolute folder of the step; target, logs and report are in it.
    parse_cache: the shared partial-parse file, used if it exists. environment: of the step.
    """
    # All paths are absolute: with a cached parse, dbt resolves relative ones against the wrong folder.
    return DbtPaths(
        # The folder in which a person calls dbt, so relative paths in profiles.yml mean the same.
        cwd=str(dbt.project),
        project=str(dbt.project),
        profiles=None if dbt.profiles is None else str(dbt.profiles),
        target=str(target_folder(folder)),
        logs=str(folder / "logs"),
        partial_parse=str(parse_cache) if parse_cache.exists() else None,  # dbt refuses a file that does not exist
        report=str(report_file(folder)),
        edr=str(folder / "edr"),
        edr_profiles=str(dbt_variables.profiles_folder(dbt.profiles, dbt.project, environment)),
    )


def command(
    dbt: DbtConfig,
    step: DbtStep,
    paths: DbtPaths,
    environment: Mapping[str, str],
    *,
    grace: float,
    time_limit: float,
    mask: Mask,
) -> Command:
    """The command of a dbt step. environment, mask: see Command. grace, time_limit: seconds."""
    program = dbt.lineage_executable if step.lineage else dbt.executable
    argvs = [(program, step.verb, *_options(dbt, step, paths))]
    if step.report and dbt.edr is not None:
        argvs.append((dbt.edr, "report", *_report_options(dbt, paths)))
    return Command(
        argvs=tuple(argvs),
        cwd=paths.cwd,
        environment=environment,
        interrupt=signal.SIGINT,  # on this signal only, dbt cancels its queries and writes run_results.json
        grace=grace,
        time_limit=time_limit,
        mask=mask,
    )


def list_command(dbt: DbtConfig, step: DbtStep, paths: DbtPaths) -> tuple[str, ...]:
    """The command line that prints the nodes of a step: one JSON object a line, and of the log its errors only."""
    output = ("--quiet", "--output=json", *(f"--output-keys={key}" for key in _LIST_KEYS))
    plain = ("--log-format=text", "--no-use-colors")
    parse = _glued(target_path=paths.target, partial_parse_file_path=paths.partial_parse)
    selection = without_flags(step.selection)
    return (dbt.executable, "ls", *output, *plain, *_project_options(dbt, paths), *parse, *selection)


def render_command(dbt: DbtConfig, step: DbtStep, paths: DbtPaths, text: str) -> tuple[str, ...]:
    """The command line that renders a text as dbt renders the SQL of a model of this step.

    Of the log dbt prints its errors only, besides what the text prints.
    """
    # the text looks up what it needs, so dbt need not list all schemas of the project first
    output = ("--quiet", "--no-populate-cache", "--log-format=text", "--no-use-colors")
    parse = _glued(target_path=paths.target, partial_parse_file_path=paths.partial_parse)
    variables = only_variables((*step.arguments, *dbt.arguments))
    return (dbt.executable, "compile", *output, *_project_options(dbt, paths), *parse, *variables, f"--inline={text}")


def deps_command(dbt: DbtConfig, step: DbtStep, paths: DbtPaths) -> tuple[str, ...]:
    """The command line that installs the packages of the project before its nodes are listed."""
    variables = (argument for argument in step.arguments if are_variables(argument))
    return (dbt.executable, "deps", "--no-use-colors", *_project_options(dbt, paths), *variables)


def examination(dbt: DbtConfig, verb: str, paths: DbtPaths) -> tuple[str, ...]:
    """The command line of `dbt parse` or `dbt debug`, which has no option for the target folder."""
    target = _glued(target_path=paths.target if verb == "parse" else None)
    return (dbt.executable, verb, "--no-use-colors", *_project_options(dbt, paths), *target)


def _options(dbt: DbtConfig, step: DbtStep, paths: DbtPaths) -> Iterable[str]:
    yield from _project_options(dbt, paths)
    # One stream serves people and programs: JSON lines in the output, rendered as dbt's own text when they are read.
    yield from ("--log-format=json", "--log-level=info", "--no-quiet", "--no-use-colors")
    # Without these, --log-format and --log-level would apply to dbt's own log file too, which people expect in detail.
    yield from ("--log-format-file=debug", "--log-level-file=debug")
    if step.verb == "deps":
        yield from step.selection
        return
    yield from _glued(target_path=paths.target)
    yield "--write-json"
    yield from _glued(threads=dbt.threads, partial_parse_file_path=paths.partial_parse)
    if step.with_elementary and any(map(is_selection, (*step.arguments, *dbt.arguments))):
        yield select(ELEMENTARY)  # dbt adds up several --select
    yield from step.selection
    if not step.elementary:
        yield from dbt.arguments


def _project_options(dbt: DbtConfig, paths: DbtPaths) -> Iterable[str]:
    yield from _glued(project_dir=paths.project, profiles_dir=paths.profiles, profile=dbt.profile, target=dbt.target)
    yield from _glued(log_path=paths.logs)


def _report_options(dbt: DbtConfig, paths: DbtPaths) -> Iterable[str]:
    yield from _glued(project_dir=paths.project, profiles_dir=paths.edr_profiles, profile_target=dbt.target)
    yield from _glued(target_path=paths.edr, file_path=paths.report)


def _glued(**options: object) -> Iterable[str]:
    """Options as `--name=value`, so that no value can begin an option; those whose value is None are left out."""
    return (f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None)


def environment(base: Mapping[str, str], step: DbtStep, folder: Path) -> Mapping[str, str]:
    """The whole environment of a step on this host. base: that of the fabric. folder: of the step."""
    variables = {
        name: value
        for name, value in base.items()
        # The gateway decides whether lineage is written, and where.
        if not name.startswith("OPENLINEAGE__TRANSPORT")
        and name not in {"OPENLINEAGE_URL", "OPENLINEAGE_DISABLED"}
        and not (step.selective and name in dbt_variables.SELECTION_VARIABLES)
    }
    variables = {**DEFAULT_VARIABLES, **variables}
    if step.lineage:
        # This file has precedence over an openlineage.yml in the project. Its transport is a file, which can't slow a
        # run down: an HTTP receiver that does not answer costs nine seconds an event.
        variables["OPENLINEAGE_CONFIG"] = str(_lineage_config(folder))
        variables["TQDM_DISABLE"] = "1"
    return variables


def lineage_variables(file: str) -> Mapping[str, str]:
    """The variables that make dbt-ol append its events to a file, where no configuration file can be given to it."""
    return {
        "OPENLINEAGE__TRANSPORT__TYPE": "file",
        "OPENLINEAGE__TRANSPORT__LOG_FILE_PATH": file,
        "OPENLINEAGE__TRANSPORT__APPEND": "true",
    }


def prepare(step: DbtStep, folder: Path) -> None:
    """Make the folder of the step and the configuration file of dbt-ol in it. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    if step.lineage:
        transport = {"type": "file", "log_file_path": str(lineage_file(folder)), "append": True}
        # JSON is YAML, and quotes every character of a path.
        _lineage_config(folder).write_text(json.dumps({"transport": transport}), encoding="utf-8")


def _lineage_config(folder: Path) -> Path:
    return folder / "openlineage.yml"


def target_folder(folder: Path) -> Path:
    """The folder of the artifacts of the step whose folder this is."""
    return folder / "target"


def lineage_file(folder: Path) -> Path:
    """The file of the OpenLineage events of the step whose folder this is, one a line."""
    return folder / "lineage.ndjson"


def report_file(folder: Path) -> Path:
    """The file of the Elementary report of the step whose folder this is."""
    return folder / "elementary_report.html"


def parse_cache(folder: Path, dbt: DbtConfig, step: DbtStep, environment: Mapping[str, str]) -> Path:
    """The partial-parse file in `folder` that all steps of the same project, profile, target and variables share."""
    arguments = () if step.elementary else dbt.arguments
    variables = (argument for argument in step.arguments if are_variables(argument))
    profiles = dbt_variables.profiles_folder(dbt.profiles, dbt.project, environment)
    chosen = dbt.with_choices(environment)
    key = json.dumps(
        [str(dbt.project), str(profiles), chosen.profile, chosen.target, dbt.executable, *arguments, *variables]
    )
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.msgpack"


def update_parse_cache(folder: Path, cache: Path) -> None:
    """Replace the shared partial-parse file with the step's, which dbt has written into its target folder."""
    with contextlib.suppress(OSError):  # without the file, the next run parses everything again
        cache.parent.mkdir(parents=True, exist_ok=True)
        (target_folder(folder) / "partial_parse.msgpack").replace(cache)
