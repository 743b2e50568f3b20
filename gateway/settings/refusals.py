"""What is said of a mistake in the configuration: what was expected, a line that would be right, what was found."""

from __future__ import annotations

import math
import shlex
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic_core import ErrorDetails

from gateway.settings import expected
from gateway.settings.expected import KEY, Location

_LONGEST_FOUND = 100  # characters


def sentence(model: type[BaseModel], problem: ErrorDetails, masked: Any, *, is_secret: bool) -> str:
    """What is said of a problem that pydantic found in a model.

    masked: what was found, without secrets. is_secret: nothing of it may be shown.
    """
    shown = "***" if is_secret else repr(masked)
    shown = shown if len(shown) <= _LONGEST_FOUND else f"{shown[: _LONGEST_FOUND - 1]}…"
    location = problem["loc"]
    if problem["type"] == "extra_forbidden":
        return (
            f"there is no such setting; there are: {', '.join(expected.at(model, location[:-1]).schema['properties'])}"
        )
    takes = expected.at(model, location)
    match problem["type"]:
        case "value_error":
            said = problem["msg"].removeprefix("Value error, ").rstrip(".")
            if "properties" in takes.schema:  # of several settings together; it says itself what is right
                return f"{said}; found {shown}"
            link = ", such as" if said.startswith("expected ") else "; what is taken:"
            return f"{said}{link} `{_line(model, location, takes.example)}`; found {shown}"
        case kind:
            said = "is missing: expected" if kind == "missing" else "expected"
            right = takes.example if is_secret else _right(model, location, masked, takes.example)
            return f"{said} {takes.words}, such as `{_line(model, location, right)}`; found {shown}"


def _line(model: type[BaseModel], location: Location, right: Any) -> str:
    """A line of YAML with what is right in this place."""
    key = location[-1]
    if key == KEY:
        return _yaml({right: expected.at(model, location[:-1]).example})[1:-1]
    return f"- {_yaml([right])[1:-1]}" if isinstance(key, int) else _yaml({key: right})[1:-1]


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf).strip()


def _right(model: type[BaseModel], location: Location, masked: Any, example: Any) -> Any:
    """What was given, in the form that is taken; the example where it is not taken in any."""
    repaired = _repaired(model, location, masked)
    is_whole = repaired != masked and "***" not in str(repaired)
    return repaired if is_whole and expected.is_taken(model, location, repaired) else example


def _repaired(model: type[BaseModel], location: Location, given: Any) -> Any:
    """What was given, in the form of the place, whether it is taken or not."""
    match expected.at(model, location).schema:
        case {"type": "array"} if isinstance(given, str):
            return _split(given)
        case {"properties": known} if isinstance(given, str):
            alike = len({expected.at(model, (*location, name)).words for name in known}) == 1
            return {name: _repaired(model, (*location, name), given) for name in (known if alike else [*known][:1])}
        case {"type": "string"} if type(given) in (int, float):
            return str(given)
        case _:
            return given


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a quote without its end
        return []
