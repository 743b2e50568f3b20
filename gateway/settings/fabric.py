"""The settings of a fabric: where steps run, and how."""

from __future__ import annotations

import posixpath
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gateway.settings.expected import in_words
from runners.dbt.command import RESERVED_ARGUMENTS
from runners.mask import has_password
from runners.outcome import StepError

Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        **in_words("at most 64 letters, digits, `_`, `.` and `-`, the first a letter or a digit", "warehouse"),
    ),
]
# Of a fabric or project; YAML reads one of digits as a number.
Id = Annotated[
    Name,
    BeforeValidator(lambda given: str(given) if type(given) is int else given, json_schema_input_type=Name | int),
]
Text = Annotated[str, Field(pattern=r"^[^\x00]+$", **in_words("a text, not empty and without NUL", "warehouse"))]
ServiceName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_.][A-Za-z0-9_.-]*$",
        **in_words("letters, digits, `_`, `.` and `-`, the first not `-`", "ingester"),
    ),
]
VariableName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        **in_words("letters, digits and `_`, the first not a digit", "DATABASE_HOST"),
    ),
]
SecretName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_*]*[A-Za-z0-9_][A-Za-z0-9_*]*$",
        **in_words("letters, digits, `_` and `*`, and not `*` alone", "*PASSWORD*"),
    ),
]
Seconds = Annotated[float, Field(gt=0, le=366 * 86400)]


def _not_reserved(argument: str) -> str:
    name = argument.partition("=")[0] if argument.startswith("--") else argument[:2]
    if name in RESERVED_ARGUMENTS:
        raise ValueError(f"{argument} is set by the gateway itself; use the settings of the fabric's dbt")
    return argument


def without_password(text: str) -> str:
    """The text, which may be in a command line. Raises ValueError for one with a password."""
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
    if normal.strip("/") == "":
        raise ValueError("expected another path than /")
    return f"/{normal.lstrip('/')}"


HostPath = Annotated[Path, Field(examples=["/srv/shop"]), AfterValidator(_usable)]
VariableValue = Annotated[str, Field(pattern=r"^[^\x00]*$", **in_words("a text without NUL", "value"))]
Argument = Annotated[Text, AfterValidator(without_password)]
ContainerPath = Annotated[
    str,
    Field(pattern=r"^/[^\x00:]+$", **in_words("an absolute path, not / and without `:`", "/app")),
    AfterValidator(_place),
]


class RunnerName(StrEnum):
    """Where the steps of a fabric run."""

    LOCAL = "local"
    COMPOSE = "compose"


class Section(BaseModel):
    """A part of the configuration: nothing in it is unknown, and nothing changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RetrySettings(Section):
    """When a step is tried again."""

    attempts: Annotated[int, Field(ge=1, le=10)] = Field(
        3, description="How often a step is tried at most, the first time included. Without `retries`: once."
    )
    wait: Annotated[float, Field(ge=0, le=86400)] = Field(
        60, description="Seconds between the end of an attempt and the begin of the next one."
    )
    errors: Annotated[tuple[StepError, ...], Field(min_length=1)] = Field(
        (StepError.DATABASE_UNAVAILABLE, StepError.LOCKED, StepError.NETWORK),
        description="After which errors it is tried again: `database_unavailable`, `locked` (by another program), "
        "`network`, `timed_out`, `killed`, or `any`, which a failing test and an error in a model are too.",
        examples=[["locked"]],
    )


class DbtSettings(Section):
    """How dbt is run in a fabric. Programs are found by path, or by name on PATH."""

    executable: Text = Field(
        "dbt", description="The program: a path, or a name that is looked for beside the gateway and on PATH."
    )
    openlineage_executable: Text = Field(
        "dbt-ol", description="The program for steps with OpenLineage, found likewise."
    )
    edr: Text | None = Field(
        None,
        description="Elementary's program, found likewise; with it, the step `elementary` also makes a report.",
        examples=["edr"],
    )
    target: Text | None = Field(None, description="`--target`; unset, dbt's own.", examples=["prod"])
    threads: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None, description="`--threads`; unset, dbt's own.", examples=[4]
    )
    profiles_directory: HostPath | None = Field(None, description="The folder of `profiles.yml`; unset, dbt's own.")
    arguments: tuple[Annotated[Argument, AfterValidator(_not_reserved)], ...] = Field(
        (), description="More words for `dbt build`, `dbt run` and `dbt test`.", examples=[["--full-refresh"]]
    )
    grace: Seconds = Field(
        10, description="Seconds between the signals that stop a dbt step: SIGINT, then SIGTERM, then SIGKILL."
    )
    retries: RetrySettings | None = Field(None, description="When a dbt step is tried again.")


class ResourceSettings(Section):
    """What the steps of a fabric hold while they run."""

    ingester: Name | None = Field(
        None,
        description="The resource that a job with an ingester holds while it runs. Jobs that need the same resource "
        "take turns, on one fabric or on several. Unset: a resource of this fabric's own.",
    )
    dbt: Name | None = Field(
        None,
        description="The same for dbt. Give both one name where they share a database that takes one writer.",
    )


INGESTER_GRACE = (
    "Seconds between SIGTERM and SIGKILL when an ingester is stopped. dlt takes up to 37 s to finish its load jobs."
)
_PROJECT_NAME = Field(
    pattern=r"^[a-z0-9][a-z0-9_-]*$",
    **in_words("lower-case letters, digits, `_` and `-`, the first a letter or a digit", "shop"),
)
_ENGINE = Field(
    pattern=r"^[A-Za-z][A-Za-z0-9+.-]*://[^\s\x00]+$", **in_words("the URL of an engine", "ssh://user@host.example")
)
_DOCKERS_OWN = ("PATH", "HOME")  # the docker command line looks at these itself


class IngesterServiceSettings(Section):
    """The compose service that brings data in."""

    service: ServiceName = Field("ingester", description="The service that the ingester step runs in.")
    command: tuple[Argument, ...] = Field(
        (), description="The command, a list of words; unset, the service's own.", examples=[["python", "ingest.py"]]
    )
    working_directory: Text | None = Field(
        None, description="Where it runs; unset, the service's own.", examples=["/app"]
    )
    project: ContainerPath | None = Field(
        None,
        description="Where the checkout of a commit is mounted. Unset, it is not: the ingester is what its image has, "
        "whatever the commit.",
    )
    idle: bool = Field(False, description="Containers of this service that others started only wait: not a conflict.")
    grace: Seconds = Field(60, description=INGESTER_GRACE)


class DbtServiceSettings(Section):
    """The compose service that has dbt. All paths are the container's."""

    service: ServiceName = Field("dbt", description="The service that dbt steps run in.")
    working_directory: Text | None = Field(
        None, description="The folder of `dbt_project.yml`; unset, the service's own.", examples=["/app"]
    )
    project: ContainerPath | None = Field(
        None, description="Where the checkout of a commit's dbt project is mounted; unset, where dbt runs."
    )
    profiles_directory: Text | None = Field(
        None, description="The folder of `profiles.yml`; unset, dbt's own.", examples=["/app/profiles"]
    )
    target_path: Text | None = Field(
        None, description="Where dbt leaves its results; unset, dbt's own.", examples=["/app/target"]
    )
    idle: bool = Field(False, description="Containers of this service that others started only wait: not a conflict.")


