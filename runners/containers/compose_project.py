"""The user's compose project: its services, and the command lines that run them."""

from __future__ import annotations

import json
import posixpath
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from runners.containers.docker import Docker, EngineUnreachableError
from runners.containers.docker_errors import explain
from runners.containers.identity import INSTANCE_LABEL, JOB_LABEL, STEP_LABEL, container_name
from runners.outcome import Command
from runners.report import one_line

_CONFIG_TIMEOUT = 30.0  # seconds
_CONTAINER_COLUMNS = '{{.ID}}\t{{.Names}}\t{{.Label "com.docker.compose.oneoff"}}\t{{.Label "' + INSTANCE_LABEL + '"}}'


@dataclass(frozen=True, slots=True)
class ComposeCli:
    """How `docker compose` is called for one project.

    directory: the absolute folder in which it is called. docker: program, context and host.
    options: of `docker compose`, before its command. dependencies: whether the dependencies of a service are started.
    variables: names of the variables that each container gets. instance: the gateway's own id.
    entrypoint_program: a program that may be the entrypoint of a service, which then takes its arguments only; None
        where every entrypoint is a wrapper that runs a whole command line.
    """

    directory: str
    docker: tuple[str, ...] = ("docker",)
    options: tuple[str, ...] = ()
    dependencies: bool = False
    variables: tuple[str, ...] = ()
    instance: str = ""
    entrypoint_program: str | None = None

    @property
    def command(self) -> tuple[str, ...]:
        """The command line up to the subcommand of `docker compose`."""
        return (*self.docker, "compose", *self.options)


