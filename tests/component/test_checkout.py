"""Branches and versions are resolved to commits, which are checked out; the source repository is only read."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from runners.git import mirror as mirrors
from runners.git.checkout import RepositoryFolder, check_out, find_repository, latest_version, resolve_commit
from runners.git.git import UnavailableError, UnknownRefError
from runners.git.mirror import Mirror
from runners.mask import Mask
from tests.conftest import need
from tests.support import repositories
from tests.support.injections import CANARY, WORDS
from tests.support.parts import missing
from tests.support.repositories import branch, commit, head, switch, tag

FILES = {"models/gold/a.sql": "select 1\n", "models/b.sql": "select 2\n", "run.sh": "#!/bin/sh\n", "c": "three\n"}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    made = repositories.repository(tmp_path / "repository", FILES)
    (made / "run.sh").chmod(0o755)
    (made / "link").symlink_to("models/b.sql")
    commit(made, {})
    return made


@pytest.fixture
def mirror(repository: Path, tmp_path: Path) -> Mirror:
    return mirror_of(repository, tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkouts" / "one"


def mirror_of(source: Path | str, tmp_path: Path, environment: Mapping[str, str] = os.environ) -> Mirror:
    return Mirror(str(source), tmp_path / "state" / "mirror", environment, Mask())


async def fetch_and_resolve(mirror: Mirror, branch: str | None = None, version: str | None = None, *names: str) -> str:
    await mirror.fetch()
    return await resolve_commit(mirror, branch, version, names)


async def refusal(mirror: Mirror, branch: str | None = None, version: str | None = None, *names: str) -> str:
    with pytest.raises(UnknownRefError) as error:
        await fetch_and_resolve(mirror, branch, version, *names)
    return str(error.value)


def content(folder: Path) -> dict[str, tuple[int, str | bytes]]:
    """Everything below a folder, by path: mode and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        read: str | bytes = str(path.readlink()) if path.is_symlink() else b"" if path.is_dir() else path.read_bytes()
        found[str(path.relative_to(folder))] = (mode, read)
    return found


def canary_files(folder: Path) -> list[Path]:
    return list(folder.rglob(CANARY))


def identities(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in folder.rglob("*")}


def owners(folder: Path) -> set[int]:
    return {path.lstat().st_uid for path in folder.rglob("*")}


# resolving branches and versions


async def test_a_branch_is_its_head_at_the_last_fetch(mirror: Mirror, repository: Path) -> None:
    before = head(repository)
    assert await fetch_and_resolve(mirror, "main") == before
    after = commit(repository, {"new": ""})
    assert await resolve_commit(mirror, "main") == before
    assert await fetch_and_resolve(mirror, "main") == after


@pytest.mark.parametrize("annotated", [False, True])
async def test_a_version_is_the_commit_of_its_tag(mirror: Mirror, repository: Path, annotated: bool) -> None:
    made = tag(repository, "v2", annotated=annotated)
    commit(repository, {"new": ""})
    assert await fetch_and_resolve(mirror, None, "2") == await fetch_and_resolve(mirror, None, "v2") == made
    tag(repository, "shop/3", annotated=annotated)
    assert await fetch_and_resolve(mirror, None, "3", "shop") == head(repository)
    assert "none of the tags 3, v3 is there" in await refusal(mirror, None, "3")


async def test_a_tag_of_a_tag_is_the_commit_of_the_inner_tag(mirror: Mirror, repository: Path) -> None:
    tag(repository, "inner", annotated=True)
    repositories.git(repository, "tag", "--annotate", "--message=outer", "outer", "inner")
    assert await fetch_and_resolve(mirror, None, "outer") == head(repository)


async def test_a_version_must_be_on_the_branch_that_is_named_with_it(mirror: Mirror, repository: Path) -> None:
    on_both = tag(repository, "v1", annotated=True)
    branch(repository, "feature/x")
    commit(repository, {"new": ""})
    on_feature = tag(repository, "v2")
    assert await fetch_and_resolve(mirror, "main", "1") == await fetch_and_resolve(mirror, "feature/x", "1") == on_both
    assert await fetch_and_resolve(mirror, "feature/x", "2") == on_feature
    message = await refusal(mirror, "main", "2")
    assert message.startswith(f"The tag 'v2' is not on the branch 'main' of the repository {repository}: name ")


