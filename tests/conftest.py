"""What all tests share."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir
from playwright.sync_api import Browser
from pytest_aiohttp import AiohttpClient
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # it has no types

from runners.detached import supervisor as process
from tests.support import api, browser, docker, measured, parts, projects
from tests.support.api import Api
from tests.support.browser import Pages
from tests.support.forks import SERVER
from tests.support.gateway import Gateway
from tests.support.quick_dbt import QUICK_DBT
from tests.support.source import ROOT

# Settings of the user who runs the tests must not reach the gateways under test.
_SETTINGS = (
    "PIPELINE_ENABLED",
    "ENABLE_OPENLINEAGE",
    "ENABLE_ELEMENTARY",
    "HOST",
    "PORT",
    "JOB_TTL",
    "STATE_DIRECTORY",
    "PYTHONDONTWRITEBYTECODE",  # gateways that compile themselves at each start take thrice as long
)
_PREFIXES = ("GATEWAY_", "DOCKER_", "COMPOSE_")
_KEPT = ("DOCKER_CONFIG",)  # where a Compose plugin may be

MakeGateway = Callable[..., Gateway]
MakeApi = Callable[..., Awaitable[Api]]

Tell = Callable[[str], None]

_ORDER = ("acceptance", "component", "guards", "unit", "benchmarks")
_SHARES = re.compile(r'scope="module"|\bengine\b|\bPages\b')  # in files whose tests share a fixture
_FIGURE = "figure"
_seconds: dict[str, float] = {}
_figures: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the kill loop goes on."""
    parser.addoption("--kills", type=int, default=30, help="gateways that the kill loop kills (default: 30)")


def pytest_configure(config: pytest.Config) -> None:
    """Hypothesis tries the same examples each time, on machines of any speed, and leaves nothing behind."""
    settings.register_profile(
        "same",
        derandomize=True,
        database=None,
        deadline=None,
        max_examples=200,
        # a fixture's folder or service is meant to be shared by all examples of a test
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    settings.load_profile("same")
    home = tempfile.TemporaryDirectory(prefix="hypothesis-")
    set_hypothesis_home_dir(home.name)
    config.add_cleanup(home.cleanup)


class Together(LoadScopeScheduling):  # type: ignore[misc]  # a base without types
    """Where tests run side by side, those that share a fixture stay in one process, and quick ones of a file too.

    xdist's own groups change the ids of tests, which pytest 9.2 does not let them do any more.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if _ring(file) != "acceptance":
            return file
        if Path(file).name.startswith("test_systemd"):
            return "machine"
        return file if _SHARES.search((ROOT / file).read_text("utf-8")) else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """What --dist would say otherwise."""
    return Together(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The rings that take long begin, so that at the end there are only short tests to be waited for."""
    items.sort(key=lambda item: _ORDER.index(_ring(item.nodeid)))


def _ring(nodeid: str) -> str:
    return nodeid.split("/")[1]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up how long each ring of tests takes, and keep what tests have measured."""
    ring = _ring(report.nodeid)
    _seconds[ring] = _seconds.get(ring, 0.0) + report.duration
    if report.when == "call":
        _figures.extend(str(value) for name, value in report.user_properties if name == _FIGURE)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say it."""
    if _figures:
        terminalreporter.section("figures")
    for figure in _figures:
        terminalreporter.write_line(figure)
    terminalreporter.section("rings")
    for ring, seconds in _seconds.items():
        terminalreporter.write_line(f"{ring}: {seconds:.1f} s")


@pytest.fixture(scope="session", autouse=True)
def _sigint_is_heard() -> None:
    """A shell that starts the tests in the background has them ignore SIGINT, and what they start inherits that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _unmeasured() -> Iterator[None]:
    """Coverage measures no process that the tests start, which would take half as long again.

    The tests of units and components reach the same code in this process.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in measured.VARIABLES:
            patch.delenv(name)
        yield


@pytest.fixture(scope="module")
def measured_shim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Coverage does measure the supervisors of steps that a file starts, for 0.3 s of CPU each."""
    with pytest.MonkeyPatch.context() as patch:
        if (wrapper := measured.wrapper(tmp_path_factory.mktemp("measured"))) is not None:
            patch.setattr(process, "_SHIM", str(wrapper))
        yield


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [*_SETTINGS, *(name for name in os.environ if name.startswith(_PREFIXES) and name not in _KEPT)]:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _fork_servers() -> Iterator[None]:
    """What forks gateways and dbt ends with the tests."""
    yield
    SERVER.close()
    QUICK_DBT.close()


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """Tells what a test has measured, at the end of the run, from every worker."""
    return lambda figure: record_property(_FIGURE, figure)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a small real project."""
    return projects.make(tmp_path / "project")


@pytest.fixture
def make_gateway(request: pytest.FixtureRequest) -> Iterator[MakeGateway]:
    """Starts a real gateway process on a folder; all of them are gone at the end of the test."""
    made: list[Gateway] = []
    installed = request.node.get_closest_marker("installed") is not None

    def make(folder: Path, environment: Mapping[str, str] | None = None) -> Gateway:
        gateway = Gateway(folder, environment, installed=installed)
        made.append(gateway)
        return gateway.start()

    yield make
    for gateway in made:
        gateway.stop()


@pytest.fixture
async def make_api(aiohttp_client: AiohttpClient) -> AsyncIterator[MakeApi]:
    """Starts the service in this process on a folder; what it still runs at the end of the test is ended."""
    made: list[Api] = []

    async def make(
        folder: Path,
        environment: Mapping[str, str] | None = None,
        routes: Iterable[web.AbstractRouteDef] = (),
        token: str | None = None,
    ) -> Api:
        client = await aiohttp_client(api.app(folder, environment, routes))
        made.append(Api(client.session, client.make_url("/"), folder, token))
        return made[-1]

    yield make
    for one in made:
        await one.end()


@pytest.fixture
def gateway(project: Path, make_gateway: MakeGateway) -> Gateway:
    """A real gateway process on a small real project."""
    return make_gateway(project)


@pytest.fixture
def engine(shared_engine: docker.Engine) -> docker.Engine:
    """A real Docker Engine without containers, for tests that don't disturb it."""
    shared_engine.remove_containers()
    return shared_engine


@pytest.fixture(scope="module")
def shared_engine() -> Iterator[docker.Engine]:
    """The engine of all tests of a file: an engine remembers only its latest 256 events."""
    yield from _engine()


@pytest.fixture
def own_engine() -> Iterator[docker.Engine]:
    """A real Docker Engine for one test, which may stop, kill or halt it."""
    yield from _engine()


def _engine() -> Iterator[docker.Engine]:
    """Skipped where a part is missing, failed where everything is required."""
    if why := docker.missing():
        parts.missing(why)
    engine = docker.Engine()
    try:
        yield engine.start()
    finally:
        engine.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The Chromium of all tests of a file, none of which may be a coroutine."""
    if why := browser.missing():
        parts.missing(why)
    with browser.chromium() as started:
        yield started


@pytest.fixture
def pages(chromium: Browser, make_gateway: MakeGateway) -> Iterator[Pages]:
    """Opens pages in it; they are closed before the gateways are."""
    opened = Pages(chromium)
    yield opened
    opened.close()


def need(program: str) -> str:
    """A program a test can't do without: skipped where it is missing, failed where everything is required."""
    found = shutil.which(program)
    if found is None:
        missing = f"{program} is not installed"
        if os.environ.get("REQUIRE_ALL"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found
