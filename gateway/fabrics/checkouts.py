"""Which state of its project a job runs on, and where that is checked out: a folder for each commit and fabric.

Jobs of one commit share it. Of a fabric only one runs dbt at a time, so none installs packages under another.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import time
import weakref
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from gateway.errors import BadRequestError, RepositoryUnavailableError
from gateway.model.job import Job, SourceCommit
from gateway.settings.project import CHECKOUT, ProjectSettings
from gateway.settings.settings import Settings
from runners.git import checkout as git_checkout
from runners.git import refs as git_words
from runners.git.git import GitFailedError, RepositoryError, UnavailableError, UnknownRefError
from runners.git.mirror import Mirror
from runners.words import WordError

_UNUSED = 86400.0  # seconds after which a checkout is removed
_MIRROR_UNUSED = 30 * 86400.0

T = TypeVar("T")
Remove = Callable[[Path], Awaitable[bool]]  # a folder, however that can be done; whether it is gone

_log = structlog.get_logger()


class CheckoutState:
    """What the jobs of one checkout share: whose it is, by their ids, and a turn for whoever changes it."""

    def __init__(self) -> None:
        self.users: set[str] = set()
        self.lock = asyncio.Lock()


class Checkout:
    """Where the state of a project that a job runs on is, once `ready` has made it. root: of the repository."""

    def __init__(self, mirror: Mirror, source: SourceCommit, root: Path, shared: CheckoutState, remove: Remove) -> None:
        self.root = root
        self._folder = Path(source.folder)
        self._mirror = mirror
        self._commit = source.commit
        self._shared = shared
        self._remove = remove

    @property
    def is_free(self) -> bool:
        """Whether no job is at it."""
        return not self._shared.users

    def project_in(self, project: ProjectSettings) -> ProjectSettings:
        """The project as it is there: what is in its repository is the commit's, what is elsewhere stays."""
        return project.moved(_top(project, self._folder), self.root)

    async def prepare(self, job_id: str) -> str | None:
        """Have it made, or put in order, for a job that is about to begin; else why it can't be."""
        async with self._shared.lock:
            why = await self._make()
            if why is None:
                self._shared.users.add(job_id)
        return why

    def add_user(self, job_id: str) -> None:
        """A job that began under an earlier gateway uses it: to be said before any other job is launched."""
        self._shared.users.add(job_id)

    def remove_user(self, job_id: str) -> None:
        """A job has ended, or is let go of."""
        self._shared.users.discard(job_id)

    async def inspect(self, ask: Callable[[], Awaitable[T]]) -> T | str:
        """What `ask` finds out about it, before any other job begins in it; or why it can't be there."""
        async with self._shared.lock:
            return await self._make() or await ask()

    async def _make(self) -> str | None:
        """What an earlier job has changed in it is put right. While a job is at it, it is there, and is that job's."""
        if not self.is_free and await asyncio.to_thread(_touched, self.root):
            return None
        try:
            await self._ensure()
        except UnknownRefError:  # a mirror that was made anew in the meantime may not have it yet
            try:
                await self._mirror.fetch()
                await self._ensure()
            except RepositoryError as error:
                return str(error)
        except RepositoryError as error:
            return str(error)
        await asyncio.to_thread(_touched, self.root)
        return None

    async def _ensure(self) -> None:
        try:
            await git_checkout.check_out(self._mirror, self._commit, self.root)
        except GitFailedError:
            # a container may have left what only its own user can change: then it is made anew
            if not await self._remove(self.root):
                raise
            await git_checkout.check_out(self._mirror, self._commit, self.root)


async def _nobody(fabric: str, folder: Path) -> bool:  # noqa: ARG001, it is asked of a fabric that could
    return False


