"""The headers of every answer, and the body of every refusal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from gateway.web import PUBLIC_URL

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


def json_text(content: BaseModel | Mapping[str, object]) -> str:
    """An answer as JSON. All of it is ASCII, because names of files in an error may be no valid Unicode."""
    return json.dumps(content.model_dump(mode="json") if isinstance(content, BaseModel) else content)


def json_answer(
    content: BaseModel | Mapping[str, object], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A JSON answer. It ends with a line end, so that a shell's prompt does not stand behind it."""
    text = f"{json_text(content)}\n"
    return web.Response(text=text, status=status, headers=headers, content_type="application/json")


def base_url(request: web.Request) -> str:
    """What the URLs in an answer begin with."""
    return request.app[PUBLIC_URL] or f"{request.scheme}://{request.host}"


def error_body(path: str, code: str, text: str, details: Mapping[str, object]) -> dict[str, Any]:
    """The body of a refusal. details: further fields, which the trigger pipeline API does not have."""
    if path == TRIGGER_PIPELINE or path.startswith(f"{TRIGGER_PIPELINE}/"):
        return {"success": False, "msg": text}
    return {"success": False, "code": code, "error": text, "output": text, **details}
