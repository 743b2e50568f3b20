"""Parameters of pipelines: their declarations, and the values of a run. Pure; all functions raise WordError."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

_MAX_SHOWN = 100  # characters

# Control characters, line breaks, lone surrogates, and characters that YAML does not allow.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


class WordError(ValueError):
    """A word is refused. The message names it, shows it (in ASCII, cut) and says what is allowed."""

    def __init__(self, what: str, value: object, allowed: str) -> None:
        super().__init__(f"The {what} {_shown(value)} is refused: it must be {allowed}.")


def _shown(value: object) -> str:
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # a number of thousands of digits; a list nested too deep
        text = f"(of type {type(value).__name__})"
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


ParameterValue = str | int | float | bool

# A parameter's name becomes the name of a variable of dbt, which is YAML.
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
NAME_ALLOWED = "at most 128 letters, digits and _, beginning with no digit"

_MAX_TOTAL_SIZE = 8192  # bytes
_MAX_LIST = 100  # characters
_INTEGER_LIMIT = 2**63

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# dbt renders each string variable, so these would be executed. A brace at the end could become one of them where a
# project concatenates two variables.
_JINJA = re.compile(r"\{[{%#]|\{\Z")
_UNQUOTED = re.compile(r"[A-Za-z0-9_.-]+")


class ParameterType(StrEnum):
    """The type of a parameter."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"


