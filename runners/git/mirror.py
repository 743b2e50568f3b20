"""The gateway's own copy of a repository's branches and tags. git reads from the copy, never writes to the source."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from runners.git import git
from runners.git.git import Git, GitFailedError, GitResult, UnavailableError, UnknownRefError
from runners.mask import Mask

_LOCK_POLL = 0.05  # seconds between two attempts at a lock that another process holds
# Every branch and tag as it is in the source, also one that was moved by force.
_ALL_REFS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
_KEPT = "refs/gateway/"  # the commits of active jobs: refs of our own, which no fetch from the source changes
# upload-pack refuses a local repository of another owner; it reads this setting from its own command line only.
_ANY_OWNER = "safe.directory=*"
_UPLOAD_PACK = f"--upload-pack=git -c '{_ANY_OWNER}' upload-pack"
_GIT_SETTINGS = (
    *("-c", "core.hooksPath=/dev/null", "-c", "core.fsync=all"),
    *("-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=30"),
)
_FETCH = (
    *_GIT_SETTINGS,
    *("fetch", "--quiet", "--prune", "--no-tags", "--force", "--update-shallow", "--no-write-fetch-head"),
    *("--no-auto-maintenance", "--no-recurse-submodules"),
)
_SHA256 = 64  # digits of a hash, where SHA-1 has 40
_GC = (
    *("-c", "gc.autoDetach=false", "-c", "gc.cruftPacks=true", "-c", "gc.pruneExpire=never"),
    *("gc", "--auto", "--quiet"),
)

_T = TypeVar("_T")


class Mirror:
    """A bare repository in `folder`, made from `source` by the first fetch. Make one object for each folder.

    source: an https:// or ssh:// address, user@host:path, or the absolute path of a local repository or of a folder
    in one. environment: of git; of the GIT_ variables only those that say how to reach a host are used.
    """

    def __init__(self, source: str, folder: Path, environment: Mapping[str, str], mask: Mask) -> None:
        self.folder = folder
        self._source = source
        self._is_local = source.startswith("/")
        self.configure(environment, mask)
        self._task_lock = asyncio.Lock()
        self._lock_fd = subprocess.DEVNULL
        self._is_clean = False  # no git has been killed since the lock was taken
        self._fetches_begun = self._fetches_ended = 0
        self._fetch_error: str | None = None

    def configure(self, environment: Mapping[str, str], mask: Mask) -> None:
        """Use this environment for what git does from now on."""
        mask = git.with_token_of(mask, self._source)
        self.name = mask.text(self._source)
        self._git = Git.isolated(environment, mask)
        self._remote_git = self._git if self._is_local else Git.with_user_configuration(environment, mask)

    async def fetch(self) -> None:
        """Bring the mirror up to date. Raises UnavailableError.

        All callers that wait for the same fetch to begin share its result or error, so that an unreachable host costs
        its time limit once.
        """
        wanted = self._fetches_begun + 1
        async with self.locked():
            if self._fetches_ended < wanted:
                self._fetches_begun += 1
                number = self._fetches_begun
                try:
                    await self._fetch()
                    self._fetch_error = None
                except UnavailableError as error:
                    self._fetch_error = str(error)
                self._fetches_ended = number
            if self._fetch_error is not None:
                raise UnavailableError(self._fetch_error)

    async def keep(self, commit: str) -> None:
        """Keep a commit through pushes by force and repairs. Needs `locked`. Raises as `run`."""
        await self.run("-c", "core.fsync=all", "update-ref", f"{_KEPT}{commit}", commit)

    async def keep_only(self, commits: Collection[str]) -> None:
        """Keep these commits, as far as the mirror has them, and no others. Raises UnavailableError."""
        async with self.locked():
            kept = await self._kept()
            for commit in kept.difference(commits):
                await self.run("update-ref", "-d", f"{_KEPT}{commit}")
            for commit in set(commits) - kept:
                with contextlib.suppress(GitFailedError):
                    await self.keep(commit)

    async def fetch_commit(self, commit: str) -> None:
        """Bring a commit that may be on no branch. Needs `locked`. Raises as `run`, and UnknownRefError."""
        result = await self._fetch_result(self.folder, f"+{commit}:{_KEPT}{commit}")
        if "not our ref" in result.error or "unadvertised object" in result.error:
            raise UnknownRefError(
                f"The commit {commit} is not in the repository {self.name} any more: trigger what is there now."
            )
        self._output(result)

    async def remove(self) -> None:
        """Remove the mirror from the disk; the next fetch makes a new one. Raises UnavailableError."""
        async with self.locked():
            await _complete_in_thread(_remove, self.folder)

    @contextlib.asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Exclusive use of the mirror, without the leftovers of a killed git. Raises UnavailableError."""
        async with self._task_lock:
            try:
                await _complete_in_thread(self.folder.parent.mkdir, 0o777, True, True)
                self._lock_fd = os.open(self._sibling("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    await self._acquire_file_lock()
                    # the lock file has content while the mirror is in use: content now means that its user was killed
                    if os.fstat(self._lock_fd).st_size:
                        await _complete_in_thread(_remove_leftovers, self.folder)
                    os.pwrite(self._lock_fd, b"in use\n", 0)
                    self._is_clean = True
                    yield
                    if self._is_clean:
                        os.ftruncate(self._lock_fd, 0)
                finally:
                    os.close(self._lock_fd)
                    self._lock_fd = subprocess.DEVNULL
            except OSError as error:
                raise UnavailableError(f"The copy of the repository {self.name} can't be kept: {error}.") from None

    async def _acquire_file_lock(self) -> None:
        """Wait for the lock: a git of a gateway that was killed holds it until that git ends."""
        try:
            async with asyncio.timeout(2 * git.TIMEOUT):
                while True:
                    with contextlib.suppress(BlockingIOError):
                        fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        return
                    await asyncio.sleep(_LOCK_POLL)
        except TimeoutError:
            raise UnavailableError(
                f"The copy of the repository {self.name} is in use: another process holds {self._sibling('lock')}."
            ) from None

    async def with_repair(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """The result of `work`; if git fails and the mirror is damaged, of `work` on a new mirror. Needs `locked`.

        Raises GitFailedError only if the mirror is not damaged.
        """
        try:
            return await work()
        except GitFailedError:
            if not await self._is_damaged():
                raise
        try:
            await self._recreate()
        except GitFailedError as error:
            raise UnavailableError(str(error)) from None
        return await work()

    async def run(self, *arguments: str) -> str:
        """The output of a git command on the mirror. Needs `locked`. Raises UnavailableError, GitFailedError."""
        return self._output(await self._run(*arguments))

    async def run_in(self, folder: Path, *arguments: str) -> None:
        """Have git change a working tree, with write access for all users. Needs `locked`. Raises as `run`."""
        work_tree = ("-C", str(folder), f"--work-tree={folder}")
        result = await self._run(*work_tree, *arguments, umask=0)
        if result.code != 0:
            raise GitFailedError(f"The checkout {folder} can't be made: {self._git.explain(result.error)}")

    async def test(self, *arguments: str) -> bool:
        """Whether a git command exits with 0; False for 1, an error for others. Needs `locked`. Raises as `run`."""
        result = await self._run(*arguments)
        if result.code != 1:
            self._output(result)
        return result.code == 0

    async def tracked_branch(self, branch: str) -> str | None:
        """A branch of this name that only a remote of a local source has, such as `origin/dev`. Needs `locked`."""
        if not self._is_local:
            return None
        listing = ("for-each-ref", "--format=%(refname:lstrip=2)", "refs/remotes")
        result = await self._result(self._git.run("-C", self._source, "-c", _ANY_OWNER, *listing, lock=self._lock_fd))
        names = result.output.splitlines() if result.code == 0 else []
        return next((name for name in names if name.partition("/")[2] == branch), None)

    async def collect_garbage(self) -> None:
        """Pack loose objects if there are many; no object is removed. Needs `locked`."""
        with contextlib.suppress(UnavailableError):
            await self._run(*_GC)

    async def _run(self, *arguments: str, umask: int = -1) -> GitResult:
        call = self._git.run(f"--git-dir={self.folder}", *arguments, lock=self._lock_fd, umask=umask)
        return await self._result(call)

    async def _result(self, call: Awaitable[GitResult]) -> GitResult:
        try:
            return await call
        except UnavailableError as error:
            self._is_clean = False
            raise UnavailableError(self._message(str(error))) from None

    def _output(self, result: GitResult) -> str:
        if result.code != 0:
            raise GitFailedError(self._message(self._git.explain(result.error)))
        return result.output

    def _message(self, why: str) -> str:
        return f"The repository {self.name} can't be read: {why}"

    async def _is_damaged(self) -> bool:
        """Whether git finds the mirror damaged; False if git does not answer within its time limit."""
        try:
            return (await self._run("fsck", "--no-dangling", "--no-progress")).code != 0
        except UnavailableError:
            return False

    async def _kept(self) -> set[str]:
        """The commits that are kept; none where the mirror is missing, or too damaged to say."""
        result = await self._run("for-each-ref", "--format=%(refname)", _KEPT)
        return {name.removeprefix(_KEPT) for name in result.output.splitlines()} if result.code == 0 else set()

    async def _fetch(self) -> None:
        if self.folder.exists():
            result = await self._fetch_result(self.folder, *_ALL_REFS)
            is_outdated = "mismatched algorithms" in result.error  # the source was made anew, with other hashes
            if result.code == 0 or not (is_outdated or await self._is_damaged()):
                self._output(result)  # raises where the source, or the way to it, is broken: the mirror stays
                return
        await self._recreate()

    async def _recreate(self) -> None:
        """Make a new mirror, and replace the old one once the new one is complete."""
        new = self._sibling("new")
        try:
            await _complete_in_thread(_remove, new)
            init = ("init", "--quiet", "--bare", "--template=", await self._object_format(), "--", str(new))
            self._output(await self._result(self._git.run(*init, lock=self._lock_fd)))
            self._output(await self._fetch_result(new, *_ALL_REFS))
            for commit in await self._kept():  # one by one: the damage may have hit only some of them
                kept = (str(self.folder), f"+{_KEPT}{commit}:{_KEPT}{commit}")
                await self._result(self._git.run(f"--git-dir={new}", *_FETCH, *kept, lock=self._lock_fd))
            await _complete_in_thread(_replace, new, self.folder, self._sibling("old"))
        finally:
            await _complete_in_thread(_remove, new)

    async def _object_format(self) -> str:
        """The option of `git init` for a mirror whose hashes are as long as the source's."""
        refs = self._output(await self._source_result(*_GIT_SETTINGS, "ls-remote", "--quiet"))
        return f"--object-format={'sha256' if len(refs.partition(chr(9))[0]) == _SHA256 else 'sha1'}"

    async def _fetch_result(self, mirror: Path, *refs: str) -> GitResult:
        """The result of a fetch from the source. Raises UnavailableError."""
        return await self._source_result(f"--git-dir={mirror}", *_FETCH, refs=refs)

    async def _source_result(self, *command: str, refs: Sequence[str] = ()) -> GitResult:
        """The result of a git command that asks the source. Raises UnavailableError."""
        options = (*([_UPLOAD_PACK] if self._is_local else []), "--end-of-options")
        source = await self._local_git_folder() if self._is_local else self._source
        return await self._result(self._remote_git.run(*command, *options, source, *refs, lock=self._lock_fd))

    async def _local_git_folder(self) -> str:
        """The folder of a local repository's objects; the source may be any of its folders or working trees."""
        command = ("-C", self._source, "-c", _ANY_OWNER, "rev-parse", "--path-format=absolute", "--git-common-dir")
        return self._output(await self._result(self._git.run(*command, lock=self._lock_fd))).removesuffix("\n")

    def _sibling(self, suffix: str) -> Path:
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


def _remove_leftovers(folder: Path) -> None:
    """Remove the locks of a killed git, and the objects that it had not written completely."""
    for parent, _, names in os.walk(folder):
        is_objects = Path(parent).is_relative_to(folder / "objects")
        for name in names:
            if name.endswith(".lock") or name == "gc.pid" or (is_objects and name.startswith("tmp_")):
                Path(parent, name).unlink(missing_ok=True)


async def _complete_in_thread(work: Callable[..., None], *arguments: object) -> None:
    """Run `work` in a thread to its end, even if the caller is cancelled: until then the folder is in use."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
