"""What systemd and the service tell each other: sockets handed over, readiness, signs of life."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

from gateway.errors import ConfigError

_PATIENCE = 1.0  # seconds for a systemd that does not read just now
_FIRST = 3  # the descriptor of the first socket that is handed over


def notify(environment: Mapping[str, str], state: str) -> None:
    """Tell systemd, where it listens: `READY=1`, `STATUS=…`, `WATCHDOG=1`, `STOPPING=1` (sd_notify(3))."""
    address = environment.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.settimeout(_PATIENCE)
        there.connect(address)
        there.send(state.encode())


def sockets(environment: Mapping[str, str]) -> list[socket.socket]:
    """The listening sockets that this process was started with, which no step inherits (sd_listen_fds(3))."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return []
    handed = range(_FIRST, _FIRST + _number(environment, "LISTEN_FDS"))
    for descriptor in handed:
        os.set_inheritable(descriptor, False)
    return [socket.socket(fileno=descriptor) for descriptor in handed]


def watchdog(environment: Mapping[str, str]) -> float | None:
    """Seconds within which systemd wants a sign of life, if it does (sd_watchdog_enabled(3))."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return _number(environment, "WATCHDOG_USEC") / 1e6 or None


def _number(environment: Mapping[str, str], variable: str) -> int:
    given = environment.get(variable, "0")
    if not given.isdecimal():
        raise ConfigError(f"{variable}: expected a number, as systemd sets it; found {given!r}")
    return int(given)
