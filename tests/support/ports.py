"""Ports for servers that tests stop and start again."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

_RANGE = range(20_000, 30_000)  # below those that Linux gives to sockets which name none


def free_port() -> int:
    """A port that is free on loopback. No socket that names none gets it while its server is stopped."""
    while True:
        port = random.choice(_RANGE)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
