"""What the profile of a dbt project says of its database, as far as files and variables tell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runners.dbt import project as dbt_project
from runners.dbt.command import DbtConfig
from runners.yaml_file import read_mapping

_ENV_VAR = re.compile(
    r"""\{\{-?\s* env_var\(\s* (['"])(?P<name>\w+)\1 \s*(?:,\s* (['"])(?P<default>[^'"]*)\3 \s*)?\) \s*-?\}\}""",
    re.VERBOSE,
)
_REQUIRED_VARIABLE = re.compile(r"""\{\{-?\s*env_var\(\s*(['\"])(?P<name>\w+)\1\s*\)\s*(?:\|[^}]*)?-?\}\}""")
_NOT_ON_DISK = re.compile(r"[A-Za-z0-9_]*:")  # such as :memory:, md:warehouse and s3://bucket/file


@dataclass(frozen=True, slots=True)
class Output:
    """The connection that dbt takes. target: its name. file: the profiles.yml. settings: as they are in there."""

    target: str
    file: Path
    settings: Mapping[str, object]

    @property
    def adapter(self) -> str | None:
        """dbt's name of the kind of database, such as `duckdb`."""
        found = self.settings.get("type")
        return found if isinstance(found, str) and "{{" not in found else None

    def files(self, environment: Mapping[str, str]) -> Iterator[str]:
        """The paths of databases that are files, as in the profile, without those that only dbt can evaluate.

        environment: of dbt.
        """
        for path in self._paths():
            text = _rendered(path, environment) if isinstance(path, str) else None
            if text and not _NOT_ON_DISK.match(text):
                yield text

    def _paths(self) -> Iterator[object]:
        """Adapters of databases that are files have them under one of these keys; others have none of them."""
        yield self.settings.get("path")
        attached, by_schema = self.settings.get("attach"), self.settings.get("schemas_and_paths")
        for one in attached if isinstance(attached, list) else ():
            yield one.get("path") if isinstance(one, dict) else None
        yield from by_schema.values() if isinstance(by_schema, dict) else ()


def output(dbt: DbtConfig, environment: Mapping[str, str]) -> Output | None:
    """The connection of a project; None where only dbt itself can find it. environment: of dbt. Runs no program."""
    project_file, profiles_file = dbt_project.files(dbt, environment)
    project, profiles = read_mapping(project_file), read_mapping(profiles_file)
    if isinstance(project, str) or isinstance(profiles, str):
        return None
    chosen = dbt.with_choices(environment)
    profile = profiles.get(_rendered(str(chosen.profile or project.get("profile")), environment) or "")
    outputs = profile.get("outputs") if isinstance(profile, dict) else None
    if not isinstance(profile, dict) or not isinstance(outputs, dict):
        return None
    name = chosen.target or profile.get("target") or dbt_project.DEFAULT_TARGET
    target = _rendered(str(name), environment) or ""
    settings = outputs.get(target)
    return Output(target, profiles_file, settings) if isinstance(settings, dict) else None


def unset_variables(value: object, environment: Mapping[str, str]) -> Iterator[str]:
    """The names of variables that a part of a YAML file needs by `env_var` without a default, and that are not set."""
    match value:
        case str():
            names = (found["name"] for found in _REQUIRED_VARIABLE.finditer(value))
            yield from (name for name in names if name not in environment)
        case dict():
            for item in value.values():
                yield from unset_variables(item, environment)
        case list():
            for item in value:
                yield from unset_variables(item, environment)
        case _:
            return


def _rendered(text: str, environment: Mapping[str, str]) -> str | None:
    """The text with its variables; None for other Jinja, and for variables that are not set."""
    rendered = _ENV_VAR.sub(lambda found: environment.get(found["name"]) or found["default"] or "{{", text)
    return None if "{{" in rendered or "{%" in rendered else rendered
