"""What is said of a mistake in the configuration: the key, what was expected, what was found, a line that is right."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any, get_origin

from pydantic_core import ErrorDetails

from gateway.settings.fabric import Section

_LONGEST_FOUND = 100  # characters
_PLAIN = re.compile(r"(?!\d)[\w./-]*[A-Za-z][\w./-]*")
# What may stand under a key whose own keys are the user's.
_EXAMPLES = {
    "fabrics": "{local: {runner: local}}",
    "projects": "{shop: {directory: .}}",
    "pipelines": "{nightly: {dbt: {}}}",
    "parameters": "{since: {type: date}}",
    "environment": "{NAME: value}",
}
_REQUIRED = {"command": "[python, ingest.py]"}


def sentence(problem: ErrorDetails, masked: Any, *, is_secret: bool) -> str:
    """What was expected, where it is known a line that would be right, and what was found.

    masked: what was found, without secrets. is_secret: nothing of it may be shown.
    """
    shown = "***" if is_secret else repr(masked)
    shown = shown if len(shown) <= _LONGEST_FOUND else f"{shown[: _LONGEST_FOUND - 1]}…"
    right = _right(problem, None if is_secret else masked)
    example = "" if right is None else f", such as `{problem['loc'][-1]}: {right}`"
    return f"{_expected(problem)}{example}; found {shown}"


def _expected(problem: ErrorDetails) -> str:
    """In the words of YAML instead of Python's."""
    match problem["type"]:
        case "tuple_type":
            return "expected a list"
        case "dict_type":
            return "expected keys with values under it"
        case "model_type":
            return f"expected some of these keys under it: {', '.join(_section(problem).model_fields)}"
        case _:
            return problem["msg"].removeprefix("Value error, ")


def _right(problem: ErrorDetails, given: Any) -> str | None:
    """A value that would be right in the place of what was given, in YAML."""
    key = str(problem["loc"][-1])
    match problem["type"]:
        case "tuple_type":
            return _list(given)
        case "dict_type":
            return _EXAMPLES.get(key)
        case "model_type":
            return _under(_section(problem), given)
        case "string_type" if isinstance(given, int | float):
            return f"'{given}'"
        case "missing":
            return _REQUIRED.get(key)
        case _:
            return None


def _list(given: Any) -> str | None:
    """A list of the words of a text."""
    try:
        words = shlex.split(given) if isinstance(given, str) else []
    except ValueError:  # a quote without its end
        return None
    return f"[{', '.join(map(_scalar, words))}]" if words else None


def _under(section: type[Section], given: Any) -> str | None:
    """A value that was given for a whole section, under the keys that it is most likely for."""
    if not isinstance(given, str) or not given:
        return None
    fields = section.model_fields
    alike = len({str(field.annotation) for field in fields.values()}) == 1
    name, first = next(iter(fields.items()))
    value = _list(given) if get_origin(first.annotation) is tuple else _scalar(given)
    return None if value is None else "{" + ", ".join(f"{one}: {value}" for one in (fields if alike else [name])) + "}"


def _scalar(text: str) -> str:
    """A text as YAML, quoted where it has more than letters, digits and the signs of paths."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _section(problem: ErrorDetails) -> type[Section]:
    name = problem["ctx"]["class_name"]
    return next(section for section in _sections(Section) if section.__name__ == name)


def _sections(section: type[Section]) -> Iterator[type[Section]]:
    yield section
    for one in section.__subclasses__():
        yield from _sections(one)
