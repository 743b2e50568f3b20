"""Checks of a dbt project on this host, by its files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from runners.dbt.command import DbtConfig
from runners.yaml_file import read_mapping

_PACKAGES = ("packages.yml", "dependencies.yml")


def files(dbt: DbtConfig, environment: Mapping[str, str]) -> tuple[Path, Path]:
    """The project file and the profiles file that dbt reads with this environment."""
    folder = dbt.profiles_folder or _default_profiles_folder(dbt.project, environment)
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
    return _profile_problem(project, profiles, profiles_file, environment, dbt.target)


def _profile_problem(
    project: Mapping[str, object],
    profiles: Mapping[str, object],
    file: Path,
    environment: Mapping[str, str],
    target: str | None,
) -> str | None:
    name = environment.get("DBT_PROFILE") or project.get("profile")
    if not _is_literal(name):
        return None
    profile = profiles.get(str(name))
    if not isinstance(profile, dict):
        return f"The profile {name!r} of the dbt project is not in {file}; it has {_names(profiles)}."
    outputs = profile.get("outputs")
    chosen = target or environment.get("DBT_TARGET") or profile.get("target") or "default"
    if isinstance(outputs, dict) and _is_literal(chosen) and chosen not in outputs:
        return f"The profile {name!r} in {file} has no target {chosen!r}; it has {_names(outputs)}."
    return None


def _is_literal(value: object) -> bool:
    """Whether the value is a string without Jinja, which only dbt can evaluate."""
    return isinstance(value, str) and "{{" not in value


def _names(mapping: Mapping[str, object]) -> str:
    return ", ".join(str(key) for key in mapping if key != "config") or "none"


def _default_profiles_folder(project: Path, environment: Mapping[str, str]) -> Path:
    configured = environment.get("DBT_PROFILES_DIR")
    if configured:
        return project / configured
    return Path(environment.get("HOME") or os.path.expanduser("~")) / ".dbt"  # noqa: PTH111, dbt uses HOME too


def has_elementary(project: Path) -> bool:
    """Whether the project has the Elementary package, installed or declared."""
    settings = read_mapping(project / "dbt_project.yml")
    install_path = settings.get("packages-install-path") if not isinstance(settings, str) else None
    installed = project / str(install_path or "dbt_packages") / "elementary" / "dbt_project.yml"
    return installed.is_file() or any(_is_elementary(project, entry) for entry in _declared_packages(project))


def declares_packages(project: Path) -> bool:
    """Whether the project has a file that may name packages."""
    return any((project / name).is_file() for name in _PACKAGES)


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
