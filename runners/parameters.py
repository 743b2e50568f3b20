"""Parameters: how each is declared, and the values that are taken for them. Pure; all raise WordError."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from runners.words import UNPRINTABLE, WordError

ParameterValue = str | int | float | bool

# As a name of dbt's variables, which are YAML.
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
NAME_ALLOWED = "at most 128 letters, digits and _, beginning with no digit"

_LONGEST_TOGETHER = 8192
_LONGEST_LIST = 100
_LARGEST_INTEGER = 2**63

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# dbt renders each string that it is given, so these would run as a program. A brace at the end could become one of them
# where a project puts two variables side by side.
_JINJA = re.compile(r"\{[{%#]|\{\Z")
_NEEDS_NO_QUOTES = re.compile(r"[A-Za-z0-9_.-]+")


class ParameterType(StrEnum):
    """The type of a parameter."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"


_ALLOWED = {
    ParameterType.STRING: "a string without control characters, without {{, {% and {# and without { at its end",
    ParameterType.INTEGER: "an integer of at most 64 bits, such as 3000007",
    ParameterType.NUMBER: "a finite number, such as -1.5e3",
    ParameterType.BOOLEAN: "true or false",
    ParameterType.DATE: "a date, such as 2026-11-30",
}
# Those that have an order, and so may have bounds.
_BOUNDED = {ParameterType.INTEGER: "an integer", ParameterType.NUMBER: "a number", ParameterType.DATE: "a date"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A declared parameter, of which `check` says whether it makes sense.

    default: None where what it goes to has one of its own. minimum, maximum: inclusive, None for no bound.
    choices: the only values that are taken, None for any. All of them are values of the kind; a date is ISO text.
    """

    kind: ParameterType
    default: ParameterValue | None = None
    minimum: ParameterValue | None = None
    maximum: ParameterValue | None = None
    choices: tuple[ParameterValue, ...] | None = None


def check(name: str, parameter: Parameter) -> None:
    """Refuse a declaration that contradicts itself; each part is refused for the first thing that is wrong with it."""
    if not NAME.fullmatch(name):
        raise WordError("parameter's name", name, NAME_ALLOWED)
    kind, low, high = parameter.kind, parameter.minimum, parameter.maximum
    for what, bound in (("minimum", low), ("maximum", high)):
        if bound is not None and kind not in _BOUNDED:
            raise WordError(f"{what} of parameter {name} =", bound, f"left out: a {kind} has no bounds")
        _check_declared(f"{what} of parameter {name} =", Parameter(kind), bound)
    if low is not None and high is not None and _place(low) > _place(high):
        raise WordError(f"minimum of parameter {name} =", low, f"no more than its maximum, {_text(high)}")
    if parameter.choices is not None and not parameter.choices:
        raise WordError(f"list of choices of parameter {name} =", [], "left out, or have one choice at least")
    for choice in parameter.choices or ():
        _check_declared(f"choice of parameter {name} =", Parameter(kind, minimum=low, maximum=high), choice)
    _check_declared(f"default of parameter {name} =", parameter, parameter.default)


def resolve_values(declared: Mapping[str, Parameter], given: Mapping[str, object]) -> dict[str, ParameterValue]:
    """The values by name: those that are given, each as its declared type, else the defaults; None is not given.

    A string that reads as the declared type is taken for it.
    """
    for name, parameter in declared.items():
        check(name, parameter)
    for name in given:
        if name not in declared:
            raise WordError("parameter", name, f"one of those declared ({_listed(declared) or 'none'})")
    wanted = {name: declared[name].default if given.get(name) is None else given[name] for name in declared}
    found = {name: _fitting(name, declared[name], value) for name, value in wanted.items() if value is not None}
    size = len(json.dumps(found, ensure_ascii=False).encode())
    if size > _LONGEST_TOGETHER:
        raise WordError("parameters' size in bytes", size, f"at most {_LONGEST_TOGETHER} for all of them")
    return found


def _check_declared(what: str, parameter: Parameter, value: ParameterValue | None) -> None:
    """Refuse what doesn't fit, and a string that would have to be read first: what is declared is shown to people."""
    as_it_is = isinstance(value, str) == (parameter.kind in (ParameterType.STRING, ParameterType.DATE))
    if value is not None and (not as_it_is or _as_declared(parameter, value) is None):
        raise WordError(what, value, _allowed(parameter))


def _fitting(name: str, parameter: Parameter, value: object) -> ParameterValue:
    """The value as its type."""
    fitting = _as_declared(parameter, value)
    if fitting is None:
        raise WordError(f"parameter {name} =", value, _allowed(parameter))
    return fitting


def _as_declared(parameter: Parameter, value: object) -> ParameterValue | None:
    """The value as its type, None where it doesn't fit."""
    kind, low, high = parameter.kind, parameter.minimum, parameter.maximum
    try:
        fitting = _read(kind, value) if isinstance(value, str) else _taken(kind, value)
    except ValueError:  # 2026-02-30, or thousands of digits
        return None
    if fitting is None or (parameter.choices is not None and fitting not in parameter.choices):
        return None
    below = low is not None and _place(fitting) < _place(low)
    above = high is not None and _place(fitting) > _place(high)
    return None if below or above else fitting


def _read(kind: ParameterType, text: str) -> ParameterValue | None:
    """What a string says, None where it doesn't fit. Raises ValueError."""
    match kind:
        case ParameterType.STRING:
            return None if UNPRINTABLE.search(text) or _JINJA.search(text) else text
        case ParameterType.INTEGER:
            return _taken(kind, int(text)) if _INTEGER.fullmatch(text) else None
        case ParameterType.NUMBER:
            return _taken(kind, json.loads(text)) if _NUMBER.fullmatch(text) else None
        case ParameterType.BOOLEAN:
            return {"true": True, "false": False}.get(text)
        case ParameterType.DATE:
            return str(date.fromisoformat(text)) if _DATE.fullmatch(text) else None


def _taken(kind: ParameterType, value: object) -> ParameterValue | None:
    """A value that is no string, None where it doesn't fit."""
    match value:
        case bool():
            return value if kind is ParameterType.BOOLEAN else None
        case int():
            fits = (
                kind in (ParameterType.INTEGER, ParameterType.NUMBER) and -_LARGEST_INTEGER <= value < _LARGEST_INTEGER
            )
            return value if fits else None
        case float():
            return value if kind is ParameterType.NUMBER and math.isfinite(value) else None
        case _:
            return None


def _place(value: ParameterValue) -> float:
    """Where a value of a kind with an order stands in it; of these only dates are strings."""
    return date.fromisoformat(value).toordinal() if isinstance(value, str) else value


def _allowed(parameter: Parameter) -> str:
    """What a value must be, in words."""
    if parameter.choices is not None:
        return f"one of {_listed(parameter.choices)}"
    low, high = parameter.minimum, parameter.maximum
    if low is None and high is None:
        return _ALLOWED[parameter.kind]
    start = "" if low is None else f" from {_text(low)}"
    end = " on" if high is None else f" {'to' if start else 'up to'} {_text(high)}"
    return f"{_BOUNDED[parameter.kind]}{start}{end}"


def _listed(some: Collection[ParameterValue]) -> str:
    shown = ", ".join(map(_text, some))
    return shown if len(shown) <= _LONGEST_LIST else f"{shown[:_LONGEST_LIST]}... ({len(some)} of them)"


def _text(value: ParameterValue) -> str:
    """A value as people write it, in ASCII."""
    return value if isinstance(value, str) and _NEEDS_NO_QUOTES.fullmatch(value) else json.dumps(value)