_DESCRIPTIONS = {
    ParameterType.STRING: "a string without control characters, without {{, {% and {# and without { at its end",
    ParameterType.INTEGER: "an integer of at most 64 bits, such as 3000007",
    ParameterType.NUMBER: "a finite number, such as -1.5e3",
    ParameterType.BOOLEAN: "true or false",
    ParameterType.DATE: "a date, such as 2026-11-30",
}
# The types that have an order, and so may have bounds.
_ORDERED_TYPES = {ParameterType.INTEGER: "an integer", ParameterType.NUMBER: "a number", ParameterType.DATE: "a date"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A declared parameter; `check` refuses inconsistent ones.

    default: None if the program that gets the parameter has its own. minimum, maximum: inclusive, None for no bound.
    choices: the allowed values, None for any. All values are of the kind; a date is ISO text. required: a run must
    give it a value.
    """

    kind: ParameterType
    default: ParameterValue | None = None
    minimum: ParameterValue | None = None
    maximum: ParameterValue | None = None
    choices: tuple[ParameterValue, ...] | None = None
    required: bool = False


def check(name: str, parameter: Parameter) -> None:
    """Refuse an inconsistent declaration, with the first reason of the part that is wrong."""
    if not NAME.fullmatch(name):
        raise WordError("parameter's name", name, NAME_ALLOWED)
    kind, low, high = parameter.kind, parameter.minimum, parameter.maximum
    for what, bound in (("minimum", low), ("maximum", high)):
        if bound is not None and kind not in _ORDERED_TYPES:
            raise WordError(f"{what} of parameter {name} =", bound, f"left out: a {kind} has no bounds")
        _check_declared(f"{what} of parameter {name} =", Parameter(kind), bound)
    if low is not None and high is not None and _order(low) > _order(high):
        raise WordError(f"minimum of parameter {name} =", low, f"no more than its maximum, {_literal(high)}")
    if parameter.choices is not None and not parameter.choices:
        raise WordError(f"list of choices of parameter {name} =", [], "left out, or have one choice at least")
    for choice in parameter.choices or ():
        _check_declared(f"choice of parameter {name} =", Parameter(kind, minimum=low, maximum=high), choice)
    _check_declared(f"default of parameter {name} =", parameter, parameter.default)
    if parameter.required and parameter.default is not None:
        raise WordError(f"default of parameter {name} =", parameter.default, "left out: a run must give it a value")


def resolve_values(declared: Mapping[str, Parameter], given: Mapping[str, object]) -> dict[str, ParameterValue]:
    """The values of a run by name: the given ones, converted to their declared types, else the defaults.

    given: None counts as not given. A string that reads as the declared type is converted.
    """
    for name, parameter in declared.items():
        check(name, parameter)
    for name in given:
        if name not in declared:
            raise WordError("parameter", name, f"one of those declared ({_enumerate(declared) or 'none'})")
    for name, parameter in declared.items():
        if parameter.required and given.get(name) is None:
            raise WordError("parameter", name, f"given, since it is required: {_describe(parameter)}")
    chosen = {name: declared[name].default if given.get(name) is None else given[name] for name in declared}
    values = {name: _convert(name, declared[name], value) for name, value in chosen.items() if value is not None}
    size = len(json.dumps(values, ensure_ascii=False).encode())
    if size > _MAX_TOTAL_SIZE:
        raise WordError("parameters' size in bytes", size, f"at most {_MAX_TOTAL_SIZE} for all of them")
    return values


def _check_declared(what: str, parameter: Parameter, value: ParameterValue | None) -> None:
    """Refuse a value of another type or out of bounds. Strings are not converted: people are shown the declaration."""
    is_exact = isinstance(value, str) == (parameter.kind in (ParameterType.STRING, ParameterType.DATE))
    if value is not None and (not is_exact or _convert_or_none(parameter, value) is None):
        raise WordError(what, value, _describe(parameter))


def _convert(name: str, parameter: Parameter, value: object) -> ParameterValue:
    """The value as the declared type. Raises WordError."""
    converted = _convert_or_none(parameter, value)
    if converted is None:
        raise WordError(f"parameter {name} =", value, _describe(parameter))
    return converted


def _convert_or_none(parameter: Parameter, value: object) -> ParameterValue | None:
    """The value as the declared type, None if it has another type or is out of bounds."""
    kind, low, high = parameter.kind, parameter.minimum, parameter.maximum
    try:
        converted = _parse_text(kind, value) if isinstance(value, str) else _accept(kind, value)
    except ValueError:  # 2026-02-30, or thousands of digits
        return None
    if converted is None or (parameter.choices is not None and converted not in parameter.choices):
        return None
    below = low is not None and _order(converted) < _order(low)
    above = high is not None and _order(converted) > _order(high)
    return None if below or above else converted


def _parse_text(kind: ParameterType, text: str) -> ParameterValue | None:
    """The value that a string spells, None if it is no value of the type. Raises ValueError."""
    match kind:
        case ParameterType.STRING:
            return None if UNPRINTABLE.search(text) or _JINJA.search(text) else text
        case ParameterType.INTEGER:
            return _accept(kind, int(text)) if _INTEGER.fullmatch(text) else None
        case ParameterType.NUMBER:
            return _accept(kind, json.loads(text)) if _NUMBER.fullmatch(text) else None
        case ParameterType.BOOLEAN:
            return {"true": True, "false": False}.get(text)
        case ParameterType.DATE:
            return str(date.fromisoformat(text)) if _DATE.fullmatch(text) else None


def _accept(kind: ParameterType, value: object) -> ParameterValue | None:
    """A value that is no string, None if it is no value of the type."""
    match value:
        case bool():
            return value if kind is ParameterType.BOOLEAN else None
        case int():
            fits = kind in (ParameterType.INTEGER, ParameterType.NUMBER) and -_INTEGER_LIMIT <= value < _INTEGER_LIMIT
            return value if fits else None
        case float():
            return value if kind is ParameterType.NUMBER and math.isfinite(value) else None
        case _:
            return None


def _order(value: ParameterValue) -> float:
    """A number that orders the values of a type; of the ordered types only dates are strings."""
    return date.fromisoformat(value).toordinal() if isinstance(value, str) else value


def _describe(parameter: Parameter) -> str:
    """The allowed values, in words."""
    if parameter.choices is not None:
        return f"one of {_enumerate(parameter.choices)}"
    low, high = parameter.minimum, parameter.maximum
    if low is None and high is None:
        return _DESCRIPTIONS[parameter.kind]
    start = "" if low is None else f" from {_literal(low)}"
    end = " on" if high is None else f" {'to' if start else 'up to'} {_literal(high)}"
    return f"{_ORDERED_TYPES[parameter.kind]}{start}{end}"


def _enumerate(values: Collection[ParameterValue]) -> str:
    shown = ", ".join(map(_literal, values))
    return shown if len(shown) <= _MAX_LIST else f"{shown[:_MAX_LIST]}... ({len(values)} of them)"


def _literal(value: ParameterValue) -> str:
    """A value as people write it, in ASCII."""
    return value if isinstance(value, str) and _UNQUOTED.fullmatch(value) else json.dumps(value)
