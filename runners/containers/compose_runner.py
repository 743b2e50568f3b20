"""Runs steps in containers that `docker compose run --detach` creates.

A container's name is its durable identity, made from the step's folder: after any process was killed, the name finds
the container, and the engine knows how it ended. The exit code of a docker command line is never taken for the
container's.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from runners import durable
from runners.containers import step_files
from runners.containers.container import Container, ContainerSpec, uptime
from runners.containers.docker import Docker, EngineUnreachableError, engine_variables
from runners.containers.identity import step_filters
from runners.containers.remaining import end_containers
from runners.containers.step_files import UnreadableError
from runners.detached import supervisor
from runners.mask import Mask, has_password
from runners.outcome import Command, Exited, Lost, NotStarted, Outcome, Span
from runners.runner import Liveness

_SPEC_FILE = "container.json"
_RETRY_DELAY = 1.0  # seconds


class ComposeRunner:
    """Runs each argv of a command in a container of its own; see Runner and compose_project.run_command.

    output_cap: bytes of output kept for a job.
    """

    def __init__(self, output_cap: int) -> None:
        self._output_cap = output_cap
        self._commands: dict[Path, Command] = {}
        self._start_errors: dict[Path, str] = {}
        self._stop_requests: dict[Path, asyncio.Event] = {}
        self._broken: set[Path] = set()  # steps whose `wait` met a bug: the next one only ends what there is of them

    async def start(self, folder: Path, command: Command | str, *, begun: bool | None = False) -> None:
        """Write down what the step runs, unless that was done before; `wait` creates the containers.

        A begun step without its files is ended: the docker command lines here, the containers by `wait`.
        """
        error = command if isinstance(command, str) else await self._write_spec(folder, command, begun=begun is True)
        if error is not None and not begun:
            self._start_errors[folder] = error

    async def _write_spec(self, folder: Path, command: Command, *, begun: bool) -> str | None:
        """Write the spec of a step, unless it exists; why that failed."""
        self._commands[folder] = command
        try:
            if begun and not has_spec(folder):
                await supervisor.end_processes(folder, lambda _: None)
            await asyncio.to_thread(_write_spec, folder, command, begun=begun)
        except (OSError, ValueError) as error:
            return f"the step could not be started: {error}; remove the cause and trigger it again"
        return None

    async def wait(self, folder: Path, on_liveness: Callable[[Liveness], None]) -> Outcome:
        """The outcome of the step, once no container of it is alive."""
        why = "the gateway made a mistake"
        if folder not in self._broken:
            try:
                return await self._wait(folder, on_liveness)
            except UnreadableError as error:
                why = str(error)
            except Exception:
                self._broken.add(folder)
                raise
        await end_containers(folder, await self._docker(folder), on_liveness)
        self._broken.discard(folder)
        return Lost(f"{why}, so what ran of it was stopped; look at its output, then trigger it again.")

    async def _wait(self, folder: Path, on_liveness: Callable[[Liveness], None]) -> Outcome:
        """As `wait`. Raises UnreadableError."""
        start_error = self._start_errors.pop(folder, None)
        spec = await _read_spec_patiently(folder)
        if spec is None:
            if start_error is None:
                raise UnreadableError("its files were removed")
            return NotStarted(start_error)
        command = self._command(folder)
        environment = {**command.environment, **spec.engine}
        mask = command.mask if folder in self._commands else Mask(spec.secret_names).with_secrets_of(environment)
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
        docker = await self._docker(folder)
        self._commands.pop(folder, None)
        self._stop_requests.pop(folder, None)
        with suppress(EngineUnreachableError):
            exited = await docker.containers(*step_filters(folder), columns="{{.ID}}", all_states=True)
            if exited:
                await docker.run("container", "rm", "--volumes", "--", *(container for (container,) in exited))

    async def _docker(self, folder: Path) -> Docker:
        """The docker command line of a step: of the engine that it was begun on, where that can be read."""
        command = self._command(folder)
        with suppress(OSError, UnreadableError):
            spec = await asyncio.to_thread(_read_spec, folder)
            if spec is not None:
                return Docker(spec.docker, {**command.environment, **spec.engine}, command.mask)
        return Docker(command.docker, command.environment, command.mask)

    def _command(self, folder: Path) -> Command:
        return self._commands.get(folder) or Command((), "/", os.environ, docker=("docker",))

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
        "uptime": uptime(),
        "boot": _boot(),
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
    """The spec of a step, None if there is none. Raises UnreadableError, OSError if it may pass."""
    spec = step_files.read(folder / _SPEC_FILE, dict)
    if spec is None:
        return None
    try:
        return ContainerSpec(
            argvs=tuple(tuple(str(word) for word in argv) for argv in spec["argvs"]),
            cwd=str(spec["cwd"]),
            docker=tuple(str(word) for word in spec["docker"]),
            interrupt=signal.Signals(spec["interrupt"]),
            grace=float(spec["grace"]),
            time_limit=float(spec["time_limit"]),
            decided_at=float(spec["since"]),
            uptime=_decided_uptime(spec),
            engine={str(name): str(value) for name, value in spec["engine"].items()},
            secret_names=tuple(str(name) for name in spec.get("secrets", ())),  # earlier versions wrote none
            begun=bool(spec.get("begun", False)),  # as above
        )
    except (LookupError, TypeError, ValueError, AttributeError):
        raise step_files.damaged(folder / _SPEC_FILE) from None


def _decided_uptime(spec: Mapping[str, Any]) -> float:
    """The uptime at which a step was decided, by the clock of this boot. Raises TypeError, ValueError.

    Across a reboot nothing but the wall clock tells how long that was, and one that was stepped would end a step that
    runs: so the time limit begins again with the boot, or now if an earlier version has not written the uptime.
    """
    if "boot" not in spec:
        return uptime()
    return float(spec["uptime"]) if spec["boot"] == _boot() else 0.0


def _boot() -> str:
    """The id of the host's boot. Raises OSError."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


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
        """The outcome of the step: that of the first container that does not exit with 0, else of the last one.

        Raises UnreadableError.
        """
        name = f"{self._folder.parent.name}-{self._folder.name}"
        stopping = asyncio.create_task(self._stop_when_due(), name=f"stop-{name}")
        running = asyncio.create_task(self._run_in_order(), name=f"run-{name}")
        try:
            done, _ = await asyncio.wait((stopping, running), return_when=asyncio.FIRST_COMPLETED)
            # `stopping` ends by an error only, and without it the step could not be stopped any more
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
            async with asyncio.timeout(max(0.0, self._spec.time_limit - self._spec.elapsed)):
                await self._stop_request.wait()
        reason = "asked" if self._stop_request.is_set() else "time_limit"
        while True:
            for container in self._containers:
                try:
                    await container.stop(reason)
                except EngineUnreachableError:
                    pass  # `run` reports it
                except OSError as error:
                    step_files.raise_unless_passing(error)
            await asyncio.sleep(_RETRY_DELAY)


def _joined(first: Span, last: Span) -> Span:
    peaks, cpus = (first.peak_memory, last.peak_memory), (first.cpu, last.cpu)
    peak = None if peaks[0] is None or peaks[1] is None else max(peaks[0], peaks[1])
    cpu = None if cpus[0] is None or cpus[1] is None else cpus[0] + cpus[1]
    return Span(first.started, last.finished, first.duration + last.duration, peak, cpu)
