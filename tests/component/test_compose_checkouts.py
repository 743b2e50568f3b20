"""What containers leave in checkouts, by a gateway that is not root, as its user in the group docker is not."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.fabrics.checkouts import Checkout, Checkouts
from gateway.fabrics.registry import FabricRegistry
from gateway.settings.settings import Settings, load
from tests.support import compose, repositories
from tests.support.docker import BUSYBOX_IMAGE, Engine

_NOBODY = 65534
_LEFT = "mkdir /there/made && touch /there/made/file && chmod 700 /there/made"


@dataclass(frozen=True)
class Kept:
    """A gateway's state with a project that runs in containers, owned by a user who is not root."""

    settings: Settings
    environment: dict[str, str]
    repository: Path
    engine: Engine

    def sources(self) -> Checkouts:
        return FabricRegistry(self.settings, self.environment, "feed").checkouts

    async def checkout(self, sources: Checkouts) -> Checkout:
        """The checkout of the newest commit, which is there."""
        found = await sources.resolve("shop", "main", None)
        assert found is not None
        made = sources.checkout("containers", found)
        assert await made.prepare("job") is None
        made.remove_user("job")
        return made

    @property
    def root(self) -> Path:
        commit = repositories.head(self.repository)
        return self.settings.state_directory / "checkouts/containers" / commit

    def leave(self) -> None:
        """Have root of a container leave there what only root can remove."""
        volume = f"--volume={self.root}:/there"
        self.engine.docker("run", "--rm", "--network=none", volume, BUSYBOX_IMAGE, "sh", "-c", _LEFT)
        assert (self.root / "made").stat().st_uid == 0

    def age(self) -> None:
        """Have it unused for long."""
        os.utime(self.root, (0, 0))

    async def make(self) -> None:
        """Have the checkout made, or put right, for a job."""
        await self.checkout(self.sources())

    async def sweep(self) -> None:
        """Remove what no job has used for long."""
        await self.sources().sweep([])


@pytest.fixture
def kept(engine: Engine) -> Iterator[Kept]:
    folder = Path(tempfile.mkdtemp(prefix="checkouts-", dir="/tmp"))  # where every user gets
    repositories.repository(folder / "shop", {"models/one.sql": "select 1\n"})
    compose.write(folder, fabric={}, dbt=compose.service(), ingester=compose.service())
    with (folder / "gateway.yaml").open("a", encoding="utf-8") as file:
        file.write("projects: {shop: {directory: shop}}\n")
    state = folder / "state"
    state.mkdir(mode=0o700)
    for path in (folder, state):
        os.chown(path, _NOBODY, _NOBODY)
    engine.folder.chmod(0o755)
    (engine.folder / "docker.sock").chmod(0o666)
    plugin = folder / "config/cli-plugins/docker-compose"  # the engine's own may be where only root gets
    plugin.parent.mkdir(parents=True)
    shutil.copy(engine.folder / "config/cli-plugins/docker-compose", plugin)
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **engine.environment}
    environment["DOCKER_CONFIG"] = str(folder / "config")
    settings = load(folder / "gateway.yaml", {**environment, "STATE_DIRECTORY": str(state)})
    yield Kept(settings, environment, folder / "shop", engine)
    shutil.rmtree(folder)


def as_nobody(work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run it in a child that is not root; its failures are this process's."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(asyncio.to_thread(os.getuid))  # imports what that needs, while it may be read
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
            asyncio.run(work())
            code = 0
        except BaseException:  # noqa: BLE001, a child that must not go on with the parent's tests
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "see what the child printed"


def test_an_unused_checkout_is_removed_with_what_root_of_a_container_left_there(kept: Kept) -> None:
    as_nobody(kept.make)
    kept.leave()
    kept.age()
    as_nobody(kept.sweep)
    assert not kept.root.exists()
    assert kept.root.parent.exists()
    assert kept.engine.containers() == []


def test_a_checkout_in_which_root_of_a_container_left_something_is_put_right_for_the_next_job(kept: Kept) -> None:
    as_nobody(kept.make)
    kept.leave()
    as_nobody(kept.make)
    assert [path.name for path in kept.root.iterdir()] == ["models"]
    assert (kept.root / "models/one.sql").read_text() == "select 1\n"


def test_where_the_engine_is_gone_the_checkout_stays_and_nothing_else_happens(kept: Kept) -> None:
    kept.environment["DOCKER_HOST"] = "unix:///nowhere/docker.sock"

    as_nobody(kept.make)
    kept.leave()
    kept.age()
    as_nobody(kept.sweep)
    assert (kept.root / "made/file").exists()
