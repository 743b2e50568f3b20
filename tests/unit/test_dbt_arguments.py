"""Selections, model names, variables: an accepted one is one argument, begins no option and keeps its meaning."""

from __future__ import annotations

import contextlib
import json
import re
from datetime import date
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from runners.dbt.arguments import exclude, select, select_up_to, vars_argument
from runners.parameters import Parameter, ParameterType, ParameterValue, WordError
from runners.parameters import resolve_values as values_of
from tests.support.injections import JSON, NASTY, refusal

TYPES: dict[ParameterType, type | tuple[type, ...]] = {
    ParameterType.STRING: str,
    ParameterType.INTEGER: int,
    ParameterType.NUMBER: (int, float),
    ParameterType.BOOLEAN: bool,
    ParameterType.DATE: str,
}


@pytest.mark.parametrize(
    "selection",
    [
        *(
            "orders",
            "+orders",
            "orders+",
            "2+orders+3",
            "@orders",
            "2021_orders",
            "2+3",
            "my-model",
            "a b",
            "a,b",
            "tag:nightly,+a b+",
            "a.*",
            "*",
        ),
        *(
            "path:models/staging",
            "models/staging/",
            "source:raw.orders+",
            "config.materialized:table",
            "state:modified+",
        ),
        *("test_name:unique", "package:shop", "file:orders.sql", "resource_type:model", "result:error+", "a" * 1000),
    ],
)
def test_valid_selections_are_passed_on_unchanged(selection: str) -> None:
    assert (select(selection), exclude(selection)) == (f"--select={selection}", f"--exclude={selection}")


@pytest.mark.parametrize(
    "selection",
    [
        *(
            "",
            " ",
            ",",
            "+",
            "@",
            "a,",
            ",a",
            "a, b",
            "a  b",
            " a",
            "a ",
            "tag:",
            ":a",
            "a+b",
            "a" * 1001,
            "a\n",
            "é",
            "a\tb",
        ),
        *("-a", "a -b", "a,-b", "a:-b", "+-a", "@-a", "2+-a", "/etc", "path:/etc", "2+/etc", "@/etc", "a//b", "a/-b"),
        *("..", "../a", "path:../a", "a/../b", "path:.", "2+../a", "+../a", "@../a", "@2+../a", "a:../b", "a/.b", ".a"),
        *(
            "**",
            "a/**/b",
            "path:**/a",
            "a/" * 22 + "a",
            "a:b " * 249 + "-",
            "{{a}}",
            "a;b",
            "a'b",
            "$a",
            "a=b",
            "\uff0da",
        ),
    ],
)
def test_an_empty_malformed_or_unsafe_selection_is_refused(
    selection: str,
) -> None:
    """The message names the value and the allowed characters."""
    with pytest.raises(WordError) as refused:
        select(selection)
    assert str(refused.value).startswith(f"The selection {ascii(selection)[:90]}")
    assert "A-Z a-z 0-9" in str(refused.value)


def test_one_argument_excludes_several_selections() -> None:
    """Each selection is checked."""
    assert exclude("elementary", "tag:slow +a,b") == "--exclude=elementary tag:slow +a,b"
    for wrong in ("", "-x", "a "):
        assert refusal(lambda word: exclude("elementary", word), wrong) is not None


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (None, "+fqn:m"),
        ("a", "+fqn:m,a"),
        ("a b,c", "+fqn:m,a +fqn:m,b,c"),
        ("+a 2+b+ tag:x", "+fqn:m,+a +fqn:m,2+b+ +fqn:m,tag:x"),
    ],
)
def test_select_up_to_adds_the_model_to_each_part_of_the_union(selection: str | None, expected: str) -> None:
    assert select_up_to("m", within=selection) == f"--select={expected}"
    assert select_up_to("m", "n") == "--select=+fqn:m +fqn:n"


@given(NASTY)
def test_select_up_to_within_a_selection_refuses_what_both_refuse(text: str) -> None:
    assert refusal(lambda word: select_up_to(word, within="a b"), text) == refusal(select_up_to, text)
    assert refusal(lambda word: select_up_to("m", within=word), text) == refusal(select, text)


