"""The configuration: gateway.yaml and environment variables, validated whole before anything starts."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    ByteSize,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from gateway.errors import ConfigError
from gateway.settings import notify, refusals
from gateway.settings.expected import KEY, in_words
from gateway.settings.fabric import FabricSettings, HostPath, Id, Name, RunnerName, Seconds, SecretName, Section, Text
from gateway.settings.notify import NotifySettings
from gateway.settings.project import ProjectSettings, resolve
from runners import yaml_file
from runners.mask import USUAL_NAMES, Mask

DEFAULT_FILE = Path("gateway.yaml")
_MISNAMED_FILES = ("gateway.yml", "gateway.yaml.txt", "gateway.json")  # which would be ignored in silence
_COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_NAMES_COMPOSE_FILE = re.compile(r"^\s*(?:export\s+)?COMPOSE_FILE\s*=\s*\S", re.MULTILINE)
_PREFIX = "GATEWAY_"
# What else would be given to dbt twice, and the last would win, or all be added up.
_SELECTING = ("--vars", "--select", "-s", "--model", "-m", "--exclude", "--selector", "--resource-type")
# Variables with a name of their own; every other setting is GATEWAY_<KEY>.
VARIABLES = {
    "PIPELINE_ENABLED": "enabled",
    "ENABLE_OPENLINEAGE": "enable_openlineage",
    "ENABLE_ELEMENTARY": "enable_elementary",
    "HOST": "host",
    "PORT": "port",
    "JOB_TTL": "job_ttl",
    "STATE_DIRECTORY": "state_directory",
}


def _address(host: str) -> str:
    try:
        return host if host == "localhost" else str(ipaddress.ip_address(host))
    except ValueError:
        raise ValueError("expected localhost or an address of IPv4 or IPv6") from None


_PUBLIC_URL = Field(
    pattern=r"^https?://[^\s\x00/?#@]+(/[^\s\x00?#@]*)?$",
    **in_words("an address that begins with https:// or http://", "https://pipelines.example"),
)


class Settings(Section):
    """Everything that can be configured."""

    enabled: bool = Field(False, description="Take triggers. Without it every trigger is refused with 403.")
    enable_openlineage: bool | None = Field(
        None,
        description="Run `build`, `run` and `test` through dbt-ol where a trigger does not say. Unset: where dbt-ol is "
        "found.",
    )
    enable_elementary: bool | None = Field(
        None,
        description="End `daily` with Elementary where a trigger does not say. Unset: where the project has its "
        "package.",
    )
    host: Annotated[str, AfterValidator(_address)] = Field(
        "localhost", description="The address to listen on; other addresses than loopback need tokens."
    )
    port: Annotated[int, Field(ge=0, le=65535)] = Field(3000, description="The port to listen on; 0 for any free one.")
    allowed_hosts: tuple[Text, ...] = Field(
        (),
        description="Names that a `Host` header may have besides `localhost` and IP addresses.",
        examples=[["pipelines.example"]],
    )
    public_url: Annotated[str, _PUBLIC_URL, AfterValidator(lambda url: url.rstrip("/"))] | None = Field(
        None,
        description="What links in answers and notifications begin with. Unset: the scheme and the `Host` of the "
        "request, and in notifications `http://localhost` with the port.",
    )
    tokens_file: HostPath | None = Field(
        None,
        description="The file with the tokens that let callers in, which other users must not be able to read. Unset, "
        "every program of this host may do everything.",
        examples=["tokens.json"],
    )
    trigger_rate: Annotated[float, Field(gt=0, le=1e6)] = Field(
        10, description="Triggers a second that each token may go on with; refused ones count too."
    )
    trigger_burst: Annotated[int, Field(ge=1, le=10**6)] = Field(
        50, description="Triggers that each token may send at once, before `trigger_rate` slows it down."
    )
    state_directory: HostPath = Field(
        Path(".pipeline-gateway"), description="The database, the jobs and their output; used by one gateway at a time."
    )
    job_ttl: Seconds = Field(3600, description="Seconds that an ended job stays in the data-analytics API.")
    record_days: Annotated[float, Field(gt=0, le=36500)] = Field(
        30, description="Days that the record of a job is kept."
    )
    output_cap: Annotated[ByteSize, Field(ge=64 * 1024)] = Field(
        ByteSize(64 * 2**20), description="Output kept of each job; the oldest part is removed first."
    )
    state_cap: Annotated[ByteSize, Field(ge=2**20)] = Field(
        ByteSize(4 * 2**30),
        description="Size of the files of all jobs together; those of the oldest ended jobs go first.",
    )
    free_disk_floor: ByteSize = Field(
        ByteSize(64 * 2**20), description="Free disk space below which triggers are refused with 507."
    )
    ingester_failure: Literal["stop", "continue"] = Field(
        "stop", description="What follows an ingester's non-zero exit code; with `continue`, dbt runs all the same."
    )
    secrets: tuple[SecretName, ...] = Field(
        USUAL_NAMES,
        description="Names of variables whose values are masked; `*` stands for anything. A list of your own replaces "
        "this one.",
    )
    fabrics: Annotated[dict[Name, FabricSettings], Field(min_length=1)] = Field(
        default_factory=lambda: {"local": FabricSettings()},
        description="Where steps run, by id.",
        examples=[{"local": {"runner": "local"}}],
    )
    projects: Annotated[dict[Name, ProjectSettings], Field(min_length=1)] = Field(
        default_factory=lambda: {"default": ProjectSettings()},
        description="What runs, by id.",
        examples=[{"shop": {"directory": "."}}],
    )
    notify: tuple[NotifySettings, ...] = Field(
        (),
        description="Who is told of jobs, and of which.",
        examples=[[{"webhook": {"url_variable": "SLACK_URL", "preset": "slack"}}]],
    )
    default_fabric: Id = Field(
        "",
        description="The fabric of triggers that name none. Needed only where there are several.",
        examples=["local"],
    )
    default_project: Id = Field(
        "",
        description="The project of triggers that name none. Needed only where there are several.",
        examples=["shop"],
    )

    @model_validator(mode="before")
    @classmethod
    def _only_one_is_the_default(cls, values: Any) -> Any:
        """Where there is one fabric, or one project, it is the default without being named."""
        if not isinstance(values, dict):
            return values
        chosen = dict(values)
        for key, among, fallback in (("fabric", "fabrics", "local"), ("project", "projects", "default")):
            named = values.get(among)
            names = list(named) if isinstance(named, dict) else [fallback]
            if f"default_{key}" not in values and len(names) == 1:
                chosen[f"default_{key}"] = str(names[0])
        return chosen

    @model_validator(mode="after")
    def _defaults_exist(self) -> Settings:
        for key, chosen, names in (
            ("default_fabric", self.default_fabric, list(self.fabrics)),
            ("default_project", self.default_project, list(self.projects)),
        ):
            if chosen not in names:
                raise ValueError(f"{key}: expected one of {', '.join(names)}, found {chosen!r}")
        return self

    @model_validator(mode="after")
    def _projects_fit_their_fabrics(self) -> Settings:
        for name, project in self.projects.items():
            for fabric in self.fabrics_of(name):
                if fabric not in self.fabrics:
                    known = ", ".join(self.fabrics)
                    raise ValueError(f"projects.{name}.fabrics: expected some of {known}, found {fabric!r}")
                asked = _selects(self.fabrics[fabric])
                if asked is not None and any(pipeline.dbt is not None for pipeline in project.pipelines.values()):
                    raise ValueError(
                        f"fabrics.{fabric}.dbt.arguments: {asked} would change what the pipelines of the project "
                        f"{name} run; say it in their own settings, or give the project other `fabrics`"
                    )
        if self.default_fabric not in self.fabrics_of(self.default_project):
            raise ValueError(
                f"default_fabric: {self.default_fabric} is none of the fabrics of the project {self.default_project}"
            )
        return self

    @model_validator(mode="after")
    def _receivers_differ(self) -> Settings:
        notify.check(self.notify, {name for project in self.projects.values() for name in project.pipelines})
        return self

    @property
    def link_base(self) -> str:
        """What links in notifications begin with."""
        return self.public_url or f"http://localhost:{self.port}"

    def fabrics_of(self, project: str) -> tuple[str, ...]:
        """The fabrics that a project may run on."""
        return self.projects[project].fabrics or tuple(self.fabrics)

    def environments(self, environment: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
        """All that secrets may be in: this environment, which is the gateway's own, and those of the configuration."""
        yield environment
        yield from (fabric.environment for fabric in self.fabrics.values())
        yield from (project.ingester.environment for project in self.projects.values() if project.ingester)

    def mask(self, environment: Mapping[str, str]) -> Mask:
        """Knows every secret of the configuration and of the gateway's own environment."""
        names = (*self.secrets, *(name for one in self.notify for name in one.secret_names))
        return functools.reduce(Mask.with_secrets_of, self.environments(environment), Mask(names))

    def resources(self, fabric: str) -> tuple[str, str]:
        """The resources of a fabric's ingester and dbt steps."""
        named = self.fabrics[fabric].resources
        return named.ingester or f"{fabric}.ingester", named.dbt or f"{fabric}.dbt"


