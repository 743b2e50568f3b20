"""What those who run the service ask it."""

from __future__ import annotations

from aiohttp import web


async def healthz(_: web.Request) -> web.Response:
    """The process is up and its loop turns."""
    return web.json_response({"status": "ok"})


def routes() -> list[web.AbstractRouteDef]:
    """The routes for operations."""
    return [web.get("/healthz", healthz)]
