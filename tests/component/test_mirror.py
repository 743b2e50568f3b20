"""The mirror of a repository: shared fetches, killed git processes, damage, and missing sources."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runners.git import git
from runners.git.checkout import check_out, resolve_commit
from runners.git.git import UnavailableError
from runners.git.mirror import Mirror
from runners.mask import Mask
from tests.conftest import need
from tests.support import repositories
from tests.support.api import until
from tests.support.gateway import wait_for
from tests.support.repositories import commit, head, tag

FILES = {f"models/m{number}.sql": f"select {number}\n" * 100 for number in range(30)}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return repositories.repository(tmp_path / "repository", FILES)


@pytest.fixture
def mirror(repository: Path, tmp_path: Path) -> Mirror:
    return Mirror(str(repository), tmp_path / "state" / "mirror", os.environ, Mask())


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return tmp_path / "checkout"


def read(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def fake_git(tmp_path: Path, word: str, before: str = "sleep 1000") -> dict[str, str]:
    """An environment with a fake git: it runs the script `before` ahead of a command `word`, then the real git."""
    bin_ = tmp_path / "bin"
    bin_.mkdir(exist_ok=True)
    program = bin_ / "git"
    program.write_text(
        f'#!/bin/sh\nfor word; do [ "$word" != {word} ] || {{ echo $$ >>{tmp_path}/calls; {before}; }}; done\n'
        f'exec {need("git")} "$@"\n'
    )
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}"}


def calls(tmp_path: Path) -> list[int]:
    file = tmp_path / "calls"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


async def wait_for_calls(tmp_path: Path, times: int = 1) -> None:
    await asyncio.to_thread(wait_for, lambda: len(calls(tmp_path)) >= times, f"call {times} of the fake git")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def wait_for_end(pid: int) -> None:
    """Wait for the end of a process: a killed one may take a moment."""

    async def gone() -> bool:
        return not is_alive(pid)

    await until(gone, f"the end of {pid}")


async def test_with_a_fake_git_callers_during_a_fetch_share_the_next_one(repository: Path, tmp_path: Path) -> None:
    environment = fake_git(tmp_path, "fetch", f"until [ -e {tmp_path}/go ]; do sleep 0.02; done")
    mirror = Mirror(str(repository), tmp_path / "mirror", environment, Mask())
    first = asyncio.create_task(mirror.fetch())
    await wait_for_calls(tmp_path)
    others = [asyncio.create_task(mirror.fetch()) for _ in range(20)]
    await asyncio.sleep(0)  # each of them has called fetch
    after = commit(repository, {"new": ""})
    (tmp_path / "go").touch()
    await asyncio.gather(first, *others)
    assert len(calls(tmp_path)) == 2
    assert await resolve_commit(mirror, "main") == after


async def test_an_error_is_shared_and_a_cancelled_caller_cancels_no_other(repository: Path, tmp_path: Path) -> None:
    environment = fake_git(tmp_path, "fetch", f"[ -e {tmp_path}/go ] || exec sleep 1000; echo fatal: no >&2; exit 128")
    mirror = Mirror(str(repository), tmp_path / "mirror", environment, Mask())
    first = asyncio.create_task(mirror.fetch())
    await wait_for_calls(tmp_path)
    others = [asyncio.create_task(mirror.fetch()) for _ in range(20)]
    await asyncio.sleep(0)
    (tmp_path / "go").touch()
    first.cancel()
    ends = await asyncio.gather(first, *others, return_exceptions=True)
    assert isinstance(ends[0], asyncio.CancelledError)
    assert {str(end) for end in ends[1:]} == {f"The repository {repository} can't be read: no; {git._DEFAULT_REMEDY}."}
    assert len(calls(tmp_path)) == 2
    await wait_for_end(calls(tmp_path)[0])


@pytest.mark.parametrize("word", ["init", "fetch", "read-tree", "checkout-index", "clean", "for-each-ref"])
async def test_with_a_fake_git_a_cancelled_call_ends_and_the_next_works(
    repository: Path, tmp_path: Path, checkout: Path, word: str
) -> None:
    mirror = Mirror(str(repository), tmp_path / "mirror", fake_git(tmp_path, word), Mask())

    async def everything(mirror: Mirror) -> None:
        await mirror.fetch()
        await check_out(mirror, await resolve_commit(mirror, "main"), checkout)

    task = asyncio.create_task(everything(mirror))
    await wait_for_calls(tmp_path)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wait_for_end(calls(tmp_path)[0])
    fake_git(tmp_path, word, ":")
    await everything(mirror)
    assert read(checkout) == FILES


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize(
    ("word", "left"),
    [
        ("fetch", ["packed-refs.lock", "refs/heads/main.lock", "objects/pack/tmp_pack_x", "objects/17/tmp_obj_x"]),
        ("checkout-index", ["index.lock"]),
        ("gc", ["gc.pid", "packed-refs.lock"]),
    ],
)
async def test_lock_and_temporary_files_of_a_killed_git_are_removed(
    repository: Path, tmp_path: Path, checkout: Path, mirror: Mirror, word: str, left: list[str], same: bool
) -> None:
    await mirror.fetch()
    after = commit(repository, {"new": ""})
    made = "; ".join(f"mkdir -p $(dirname {mirror.folder}/{name}); : >{mirror.folder}/{name}" for name in left)
    killed = Mirror(str(repository), mirror.folder, fake_git(tmp_path, word, f"{made}; kill -9 $$"), Mask())
    with contextlib.suppress(UnavailableError):  # an error of gc reaches no caller
        await killed.fetch()
        await check_out(killed, after, checkout)
    assert calls(tmp_path)
    assert [name for name in left if (mirror.folder / name).exists()] == left
    fake_git(tmp_path, word, ":")
    one = killed if same else mirror
    await one.fetch()
    assert [name for name in left if (mirror.folder / name).exists()] == []
    assert await resolve_commit(one, "main") == after
    await check_out(one, after, checkout)
    assert read(checkout) == {**FILES, "new": ""}


async def test_the_mirror_is_kept_if_git_is_killed(repository: Path, tmp_path: Path, mirror: Mirror) -> None:
    await mirror.fetch()
    before = mirror.folder.stat().st_ino
    killed = Mirror(str(repository), mirror.folder, fake_git(tmp_path, "fetch", "kill -9 $$"), Mask())
    with pytest.raises(UnavailableError, match="git was killed"):
        await killed.fetch()
    assert mirror.folder.stat().st_ino == before


async def test_after_a_kill_of_git_at_any_moment_the_next_fetch_works(
    repository: Path, tmp_path: Path, checkout: Path, mirror: Mirror
) -> None:
    for round_ in range(15):
        commit(repository, {f"models/m{number}.sql": f"{round_}\n" * 2000 for number in range(30)})
        if round_ % 3 == 0:
            shutil.rmtree(mirror.folder, ignore_errors=True)
        for work in (mirror.fetch, lambda: check_out(mirror, head(repository), checkout)):
            task = asyncio.create_task(work())
            await asyncio.sleep(0.003 * round_)  # a different moment each time; the assertions hold for any
            for pid in children():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            try:
                await task
            except git.RepositoryError:
                await mirror.fetch()
                await work()
        assert read(checkout)["models/m7.sql"] == f"{round_}\n" * 2000


def children() -> list[int]:
    """The ids of this process's children."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that ended meanwhile
            found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


