"""The protocols of systemd: the sockets that it passes, readiness, and the watchdog."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

from gateway.errors import ConfigError

_TIMEOUT = 1.0  # seconds to wait where systemd does not read
_FIRST_SOCKET = 3  # the descriptor of the first socket that is passed


def notify(environment: Mapping[str, str], state: str) -> None:
    """Send a state to systemd, if it listens: `READY=1`, `STATUS=…`, `WATCHDOG=1`, `STOPPING=1` (sd_notify(3))."""
    address = environment.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.settimeout(_TIMEOUT)
        client.connect(address)
        client.send(state.encode())


def sockets(environment: Mapping[str, str]) -> list[socket.socket]:
    """The listening sockets that systemd passed to this process; steps don't inherit them (sd_listen_fds(3))."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return []
    passed = range(_FIRST_SOCKET, _FIRST_SOCKET + _number(environment, "LISTEN_FDS"))
    for descriptor in passed:
        os.set_inheritable(descriptor, False)
    return [socket.socket(fileno=descriptor) for descriptor in passed]


def watchdog(environment: Mapping[str, str]) -> float | None:
    """The seconds within which systemd wants `WATCHDOG=1`; None where it wants none (sd_watchdog_enabled(3))."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return _number(environment, "WATCHDOG_USEC") / 1e6 or None


def _number(environment: Mapping[str, str], variable: str) -> int:
    given = environment.get(variable, "0")
    if not given.isdecimal():
        raise ConfigError(f"{variable}: expected a number, as systemd sets it; found {given!r}")
    return int(given)
