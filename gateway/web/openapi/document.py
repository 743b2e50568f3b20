"""The OpenAPI document, made from the models that validate requests and serialize answers."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from aiohttp import web
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from gateway.errors import (
    BadRequestError,
    BodyTooLargeError,
    ForeignOriginError,
    InsufficientScopeError,
    MisdirectedError,
    OverloadedError,
    RequestError,
    SlowBodyError,
    TooManyTriggersError,
    UnauthorizedError,
    UnsupportedTypeError,
)
from gateway.settings import expected
from gateway.web.answers import TRIGGER_PIPELINE, error_body, error_model
from gateway.web.openapi import texts
from gateway.web.openapi.operation import JSON, OPERATIONS, Operation, Refusals, Refused, Reply, codes, operation
from gateway.web.server import access

PATH = "/openapi.json"
_REF = "#/components/schemas/{model}"

# refusals with these statuses may have the header Retry-After; which have it depends on their codes
_RETRIED = (
    HTTPStatus.CONFLICT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.INSUFFICIENT_STORAGE,
)
_OF_EVERY_ROUTE: Refusals = (
    *codes(BadRequestError, bad_request="The request is not HTTP as it should be."),
    ForeignOriginError,
    UnsupportedTypeError,
    MisdirectedError,
    OverloadedError,
)
_OF_TOKENS: Refusals = (UnauthorizedError, InsufficientScopeError)
_OF_FIELDS = codes(
    BadRequestError,
    unknown_field="A field or a query parameter is not known.",
    invalid_field="A field or a query parameter has a value that it does not take.",
)
_OF_BODIES: Refusals = (
    *codes(
        BadRequestError,
        unreadable_body="The body was cut off.",
        invalid_json="The body is not one JSON object.",
        missing_field="A required field is missing.",
    ),
    *_OF_FIELDS,
    SlowBodyError,
    BodyTooLargeError,
)


@operation("getOpenapi", {200: Reply(dict[str, Any])})
async def get(request: web.Request) -> web.Response:
    """This description."""
    return web.Response(text=await asyncio.to_thread(text, request.app), content_type=JSON)


ROUTES = (web.get(PATH, get),)


def text(app: web.Application) -> str:
    """The description of the routes of an application. It is made at the first call, so that no start waits for it."""
    routes = (
        (route.method.lower(), route.resource.canonical, route.handler)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD" and route.handler in OPERATIONS
    )
    return _document(tuple(routes))


@functools.cache
def _document(routes: tuple[tuple[str, str, object], ...]) -> str:
    """The description of routes: each a method, a path and a handler."""
    described = [_Described(method, path, handler, OPERATIONS[handler]) for method, path, handler in routes]
    schemas, components = _schemas(model for one in described for model in one.models())
    paths: dict[str, dict[str, Any]] = {}
    for one in described:
        components |= one.query_schema().pop("$defs", {})
        paths.setdefault(one.path, {})[one.method] = one.entry(schemas)
    _add_examples(components)
    return f"{json.dumps(_around(paths, components))}\n"


def _add_examples(schemas: Mapping[str, Any]) -> None:
    for schema in schemas.values():
        for name, field in schema.get("properties", {}).items():
            is_answered = schema.get("additionalProperties") is not False
            if is_answered and name in texts.FIELD_EXAMPLES and not _is_list_of_models(field):
                field.setdefault("examples", [texts.FIELD_EXAMPLES[name]])


def _is_list_of_models(field: Mapping[str, Any]) -> bool:
    """Such as the parameters of a pipeline, which are no values."""
    return "$ref" in field.get("items", {})


def _around(paths: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    responses = {
        _shared_name(path, status): _refusal(path, status, names)
        for path in ("/", TRIGGER_PIPELINE)
        for status, names in _by_status(_of_guard(public=False)).items()
    }
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Pipeline Gateway",
            "version": version("pipeline-gateway"),
            "description": texts.DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "The gateway that this description comes from."}],
        "security": [{"bearer": []}, {"xAuthToken": []}],
        "tags": [{"name": name, "description": meaning} for _, name, meaning in texts.TAGS],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "responses": responses,
            "headers": {name: _header(name) for name in texts.RESPONSE_HEADERS},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "xAuthToken": {"type": "apiKey", "in": "header", "name": "X-AUTH-TOKEN"},
            },
        },
    }


@dataclass(frozen=True, slots=True)
class _Described:
    """A route with its operation."""

    method: str
    path: str
    handler: object
    operation: Operation

    def models(self) -> Iterator[tuple[JsonSchemaMode, Any]]:
        """The models of the bodies, each with what it is for."""
        if self.operation.body is not None:
            yield "validation", self.operation.body
        yield "serialization", error_model(self.path)
        for reply in self.operation.answers.values():
            if reply.model is not None:
                yield "serialization", reply.model
            yield from (("serialization", model) for model in reply.events.values())

    def query_schema(self) -> dict[str, Any]:
        """The schema of the query, which is no component of its own."""
        query = self.operation.query
        return {} if query is None else query.model_json_schema(ref_template=_REF, schema_generator=_Schema)

    def entry(self, schemas: _Schemas) -> dict[str, Any]:
        """The operation as OpenAPI has it."""
        summary, _, rest = str(self.handler.__doc__).partition("\n")
        query = self.operation.query
        about = [" ".join(text.split()) for text in (rest, "" if query is None else str(query.__doc__)) if text]
        return {
            "operationId": self.operation.name,
            "tags": [next(name for prefix, name, _ in texts.TAGS if self.path.startswith(prefix))],
            "summary": summary,
            **({"description": "\n\n".join(about)} if about else {}),
            **({"security": []} if self._is_public else {}),
            **({"parameters": found} if (found := list(self._parameters())) else {}),
            **self._request_body(schemas),
            "responses": self._responses(schemas),
        }

    @property
    def _is_public(self) -> bool:
        return self.path in access.PUBLIC

    def _parameters(self) -> Iterator[dict[str, Any]]:
        for part in self.path.split("/"):
            if part.startswith("{"):
                name, schema = part.strip("{}"), {"type": "string", "minLength": 1}
                about = {"description": texts.PATH_PARAMETERS[name]} if name in texts.PATH_PARAMETERS else {}
                yield {"name": name, "in": "path", "required": True, "schema": schema, **about}
        query = self.query_schema()
        for name, schema in query.get("properties", {}).items():
            lists = {"style": "form", "explode": False} if schema.get("type") == "array" else {}
            required = name in query.get("required", ())
            yield {"name": name, "in": "query", "required": required, "schema": _not_null(schema), **lists}
        for name, meaning in self.operation.headers.items():
            yield {"name": name, "in": "header", "schema": {"type": "string"}, "description": meaning}

    def _request_body(self, schemas: _Schemas) -> dict[str, Any]:
        model = self.operation.body
        if model is None:
            return {}
        needed = [name for name, info in model.model_fields.items() if info.is_required()]
        example = {name: expected.at(model, (name,)).example for name in needed}
        content = {"schema": schemas["validation", model], "examples": {"shortest": {"value": example}}}
        return {"requestBody": {"required": bool(needed), "content": {JSON: content}}}

    def _responses(self, schemas: _Schemas) -> dict[str, Any]:
        """Answers and refusals by status; refusals that the guard alone gives are shared by all operations."""
        shared = _by_status(_of_guard(public=False))
        found: dict[str, Any] = {}
        for status, names in _by_status(self._all_refusals()).items():
            if shared.get(status) == names:
                found[str(status)] = {"$ref": f"#/components/responses/{_shared_name(self.path, status)}"}
            else:
                found[str(status)] = _refusal(self.path, status, names)
        for status, reply in self.operation.answers.items():
            answer = _answer(status, reply, schemas)
            if str(status) in found:  # such as a 503 of /readyz
                both = [answer["content"][JSON]["schema"], {"$ref": _ref(error_model(self.path))}]
                answer["content"][JSON]["schema"] = {"anyOf": both}
            found[str(status)] = answer
        return dict(sorted(found.items()))

    def _all_refusals(self) -> Iterator[type[RequestError] | Refused]:
        yield from _of_guard(public=self._is_public)
        if self.operation.query is not None:
            yield from _OF_FIELDS
        if self.operation.body is not None:
            yield from _OF_BODIES
        if access.is_limited(self.method.upper(), self.path):
            yield TooManyTriggersError
        yield from self.operation.refusals


_Schemas = Mapping[tuple[JsonSchemaMode, Any], dict[str, Any]]


class _Schema(GenerateJsonSchema):
    """Without a title for each field, which would say its name again."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never."""
        del schema
        return False