def test_the_longest_select_up_to_is_below_the_kernels_limit() -> None:
    assert len(select_up_to("m" * 251, within=" ".join("a" * 500))) < 128 * 1024
    assert refusal(select_up_to, "\u00f6" * 128) is not None


PIECES = st.text(st.sampled_from("ab2.*-+@:/"), max_size=8)


@given(st.lists(PIECES, min_size=1, max_size=4).map(" ".join) | PIECES.map(lambda piece: f"2+{piece}") | NASTY)
def test_no_accepted_selection_begins_an_option_or_leaves_the_project(text: str) -> None:
    if refusal(select, text) is not None:
        return
    assert re.fullmatch(r"[\w.+:@*,/ -]{1,1000}", text, re.ASCII)
    for part in re.split("[ ,]", text):
        # dbt parses a part by this expression
        found = re.fullmatch(r"@?((\d*)\+)?(([\w.]+):)?(?P<value>.*?)(\+(\d*))?", part)
        assert found is not None
        value = found["value"]
        assert value
        assert not value.startswith(("-", "/", "."))
        assert not {"..", ".", "**"} & set(re.split("[/:]", value))


@given(NASTY)
@example("orders.v2")
@example("gr\u00f6\u00dfe")
@example("\u0926\u093f\u0928")
@example("a\u00a0b")
@example("\ud800")
def test_an_accepted_model_name_has_no_operator_path_or_space(text: str) -> None:
    message = refusal(select_up_to, text)
    if message is None:
        assert select_up_to(text) == f"--select=+fqn:{text}"
        assert not set(text) & set("+@:*?[]{}()$\"'`\\,/;&|<>=#!~%^ ")
        assert not any(letter.isspace() or letter < " " or "\x7f" <= letter <= "\x9f" for letter in text)
        text.encode()
    else:
        assert not re.fullmatch(r"\w[\w.-]{0,62}", text)
        assert message.startswith("The model ")


@pytest.mark.parametrize("name", ["", "1a", "a b", "a:", "é", "a\n", "<<", "a" * 129])
def test_a_variable_name_that_yaml_could_misread_is_refused(name: str) -> None:
    with pytest.raises(WordError, match="name"):
        vars_argument({name: "x"})


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_<=~][a-z0-9_.]{0,8}", fullmatch=True), st.tuples(st.sampled_from(ParameterType), JSON)
    )
)
def test_accepted_values_are_read_back_unchanged_from_json_and_yaml(
    chosen: dict[str, tuple[ParameterType, Any]],
) -> None:
    declared = {name: Parameter(kind) for name, (kind, _) in chosen.items()}
    values: dict[str, ParameterValue] = {}
    for name, (_, value) in chosen.items():
        with contextlib.suppress(WordError):
            values |= values_of({name: declared[name]}, {name: value})
    argument = vars_argument(values)
    assert argument.startswith("--vars={")
    assert "\0" not in argument
    argument.encode()
    text = argument.removeprefix("--vars=")
    for read in (json.loads(text), yaml.load(text, yaml.SafeLoader), yaml.load(text, yaml.CSafeLoader)):
        assert typed(read) == typed(values)
    for name, fitting in values.items():
        assert isinstance(fitting, TYPES[declared[name].kind])
        assert not (isinstance(fitting, str) and re.search(r"\{[{%#]", fitting))


def typed(values: dict[str, Any]) -> dict[str, tuple[type, str]]:
    """Each value with its type; 1, 1.0 and True differ, and 0.0 and -0.0."""
    return {name: (type(value), repr(value)) for name, value in values.items()}


@given(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.dates())
@example(0, 1e20, date.min)
@example(0, 1e-7, date.max)
def test_integers_numbers_and_dates_are_read_back_unchanged_from_yaml(whole: int, real: float, day: date) -> None:
    values: dict[str, ParameterValue] = {"whole": whole, "real": real, "day": day.isoformat()}
    assert typed(yaml.safe_load(vars_argument(values).removeprefix("--vars="))) == typed(values)
