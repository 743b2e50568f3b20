"""The document of /openapi.json, and whether an answer is what it says."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

from gateway.app import build_app
from gateway.settings.settings import Settings
from gateway.web.openapi import document
from tests.support.gateway import Answer

METHODS = ("get", "put", "post", "delete", "patch")


@functools.cache
def described() -> dict[str, Any]:
    """The document of the routes of an application."""
    app = build_app(Settings(state_directory=Path("never-used")), {"PATH": "/bin"})
    found: dict[str, Any] = json.loads(document.text(app))
    return found


def operations(described: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Each operation with its method and its path."""
    return [
        (method, path, item[method]) for path, item in described["paths"].items() for method in METHODS & item.keys()
    ]


def strict(described: dict[str, Any]) -> dict[str, Any]:
    """The document where no answer may have a field that is not in it: a client must take them, a test must not."""
    copy: dict[str, Any] = json.loads(json.dumps(described))
    for schema in copy["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return copy


def resolved(described: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """A part of the document, or the component that it refers to."""
    if "$ref" not in part:
        return part
    for name in part["$ref"].removeprefix("#/").split("/"):
        described = described[name]
    return described


def errors(described: dict[str, Any], schema: dict[str, Any], value: Any) -> list[str]:
    """What is wrong with a value by a schema of the document."""
    whole = {**schema, "components": described["components"]}
    validator = Draft202012Validator(whole, format_checker=FormatChecker())
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def wrong(method: str, path: str, answer: Answer) -> list[str]:
    """What of an answer is not in the document: its status, type, headers, fields or code. path: with its query."""
    whole = strict(described())
    [operation] = [
        operation
        for known, template, operation in operations(whole)
        if known == method.lower() and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path.partition("?")[0])
    ]
    if str(answer.status) not in operation["responses"]:
        return [f"status {answer.status}"]
    said = resolved(whole, operation["responses"][str(answer.status)])
    headers = {name: resolved(whole, header) for name, header in said["headers"].items()}
    missing = [
        f"header {name}" for name, header in headers.items() if header["required"] and name not in answer.headers
    ]
    media = answer.headers.get("Content-Type", "").partition(";")[0]
    if "content" not in said or media not in said["content"]:
        return missing if answer.body == b"" and "content" not in said else [*missing, f"type {media}"]
    content = said["content"][media]
    value = answer.json if media == "application/json" else answer.body.decode()
    code = value.get("code") if isinstance(value, dict) else None
    unknown = [f"code {code}"] if code and code not in content["examples"] else []
    return [*missing, *unknown, *errors(whole, content["schema"], value)]
