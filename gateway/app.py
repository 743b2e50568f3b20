"""The composition root: the only module that wires the parts together."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import suppress
from typing import Any
from weakref import WeakValueDictionary

import structlog
from aiohttp import web

from gateway import state, systemd
from gateway.errors import StorageError
from gateway.fabrics.registry import FabricRegistry, must_have_lasting_databases
from gateway.jobs.leftovers import Leftovers
from gateway.jobs.retention import Retention
from gateway.jobs.service import JobService
from gateway.notify import receivers, variables
from gateway.notify.delivery import Courier
from gateway.notify.receiver import Receiver
from gateway.settings import tokens
from gateway.settings.fabric import RunnerName
from gateway.settings.settings import Settings
from gateway.settings.tokens import Tokens
from gateway.storage import integrity as database
from gateway.storage import restore
from gateway.storage.pauses import Pauses
from gateway.storage.store import Store
from gateway.web import (
    PUBLIC_URL,
    SERVICE,
    data_analytics,
    docs,
    guard,
    idempotency,
    listener,
    metrics,
    operations,
    trigger_pipeline,
)
from gateway.web.access import Access, RateLimit
from gateway.web.connections import Connection, Connections, most_connections, must_have_extensions
from gateway.web.jobs_api import artifacts, events, jobs, log, nodes, pipelines
from gateway.web.links import Links
from gateway.web.listener import Listener
from gateway.web.openapi import document
from gateway.web.records import whole_record
from gateway.web.traffic import Traffic
from runners.containers.compose_runner import ComposeRunner
from runners.process.local_runner import LocalRunner
from runners.runner import Runner

SETTINGS = web.AppKey("settings", Settings)
TOKENS: web.AppKey[Tokens | None] = web.AppKey("tokens")
ENVIRONMENT = web.AppKey("environment", Mapping[str, str])
INSTANCE = web.AppKey("instance", str)
STORE = web.AppKey("store", Store)
REGISTRY = web.AppKey("registry", FabricRegistry)
RECEIVERS: web.AppKey[Mapping[str, Receiver]] = web.AppKey("receivers")
CONNECTIONS = web.AppKey("connections", Connections)
# done with the exception of a service-wide task that died, which then ends the process
BROKEN = web.AppKey("broken", asyncio.Future[None])

_DRAIN = 5.0  # seconds for the requests that are underway when the service stops
_SHUTDOWN = 1.0  # seconds for those that are left then

_log = structlog.get_logger()


def build_app(settings: Settings, environment: Mapping[str, str]) -> web.Application:
    """The service, not started yet. environment: of the gateway, which steps inherit. Raises ConfigError."""
    known = tokens.load(settings.tokens_file, environment)
    links = Links()
    access = Access(known, RateLimit(settings.trigger_rate, settings.trigger_burst), links)
    connections, traffic = Connections(most_connections()), Traffic()
    app = web.Application(
        middlewares=[guard.guard(settings.allowed_hosts, access, traffic), connections.middleware],
        client_max_size=guard.BODY_LIMIT,
    )
    apis = (data_analytics, trigger_pipeline, jobs, log, events, artifacts, nodes, pipelines)
    for api in (*apis, operations, metrics, document, docs):
        app.add_routes(api.ROUTES)
    app.on_response_prepare.append(guard.add_headers)
    app[events.FOLLOWERS] = set()
    app[idempotency.LOCKS] = WeakValueDictionary()
    app[metrics.TRAFFIC] = traffic
    app[artifacts.LINKS] = links
    app[RECEIVERS] = receivers.make(settings, environment)
    app[TOKENS] = known
    app[CONNECTIONS] = connections
    app[SETTINGS] = settings
    app[PUBLIC_URL] = settings.public_url
    app[ENVIRONMENT] = environment
    app.cleanup_ctx.extend(
        [_broken, _state, _store, _service, _notify, _retention, _leftovers, _connections, _watchdog]
    )
    return app


async def _broken(app: web.Application) -> AsyncIterator[None]:
    app[BROKEN] = asyncio.get_running_loop().create_future()
    yield
    app[BROKEN].cancel()


async def _state(app: web.Application) -> AsyncIterator[None]:
    async with state.locked(app[SETTINGS].state_directory) as app[INSTANCE]:
        yield


async def _store(app: web.Application) -> AsyncIterator[None]:
    """Open the database, restored from the jobs' folders; at the end set it aside if it was found damaged."""
    folder = app[SETTINGS].state_directory
    file = folder / "gateway.db"
    app[STORE] = store = await Store.open(file)
    store.outbox.receivers = app[SETTINGS].notify
    for end in (store.committer, store.damaged):
        end.add_done_callback(lambda done: _report(app, done))
    try:
        await restore.restore(store, folder / "jobs")
        yield
    finally:
        await store.close()
        if not store.damaged.cancelled():
            database.set_aside(file, str(store.damaged.exception()))