async def test_a_fetch_waits_for_the_git_of_a_killed_gateway_to_time_out(
    repository: Path, tmp_path: Path, mirror: Mirror
) -> None:
    script = (
        "import asyncio, os, sys; from pathlib import Path\n"
        "from runners.git import git; from runners.git.mirror import Mirror; from runners.mask import Mask\n"
        "git.TIMEOUT = 2.0\n"
        "asyncio.run(Mirror(sys.argv[1], Path(sys.argv[2]), os.environ, Mask()).fetch())\n"
    )
    command = [sys.executable, "-c", script, str(repository), str(mirror.folder)]
    gateway = await asyncio.create_subprocess_exec(*command, env=fake_git(tmp_path, "fetch"))
    await wait_for_calls(tmp_path)
    gateway.kill()
    await gateway.wait()
    [orphan] = calls(tmp_path)
    assert is_alive(orphan)
    with (mirror.folder.with_name("mirror.lock")).open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    await mirror.fetch()
    assert not is_alive(orphan)
    assert await resolve_commit(mirror, "main") == head(repository)


async def test_with_a_fake_git_a_helper_that_keeps_running_blocks_no_call(repository: Path, tmp_path: Path) -> None:
    """Such as git's cache of passwords."""
    environment = fake_git(
        tmp_path, "fetch", f"exec 3<&0; setsid sleep 1000 <&3 >/dev/null 2>&1 & echo $! >{tmp_path}/daemon"
    )
    mirror = Mirror(str(repository), tmp_path / "mirror", environment, Mask())
    await mirror.fetch()
    daemon = int((tmp_path / "daemon").read_text())
    fake_git(tmp_path, "fetch", ":")
    try:
        async with asyncio.timeout(20):
            await mirror.fetch()
        assert is_alive(daemon)
    finally:
        os.kill(daemon, signal.SIGKILL)


async def test_a_lock_held_by_another_process_is_named(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    await mirror.fetch()
    monkeypatch.setattr(git, "TIMEOUT", 0.1)
    file = mirror.folder.with_name("mirror.lock")
    with file.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UnavailableError, match=f"is in use: another process holds {file}"):
            await mirror.fetch()


