"""Runs steps in containers that `docker compose run --detach` creates.

A container's name is its durable identity, made from the step's folder: after any process was killed, the name finds
the container, and the engine knows how it ended. The exit code of a docker command line is never taken for the
container's.
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
from runners.detached import supervisor
from runners.mask import Mask, has_password
from runners.outcome import Command, Exited, Lost, NotStarted, Outcome, Span
from runners.runner import Liveness

_SPEC_FILE = "container.json"
_RETRY_DELAY = 1.0  # seconds
_FILES_REMOVED = (
    "its files were removed, so its end is unknown; look for its container and at its output, then trigger it again"
)


class ComposeRunner:
    """Runs each argv of a command in a container of its own; see Runner and compose_project.run_command.

    output_cap: bytes of output kept for a job.
    """

    def __init__(self, output_cap: int) -> None:
        self._output_cap = output_cap
        self._environments: dict[Path, Mapping[str, str]] = {}
        self._masks: dict[Path, Mask] = {}
        self._start_errors: dict[Path, NotStarted | Lost] = {}
        self._stop_requests: dict[Path, asyncio.Event] = {}

    async def start(self, folder: Path, command: Command | str, *, begun: bool = False) -> None:
        """Write down what the step runs, unless that was done before; `wait` creates the containers.

        A begun step without its files is ended: the docker command lines here, the containers by `wait`.
        """
        error = command if isinstance(command, str) else await self._write_spec(folder, command, begun=begun)
        if error is not None:
            self._start_errors[folder] = Lost(_FILES_REMOVED) if begun else NotStarted(error)

    async def _write_spec(self, folder: Path, command: Command, *, begun: bool) -> str | None:
        """Write the spec of a step, unless it exists; why that failed."""
        self._environments[folder], self._masks[folder] = command.environment, command.mask
        try:
            if begun and not has_spec(folder):
                await supervisor.end_processes(folder, lambda _: None)
            await asyncio.to_thread(_write_spec, folder, command, begun=begun)
        except (OSError, ValueError) as error:
            return f"the step could not be started: {error}; remove the cause and trigger it again"
        return None

    async def wait(self, folder: Path, on_liveness: Callable[[Liveness], None]) -> Outcome:
        """The outcome of the step, once no container of it is alive."""
        start_error = self._start_errors.pop(folder, None)
        spec = await _read_spec_patiently(folder)
        if spec is None:
            return start_error or Lost(_FILES_REMOVED)
        environment = {**self._environments.get(folder, os.environ), **spec.engine}
        mask = self._masks.get(folder) or Mask(spec.secret_names).with_secrets_of(environment)
        containers = [
            Container(folder, number, spec, environment, self._output_cap, on_liveness, mask)
            for number in range(len(spec.argvs))
        ]
        return await _StepContainers(folder, spec, containers, self._stop_request(folder)).run()

    async def stop(self, folder: Path) -> None:
        """Request the end of the step, which `wait` carries out and waits for. A second request changes nothing."""
        self._stop_request(folder).set()

    async def release(self, folder: Path) -> None:
        """Remove the step's containers, which have exited. Those that can't be removed now are found as leftovers."""
        environment, mask = self._environments.pop(folder, os.environ), self._masks.pop(folder, Mask())
        self._stop_requests.pop(folder, None)
        with suppress(OSError, EngineUnreachableError):
            spec = await asyncio.to_thread(_read_spec, folder)
            if spec is not None:
                docker = Docker(spec.docker, {**environment, **spec.engine}, mask)
                for number in range(len(spec.argvs)):
                    await _remove(docker, folder, container_name(folder, number))

    def _stop_request(self, folder: Path) -> asyncio.Event:
        return self._stop_requests.setdefault(folder, asyncio.Event())


def has_spec(folder: Path) -> bool:
    """Whether it has been written down what the step runs. Raises OSError."""
    return (folder / _SPEC_FILE).exists()


def _write_spec(folder: Path, command: Command, *, begun: bool) -> None:
    """Write the spec of a step durably, unless it exists. Raises OSError, ValueError."""
    if has_spec(folder):
        return
    command.check()
    engine = engine_variables(command.environment)
    if has_password(engine["DOCKER_HOST"]):  # it would be written to the disk, and docker supports no password there
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
        "begun": begun,
        # the engine of this step: after a restart the environment, or the fabric of this name, may select another one
        "engine": engine,
        "secrets": command.mask.names,
    }
    durable.write(folder / _SPEC_FILE, spec)
    for directory in (folder.parent, folder.parent.parent):
        durable.sync(directory)


async def _read_spec_patiently(folder: Path) -> ContainerSpec | None:
    while True:
        try:
            return await asyncio.to_thread(_read_spec, folder)
        except OSError:  # out of descriptors, for example: no fact about the step
            await asyncio.sleep(_RETRY_DELAY)


def _read_spec(folder: Path) -> ContainerSpec | None:
    """The spec of a step, None if there is none. Raises OSError."""
    try:
        spec: dict[str, Any] = json.loads((folder / _SPEC_FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    return ContainerSpec(
        argvs=tuple(tuple(argv) for argv in spec["argvs"]),
        cwd=spec["cwd"],
        docker=tuple(spec["docker"]),
        interrupt=spec["interrupt"],
        grace=spec["grace"],
        time_limit=spec["time_limit"],
        decided_at=spec["since"],
        engine=spec["engine"],
        secret_names=tuple(spec.get("secrets", ())),  # earlier versions wrote none
        begun=spec.get("begun", False),  # as above
    )


async def _remove(docker: Docker, folder: Path, name: str) -> None:
    """Remove an exited container, if it belongs to the step. Raises EngineUnreachableError."""
    state = await docker.inspect(name)
    if state is not None and belongs_to_step(state, folder):
        await docker.run("container", "rm", "--volumes", "--", state.id)


class _StepContainers:
    """The containers of one step, run one after the other and stopped on request or at the time limit."""

    def __init__(
        self, folder: Path, spec: ContainerSpec, containers: Sequence[Container], stop_request: asyncio.Event
    ) -> None:
        self._folder = folder
        self._spec = spec
        self._containers = containers
        self._stop_request = stop_request

    async def run(self) -> Outcome:
        """The outcome of the step: that of the first container that does not exit with 0, else of the last one."""
        name = f"{self._folder.parent.name}-{self._folder.name}"
        stopping = asyncio.create_task(self._stop_when_due(), name=f"stop-{name}")
        running = asyncio.create_task(self._run_in_order(), name=f"run-{name}")
        try:
            done, _ = await asyncio.wait((stopping, running), return_when=asyncio.FIRST_COMPLETED)
            # `stopping` ends by a bug only, and without it the step could not be stopped any more
            return stopping.result() if stopping in done else running.result()
        finally:
            stopping.cancel()
            running.cancel()
            await asyncio.wait((stopping, running))

    async def _run_in_order(self) -> Outcome:
        span: Span | None = None
        outcome: Outcome = NotStarted("it has no command")
        for container in self._containers:
            outcome = await container.run()
            if not isinstance(outcome, Exited):
                break
            outcome = replace(outcome, span=outcome.span if span is None else _joined(span, outcome.span))
            if outcome.code != 0:
                break
            span = outcome.span
        return outcome

    async def _stop_when_due(self) -> NoReturn:
        """Stop the step on request or at its time limit, and repeat that until this task is cancelled."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._spec.decided_at + self._spec.time_limit - time.time())):
                await self._stop_request.wait()
        reason = "asked" if self._stop_request.is_set() else "time_limit"
        while True:
            for container in self._containers:
                with suppress(OSError, EngineUnreachableError):
                    await container.stop(reason)
            await asyncio.sleep(_RETRY_DELAY)


def _joined(first: Span, last: Span) -> Span:
    return Span(first.started, last.finished, first.duration + last.duration)
