"""What every answer has: its headers, and the one shape that an API gives its refusals."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

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
TRIGGER_PIPELINE = "/api/trigger"


def error_body(path: str, code: str, text: str, details: Mapping[str, object]) -> dict[str, Any]:
    """The body of a refusal. details: what else the data-analytics and the jobs API tell."""
    if path == TRIGGER_PIPELINE or path.startswith(f"{TRIGGER_PIPELINE}/"):
        return {"success": False, "msg": text}
    return {"success": False, "code": code, "error": text, "output": text, **details}
