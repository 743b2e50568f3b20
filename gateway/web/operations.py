"""What systemd, a monitor or a load balancer asks the service."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from aiohttp import web

from gateway.web import SERVICE
from gateway.web.answers import Answer, json_answer
from gateway.web.openapi.operation import Reply, operation


class Health(Answer):
    """The process is up."""

    status: Literal["ok"]


class ReadinessAnswer(Answer):
    """Whether a trigger would be taken and could run. Each check is `ok`, or a sentence about what is in the way."""

    status: Literal["ready", "not ready"]
    triggers: str
    recovery: str
    disk: str
    database: str
    programs: str


@operation("getHealth", {200: Reply(Health)})
async def healthz(_: web.Request) -> web.Response:
    """The process is up and its event loop turns."""
    return json_answer(Health(status="ok"))


@operation("getReadiness", {200: Reply(ReadinessAnswer), 503: Reply(ReadinessAnswer)})
async def readyz(request: web.Request) -> web.Response:
    """Whether a trigger would be taken and could run: 200, or 503 and what is in the way."""
    checks = asdict(await request.app[SERVICE].readiness())
    ready = not any(checks.values())
    answer = ReadinessAnswer(
        status="ready" if ready else "not ready", **{name: why or "ok" for name, why in checks.items()}
    )
    return json_answer(answer, status=200 if ready else 503)


ROUTES = (web.get("/healthz", healthz), web.get("/readyz", readyz))
