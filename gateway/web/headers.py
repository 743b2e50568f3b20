"""What every answer says, whoever gives it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# An answer is data: no browser should guess what it is, run it, frame it, keep it, or tell others where it came from.
SECURITY_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
    }
)
SERVER = "pipeline-gateway"  # and not which Python and which aiohttp this is