def _schemas(models: Iterable[tuple[JsonSchemaMode, Any]]) -> tuple[_Schemas, dict[str, Any]]:
    """The schema of each model, and the components that these refer to."""
    wanted = {(mode, model): TypeAdapter(model) for mode, model in models}
    inputs = [(str(number), key[0], adapter) for number, (key, adapter) in enumerate(wanted.items())]
    found, definitions = TypeAdapter.json_schemas(inputs, ref_template=_REF, schema_generator=_Schema)
    schemas = {key: found[str(number), key[0]] for number, key in enumerate(wanted)}
    return schemas, definitions.get("$defs", {})


def _answer(status: int, reply: Reply, schemas: _Schemas) -> dict[str, Any]:
    headers = {"headers": {name: _header_reference(name) for name in ("X-Request-Id", *reply.headers)}}
    entry = {"description": HTTPStatus(status).phrase, **headers}
    if reply.model is None:
        return entry
    content: dict[str, Any] = {"schema": schemas["serialization", reply.model]}
    if reply.example is not None:
        content["examples"] = {"usual": {"value": reply.example.model_dump(mode="json")}}
    if reply.events:
        content["x-events"] = {name: schemas["serialization", model] for name, model in reply.events.items()}
    return {**entry, "content": {reply.media: content}}


