"""The settings of a fabric: where steps run, and how."""

from __future__ import annotations

import posixpath
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from runners.dbt.command import RESERVED_ARGUMENTS
from runners.mask import has_password

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
# Of a fabric or project; YAML reads one of digits as a number.
Id = Annotated[Name, BeforeValidator(lambda given: str(given) if type(given) is int else given)]
Text = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\x00]+$")]
ServiceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.][A-Za-z0-9_.-]*$")]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
SecretName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_*]*[A-Za-z0-9_][A-Za-z0-9_*]*$")]
Seconds = Annotated[float, Field(gt=0, le=366 * 86400)]


def _not_reserved(argument: str) -> str:
    name = argument.partition("=")[0] if argument.startswith("--") else argument[:2]
    if name in RESERVED_ARGUMENTS:
        raise ValueError(f"{argument} is set by the gateway itself; use the settings of the fabric's dbt")
    return argument


def _in_no_command_line(text: str) -> str:
    if has_password(text):
        raise ValueError("expected no password in it, since all users of a host can read its command lines")
    return text


def _usable(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("expected a path without NUL characters")
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError("expected a path whose user exists") from None


def _place(path: str) -> str:
    normal = posixpath.normpath(path)
    if not normal.startswith("/") or normal.strip("/") == "" or ":" in normal:
        raise ValueError("expected an absolute path in the container, other than / and without a colon")
    return f"/{normal.lstrip('/')}"


HostPath = Annotated[Path, AfterValidator(_usable)]
VariableValue = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
Argument = Annotated[Text, AfterValidator(_in_no_command_line)]
ContainerPath = Annotated[Text, AfterValidator(_place)]


class RunnerName(StrEnum):
    """Where the steps of a fabric run."""

    LOCAL = "local"
    COMPOSE = "compose"


class Section(BaseModel):
    """A part of the configuration: nothing in it is unknown, and nothing changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DbtSettings(Section):
    """How dbt is run in a fabric. Programs are found by path, or by name on PATH."""

    executable: Text = "dbt"
    openlineage_executable: Text = "dbt-ol"
    edr: Text | None = None
    target: Text | None = None
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    profiles_directory: HostPath | None = None
    arguments: tuple[Annotated[Argument, AfterValidator(_not_reserved)], ...] = ()
    grace: Seconds = 10


class ResourceSettings(Section):
    """What the steps of a fabric hold while they run; one name for both where they share a single-writer database."""

    ingester: Name | None = None
    dbt: Name | None = None


_DOCKERS_OWN = ("PATH", "HOME")  # the docker command line looks at these itself


class IngesterServiceSettings(Section):
    """The compose service that brings data in. command: instead of the service's own; idle: `up`, it only waits.

    project: where the project's directory is mounted for jobs of a commit; not given, it is not.
    """

    service: ServiceName = "ingester"
    command: tuple[Argument, ...] = ()
    working_directory: Text | None = None
    project: ContainerPath | None = None
    idle: bool = False
    grace: Seconds = 60  # dlt needs up to 37 s to finish the load jobs it has begun


class DbtServiceSettings(Section):
    """The compose service that has dbt. All paths are the container's.

    project: where the dbt project is mounted for jobs of a commit; not given, where the step runs.
    """

    service: ServiceName = "dbt"
    working_directory: Text | None = None
    project: ContainerPath | None = None
    profiles_directory: Text | None = None
    target_path: Text | None = None
    idle: bool = False


class ComposeSettings(Section):
    """A compose project and how it is reached; what is not given is found as `docker compose` finds it.

    environment: names of variables of the gateway's own that every container is given.
    dependencies: whether the services that a service depends on are started, and recreated where they have changed.
    """

    directory: HostPath = Path()
    files: tuple[HostPath, ...] = ()
    env_files: tuple[HostPath, ...] = ()
    project_name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$")] | None = None
    profiles: tuple[Name, ...] = ()
    context: Name | None = None
    host: Annotated[Argument, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9+.-]*://[^\s\x00]+$")] | None = None
    dependencies: bool = False
    environment: tuple[VariableName, ...] = ()
    ingester: IngesterServiceSettings = IngesterServiceSettings()
    dbt: DbtServiceSettings = DbtServiceSettings()

    @model_validator(mode="after")
    def _one_engine(self) -> ComposeSettings:
        if self.context is not None and self.host is not None:
            raise ValueError("context and host both name an engine; give one of them")
        return self


class FabricSettings(Section):
    """An execution environment: where steps run and with which settings. name: for people, beside its id."""

    name: Text | None = None
    runner: RunnerName = RunnerName.LOCAL
    resources: ResourceSettings = ResourceSettings()
    time_limit: Seconds = 6 * 3600
    environment: dict[VariableName, VariableValue] = {}
    dbt: DbtSettings = DbtSettings()
    compose: ComposeSettings = ComposeSettings()

    @model_validator(mode="after")
    def _compose_is_for_containers(self) -> FabricSettings:
        if "compose" in self.model_fields_set and self.runner is not RunnerName.COMPOSE:
            raise ValueError("compose is only for `runner: compose`")
        if self.runner is RunnerName.COMPOSE and self.dbt.profiles_directory is not None:
            raise ValueError("dbt.profiles_directory is a folder of this host; set compose.dbt.profiles_directory")
        for name in self.environment if self.runner is RunnerName.COMPOSE else ():
            if name in _DOCKERS_OWN or name.startswith(("DOCKER_", "COMPOSE_", "LD_")):
                raise ValueError(f"environment: {name} would be docker's own too; set it in the compose file")
        return self
