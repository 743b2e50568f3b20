"""The client of the command line, where a gateway is busy or is none."""

from __future__ import annotations

import json

import aiohttp
import pytest
from aiohttp import web
from pytest_aiohttp import AiohttpServer

from gateway.client import JOBS, Client, RefusedError, UnreachableError


class Busy:
    """A server that answers triggers with these statuses, one after the other, and says when to come again."""

    def __init__(self, *statuses: int, after: str = "0") -> None:
        self._statuses = list(statuses)
        self._after = after
        self.app = web.Application()
        self.app.router.add_post(JOBS, self._answer)

    async def _answer(self, _: web.Request) -> web.Response:
        status = self._statuses.pop(0)
        body = {"jobId": "load-1"} if status == 202 else {"error": f"busy: {len(self._statuses)}"}
        return web.json_response(body, status=status, headers={"Retry-After": self._after})


async def triggered(aiohttp_server: AiohttpServer, busy: Busy) -> str:
    server = await aiohttp_server(busy.app)
    async with aiohttp.ClientSession() as session:
        return str((await Client(session, str(server.make_url("/"))).trigger({"pipeline": "load"}))["jobId"])


@pytest.mark.parametrize("status", [429, 503])
async def test_a_trigger_that_a_busy_gateway_refuses_is_sent_again(aiohttp_server: AiohttpServer, status: int) -> None:
    assert await triggered(aiohttp_server, Busy(status, status, 202)) == "load-1"


@pytest.mark.parametrize("busy", [Busy(503, 202, after="60"), Busy(409, 202), Busy(503, 202, after="soon")])
async def test_a_refusal_that_half_a_minute_does_not_mend_is_told(aiohttp_server: AiohttpServer, busy: Busy) -> None:
    with pytest.raises(RefusedError, match="busy: 1"):
        await triggered(aiohttp_server, busy)


async def test_a_trigger_whose_answer_was_lost_is_sent_again_with_its_key(aiohttp_server: AiohttpServer) -> None:
    """And a trigger of its own has a key of its own."""
    keys: list[str] = []

    async def cut_off(request: web.Request) -> web.Response:
        keys.append(request.headers["Idempotency-Key"])
        if len(keys) == 1:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"jobId": "load-1"}, status=202)

    app = web.Application()
    app.router.add_post(JOBS, cut_off)
    server = await aiohttp_server(app)
    async with aiohttp.ClientSession() as session:
        client = Client(session, str(server.make_url("/")))
        assert (await client.trigger({"pipeline": "load"}))["jobId"] == "load-1"
        await client.trigger({"pipeline": "load"})
    assert keys[0] == keys[1] != keys[2]


async def test_a_server_that_is_no_gateway_is_named(aiohttp_server: AiohttpServer) -> None:
    server = await aiohttp_server(web.Application())
    async with aiohttp.ClientSession() as session:
        with pytest.raises(RefusedError, match=f"{server.port}.* answers 404, and is perhaps no pipeline gateway"):
            await Client(session, str(server.make_url("/"))).pipelines()


async def test_an_address_where_nothing_listens_is_named(unused_tcp_port: int) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(UnreachableError, match=f"localhost:{unused_tcp_port}"):
            await Client(session, f"http://localhost:{unused_tcp_port}").pipelines()


async def test_a_stream_that_a_stopping_gateway_ends_too_early_is_continued(aiohttp_server: AiohttpServer) -> None:
    """The job has ended, and the rest of its output was not sent before the gateway stopped."""
    state = {"status": "completed", "outputBytes": 8, "outputDroppedBytes": 0}
    rest = {"offset": 4, "next": 8, "text": "two\n", "dropped": 0}
    parts = [
        f"id: 4\nevent: log\ndata: {json.dumps(rest | {'offset': 0, 'next': 4, 'text': 'one'})}\n\n",
        f"id: 8\nevent: log\ndata: {json.dumps(rest)}\n\n",
    ]
    asked: list[str | None] = []

    async def events(request: web.Request) -> web.Response:
        asked.append(request.headers.get("Last-Event-ID"))
        return web.Response(text=f"event: state\ndata: {json.dumps(state)}\n\n{parts[len(asked) - 1]}")

    app = web.Application()
    app.router.add_get(f"{JOBS}/load-1/events", events)
    server = await aiohttp_server(app)
    async with aiohttp.ClientSession() as session:
        client = Client(session, str(server.make_url("/")))
        texts = [event.data["text"] async for event in client.events("load-1", {}) if event.name == "log"]
    assert (texts, asked) == (["one", "two\n"], [None, "4"])
