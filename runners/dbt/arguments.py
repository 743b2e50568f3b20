"""Selections, model names and variables, each as one argument of dbt. Pure; all functions raise WordError."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import zip_longest
from types import MappingProxyType

from runners.parameters import NAME, NAME_ALLOWED, ParameterValue, WordError

# By default dbt runs each test that refers to a selected model, even if the test's other models are neither selected
# nor upstream, so that they are old or missing. This option leaves such tests out.
ONLY_BUILDABLE_TESTS = "--indirect-selection=buildable"


class Flag(StrEnum):
    """An option of dbt that takes no value, and that a parameter may switch on."""

    FULL_REFRESH = "--full-refresh"
    EMPTY = "--empty"
    FAIL_FAST = "--fail-fast"
    STORE_FAILURES = "--store-failures"
    WARN_ERROR = "--warn-error"


# The commands of dbt that take each flag, of those that run what a pipeline selects.
FLAG_COMMANDS: Mapping[Flag, frozenset[str]] = MappingProxyType(
    {
        Flag.FULL_REFRESH: frozenset({"build", "run"}),
        Flag.EMPTY: frozenset({"build", "run"}),
        Flag.FAIL_FAST: frozenset({"build", "run", "test"}),
        Flag.STORE_FAILURES: frozenset({"build", "test"}),
        Flag.WARN_ERROR: frozenset({"build", "run", "test"}),
    }
)

_VARS = "--vars="
_SELECTIONS = frozenset({"--select", "-s", "--models", "--model", "-m"})
_MAX_SELECTION = 1000  # characters

# A part of a selection, between spaces and commas: `@`, `2+`, a method, a value and `+2`. All but the value are
# optional; without a value it selects nothing, which is a success for dbt. A path component that begins with a dot
# leads out of the project; an absolute path, or one of hundreds of components, breaks dbt; each `**/` multiplies the
# time of the search.
_PIECE = r"[\w*][\w.*-]*"
_PART = re.compile(rf"(?!.*\*\*)@?(?:[0-9]*\+)?+{_PIECE}(?:[:/]{_PIECE}){{0,20}}/?(?:\+[0-9]*)?", re.ASCII)
# dbt's word for a model: letters of any script, and none of the characters that mean something in a selection
_LETTER = r"[A-Za-z0-9_]|[^\x00-\x9f\s\ud800-\udfff]"
_MODEL = re.compile(rf"(?:{_LETTER})(?:{_LETTER}|[.-])*")
_MAX_MODEL = 251  # bytes, as of a file's name without its ending


def select(selection: str) -> str:
    """The argument that selects these nodes."""
    return f"--select={_selection(selection)}"


def exclude(*selections: str) -> str:
    """The argument that leaves out the union of these selections."""
    return f"--exclude={' '.join(map(_selection, selections))}"


def check_model(name: str) -> str:
    """The name of a model, as it may be selected. Raises WordError for what can be no such name."""
    if len(name) > _MAX_MODEL or not _MODEL.fullmatch(name) or len(name.encode()) > _MAX_MODEL:
        allowed = f"one name of at most {_MAX_MODEL} bytes: letters and digits of any script, _ - and ., first a letter"
        raise WordError("model", name, f"{allowed}, a digit or _")
    return name


def select_up_to(*models: str, within: str | None = None) -> str:
    """The argument that selects models and all nodes upstream of them.

    models: dbt's words, each of which must be the word for one model only; see runners.dbt.listing.
    within: a selection, of which only these nodes are taken; None for all nodes.
    """
    words = [f"+fqn:{check_model(model)}" for model in models]
    if within is not None:
        # in dbt a space is a union, and a comma an intersection, which binds tighter
        words = [f"{word},{part}" for word in words for part in _selection(within).split(" ")]
    return f"--select={' '.join(words)}"


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
    return f"{_VARS}{{{', '.join(f'{json.dumps(name)}: {_json(value)}' for name, value in values.items())}}}"


def are_variables(argument: str) -> bool:
    """Whether an argument is one of `vars_argument`."""
    return argument.startswith(_VARS)


def only_variables(arguments: Sequence[str]) -> Iterator[str]:
    """Those of a command's arguments that pass variables to dbt, in whatever spelling."""
    for argument, following in zip_longest(arguments, arguments[1:]):
        if are_variables(argument):
            yield argument
        elif argument == _VARS.removesuffix("=") and following is not None:
            yield f"{_VARS}{following}"


def without_flags(arguments: Sequence[str]) -> Iterator[str]:
    """Those of a command's arguments that are no flags, as `dbt ls` takes them."""
    return (argument for argument in arguments if argument not in frozenset(Flag))


def is_selection(argument: str) -> bool:
    """Whether an argument of a command begins a selection; those of dbt's named selectors don't count."""
    return argument.partition("=")[0] in _SELECTIONS


def _json(value: ParameterValue) -> str:
    """JSON that is the same value when dbt reads it as YAML."""
    # JSON escapes characters above U+FFFF as two surrogates, which YAML does not accept
    text = json.dumps(value, ensure_ascii=False)
    # YAML reads a number with an exponent and no dot as a string
    return text.replace("e", ".0e") if isinstance(value, float) and "." not in text else text
