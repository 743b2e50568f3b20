"""Selections, model names and variables that dbt is given, each as one argument. Pure; all raise WordError."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from runners.parameters import NAME, NAME_ALLOWED, ParameterValue
from runners.words import WordError

# By itself dbt runs each test that touches a selected model, also one whose other models are not selected and not
# upstream: those are of an earlier run, or not there. This leaves such tests out.
ONLY_BUILDABLE_TESTS = "--indirect-selection=buildable"

_LONGEST_SELECTION = 1000

# What stands between spaces and commas: `@`, `2+`, a method, a value and `+2`, all but the value optional; without one
# it would select nothing, and dbt call it a success. A piece of a path that begins with a dot leads out of the project;
# an absolute path, or one of hundreds of pieces, breaks dbt; each `**/` multiplies the time of the search.
_PIECE = r"[\w*][\w.*-]*"
_PART = re.compile(rf"(?!.*\*\*)@?(?:[0-9]*\+)?+{_PIECE}(?:[:/]{_PIECE}){{0,20}}/?(?:\+[0-9]*)?", re.ASCII)
_MODEL = re.compile(r"\w[\w-]{0,254}", re.ASCII)  # a dot would make it a path of folders, or the name of a file


def select(selection: str) -> str:
    """The argument that selects."""
    return f"--select={_selection(selection)}"


def exclude(*selections: str) -> str:
    """The argument that leaves out what any of these selects."""
    return f"--exclude={' '.join(map(_selection, selections))}"


def select_up_to(model: str) -> str:
    """The argument that selects a model and everything upstream of it.

    Folders, packages and sources have such names too: that it is a model, only the project knows.
    """
    return f"--select=+{_model(model)}"


def select_within(model: str, selection: str | None) -> str:
    """The argument that selects what `select_up_to` does and the selection too, if there is one."""
    if selection is None:
        return select_up_to(model)
    # a space is dbt's union and a comma its intersection, which binds tighter
    return f"--select={' '.join(f'+{_model(model)},{part}' for part in _selection(selection).split(' '))}"


def _model(name: str) -> str:
    if not _MODEL.fullmatch(name):
        raise WordError("model", name, "one name of at most 255 letters, digits, _ and -, not beginning with -")
    return name


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


def vars_argument(values: Mapping[str, ParameterValue]) -> str:
    """The argument that gives dbt these values, which `parameters.values` has let through, as one JSON object."""
    for name in values:
        if not NAME.fullmatch(name):
            raise WordError("variable's name", name, NAME_ALLOWED)
    return f"--vars={{{', '.join(f'{json.dumps(name)}: {_json(value)}' for name, value in values.items())}}}"


def _json(value: ParameterValue) -> str:
    """JSON that dbt, which reads it as YAML, reads as the same value."""
    # YAML knows no halves of characters, as JSON escapes those beyond its first 65,536.
    text = json.dumps(value, ensure_ascii=False)
    # Without a dot, YAML takes a number with an exponent for a string.
    return text.replace("e", ".0e") if isinstance(value, float) and "." not in text else text
