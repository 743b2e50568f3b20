"""Links that open one path for a minute without a token, for browsers, which send none when they follow a link."""

from __future__ import annotations

import hmac
import secrets
import time

QUERY = "link"
LIFETIME = 60.0  # seconds


class Links:
    """Makes and checks links. They are good in this process only, and by the monotonic clock."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def query(self, path: str) -> str:
        """The query with which this path is open from now on. path: as it is sent."""
        until = f"{time.monotonic() + LIFETIME:.3f}"
        return f"{QUERY}={until}-{self._signature(path, until)}"

    def open(self, path: str, link: str) -> bool:
        """Whether the value of a query opens this path now."""
        until, _, signature = link.partition("-")
        good = hmac.compare_digest(signature.encode(errors="replace"), self._signature(path, until).encode())
        return good and time.monotonic() < float(until)

    def _signature(self, path: str, until: str) -> str:
        return hmac.digest(self._key, f"{until} {path}".encode(errors="replace"), "sha256").hex()