def load(file: Path | None, environment: Mapping[str, str]) -> Settings:
    """The settings of a file (gateway.yaml of this folder, if there is one) under those of the environment.

    All paths are absolute.

    Raises ConfigError with one line per mistake: which key, what was expected, what was found.
    """
    misnamed = [] if file is not None else [name for name in _MISNAMED_FILES if Path(name).exists()]
    if misnamed:
        raise ConfigError(f"{misnamed[0]}: is not read: rename it to {DEFAULT_FILE}, or name it with --config")
    source = file or DEFAULT_FILE
    content = _content(source) if file is not None or source.exists() else _without_a_file(environment)
    try:
        settings = Settings.model_validate({**content, **dict(_from_environment(environment))})
    except ValidationError as error:
        own = content.get("secrets")
        mask = Mask((*USUAL_NAMES, *(map(str, own) if isinstance(own, list) else ())))
        raise ConfigError("\n".join(_sentence(source, problem, mask) for problem in error.errors())) from None
    return _absolute(settings, source.absolute().parent)


def _content(file: Path) -> dict[str, Any]:
    content = yaml_file.read_mapping(file, unique_keys=True)
    if isinstance(content, str):
        raise ConfigError(content)
    return {key: _string_keys(value) for key, value in content.items()}


def _without_a_file(environment: Mapping[str, str]) -> dict[str, Any]:
    """In the folder of a compose project, steps run in its services; else as processes of this host."""
    named = environment.get("COMPOSE_FILE") or _NAMES_COMPOSE_FILE.search(_text(Path(".env")))
    if named or any(Path(name).is_file() for name in _COMPOSE_FILES):
        return {"fabrics": {"compose": {"runner": "compose"}}}
    return {}


