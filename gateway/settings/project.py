"""The settings of a project: where its code is, what brings its data in, and the pipelines it offers."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from gateway.settings.fabric import Argument, HostPath, Id, Name, Seconds, Section, Text, VariableName, VariableValue
from runners import ingester, parameters
from runners.dbt import arguments as dbt_words
from runners.git import refs as git_words
from runners.parameters import Parameter, ParameterType

# Where the files of a repository are thought to be until they are checked out.
CHECKOUT = Path("/checkout")
_REMOTE = re.compile(r"https://.+|ssh://.+|[A-Za-z0-9_.-]+@[A-Za-z0-9_.-]+:.+")  # git@github.com:shop/lakehouse.git


def _repository(text: str) -> str:
    if "://" in text and not _REMOTE.fullmatch(text):
        raise ValueError("expected https://…, ssh://…, user@host:path or a path of this host")
    if text.startswith("https://") and "@" in text.split("/")[2]:
        raise ValueError(
            "expected no user or token in it, since all users of a host can read its command lines: "
            "give it to git's credential.helper"
        )
    return text


def _selection(text: str) -> str:
    dbt_words.select(text)
    return text


def _branch(name: str) -> str:
    git_words.branch_ref(name)
    return name


def _plain(value: Any) -> Any:
    """YAML reads dates by itself."""
    return value.isoformat() if type(value) is date else value


Selection = Annotated[Text, AfterValidator(_selection)]
Option = Annotated[str, AfterValidator(ingester.check_option)]
Scalar = Annotated[bool | int | float | str, BeforeValidator(_plain)]


class IngesterSettings(Section):
    """The command that brings data in, the folder it runs in, and what its environment has besides the gateway's."""

    command: Annotated[tuple[Argument, ...], Field(min_length=1)]
    directory: HostPath | None = None
    environment: dict[VariableName, VariableValue] = Field(default_factory=dict)
    grace: Seconds = 60  # dlt needs up to 37 s to finish the load jobs it has begun


class ParameterSettings(Section):
    """A parameter of a pipeline, and where it goes: a dbt variable, an option of the ingester, or both.

    Without either it is the dbt variable of its own name. Without a default, and not given, it goes nowhere.
    """

    type: ParameterType = ParameterType.STRING
    default: Scalar | None = None
    minimum: Scalar | None = None
    maximum: Scalar | None = None
    choices: tuple[Scalar, ...] | None = None
    variable: VariableName | None = None
    option: Option | None = None

    @property
    def declared(self) -> Parameter:
        """What values it takes."""
        return Parameter(self.type, self.default, self.minimum, self.maximum, self.choices)


class PipelineDbtSettings(Section):
    """What a pipeline does with dbt: a command over a selection of its nodes."""

    command: Literal["daily", "run", "build", "test"] = "daily"
    select: Selection | None = None
    exclude: Selection | None = None


class PipelineSettings(Section):
    """What can be triggered by name: the ingester, dbt, or both."""

    ingester: bool = False
    dbt: PipelineDbtSettings | None = None
    parameters: dict[VariableName, ParameterSettings] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _everything_has_a_place(self) -> PipelineSettings:
        if not self.ingester and self.dbt is None:
            raise ValueError("it would do nothing: give `ingester: true`, a `dbt` section, or both")
        targets = [*self.variables().values(), *self.options().values()]
        for name, given in self.parameters.items():
            if given.option is not None and not self.ingester:
                raise ValueError(f"parameters.{name}: the pipeline has no ingester that could take {given.option}")
            if self.variable_of(name) is not None and self.dbt is None:
                raise ValueError(f"parameters.{name}: the pipeline has no dbt; give the ingester's `option` it goes to")
        for target in targets:
            if targets.count(target) > 1:
                raise ValueError(f"parameters: two of them go to {target}")
        parameters.resolve_values(self.declared(), {})
        return self

    def declared(self) -> Mapping[str, Parameter]:
        """The parameters by name."""
        return {name: given.declared for name, given in self.parameters.items()}

    def variable_of(self, name: str) -> str | None:
        """The dbt variable that a parameter goes to."""
        given = self.parameters[name]
        return given.variable or (name if given.option is None else None)

    def variables(self) -> Mapping[str, str]:
        """The dbt variables by the names of their parameters."""
        return {name: variable for name in self.parameters if (variable := self.variable_of(name)) is not None}

    def options(self) -> Mapping[str, str]:
        """The ingester's options by the names of their parameters."""
        return {name: given.option for name, given in self.parameters.items() if given.option is not None}


class ProjectSettings(Section):
    """A folder with a dbt project and its pipelines, or a git repository that has one.

    directory: of a repository, the folder in it. branch: what runs where a request names none; a directory without
    it runs as it is. version: `latest` runs the highest version instead. fabrics: where it may run; empty for all.
    """

    name: Text | None = None
    directory: HostPath = Path()
    repository: Annotated[Argument, StringConstraints(pattern=r"^[^-\s]"), AfterValidator(_repository)] | None = None
    branch: Annotated[Text, AfterValidator(_branch)] | None = None
    version: Literal["latest"] | None = None
    fabrics: tuple[Id, ...] = ()
    dbt: HostPath = Path()
    ingester: IngesterSettings | None = None
    pipelines: dict[Name, PipelineSettings] = Field(default_factory=dict)

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

        def there(path: Path) -> Path:
            return to / path.relative_to(top) if path.is_relative_to(top) else path

        loader = self.ingester
        if loader is not None and loader.directory is not None:
            loader = loader.model_copy(update={"directory": there(loader.directory)})
        places = {"directory": there(self.directory), "dbt": there(self.dbt)}
        return self.model_copy(update={**places, "ingester": loader})


def resolve(base: Path, path: Path) -> Path:
    """A path from a folder on, without looking at links."""
    return Path(os.path.normpath(base / path))