async def test_a_missing_branch_or_version_is_named(mirror: Mirror, repository: Path) -> None:
    tag(repository, "main-tag")
    branch(repository, "only-a-branch")
    assert await refusal(mirror, "main-tag") == (
        f"The repository {repository} has no branch 'main-tag': name one that it has: main, only-a-branch."
    )
    assert await refusal(mirror, None, "only-a-branch", "shop") == (
        f"The repository {repository} has no version 'only-a-branch': none of the tags only-a-branch, "
        "shop/only-a-branch is there; name one that is: main-tag."
    )
    assert "has no branch 'nowhere'" in await refusal(mirror, "nowhere", "main-tag")


async def test_a_branch_that_only_the_remote_has_is_named(mirror: Mirror, repository: Path, tmp_path: Path) -> None:
    branch(repository, "feature/x")
    switch(repository, "main")
    clone = tmp_path / "clone"
    repositories.git(tmp_path, "clone", "--quiet", str(repository), clone.name)
    of_clone = mirror_of(clone, tmp_path / "of_clone")
    assert await refusal(of_clone, "feature/x") == (
        f"The repository {clone} has no branch 'feature/x', only origin/feature/x of its remote: make it one with "
        "`git branch feature/x origin/feature/x` in there, or set the project's `repository` to the remote's address."
    )
    repositories.git(clone, "branch", "feature/x", "origin/feature/x")
    assert await fetch_and_resolve(of_clone, "feature/x") == head(repository)
    for number in range(20):
        repositories.git(repository, "branch", f"topic-{number}")
    assert "name one that it has: feature/x, " in await refusal(mirror, "feature/y")
    assert (await refusal(mirror, "feature/y")).endswith(" and 12 more.")


async def test_a_removed_branch_is_missing_after_the_next_fetch(mirror: Mirror, repository: Path) -> None:
    branch(repository, "old")
    await fetch_and_resolve(mirror, "old")
    before = mirror.folder.stat().st_ino
    switch(repository, "main")
    repositories.git(repository, "branch", "--delete", "old")
    repositories.git(repository, "branch", "old/deeper")
    assert "no branch 'old'" in await refusal(mirror, "old")
    assert await fetch_and_resolve(mirror, "old/deeper") == head(repository)
    assert mirror.folder.stat().st_ino == before  # the mirror was not made anew


async def test_a_version_is_ambiguous_only_if_its_tags_are_different_commits(mirror: Mirror, repository: Path) -> None:
    made = tag(repository, "2")
    tag(repository, "v2", annotated=True)
    assert await fetch_and_resolve(mirror, None, "2") == made
    commit(repository, {"new": ""})
    tag(repository, "shop/2")
    assert await refusal(mirror, None, "2", "shop") == (
        f"The version is ambiguous in the repository {repository}: its tags 2, v2, shop/2 are different commits; "
        "remove all but one of them, or name a branch."
    )
    assert await fetch_and_resolve(mirror, None, "v2") == made


async def test_the_latest_version_is_the_highest(mirror: Mirror, repository: Path) -> None:
    await mirror.fetch()
    with pytest.raises(UnknownRefError, match="has no version: none of its 0 tags is one; tag a commit"):
        await latest_version(mirror)
    made = tag(repository, "v10", annotated=True)
    commit(repository, {"new": ""})
    for name in ("v9", "v10rc1", "nightly", "other/11"):
        tag(repository, name)
    await mirror.fetch()
    assert await latest_version(mirror, ("shop",)) == ("v10", made)
    tag(repository, "10.0")
    await mirror.fetch()
    with pytest.raises(UnknownRefError, match=r"its tags 10\.0, v10 are different commits"):
        await latest_version(mirror)


async def test_hostile_refs_are_refused_and_have_no_effect(mirror: Mirror, repository: Path, tmp_path: Path) -> None:
    await mirror.fetch()
    before = content(repository), content(mirror.folder)
    for word in WORDS:
        for branch_, version in ((word, None), (None, word)):
            with pytest.raises(UnknownRefError) as error:
                await resolve_commit(mirror, branch_, version, (word,))
            assert len(str(error.value)) < 1000
        with pytest.raises(UnknownRefError, match="is no commit"):
            await check_out(mirror, word, tmp_path / "never")
    assert (content(repository), content(mirror.folder)) == before
    assert not (tmp_path / "never").exists()
    assert not canary_files(tmp_path)


