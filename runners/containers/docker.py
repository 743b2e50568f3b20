"""Asks a Docker engine, by the docker command line: every call ends within a time."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from runners import program
from runners.mask import Mask
from runners.program import ProgramResult
from runners.report import one_line

_PROMPT = 10.0  # seconds that an engine which answers needs at most for a question
_NEVER = "0001-01-01"  # the date of what has not happened
# What the command line says when the engine doesn't, whatever the question was.
_SILENT = (
    "cannot connect to the docker daemon",
    "failed to connect to the docker api",
    "error during connect",
    "eof",
    "connection refused",
    "i/o timeout",
)
_ENGINE = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
_NO_CONTAINER = ("no such container", "no such object")


@dataclass(frozen=True, slots=True)
class ContainerState:
    """A container as its engine knows it.

    status: `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`. error: why it never started.
    started, finished: epoch seconds by the engine's clock, 0 for never. log_rotates: the engine may forget the
    beginning of its output. has_own_processes: it sees no others, the host's least of all. environment: all of it.
    """

    id: str
    status: str
    exit_code: int
    error: str
    out_of_memory: bool
    started: float
    finished: float
    labels: Mapping[str, str]
    working_directory: str
    log_rotates: bool
    has_own_processes: bool
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def alive(self) -> bool:
        """Whether its processes may be alive."""
        return self.status in ("running", "paused", "restarting")


def engine_variables(environment: Mapping[str, str]) -> Mapping[str, str]:
    """The variables that say which engine the docker command line asks; empty where they are not set."""
    return {name: environment.get(name, "") for name in _ENGINE}


class EngineUnreachableError(Exception):
    """The engine doesn't answer: nothing is known, and nothing must be decided. Never leaves the runners."""


class Docker:
    """The docker command line that reaches one engine.

    command: program, context and host. environment: the whole environment of the command line. mask: knows what is
    secret in what it says.
    """

    def __init__(self, command: tuple[str, ...], environment: Mapping[str, str], mask: Mask) -> None:
        self.command = command
        self._environment = environment
        self._mask = mask

    async def call(self, *arguments: str, within: float = _PROMPT, directory: str = "/") -> ProgramResult:
        """Run one docker command to its end, or end it after so many seconds. Its program may be missing."""
        said = await program.run((*self.command, *arguments), self._environment, within=within, directory=directory)
        return replace(said, error=self._mask.text(said.error).strip())

    async def inspect(self, name: str) -> ContainerState | None:
        """A container, None if there is none of this name. Raises EngineSilentError."""
        said = await self._answer("container", "inspect", "--", name)
        if said.code != 0:
            if any(sign in said.error.lower() for sign in _NO_CONTAINER):
                return None
            raise EngineUnreachableError(one_line(said.error))
        try:
            return _state(json.loads(said.output)[0], self._mask)
        except (ValueError, LookupError, TypeError) as error:
            raise EngineUnreachableError(f"an answer that is no container: {error!r}") from None

    async def containers(self, *filters: str, columns: str, all_states: bool = False) -> list[list[str]]:
        """The containers that pass all filters, as columns of docker's own template. Raises EngineSilentError."""
        said = await self._answer(
            "ps",
            "--no-trunc",
            f"--format={columns}",
            *(["--all"] if all_states else []),
            *(f"--filter={one}" for one in filters),
        )
        if said.code != 0:
            raise EngineUnreachableError(one_line(said.error))
        return [line.split("\t") for line in said.output.decode(errors="replace").splitlines()]

    async def file(self, name: str, path: str) -> bytes | None:
        """A file of a container, alive or not, mounts included; None if it can't be had. Raises EngineSilentError."""
        said = await self._answer("cp", "--", f"{name}:{path}", "-", within=60.0)
        if said.code != 0:
            return None
        try:
            with tarfile.open(fileobj=io.BytesIO(said.output)) as archive:
                member = archive.next()
                content = archive.extractfile(member) if member is not None and member.isreg() else None
                return None if content is None else content.read()
        except tarfile.TarError:
            return None

    async def was_started(self, name: str, since: float) -> bool:
        """Whether a container of this name was ever started since then, as far as the engine remembers.

        since: epoch seconds. Raises EngineSilentError.
        """
        said = await self._answer(
            "events",
            f"--since={since:.3f}",
            f"--until={time.time():.3f}",
            f"--filter=container={name}",
            "--filter=event=start",
            "--format={{.ID}}",
        )
        if said.code != 0:
            raise EngineUnreachableError(one_line(said.error))
        return bool(said.output.strip())

    async def _answer(self, *arguments: str, within: float = _PROMPT) -> ProgramResult:
        said = await self.call(*arguments, within=within)
        if is_unreachable(said):
            raise EngineUnreachableError(one_line(said.error))
        return said


def is_unreachable(said: ProgramResult) -> bool:
    """Whether this is no answer of the engine's."""
    return said.code is None or (said.code != 0 and any(sign in said.error.lower() for sign in _SILENT))


def _state(found: Mapping[str, Any], mask: Mask) -> ContainerState:
    state, config, host = found["State"], found["Config"], found["HostConfig"]
    variables = (str(variable).partition("=") for variable in config.get("Env") or ())
    environment = {name: value for name, _, value in variables}
    return ContainerState(
        id=str(found["Id"]),
        status=str(state["Status"]),
        exit_code=int(state["ExitCode"]),
        error=mask.with_secrets_of(environment).text(str(state["Error"])),
        out_of_memory=bool(state["OOMKilled"]),
        started=_epoch(state["StartedAt"]),
        finished=_epoch(state["FinishedAt"]),
        labels={str(name): str(value) for name, value in (config["Labels"] or {}).items()},
        working_directory=str(config["WorkingDir"] or "/"),
        log_rotates=_rotates(host["LogConfig"]),
        has_own_processes=host["PidMode"] == "",
        environment=environment,
    )


def _rotates(log: Mapping[str, Any]) -> bool:
    return bool(log["Type"] != "json-file" or (log["Config"] or {}).get("max-size", "-1") != "-1")


def _epoch(text: str) -> float:
    return 0.0 if text.startswith(_NEVER) else datetime.fromisoformat(text).timestamp()