class ComposeSettings(Section):
    """A compose project and how it is reached; what is not given is found as `docker compose` finds it."""

    directory: HostPath = Field(
        Path(), description="The folder in which `docker compose` is called, from the file's folder."
    )
    files: tuple[HostPath, ...] = Field(
        (), description="`--file`, each; unset, the files that Compose finds.", examples=[["compose.yaml"]]
    )
    env_files: tuple[HostPath, ...] = Field(
        (), description="`--env-file`, each; unset, the file that Compose finds.", examples=[[".env"]]
    )
    project_name: Annotated[str, _PROJECT_NAME] | None = Field(
        None, description="`--project-name`; unset, Compose's own."
    )
    profiles: tuple[Name, ...] = Field((), description="`--profile`, each.", examples=[["pipelines"]])
    context: Name | None = Field(
        None, description="Which engine: docker's `--context`; unset, docker's own.", examples=["default"]
    )
    host: Annotated[str, _ENGINE, AfterValidator(without_password)] | None = Field(
        None, description="Which engine: docker's `--host`, instead of a context."
    )
    dependencies: bool = Field(
        False,
        description="Start the services that a service depends on; Compose recreates those that have changed.",
    )
    environment: tuple[VariableName, ...] = Field(
        (),
        description="Names of the gateway's own variables that every container gets. Values are in no command line.",
        examples=[["DATABASE_HOST"]],
    )
    ingester: IngesterServiceSettings = Field(IngesterServiceSettings(), description="The ingester's service.")
    dbt: DbtServiceSettings = Field(DbtServiceSettings(), description="dbt's service.")

    @model_validator(mode="after")
    def _one_engine(self) -> ComposeSettings:
        if self.context is not None and self.host is not None:
            raise ValueError("context and host both name an engine; give one of them")
        return self


class FabricSettings(Section):
    """An execution environment: where steps run and with which settings."""

    name: Text | None = Field(None, description="A name for people; callers use the id.", examples=["Production"])
    runner: RunnerName = Field(
        RunnerName.LOCAL,
        description="Where steps run: `local`, as processes of this host, or `compose`, in containers.",
    )
    resources: ResourceSettings = Field(ResourceSettings(), description="What its steps hold while they run.")
    time_limit: Seconds = Field(6 * 3600, description="Seconds that a step may take.")
    environment: dict[VariableName, VariableValue] = Field(
        default_factory=dict,
        description="Variables for every step, such as those of `env_var()` in `profiles.yml`.",
        examples=[{"DATABASE_HOST": "db.example"}],
    )
    dbt: DbtSettings = Field(DbtSettings(), description="How dbt is run.")
    compose: ComposeSettings = Field(ComposeSettings(), description="The compose project of `runner: compose`.")

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
