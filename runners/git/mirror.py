"""Our own copy of a repository's branches and tags: all is read from it, so nobody's repository is written to."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from runners.git import git
from runners.git.git import Git, GitFailedError, GitResult, UnavailableError
from runners.mask import Mask

_BETWEEN = 0.05  # seconds between two looks at a lock that another process holds
# Every branch and tag as it is there, also one that was moved by force.
_EVERYTHING = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
# A local repository may be another owner's, which upload-pack refuses; what we give to git itself it wouldn't hear of.
_ANY_OWNER = "safe.directory=*"
_UPLOAD_PACK = f"--upload-pack=git -c '{_ANY_OWNER}' upload-pack"
_FETCH = (
    *("-c", "core.hooksPath=/dev/null", "-c", "core.fsync=all"),
    *("-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=30"),
    *("fetch", "--quiet", "--prune", "--no-tags", "--force", "--update-shallow", "--no-write-fetch-head"),
    *("--no-auto-maintenance", "--no-recurse-submodules"),
)
_TIDY = (
    "-c",
    "gc.autoDetach=false",
    "-c",
    "gc.cruftPacks=true",
    "-c",
    "gc.pruneExpire=never",
    "gc",
    "--auto",
    "--quiet",
)

_T = TypeVar("_T")


class Mirror:
    """A bare repository in `folder`, made from `source` when it is first needed. One object for each folder.

    source: an https:// or ssh:// address, user@host:path, or the absolute path of a local repository or of a folder
    below one. environment: what git finds; of the GIT_ variables only those that say how to reach a host.
    """

    def __init__(self, source: str, folder: Path, environment: Mapping[str, str], mask: Mask) -> None:
        mask = git.with_token_of(mask, source)
        self.folder = folder
        self.name = mask.text(source)
        self._source = source
        self._is_local = source.startswith("/")
        self._git = Git.isolated(environment, mask)
        self._remote = self._git if self._is_local else Git.with_user_configuration(environment, mask)
        self._turn = asyncio.Lock()
        self._in_order = False
        self._lock = subprocess.DEVNULL
        self._begun = self._ended = 0
        self._refusal: str | None = None

    async def fetch(self) -> None:
        """Bring the mirror up to date. Raises UnavailableError.

        Whoever comes while one waits to begin shares its end, good or bad: a dead host is waited for once.
        """
        wanted = self._begun + 1
        async with self.locked():
            if self._ended < wanted:
                self._begun += 1
                began = self._begun
                try:
                    await self._fetch()
                    self._refusal = None
                except UnavailableError as error:
                    self._refusal = str(error)
                self._ended = began
            if self._refusal is not None:
                raise UnavailableError(self._refusal)

    async def remove(self) -> None:
        """Forget all of it; the next fetch makes it anew. Raises UnavailableError."""
        async with self.locked():
            await _finished(_remove, self.folder)

    @contextlib.asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """The mirror to oneself, without what a killed git left half-way. Raises UnavailableError."""
        async with self._turn:
            try:
                await _finished(self.folder.parent.mkdir, 0o777, True, True)
                self._lock = os.open(self._beside("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    await self._wait_for_the_lock()
                    # the lock has content while it is in use: whoever finds some comes after one that was killed
                    if os.fstat(self._lock).st_size:
                        await _finished(_tidy, self.folder)
                    os.pwrite(self._lock, b"in use\n", 0)
                    self._in_order = True
                    yield
                    if self._in_order:
                        os.ftruncate(self._lock, 0)
                finally:
                    os.close(self._lock)
                    self._lock = subprocess.DEVNULL
            except OSError as error:
                raise UnavailableError(f"The copy of the repository {self.name} can't be kept: {error}.") from None

    async def _wait_for_the_lock(self) -> None:
        """A git of a gateway that was killed goes on for a while, and holds it."""
        try:
            async with asyncio.timeout(2 * git.LIMIT):
                while True:
                    with contextlib.suppress(BlockingIOError):
                        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        return
                    await asyncio.sleep(_BETWEEN)
        except TimeoutError:
            raise UnavailableError(
                f"The copy of the repository {self.name} is in use: another process holds {self._beside('lock')}."
            ) from None

    async def repaired(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """What `work` gives; where git fails and the mirror is damaged, once more with a new one. To be held.

        Raises GitFailedError only where the mirror is not damaged. A new one has not what only the old one remembered,
        such as commits of before a push by force.
        """
        try:
            return await work()
        except GitFailedError:
            if (await self._call("fsck", "--no-dangling", "--no-progress")).code == 0:
                raise
        try:
            await self._make()
        except GitFailedError as error:
            raise UnavailableError(str(error)) from None
        return await work()

    async def git(self, *arguments: str) -> str:
        """What git says of the mirror. To be held. Raises UnavailableError, GitFailedError where git does."""
        return self._checked(await self._call(*arguments))

    async def git_in(self, folder: Path, *arguments: str) -> None:
        """Have git change a folder, for everybody to read and write. To be held. Raises as `ask`."""
        there = ("-C", str(folder), f"--work-tree={folder}")
        said = await self._call(*there, *arguments, umask=0)
        if said.code != 0:
            raise GitFailedError(f"The checkout {folder} can't be made: {self._git.explain(said.error)}")

    async def test(self, *arguments: str) -> bool:
        """Whether git's answer is yes, exit code 0; 1 is no. To be held. Raises UnavailableError, GitFailedError."""
        said = await self._call(*arguments)
        if said.code != 1:
            self._checked(said)
        return said.code == 0

    async def tidy(self) -> None:
        """Pack what has become many files, once in a while. To be held. Nothing is forgotten by that."""
        with contextlib.suppress(UnavailableError):
            await self._call(*_TIDY)

    async def _call(self, *arguments: str, umask: int = -1) -> GitResult:
        call = self._git.call(f"--git-dir={self.folder}", *arguments, lock=self._lock, umask=umask)
        return await self._said(call)

    async def _said(self, call: Awaitable[GitResult]) -> GitResult:
        try:
            return await call
        except UnavailableError as error:
            self._in_order = False
            raise UnavailableError(self._sentence(str(error))) from None

    def _checked(self, said: GitResult) -> str:
        if said.code != 0:
            raise GitFailedError(self._sentence(self._git.explain(said.error)))
        return said.output

    def _sentence(self, why: str) -> str:
        return f"The repository {self.name} can't be read: {why}"

    async def _fetch(self) -> None:
        try:
            if self.folder.exists():
                await self._bring(self.folder)
                return
        except GitFailedError:
            pass  # the mirror may be damaged, or the source not there: a new one tells, and replaces only when complete
        await self._make()

    async def _make(self) -> None:
        """A new mirror in the place of what is there, once it is complete."""
        new = self._beside("new")
        try:
            await _finished(_remove, new)
            init = ("init", "--quiet", "--bare", "--template=", "--", str(new))
            self._checked(await self._said(self._git.call(*init, lock=self._lock)))
            await self._bring(new)
            await _finished(_replace, new, self.folder, self._beside("old"))
        finally:
            await _finished(_remove, new)

    async def _bring(self, mirror: Path) -> None:
        fetch = (f"--git-dir={mirror}", *_FETCH, *([_UPLOAD_PACK] if self._is_local else []), "--end-of-options")
        source = await self._git_folder() if self._is_local else self._source
        self._checked(await self._said(self._remote.call(*fetch, source, *_EVERYTHING, lock=self._lock)))

    async def _git_folder(self) -> str:
        """Where a local repository has its objects, whichever of its folders or working trees is named."""
        asked = ("-C", self._source, "-c", _ANY_OWNER, "rev-parse", "--path-format=absolute", "--git-common-dir")
        return self._checked(await self._said(self._git.call(*asked, lock=self._lock))).removesuffix("\n")

    def _beside(self, suffix: str) -> Path:
        return self.folder.with_name(f"{self.folder.name}.{suffix}")


def _replace(new: Path, folder: Path, old: Path) -> None:
    _remove(old)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    _remove(old)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _tidy(folder: Path) -> None:
    """Remove what a killed git left: locks, and objects that it was still writing."""
    for place, _, names in os.walk(folder):
        is_objects = Path(place).is_relative_to(folder / "objects")
        for name in names:
            if name.endswith(".lock") or name == "gc.pid" or (is_objects and name.startswith("tmp_")):
                Path(place, name).unlink(missing_ok=True)


async def _finished(work: Callable[..., None], *arguments: object) -> None:
    """Do it in a thread, to its end also where the caller is cancelled: nobody else may have the folder before."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
