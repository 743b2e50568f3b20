"""From a branch or a version to a commit, and from a commit to a directory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runners.git import refs as git_words
from runners.git import versions
from runners.git.git import Git, GitFailedError, UnavailableError, UnknownRefError
from runners.git.mirror import Mirror
from runners.mask import Mask
from runners.report import one_line
from runners.words import WordError

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_BRANCHES, _TAGS = "refs/heads/", "refs/tags/"
_SHOWN = 100
_SOLVE = "let the gateway's user make it, or remove what is there"


@dataclass(frozen=True, slots=True)
class RepositoryFolder:
    """Where a folder is in a repository. top: its absolute top folder. below: the way from there, empty for itself."""

    top: Path
    below: Path


async def find_repository(folder: Path, environment: Mapping[str, str], mask: Mask) -> RepositoryFolder | None:
    """Where a folder is in a git repository's working tree, None if in none. Raises UnavailableError."""
    git = Git.isolated(environment, mask)
    answers = []
    for question in ("--show-toplevel", "--show-prefix"):
        said = await git.call("-C", str(folder), "-c", "safe.directory=*", "rev-parse", question)
        if "not a git repository" in said.error or "must be run in a work tree" in said.error:
            return None
        if said.code != 0:
            raise UnavailableError(f"The folder {folder} can't be read: {git.explain(said.error)}")
        answers.append(said.output.removesuffix("\n"))
    return RepositoryFolder(Path(answers[0]), Path(answers[1]))


async def resolve(
    mirror: Mirror, branch: str | None = None, version: str | None = None, project_names: Sequence[str] = ()
) -> str:
    """The full hash of the commit that is meant, as the last fetch found it. Raises UnknownRefError, UnavailableError.

    branch: its head. version: that tag, which may also be written `v<version>` or `<project>/<version>`. Both: the
    tag, which must be on the branch. Not neither.
    """

    async def work() -> str:
        refs = await _refs(mirror)
        head = None if branch is None else await _head(mirror, refs, branch)
        if version is None:
            assert head is not None
            return head
        tag, commit = await _tagged(mirror, refs, version, project_names)
        if head is not None and not await mirror.test("merge-base", "--is-ancestor", commit, head):
            raise UnknownRefError(
                f"The tag {_shown(tag)} is not on the branch {_shown(branch)} of the repository {mirror.name}: name "
                "the one or the other, or a branch that it is on."
            )
        return commit

    async with mirror.locked():
        return await mirror.repaired(work)


async def latest(mirror: Mirror, project_names: Sequence[str] = ()) -> tuple[str, str]:
    """The tag of the highest version and its commit, as the last fetch found it. Raises as `resolve`."""

    async def work() -> tuple[str, str]:
        refs = await _refs(mirror)
        tags = [name.removeprefix(_TAGS) for name in refs if name.startswith(_TAGS)]
        highest = versions.highest(tags, project_names)
        if not highest:
            raise UnknownRefError(
                f"The repository {mirror.name} has no version: none of its {len(tags)} tags is one; tag a commit, such "
                "as v1, or name a branch."
            )
        return await _same(mirror, refs, highest)

    async with mirror.locked():
        return await mirror.repaired(work)


async def ensure(mirror: Mirror, commit: str, folder: Path) -> None:
    """Make `folder` a checkout of exactly this commit. Raises UnknownRefError, UnavailableError.

    Every tracked file is there and as committed; those that were are not written to. All else goes, but for installed
    dbt packages. It may be read and written by everybody who gets there.
    There is no .git in it, and nothing in the folders of submodules; files of LFS stay pointers.
    """
    if not _COMMIT.fullmatch(commit):
        raise UnknownRefError(f"{_shown(commit)} is no commit: give its full hash.")

    async def work() -> None:
        await mirror.git("read-tree", commit)
        await mirror.git_in(folder, "update-index", "-q", "--refresh")
        await mirror.git_in(folder, "checkout-index", "--all", "--force", "--quiet")
        await mirror.git_in(folder, "clean", "-ffdqx", "--exclude=dbt_packages")

    async with mirror.locked():
        try:
            await asyncio.to_thread(_make, folder)
            await mirror.repaired(work)
        except OSError as error:
            raise UnavailableError(f"The checkout {folder} can't be made: {error}; {_SOLVE}.") from None
        except GitFailedError:
            if await mirror.test("cat-file", "-e", commit):
                raise
            raise UnknownRefError(
                f"The commit {commit} is not in the repository {mirror.name} any more: trigger what is there now."
            ) from None
        await mirror.tidy()


def _make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o777)  # others' containers write into it


async def _refs(mirror: Mirror) -> Mapping[str, str]:
    """The object of each branch and tag, by its full name."""
    said = await mirror.git("for-each-ref", "--format=%(objectname) %(refname)", _BRANCHES, _TAGS)
    return {name: found for found, _, name in (line.partition(" ") for line in said.splitlines())}


async def _head(mirror: Mirror, refs: Mapping[str, str], branch: str) -> str:
    try:
        found = refs.get(git_words.branch(branch))
    except WordError as refused:
        raise UnknownRefError(str(refused)) from None
    if found is None:
        raise UnknownRefError(f"The repository {mirror.name} has no branch {_shown(branch)}: name one that it has.")
    return await _commit(mirror, found)


async def _tagged(
    mirror: Mirror, refs: Mapping[str, str], version: str, project_names: Sequence[str]
) -> tuple[str, str]:
    """The tag of a version, and its commit."""
    try:
        git_words.tag(version)
    except WordError as refused:
        raise UnknownRefError(str(refused)) from None
    tags = versions.names(version, project_names)
    found = [tag for tag in tags if f"{_TAGS}{tag}" in refs]
    if not found:
        raise UnknownRefError(
            f"The repository {mirror.name} has no version {_shown(version)}: none of the tags "
            f"{one_line(', '.join(tags))} is there; name one that is."
        )
    return await _same(mirror, refs, found)


async def _same(mirror: Mirror, refs: Mapping[str, str], tags: Sequence[str]) -> tuple[str, str]:
    """The first of these tags and the commit that all of them are."""
    commits = [await _commit(mirror, refs[f"{_TAGS}{tag}"]) for tag in tags]
    if len(set(commits)) > 1:
        raise UnknownRefError(
            f"The version is ambiguous in the repository {mirror.name}: its tags {one_line(', '.join(tags))} are "
            "different commits; remove all but one of them, or name a branch."
        )
    return tags[0], commits[0]


async def _commit(mirror: Mirror, found: str) -> str:
    """The commit that an object is, or an annotated tag is of."""
    return (await mirror.git("rev-parse", "--verify", f"{found}^{{commit}}")).strip()


def _shown(word: str | None) -> str:
    return one_line(ascii(word), _SHOWN)
