"""What those who run the service ask it."""

from __future__ import annotations

from dataclasses import asdict

from aiohttp import web

from gateway.jobs.service import Service


async def healthz(_: web.Request) -> web.Response:
    """The process is up and its loop turns."""
    return web.json_response({"status": "ok"})


def routes(service: Service) -> list[web.AbstractRouteDef]:
    """The routes for operations over a service."""

    async def readyz(_: web.Request) -> web.Response:
        """Whether a trigger would be taken and could run: 200, or 503 and what is in the way."""
        checks = asdict(await service.readiness())
        ready = not any(checks.values())
        return web.json_response(
            {"status": "ready" if ready else "not ready", **{name: why or "ok" for name, why in checks.items()}},
            status=200 if ready else 503,
        )

    return [web.get("/healthz", healthz), web.get("/readyz", readyz)]
