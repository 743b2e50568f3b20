"""What systemd, a monitor or a load balancer asks the service."""

from __future__ import annotations

from dataclasses import asdict

from aiohttp import web

from gateway.web import SERVICE
from gateway.web.answers import json_answer


async def healthz(_: web.Request) -> web.Response:
    """The process is up and its event loop turns."""
    return json_answer({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """Whether a trigger would be taken and could run: 200, or 503 and what is in the way."""
    checks = asdict(await request.app[SERVICE].readiness())
    ready = not any(checks.values())
    return json_answer(
        {"status": "ready" if ready else "not ready", **{name: why or "ok" for name, why in checks.items()}},
        status=200 if ready else 503,
    )


ROUTES = (web.get("/healthz", healthz), web.get("/readyz", readyz))
