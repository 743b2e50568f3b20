"""Containers that nobody needs any more: removed, whoever was killed before doing it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog

from gateway.errors import StorageError
from gateway.jobs.job import Ended, Finished, Job
from gateway.jobs.store import Store
from runners.container import INSTANCE_LABEL, JOB_LABEL, STEP_LABEL
from runners.docker import Docker, EngineSilentError

_INTERVAL = 60.0
_COLUMNS = '{{.Names}}\t{{.Label "' + JOB_LABEL + '"}}\t{{.Label "' + STEP_LABEL + '"}}'
_REMOVAL_TAKES = 60.0

_log = structlog.get_logger()


class Leftovers:
    """Finds this gateway's containers whose step has ended: the gateway was killed before it removed them, or the
    engine made them after the command line that asked for it was gone."""

    def __init__(self, engines: Iterable[Docker], instance: str, store: Store) -> None:
        self._engines = list(engines)
        self._instance = instance
        self._store = store

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            for engine in self._engines:
                try:
                    await self.sweep(engine)
                except (EngineSilentError, StorageError) as error:
                    _log.warning("leftovers not looked for", engine=" ".join(engine.command), error=str(error))
            await asyncio.sleep(_INTERVAL)

    async def sweep(self, engine: Docker) -> None:
        """One pass over an engine. Raises EngineSilentError, StorageError."""
        own = f"label={INSTANCE_LABEL}={self._instance}"
        for name, job_id, step in await engine.containers(own, columns=_COLUMNS, all_states=True):
            # one without a job is a look at an image, which removes itself
            if job_id and not _is_needed(await self._store.get(job_id), step):
                said = await engine.call("container", "rm", "--force", "--", name, within=_REMOVAL_TAKES)
                _log.info("leftover removed", container=name, removed=said.code == 0)


def _is_needed(job: Job | None, step: str) -> bool:
    """Whether the step named by its folder, `2-build`, has not ended."""
    if job is None or isinstance(job.state, Ended):
        return False
    number = int(step.partition("-")[0])
    return not isinstance(job.steps[number - 1], Finished)