class Checkouts:
    """Finds the commits of projects, and keeps their checkouts.

    environment: of the gateway. remove: has a fabric remove a folder that this process can't; whether it is gone.
    """

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str],
        remove: Callable[[str, Path], Awaitable[bool]] = _nobody,
    ) -> None:
        self._settings = settings
        self._remove = remove
        self._environment = environment
        self._mask = settings.mask(environment)
        self._checkouts = settings.state_directory / "checkouts"
        self._repositories = settings.state_directory / "repositories"
        self._mirrors: dict[str, Mirror] = {}
        # Kept for as long as some job has it.
        self._shared: weakref.WeakValueDictionary[Path, CheckoutState] = weakref.WeakValueDictionary()

    async def resolve(self, project: str, branch: str | None, version: str | None) -> SourceCommit | None:
        """What a branch and a version of a project are now, or what is configured without either.

        None where the project's directory runs as it is. Raises BadRequestError, RepositoryUnavailableError.
        """
        chosen = self._settings.projects[project]
        latest = False
        if branch is None and version is None:
            branch, latest = chosen.branch, chosen.version is not None
            if branch is None and not latest:
                return None
        try:
            _check(branch, version)  # before any program hears of them
            address, folder = await self._place(project, chosen)
            mirror = self._mirror(address)
            await mirror.fetch()
            names = [project] if chosen.name is None else [project, chosen.name]
            if latest:
                version, commit = await git_checkout.latest_version(mirror, names)
            else:
                commit = await git_checkout.resolve_commit(mirror, branch, version, names)
        except (WordError, UnknownRefError) as error:
            raise BadRequestError("unknown_version", str(error)) from None
        except UnavailableError as error:
            raise RepositoryUnavailableError(str(error)) from None
        return SourceCommit(commit, branch, version, folder, address)

    def checkout(self, fabric: str, source: SourceCommit | None) -> Checkout | None:
        """Where a source is checked out for a fabric; None for the project's directory as it is."""
        if source is None:
            return None
        root = self._checkouts / fabric / source.commit
        shared = self._shared.setdefault(root, CheckoutState())
        return Checkout(self._mirror(source.repository), source, root, shared, partial(self._remove, fabric))

    async def sweep(self, active: Collection[Job], unused: float = _UNUSED) -> None:
        """Remove the checkouts that no job has used for so many seconds, and mirrors that are long forgotten.

        active: the jobs that have not ended.
        """
        wanted = {self._checkouts / job.fabric / job.source.commit for job in active if job.source is not None}
        for root in await asyncio.to_thread(_older, self._checkouts, "*/*", unused):
            shared = self._shared.setdefault(root, CheckoutState())
            if root in wanted or shared.lock.locked():
                continue
            async with shared.lock:  # whoever comes now finds it gone, and makes it again
                if not shared.users:  # nobody came in the meantime
                    await self._remove_checkout(root)
        mirrors = {mirror.folder: mirror for mirror in self._mirrors.values()}
        for folder in await asyncio.to_thread(_older, self._repositories, "*.git", _MIRROR_UNUSED):
            try:
                if folder in mirrors:
                    await mirrors[folder].remove()
                else:
                    await asyncio.to_thread(_remove, folder)
            except UnavailableError as error:  # another process has it, or the disk is full: the next sweep may do it
                _log.warning("mirror not removed", folder=str(folder), error=str(error))

    async def _remove_checkout(self, root: Path) -> None:
        why = await asyncio.to_thread(_remove, root)
        if why is None or await self._remove(root.parent.name, root):
            _log.info("checkout removed", folder=str(root))
        else:
            _log.warning("checkout not removed", folder=str(root), error=str(why))

    def _mirror(self, address: str) -> Mirror:
        if address not in self._mirrors:
            name = hashlib.sha256(address.encode()).hexdigest()[:32]
            folder = self._repositories / f"{name}.git"
            self._mirrors[address] = Mirror(address, folder, self._environment, self._mask)
        return self._mirrors[address]

    async def _place(self, project: str, chosen: ProjectSettings) -> tuple[str, str]:
        """The address of a project's repository, and its folder in there. Raises BadRequestError, UnavailableError."""
        if chosen.repository is not None:
            return chosen.repository, str(chosen.directory.relative_to(CHECKOUT))
        found = await git_checkout.find_repository(chosen.directory, self._environment, self._mask)
        if found is None:
            raise BadRequestError(
                "no_repository",
                f"Project `{project}` has no branches and versions: its directory {chosen.directory} is not in a git "
                "repository; leave `branch` and `version` out, or make it one.",
            )
        if not chosen.dbt.is_relative_to(_top(chosen, found.path)):
            raise BadRequestError(
                "no_repository",
                f"Project `{project}` has no branches and versions: its dbt project {chosen.dbt} is not in the "
                f"repository {found.root}, of which its directory is; leave `branch` and `version` out.",
            )
        return str(found.root), str(found.path)


def _top(project: ProjectSettings, folder: Path) -> Path:
    """The top of a project's repository. folder: of the project in there."""
    return project.directory.parents[len(folder.parts) - 1] if folder.parts else project.directory


def _check(branch: str | None, version: str | None) -> None:
    """Raises WordError."""
    if branch is not None:
        git_words.branch_ref(branch)
    if version is not None:
        git_words.tag_ref(version)


def _touched(folder: Path) -> bool:
    """Make a folder young again; whether it is there."""
    try:
        os.utime(folder)
    except FileNotFoundError:
        return False
    return True


def _older(folder: Path, pattern: str, age: float) -> list[Path]:
    limit = time.time() - age
    return [found for found in folder.glob(pattern) if found.stat().st_mtime < limit]


def _remove(folder: Path) -> OSError | None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        return error
    return None
