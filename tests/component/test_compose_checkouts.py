"""Files that root of a container left in a checkout, under a gateway that is not root."""

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
class GatewayState:
    """The state directory of a gateway that is not root, with a project that runs in containers."""

    settings: Settings
    environment: dict[str, str]
    repository: Path
    engine: Engine

    def checkouts(self) -> Checkouts:
        return FabricRegistry(self.settings, self.environment, "feed").checkouts

    async def checkout(self, checkouts: Checkouts) -> Checkout:
        """The checkout of the newest commit, ready for a job."""
        found = await checkouts.resolve("shop", "main", None)
        assert found is not None
        made = checkouts.checkout("containers", found)
        assert await made.prepare("job") is None
        made.remove_user("job")
        return made

    @property
    def root(self) -> Path:
        commit = repositories.head(self.repository)
        return self.settings.state_directory / "checkouts/containers" / commit

    def leave_files_of_root(self) -> None:
        """Let root of a container make files there that only root can remove."""
        volume = f"--volume={self.root}:/there"
        self.engine.docker("run", "--rm", "--network=none", volume, BUSYBOX_IMAGE, "sh", "-c", _LEFT)
        assert (self.root / "made").stat().st_uid == 0

    def make_old(self) -> None:
        """Make the checkout look unused for long."""
        os.utime(self.root, (0, 0))

    async def make(self) -> None:
        """Make the checkout, or reset it, for a job."""
        await self.checkout(self.checkouts())

    async def sweep(self) -> None:
        """Remove unused checkouts."""
        await self.checkouts().sweep([])


@pytest.fixture
def kept(engine: Engine) -> Iterator[GatewayState]:
    folder = Path(tempfile.mkdtemp(prefix="checkouts-", dir="/tmp"))  # that every user may enter
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
    plugin = folder / "config/cli-plugins/docker-compose"  # the engine's own may be in a folder of root
    plugin.parent.mkdir(parents=True)
    shutil.copy(engine.folder / "config/cli-plugins/docker-compose", plugin)
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **engine.environment}
    environment["DOCKER_CONFIG"] = str(folder / "config")
    settings = load(folder / "gateway.yaml", {**environment, "STATE_DIRECTORY": str(state)})
    yield GatewayState(settings, environment, folder / "shop", engine)
    shutil.rmtree(folder)


def as_nobody(work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run it in a child process as the user nobody; a failure there fails the test."""
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


def test_an_unused_checkout_is_removed_with_the_files_that_root_left(kept: GatewayState) -> None:
    as_nobody(kept.make)
    kept.leave_files_of_root()
    kept.make_old()
    as_nobody(kept.sweep)
    assert not kept.root.exists()
    assert kept.root.parent.exists()
    assert kept.engine.containers() == []


def test_files_that_root_left_in_a_checkout_are_removed_for_the_next_job(kept: GatewayState) -> None:
    as_nobody(kept.make)
    kept.leave_files_of_root()
    as_nobody(kept.make)
    assert [path.name for path in kept.root.iterdir()] == ["models"]
    assert (kept.root / "models/one.sql").read_text() == "select 1\n"


def test_without_an_engine_a_checkout_with_files_of_root_stays(kept: GatewayState) -> None:
    kept.environment["DOCKER_HOST"] = "unix:///nowhere/docker.sock"

    as_nobody(kept.make)
    kept.leave_files_of_root()
    kept.make_old()
    as_nobody(kept.sweep)
    assert (kept.root / "made/file").exists()
