"""Where steps run: in containers that `docker compose run -d` makes and an engine keeps.

A container's name is its durable identity, made from the step's folder. Whatever is killed, the name finds it again,
and its engine knows how it ended; what the docker command line leaves with is never taken for the container's end.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from runners import durable
from runners.containers.container import Container, ContainerSpec
from runners.containers.docker import Docker, EngineUnreachableError, engine_variables
from runners.containers.identity import belongs_to_step, container_name
from runners.mask import Mask, has_password
from runners.outcome import Command, Exited, NotStarted, Outcome, Span
from runners.runner import Liveness

_FILE = "container.json"
_LATER = 1.0


class ComposeRunner:
    """Runs steps in containers; a command's argvs are `docker compose run` lines with the names of their containers.

    output_cap: bytes of output kept for a job.
    """

    def __init__(self, output_cap: int) -> None:
        self._output_cap = output_cap
        self._environments: dict[Path, Mapping[str, str]] = {}
        self._masks: dict[Path, Mask] = {}
        self._refused: dict[Path, str] = {}
        self._asked: dict[Path, asyncio.Event] = {}

    async def start(self, folder: Path, command: Command) -> None:
        """Decide durably what the step runs, unless it ever was; `wait` makes its container, and tells of failures."""
        self._environments[folder], self._masks[folder] = command.environment, command.mask
        try:
            await asyncio.to_thread(_decide, folder, command)
        except (OSError, ValueError) as error:
            self._refused[folder] = f"the step could not be started: {error}; remove the cause and trigger it again"

    async def wait(self, folder: Path, on_liveness: Callable[[Liveness], None]) -> Outcome:
        """How the step ended, once no container of it is alive."""
        why = self._refused.pop(folder, None)
        spec = await _insist(folder)
        if spec is None:
            return NotStarted(why or "it was never started")
        environment = {**self._environments.get(folder, os.environ), **spec.engine}
        mask = self._masks.get(folder) or Mask(spec.secrets).with_secrets_of(environment)
        containers = [
            Container(folder, number, spec, environment, self._output_cap, on_liveness, mask)
            for number in range(len(spec.argvs))
        ]
        return await _StepContainers(folder, spec, containers, self._stop_of(folder)).run()

    async def stop(self, folder: Path) -> None:
        """Ask the step to end; `wait` does it, and tells when it has. Asking twice is harmless."""
        self._stop_of(folder).set()

    async def release(self, folder: Path) -> None:
        """Remove the step's containers, which have ended; what can't be removed now is found as a leftover later."""
        environment, mask = self._environments.pop(folder, os.environ), self._masks.pop(folder, Mask())
        self._asked.pop(folder, None)
        with suppress(OSError, EngineUnreachableError):
            spec = await asyncio.to_thread(_decided, folder)
            if spec is not None:
                docker = Docker(spec.docker, {**environment, **spec.engine}, mask)
                for number in range(len(spec.argvs)):
                    await _remove(docker, folder, container_name(folder, number))

    def _stop_of(self, folder: Path) -> asyncio.Event:
        return self._asked.setdefault(folder, asyncio.Event())


def is_decided(folder: Path) -> bool:
    """Whether what the step runs was ever decided. Raises OSError."""
    return (folder / _FILE).exists()


def _decide(folder: Path, command: Command) -> None:
    if is_decided(folder):
        return
    command.check()
    engine = engine_variables(command.environment)
    if has_password(engine["DOCKER_HOST"]):  # it would be kept, and docker takes none
        raise ValueError("the variable DOCKER_HOST has a password in it")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    spec = {
        "v": 1,
        "argvs": command.argvs,
        "cwd": command.cwd,
        "docker": command.docker,
        "interrupt": int(command.interrupt),
        "grace": command.grace,
        "time_limit": command.time_limit,
        "since": time.time(),
        # which engine: a restarted gateway, or another fabric of the same name, must not ask another one
        "engine": engine,
        "secrets": command.mask.names,
    }
    durable.write(folder / _FILE, spec)
    for directory in (folder.parent, folder.parent.parent):
        durable.sync(directory)


async def _insist(folder: Path) -> ContainerSpec | None:
    while True:
        try:
            return await asyncio.to_thread(_decided, folder)
        except OSError:  # out of descriptors, say: what can't be looked at is not decided
            await asyncio.sleep(_LATER)


def _decided(folder: Path) -> ContainerSpec | None:
    try:
        found: dict[str, Any] = json.loads((folder / _FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    return ContainerSpec(
        argvs=tuple(tuple(argv) for argv in found["argvs"]),
        cwd=found["cwd"],
        docker=tuple(found["docker"]),
        interrupt=found["interrupt"],
        grace=found["grace"],
        time_limit=found["time_limit"],
        since=found["since"],
        engine=found["engine"],
        secrets=tuple(found.get("secrets", ())),  # an earlier version has none
    )


async def _remove(docker: Docker, folder: Path, name: str) -> None:
    """Remove an ended container, if it is the step's. Raises EngineSilentError."""
    state = await docker.inspect(name)
    if state is not None and belongs_to_step(state, folder):
        await docker.call("container", "rm", "--volumes", "--", state.id)


class _StepContainers:
    """One step as this process follows it: its containers one after the other, and their end when it is time."""

    def __init__(
        self, folder: Path, spec: ContainerSpec, containers: Sequence[Container], asked: asyncio.Event
    ) -> None:
        self._folder = folder
        self._spec = spec
        self._containers = containers
        self._asked = asked

    async def run(self) -> Outcome:
        """Run until a container leaves other than with 0."""
        name = f"{self._folder.parent.name}-{self._folder.name}"
        ending = asyncio.create_task(self._end_in_time(), name=f"end-{name}")
        running = asyncio.create_task(self._run(), name=f"run-{name}")
        try:
            done, _ = await asyncio.wait((ending, running), return_when=asyncio.FIRST_COMPLETED)
            # Only a bug ends the first: then nobody could end the step any more.
            return ending.result() if ending in done else running.result()
        finally:
            ending.cancel()
            running.cancel()
            await asyncio.wait((ending, running))

    async def _run(self) -> Outcome:
        begun: Span | None = None
        outcome: Outcome = NotStarted("it has no command")
        for container in self._containers:
            outcome = await container.run()
            if not isinstance(outcome, Exited):
                break
            outcome = replace(outcome, span=outcome.span if begun is None else _joined(begun, outcome.span))
            if outcome.code != 0:
                break
            begun = outcome.span
        return outcome

    async def _end_in_time(self) -> NoReturn:
        """End the step when it is asked to, or has taken too long; again and again, until `run` is done."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._spec.since + self._spec.time_limit - time.time())):
                await self._asked.wait()
        reason = "asked" if self._asked.is_set() else "time_limit"
        while True:
            for container in self._containers:
                with suppress(OSError, EngineUnreachableError):
                    await container.end(reason)
            await asyncio.sleep(_LATER)


def _joined(first: Span, last: Span) -> Span:
    return Span(first.started, last.finished, first.duration + last.duration)
