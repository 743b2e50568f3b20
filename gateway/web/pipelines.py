"""What can be triggered by name, for people, pages and tools."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gateway.jobs.requests import Offer
from gateway.jobs.service import Service
from gateway.settings.project import ParameterSettings
from gateway.web.records import whole_record

_OF_A_RUN = ("jobId", "status", "exitCode", "createdAt", "startedAt", "finishedAt", "durationSeconds")


def routes(service: Service) -> list[web.AbstractRouteDef]:
    """The routes over a service."""

    async def listed(_: web.Request) -> web.Response:
        return web.json_response({"pipelines": [await _pipeline(service, offer) for offer in service.offers()]})

    return [web.get("/api/v1/pipelines", listed)]


async def _pipeline(service: Service, offer: Offer) -> dict[str, Any]:
    last = await service.last(offer)
    record = None if last is None else whole_record(last)
    return {
        "name": offer.name,
        "projectId": offer.project,
        "fabricIds": list(offer.fabrics),
        "steps": list(offer.steps),
        "parameters": [_parameter(name, given) for name, given in offer.settings.parameters.items()],
        "lastRun": None if record is None else {field: record[field] for field in _OF_A_RUN},
    }


def _parameter(name: str, given: ParameterSettings) -> dict[str, Any]:
    limits = {"minimum": given.minimum, "maximum": given.maximum, "choices": given.choices}
    limited = {limit: value for limit, value in limits.items() if value is not None}
    return {"name": name, "type": given.type, "default": given.default, **limited}
