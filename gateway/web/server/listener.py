"""The sockets that the service listens on: those of systemd, or its own."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Callable

import structlog

from gateway.errors import ConfigError, StateError

LOCALHOST = "localhost"  # stands for every loopback address of the host

_BACKLOG = 1024  # connections that wait in the kernel, while the service starts or is out of descriptors
_AT_ONCE = 16  # connections that are accepted before the event loop goes on
_PAUSE = 1.0  # seconds until the next attempt after a failed accept
_PORTS = 10  # free ports that are tried for port 0

_log = structlog.get_logger()


class Listener:
    """Accepts the connections of a listening socket.

    asyncio's own server, without free descriptors, logs once per connection in its backlog, and it accepts as many
    connections before the service can count them.
    """

    def __init__(self, listening: socket.socket, factory: Callable[[], asyncio.Protocol]) -> None:
        self._socket = listening
        self._factory = factory
        self._loop = asyncio.get_running_loop()
        self._paused: asyncio.TimerHandle | None = None
        self._connecting: set[asyncio.Task[object]] = set()
        listening.setblocking(False)
        listening.listen(_BACKLOG)
        self._resume()

    def close(self) -> None:
        """Accept no more."""
        if self._paused is not None:
            self._paused.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _resume(self) -> None:
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no free descriptor or memory, which may pass
                _log.warning("no connection can be taken", error=error.strerror, again_in=_PAUSE)
                self._loop.remove_reader(self._socket)
                self._paused = self._loop.call_later(_PAUSE, self._resume)
                return
            task: asyncio.Task[object] = self._loop.create_task(
                self._loop.connect_accepted_socket(self._factory, connection), name="connection"
            )
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)


def must_have_tokens(given: list[socket.socket], host: str, *, has_tokens: bool) -> None:
    """Refuse addresses that other hosts reach without tokens: any client could run pipelines. Raises ConfigError.

    given: systemd's sockets, which `host` has no part in.
    """
    address = _outside_address(given, host)
    if address is not None and not has_tokens:
        raise ConfigError(
            f"Other hosts may reach {address}, but there are no tokens: make one with `pipeline-gateway token "
            "create` and set `tokens_file`; or serve a loopback address such as 127.0.0.1 (HOST, the socket unit)."
        )


def _outside_address(given: list[socket.socket], host: str) -> str | None:
    """An address that other hosts may reach: among systemd's sockets if there are any, else `host`; None for none."""
    addresses = [one.getsockname()[0] for one in given if one.family is not socket.AF_UNIX] if given else [host]
    outside = (address for address in addresses if address != LOCALHOST and not _is_loopback(address))
    return next(outside, None)


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def port(sockets: list[socket.socket]) -> int:
    """The port of the sockets, 0 for Unix sockets only."""
    return next((one.getsockname()[1] for one in sockets if one.family is not socket.AF_UNIX), 0)


def bound(host: str, port: int) -> list[socket.socket]:
    """Sockets on every address of a host, all on one port; port 0 is any free one. Raises StateError."""
    hosts = ("127.0.0.1", "::1") if host == LOCALHOST else (host,)
    for attempt in range(1, _PORTS + 1):
        try:
            return _bound(hosts, port)
        except OSError as error:
            if port or attempt == _PORTS:
                why = f"Can't listen on port {port}: {error.strerror}; free it, or set HOST and PORT."
                raise StateError(why) from None
    raise AssertionError  # the last attempt raises


def _bound(hosts: tuple[str, ...], port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for host in hosts:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            try:
                sockets.append(socket.create_server((host, port), family=family))
            except OSError as error:
                if host != "::1" or error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):  # a host without IPv6
                    raise
            else:
                port = sockets[-1].getsockname()[1]
    except OSError:
        for one in sockets:
            one.close()
        raise
    return sockets
