"""The document of /openapi.json: it is valid, and each route is in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.app import build_app
from gateway.settings.settings import Settings
from gateway.web import docs
from gateway.web.openapi.operation import OPERATIONS
from gateway.web.page import files
from gateway.web.server import access
from tests.support import openapi

DOCUMENT = openapi.described()


def test_every_route_of_an_api_describes_itself(tmp_path: Path) -> None:
    app = build_app(Settings(state_directory=tmp_path), {"PATH": "/bin"})
    routes = [(route.resource.canonical, route.handler) for route in app.router.routes() if route.resource is not None]
    served = {*docs.PATHS, "/docs/{page}", *files.PATHS, "/page/{file}"}
    silent = [path for path, handler in routes if path not in served and handler not in OPERATIONS]
    assert silent == [], "decorate their handlers with @operation, as gateway/web/operations.py does"
    assert {path for path, handler in routes if handler in OPERATIONS} == set(DOCUMENT["paths"])


def test_the_document_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    assert [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []


def test_every_example_fits_its_schema() -> None:
    found = list(examples(DOCUMENT))
    assert len(found) > 50
    strict = openapi.strict(DOCUMENT)
    assert [(value, wrong) for schema, value in found if (wrong := openapi.errors(strict, schema, value))] == []


def examples(part: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    """Each example with its schema: of bodies, of fields and of parameters."""
    if isinstance(part, list):
        for item in part:
            yield from examples(item)
    if not isinstance(part, dict):
        return
    match part:
        case {"schema": dict() as schema, "examples": dict() as named}:
            yield from ((schema, one["value"]) for one in named.values())
        case {"examples": [*values]}:
            yield from ((part, value) for value in values)
        case _:
            pass
    for value in part.values():
        yield from examples(value)


def test_every_body_has_an_example() -> None:
    for method, path, operation in openapi.operations(DOCUMENT):
        body = operation.get("requestBody", {"content": {}})
        assert all(content["examples"] for content in body["content"].values()), (method, path)


def test_no_two_models_have_the_same_name() -> None:
    """Where two have, pydantic names them by their modules, and generated clients have those names."""
    assert [name for name in DOCUMENT["components"]["schemas"] if not re.fullmatch(r"[A-Z][A-Za-z]+", name)] == []


def test_operations_have_names_for_clients() -> None:
    names = [operation["operationId"] for _, _, operation in openapi.operations(DOCUMENT)]
    assert len(names) == len(set(names)) > 10
    assert [name for name in names if not re.fullmatch(r"[a-z]+([A-Z][a-z]+)*", name)] == []


def test_a_token_is_needed_where_the_contract_says_so() -> None:
    public = {path for _, path, operation in openapi.operations(DOCUMENT) if operation.get("security") == []}
    assert public == access.PUBLIC & DOCUMENT["paths"].keys()
    assert DOCUMENT["security"] == [{"bearer": []}, {"xAuthToken": []}]


def test_refusals_have_the_shape_of_their_api() -> None:
    for method, path, operation in openapi.operations(DOCUMENT):
        model = "RunRefusal" if path.startswith("/api/trigger/") else "Refusal"
        for status, answer in operation["responses"].items():
            if int(status) < 400 or path == "/readyz":
                continue
            content = openapi.resolved(DOCUMENT, answer)["content"]["application/json"]
            assert content["schema"] == {"$ref": f"#/components/schemas/{model}"}, (method, path, status)
