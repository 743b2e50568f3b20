"""The settings of a project: where its code is, what brings its data in, and the pipelines it offers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gateway.settings.expected import in_words
from gateway.settings.fabric import (
    INGESTER_GRACE,
    Argument,
    HostPath,
    Id,
    Name,
    ResourceSettings,
    RetrySettings,
    Seconds,
    Section,
    Text,
    VariableName,
    VariableValue,
    without_password,
)
from runners import ingester, parameters
from runners.dbt import arguments as dbt_arguments
from runners.dbt.arguments import Flag
from runners.git import refs as git_refs
from runners.parameters import Parameter, ParameterType

# Stands for the folder of a repository in paths until a commit is checked out.
CHECKOUT = Path("/checkout")
_REMOTE = re.compile(r"https://.+|ssh://.+|[A-Za-z0-9_.-]+@[A-Za-z0-9_.-]+:.+")  # git@github.com:shop/lakehouse.git


def _repository(text: str) -> str:
    without_password(text)
    if "://" in text and not _REMOTE.fullmatch(text):
        raise ValueError("expected https://…, ssh://…, user@host:path or a path of this host")
    if text.startswith("https://") and "@" in text.split("/")[2]:
        raise ValueError(
            "expected no user or token in it, since all users of a host can read its command lines: "
            "give it to git's credential.helper"
        )
    return text


def _selection(text: str) -> str:
    dbt_arguments.select(text)
    return text


def _branch(name: str) -> str:
    git_refs.branch_ref(name)
    return name


def _plain(value: Any) -> Any:
    """YAML reads dates by itself."""
    if type(value) is date:
        return value.isoformat()
    if not isinstance(value, bool | int | float | str):
        raise ValueError("expected a text, a number, a date, true or false")  # noqa: TRY004 - pydantic takes this
    return value


_REPOSITORY = Field(
    pattern=r"^[^-\s\x00][^\x00]*$",
    **in_words("https://…, ssh://…, user@host:path or a path of this host", "https://git.example/shop.git"),
)
Selection = Annotated[Text, AfterValidator(_selection)]
Option = Annotated[str, AfterValidator(ingester.check_option)]
Scalar = Annotated[bool | int | float | str, BeforeValidator(_plain)]


class IngesterSettings(Section):
    """The command that brings data in."""

    command: Annotated[tuple[Argument, ...], Field(min_length=1)] = Field(
        description="The command, a list of words; no shell reads it. Exit code 0 means that it is done.",
        examples=[["python", "ingest.py"]],
    )
    directory: HostPath | None = Field(None, description="Where it runs; unset, the project's directory.")
    environment: dict[VariableName, VariableValue] = Field(
        default_factory=dict,
        description="Variables that it gets besides those of the gateway and of the fabric.",
        examples=[{"SOURCE": "orders"}],
    )
    grace: Seconds = Field(60, description=f"{INGESTER_GRACE} For containers, set `compose.ingester.grace`.")
    retries: RetrySettings | None = Field(
        None, description="When the ingester is tried again. It must be able to run twice."
    )


class ParameterSettings(Section):
    """A parameter of a pipeline, and where its value goes."""

    type: ParameterType = Field(
        ParameterType.STRING, description="`string`, `integer`, `number`, `boolean` or `date` (2026-01-31)."
    )
    default: Scalar | None = Field(
        None,
        description="Its value where a request gives none. Without a value the parameter is not passed on.",
        examples=["2026-01-31"],
    )
    required: bool = Field(False, description="A request must give it a value; then it has no `default`.")
    minimum: Scalar | None = Field(None, description="The lowest value that is taken.", examples=["2026-01-01"])
    maximum: Scalar | None = Field(None, description="The highest value that is taken.", examples=["2026-12-31"])
    choices: tuple[Scalar, ...] | None = Field(
        None, description="The only values that are taken.", examples=[["orders", "returns"]]
    )
    variable: VariableName | None = Field(
        None,
        description="The dbt variable that gets the value. With neither this nor `option` nor `flag`: that of its own "
        "name.",
        examples=["since"],
    )
    option: Option | None = Field(
        None,
        description="The ingester's option that gets the value, as one word: `--since=2026-01-31`.",
        examples=["--since"],
    )
    flag: Flag | None = Field(
        None,
        description="An option of dbt that a `boolean` parameter switches on where it is true: `--full-refresh` or "
        "`--empty` of build and run, `--store-failures` of build and test, `--fail-fast` or `--warn-error`.",
        examples=["--full-refresh"],
    )

    @property
    def declared(self) -> Parameter:
        """What values it takes."""
        return Parameter(self.type, self.default, self.minimum, self.maximum, self.choices, self.required)


class PipelineDbtSettings(Section):
    """What a pipeline does with dbt: a command over a selection of its nodes."""

    command: Literal["daily", "run", "build", "test"] = Field(
        "daily", description="`daily` (deps, build, Elementary), `run`, `build` or `test`."
    )
    select: Selection | None = Field(
        None,
        description="What dbt selects, in dbt's own words; unset, everything. Tests that need a node which is neither "
        "selected nor upstream of the selection are left out.",
        examples=["tag:daily"],
    )
    exclude: Selection | None = Field(
        None, description="What dbt leaves out, in dbt's own words.", examples=["tag:slow"]
    )


class PipelineSettings(Section):
    """What can be triggered by name: the ingester, dbt, or both."""

    ingester: bool = Field(False, description="Run the project's ingester. A pipeline has this, `dbt`, or both.")
    dbt: PipelineDbtSettings | None = Field(
        None, description="What dbt does, after the ingester; `{}` for its defaults."
    )
    parameters: dict[VariableName, ParameterSettings] = Field(
        default_factory=dict,
        description="The parameters that a request may give, by name.",
        examples=[{"since": {"type": "date"}}],
    )
    time_limit: Seconds | None = Field(
        None,
        description="Seconds that a job of it may take, from the begin of its first step; `timeoutSeconds` of a "
        "trigger may be less. Unset, only each step has a limit, that of its fabric.",
        examples=[7200],
    )
    resources: ResourceSettings = Field(
        ResourceSettings(),
        description="What its steps hold, instead of what the fabric says: two pipelines with resources of their own "
        "run side by side, where their database takes several writers.",
    )
    retries: RetrySettings | None = Field(
        None, description="When each of its steps is tried again, instead of what ingester and fabric say."
    )

    @model_validator(mode="after")
    def _everything_has_a_place(self) -> PipelineSettings:
        if not self.ingester and self.dbt is None:
            raise ValueError("it would do nothing: give `ingester: true`, a `dbt` section, or both")
        targets = [*self.variables().values(), *self.options().values(), *self.flags().values()]
        for name, given in self.parameters.items():
            self._must_take(name, given)
            if given.option is not None and not self.ingester:
                raise ValueError(f"parameters.{name}: the pipeline has no ingester that could take {given.option}")
            if self.variable_of(name) is not None and self.dbt is None:
                raise ValueError(f"parameters.{name}: the pipeline has no dbt; give the ingester's `option` it goes to")
        for target in targets:
            if targets.count(target) > 1:
                raise ValueError(f"parameters: two of them go to {target}")
        declared = self.declared()
        for name, parameter in declared.items():
            parameters.check(name, parameter)
        parameters.resolve_values({name: one for name, one in declared.items() if not one.required}, {})
        return self

    def _must_take(self, name: str, given: ParameterSettings) -> None:
        """Refuse a flag that nothing could take."""
        flag = given.flag
        if flag is None:
            return
        right = f"such as `{name}: {{type: boolean, flag: {flag}}}`"
        if given.type is not ParameterType.BOOLEAN:
            raise ValueError(f"parameters.{name}: {flag} is switched on or off; make it a boolean, {right}")
        if self.dbt is None:
            raise ValueError(
                f"parameters.{name}: the pipeline has no dbt that could take {flag}; add `dbt: {{}}` to it"
            )
        commands = dbt_arguments.FLAG_COMMANDS[flag]
        command = "build" if self.dbt.command == "daily" else self.dbt.command
        if command not in commands:
            others = ", ".join(other for other in Flag if command in dbt_arguments.FLAG_COMMANDS[other])
            raise ValueError(
                f"parameters.{name}: `dbt {command}` takes no {flag}; it takes {others}, and {flag} is for "
                f"`command: {' or '.join(sorted(commands))}`"
            )

    def declared(self) -> Mapping[str, Parameter]:
        """The parameters by name."""
        return {name: given.declared for name, given in self.parameters.items()}

    def variable_of(self, name: str) -> str | None:
        """The dbt variable that a parameter goes to."""
        given = self.parameters[name]
        return given.variable or (name if given.option is None and given.flag is None else None)

    def variables(self) -> Mapping[str, str]:
        """The dbt variables by the names of their parameters."""
        return {name: variable for name in self.parameters if (variable := self.variable_of(name)) is not None}

    def options(self) -> Mapping[str, str]:
        """The ingester's options by the names of their parameters."""
        return {name: given.option for name, given in self.parameters.items() if given.option is not None}

    def flags(self) -> Mapping[str, Flag]:
        """The flags of dbt by the names of their parameters."""
        return {name: given.flag for name, given in self.parameters.items() if given.flag is not None}


