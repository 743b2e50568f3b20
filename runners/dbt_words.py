"""Selections, model names and variables that dbt is given, each as one argument. Pure; all raise WordError."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from runners.words import UNPRINTABLE, WordError

Value = str | int | float | bool

_LONGEST_SELECTION = 1000
_LONGEST_VARIABLES = 8192
_LARGEST_INTEGER = 2**63

# What stands between spaces and commas: `@`, `2+`, a method, a value and `+2`, all but the value optional; without one
# it would select nothing, and dbt call it a success. A piece of a path that begins with a dot leads out of the project;
# an absolute path, or one of hundreds of pieces, breaks dbt; each `**/` multiplies the time of the search.
_PIECE = r"[\w*][\w.*-]*"
_PART = re.compile(rf"(?!.*\*\*)@?(?:[0-9]*\+)?+{_PIECE}(?:[:/]{_PIECE}){{0,20}}/?(?:\+[0-9]*)?", re.ASCII)
_MODEL = re.compile(r"\w[\w-]{0,254}", re.ASCII)  # a dot would make it a path of folders, or the name of a file

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# dbt renders each string that it is given, so these would run as a program. A brace at the end could become one of them
# where a project puts two variables side by side.
_JINJA = re.compile(r"\{[{%#]|\{\Z")


class Kind(StrEnum):
    """The type of a variable."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"


_ALLOWED = {
    Kind.STRING: "a string without control characters, without {{, {% and {# and without { at its end",
    Kind.INTEGER: "an integer of at most 64 bits, such as 3000007",
    Kind.NUMBER: "a finite number, such as -1.5e3",
    Kind.BOOLEAN: "true or false",
    Kind.DATE: "a date, such as 2026-11-30",
}


@dataclass(frozen=True, slots=True)
class Variable:
    """A declared variable. default: None where the project itself has one."""

    kind: Kind
    default: Value | None = None


def select(selection: str) -> str:
    """The argument that selects."""
    return f"--select={_selection(selection)}"


def exclude(selection: str) -> str:
    """The argument that leaves out."""
    return f"--exclude={_selection(selection)}"


def select_up_to(model: str) -> str:
    """The argument that selects a model and everything upstream of it.

    Folders, packages and sources have such names too: that it is a model, only the project knows.
    """
    if not _MODEL.fullmatch(model):
        raise WordError("model", model, "one name of at most 255 letters, digits, _ and -, not beginning with -")
    return f"--select=+{model}"


def _selection(selection: str) -> str:
    # part by part: one expression for all of it could be made to try each combination of what its parts may be
    parts = re.split("[ ,]", selection[: _LONGEST_SELECTION + 1])
    if len(selection) > _LONGEST_SELECTION or not all(map(_PART.fullmatch, parts)):
        raise WordError(
            "selection",
            selection,
            "dbt's names, methods and graph operators, joined by single spaces or commas: A-Z a-z 0-9 _ . + : @ * / -, "
            f"no name or piece of a path beginning with - or ., no **, at most {_LONGEST_SELECTION} characters",
        )
    return selection


def variables(declared: Mapping[str, Variable], given: Mapping[str, object]) -> dict[str, Value]:
    """The values by name: those that are given, each as its declared type, else the defaults; None is not given.

    A string that reads as the declared type is taken for it.
    """
    for name in given:
        if name not in declared:
            raise WordError("parameter", name, f"one of those declared ({', '.join(declared) or 'none'})")
    wanted = {name: variable.default if given.get(name) is None else given[name] for name, variable in declared.items()}
    values = {name: _fitting(name, declared[name].kind, value) for name, value in wanted.items() if value is not None}
    vars_argument(values)  # refuses what is too long as a whole
    return values


def vars_argument(values: Mapping[str, Value]) -> str:
    """The argument that gives dbt these values, which `variables` has let through, as one JSON object."""
    for name in values:
        if not _NAME.fullmatch(name):
            raise WordError("parameter's name", name, "at most 128 letters, digits and _, beginning with no digit")
    argument = f"--vars={{{', '.join(f'{json.dumps(name)}: {_json(value)}' for name, value in values.items())}}}"
    size = len(argument.encode())
    if size > _LONGEST_VARIABLES:
        raise WordError("parameters' size in bytes", size, f"at most {_LONGEST_VARIABLES} for all of them")
    return argument


def _fitting(name: str, kind: Kind, value: object) -> Value:
    """The value as its type."""
    try:
        fitting = _read(kind, value) if isinstance(value, str) else _taken(kind, value)
    except ValueError:  # 2026-02-30, or thousands of digits
        fitting = None
    if fitting is None:
        raise WordError(f"parameter {name} =", value, _ALLOWED[kind])
    return fitting


def _read(kind: Kind, text: str) -> Value | None:
    """What a string says, None where it doesn't fit. Raises ValueError."""
    match kind:
        case Kind.STRING:
            return None if UNPRINTABLE.search(text) or _JINJA.search(text) else text
        case Kind.INTEGER:
            return _taken(kind, int(text)) if _INTEGER.fullmatch(text) else None
        case Kind.NUMBER:
            return _taken(kind, json.loads(text)) if _NUMBER.fullmatch(text) else None
        case Kind.BOOLEAN:
            return {"true": True, "false": False}.get(text)
        case Kind.DATE:
            return str(date.fromisoformat(text)) if _DATE.fullmatch(text) else None


def _taken(kind: Kind, value: object) -> Value | None:
    """A value that is no string, None where it doesn't fit."""
    match value:
        case bool():
            return value if kind is Kind.BOOLEAN else None
        case int():
            fits = kind in (Kind.INTEGER, Kind.NUMBER) and -_LARGEST_INTEGER <= value < _LARGEST_INTEGER
            return value if fits else None
        case float():
            return value if kind is Kind.NUMBER and math.isfinite(value) else None
        case _:
            return None


def _json(value: Value) -> str:
    """JSON that dbt, which reads it as YAML, reads as the same value."""
    # YAML knows no halves of characters, as JSON escapes those beyond its first 65,536.
    text = json.dumps(value, ensure_ascii=False)
    # Without a dot, YAML takes a number with an exponent for a string.
    return text.replace("e", ".0e") if isinstance(value, float) and "." not in text else text
