"""The composition root: the only module that wires the parts together."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any
from weakref import WeakValueDictionary

import structlog
from aiohttp import web

from gateway import state, systemd
from gateway.errors import GatewayError, StorageError
from gateway.fabrics.registry import FabricRegistry, must_have_lasting_databases
from gateway.jobs.leftovers import Leftovers
from gateway.jobs.retention import Retention
from gateway.jobs.service import JobService
from gateway.log import set_up as set_up_log
from gateway.notify import receivers, variables
from gateway.notify.delivery import Courier
from gateway.settings import tokens
from gateway.settings.changes import changed_keys
from gateway.settings.fabric import RunnerName
from gateway.settings.settings import Settings
from gateway.settings.tokens import Tokens
from gateway.storage import integrity as database
from gateway.storage import restore
from gateway.storage.pauses import Pauses
from gateway.storage.store import Store
from gateway.web import SERVICE, data_analytics, docs, idempotency, metrics, operations, trigger_pipeline
from gateway.web.jobs_api import artifacts, events, jobs, log, nodes, pipelines
from gateway.web.openapi import document
from gateway.web.page import files
from gateway.web.records import whole_record
from gateway.web.server import guard, listener
from gateway.web.server.access import Access, RateLimit
from gateway.web.server.connections import Connection, Connections, most_connections, must_have_extensions
from gateway.web.server.links import Links
from gateway.web.server.listener import Listener
from gateway.web.server.traffic import Traffic
from runners.containers.compose_runner import ComposeRunner
from runners.process.local_runner import LocalRunner
from runners.runner import Runner

SETTINGS = web.AppKey("settings", Settings)
ACCESS = web.AppKey("access", Access)
ENVIRONMENT = web.AppKey("environment", Mapping[str, str])
INSTANCE = web.AppKey("instance", str)
STORE = web.AppKey("store", Store)
REGISTRY = web.AppKey("registry", FabricRegistry)
CONNECTIONS = web.AppKey("connections", Connections)
# done with the exception of a service-wide task that died, which then ends the process
BROKEN = web.AppKey("broken", asyncio.Future[None])

# What is bound at the start: a reload leaves it as it is.
_FIXED = ("host", "port", "state_directory")
_DRAIN = 5.0  # seconds for the requests that are underway when the service stops
_SHUTDOWN = 1.0  # seconds for those that are left then

Load = Callable[[], tuple[Settings, Mapping[str, str]]]  # raises ConfigError

_log = structlog.get_logger()


def build_app(settings: Settings, environment: Mapping[str, str]) -> web.Application:
    """The service, not started yet. environment: of the gateway, which steps inherit. Raises ConfigError."""
    known = tokens.load(settings.tokens_file, environment)
    links = Links()
    rate_limit = RateLimit(settings.trigger_rate, settings.trigger_burst)
    access = Access(known, rate_limit, settings.allowed_hosts, links)
    connections, traffic = Connections(most_connections()), Traffic()
    app = web.Application(
        middlewares=[guard.guard(access, traffic), connections.middleware],
        client_max_size=guard.BODY_LIMIT,
    )
    apis = (data_analytics, trigger_pipeline, jobs, log, events, artifacts, nodes, pipelines)
    for api in (*apis, operations, metrics, document, docs, files):
        app.add_routes(api.ROUTES)
    app.on_response_prepare.append(guard.add_headers)
    app[events.FOLLOWERS] = set()
    app[idempotency.LOCKS] = WeakValueDictionary()
    app[metrics.TRAFFIC] = traffic
    app[artifacts.LINKS] = links
    variables.must_be_right(settings, environment)
    app[ACCESS] = access
    app[CONNECTIONS] = connections
    app[SETTINGS] = settings
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
    app[REGISTRY] = registry = FabricRegistry(settings, app[ENVIRONMENT], app[INSTANCE])
    pauses = await asyncio.to_thread(Pauses, settings.state_directory / "paused")
    service = JobService(
        settings, app[STORE], pauses, _runners(settings), registry, on_broken=lambda task: _report(app, task)
    )
    app[SERVICE] = service
    await service.recover()
    yield
    await service.close()


async def _notify(app: web.Application) -> AsyncIterator[None]:
    settings, environment, service = app[SETTINGS], app[ENVIRONMENT], app[SERVICE]

    async def record(job_id: str) -> dict[str, Any]:
        snapshot = await service.with_notifications(await service.get(job_id))
        return whole_record(snapshot, service.settings.link_base).model_dump(mode="json")

    made, mask = receivers.make(settings, environment), variables.mask(settings, environment)
    app[metrics.COURIER] = courier = Courier(app[STORE].outbox, made, settings.projects, record, mask)
    async for _ in _task(app, courier.run(), "notify"):
        yield


def _runners(settings: Settings) -> dict[RunnerName, Runner]:
    return {
        RunnerName.LOCAL: LocalRunner(settings.output_cap),
        RunnerName.COMPOSE: ComposeRunner(settings.output_cap),
    }


async def _retention(app: web.Application) -> AsyncIterator[None]:
    app[metrics.RETENTION] = retention = Retention(app[SETTINGS], app[STORE], app[REGISTRY].checkouts)
    async for _ in _task(app, retention.run(), "retention"):
        yield


async def _leftovers(app: web.Application) -> AsyncIterator[None]:
    leftovers = Leftovers(lambda: app[SERVICE].registry.engines(), app[INSTANCE], app[STORE])
    async for _ in _task(app, leftovers.run(), "leftovers"):
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

    def __init__(self, settings: Settings, environment: Mapping[str, str], load: Load | None = None) -> None:
        """load: reads the configuration again, for a reload; None where there is none."""
        self._settings = settings
        self._environment = environment
        self._load = load
        self._app = build_app(settings, environment)
        self._runner = web.AppRunner(self._app, shutdown_timeout=_SHUTDOWN)
        self._given: list[socket.socket] = []
        self._listeners: list[Listener] = []
        self._stopped = asyncio.Event()
        self._hung_up = asyncio.Event()
        self.port = 0

    async def start(self, *, signals: bool = False) -> None:
        """Recover what was running, then listen. Raises StateError, ConfigError.

        signals: handle SIGTERM, SIGINT and SIGHUP from before systemd hears that the service is ready.
        """
        must_have_extensions()
        # systemd keeps them open over a restart, so no client is refused meanwhile
        self._given = systemd.sockets(self._environment)
        await asyncio.to_thread(must_have_lasting_databases, self._settings, self._environment)
        listener.must_have_tokens(self._given, self._settings.host, has_tokens=self._app[ACCESS].tokens is not None)
        await self._runner.setup()
        sockets = self._given or listener.bound(self._settings.host, self._settings.port)
        self.port = listener.port(sockets)
        self._listeners = [Listener(one, self._connection) for one in sockets]
        if signals:
            self._handle_signals()
        self._warn()
        _log.info(
            "serving",
            host=self._settings.host,
            port=self.port,
            enabled=self._settings.enabled,
            lets_in=self._token_summary(),
            connections=self._app[CONNECTIONS].limit,
        )
        systemd.notify(self._environment, f"READY=1\nSTATUS=Serving on port {self.port}")

    def _warn(self) -> None:
        if self._settings.allowed_hosts and self._app[ACCESS].tokens is None:
            _log.warning("hosts are allowed without tokens", hosts=self._settings.allowed_hosts)

    def _token_summary(self) -> str:
        known = self._app[ACCESS].tokens
        if known is None:
            return "every program of this host, since there are no tokens"
        return f"tokens of {known.source}: {', '.join(token.name for token in known.tokens) or 'none'}"

    def _connection(self) -> Connection:
        assert self._runner.server is not None, "connections are taken between setup and cleanup"
        return Connection(self._runner.server, self._app[CONNECTIONS])

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped.set)
        # in a terminal it means that the terminal was closed, and ends the process as it does any other
        if self._load is not None and not any(map(os.isatty, range(3))):
            loop.add_signal_handler(signal.SIGHUP, self._hung_up.set)

    async def wait(self) -> None:
        """Wait for SIGTERM or SIGINT; reload at SIGHUP. Raises the exception of a service-wide task that died."""
        self._handle_signals()
        broken = self._app[BROKEN]
        broken.add_done_callback(lambda _: self._stopped.set())
        async for _ in _task(self._app, self._reload_when_asked(), "reload"):
            await self._stopped.wait()
        if broken.done():
            broken.result()

    async def _reload_when_asked(self) -> None:
        while True:
            await self._hung_up.wait()
            self._hung_up.clear()
            began = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            systemd.notify(self._environment, f"RELOADING=1\nMONOTONIC_USEC={began}")
            status = f"Serving on port {self.port}"
            try:
                await self._reload()
            except GatewayError as error:
                _log.error("reload refused", error=str(error), kept="the configuration and the tokens from before")
                status += "; the last reload was refused, see the log"
            except Exception:  # noqa: BLE001, any bug: the service goes on as it was
                _log.exception("reload broke", kept="the configuration and the tokens from before")
                status += "; the last reload broke, see the log"
            systemd.notify(self._environment, f"READY=1\nSTATUS={status}")

    async def _reload(self) -> None:
        """Take up the configuration as it is now, or raise what a start with it would."""
        assert self._load is not None, "no signal asks for it"
        settings, environment = await asyncio.to_thread(self._load)
        fixed = [key for key in _FIXED if getattr(settings, key) != getattr(self._settings, key)]
        settings = settings.model_copy(update={key: getattr(self._settings, key) for key in _FIXED})
        await asyncio.to_thread(must_have_lasting_databases, settings, environment)
        known = await asyncio.to_thread(tokens.load, settings.tokens_file, environment)
        listener.must_have_tokens(self._given, settings.host, has_tokens=known is not None)
        before = _keys(self._settings, self._environment, self._app[ACCESS].tokens)
        changed = changed_keys(before, _keys(settings, environment, known))
        self._configure(settings, environment, known)
        _log.info("configuration reloaded", changed=changed, lets_in=self._token_summary())
        if fixed:
            _log.warning("settings need a restart", settings=fixed, kept="their values from before")
        if tokens.are_passed(known, environment):
            _log.warning("tokens need a restart", kept="those that systemd passed at the start")
        self._warn()

    def _configure(self, settings: Settings, environment: Mapping[str, str], known: Tokens | None) -> None:
        """Give all parts another configuration, without an await between; what may raise comes first."""
        service, access = self._app[SERVICE], self._app[ACCESS]
        made, notify_mask = receivers.make(settings, environment), variables.mask(settings, environment)
        registry = FabricRegistry(settings, environment, self._app[INSTANCE], service.registry)
        service.configure(settings, _runners(settings), registry)
        registry.checkouts.renew_mirrors()
        self._app[metrics.RETENTION].configure(settings, registry.checkouts)
        self._app[STORE].outbox.receivers = settings.notify
        self._app[metrics.COURIER].configure(made, settings.projects, notify_mask)
        access.configure(known, settings.allowed_hosts)
        access.rate_limit.configure(settings.trigger_rate, settings.trigger_burst)
        set_up_log(registry.mask)
        self._settings, self._environment = settings, environment

    async def close(self) -> None:
        """Refuse new jobs, stop listening and stop following the running jobs, which go on."""
        systemd.notify(self._environment, "STOPPING=1")
        if SERVICE in self._app:
            self._app[SERVICE].drain()
        with suppress(asyncio.CancelledError):
            # requests are finished before the clean-up, which stops reading from clients
            for one in self._listeners:
                one.close()
            await self._app[CONNECTIONS].drained(_DRAIN)
            await self._runner.cleanup()
        _log.info("stopped")


def _keys(settings: Settings, environment: Mapping[str, str], known: Tokens | None) -> dict[str, Any]:
    """All that is configured, by key."""
    named = {} if known is None else {token.name: token for token in known.tokens}
    return {**settings.model_dump(), "environment": environment, "tokens": named}
