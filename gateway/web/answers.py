"""The headers of every answer, the root of the models of bodies, and the body of every refusal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from gateway.web import SERVICE

# An answer is data: a browser must not guess its type, run it, frame it, cache it, or send its address to others.
SECURITY_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
    }
)
SERVER = "pipeline-gateway"  # instead of aiohttp's header, which has the versions of Python and aiohttp

TRIGGER_PIPELINE = "/api/trigger"


Moment = Annotated[str, Field(examples=["2026-01-31T06:00:00.250000+00:00"], json_schema_extra={"format": "date-time"})]


def is_none(value: object) -> bool:
    """Whether a field is left out of an answer; see `exclude_if`."""
    return value is None


def _as_answered(schema: dict[str, Any]) -> None:
    """Have the schema of an answer allow fields that a later version adds, and no null where a field is left out."""
    del schema["additionalProperties"]
    for name, field in schema.get("properties", {}).items():
        field.pop("default", None)
        if name not in schema.get("required", ()):
            kinds = [kind for kind in field.pop("anyOf") if kind != {"type": "null"}]
            field |= kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


class Answer(BaseModel):
    """The root of the models of answers; their JSON fields are camelCase."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        serialize_by_alias=True,
        json_schema_serialization_defaults_required=True,
        json_schema_extra=_as_answered,
    )


class HolderAnswer(Answer):
    """What holds a resource that a job needs: another job, or a container from outside the gateway."""

    job_id: Annotated[str | None, Field(exclude_if=is_none)] = None
    container: Annotated[str | None, Field(exclude_if=is_none)] = None
    since: Moment
    step: str


class Refusal(Answer):
    """The body of a refusal. code: never changes. output: the text again. conflict: what a trigger runs into."""

    success: Literal[False]
    code: str
    error: str
    output: str
    conflict: Annotated[HolderAnswer | None, Field(exclude_if=is_none)] = None


class RunRefusal(Answer):
    """The body of a refusal of the trigger pipeline API."""

    success: Literal[False]
    msg: str


def json_text(content: BaseModel) -> str:
    """An answer as JSON. All of it is ASCII, because names of files in an error may be no valid Unicode."""
    return json.dumps(content.model_dump(mode="json"))


def json_answer(content: BaseModel, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer. It ends with a line end, so that a shell's prompt does not stand behind it."""
    text = f"{json_text(content)}\n"
    return web.Response(text=text, status=status, headers=headers, content_type="application/json")


def base_url(request: web.Request) -> str:
    """What the URLs in an answer begin with."""
    return request.app[SERVICE].settings.public_url or f"{request.scheme}://{request.host}"


def error_model(path: str) -> type[Refusal] | type[RunRefusal]:
    """The model of the refusals at a path."""
    of_runs = path == TRIGGER_PIPELINE or path.startswith(f"{TRIGGER_PIPELINE}/")
    return RunRefusal if of_runs else Refusal


def error_body(path: str, code: str, text: str, details: Mapping[str, Any]) -> Refusal | RunRefusal:
    """The body of a refusal. details: further fields, which the trigger pipeline API does not have."""
    if error_model(path) is RunRefusal:
        return RunRefusal(success=False, msg=text)
    return Refusal(success=False, code=code, error=text, output=text, **details)