def truncate_to_half(file: Path) -> None:
    file.chmod(0o644)
    os.truncate(file, file.stat().st_size // 2)


def write_wrong_hash(file: Path) -> None:
    file.write_text(f"{'1' * 40}\n")


def damage_files(pattern: str, damage_file: Callable[[Path], None]) -> Callable[[Path], None]:
    def damage(mirror: Path) -> None:
        found = [path for path in mirror.glob(pattern) if path.is_file()]
        assert found
        for path in found:
            damage_file(path)

    return damage


@pytest.mark.parametrize("after_a_fetch", [True, False])
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(damage_files("objects/pack/*.pack", truncate_to_half), id="truncated packs"),
        pytest.param(damage_files("objects/pack/*.idx", truncate_to_half), id="truncated indices"),
        pytest.param(damage_files("objects/pack/*", Path.unlink), id="missing packs"),
        pytest.param(damage_files("objects/??/*", truncate_to_half), id="truncated objects"),
        pytest.param(damage_files("objects/??/*", Path.unlink), id="missing objects"),
        pytest.param(damage_files("HEAD", truncate_to_half), id="truncated HEAD"),
        pytest.param(damage_files("config", truncate_to_half), id="truncated config"),
        pytest.param(damage_files("refs/heads/main", lambda file: os.truncate(file, 0)), id="an empty branch"),
        pytest.param(shutil.rmtree, id="missing mirror"),
        pytest.param(lambda mirror: shutil.rmtree(mirror / "objects"), id="missing folder of objects"),
        pytest.param(damage_files("refs/heads/main", write_wrong_hash), id="a wrong hash"),
    ],
)
async def test_a_damaged_mirror_is_made_anew(
    mirror: Mirror, repository: Path, checkout: Path, damage: Callable[[Path], None], after_a_fetch: bool
) -> None:
    commit(
        repository, {f"more/{number}": str(number) for number in range(200)}
    )  # git keeps more than 100 fetched objects in a pack
    tag(repository, "v1", annotated=True)
    await mirror.fetch()
    made = commit(repository, {"new": ""})
    tag(repository, "v2", annotated=True)
    await mirror.fetch()
    damage(mirror.folder)
    if after_a_fetch:
        await mirror.fetch()
        assert await resolve_commit(mirror, "main", "2") == made
    await check_out(mirror, made, checkout)
    assert len(read(checkout)) == len(FILES) + 201
    await mirror.fetch()
    assert await resolve_commit(mirror, "main", "2") == made
    assert [path.name for path in mirror.folder.parent.iterdir() if path.name != "mirror"] == ["mirror.lock"]


async def test_the_mirror_is_kept_and_used_while_its_source_is_missing(
    mirror: Mirror, repository: Path, checkout: Path
) -> None:
    await mirror.fetch()
    made = head(repository)
    away = repository.with_name("away")
    shutil.move(repository, away)
    with pytest.raises(UnavailableError) as error:
        await mirror.fetch()
    assert str(error.value) == (
        f"The repository {repository} can't be read: cannot change to '{repository}': No such file or directory; "
        "set the project's repository to one that is there."
    )
    assert await resolve_commit(mirror, "main") == made
    await check_out(mirror, made, checkout)
    damage_files("objects/??/*", truncate_to_half)(mirror.folder)
    shutil.rmtree(checkout)
    with pytest.raises(UnavailableError, match="cannot change to"):
        await check_out(mirror, made, checkout)
    assert mirror.folder.exists()
    shutil.move(away, repository)
    await check_out(mirror, made, checkout)
    assert read(checkout) == FILES


async def test_a_source_outside_any_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"not a git repository .*; set the project's repository to one"):
        await Mirror(str(tmp_path), tmp_path / "mirror", os.environ, Mask()).fetch()


async def test_by_a_fake_git_one_broken_fetch_costs_no_mirror(repository: Path, tmp_path: Path) -> None:
    fail_once = f"[ -e {tmp_path}/failed ] || {{ : >{tmp_path}/failed; echo fatal: the host hung up >&2; exit 128; }}"
    mirror = Mirror(str(repository), tmp_path / "mirror", fake_git(tmp_path, "fetch", ":"), Mask())
    await mirror.fetch()
    before = mirror.folder.stat().st_ino
    fake_git(tmp_path, "fetch", fail_once)
    with pytest.raises(UnavailableError, match="the host hung up"):
        await mirror.fetch()
    await mirror.fetch()
    assert mirror.folder.stat().st_ino == before


@pytest.mark.parametrize(
    ("damage", "is_pruned"),
    [
        pytest.param(damage_files("refs/heads/main", write_wrong_hash), True, id="a wrong hash"),
        pytest.param(lambda mirror: shutil.rmtree(mirror / "objects"), False, id="no folder of objects"),
        pytest.param(shutil.rmtree, False, id="no mirror"),
    ],
)
async def test_a_resolved_commit_outlives_every_repair(
    mirror: Mirror, repository: Path, checkout: Path, damage: Callable[[Path], None], is_pruned: bool
) -> None:
    """A push by force and a damaged mirror: the commit comes from the old mirror, or from the source if that has it."""
    wanted = commit(repository, {"new": "wanted"})
    await mirror.fetch()
    assert await resolve_commit(mirror, "main") == wanted
    repositories.git(repository, "commit", "--quiet", "--amend", "--message=another")
    if is_pruned:
        repositories.git(repository, "reflog", "expire", "--expire=now", "--all")
        repositories.git(repository, "gc", "--quiet", "--prune=now")
    await mirror.fetch()
    damage(mirror.folder)
    await mirror.fetch()
    await check_out(mirror, wanted, checkout)
    assert read(checkout) == {**FILES, "new": "wanted"}