def _of_guard(*, public: bool) -> Refusals:
    return _OF_EVERY_ROUTE if public else (*_OF_EVERY_ROUTE, *_OF_TOKENS)


def _by_status(refusals: Iterable[type[RequestError] | Refused]) -> dict[int, dict[str, str]]:
    """What refusals mean, by their statuses and codes. A bug, which is refused with 500, is possible everywhere."""
    found: dict[int, dict[str, str]] = {500: {"internal": "The gateway made a mistake."}}
    for one in refusals:
        error, meaning = (one.error, one.meaning) if isinstance(one, Refused) else (one, str(one.__doc__))
        found.setdefault(error.status, {})[one.code] = meaning
    return dict(sorted(found.items()))


def _shared_name(path: str, status: int) -> str:
    return f"{error_model(path).__name__}{status}"


def _refusal(path: str, status: int, names: Mapping[str, str]) -> dict[str, Any]:
    """The answer with a status. names: the codes that it may have, with what they mean."""
    headers = ["X-Request-Id", *(["Retry-After"] if status in _RETRIED else [])]
    if status == HTTPStatus.UNAUTHORIZED:
        headers.append("WWW-Authenticate")
    return {
        "description": "\n".join(f"- `{code}`: {meaning}" for code, meaning in names.items()),
        "headers": {name: _header_reference(name) for name in headers},
        "content": {
            JSON: {
                "schema": {"$ref": _ref(error_model(path))},
                "examples": {
                    code: {"value": error_body(path, code, meaning, {}).model_dump(mode="json")}
                    for code, meaning in names.items()
                },
            }
        },
    }


def _header(name: str) -> dict[str, Any]:
    return {
        "description": texts.RESPONSE_HEADERS[name],
        "required": name not in texts.OPTIONAL_HEADERS,
        "schema": {"type": "string"},
    }


def _ref(model: type[BaseModel]) -> str:
    return _REF.format(model=model.__name__)


def _header_reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/headers/{name}"}


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a query parameter: what is not given is left out, and never null."""
    given = {key: value for key, value in schema.items() if key != "default" or value not in (None, [])}
    kinds = [kind for kind in given.pop("anyOf", [{}]) if kind != {"type": "null"}]
    return {**kinds[0], **given}
