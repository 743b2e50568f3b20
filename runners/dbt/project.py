"""Checks of a dbt project on this host, by its files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from runners.dbt import variables as dbt_variables
from runners.dbt.command import DbtConfig
from runners.yaml_file import read_mapping

_PACKAGES = ("packages.yml", "dependencies.yml")
DEFAULT_TARGET = "default"  # of a profile that names none


def files(dbt: DbtConfig, environment: Mapping[str, str]) -> tuple[Path, Path]:
    """The project file and the profiles file that dbt reads with this environment."""
    folder = dbt_variables.profiles_folder(dbt.profiles, dbt.project, environment)
    return dbt.project / "dbt_project.yml", folder / "profiles.yml"


def problem(dbt: DbtConfig, environment: Mapping[str, str]) -> str | None:
    """Why dbt can't load this project, as a sentence that says what to do; None if no problem is found.

    environment: of dbt, whose variables decide which files dbt reads. Runs no program.
    """
    project_file, profiles_file = files(dbt, environment)
    project = read_mapping(project_file) or f"{project_file}: is empty"
    if isinstance(project, str):
        return f"The dbt project can't be read: {project}; set `dbt` of the project to the folder of dbt_project.yml."
    profiles = read_mapping(profiles_file) or f"{profiles_file}: is empty"
    if isinstance(profiles, str):
        return f"The dbt profile can't be read: {profiles}; set profiles_directory of the fabric's dbt."
    return _profile_problem(dbt.with_choices(environment), project, profiles, profiles_file)


def _profile_problem(
    chosen: DbtConfig, project: Mapping[str, object], profiles: Mapping[str, object], file: Path
) -> str | None:
    name = chosen.profile or project.get("profile")
    if not _is_literal(name):
        return None
    profile = profiles.get(str(name))
    if not isinstance(profile, dict):
        return f"The profile {name!r} of the dbt project is not in {file}; it has {_names(profiles)}."
    outputs = profile.get("outputs")
    target = chosen.target or profile.get("target") or DEFAULT_TARGET
    if isinstance(outputs, dict) and _is_literal(target) and target not in outputs:
        return f"The profile {name!r} in {file} has no target {target!r}; it has {_names(outputs)}."
    return None


def _is_literal(value: object) -> bool:
    """Whether the value is a string without Jinja, which only dbt can evaluate."""
    return isinstance(value, str) and "{{" not in value


def _names(mapping: Mapping[str, object]) -> str:
    return ", ".join(str(key) for key in mapping if key != "config") or "none"


def make_own_target(project: Path, environment: Mapping[str, str]) -> None:
    """Make the target folder that dbt would make by itself, although the step has one of its own.

    A project may have its database in there. environment: of dbt.
    """
    settings = read_mapping(project / "dbt_project.yml")
    configured = None if isinstance(settings, str) else settings.get("target-path")
    chosen = dbt_variables.value(environment, "TARGET_PATH") or configured or "target"
    if _is_literal(chosen):
        with contextlib.suppress(OSError):  # where the database needs the folder, dbt says so
            (project / str(chosen)).mkdir(parents=True, exist_ok=True)


def has_elementary(project: Path) -> bool:
    """Whether the project has the Elementary package, installed or declared."""
    installed = _install_folder(project) / "elementary" / "dbt_project.yml"
    return installed.is_file() or any(_is_elementary(project, entry) for entry in _declared_packages(project))


def lacks_packages(project: Path) -> bool:
    """Whether `dbt deps` must run first: the project declares more packages than it has, as dbt itself counts them."""
    declared = [read_mapping(project / name) for name in _PACKAGES if (project / name).is_file()]
    installed = _install_folder(project)
    found = [package for package in installed.iterdir() if package.is_dir()] if installed.is_dir() else []
    if any(isinstance(one, str) for one in declared):  # only dbt can read it
        return not found
    return len(list(_declared_packages(project))) > len(found)


def _install_folder(project: Path) -> Path:
    settings = read_mapping(project / "dbt_project.yml")
    configured = settings.get("packages-install-path") if not isinstance(settings, str) else None
    return project / str(configured or "dbt_packages")


def _declared_packages(project: Path) -> Iterable[Mapping[str, object]]:
    for name in _PACKAGES:
        declared = read_mapping(project / name)
        packages = declared.get("packages") if not isinstance(declared, str) else None
        if isinstance(packages, list):
            yield from (entry for entry in packages if isinstance(entry, dict))


def _is_elementary(project: Path, entry: Mapping[str, object]) -> bool:
    if "local" in entry:
        package = read_mapping(project / str(entry["local"]) / "dbt_project.yml")
        return not isinstance(package, str) and package.get("name") == "elementary"
    source = str(entry.get("package") or entry.get("git") or entry.get("tarball") or "")
    last = source.removesuffix("/").removesuffix(".git").rpartition("/")[2]
    # The package is named elementary, its repository dbt-data-reliability.
    return "elementary" in (last, entry.get("name")) or last == "dbt-data-reliability"
