"""One tree of errors, and one shape of their answers."""

from __future__ import annotations

import importlib
import re
from collections.abc import Awaitable, Callable, Iterator

import pytest
from aiohttp import web
from pytest_aiohttp import AiohttpClient

from gateway import errors
from gateway.errors import (
    BadRequestError,
    ConflictError,
    GatewayError,
    PipelinesDisabledError,
    RequestError,
    RetryRefusedError,
    TooManyTriggersError,
    UnknownTargetError,
)
from gateway.web.server.access import Access, RateLimit
from gateway.web.server.guard import guard
from gateway.web.server.traffic import Traffic
from tests.support.source import modules

CODE = re.compile(r"[a-z]+(_[a-z]+)*")
HOLDER = {"jobId": "full-1-abc", "since": "2026-01-31T06:00:00+00:00", "step": "build"}
STATUSES = {400, 401, 403, 404, 405, 408, 409, 413, 415, 421, 422, 429, 503, 507}


def below(root: type[GatewayError]) -> Iterator[type[GatewayError]]:
    for child in root.__subclasses__():
        yield child
        yield from below(child)


for module in modules():
    if module != "gateway.__main__":
        importlib.import_module(module)

REFUSALS = sorted((error for error in below(RequestError) if issubclass(error, RequestError)), key=lambda e: e.__name__)


def made(error: type[RequestError]) -> RequestError:
    if error is PipelinesDisabledError:
        return PipelinesDisabledError()
    if error is BadRequestError:
        return BadRequestError("unknown_pipeline", "What, why.")
    if error is UnknownTargetError:
        return UnknownTargetError("unknown_fabric", "What, why.")
    if error is ConflictError:
        return ConflictError("What, why.", conflict=HOLDER, retry_after=10)
    if error is RetryRefusedError:
        return RetryRefusedError("nothing_to_retry", "What, why.")
    if error is TooManyTriggersError:
        return TooManyTriggersError("What, why.", retry_after=1)
    return error("What, why.")


def test_every_request_error_is_a_gateway_error_in_the_same_module() -> None:
    assert [error for error in REFUSALS if error.__module__ != errors.__name__] == []
    assert all(issubclass(error, GatewayError) for error in REFUSALS)


@pytest.mark.parametrize("error", REFUSALS)
def test_every_request_error_has_a_documented_status_and_a_code(error: type[RequestError]) -> None:
    assert error.status in STATUSES
    assert CODE.fullmatch(made(error).code)
    assert error.__doc__


def test_no_two_request_errors_have_the_same_code() -> None:
    codes = [made(error).code for error in REFUSALS]
    assert sorted(codes) == sorted(set(codes))


def test_errors_that_prevent_the_start_have_an_exit_code() -> None:
    assert (errors.ConfigError.exit_code, errors.StateError.exit_code) == (78, 73)


def answering(error: BaseException) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(_: web.Request) -> web.Response:
        raise error

    return handler


async def asked(aiohttp_client: AiohttpClient, error: BaseException) -> tuple[int, dict[str, object], dict[str, str]]:
    app = web.Application(middlewares=[guard(Access(None, RateLimit(10, 50)), Traffic())])
    app.router.add_get("/", answering(error))
    client = await aiohttp_client(app)
    async with client.get("/") as response:
        assert response.content_type == "application/json"
        return response.status, await response.json(), dict(response.headers)


@pytest.mark.parametrize("error", REFUSALS)
async def test_every_request_error_answers_in_the_common_shape(
    aiohttp_client: AiohttpClient, error: type[RequestError]
) -> None:
    refusal = made(error)
    status, answer, headers = await asked(aiohttp_client, refusal)
    text = str(refusal)
    assert text
    assert status == refusal.status
    shape: dict[str, object] = {"success": False, "code": refusal.code, "error": text, "output": text}
    if error is ConflictError:
        shape["conflict"] = HOLDER
    assert answer == shape
    assert "jobId" not in answer  # a script would poll another caller's job as its own
    assert refusal.headers.items() <= headers.items()
    # when a pause ends, or a job can be retried, is not known
    knows_when = status in (429, 503, 507) or error is ConflictError
    assert ("Retry-After" in headers) == knows_when


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (web.HTTPNotFound(), 404, "unknown_path"),
        (web.HTTPMethodNotAllowed("GET", ["POST"]), 405, "method_not_allowed"),
        (web.HTTPRequestEntityTooLarge(1, 2), 413, "body_too_large"),
        (web.HTTPBadRequest(), 400, "bad_request"),
    ],
)
async def test_aiohttps_own_refusals_answer_in_the_common_shape(
    aiohttp_client: AiohttpClient, error: web.HTTPException, status: int, code: str
) -> None:
    got, answer, _ = await asked(aiohttp_client, error)
    assert (got, answer["success"], answer["code"]) == (status, False, code)
    assert answer["error"] == answer["output"] != ""


async def test_a_bug_answers_in_the_common_shape_with_a_request_id(
    aiohttp_client: AiohttpClient, capfd: pytest.CaptureFixture[str]
) -> None:
    """The answer reveals no internals."""
    status, answer, _ = await asked(aiohttp_client, RuntimeError("/secret/path and the inside"))
    assert (status, answer["success"], answer["code"]) == (500, False, "internal")
    assert answer["error"] == answer["output"]
    found = re.search(r"request id ([0-9a-f]{12})", str(answer["error"]))
    assert found is not None
    assert "secret" not in str(answer)
    logged = "".join(capfd.readouterr())
    assert found[1] in logged
    assert "/secret/path and the inside" in logged
