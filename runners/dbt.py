"""What dbt steps run: command lines of dbt, dbt-ol and edr, and what a dbt project must have for them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from runners.step import Command
from runners.yaml_file import mapping

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


@dataclass(frozen=True, slots=True)
class Dbt:
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
    """One dbt step: its subcommand and selection.

    lineage: through dbt-ol. elementary: these are Elementary's models, and there must be some. report: edr comes after.
    """

    verb: str
    selection: tuple[str, ...] = ()
    lineage: bool = False
    elementary: bool = False
    report: bool = False


def command(
    dbt: Dbt,
    step: DbtStep,
    *,
    folder: Path,
    parse_cache: Path,
    environment: Mapping[str, str],
    grace: float,
    time_limit: float,
) -> Command:
    """The command of a dbt step whose own folder is `folder` (absolute; target, logs and lineage go there).

    parse_cache: the shared partial-parse file, used if it exists.
    environment: what the step gets besides dbt's own variables. grace and time_limit: of the command, seconds.
    """
    program = dbt.lineage_executable if step.lineage else dbt.executable
    # dbt finds its project from the folder it is called in as a person would call it: relative paths in profiles.yml
    # mean the same as by hand.
    argvs = [(program, step.verb, *_options(dbt, step, folder, parse_cache))]
    if step.report and dbt.edr is not None:
        argvs.append((dbt.edr, "report", *_report_options(dbt, folder)))
    return Command(
        argvs=tuple(argvs),
        cwd=str(dbt.project),
        environment=_environment(environment, step, folder),
        interrupt=signal.SIGINT,  # the one signal at which dbt cancels its queries and writes what it has
        grace=grace,
        time_limit=time_limit,
    )


def _options(dbt: Dbt, step: DbtStep, folder: Path, parse_cache: Path) -> Iterable[str]:
    # Absolute paths always: with a cached parse, relative ones make dbt look for files in the wrong folder.
    yield f"--project-dir={dbt.project}"
    if dbt.profiles_folder is not None:
        yield f"--profiles-dir={dbt.profiles_folder}"
    if dbt.target is not None:
        yield f"--target={dbt.target}"
    yield f"--log-path={folder / 'logs'}"
    # One stream serves people and programs: JSON lines in the output, rendered as dbt's own text when they are read.
    yield from ("--log-format=json", "--log-level=info", "--no-quiet", "--no-use-colors")
    # The two above would speak for dbt's own log file too, which people expect to be as detailed as it always is.
    yield from ("--log-format-file=debug", "--log-level-file=debug")
    if step.verb == "deps":
        return
    yield f"--target-path={target(folder)}"
    yield "--write-json"
    if dbt.threads is not None:
        yield f"--threads={dbt.threads}"
    if parse_cache.exists():  # dbt refuses the option for a file that is not there
        yield f"--partial-parse-file-path={parse_cache}"
    yield from step.selection
    if not step.elementary:
        yield from dbt.arguments


def _report_options(dbt: Dbt, folder: Path) -> Iterable[str]:
    yield f"--project-dir={dbt.project}"
    if dbt.profiles_folder is not None:
        yield f"--profiles-dir={dbt.profiles_folder}"
    if dbt.target is not None:
        yield f"--profile-target={dbt.target}"
    yield f"--target-path={folder / 'edr'}"
    yield f"--file-path={report(folder)}"


def _environment(base: Mapping[str, str], step: DbtStep, folder: Path) -> Mapping[str, str]:
    environment = {
        name: value
        for name, value in base.items()
        # Where lineage goes, and whether, is the gateway's to say.
        if not name.startswith("OPENLINEAGE__TRANSPORT") and name not in {"OPENLINEAGE_URL", "OPENLINEAGE_DISABLED"}
    }
    environment.setdefault("DO_NOT_TRACK", "1")
    environment.setdefault("EDR_REPORT_OPEN_BROWSER", "false")
    if step.lineage:
        # A file wins over an openlineage.yml in the project, and the file transport can't slow a run down: a receiver
        # that does not answer would cost nine seconds an event.
        environment["OPENLINEAGE_CONFIG"] = str(_lineage_config(folder))
        environment["TQDM_DISABLE"] = "1"
    return environment


def prepare(step: DbtStep, folder: Path) -> None:
    """Write what the step reads from its folder. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    if step.lineage:
        transport = {"type": "file", "log_file_path": str(folder / "lineage.ndjson"), "append": True}
        # JSON is YAML, and quotes whatever a path may hold.
        _lineage_config(folder).write_text(json.dumps({"transport": transport}), encoding="utf-8")


def _lineage_config(folder: Path) -> Path:
    return folder / "openlineage.yml"


def target(folder: Path) -> Path:
    """Where the step's artifacts are."""
    return folder / "target"


