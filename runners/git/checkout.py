"""From a branch or a version to a commit, and from a commit to a working tree."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from runners.git.git import Git, GitFailedError, UnavailableError, UnknownRefError
from runners.git.mirror import Mirror
from runners.git.refs import branch_ref, highest_version_tags, tag_ref, version_tags
from runners.mask import Mask
from runners.parameters import WordError
from runners.report import one_line

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_BRANCHES, _TAGS = "refs/heads/", "refs/tags/"
_LONGEST_QUOTE = 100  # characters
_MAX_NAMES = 10  # in the message of a refusal


@dataclass(frozen=True, slots=True)
class RepositoryFolder:
    """A folder of a repository. root: absolute, of the repository. path: relative to the root, empty for the root."""

    root: Path
    path: Path


async def find_repository(folder: Path, environment: Mapping[str, str], mask: Mask) -> RepositoryFolder | None:
    """The repository whose working tree a folder is in, None if there is none. Raises UnavailableError."""
    git = Git.isolated(environment, mask)
    answers = []
    for option in ("--show-toplevel", "--show-prefix"):
        result = await git.run("-C", str(folder), "-c", "safe.directory=*", "rev-parse", option)
        if "not a git repository" in result.error or "must be run in a work tree" in result.error:
            return None
        if result.code != 0:
            raise UnavailableError(f"The folder {folder} can't be read: {git.explain(result.error)}")
        answers.append(result.output.removesuffix("\n"))
    return RepositoryFolder(Path(answers[0]), Path(answers[1]))


async def resolve_commit(
    mirror: Mirror, branch: str | None = None, version: str | None = None, project_names: Sequence[str] = ()
) -> str:
    """The full hash of a commit, as of the last fetch; the mirror keeps it. Raises UnknownRefError, UnavailableError.

    branch: its head is the commit. version: the commit is that of the tag of this name, `v<version>` or
    `<project>/<version>`. With both, the commit is the tag's, and must be on the branch. One of them is required.
    """

    async def find() -> str:
        refs = await _refs(mirror)
        head = None if branch is None else await _branch_head(mirror, refs, branch)
        if version is None:
            assert head is not None
            return head
        tag, commit = await _version_commit(mirror, refs, version, project_names)
        if head is not None and not await mirror.test("merge-base", "--is-ancestor", commit, head):
            raise UnknownRefError(
                f"The tag {_quoted(tag)} is not on the branch {_quoted(branch)} of the repository {mirror.name}: name "
                "the one or the other, or a branch that it is on."
            )
        return commit

    async with mirror.locked():
        commit = await mirror.with_repair(find)
        await mirror.keep(commit)
    return commit


async def has_path(mirror: Mirror, commit: str, path: str) -> bool:
    """Whether a commit has a file, folder or symbolic link at this path. Raises UnavailableError."""
    async with mirror.locked():
        return bool(await mirror.run("ls-tree", "--name-only", commit, "--", path))


async def latest_version(mirror: Mirror, project_names: Sequence[str] = ()) -> tuple[str, str]:
    """The tag of the highest version and its commit, as of the last fetch; see `resolve_commit`."""

    async def find() -> tuple[str, str]:
        refs = await _refs(mirror)
        tags = [name.removeprefix(_TAGS) for name in refs if name.startswith(_TAGS)]
        highest = highest_version_tags(tags, project_names)
        if not highest:
            raise UnknownRefError(
                f"The repository {mirror.name} has no version: none of its {len(tags)} tags is one; tag a commit, such "
                "as v1, or name a branch."
            )
        return await _common_commit(mirror, refs, highest)

    async with mirror.locked():
        tag, commit = await mirror.with_repair(find)
        await mirror.keep(commit)
    return tag, commit


async def check_out(mirror: Mirror, commit: str, folder: Path) -> None:
    """Make `folder` a working tree of exactly this commit. Raises UnknownRefError, UnavailableError.

    Tracked files are written only where they differ from the commit. All other files are removed, except installed dbt
    packages. All users may read and write what is made. The folder has no .git, the folders of submodules are empty,
    and LFS files are pointers.
    """
    if not _COMMIT.fullmatch(commit):
        raise UnknownRefError(f"{_quoted(commit)} is no commit: give its full hash.")

    async def write() -> None:
        await mirror.run("read-tree", commit)
        await mirror.run_in(folder, "update-index", "-q", "--refresh")
        await mirror.run_in(folder, "checkout-index", "--all", "--force", "--quiet")
        await mirror.run_in(folder, "clean", "-ffdqx", "--exclude=dbt_packages")

    async with mirror.locked():
        try:
            await asyncio.to_thread(_make_folder, folder)
            await mirror.with_repair(write)
        except OSError as error:
            raise UnavailableError(
                f"The checkout {folder} can't be made: {error}; let the gateway's user make it, or remove what is "
                "there."
            ) from None
        except GitFailedError:
            if await mirror.test("cat-file", "-e", commit):
                raise
            await mirror.fetch_commit(commit)  # the mirror was rebuilt and has the current branches and tags only
            await write()
        await mirror.collect_garbage()


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o777)  # containers run as other users and write into the folder


async def _refs(mirror: Mirror) -> Mapping[str, str]:
    """The object of each branch and tag, by its full name."""
    output = await mirror.run("for-each-ref", "--format=%(objectname) %(refname)", _BRANCHES, _TAGS)
    return {name: hash_ for hash_, _, name in (line.partition(" ") for line in output.splitlines())}


async def _branch_head(mirror: Mirror, refs: Mapping[str, str], branch: str) -> str:
    try:
        head = refs.get(branch_ref(branch))
    except WordError as error:
        raise UnknownRefError(str(error)) from None
    if head is None:
        tracked = await mirror.tracked_branch(branch)
        if tracked is not None:
            make = f"git branch {shlex.quote(branch)} {shlex.quote(tracked)}"
            raise UnknownRefError(
                f"The repository {mirror.name} has no branch {_quoted(branch)}, only {tracked} of its remote: make it "
                f"one with `{make}` in there, or set the project's `repository` to the remote's address."
            )
        raise UnknownRefError(
            f"The repository {mirror.name} has no branch {_quoted(branch)}: name one that it has"
            f"{_nearest(branch, refs, _BRANCHES)}."
        )
    return await _commit(mirror, head)


async def _version_commit(
    mirror: Mirror, refs: Mapping[str, str], version: str, project_names: Sequence[str]
) -> tuple[str, str]:
    """The tag of a version, and its commit."""
    try:
        tag_ref(version)
    except WordError as error:
        raise UnknownRefError(str(error)) from None
    candidates = version_tags(version, project_names)
    tags = [tag for tag in candidates if f"{_TAGS}{tag}" in refs]
    if not tags:
        raise UnknownRefError(
            f"The repository {mirror.name} has no version {_quoted(version)}: none of the tags "
            f"{one_line(', '.join(candidates))} is there; name one that is{_nearest(version, refs, _TAGS)}."
        )
    return await _common_commit(mirror, refs, tags)


async def _common_commit(mirror: Mirror, refs: Mapping[str, str], tags: Sequence[str]) -> tuple[str, str]:
    """The first of these tags and the commit that all of them name."""
    commits = [await _commit(mirror, refs[f"{_TAGS}{tag}"]) for tag in tags]
    if len(set(commits)) > 1:
        raise UnknownRefError(
            f"The version is ambiguous in the repository {mirror.name}: its tags {one_line(', '.join(tags))} are "
            "different commits; remove all but one of them, or name a branch."
        )
    return tags[0], commits[0]


async def _commit(mirror: Mirror, object_hash: str) -> str:
    """The commit of an object: the object itself, or what an annotated tag points to."""
    return (await mirror.run("rev-parse", "--verify", f"{object_hash}^{{commit}}")).strip()


def _nearest(name: str, refs: Mapping[str, str], kind: str) -> str:
    """The branches or tags whose names are most like this one."""
    names = [ref.removeprefix(kind) for ref in refs if ref.startswith(kind)]
    names.sort(key=lambda known: SequenceMatcher(None, name, known).ratio(), reverse=True)
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f": {', '.join(one_line(known, _LONGEST_QUOTE) for known in names[:_MAX_NAMES])}{more}" if names else ""


def _quoted(name: str | None) -> str:
    return one_line(ascii(name), _LONGEST_QUOTE)
