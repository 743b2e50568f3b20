"""What a route says of itself, in a decorator of its handler: what it takes, answers and refuses with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel

from gateway.errors import (
    BadRequestError,
    ConflictError,
    DrainingError,
    EngineError,
    PausedError,
    PipelinesDisabledError,
    QueueFullError,
    RepositoryUnavailableError,
    RequestError,
    ReusedKeyError,
    StorageError,
    UnknownTargetError,
)

JSON = "application/json"

Handler = TypeVar("Handler", bound=Callable[[web.Request], Awaitable[web.StreamResponse]])


@dataclass(frozen=True, slots=True)
class Reply:
    """What an operation answers with one status. model: a model or a union of them, str for text, None for no body.

    media: its type. headers: names of texts.RESPONSE_HEADERS. events: models of the data of events, by name.
    """

    model: Any
    media: str = JSON
    headers: tuple[str, ...] = ()
    events: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    example: BaseModel | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A refusal of an error whose codes differ."""

    error: type[RequestError]
    code: str
    meaning: str


Refusals = tuple[type[RequestError] | Refused, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """What a route takes and answers. name: the operationId, from which generators of clients make names.

    headers: of the request, what each means. refusals: besides those of the guard, of `body` and of `query`.
    """

    name: str
    answers: Mapping[int, Reply]
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    refusals: Refusals = ()


# by the handler of the route
OPERATIONS: dict[object, Operation] = {}


def operation(
    name: str,
    answers: Mapping[int, Reply],
    *,
    body: type[BaseModel] | None = None,
    query: type[BaseModel] | None = None,
    headers: Mapping[str, str] = MappingProxyType({}),
    refusals: Refusals = (),
) -> Callable[[Handler], Handler]:
    """A decorator of the handler of a route that says what the route takes and answers; see Operation."""

    def described(handler: Handler) -> Handler:
        OPERATIONS[handler] = Operation(name, answers, body, query, headers, refusals)
        return handler

    return described


def codes(error: type[RequestError], **meanings: str) -> tuple[Refused, ...]:
    """The refusals of an error whose codes differ, by their codes."""
    return tuple(Refused(error, code, meaning) for code, meaning in meanings.items())


# What every route that makes a job takes and answers besides.
TRIGGER_HEADERS: Mapping[str, str] = MappingProxyType(
    {"Idempotency-Key": "Names the request, so that one that is sent again makes no second job."}
)
REPLAYED = "Idempotent-Replayed"
# What every route that makes a job may refuse with.
TRIGGER_REFUSALS: Refusals = (
    *codes(
        BadRequestError,
        unknown_process="The pipeline has no such model or step.",
        unknown_branch="The project's repository has no such branch.",
        unknown_version="The project's repository has no such version, or not on this branch.",
        no_repository="The project has no branches and versions.",
        invalid_idempotency_key="The Idempotency-Key is no key.",
    ),
    *codes(
        UnknownTargetError,
        unknown_fabric="There is no such fabric.",
        unknown_project="There is no such project, or not on this fabric.",
        unknown_pipeline="The project has no such pipeline.",
    ),
    PipelinesDisabledError,
    PausedError,
    ConflictError,
    ReusedKeyError,
    DrainingError,
    QueueFullError,
    EngineError,
    RepositoryUnavailableError,
    StorageError,
)
