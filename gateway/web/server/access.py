"""Access to the API: tokens, their scopes, and the rate of triggers."""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from datetime import UTC, datetime

from aiohttp import web

from gateway.errors import InsufficientScopeError, TooManyTriggersError, UnauthorizedError
from gateway.model.job import Caller
from gateway.settings.tokens import Scope, Token, Tokens
from gateway.web import docs
from gateway.web.page import files
from gateway.web.server.links import QUERY, Links

CALLER = web.RequestKey("caller", Caller)

# Paths that need no token, compared with the path as it is sent. Any other path needs one, also one that is not served.
PUBLIC = frozenset({"/healthz", "/readyz", *docs.PATHS, *files.PATHS})
_LINK = "/api/v1/jobs/{id}/artifacts/{step}/{name}/link"
# Routes that are asked with POST and only read.
_READING = frozenset({_LINK})
# Routes without a rate limit: a person must be able to cancel, and to forbid, what a script keeps starting.
_UNLIMITED = frozenset({"/api/v1/jobs/{id}/cancel", "/api/v1/pipelines/{project}/{name}/paused", *_READING})
_READS = ("GET", "HEAD")
_SCHEME = "bearer "


def is_limited(method: str, route: str) -> bool:
    """Whether the rate of triggers holds for a method at a route."""
    return method not in _READS and route not in _UNLIMITED


class Access:
    """Authenticates every request.

    tokens: None where every client that reaches the port may do everything. hosts: names that a Host header may have
    besides IP literals.
    """

    def __init__(
        self,
        tokens: Tokens | None,
        rate_limit: RateLimit,
        allowed_hosts: Collection[str] = (),
        links: Links | None = None,
    ) -> None:
        """links: open the paths for which they were made; None where there are none."""
        self.rate_limit = rate_limit
        self._links = links
        self.configure(tokens, allowed_hosts)

    def configure(self, tokens: Tokens | None, allowed_hosts: Collection[str]) -> None:
        """Let other callers in from now on."""
        self.tokens = tokens
        self.hosts = frozenset({"localhost", *(name.lower() for name in allowed_hosts)})

    def authenticate(self, request: web.Request) -> Caller:
        """The caller of a request. Raises UnauthorizedError, InsufficientScopeError."""
        if self.tokens is None or _is_public(request) or self._is_linked(request):
            return Caller(None, _address(request))
        token = _token(request, self.tokens)
        needed = _needed_scope(request)
        if not token.scope.includes(needed):
            raise InsufficientScopeError(
                f"The token {token.name} has the scope {token.scope}, but {request.method[:20]} at "
                f"{request.path[:200]!a} needs {needed}: use another token."
            )
        return Caller(token.name, _address(request))

    def _is_linked(self, request: web.Request) -> bool:
        """Whether a link opens the path of a request; no path needs a token and a link."""
        links = request.query.getall(QUERY, [])
        return (
            self._links is not None
            and request.method in _READS
            and len(links) == 1
            and self._links.open(request.rel_url.raw_path, links[0])
        )

    def limit_rate(self, request: web.Request, caller: Caller) -> None:
        """Count a request that may start something against its caller's rate. Raises TooManyTriggersError."""
        route = _route(request)
        if route is None or not is_limited(request.method, route):
            return
        wait = self.rate_limit.take(caller.token)
        if wait > 0:
            whose = "without a token" if caller.token is None else f"of the token {caller.token}"
            raise TooManyTriggersError(
                f"The triggers {whose} come too fast: go on in {math.ceil(wait)} s, or raise `trigger_rate`.",
                retry_after=math.ceil(wait),
            )


class RateLimit:
    """A token bucket per caller: `rate` requests a second, `burst` at once."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._full_at: dict[str | None, float] = {}  # by caller, on the monotonic clock

    def configure(self, rate: float, burst: int) -> None:
        """Allow other rates from now on. The requests that were counted stay, so no caller gets another burst."""
        now = time.monotonic()
        self._full_at = {name: now + (at - now) * self._rate / rate for name, at in self._full_at.items() if at > now}
        self._rate, self._burst = rate, burst

    def take(self, name: str | None) -> float:
        """Count one request. Returns 0, or the seconds until the next one is allowed; then it is not counted."""
        now = time.monotonic()
        full_at = max(now, self._full_at.get(name, now)) + 1 / self._rate
        wait = full_at - now - self._burst / self._rate
        if wait > 1e-9:
            return wait
        self._full_at[name] = full_at
        return 0.0


def _address(request: web.Request) -> str | None:
    return request.remote or None  # a Unix socket has none


def _is_public(request: web.Request) -> bool:
    return request.method in _READS and request.rel_url.raw_path in PUBLIC


def _route(request: web.Request) -> str | None:
    """The path of a request with the names of its variable parts; None for one that is not served."""
    resource = request.match_info.route.resource
    return None if resource is None else resource.canonical


def _needed_scope(request: web.Request) -> Scope:
    if request.method in _READS:
        return Scope.READ
    if request.method == "POST":
        return Scope.READ if _route(request) in _READING else Scope.RUN
    return Scope.ADMIN


def _token(request: web.Request, tokens: Tokens) -> Token:
    """The valid token in one of a request's headers. Raises UnauthorizedError."""
    bearers = [value for value in request.headers.getall("Authorization", []) if value.lower().startswith(_SCHEME)]
    given = [*(value[len(_SCHEME) :].strip() for value in bearers), *request.headers.getall("X-AUTH-TOKEN", [])]
    now = datetime.now(UTC)
    for text in given:
        token = tokens.find(text, now)
        if token is not None:
            return token
    if QUERY in request.query:
        raise UnauthorizedError("The link is not good: links open one artifact for a minute; make another one.")
    if given:
        raise UnauthorizedError("The token is not good: it is not known here, or it has expired or was revoked.")
    raise UnauthorizedError(
        "A token is needed: send it as `Authorization: Bearer TOKEN` or `X-AUTH-TOKEN: TOKEN`; "
        "`pipeline-gateway token create` makes one."
    )
