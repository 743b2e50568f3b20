"""Counts requests and refusals, for the metrics."""

from __future__ import annotations

from collections import Counter

from aiohttp import web

from gateway.errors import RequestError

_OTHER = "other"  # for what no route is there; a path that a client sent is never a label


class Traffic:
    """What was answered since the start. requests: by method, route and class of status. refusals: by code."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, str]] = Counter()
        # from 0 on, since a counter that begins with 1 shows no increase
        self.refusals = Counter({error.code: 0 for error in RequestError.__subclasses__() if hasattr(error, "code")})

    def answered(self, request: web.Request, status: int) -> None:
        """Count a request."""
        route = request.match_info.route
        method, path = (_OTHER, _OTHER) if route.resource is None else (route.method, route.resource.canonical)
        self.requests[method, path, f"{status // 100}xx"] += 1

    def refused(self, code: str) -> None:
        """Count a refusal. Codes are constants of the code, so there are few."""
        self.refusals[code] += 1
