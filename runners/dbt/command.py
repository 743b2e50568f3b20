"""What dbt steps run: the command lines of dbt, dbt-ol and edr, and where they leave what."""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from runners.dbt import listing as dbt_nodes
from runners.mask import Mask
from runners.outcome import Command

# What the gateway sets itself, since the truth about a run depends on it.
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


VARIABLES_OPTION = "--vars="
# What would have dbt leave out a part of what was selected.
_SELECTING = frozenset({"DBT_RESOURCE_TYPES", "DBT_EXCLUDE_RESOURCE_TYPES", "DBT_EMPTY", "DBT_SAMPLE"})

# What dbt and edr find in their environment unless somebody has set it otherwise.
VARIABLES = {"DO_NOT_TRACK": "1", "EDR_REPORT_OPEN_BROWSER": "false"}


@dataclass(frozen=True, slots=True)
class DbtConfig:
    """How dbt is run for one project in one environment.

    executable, lineage_executable, edr: programs, by path or by name on PATH; no edr, no report.
    project: absolute folder of dbt_project.yml. profiles: absolute folder of profiles.yml, None for dbt's own search.
    arguments: added to build, run and test.
    """

    project: Path
    executable: str = "dbt"
    lineage_executable: str = "dbt-ol"
    edr: str | None = None
    profiles: Path | None = None
    target: str | None = None
    threads: int | None = None
    arguments: tuple[str, ...] = ()

    @property
    def profiles_folder(self) -> Path | None:
        """The folder that dbt is told to take profiles.yml from: the project's own, unless one is configured."""
        if self.profiles is not None:
            return self.profiles
        return self.project if (self.project / "profiles.yml").is_file() else None


@dataclass(frozen=True, slots=True)
class DbtStep:
    """One dbt step: its subcommand, and what selects and parametrizes it (arguments of runners.dbt_words).

    lineage: through dbt-ol. elementary: these are Elementary's models, and there must be some. report: edr comes after.
    selective: somebody chose what is run, and there must be some of it.
    """

    verb: str
    arguments: tuple[str, ...] = ()
    lineage: bool = False
    elementary: bool = False
    report: bool = False
    selective: bool = False


@dataclass(frozen=True, slots=True)
class DbtPaths:
    """Where a step finds and leaves things, as dbt itself sees them; None for dbt's own choice.

    cwd: the folder dbt is called in; empty for its place's own. parse: the shared partial-parse file, which must exist.
    report, edr: the report's file and edr's folder.
    """

    cwd: str
    project: str | None
    profiles: str | None
    target: str | None
    logs: str | None
    parse: str | None
    report: str
    edr: str