class ProjectSettings(Section):
    """A folder with a dbt project and its pipelines, or a git repository that has one."""

    name: Text | None = Field(
        None, description="A name for people; tags of versions may begin with it.", examples=["Shop"]
    )
    directory: HostPath = Field(
        Path(), description="The project's folder, from the file's folder; with `repository`, a folder in it."
    )
    repository: Annotated[str, _REPOSITORY, AfterValidator(_repository)] | None = Field(
        None, description="A git repository: `https://…`, `ssh://…`, `user@host:path`, or a path of this host."
    )
    branch: Annotated[Text, AfterValidator(_branch)] | None = Field(
        None,
        description="The branch whose head runs where a request names neither branch nor version. A directory without "
        "`branch` and `version` runs as it is.",
        examples=["main"],
    )
    version: Literal["latest"] | None = Field(
        None, description="Instead of `branch`: `latest`, the highest version among the tags."
    )
    fabrics: tuple[Id, ...] = Field((), description="The fabrics that it may run on; unset, all.", examples=[["local"]])
    dbt: HostPath = Field(Path(), description="The folder of `dbt_project.yml`, from `directory`.")
    ingester: IngesterSettings | None = Field(None, description="The command that brings data in.")
    pipelines: dict[Name, PipelineSettings] = Field(
        default_factory=dict,
        description="The pipelines that can be triggered by name.",
        examples=[{"nightly": {"dbt": {}}}],
    )

    @model_validator(mode="after")
    def _one_place(self) -> ProjectSettings:
        if self.branch is not None and self.version is not None:
            raise ValueError("branch and version both say what runs where a request names none; give one of them")
        if self.repository is None:
            return self
        if self.branch is None and self.version is None:
            raise ValueError("repository: give its working `branch` as well, or `version: latest`")
        for key, path in (("directory", self.directory), ("dbt", self.dbt)):
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{key}: expected a folder inside the repository; found {path}")
        return self

    def resolved(self, base: Path) -> ProjectSettings:
        """With absolute paths: the project's directory from `base`, its others from there."""
        repository = self.repository
        if repository is not None and not _REMOTE.fullmatch(repository):
            repository = str(resolve(base, Path(repository).expanduser()))
        directory = resolve(base if repository is None else CHECKOUT, self.directory)
        loader = self.ingester
        if loader is not None:
            folder = resolve(directory, loader.directory or Path())
            loader = loader.model_copy(update={"directory": folder})
        return self.model_copy(
            update={
                "repository": repository,
                "directory": directory,
                "dbt": resolve(directory, self.dbt),
                "ingester": loader,
            }
        )

    def moved(self, top: Path, to: Path) -> ProjectSettings:
        """With all that is in the folder `top` at another place. Paths are absolute."""
        return self.placed(lambda path: to / path.relative_to(top) if path.is_relative_to(top) else path)

    def placed(self, place: Callable[[Path], Path]) -> ProjectSettings:
        """With the place of each of its paths, which are absolute."""
        loader = self.ingester
        if loader is not None and loader.directory is not None:
            loader = loader.model_copy(update={"directory": place(loader.directory)})
        places = {"directory": place(self.directory), "dbt": place(self.dbt)}
        return self.model_copy(update={**places, "ingester": loader})


def resolve(base: Path, path: Path) -> Path:
    """A path from a folder on, without looking at links."""
    return Path(os.path.normpath(base / path))