def _text(file: Path) -> str:
    with contextlib.suppress(OSError):
        return file.read_text("utf-8", "replace")
    return ""


def _string_keys(value: Any) -> Any:
    """Ids of fabrics and projects may be written as numbers."""
    if isinstance(value, dict):
        return {str(key): _string_keys(item) for key, item in value.items()}
    return value


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """Settings by variable; an empty variable is not given."""
    for variable, value in environment.items():
        if not value:
            continue
        if variable == "STATE_DIRECTORY":
            yield "state_directory", value.partition(":")[0]  # systemd separates several; the first is ours
        elif variable in VARIABLES:
            yield VARIABLES[variable], value
        elif variable.startswith(_PREFIX):
            yield _other_setting(variable, value)


def _other_setting(variable: str, value: str) -> tuple[str, Any]:
    key = variable.removeprefix(_PREFIX).lower()
    if key not in Settings.model_fields:
        raise ConfigError(f"{variable}: there is no such setting")
    if key in VARIABLES.values():
        own = next(name for name, setting in VARIABLES.items() if setting == key)
        raise ConfigError(f"{variable}: this setting has a variable of its own, {own}")
    try:
        return key, _string_keys(yaml_file.load(value, unique_keys=True))
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{variable}: {yaml_file.describe_error(error)}") from None


def _sentence(source: Path, problem: ErrorDetails, mask: Mask) -> str:
    where = ".".join(str(part) for part in problem["loc"] if part != KEY)
    variables = [name for name, key in VARIABLES.items() if key == where]
    variables = variables or [f"{_PREFIX}{where.partition('.')[0].upper()}"]
    if not where:
        return f"{source}: {problem['msg'].removeprefix('Value error, ')}"
    is_secret = problem["loc"][-1] == "repository"  # it may have a password or a token in it
    is_secret |= "environment" in problem["loc"] and mask.is_secret(str(problem["loc"][-1]))
    wrong = refusals.sentence(Settings, problem, mask.masked(problem["input"]), is_secret=is_secret)
    if problem["type"] == "extra_forbidden":
        return f"{source}: {where}: {wrong}"
    return f"{source} or {variables[0]}: {where}: {wrong}"


def _selects(fabric: FabricSettings) -> str | None:
    """The argument of a fabric's dbt that says what is run, which a pipeline says itself."""
    return next((argument for argument in fabric.dbt.arguments if argument.startswith(_SELECTING)), None)


def _absolute(settings: Settings, base: Path) -> Settings:
    """All paths made absolute: from the file's folder, or the project's where they belong to one."""

    def fabric(given: FabricSettings) -> FabricSettings:
        return _absolute_compose(base, given) if given.runner is RunnerName.COMPOSE else _absolute_local(base, given)

    return settings.model_copy(
        update={
            "state_directory": resolve(base, settings.state_directory),
            "tokens_file": None if settings.tokens_file is None else resolve(base, settings.tokens_file),
            "fabrics": {name: fabric(given) for name, given in settings.fabrics.items()},
            "notify": tuple(given.resolved(base) for given in settings.notify),
            "projects": {name: given.resolved(base) for name, given in settings.projects.items()},
        }
    )


def _absolute_local(base: Path, given: FabricSettings) -> FabricSettings:
    dbt = given.dbt
    programs = {
        key: str(resolve(base, Path(program)))
        for key in ("executable", "openlineage_executable", "edr")
        if (program := getattr(dbt, key)) is not None and "/" in program
    }
    profiles = dbt.profiles_directory
    folder = None if profiles is None else resolve(base, profiles)
    return given.model_copy(update={"dbt": dbt.model_copy(update={"profiles_directory": folder, **programs})})


def _absolute_compose(base: Path, given: FabricSettings) -> FabricSettings:
    """The paths of dbt are the container's, and stay as they are."""
    compose = given.compose
    update = {
        "directory": resolve(base, compose.directory),
        "files": tuple(resolve(base, file) for file in compose.files),
        "env_files": tuple(resolve(base, file) for file in compose.env_files),
    }
    return given.model_copy(update={"compose": compose.model_copy(update=update)})