async def test_branches_and_tags_of_hostile_names_resolve_without_effect(
    mirror: Mirror, repository: Path, tmp_path: Path
) -> None:
    for name in (f"$(touch${{IFS}}{CANARY})", f"`touch${{IFS}}{CANARY}`", "a;id", "+main", "%2e%2e", "{{1}}"):
        branch(repository, name)
        made = commit(repository, {"new": name})
        tag(repository, name)
        assert await fetch_and_resolve(mirror, name, name) == made
    assert not canary_files(tmp_path)


# checkouts


async def test_a_checkout_is_the_commit_and_writable_for_every_user(
    mirror: Mirror, repository: Path, folder: Path
) -> None:
    await check_out(mirror, await fetch_and_resolve(mirror, "main"), folder)
    assert {name: read for name, (_, read) in content(folder).items()} == {
        name: read for name, (_, read) in content(repository).items() if not name.startswith(".git")
    }
    modes = {name: stat.S_IMODE(mode) for name, (mode, _) in content(folder.parent).items()}
    assert {modes[name] for name in ("one", "one/models", "one/models/gold", "one/run.sh")} == {0o777}
    assert {modes[name] for name in ("one/models/gold/a.sql", "one/c")} == {0o666}
    assert os.umask(0o022) == 0o022  # the umask of this process is unchanged
    assert [path.name for path in folder.parent.iterdir()] == ["one"]


async def test_a_second_checkout_does_not_rewrite_unchanged_files(mirror: Mirror, folder: Path) -> None:
    made = await fetch_and_resolve(mirror, "main")
    await check_out(mirror, made, folder)
    before = identities(folder)
    await check_out(mirror, made, folder)
    assert identities(folder) == before


async def test_a_checkout_restores_tracked_files_that_a_run_changed(
    mirror: Mirror, folder: Path, tmp_path: Path
) -> None:
    made = await fetch_and_resolve(mirror, "main")
    await check_out(mirror, made, folder)
    before = content(folder)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.sql").write_text("not ours\n")

    (folder / "c").write_text("THREE\n")  # of the same length
    (folder / "models" / "b.sql").unlink()
    (folder / "models" / "b.sql").mkdir()
    (folder / "models" / "b.sql" / "x").touch()
    (folder / "models" / "gold" / "a.sql").unlink()
    (folder / "models" / "gold").rmdir()
    (folder / "models" / "gold").symlink_to(outside)
    (folder / "run.sh").chmod(0o600)
    (folder / "link").unlink()
    (folder / "link").write_text("models/b.sql")
    await check_out(mirror, made, folder)
    assert content(folder) == before
    assert content(outside) == {"a.sql": ((outside / "a.sql").stat().st_mode, b"not ours\n")}

    (folder / "link").unlink()
    (folder / "run.sh").unlink()
    (folder / "run.sh").symlink_to(outside / "a.sql")
    for path in (folder / "models").rglob("*.sql"):
        path.unlink()
    (folder / "models" / "gold").rmdir()
    (folder / "models").rmdir()
    (folder / "models").write_text("a file\n")
    await check_out(mirror, made, folder)
    assert content(folder) == before
    assert (outside / "a.sql").read_text() == "not ours\n"


async def test_untracked_files_except_installed_packages_are_removed(
    mirror: Mirror, repository: Path, folder: Path
) -> None:
    """Also files that .gitignore names."""
    commit(repository, {".gitignore": "target/\n"})
    made = await fetch_and_resolve(mirror, "main")
    await check_out(mirror, made, folder)
    kept = ("dbt_packages/x/dbt_project.yml", "models/dbt_packages/y")
    gone = ("stray.sql", "models/stray/deep/x.sql", "logs/dbt.log", "target/manifest.json")
    for name in (*kept, *gone):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    repositories.repository(folder / "nested", {"x": ""})
    await check_out(mirror, made, folder)
    assert [name for name in (*kept, *gone, "nested") if (folder / name).exists()] == list(kept)


async def test_concurrent_checkouts_of_one_folder_succeed(mirror: Mirror, repository: Path, folder: Path) -> None:
    made = await fetch_and_resolve(mirror, "main")
    await asyncio.gather(*(check_out(mirror, made, folder) for _ in range(8)))
    assert (folder / "models" / "gold" / "a.sql").read_text() == "select 1\n"


async def test_concurrent_mirrors_of_one_folder_succeed(repository: Path, tmp_path: Path) -> None:
    both = [mirror_of(repository, tmp_path) for _ in range(2)]
    assert await asyncio.gather(*(fetch_and_resolve(mirror, "main") for mirror in both * 3)) == [head(repository)] * 6
    made = head(repository)
    await asyncio.gather(*(check_out(mirror, made, tmp_path / "one") for mirror in both * 3))


