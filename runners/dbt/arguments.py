"""Selections, model names and variables, each as one argument of dbt. Pure; all functions raise WordError."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from runners.parameters import NAME, NAME_ALLOWED, ParameterValue
from runners.words import WordError

# By default dbt runs each test that refers to a selected model, even if the test's other models are neither selected
# nor upstream, so that they are old or missing. This option leaves such tests out.
ONLY_BUILDABLE_TESTS = "--indirect-selection=buildable"

_MAX_SELECTION = 1000  # characters

# A part of a selection, between spaces and commas: `@`, `2+`, a method, a value and `+2`. All but the value are
# optional; without a value it selects nothing, which is a success for dbt. A path component that begins with a dot
# leads out of the project; an absolute path, or one of hundreds of components, breaks dbt; each `**/` multiplies the
# time of the search.
_PIECE = r"[\w*][\w.*-]*"
_PART = re.compile(rf"(?!.*\*\*)@?(?:[0-9]*\+)?+{_PIECE}(?:[:/]{_PIECE}){{0,20}}/?(?:\+[0-9]*)?", re.ASCII)
_MODEL = re.compile(r"\w[\w-]{0,254}", re.ASCII)  # with a dot, dbt takes it for a path or a file name


def select(selection: str) -> str:
    """The argument that selects these nodes."""
    return f"--select={_selection(selection)}"


def exclude(*selections: str) -> str:
    """The argument that leaves out the union of these selections."""
    return f"--exclude={' '.join(map(_selection, selections))}"


def select_up_to(model: str) -> str:
    """The argument that selects a model and all nodes upstream of it.

    Folders, packages and sources may have such a name too; this function can't know what the name belongs to.
    """
    return f"--select=+{_model(model)}"


def select_within(model: str, selection: str | None) -> str:
    """The argument that selects the intersection of `select_up_to` and a selection; None for no selection."""
    if selection is None:
        return select_up_to(model)
    # in dbt a space is a union, and a comma an intersection, which binds tighter
    return f"--select={' '.join(f'+{_model(model)},{part}' for part in _selection(selection).split(' '))}"


def _model(name: str) -> str:
    if not _MODEL.fullmatch(name):
        raise WordError("model", name, "one name of at most 255 letters, digits, _ and -, not beginning with -")
    return name


def _selection(selection: str) -> str:
    # part by part, because one expression for the whole selection could take exponential time
    parts = re.split("[ ,]", selection[: _MAX_SELECTION + 1])
    if len(selection) > _MAX_SELECTION or not all(map(_PART.fullmatch, parts)):
        raise WordError(
            "selection",
            selection,
            "dbt's names, methods and graph operators, joined by single spaces or commas: A-Z a-z 0-9 _ . + : @ * / -, "
            f"no name or piece of a path beginning with - or ., no **, at most {_MAX_SELECTION} characters",
        )
    return selection


def vars_argument(values: Mapping[str, ParameterValue]) -> str:
    """The argument that passes these variables to dbt, as one JSON object. values: from `parameters.resolve_values`."""
    for name in values:
        if not NAME.fullmatch(name):
            raise WordError("variable's name", name, NAME_ALLOWED)
    return f"--vars={{{', '.join(f'{json.dumps(name)}: {_json(value)}' for name, value in values.items())}}}"


def _json(value: ParameterValue) -> str:
    """JSON that is the same value when dbt reads it as YAML."""
    # JSON escapes characters above U+FFFF as two surrogates, which YAML does not accept
    text = json.dumps(value, ensure_ascii=False)
    # YAML reads a number with an exponent and no dot as a string
    return text.replace("e", ".0e") if isinstance(value, float) and "." not in text else text
