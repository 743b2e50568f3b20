"""The user's compose project: what it has, and the command lines that run its services."""

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

_CONFIG_TAKES = 30.0
_COLUMNS = '{{.ID}}\t{{.Names}}\t{{.Label "com.docker.compose.oneoff"}}\t{{.Label "' + INSTANCE_LABEL + '"}}'


@dataclass(frozen=True, slots=True)
class ComposeCli:
    """How a compose project is reached.

    directory: the absolute folder that `docker compose` is called in. docker: program, context and host.
    options: of `docker compose`, before its command. dependencies: whether those of a service are started too.
    variables: names of the variables that every container is given. instance: the gateway's own id.
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
        """The command line up to Compose's own command."""
        return (*self.docker, "compose", *self.options)


@dataclass(frozen=True, slots=True)
class ComposeService:
    """One service of a project. entrypoint, command: None where they are the image's own. environment: what it sets.

    log_driver: None for the engine's own. log_rotates: the engine forgets the beginning of long output.
    working_directory: empty where it is the image's own.
    """

    name: str
    image: str
    entrypoint: tuple[str, ...] | None
    environment: Mapping[str, str] = field(repr=False)
    log_driver: str | None
    log_rotates: bool
    command: tuple[str, ...] | None = None
    working_directory: str = ""


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of the engine's host in a container; no colon is in either path, and no `..` or last slash in target.

    Where a service mounts something else at this very target, Compose puts this in its place, read-only where that is;
    what it mounts above or below stays. A source that is not there the engine makes, as root.
    """

    source: str
    target: str

    @property
    def option(self) -> str:
        """The option of `docker compose run`; it takes all of it as it is, `$` too."""
        return f"--volume={self.source}:{self.target}"


@dataclass(frozen=True, slots=True)
class ComposeProject:
    """What `docker compose config` says of a project."""

    name: str
    services: Mapping[str, ComposeService]


@dataclass(frozen=True, slots=True)
class ForeignContainer:
    """A container of one of our services that somebody else started. since: epoch seconds."""

    container: str
    service: str
    since: float


async def read_project(compose: ComposeCli, docker: Docker) -> ComposeProject | str:
    """The project, or a sentence about why there is none. Asks no engine. Raises EngineSilentError if that hangs."""
    # every profile: a service that is run by name needs none to be on
    said = await docker.call(
        "compose",
        *compose.options,
        "--profile=*",
        "config",
        "--format=json",
        within=_CONFIG_TAKES,
        directory=compose.directory,
    )
    if said.code is None and said.was_run:
        raise EngineUnreachableError(f"`docker compose config`: {said.error}")
    if said.code != 0:
        return explain(said.error, f"The compose project in {compose.directory} can't be read")
    try:
        found = json.loads(said.output)
        name = str(found["name"])
        return ComposeProject(
            name, {key: _service(name, key, given) for key, given in (found["services"] or {}).items()}
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        return f"`docker compose config` in {compose.directory} answered no project: {one_line(repr(error))}."


def _service(project: str, name: str, given: Mapping[str, Any]) -> ComposeService:
    logging = given.get("logging") or {}
    return ComposeService(
        name=name,
        image=str(given.get("image") or f"{project}-{name}"),
        entrypoint=_words(given.get("entrypoint")),
        # a name without a value is that of a variable which is not set here
        environment={key: _plain(str(value or "")) for key, value in (given.get("environment") or {}).items()},
        log_driver=logging.get("driver"),
        log_rotates="max-size" in (logging.get("options") or {}),
        command=_words(given.get("command")),
        working_directory=_plain(str(given.get("working_dir") or "")),
    )


def _words(given: Iterable[object] | None) -> tuple[str, ...] | None:
    return None if given is None else tuple(_plain(str(word)) for word in given)


def _plain(text: str) -> str:
    """`docker compose config` answers a compose file, where `$$` stands for `$`."""
    return text.replace("$$", "$")


async def find_service(project: ComposeProject, name: str, docker: Docker) -> ComposeService | str:
    """A service with what it takes from its image, or a sentence about what it lacks. Raises EngineSilentError."""
    found = project.services.get(name)
    if found is None:
        names = ", ".join(sorted(project.services)) or "none"
        return (
            f"The compose project {project.name} has no service {name}; it has {names}: add it to the compose file, or "
            "set the service's name in the fabric's compose."
        )
    if found.log_driver == "none":
        return f"The service {name} has the logging driver none, so nobody could see its output: use json-file."
    said = await docker.call("image", "inspect", "--format={{json .Config}}", "--", found.image)
    if said.code != 0:
        if "no such image" in said.error.lower():
            return (
                f"The image {found.image} of the service {name} is not there: run `docker compose build {name}` or "
                f"`docker compose pull {name}`, then trigger it again."
            )
        raise EngineUnreachableError(one_line(said.error))
    return _completed(found, json.loads(said.output) or {})


def _completed(service: ComposeService, image: Mapping[str, Any]) -> ComposeService:
    """A service with what it leaves to its image. An entrypoint of its own takes the image's command away too."""
    command, entrypoint = service.command, service.entrypoint
    if command is None:
        command = tuple(image.get("Cmd") or ()) if entrypoint is None else ()
    return replace(
        service,
        entrypoint=tuple(image.get("Entrypoint") or ()) if entrypoint is None else entrypoint,
        command=command,
        working_directory=service.working_directory or image.get("WorkingDir") or "/",
    )


async def find_foreign_container(
    project: ComposeProject, services: Iterable[tuple[str, bool]], compose: ComposeCli, docker: Docker
) -> ForeignContainer | None:
    """A container of one of these services that runs and is not this gateway's. Raises EngineSilentError.

    services: names, and whether an `up` container of it only idles.
    """
    for name, idles in services:
        filters = (f"label=com.docker.compose.project={project.name}", f"label=com.docker.compose.service={name}")
        for container, names, one_off, instance in await docker.containers(*filters, columns=_COLUMNS):
            if instance == compose.instance or (idles and one_off.lower() != "true"):
                continue
            state = await docker.inspect(container)
            if state is not None and state.alive:
                return ForeignContainer(names.partition(",")[0], name, state.started)
    return None


def run_command(
    compose: ComposeCli,
    service: ComposeService,
    what: Command,
    names: Iterable[str],
    folder: Path,
    mount: Mount | None = None,
) -> Command:
    """The command that runs `what` in containers of a service; the step's folder names them.

    what: argvs as the container sees them, an empty one for the service's own; cwd empty for the service's own; its
    environment is that of the docker command line. names: of the variables of it that the container gets.
    """
    before = [
        "--progress=quiet",
        "run",
        "--detach",
        "--no-TTY",
        "--interactive=false",
        *([] if compose.dependencies else ["--no-deps"]),
        f"--label={INSTANCE_LABEL}={compose.instance}",
        f"--label={JOB_LABEL}={folder.parent.name}",
        f"--label={STEP_LABEL}={folder.name}",
        *(f"--env={name}" for name in sorted(names)),  # by name: a value in a command line is everybody's to read
        *([f"--workdir={what.cwd}"] if what.cwd else []),
        *([] if mount is None else [mount.option]),
    ]
    argvs = []
    for number, argv in enumerate(what.argvs):
        overridden, arguments = with_entrypoint(service, argv, compose.entrypoint_program)
        name = f"--name={container_name(folder, number)}"
        argvs.append((*compose.command, *before, name, *overridden, "--", service.name, *arguments))
    return replace(what, argvs=tuple(argvs), cwd=compose.directory, docker=compose.docker)


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
