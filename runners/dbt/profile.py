"""What the profile of a dbt project says of its database, as far as files and variables tell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from runners.dbt import project as dbt_project
from runners.dbt.command import DbtConfig
from runners.yaml_file import read_mapping

_ENV_VAR = re.compile(
    r"""\{\{-?\s* env_var\(\s* (['"])(?P<name>\w+)\1 \s*(?:,\s* (['"])(?P<default>[^'"]*)\3 \s*)?\) \s*-?\}\}""",
    re.VERBOSE,
)
_REQUIRED_VARIABLE = re.compile(r"""\{\{-?\s*env_var\(\s*(['\"])(?P<name>\w+)\1\s*\)\s*(?:\|[^}]*)?-?\}\}""")
# What dbt adds to Jinja and dbt-ol does not know. Any other name makes dbt itself fail, before there is any lineage.
_DBTS_OWN = re.compile(
    r"\b(as_bool|as_native|as_text|builtins|dbt_version|diff_of_two_dicts|flags|fromjson|fromyaml|invocation_id"
    r"|local_md5|log|modules|print|return|run_started_at|set_strict|thread_id|tojson|toyaml|var|zip|zip_strict)\b"
)
_LINEAGE_KEYS = ("type", "path", "host", "port", "server", "account")  # of a target, that dbt-ol reads
_JINJA, _QUOTED = re.compile(r"\{[{%].*?[%}]\}", re.DOTALL), re.compile(r"""'[^']*'|"[^"]*\"""")
_NOT_ON_DISK = re.compile(r"[A-Za-z0-9_]*:")  # such as :memory:, md:warehouse and s3://bucket/file


@dataclass(frozen=True, slots=True)
class Output:
    """The connection that dbt takes. target: its name. file: the profiles.yml. settings: as they are in there."""

    target: str
    file: str
    settings: Mapping[str, object] = field(repr=False)  # has passwords

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


@dataclass(frozen=True, slots=True)
class ProfileFiles:
    """What decides a project's connection: dbt_project.yml and profiles.yml. name: of the latter, for people."""

    project: Mapping[str, object]
    profiles: Mapping[str, object] = field(repr=False)  # has passwords
    name: str

    def profile(self, chosen: DbtConfig, environment: Mapping[str, str]) -> Mapping[str, object]:
        """The profile that dbt takes; empty where only dbt itself can find it."""
        name = _rendered(str(chosen.profile or self.project.get("profile")), environment)
        found = None if name is None else self.profiles.get(name)
        return found if isinstance(found, dict) else {}


def read(dbt: DbtConfig, environment: Mapping[str, str]) -> ProfileFiles | None:
    """The files that dbt reads with this environment; None where one of them can't be read."""
    project_file, profiles_file = dbt_project.files(dbt, environment)
    project, profiles = read_mapping(project_file), read_mapping(profiles_file)
    if isinstance(project, str) or isinstance(profiles, str):
        return None
    return ProfileFiles(project, profiles, str(profiles_file))


def output(files: ProfileFiles | None, dbt: DbtConfig, environment: Mapping[str, str]) -> Output | None:
    """The connection of a project; None where only dbt itself can find it. environment: of dbt."""
    if files is None:
        return None
    chosen = dbt.with_choices(environment)
    profile = files.profile(chosen, environment)
    outputs = profile.get("outputs")
    target = _rendered(str(chosen.target or profile.get("target") or dbt_project.DEFAULT_TARGET), environment) or ""
    settings = outputs.get(target) if isinstance(outputs, dict) else None
    return Output(target, files.name, settings) if isinstance(settings, dict) else None


def lineage_config(files: ProfileFiles | None, dbt: DbtConfig, environment: Mapping[str, str]) -> DbtConfig:
    """The configuration for dbt-ol: with the profile and target that dbt takes, which dbt-ol knows as options only.

    dbt takes the target `default` from a profile that names none; there dbt-ol would fail after dbt. A target that
    the profile names is no option: dbt would parse the whole project again.
    """
    chosen = dbt.with_choices(environment)
    profile = {} if files is None else files.profile(chosen, environment)
    is_absent = bool(profile) and "target" not in profile
    return replace(chosen, target=chosen.target or dbt_project.DEFAULT_TARGET) if is_absent else chosen


def lineage_problem(files: ProfileFiles | None, dbt: DbtConfig, environment: Mapping[str, str]) -> str | None:
    """Why dbt-ol would fail after dbt, with what to do: it needs something that only dbt can evaluate."""
    if files is None:
        return None
    chosen = dbt.with_choices(environment)
    if chosen.profile is None and needs_dbt(files.project.get("profile")):
        return _only_dbt("the name of the profile in dbt_project.yml", "set DBT_PROFILE for it")
    if chosen.target is None and needs_dbt(files.profile(chosen, environment).get("target")):
        return _only_dbt(f"the profile's target in {files.name}", "set `target` of the fabric's dbt, as `target: dev`")
    found = output(files, dbt, environment)
    if found is None:
        return None
    key = next((key for key in _LINEAGE_KEYS if needs_dbt(found.settings.get(key))), None)
    return None if key is None else _only_dbt(f"`{key}` of the target in {files.name}", "write it with env_var() alone")


def _only_dbt(what: str, remedy: str) -> str:
    return f"dbt-ol needs {what}, whose Jinja only dbt can evaluate: {remedy}"


def needs_dbt(value: object) -> bool:
    """Whether a value has Jinja that dbt can evaluate and dbt-ol can't."""
    found = _JINJA.findall(value) if isinstance(value, str) else []
    return any(_DBTS_OWN.search(_QUOTED.sub("", expression)) for expression in found)


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

    def value(found: re.Match[str]) -> str:
        default = found["default"]
        return environment.get(found["name"], "{{" if default is None else default)

    rendered = _ENV_VAR.sub(value, text)
    return None if "{{" in rendered or "{%" in rendered else rendered
