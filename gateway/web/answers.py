"""The headers of every answer, and the body of every refusal."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# An answer is data: a browser must not guess its type, run it, frame it, cache it, or send its address to others.
SECURITY_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
    }
)
SERVER = "pipeline-gateway"  # instead of aiohttp's header, which has the versions of Python and aiohttp

TRIGGER_PIPELINE = "/api/trigger"


def error_body(path: str, code: str, text: str, details: Mapping[str, object]) -> dict[str, Any]:
    """The body of a refusal. details: further fields, which the trigger pipeline API does not have."""
    if path == TRIGGER_PIPELINE or path.startswith(f"{TRIGGER_PIPELINE}/"):
        return {"success": False, "msg": text}
    return {"success": False, "code": code, "error": text, "output": text, **details}
