"""Reads the body and the query of a request, and says in one sentence what is wrong with them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from gateway.errors import BadRequestError, SlowBodyError
from gateway.model.request import OnConflict
from gateway.settings import expected
from gateway.web import SERVICE

_SECONDS = 10.0
_MAX_SIZE = 64 * 1024  # bytes; the parameters of a pipeline have a few thousand at most


def _text(given: Any) -> Any:
    return str(given) if type(given) is int and abs(given) < 2**63 else given


Words = Annotated[str, StringConstraints(min_length=1)]
# of a project or fabric; a number is taken too
Id = Annotated[Words, BeforeValidator(_text, json_schema_input_type=Words | int), Field(examples=["1"])]
Parameters = Annotated[dict[str, Any], Field(examples=[{"since": "2026-01-31"}])]
Branch = Annotated[Words, Field(examples=["main"])]
Version = Annotated[Words, Field(examples=["1.4.0"])]
ProcessName = Annotated[Words, Field(examples=["orders"])]  # a model or a step, at which a run stops
Conflict = Literal[OnConflict.REJECT, OnConflict.ATTACH, OnConflict.QUEUE]
JobId = Annotated[Words, Field(examples=["dbt-1796043514018-ioqtdn"])]
Model = TypeVar("Model", bound=BaseModel)


async def read_trigger(request: web.Request, model: type[Model], *, optional: bool = False) -> Model:
    """The body of a trigger. Where triggers are off the refusal says so, whatever the body is.

    Raises PipelinesDisabledError, BadRequestError, SlowBodyError.
    """
    request.app[SERVICE].must_be_enabled()
    return await read(request, model, optional=optional)


async def read(request: web.Request, model: type[Model], *, optional: bool = False) -> Model:
    """The JSON object of a request's body as a model. optional: no body is an empty object.

    Raises BadRequestError, SlowBodyError.
    """
    received = await _bytes(request)
    content = {} if optional and not received else _object(received)
    try:
        return validate(model, content, "field")
    except RecursionError:
        raise too_deep() from None


def query(request: web.Request, model: type[Model]) -> Model:
    """The query of a request as a model; an unknown or repeated name is refused. Raises BadRequestError."""
    values: dict[str, str] = {}
    for name, value in request.query.items():
        if name in values:
            raise BadRequestError("invalid_field", f"The query parameter {name[:100]!a} is given more than once.")
        values[name] = value
    return validate(model, values, "query parameter")


def validate(model: type[Model], values: Mapping[str, Any], what: str) -> Model:
    """The values as a model. Raises BadRequestError that names the field, the value and what is allowed."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _refusal(error.errors()[0], model, what) from None


async def _bytes(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(_SECONDS):
            return await request.read()
    except (ConnectionError, web.RequestPayloadError) as error:
        raise BadRequestError(
            "unreadable_body", f"The body can't be read: {str(error)[:200] or 'it was cut off'}."
        ) from None
    except TimeoutError:
        raise SlowBodyError(f"The body did not arrive within {_SECONDS:.0f} s; send it at once.") from None


def _object(body: bytes) -> Mapping[str, Any]:
    if len(body) > _MAX_SIZE:  # the event loop waits while it is parsed
        raise BadRequestError(
            "invalid_json", f"The body has {len(body)} bytes, but no request that is meant here has over {_MAX_SIZE}."
        )
    try:
        text = body.decode("utf-8-sig")  # some programs begin a file with a byte order mark
        content = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except RecursionError:
        raise too_deep() from None
    except (json.JSONDecodeError, UnicodeDecodeError, _ConstantError) as error:
        raise BadRequestError("invalid_json", f"The body is not JSON: {str(error)[:200]}.") from None
    except _RepeatedError as error:
        raise BadRequestError("invalid_json", str(error)) from None
    except ValueError:
        raise BadRequestError("invalid_json", "The body is not JSON that can be read: a number is too long.") from None
    if not isinstance(content, dict):
        why = f'The body must be a JSON object such as {{"pipeline": "full"}}, not {type(content).__name__}.'
        raise BadRequestError("invalid_json", why)
    return content


def too_deep() -> BadRequestError:
    """The refusal of a body that is nested deeper than it can be processed."""
    return BadRequestError("invalid_json", "The body is not JSON that can be read: it is nested too deep.")


class _ConstantError(ValueError):
    """The body has NaN or an infinity, which JSON does not have."""


class _RepeatedError(ValueError):
    """An object has a field twice, and which one is meant can't be known."""

    def __init__(self, name: str) -> None:
        super().__init__(f"The field {name[:100]!a} is given more than once: give it once.")


def _unique(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(fields)
    if len(content) < len(fields):
        counted = Counter(name for name, _ in fields)
        raise _RepeatedError(counted.most_common(1)[0][0])
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise _ConstantError(f"{name} is none of its values")


def _refusal(problem: ErrorDetails, model: type[BaseModel], what: str) -> BadRequestError:
    location = problem["loc"] if what == "field" else problem["loc"][:1]  # a list in a query is one text
    field = ".".join(str(part)[:100] for part in location)
    given = json.dumps(problem["input"], default=str)  # in the client's own notation
    given = given if len(given) <= 100 else given[:99] + "…"
    if problem["type"] == "extra_forbidden":
        known = ", ".join(given.alias or name for name, given in model.model_fields.items())
        return BadRequestError("unknown_field", f"The {what} {field!a} ({given}) is not known; there are: {known}.")
    must = f"it must be {_allowed(model, location, what)}"
    match problem["type"]:
        case "missing":
            return BadRequestError("missing_field", f"The {what} {field!a} is missing: {must}.")
        case "enum" if isinstance(problem["input"], str):
            return BadRequestError(f"unknown_{field}", f"Unknown {field} {given}: {must}.")
        case _:
            return BadRequestError("invalid_field", f"The {what} {field!a} is {given}: {must}.")


def _allowed(model: type[BaseModel], location: expected.Location, what: str) -> str:
    """What a field or a query parameter takes, with a line that would be right."""
    takes = expected.at(model, location)
    name, words, example = ".".join(map(str, location)), takes.words, takes.example
    if what == "field":
        return f"{words}, such as {json.dumps(name)}: {json.dumps(example)}"
    if takes.schema.get("type") == "array":
        words, example = f"{expected.at(model, (*location, 0)).words}, several by comma", ",".join(map(str, example))
    return f"{words}, such as ?{name}={example}"