async def _service(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    runners: dict[RunnerName, Runner] = {
        RunnerName.LOCAL: LocalRunner(settings.output_cap),
        RunnerName.COMPOSE: ComposeRunner(settings.output_cap),
    }
    app[REGISTRY] = registry = FabricRegistry(settings, app[ENVIRONMENT], app[INSTANCE])
    pauses = await asyncio.to_thread(Pauses, settings.state_directory / "paused")
    service = JobService(settings, app[STORE], pauses, runners, registry, on_broken=lambda task: _report(app, task))
    app[SERVICE] = service
    await service.recover()
    yield
    await service.close()


async def _notify(app: web.Application) -> AsyncIterator[None]:
    settings, service = app[SETTINGS], app[SERVICE]

    async def record(job_id: str) -> dict[str, Any]:
        snapshot = await service.with_notifications(await service.get(job_id))
        return whole_record(snapshot, settings.link_base).model_dump(mode="json")

    mask = variables.mask(settings, app[ENVIRONMENT])
    courier = Courier(app[STORE].outbox, app[RECEIVERS], settings.projects, record, mask)
    async for _ in _task(app, courier.run(), "notify"):
        yield


async def _retention(app: web.Application) -> AsyncIterator[None]:
    app[metrics.RETENTION] = retention = Retention(app[SETTINGS], app[STORE], app[REGISTRY].checkouts)
    async for _ in _task(app, retention.run(), "retention"):
        yield


async def _leftovers(app: web.Application) -> AsyncIterator[None]:
    async for _ in _task(app, Leftovers(app[REGISTRY].engines(), app[INSTANCE], app[STORE]).run(), "leftovers"):
        yield


async def _connections(app: web.Application) -> AsyncIterator[None]:
    async for _ in _task(app, app[CONNECTIONS].watch(), "connections"):
        yield


async def _watchdog(app: web.Application) -> AsyncIterator[None]:
    patience = systemd.watchdog(app[ENVIRONMENT])
    if patience is None:
        yield
        return
    async for _ in _task(app, _feed_watchdog(app, patience / 2), "watchdog"):
        yield


async def _feed_watchdog(app: web.Application, interval: float) -> None:
    """Tell systemd's watchdog that the loop turns and the database answers; without that it restarts the process."""
    while True:
        try:
            await app[STORE].ping()
        except StorageError as error:
            _log.warning("no sign of life", error=str(error))
        else:
            systemd.notify(app[ENVIRONMENT], "WATCHDOG=1")
        await asyncio.sleep(interval)


async def _task(app: web.Application, work: Coroutine[None, None, None], name: str) -> AsyncIterator[None]:
    """Run a task for as long as the service lives."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(lambda done: _report(app, done))
    yield
    task.cancel()
    await asyncio.wait([task])


def _report(app: web.Application, done: asyncio.Future[None]) -> None:
    if not done.cancelled() and not app[BROKEN].done():
        app[BROKEN].set_exception(done.exception() or RuntimeError(f"{done} ended"))


class Server:
    """The service on its addresses."""

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._environment = environment
        self._runner = web.AppRunner(build_app(settings, environment), shutdown_timeout=_SHUTDOWN)
        self._listeners: list[Listener] = []
        self._stopped = asyncio.Event()
        self.port = 0

    async def start(self, *, signals: bool = False) -> None:
        """Recover what was running, then listen. Raises StateError, ConfigError.

        signals: handle SIGTERM and SIGINT from before systemd hears that the service is ready.
        """
        must_have_extensions()
        given = systemd.sockets(
            self._environment
        )  # systemd keeps them open over a restart, so no client is refused meanwhile
        await asyncio.to_thread(must_have_lasting_databases, self._settings, self._environment)
        has_tokens = self._runner.app[TOKENS] is not None
        listener.must_have_tokens(given, self._settings.host, has_tokens=has_tokens)
        await self._runner.setup()
        sockets = given or listener.bound(self._settings.host, self._settings.port)
        self.port = listener.port(sockets)
        self._listeners = [Listener(one, self._connection) for one in sockets]
        if signals:
            self._handle_signals()
        if self._settings.allowed_hosts and self._runner.app[TOKENS] is None:
            _log.warning("hosts are allowed without tokens", hosts=self._settings.allowed_hosts)
        _log.info(
            "serving",
            host=self._settings.host,
            port=self.port,
            enabled=self._settings.enabled,
            lets_in=self._token_summary(),
            connections=self._runner.app[CONNECTIONS].limit,
        )
        systemd.notify(self._environment, f"READY=1\nSTATUS=Serving on port {self.port}")

    def _token_summary(self) -> str:
        known = self._runner.app[TOKENS]
        if known is None:
            return "every program of this host, since there are no tokens"
        return f"tokens of {known.source}: {', '.join(token.name for token in known.tokens) or 'none'}"

    def _connection(self) -> Connection:
        assert self._runner.server is not None, "connections are taken between setup and cleanup"
        return Connection(self._runner.server, self._runner.app[CONNECTIONS])

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped.set)

    async def wait(self) -> None:
        """Wait for SIGTERM or SIGINT. Raises the exception of a service-wide task that died."""
        self._handle_signals()
        broken = self._runner.app[BROKEN]
        broken.add_done_callback(lambda _: self._stopped.set())
        await self._stopped.wait()
        if broken.done():
            broken.result()

    async def close(self) -> None:
        """Refuse new jobs, stop listening and stop following the running jobs, which go on."""
        systemd.notify(self._environment, "STOPPING=1")
        if SERVICE in self._runner.app:
            self._runner.app[SERVICE].drain()
        with suppress(asyncio.CancelledError):
            # requests are finished before the clean-up, which stops reading from clients
            for one in self._listeners:
                one.close()
            await self._runner.app[CONNECTIONS].drained(_DRAIN)
            await self._runner.cleanup()
        _log.info("stopped")
