"""The outermost middleware: checks every request, and gives every error its shape."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Collection
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.errors import (
    BadRequestError,
    BodyTooLargeError,
    ForeignOriginError,
    MethodNotAllowedError,
    MisdirectedError,
    RequestError,
    UnknownPathError,
    UnsupportedTypeError,
)
from gateway.web import answers, docs
from gateway.web.answers import SECURITY_HEADERS, SERVER, json_answer
from gateway.web.server.access import CALLER, Access
from gateway.web.server.traffic import Traffic

BODY_LIMIT = 2**20

# What pages of other sites may link to.
_LINKED = frozenset({"/", *docs.PAGE_PATHS})
_REQUEST_ID = web.RequestKey("request_id", str)
# statuses of refusals that are logged, since an attacker may cause them
_SUSPECT = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.MISDIRECTED_REQUEST, HTTPStatus.TOO_MANY_REQUESTS)

_log = structlog.get_logger()


def guard(access: Access, traffic: Traffic) -> Middleware:
    """A middleware that checks every request, also one of an unknown path, and turns every error into an answer."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        request_id = request[_REQUEST_ID] = secrets.token_hex(6)
        with structlog.contextvars.bound_contextvars(request=request_id):
            answer: web.StreamResponse
            try:
                _check_host(request, access.hosts)
                _check_origin(request)
                caller = request[CALLER] = access.authenticate(request)
                _check_type(request)
                access.limit_rate(request, caller)
                answer = await handler(request)
            except (RequestError, web.HTTPException) as error:
                refusal = error if isinstance(error, RequestError) else _request_error(request, error)
                traffic.refused(refusal.code)
                answer = _refused(request, refusal)
            except Exception as error:  # noqa: BLE001, any bug: its traceback goes to the log and not to the client
                answer = _unexpected(request, error)
            traffic.answered(request, answer.status)
            return answer

    return middleware


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers that every answer has. A handler of aiohttp's signal on_response_prepare."""
    response.headers["Server"] = SERVER
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    if _REQUEST_ID in request:
        response.headers["X-Request-Id"] = request[_REQUEST_ID]


def _check_host(request: web.Request, names: Collection[str]) -> None:
    """Serve known names and plain addresses only, since a rebinding attack needs a name of its own."""
    hosts = request.headers.getall("Host", [])
    if len(hosts) != 1 or not (_is_address(_name(hosts[0])) or _name(hosts[0]) in names):
        raise MisdirectedError(
            f"The Host {', '.join(hosts)[:100]!a} is not served here: use localhost or an IP address, "
            "or add the name to `allowed_hosts`."
        )


def _name(host: str) -> str:
    name, _, port = host.rpartition(":")
    return (name if name and port.isdigit() else host).lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return "%" not in name  # a zone after % can be any text


def _check_origin(request: web.Request) -> None:
    """Refuse what a page of another site sends, by the browser's headers; only links to the gateway's page pass."""
    for site in request.headers.getall("Sec-Fetch-Site", []):
        if site not in ("none", "same-origin") and not _is_link_to_the_page(request):
            raise ForeignOriginError(f"The request comes from a page of another site (Sec-Fetch-Site: {site[:50]!a}).")
    for origin in request.headers.getall("Origin", []):
        # the scheme is not compared: behind a proxy the page has https and this process http
        scheme, _, host = origin.partition("://")
        if scheme not in ("http", "https") or host.lower() != request.headers["Host"].lower():
            raise ForeignOriginError(f"The request comes from a page of another origin ({origin[:100]!a}).")


def _is_link_to_the_page(request: web.Request) -> bool:
    how = (request.headers.get("Sec-Fetch-Mode"), request.headers.get("Sec-Fetch-Dest"))
    return request.method == "GET" and request.rel_url.raw_path in _LINKED and how == ("navigate", "document")


def _check_type(request: web.Request) -> None:
    """Take JSON only: without a preflight, a page of another site can send any other type."""
    if "Content-Encoding" in request.headers:
        raise UnsupportedTypeError("The body is compressed: send it as it is, without Content-Encoding.")
    if request.can_read_body and request.content_type != "application/json":
        given = request.content_type[:100]
        raise UnsupportedTypeError(f"The body's type is {given!a}: send it with Content-Type: application/json.")


def _request_error(request: web.Request, error: web.HTTPException) -> RequestError:
    match error.status:
        case HTTPStatus.NOT_FOUND:
            return UnknownPathError(f"Nothing is served at {request.path[:200]!a}.")
        case HTTPStatus.METHOD_NOT_ALLOWED:
            refused = MethodNotAllowedError(f"{request.method[:20]} is not allowed at {request.path[:200]!a}.")
            refused.headers = {"Allow": error.headers.get("Allow", "")}
            return refused
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return BodyTooLargeError(f"The body is over its limit of {BODY_LIMIT} bytes.")
        case _:
            return BadRequestError("bad_request", f"The request can't be read: {error.reason}.")


def _refused(request: web.Request, error: RequestError) -> web.Response:
    if error.status in _SUSPECT:
        _log.warning(
            "request refused", code=error.code, method=request.method, path=request.path[:200], address=request.remote
        )
    return json_answer(
        answers.error_body(request.path, error.code, str(error), error.details),
        status=error.status,
        headers=error.headers,
    )


def _unexpected(request: web.Request, error: Exception) -> web.Response:
    _log.error("request broke", method=request.method, path=request.path[:200], exc_info=error)
    text = f"The gateway made a mistake; its log tells more under request id {request[_REQUEST_ID]}."
    return json_answer(answers.error_body(request.path, "internal", text, {}), status=500)
