"""What all tests share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.support import projects
from tests.support.gateway import Gateway

# Settings of whoever runs the tests must not reach the gateways under test.
_SETTINGS = (
    "PIPELINE_ENABLED",
    "ENABLE_OPENLINEAGE",
    "ENABLE_ELEMENTARY",
    "HOST",
    "PORT",
    "JOB_TTL",
    "STATE_DIRECTORY",
)

MakeGateway = Callable[..., Gateway]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*_SETTINGS, *(name for name in os.environ if name.startswith("GATEWAY_"))]:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a small real project."""
    return projects.make(tmp_path / "project")


@pytest.fixture
def make_gateway() -> Iterator[MakeGateway]:
    """Starts a real gateway process on a folder; all of them are gone at the end of the test."""
    made: list[Gateway] = []

    def make(folder: Path, environment: Mapping[str, str] | None = None) -> Gateway:
        gateway = Gateway(folder, environment)
        made.append(gateway)
        return gateway.start()

    yield make
    for gateway in made:
        gateway.kill()


@pytest.fixture
def gateway(project: Path, make_gateway: MakeGateway) -> Gateway:
    """A real gateway process on a small real project."""
    return make_gateway(project)


def need(program: str) -> str:
    """A program a test can't do without: skipped where it is missing, failed where everything is required."""
    found = shutil.which(program)
    if found is None:
        missing = f"{program} is not installed"
        if os.environ.get("REQUIRE_ALL"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found
