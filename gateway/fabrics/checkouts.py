"""From a branch or version to a commit, and from a commit to a directory: one checkout per fabric and commit.

Jobs of one commit share its checkout. A fabric runs one dbt at a time, so no job installs packages under another.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import time
import weakref
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from gateway.errors import BadRequestError, RepositoryUnavailableError
from gateway.model.job import Job, SourceCommit
from gateway.settings.project import CHECKOUT, ProjectSettings
from gateway.settings.settings import Settings
from runners.git import checkout as git_checkout
from runners.git import refs as git_refs
from runners.git.git import GitFailedError, RepositoryError, UnavailableError, UnknownRefError
from runners.git.mirror import Mirror
from runners.parameters import WordError

_CHECKOUT_AGE = 86400.0  # seconds without use after which a checkout is removed
_MIRROR_AGE = 30 * 86400.0
# patterns of the folders' names: a person's folders beside them stay
_COMMIT, _MIRROR = "[0-9a-f]" * 40, "[0-9a-f]" * 32
_ACCEPTANCE = 3600.0  # seconds that the job of a resolved commit may take to be recorded, at most

T = TypeVar("T")
RemoveFolder = Callable[[Path], Awaitable[bool]]  # true if the folder does not exist any more

_log = structlog.get_logger()


class CheckoutState:
    """What the jobs of one checkout share: their ids, and the lock of the one that changes the folder."""

    def __init__(self) -> None:
        self.users: set[str] = set()
        self.lock = asyncio.Lock()


class Checkout:
    """A commit of a project as a folder, which `prepare` makes. root: the top of the repository in it."""

    def __init__(
        self, mirror: Mirror, source: SourceCommit, root: Path, shared: CheckoutState, remove: RemoveFolder
    ) -> None:
        self.root = root
        self._source = source
        self._mirror = mirror
        self._shared = shared
        self._remove = remove

    @property
    def is_free(self) -> bool:
        """Whether no job uses it."""
        return not self._shared.users

    def project_in(self, project: ProjectSettings) -> ProjectSettings:
        """The project with its paths in this checkout; paths outside of the repository stay."""
        if project.repository is not None:
            return project.moved(CHECKOUT, self.root)
        top = Path(self._source.repository)
        return project.placed(partial(_place, project.directory, top / self._source.folder)).moved(top, self.root)

    def missing_folder(self, folder: Path) -> str | None:
        """Why a folder in the checkout is missing or empty; None if it is there, or outside. Blocks."""
        if not folder.is_relative_to(self.root) or (folder.is_dir() and any(folder.iterdir())):
            return None
        path = folder.relative_to(self.root)
        for submodule, address in _submodules(self.root):
            if path.is_relative_to(submodule):
                return (
                    f"The folder {path} is in the submodule {submodule}, whose files a checkout does not have: make "
                    f"the submodule a project of its own, such as `repository: {address}`, with `branch`."
                )
        return (
            f"The commit {self._source.commit} of {self._source.repository} has no folder {path}: set `directory` and "
            "`dbt` of the project to folders that it has, or trigger a commit that has this one."
        )

    async def prepare(self, job_id: str) -> str | None:
        """Make the folder, or restore the commit in it, for a job that is about to begin; else why that fails."""
        async with self._shared.lock:
            why = await self._make()
            if why is None:
                self._shared.users.add(job_id)
        return why

    def add_user(self, job_id: str) -> None:
        """Register a job that began under an earlier gateway. Call this before any other job is launched."""
        self._shared.users.add(job_id)

    def remove_user(self, job_id: str) -> None:
        """Unregister a job that has ended, or that this process stops following."""
        self._shared.users.discard(job_id)

    async def inspect(self, ask: Callable[[], Awaitable[T]]) -> T | str:
        """The result of `ask`, during which no job begins in the checkout; or why the checkout can't be made."""
        async with self._shared.lock:
            return await self._make() or await ask()

    async def _make(self) -> str | None:
        """Restore what an earlier job has changed. While a job uses the folder, it stays as that job has it."""
        if not self.is_free and await asyncio.to_thread(_touch, self.root):
            return None
        try:
            await self._ensure()
        except RepositoryError as error:
            return str(error)
        await asyncio.to_thread(_touch, self.root)
        return None

    async def _ensure(self) -> None:
        try:
            await git_checkout.check_out(self._mirror, self._source.commit, self.root)
        except GitFailedError:
            # a container may have left files of its own user: its fabric removes the folder, and git makes it again
            if not await self._remove(self.root):
                raise
            await git_checkout.check_out(self._mirror, self._source.commit, self.root)


