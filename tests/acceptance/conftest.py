"""What several acceptance files share: a booted machine with the service, and gateways that die where they are told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import machine as booted
from tests.support import parts
from tests.support.dying import DyingGateway
from tests.support.installed import Installed
from tests.support.machine import Machine

_PATIENCE = 1800  # seconds: a Debian is fetched and booted first


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test that wants the machine waits for it, so these begin first."""
    wanting = [item for item in items if "service" in getattr(item, "fixturenames", ())]
    for item in wanting:
        item.add_marker(pytest.mark.timeout(_PATIENCE))
    items.sort(key=lambda item: item not in wanting)


@pytest.fixture(scope="package")
def machine() -> Iterator[Machine]:
    """A booted Debian with the service, installed as the manual says."""
    if why := booted.missing():
        parts.missing(why)
    made = Machine()
    try:
        if why := made.make():
            parts.missing(why)
        made.boot()
        Installed(made).install()
        yield made
    finally:
        made.close()


@pytest.fixture
def service(machine: Machine) -> Iterator[Installed]:
    """The service as it was installed, with nothing running."""
    installed = Installed(machine)
    installed.reset()
    yield installed
    installed.clear()


@pytest.fixture
def dying(tmp_path: Path) -> Iterator[DyingGateway]:
    """Gateways on one folder; none of them, and nothing of theirs, is left at the end."""
    gateway = DyingGateway(tmp_path / "project")
    yield gateway
    gateway.release()
    gateway.stop()
