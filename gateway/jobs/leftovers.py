"""Removes the gateway's containers whose step has ended, where a killed gateway did not."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable

import structlog

from gateway.errors import StorageError
from gateway.model.attempts import attempt_number
from gateway.model.job import Ended, Finished
from gateway.storage.store import Store
from runners.containers.docker import Docker, EngineUnreachableError
from runners.containers.identity import INSTANCE_LABEL, JOB_LABEL, STEP_LABEL

_INTERVAL = 60.0
_AFTER_SILENCE = 10.0
_COLUMNS = '{{.Names}}\t{{.State}}\t{{.Label "' + JOB_LABEL + '"}}\t{{.Label "' + STEP_LABEL + '"}}'
_REMOVAL_TAKES = 60.0
_STEP = re.compile(r"([0-9]{1,3})-[a-z]+(?:\.([0-9]{1,3}))?")
_ALIVE = ("running", "paused", "restarting")
_ONE_OFF_TAKES = 150.0  # seconds that a container without a job may live: `dbt ls` of a large project

_log = structlog.get_logger()


class Leftovers:
    """Finds this gateway's containers whose step has ended.

    They are left where the gateway was killed before it removed them, or where the engine made them after the docker
    command line had been killed.
    """

    def __init__(self, engines: Callable[[], Iterable[Docker]], instance: str, store: Store) -> None:
        """engines: those of the present configuration."""
        self._engines = engines
        self._instance = instance
        self._store = store
        # by engine: the containers without a job that the last sweep saw, and when each was seen first
        self._one_offs: dict[tuple[str, ...], dict[str, float]] = {}

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            pause = _INTERVAL
            for engine in self._engines():
                try:
                    await self.sweep(engine)
                except (EngineUnreachableError, StorageError) as error:
                    pause = _AFTER_SILENCE
                    _log.warning("leftovers not looked for", engine=" ".join(engine.command), error=str(error))
            await asyncio.sleep(pause)

    async def sweep(self, engine: Docker) -> None:
        """One pass over an engine. Raises EngineUnreachableError, StorageError."""
        own = f"label={INSTANCE_LABEL}={self._instance}"
        seen, one_offs = self._one_offs.get(engine.command, {}), {}
        for found in await engine.containers(own, columns=_COLUMNS, all_states=True):
            container, status, job_id, step = (*found, "", "", "")[:4]
            if not job_id:
                one_offs[container] = seen.get(container, time.monotonic())
                # an ended one is removed at once by the gateway that made it, unless that was killed
                if container in seen and (status not in _ALIVE or time.monotonic() - seen[container] > _ONE_OFF_TAKES):
                    await self._remove(engine, container, "none")
            elif not await self._is_needed(job_id, step, status):
                await self._remove(engine, container, job_id)
        self._one_offs[engine.command] = one_offs

    async def _is_needed(self, job_id: str, step: str, status: str) -> bool:
        """Whether the attempt of this folder name, `2-build` or `2-build.2`, has not ended or is unknown.

        status: of the container.
        """
        found = _STEP.fullmatch(step)
        number, attempt = (int(found[1]), int(found[2] or 1)) if found else (0, 1)
        job = await self._store.get(job_id)
        if job is None:
            # the database may be another one than the container was made with: what runs goes on
            return status in _ALIVE
        if isinstance(job.state, Ended):
            return False
        if not 1 <= number <= len(job.steps):
            return True
        state = job.steps[number - 1]
        return not isinstance(state, Finished) and attempt >= attempt_number(state)

    async def _remove(self, engine: Docker, container: str, job_id: str) -> None:
        said = await engine.run("container", "rm", "--force", "--volumes", "--", container, within=_REMOVAL_TAKES)
        _log.info("leftover removed", container=container, job=job_id, removed=said.code == 0)