async def _keep_folder(fabric: str, folder: Path) -> bool:  # noqa: ARG001, the signature of a fabric's removal
    return False


class Checkouts:
    """Resolves branches and versions of projects to commits, and keeps the checkouts.

    environment: of the gateway. remove: removes a folder of a fabric with rights that this process lacks; true if the
    folder does not exist any more.
    """

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str],
        remove: Callable[[str, Path], Awaitable[bool]] = _keep_folder,
        earlier: Checkouts | None = None,
    ) -> None:
        """earlier: those of the configuration before, whose mirrors and users these have too."""
        self._settings = settings
        self._remove = remove
        self._environment = environment
        self._mask = settings.mask(environment)
        self._checkouts = settings.state_directory / "checkouts"
        self._repositories = settings.state_directory / "repositories"
        self._mirrors: dict[str, Mirror] = {} if earlier is None else earlier._mirrors
        # when each commit was last resolved, monotonic
        self._resolved: dict[tuple[Mirror, str], float] = {} if earlier is None else earlier._resolved
        # weak: an entry lives as long as a Checkout that uses it
        self._shared: weakref.WeakValueDictionary[Path, CheckoutState] = (
            weakref.WeakValueDictionary() if earlier is None else earlier._shared
        )

    def renew_mirrors(self) -> None:
        """Give the mirrors of the configuration before the environment of this one."""
        for mirror in self._mirrors.values():
            mirror.configure(self._environment, self._mask)

    async def resolve(self, project: str, branch: str | None, version: str | None) -> SourceCommit | None:
        """The commit of a branch or version now; without either, of what is configured.

        None where the project's directory runs as it is. Raises BadRequestError, RepositoryUnavailableError.
        """
        chosen = self._settings.projects[project]
        latest = False
        if branch is None and version is None:
            branch, latest = chosen.branch, chosen.version is not None
            if branch is None and not latest:
                return None
        try:
            _check_refs(branch, version)  # before git gets them
            address, folder, link = await self._locate(project, chosen)
            mirror = self._mirror(address)
            await mirror.fetch()
            names = [project] if chosen.name is None else [project, chosen.name]
            if latest:
                version, commit = await git_checkout.latest_version(mirror, names)
            else:
                commit = await git_checkout.resolve_commit(mirror, branch, version, names)
            if link is not None and await git_checkout.has_path(mirror, commit, link.link):
                folder = link.folder
        except (WordError, UnknownRefError) as error:
            raise BadRequestError("unknown_version", str(error)) from None
        except UnavailableError as error:
            raise RepositoryUnavailableError(str(error)) from None
        self._resolved[mirror, commit] = time.monotonic()
        await asyncio.to_thread(_touch, mirror.folder)
        return SourceCommit(commit, branch, version, folder, address)

    def checkout(self, fabric: str, source: SourceCommit) -> Checkout:
        """The checkout of a commit for a fabric, not made yet."""
        root = self._checkouts / fabric / source.commit
        shared = self._shared.setdefault(root, CheckoutState())
        return Checkout(self._mirror(source.repository), source, root, shared, partial(self._remove, fabric))

    async def sweep(self, active: Collection[Job], unused: float = _CHECKOUT_AGE) -> None:
        """Remove the checkouts that no job has used for `unused` seconds, and the mirrors of a month without use.

        active: the jobs that have not ended.
        """
        wanted = {self._checkouts / job.fabric / job.source.commit for job in active if job.source is not None}
        for root in await asyncio.to_thread(_older, self._checkouts, f"*/{_COMMIT}*", unused):
            shared = self._shared.setdefault(root, CheckoutState())
            if root in wanted or shared.lock.locked():
                continue
            async with shared.lock:  # a job that comes meanwhile waits, and makes the folder again
                if not shared.users:  # no job came in the meantime
                    await self._remove_checkout(root)
        await self._sweep_mirrors([job.source for job in active if job.source is not None])

    async def _sweep_mirrors(self, sources: Collection[SourceCommit]) -> None:
        """sources: of the active jobs, whose commits are kept."""
        earliest = time.monotonic() - _ACCEPTANCE
        for key in [key for key, then in self._resolved.items() if then <= earliest]:
            del self._resolved[key]
        active = {(self._mirror(source.repository), source.commit) for source in sources}
        for mirror in list(self._mirrors.values()):
            try:
                await mirror.keep_only({commit for user, commit in {*self._resolved, *active} if user is mirror})
            except UnavailableError as error:
                # another process holds the mirror, or the disk is full: the next sweep tries again
                _log.warning("commits of ended jobs not released", folder=str(mirror.folder), error=str(error))
        in_use = {mirror.folder for mirror, _ in active}
        mirrors = {mirror.folder: mirror for mirror in self._mirrors.values()}
        for folder in await asyncio.to_thread(_older, self._repositories, f"{_MIRROR}.git", _MIRROR_AGE):
            if folder in in_use:
                continue
            try:
                if folder in mirrors:
                    await mirrors[folder].remove()
                else:
                    await asyncio.to_thread(_remove, folder)
            except UnavailableError as error:
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

    async def _locate(self, project: str, chosen: ProjectSettings) -> tuple[str, str, _LinkedFolder | None]:
        """A project's repository, its folder in there, and another way to that folder, for commits that have its link.

        Raises BadRequestError, UnavailableError.
        """
        if chosen.repository is not None:
            return chosen.repository, str(chosen.directory.relative_to(CHECKOUT)), None
        found = await git_checkout.find_repository(chosen.directory, self._environment, self._mask)
        if found is None:
            raise BadRequestError(
                "no_repository",
                f"Project `{project}` has no branches and versions: its directory {chosen.directory} is not in a git "
                "repository; leave `branch` and `version` out, or make it one.",
            )
        directory, root = chosen.directory, found.root
        place, link = await asyncio.to_thread(lambda: (_place(directory, root, chosen.dbt), _linked(root, directory)))
        if not place.is_relative_to(root):
            raise BadRequestError(
                "no_repository",
                f"Project `{project}` has no branches and versions: its dbt project {chosen.dbt} is not in the "
                f"repository {found.root}, of which its directory is; leave `branch` and `version` out.",
            )
        return str(root), str(found.path), link


