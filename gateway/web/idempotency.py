"""Requests that make one job however often they are sent: those with the header Idempotency-Key."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

from aiohttp import web
from pydantic import BaseModel

from gateway.errors import AnsweredError, BadRequestError
from gateway.jobs.execution import JobSnapshot
from gateway.jobs.service import Once
from gateway.model.job import Job
from gateway.model.request import KeptAnswer, RequestKey
from gateway.web import SERVICE, body
from gateway.web.openapi.operation import REPLAYED
from gateway.web.server.access import CALLER

HEADER = "Idempotency-Key"
LOCKS = web.AppKey("idempotency locks", WeakValueDictionary[RequestKey, asyncio.Lock])
_KEY = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")  # what an HTTP header carries unchanged


async def answer_once(
    request: web.Request,
    given: BaseModel,
    submit: Callable[[Once | None], Awaitable[Job]],
    answer: Callable[[JobSnapshot], web.Response],
) -> web.Response:
    """The answer to a request that makes a job; where it was answered before, the same answer, and no other job.

    given: its body. submit: makes the job, with what it is told here. answer: that of an accepted job.
    Raises BadRequestError, ReusedKeyError, and what `submit` raises.
    """
    service, key = request.app[SERVICE], _key(request, given)
    if key is None:
        return answer(await service.accepted(await submit(None)))
    # Of requests that come at once, the first one plans and the others wait for its answer.
    lock = request.app[LOCKS].setdefault(key, asyncio.Lock())
    async with lock:
        kept, is_first = await service.answer(key), False
        if kept is None:
            try:
                await submit(Once(key, lambda snapshot: _kept(answer(snapshot))))
                is_first = True
            except AnsweredError:
                pass
            kept = await service.answer(key)
    assert kept is not None, "it was just kept"
    headers = {} if kept.location is None else {"Location": kept.location}
    if not is_first:
        headers[REPLAYED] = "true"
    return web.Response(text=kept.body, status=kept.status, headers=headers, content_type="application/json")


def _key(request: web.Request, given: BaseModel) -> RequestKey | None:
    """The key of a request. Raises BadRequestError."""
    keys = request.headers.getall(HEADER, [])
    if not keys:
        return None
    if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
        raise BadRequestError(
            "invalid_idempotency_key",
            f"The header {HEADER} is {', '.join(keys)[:100]!a}: it must be given once and have 1 to 255 printable "
            f"ASCII characters, such as {HEADER}: 6f1c2a9e-7d53-4b0e-9f4e-1d2c3b4a5f60",
        )
    return RequestKey(request.path, request[CALLER].token or "", keys[0], _asked(given))


def _asked(given: BaseModel) -> str:
    """A hash of what a body asks for. Raises BadRequestError.

    Not of its bytes, because a client may write the same fields in another order when it sends them again.
    """
    fields = {name: value for name, value in given if value is not None}
    try:
        text = json.dumps(fields, sort_keys=True)
    except RecursionError:
        raise body.too_deep() from None
    return hashlib.sha256(text.encode()).hexdigest()


def _kept(response: web.Response) -> KeptAnswer:
    assert response.text is not None, "it is JSON"
    return KeptAnswer(response.status, response.text, response.headers.get("Location"))
