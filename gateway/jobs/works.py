"""Finds the work of a fabric: what its steps run depends on where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gateway.config import Settings
from gateway.jobs.compose_work import ComposeWork
from gateway.jobs.job import RunnerName
from gateway.jobs.local_work import LocalWork
from gateway.jobs.sources import Checkout
from gateway.jobs.work import Work
from runners.docker import Docker


class Works:
    """Makes the work of any fabric and project.

    environment: of the gateway. instance: the gateway's own id, which its containers carry.
    """

    def __init__(self, settings: Settings, environment: Mapping[str, str], instance: str) -> None:
        self._settings = settings
        self._environment = environment
        self._instance = instance
        self._made: dict[tuple[RunnerName, str, str], Work] = {}

    def of(self, runner: RunnerName, fabric: str, project: str, checkout: Checkout | None = None) -> Work:
        """The work of a project in a fabric, as far as the configuration (still) has them.

        checkout: where the project is, None for its own directory, for which the work is always the same one.
        """
        if checkout is not None:
            return self._make(runner, fabric, project, checkout)
        key = (runner, fabric, project)
        if key not in self._made:
            self._made[key] = self._make(*key, None)
        return self._made[key]

    def _make(self, runner: RunnerName, fabric: str, project: str, checkout: Checkout | None) -> Work:
        match runner:
            case RunnerName.LOCAL:
                return LocalWork(self._settings, fabric, project, self._environment, checkout)
            case RunnerName.COMPOSE:
                return ComposeWork(self._settings, fabric, self._environment, self._instance)

    def all(self) -> Iterable[Work]:
        """The work of every fabric, with every project where they run it themselves."""
        for name, fabric in self._settings.fabrics.items():
            runner = RunnerName(fabric.runner)
            projects = self._settings.projects if runner is RunnerName.LOCAL else [self._settings.default_project]
            for project in projects:
                yield self.of(runner, name, project)

    def engines(self) -> Iterable[Docker]:
        """The container engines of the fabrics, each once."""
        works = [
            ComposeWork(self._settings, name, self._environment, self._instance)
            for name, fabric in self._settings.fabrics.items()
            if RunnerName(fabric.runner) is RunnerName.COMPOSE
        ]
        return {work.docker.command: work.docker for work in works}.values()