@dataclass(frozen=True, slots=True)
class _LinkedFolder:
    """A folder of a repository, named through a symbolic link of the repository. Both paths are relative to its top."""

    folder: str
    link: str


def _linked(root: Path, directory: Path) -> _LinkedFolder | None:
    """The directory as a path through a link that is itself in the repository `root`; None if there is no such link."""
    top = next((folder for folder in (directory, *directory.parents) if folder.resolve() == root), None)
    if top is None or top == directory:
        return None
    folder = directory.relative_to(top)
    ways = (top / way for way in (*reversed(folder.parents), folder))
    link = next((way for way in ways if way != top and way.is_symlink()), None)
    if link is None or link.readlink().is_absolute():  # which would lead out of every checkout
        return None
    return _LinkedFolder(str(folder), str(link.relative_to(top)))


def _place(directory: Path, place: Path, path: Path) -> Path:
    """A path of a project whose directory has this place: as it is from the directory, else without symbolic links.

    git names places in a repository without symbolic links.
    """
    return place / path.relative_to(directory) if path.is_relative_to(directory) else path.resolve()


def _submodules(root: Path) -> Iterator[tuple[str, str]]:
    """The path and the address of each submodule of a checkout."""
    try:
        text = (root / ".gitmodules").read_text("utf-8", "replace")
    except OSError:
        return
    for section in text.split("[submodule ")[1:]:
        found = dict(re.findall(r"^\s*(path|url)\s*=\s*(\S.*?)\s*$", section, re.MULTILINE))
        if "path" in found:
            yield found["path"], found.get("url", "https://…")


def _check_refs(branch: str | None, version: str | None) -> None:
    """Raises WordError."""
    if branch is not None:
        git_refs.branch_ref(branch)
    if version is not None:
        git_refs.tag_ref(version)


def _touch(folder: Path) -> bool:
    """Set the time of a folder's last use to now; false if there is no such folder."""
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
