"""The docker command line: each call ends within a time limit."""

from __future__ import annotations

import io
import json
import re
import signal
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from runners import program
from runners.containers.docker_errors import UNREACHABLE
from runners.mask import Mask
from runners.program import ProgramResult
from runners.report import one_line

_TIMEOUT = 10.0  # seconds that a call of an engine that works needs at most
_LOST_CODE = 255  # the exit code by an engine that starts and does not find a container that ran; programs use it too
_EVENT_DELAY = 2.0  # seconds after an exit within which the engine tells of it
_ZERO_DATE = "0001-01-01"  # the date of an event that has not happened
_ENGINE_VARIABLES = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
_NO_CONTAINER = re.compile(r"\bno such (?:container|object): ", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ContainerState:
    """The state of a container by its engine.

    status: `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`. error: why it never started.
    started, finished: epoch seconds by the engine's clock, 0 for never.
    log_rotates: the engine may drop the beginning of its log. has_own_processes: it has a PID namespace of its own, so
    that it sees no other process. environment: all of it. stop_signal: the name of what `docker stop` sends first.
    pid: of its first process on the engine's host, 0 without one.
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
    stop_signal: str = "SIGTERM"
    pid: int = 0

    @property
    def alive(self) -> bool:
        """Whether its processes may be alive."""
        return self.status in ("running", "paused", "restarting")


def engine_variables(environment: Mapping[str, str]) -> Mapping[str, str]:
    """The variables that select the engine of the docker command line, empty where they are not set."""
    return {name: environment.get(name, "") for name in _ENGINE_VARIABLES}


class EngineUnreachableError(Exception):
    """The engine can't be reached, so the state of its containers is unknown and nothing may be concluded from it.

    No method of a Runner raises it.
    """


class Docker:
    """The docker command line that reaches one engine.

    command: program, context and host. environment: its whole environment. mask: of its error output.
    """

    def __init__(self, command: tuple[str, ...], environment: Mapping[str, str], mask: Mask) -> None:
        self.command = command
        self._environment = environment
        self._mask = mask

    async def run(self, *arguments: str, within: float = _TIMEOUT, directory: str = "/") -> ProgramResult:
        """Run a docker command, and kill it after `within` seconds. A missing program is a result without a code."""
        result = await program.run((*self.command, *arguments), self._environment, within=within, directory=directory)
        return replace(result, error=self._mask.text(result.error).strip())

    async def inspect(self, name: str) -> ContainerState | None:
        """The state of a container, None if no container has this name. Raises EngineUnreachableError."""
        result = await self.run("container", "inspect", "--", name)
        if result.code != 0:
            if _NO_CONTAINER.search(result.error):
                return None
            raise EngineUnreachableError(one_line(result.error))
        try:
            return _state(json.loads(result.output)[0], self._mask)
        except (ValueError, LookupError, TypeError) as error:
            raise EngineUnreachableError(f"an answer that is no container: {error!r}") from None

    async def containers(self, *filters: str, columns: str, all_states: bool = False) -> list[list[str]]:
        """The containers that match all filters. columns: a template of docker's, with tabs between the columns.

        Raises EngineUnreachableError.
        """
        result = await self.run(
            "ps",
            "--no-trunc",
            f"--format={columns}",
            *(["--all"] if all_states else []),
            *(f"--filter={filter_}" for filter_ in filters),
        )
        if result.code != 0:
            raise EngineUnreachableError(one_line(result.error))
        return [line.split("\t") for line in result.output.decode(errors="replace").splitlines()]

    async def saw_exit(self, state: ContainerState) -> bool:
        """Whether the exit code of an ended container is its program's; False if the engine may have made it up.

        An engine tells of each exit that it saw, and of none that it missed. What it told is lost where it restarts
        later, so a program's own 255 is taken for a missed exit then. Raises EngineUnreachableError.
        """
        if state.exit_code != _LOST_CODE:
            return True
        between = (f"--since={state.started:.3f}", f"--until={state.finished + _EVENT_DELAY:.3f}")
        result = await self.run("events", *between, f"--filter=container={state.id}", "--filter=event=die")
        if result.code != 0:
            raise EngineUnreachableError(one_line(result.error))
        return bool(result.output.strip())

    async def count_processes(self, name: str) -> int | None:
        """How many processes a container has; None if the engine can't tell, for lack of `ps` on its host."""
        result = await self.run("container", "top", name, "-eo", "pid")
        return None if result.code != 0 else max(0, len(result.output.splitlines()) - 1)

    async def read_file(self, name: str, path: str) -> bytes | None:
        """The content of a regular file of a container, which need not run; None if there is no such file.

        Raises EngineUnreachableError.
        """
        result = await self.run("cp", "--", f"{name}:{path}", "-", within=60.0)
        if is_unreachable(result):
            raise EngineUnreachableError(one_line(result.error))
        if result.code != 0:
            return None
        try:
            with tarfile.open(fileobj=io.BytesIO(result.output)) as archive:
                member = archive.next()
                content = archive.extractfile(member) if member is not None and member.isreg() else None
                return None if content is None else content.read()
        except tarfile.TarError:
            return None


def is_unreachable(result: ProgramResult) -> bool:
    """Whether the result shows that the engine was not reached."""
    return result.code is None or (result.code != 0 and UNREACHABLE.search(result.error) is not None)


def _state(container: Mapping[str, Any], mask: Mask) -> ContainerState:
    state, config, host = container["State"], container["Config"], container["HostConfig"]
    variables = (str(variable).partition("=") for variable in config.get("Env") or ())
    environment = {name: value for name, _, value in variables}
    return ContainerState(
        id=str(container["Id"]),
        status=str(state["Status"]),
        exit_code=int(state["ExitCode"]),
        error=mask.with_secrets_of(environment).text(str(state["Error"])),
        out_of_memory=bool(state["OOMKilled"]),
        started=_epoch_seconds(state["StartedAt"]),
        finished=_epoch_seconds(state["FinishedAt"]),
        labels={str(name): str(value) for name, value in (config["Labels"] or {}).items()},
        working_directory=str(config["WorkingDir"] or "/"),
        log_rotates=_rotates(host["LogConfig"]),
        has_own_processes=host["PidMode"] == "",
        environment=environment,
        stop_signal=_signal_name(str(config.get("StopSignal") or "SIGTERM")),
        pid=int(state.get("Pid") or 0),
    )


def _signal_name(text: str) -> str:
    """The name of a signal that an image gives by its number or its name, with or without SIG."""
    if text.isascii() and text.isdecimal():
        with suppress(ValueError):  # one that has no name here
            return signal.Signals(int(text)).name
    return f"SIG{text.upper().removeprefix('SIG')}"


def _rotates(log: Mapping[str, Any]) -> bool:
    return bool(log["Type"] != "json-file" or (log["Config"] or {}).get("max-size", "-1") != "-1")


def _epoch_seconds(text: str) -> float:
    return 0.0 if text.startswith(_ZERO_DATE) else datetime.fromisoformat(text).timestamp()