def report(folder: Path) -> Path:
    """Where the step's Elementary report is."""
    return folder / "elementary_report.html"


def parse_cache(folder: Path, dbt: Dbt, step: DbtStep) -> Path:
    """The partial-parse file in `folder` that steps of this project, target and variables share."""
    arguments = () if step.elementary else dbt.arguments
    key = json.dumps([str(dbt.project), str(dbt.profiles_folder), dbt.target, dbt.executable, *arguments])
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.msgpack"


def keep_parse(folder: Path, cache: Path) -> None:
    """Make the step's partial-parse file the shared one, if that can be: dbt only reads the shared file."""
    with contextlib.suppress(OSError):  # without it the next run parses anew, and is no less true
        cache.parent.mkdir(parents=True, exist_ok=True)
        (target(folder) / "partial_parse.msgpack").replace(cache)


def files(dbt: Dbt, environment: Mapping[str, str]) -> tuple[Path, Path]:
    """The project file and the profiles file that dbt will read with this environment."""
    folder = dbt.profiles_folder or _dbts_own_profiles_folder(dbt.project, environment)
    return dbt.project / "dbt_project.yml", folder / "profiles.yml"


def problem(dbt: Dbt, environment: Mapping[str, str]) -> str | None:
    """Why dbt could not even load this project, as a sentence that says what to do; None if nothing is wrong.

    Looks at files only, as dbt would find them with this environment.
    """
    project_file, profiles_file = files(dbt, environment)
    project = mapping(project_file) or f"{project_file}: is empty"
    if isinstance(project, str):
        return f"The dbt project can't be read: {project}; set `dbt` of the project to the folder of dbt_project.yml."
    profiles = mapping(profiles_file) or f"{profiles_file}: is empty"
    if isinstance(profiles, str):
        return f"The dbt profile can't be read: {profiles}; set profiles_directory of the fabric's dbt."
    return _profile_problem(project, profiles, profiles_file, environment, dbt.target)


def _profile_problem(
    project: Mapping[str, object],
    profiles: Mapping[str, object],
    file: Path,
    environment: Mapping[str, str],
    wanted_target: str | None,
) -> str | None:
    name = environment.get("DBT_PROFILE") or project.get("profile")
    if not _is_literal(name):
        return None
    profile = profiles.get(str(name))
    if not isinstance(profile, dict):
        return f"The profile {name!r} of the dbt project is not in {file}; it has {_names(profiles)}."
    outputs = profile.get("outputs")
    chosen = wanted_target or environment.get("DBT_TARGET") or profile.get("target") or "default"
    if isinstance(outputs, dict) and _is_literal(chosen) and chosen not in outputs:
        return f"The profile {name!r} in {file} has no target {chosen!r}; it has {_names(outputs)}."
    return None


def _is_literal(value: object) -> bool:
    """Whether dbt takes the value as it stands; a Jinja expression only dbt can resolve."""
    return isinstance(value, str) and "{{" not in value


def _names(mapping: Mapping[str, object]) -> str:
    return ", ".join(str(key) for key in mapping if key != "config") or "none"


def _dbts_own_profiles_folder(project: Path, environment: Mapping[str, str]) -> Path:
    configured = environment.get("DBT_PROFILES_DIR")
    if configured:
        return project / configured
    return Path(environment.get("HOME") or os.path.expanduser("~")) / ".dbt"  # noqa: PTH111, HOME decides in dbt too


def has_elementary(project: Path) -> bool:
    """Whether the project has the Elementary package, installed or declared."""
    settings = mapping(project / "dbt_project.yml")
    install_path = settings.get("packages-install-path") if not isinstance(settings, str) else None
    installed = project / str(install_path or "dbt_packages") / "elementary" / "dbt_project.yml"
    return installed.is_file() or any(_is_elementary(project, entry) for entry in _declared_packages(project))


def _declared_packages(project: Path) -> Iterable[Mapping[str, object]]:
    for name in ("packages.yml", "dependencies.yml"):
        declared = mapping(project / name)
        packages = declared.get("packages") if not isinstance(declared, str) else None
        if isinstance(packages, list):
            yield from (entry for entry in packages if isinstance(entry, dict))


def _is_elementary(project: Path, entry: Mapping[str, object]) -> bool:
    if "local" in entry:
        package = mapping(project / str(entry["local"]) / "dbt_project.yml")
        return not isinstance(package, str) and package.get("name") == "elementary"
    source = str(entry.get("package") or entry.get("git") or entry.get("tarball") or "")
    last = source.removesuffix("/").removesuffix(".git").rpartition("/")[2]
    # Its repository is dbt-data-reliability; the package is named elementary wherever it comes from.
    return "elementary" in (last, entry.get("name")) or last == "dbt-data-reliability"