def paths(dbt: DbtConfig, folder: Path, parse_cache: Path) -> DbtPaths:
    """The paths of a step on this host whose own folder is `folder` (absolute; target, logs and report go there).

    parse_cache: the shared partial-parse file, used if it exists.
    """
    # Absolute always: with a cached parse, relative ones make dbt look for files in the wrong folder.
    return DbtPaths(
        # dbt is called where a person would call it: relative paths in profiles.yml mean the same as by hand.
        cwd=str(dbt.project),
        project=str(dbt.project),
        profiles=None if dbt.profiles_folder is None else str(dbt.profiles_folder),
        target=str(target(folder)),
        logs=str(folder / "logs"),
        parse=str(parse_cache) if parse_cache.exists() else None,  # dbt refuses the option for a file that is not there
        report=str(report(folder)),
        edr=str(folder / "edr"),
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
    """The command of a dbt step. environment and mask: as for Command. grace and time_limit in seconds."""
    program = dbt.lineage_executable if step.lineage else dbt.executable
    argvs = [(program, step.verb, *_options(dbt, step, paths))]
    if step.report and dbt.edr is not None:
        argvs.append((dbt.edr, "report", *_report_options(dbt, paths)))
    return Command(
        argvs=tuple(argvs),
        cwd=paths.cwd,
        environment=environment,
        interrupt=signal.SIGINT,  # the one signal at which dbt cancels its queries and writes what it has
        grace=grace,
        time_limit=time_limit,
        mask=mask,
    )


def list_command(dbt: DbtConfig, step: DbtStep, paths: DbtPaths) -> tuple[str, ...]:
    """The command line that lists what a step would run: see runners.dbt_nodes."""
    where = _given(project_dir=paths.project, profiles_dir=paths.profiles, target=dbt.target, log_path=paths.logs)
    parse = _given(target_path=paths.target, partial_parse_file_path=paths.parse)
    plain = ("--log-format=text", "--no-use-colors")
    return (dbt.executable, "ls", *dbt_nodes.OPTIONS, *plain, *where, *parse, *step.arguments)


def deps_command(dbt: DbtConfig, step: DbtStep, paths: DbtPaths) -> tuple[str, ...]:
    """The command line that installs the packages of the project, so that it can be listed."""
    where = _given(project_dir=paths.project, profiles_dir=paths.profiles, target=dbt.target, log_path=paths.logs)
    variables = (argument for argument in step.arguments if argument.startswith(VARIABLES_OPTION))
    return (dbt.executable, "deps", "--no-use-colors", *where, *variables)


def _options(dbt: DbtConfig, step: DbtStep, paths: DbtPaths) -> Iterable[str]:
    yield from _given(project_dir=paths.project, profiles_dir=paths.profiles, target=dbt.target, log_path=paths.logs)
    # One stream serves people and programs: JSON lines in the output, rendered as dbt's own text when they are read.
    yield from ("--log-format=json", "--log-level=info", "--no-quiet", "--no-use-colors")
    # The two above would speak for dbt's own log file too, which people expect to be as detailed as it always is.
    yield from ("--log-format-file=debug", "--log-level-file=debug")
    if step.verb == "deps":
        yield from step.arguments
        return
    yield from _given(target_path=paths.target)
    yield "--write-json"
    yield from _given(threads=dbt.threads, partial_parse_file_path=paths.parse)
    yield from step.arguments
    if not step.elementary:
        yield from dbt.arguments


def _report_options(dbt: DbtConfig, paths: DbtPaths) -> Iterable[str]:
    yield from _given(project_dir=paths.project, profiles_dir=paths.profiles, profile_target=dbt.target)
    yield from _given(target_path=paths.edr, file_path=paths.report)


def _given(**options: object) -> Iterable[str]:
    """Options in their glued form, so that no value can begin another; those without a value are left out."""
    return (f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None)


def environment(base: Mapping[str, str], step: DbtStep, folder: Path) -> Mapping[str, str]:
    """The whole environment of a step on this host."""
    whole = {
        name: value
        for name, value in base.items()
        # Where lineage goes, and whether, is the gateway's to say.
        if not name.startswith("OPENLINEAGE__TRANSPORT")
        and name not in {"OPENLINEAGE_URL", "OPENLINEAGE_DISABLED"}
        and not (step.selective and name in _SELECTING)
    }
    whole = {**VARIABLES, **whole}
    if step.lineage:
        # A file wins over an openlineage.yml in the project, and the file transport can't slow a run down: a receiver
        # that does not answer would cost nine seconds an event.
        whole["OPENLINEAGE_CONFIG"] = str(_lineage_config(folder))
        whole["TQDM_DISABLE"] = "1"
    return whole


def lineage_variables(file: str) -> Mapping[str, str]:
    """What has dbt-ol append its events to a file, where no configuration file of ours can be."""
    return {
        "OPENLINEAGE__TRANSPORT__TYPE": "file",
        "OPENLINEAGE__TRANSPORT__LOG_FILE_PATH": file,
        "OPENLINEAGE__TRANSPORT__APPEND": "true",
    }


def prepare(step: DbtStep, folder: Path) -> None:
    """Write what the step reads from its folder. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    if step.lineage:
        transport = {"type": "file", "log_file_path": str(lineage(folder)), "append": True}
        # JSON is YAML, and quotes whatever a path may hold.
        _lineage_config(folder).write_text(json.dumps({"transport": transport}), encoding="utf-8")


def _lineage_config(folder: Path) -> Path:
    return folder / "openlineage.yml"


def target(folder: Path) -> Path:
    """Where the step's artifacts are."""
    return folder / "target"


def lineage(folder: Path) -> Path:
    """Where the step's OpenLineage events are, one a line."""
    return folder / "lineage.ndjson"


def report(folder: Path) -> Path:
    """Where the step's Elementary report is."""
    return folder / "elementary_report.html"


def parse_cache(folder: Path, dbt: DbtConfig, step: DbtStep) -> Path:
    """The partial-parse file in `folder` that steps of this project, target and variables share."""
    arguments = () if step.elementary else dbt.arguments
    variables = (argument for argument in step.arguments if argument.startswith(VARIABLES_OPTION))
    key = json.dumps([str(dbt.project), str(dbt.profiles_folder), dbt.target, dbt.executable, *arguments, *variables])
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.msgpack"


def keep_parse(folder: Path, cache: Path) -> None:
    """Make the step's partial-parse file the shared one, if that can be: dbt only reads the shared file."""
    with contextlib.suppress(OSError):  # without it the next run parses anew, and is no less true
        cache.parent.mkdir(parents=True, exist_ok=True)
        (target(folder) / "partial_parse.msgpack").replace(cache)
