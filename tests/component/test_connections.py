"""Which requests are admitted while many connections are in use."""

from __future__ import annotations

import asyncio

from aiohttp import web
from pytest_aiohttp import AiohttpClient

from gateway.web.server.access import Access, RateLimit
from gateway.web.server.connections import Connections
from gateway.web.server.guard import guard
from gateway.web.server.traffic import Traffic
from tests.support.api import until

LIMIT = 20
WAITING, POSTED, REQUESTS = 16, 18, 19  # the most that wait for a change; plus those that may have a body; all


async def test_connections_are_reserved_for_requests_that_do_not_wait(
    aiohttp_client: AiohttpClient,
) -> None:
    """A few more are reserved for refusals."""
    connections, changed, inside = Connections(LIMIT), asyncio.Event(), 0

    async def handler(_: web.Request) -> web.Response:
        nonlocal inside
        inside += 1
        await changed.wait()
        return web.json_response({})

    app = web.Application(middlewares=[guard(Access(None, RateLimit(10, 50)), Traffic()), connections.middleware])
    app.router.add_route("*", "/", handler)
    client = await aiohttp_client(app)

    async def asked(path: str, method: str = "GET") -> tuple[int, bool]:
        async with client.request(method, path, json={} if method == "POST" else None) as response:
            return response.status, "Retry-After" in response.headers

    async def are_inside(number: int) -> bool:
        return inside == number

    waits = [asyncio.create_task(asked("/?wait=1")) for _ in range(WAITING)]
    assert await until(lambda: are_inside(WAITING), "those that wait")
    assert await asked("/?wait=1") == await asked("/?wait=1", "HEAD") == (503, True)
    posts = [asyncio.create_task(asked("/", "POST")) for _ in range(POSTED - WAITING)]
    assert await until(lambda: are_inside(POSTED), "those that may have a body")
    assert await asked("/", "POST") == (503, True)
    assert await asked("/?wait=1", "PUT") == (503, True)
    polls = [asyncio.create_task(asked("/")) for _ in range(REQUESTS - POSTED)]
    assert await until(lambda: are_inside(REQUESTS), "those that don't")
    assert await asked("/") == (503, True)
    changed.set()
    assert await asyncio.gather(*waits, *posts, *polls) == [(200, False)] * REQUESTS
    assert await asked("/?wait=1") == (200, False)