async def test_a_commit_replaced_by_a_forced_push_can_still_be_checked_out(
    mirror: Mirror, repository: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = commit(repository, {"new": "old"})
    assert await fetch_and_resolve(mirror, "main") == old
    repositories.git(repository, "reset", "--quiet", "--hard", "HEAD~1")
    new = commit(repository, {"new": "new"})
    assert await fetch_and_resolve(mirror, "main") == new
    for file in mirror.folder.rglob("*"):  # old enough for git to remove unreferenced objects
        os.utime(file, (0, 0))
    # collect garbage at once, not only when git finds it due
    monkeypatch.setattr(mirrors, "_GC", tuple(word for word in mirrors._GC if word != "--auto"))
    await check_out(mirror, new, folder)
    assert any(name.endswith(".pack") for name in content(mirror.folder))
    await check_out(mirror, old, folder)
    assert (folder / "new").read_text() == "old"


async def test_a_missing_commit_is_named(mirror: Mirror, folder: Path) -> None:
    await mirror.fetch()
    with pytest.raises(UnknownRefError, match=f"The commit {'1' * 40} is not in the repository .* any more: trigger"):
        await check_out(mirror, "1" * 40, folder)


async def test_a_folder_that_can_not_be_made_is_named_and_the_mirror_kept(mirror: Mirror, folder: Path) -> None:
    made = await fetch_and_resolve(mirror, "main")
    before = mirror.folder.stat().st_ino
    repositories.write(folder.parent, {folder.name: "in the way"})
    with pytest.raises(UnavailableError, match=f"The checkout {folder} can't be made: .*File exists.*remove what is"):
        await check_out(mirror, made, folder)
    assert mirror.folder.stat().st_ino == before


async def test_submodules_are_not_checked_out(mirror: Mirror, repository: Path, folder: Path, tmp_path: Path) -> None:
    other = repositories.repository(tmp_path / "other", {"x": ""})
    allowed = ("-c", "protocol.file.allow=always")
    repositories.git(repository, *allowed, "submodule", "--quiet", "add", str(other), "packages/other")
    commit(repository, {})
    await check_out(mirror, await fetch_and_resolve(mirror, "main"), folder)
    assert list((folder / "packages" / "other").iterdir()) == []


# source repositories


async def test_the_users_repository_and_its_uncommitted_files_stay_unchanged(
    repository: Path, mirror: Mirror, folder: Path
) -> None:
    (repository / "c").write_text("not committed\n")
    (repository / "staged").write_text("staged\n")
    repositories.git(repository, "add", "staged")
    (repository / "untracked").touch()
    os.utime(repository / "models" / "b.sql")  # `git status` would rewrite the index
    before, before_too = content(repository), identities(repository)
    made = await fetch_and_resolve(mirror, "main")
    await check_out(mirror, made, folder)
    await find_repository(repository / "models", os.environ, Mask())
    assert (content(repository), identities(repository)) == (before, before_too)
    assert (folder / "c").read_text() == "three\n"
    assert not (folder / "staged").exists()


@pytest.fixture
def repository_of_another_user(repository: Path) -> Path:
    """The repository, owned by another user."""
    if os.geteuid() != 0:
        missing("giving a repository to another user needs root")
    for path in (repository, *repository.rglob("*")):
        os.chown(path, 12345, 12345, follow_symlinks=False)
    return repository


async def test_a_repository_of_another_owner_is_read(
    repository_of_another_user: Path, tmp_path: Path, folder: Path
) -> None:
    for number, source in enumerate((repository_of_another_user, repository_of_another_user / "models")):
        mirror = mirror_of(source, tmp_path / str(number))
        await check_out(mirror, await fetch_and_resolve(mirror, "main"), folder)
    assert await find_repository(repository_of_another_user / "models", os.environ, Mask()) == RepositoryFolder(
        repository_of_another_user, Path("models")
    )
    assert owners(repository_of_another_user) == {12345}


async def test_any_kind_of_local_repository_is_read(repository: Path, tmp_path: Path) -> None:
    branch(repository, "other")
    switch(repository, "main")
    repositories.git(repository, "clone", "--quiet", "--bare", ".", str(tmp_path / "bare.git"))
    repositories.git(repository, "worktree", "add", "--quiet", str(tmp_path / "linked"), "other")
    repositories.git(repository, "clone", "--quiet", "--depth=1", f"file://{repository}", str(tmp_path / "shallow"))
    strange = tmp_path / "a 'b' $(id): -c"
    repositories.git(repository, "clone", "--quiet", ".", str(strange))
    sources = (
        tmp_path / "bare.git",
        tmp_path / "linked",
        tmp_path / "shallow",
        strange,
        repository / "models" / "gold",
    )
    for number, source in enumerate(sources):
        mirror = mirror_of(source, tmp_path / str(number))
        assert await fetch_and_resolve(mirror, "main") == head(repository), source
        await check_out(mirror, head(repository), tmp_path / str(number) / "checkout")


async def test_a_repository_with_sha256_is_read(repository: Path, tmp_path: Path, folder: Path) -> None:
    """Also where the repository had SHA-1 before."""
    of_sha1 = mirror_of(repository, tmp_path)
    await of_sha1.fetch()
    shutil.rmtree(repository)
    repositories.git(tmp_path, "init", "--quiet", "--initial-branch=main", "--object-format=sha256", repository.name)
    made = commit(repository, FILES)
    assert len(made) == 64
    assert await fetch_and_resolve(of_sha1, "main") == made
    await check_out(of_sha1, made, folder)
    assert (folder / "c").read_text() == "three\n"
    after = commit(repository, {"c": "four\n"})
    assert await fetch_and_resolve(of_sha1, "main") == after


async def test_the_repository_of_a_folder_and_its_path_in_it_are_found(repository: Path, tmp_path: Path) -> None:
    assert await find_repository(repository, os.environ, Mask()) == RepositoryFolder(repository, Path())
    assert await find_repository(repository / "models" / "gold", os.environ, Mask()) == RepositoryFolder(
        repository, Path("models/gold")
    )
    assert await find_repository(tmp_path, os.environ, Mask()) is None
    assert await find_repository(repository / ".git", os.environ, Mask()) is None
    with pytest.raises(UnavailableError, match=f"The folder {tmp_path}/gone can't be read: cannot change to"):
        await find_repository(tmp_path / "gone", os.environ, Mask())


async def test_git_variables_in_the_environment_of_the_gateway_are_ignored(
    repository: Path, tmp_path: Path, folder: Path
) -> None:
    other = repositories.repository(tmp_path / "other", {"x": ""})
    names = ("GIT_DIR", "GIT_COMMON_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE")
    environment = {**os.environ, **dict.fromkeys(names, str(other / ".git")), "GIT_TRACE": str(tmp_path / "trace")}
    before = content(other)
    mirror = mirror_of(repository, tmp_path, environment)
    await check_out(mirror, await fetch_and_resolve(mirror, "main"), folder)
    assert (folder / "c").exists()
    assert await find_repository(repository, environment, Mask()) == RepositoryFolder(repository, Path())
    assert content(other) == before
    assert not (tmp_path / "trace").exists()


async def test_the_users_git_filters_and_hooks_are_not_run_by_a_checkout(
    repository: Path, tmp_path: Path, folder: Path
) -> None:
    (tmp_path / ".gitconfig").write_text(
        f"[core]\nautocrlf = true\nfsmonitor = touch {tmp_path}/{CANARY}\nhooksPath = {tmp_path}/hooks\n"
        f'[filter "x"]\nsmudge = touch {tmp_path}/{CANARY}; cat\nrequired = true\n'
    )
    commit(repository, {".gitattributes": "*.sql filter=x\n"})
    mirror = mirror_of(repository, tmp_path, {**os.environ, "HOME": str(tmp_path)})
    await check_out(mirror, await fetch_and_resolve(mirror, "main"), folder)
    assert (folder / "models" / "b.sql").read_bytes() == b"select 2\n"
    assert not (tmp_path / CANARY).exists()


async def test_a_missing_git_or_timeout_program_is_named(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    mirror = mirror_of(repository, tmp_path, {"PATH": str(tmp_path / "bin")})
    with pytest.raises(UnavailableError, match=r"can't be read: git can.t be run: .*timeout.*; install git"):
        await mirror.fetch()
    (tmp_path / "bin" / "timeout").symlink_to(need("timeout"))
    with pytest.raises(UnavailableError, match="can't be read: git is not installed, or not on the gateway's PATH"):
        await mirror.fetch()
    assert not mirror.folder.exists()