@dataclass(frozen=True, slots=True)
class ComposeService:
    """One service of a project.

    entrypoint, command: None for the image's own.
    environment: the variables that the compose file sets, and once it is found those of its image.
    log_driver: None for the engine's default. log_rotates: the engine drops the beginning of a long log.
    working_directory: empty for the image's own. volumes: where the service has volumes and folders of the host.
    """

    name: str
    image: str
    entrypoint: tuple[str, ...] | None
    environment: Mapping[str, str] = field(repr=False)
    log_driver: str | None
    log_rotates: bool
    command: tuple[str, ...] | None = None
    working_directory: str = ""
    volumes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of the engine's host that is mounted in a container.

    Neither path contains a colon; target contains no `..` and does not end in a slash. The mount replaces one of the
    service with the same target, and is read-only if that one is; other mounts of the service stay. If source does not
    exist, the engine makes it as root.
    read_only: the container can't write there, whatever the service has.
    """

    source: str
    target: str
    read_only: bool = False

    @property
    def option(self) -> str:
        """The option of `docker compose run`, which interpolates no `$` in it."""
        return f"--volume={self.source}:{self.target}{':ro' if self.read_only else ''}"


@dataclass(frozen=True, slots=True)
class ComposeProject:
    """A project as `docker compose config` prints it."""

    name: str
    services: Mapping[str, ComposeService]


@dataclass(frozen=True, slots=True)
class ForeignContainer:
    """A container of a service that another program has started. since: epoch seconds."""

    container: str
    service: str
    since: float


async def read_project(compose: ComposeCli, docker: Docker) -> ComposeProject | str:
    """The project, or a sentence about what is wrong with it. Needs no engine.

    Raises EngineUnreachableError if `docker compose config` does not end in time.
    """
    # all profiles: a service that is run by its name needs no active profile
    result = await docker.run(
        "compose",
        *compose.options,
        "--profile=*",
        "config",
        "--format=json",
        within=_CONFIG_TIMEOUT,
        directory=compose.directory,
    )
    if result.code is None and result.was_run:
        raise EngineUnreachableError(f"`docker compose config`: {result.error}")
    if result.code != 0:
        return explain(result.error, f"The compose project in {compose.directory} can't be read")
    try:
        config = json.loads(result.output)
        name = str(config["name"])
        services = (config["services"] or {}).items()
        return ComposeProject(name, {key: _service(name, key, service) for key, service in services})
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        return f"`docker compose config` in {compose.directory} answered no project: {one_line(repr(error))}."


def _service(project: str, name: str, config: Mapping[str, Any]) -> ComposeService:
    logging = config.get("logging") or {}
    return ComposeService(
        name=name,
        image=str(config.get("image") or f"{project}-{name}"),
        entrypoint=_argv(config.get("entrypoint")),
        # a variable without a value is one that is not set where the gateway runs
        environment={key: _unescaped(str(value or "")) for key, value in (config.get("environment") or {}).items()},
        log_driver=logging.get("driver"),
        log_rotates="max-size" in (logging.get("options") or {}),
        command=_argv(config.get("command")),
        working_directory=_unescaped(str(config.get("working_dir") or "")),
        # those without a source are removed with their container
        volumes=tuple(_unescaped(str(one["target"])) for one in config.get("volumes") or () if one.get("source")),
    )


def _argv(words: Iterable[object] | None) -> tuple[str, ...] | None:
    return None if words is None else tuple(_unescaped(str(word)) for word in words)


def _unescaped(text: str) -> str:
    """`docker compose config` prints a compose file, in which `$$` stands for `$`."""
    return text.replace("$$", "$")


async def find_service(project: ComposeProject, name: str, docker: Docker) -> ComposeService | str:
    """A service, completed from its image; or a sentence about what is wrong. Raises EngineUnreachableError."""
    service = project.services.get(name)
    if service is None:
        names = ", ".join(sorted(project.services)) or "none"
        return (
            f"The compose project {project.name} has no service {name}; it has {names}: add it to the compose file, or "
            "set the service's name in the fabric's compose."
        )
    if service.log_driver == "none":
        return f"The service {name} has the logging driver none, so its output can't be read: use json-file."
    result = await docker.run("image", "inspect", "--format={{json .Config}}", "--", service.image)
    if result.code != 0:
        if "no such image" in result.error.lower():
            return (
                f"The image {service.image} of the service {name} is not there: run `docker compose build {name}` or "
                f"`docker compose pull {name}`, then trigger it again."
            )
        raise EngineUnreachableError(one_line(result.error))
    return _completed(service, json.loads(result.output) or {})


def _completed(service: ComposeService, image: Mapping[str, Any]) -> ComposeService:
    """A service with its image's defaults. If the service sets an entrypoint, the image's command does not apply."""
    command, entrypoint = service.command, service.entrypoint
    if command is None:
        command = tuple(image.get("Cmd") or ()) if entrypoint is None else ()
    variables = (str(variable).partition("=") for variable in image.get("Env") or ())
    return replace(
        service,
        environment={**{name: value for name, _, value in variables}, **service.environment},
        entrypoint=tuple(image.get("Entrypoint") or ()) if entrypoint is None else entrypoint,
        command=command,
        working_directory=service.working_directory or image.get("WorkingDir") or "/",
    )


async def find_foreign_container(
    project: ComposeProject, services: Iterable[tuple[str, bool]], compose: ComposeCli, docker: Docker
) -> ForeignContainer | None:
    """A running container of one of these services that this gateway has not started.

    services: name, and whether an `up` container of the service only idles, so that it does not count.
    Raises EngineUnreachableError.
    """
    for name, idles in services:
        filters = (f"label=com.docker.compose.project={project.name}", f"label=com.docker.compose.service={name}")
        for container, names, one_off, instance in await docker.containers(*filters, columns=_CONTAINER_COLUMNS):
            if instance == compose.instance or (idles and one_off.lower() != "true"):
                continue
            state = await docker.inspect(container)
            if state is not None and state.alive:
                return ForeignContainer(names.partition(",")[0], name, state.started)
    return None


def run_command(
    compose: ComposeCli,
    service: ComposeService,
    command: Command,
    names: Iterable[str],
    folder: Path,
    mounts: Iterable[Mount] = (),
) -> Command:
    """The command that runs another one in containers of a service, one for each argv.

    command: its argvs and cwd are those in the container, empty for the service's own; its environment is that of
    docker's command line. names: of the variables in it that the container gets. folder: the step's, which gives the
    containers their names.
    """
    options = [
        "--progress=quiet",
        "run",
        "--detach",
        "--no-TTY",
        "--interactive=false",
        *([] if compose.dependencies else ["--no-deps"]),
        f"--label={INSTANCE_LABEL}={compose.instance}",
        f"--label={JOB_LABEL}={folder.parent.name}",
        f"--label={STEP_LABEL}={folder.name}",
        *(f"--env={name}" for name in sorted(names)),  # without the value: all users can read a command line
        *([f"--workdir={command.cwd}"] if command.cwd else []),
        *(mount.option for mount in mounts),
    ]
    argvs = []
    for number, argv in enumerate(command.argvs):
        overridden, arguments = with_entrypoint(service, argv, compose.entrypoint_program)
        name = f"--name={container_name(folder, number)}"
        argvs.append((*compose.command, *options, name, *overridden, "--", service.name, *arguments))
    return replace(command, argvs=tuple(argvs), cwd=compose.directory, docker=compose.docker)


def with_entrypoint(
    service: ComposeService, argv: tuple[str, ...], program: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The options that override the entrypoint of a service, where needed, and the arguments of its container.

    program: ComposeCli.entrypoint_program. An entrypoint whose last word is this program runs it, so a command line of
    it loses its first word, and another program replaces it. Any other entrypoint runs the whole command line.
    """
    entrypoint = service.entrypoint or ()
    if not argv or not entrypoint or posixpath.basename(entrypoint[-1]) != program:
        return (), argv
    if argv[0] == program:
        return (), argv[1:]
    return (f"--entrypoint={shlex.join((*entrypoint[:-1], argv[0]))}",), argv[1:]
