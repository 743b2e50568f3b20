"""Selections, model names, variables: what is let through is one argument, begins no option and keeps its meaning."""

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

from runners.dbt_words import Kind, Value, Variable, exclude, select, select_up_to, variables, vars_argument
from runners.words import WordError
from tests.support.injections import WORDS, refusal

NASTY = (
    st.text(st.sampled_from("ab2.+:@*,/ -_{}%#\\'\"\n\0\x85\ud800é"), max_size=12) | st.text() | st.sampled_from(WORDS)
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | NASTY
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NASTY, inner, max_size=3))
TYPES: dict[Kind, type | tuple[type, ...]] = {
    Kind.STRING: str,
    Kind.INTEGER: int,
    Kind.NUMBER: (int, float),
    Kind.BOOLEAN: bool,
    Kind.DATE: str,
}


def one(kind: Kind, value: object) -> Value:
    return variables({"x": Variable(kind)}, {"x": value})["x"]


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
def test_selections_that_people_write_are_taken_as_they_are(selection: str) -> None:
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
def test_a_selection_that_could_be_more_or_nothing_is_refused_with_its_value_and_what_is_allowed(
    selection: str,
) -> None:
    with pytest.raises(WordError) as refused:
        select(selection)
    assert str(refused.value).startswith(f"The selection {ascii(selection)[:90]}")
    assert "A-Z a-z 0-9" in str(refused.value)


PIECES = st.text(st.sampled_from("ab2.*-+@:/"), max_size=8)


@given(st.lists(PIECES, min_size=1, max_size=4).map(" ".join) | PIECES.map(lambda piece: f"2+{piece}") | NASTY)
def test_of_no_selection_that_is_taken_does_a_word_begin_an_option_or_a_path_lead_out_of_the_project(text: str) -> None:
    if refusal(select, text) is not None:
        return
    assert re.fullmatch(r"[\w.+:@*,/ -]{1,1000}", text, re.ASCII)
    for part in re.split("[ ,]", text):
        # as dbt itself takes a part to pieces
        found = re.fullmatch(r"@?((\d*)\+)?(([\w.]+):)?(?P<value>.*?)(\+(\d*))?", part)
        assert found is not None
        value = found["value"]
        assert value
        assert not value.startswith(("-", "/", "."))
        assert not {"..", ".", "**"} & set(re.split("[/:]", value))


@given(NASTY)
@example("orders.v2")
@example("orders.sql")
def test_a_model_name_is_one_name_without_operators_folders_or_files(text: str) -> None:
    told = refusal(select_up_to, text)
    if told is None:
        assert select_up_to(text) == f"--select=+{text}"
        assert not set(text) & set("+@:*,/ .")
    else:
        assert not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,254}", text)
        assert told.startswith("The model ")


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Kind.STRING, "table_1", "table_1"),
        (Kind.STRING, "", ""),
        (Kind.STRING, "3000007", "3000007"),
        (Kind.STRING, "a } %} #} b", "a } %} #} b"),
        (Kind.STRING, '{"a": {"b": 1} }', '{"a": {"b": 1} }'),
        (Kind.INTEGER, 7, 7),
        (Kind.INTEGER, "3000007", 3000007),
        (Kind.INTEGER, "-1", -1),
        (Kind.INTEGER, -(2**63), -(2**63)),
        (Kind.NUMBER, 1.5, 1.5),
        (Kind.NUMBER, 7, 7),
        (Kind.NUMBER, "1e20", 1e20),
        (Kind.NUMBER, "-0.25", -0.25),
        (Kind.BOOLEAN, True, True),
        (Kind.BOOLEAN, "false", False),
        (Kind.DATE, "2026-11-30", "2026-11-30"),
    ],
)
def test_a_value_or_a_string_that_reads_as_the_declared_type_is_taken(kind: Kind, value: Any, expected: Any) -> None:
    fitting = one(kind, value)
    assert (fitting, type(fitting)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *[
            (Kind.STRING, value)
            for value in (1, True, 1.5, [], {}, ["a"], {"a": 1}, "{{ 1 }}", "{%", "{#", "a{", "a\nb")
        ],
        *[
            (Kind.STRING, value)
            for value in ("\0", "\x1b", "\x7f", "\x85", "\u2028", "\ud800", "\udc80", "\uffff", "{{{")
        ],
        *[
            (Kind.INTEGER, value)
            for value in (True, 1.0, "1.0", " 1", "1 ", "+1", "01", "1_0", "0x1", "", "\u0661", 2**63)
        ],
        *[(Kind.INTEGER, value) for value in ("9" * 5000, [1], "1\n", "--1")],
        *[
            (Kind.NUMBER, value)
            for value in (True, "nan", "inf", "1e999", float("inf"), float("nan"), "1.", ".5", "1e", "")
        ],
        *[(Kind.BOOLEAN, value) for value in (0, 1, "yes", "True", "TRUE", "1", "", "true ", [True])],
        *[(Kind.DATE, value) for value in ("2026-02-30", "20261130", "2026-W01-1", "0000-01-01", "2026-1-1", 20261130)],
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_its_name(kind: Kind, value: object) -> None:
    with pytest.raises(WordError, match=r"^The parameter x = .* is refused: it must be ") as refused:
        one(kind, value)
    assert len(str(refused.value)) < 300
    assert str(refused.value).isascii()


def test_an_undeclared_name_is_refused_and_the_declared_ones_are_told() -> None:
    declared = {"day": Variable(Kind.DATE), "size": Variable(Kind.INTEGER)}
    with pytest.raises(WordError, match=r"^The parameter 'dya' is refused: .*\(day, size\)"):
        variables(declared, {"dya": "2026-11-30"})
    with pytest.raises(WordError, match="none"):
        variables({}, {"x": 1})


def test_defaults_stand_in_for_what_is_not_given_and_null_is_not_given() -> None:
    declared = {"a": Variable(Kind.INTEGER, 1), "b": Variable(Kind.STRING, "b"), "c": Variable(Kind.BOOLEAN)}
    assert variables(declared, {}) == {"a": 1, "b": "b"}
    assert variables(declared, {"a": None, "b": "", "c": False}) == {"a": 1, "b": "", "c": False}


def test_a_default_that_does_not_fit_is_refused_too() -> None:
    with pytest.raises(WordError, match=r"parameter x = '\{\{ 1 }}'"):
        variables({"x": Variable(Kind.STRING, "{{ 1 }}")}, {})


@pytest.mark.parametrize("name", ["", "1a", "a b", "a:", "é", "a\n", "<<", "a" * 129])
def test_a_name_that_yaml_could_read_otherwise_is_refused(name: str) -> None:
    with pytest.raises(WordError, match="name"):
        variables({name: Variable(Kind.STRING)}, {name: "x"})


def test_all_variables_together_are_at_most_8_kib() -> None:
    declared = {"x": Variable(Kind.STRING)}
    room = 8192 - len(vars_argument({"x": ""}))
    assert len(vars_argument(variables(declared, {"x": "é" * (room // 2)})).encode()) in (8191, 8192)
    with pytest.raises(WordError, match="8192"):
        variables(declared, {"x": "é" * (room // 2 + 1)})


@given(
    st.dictionaries(st.from_regex(r"[a-z_<=~][a-z0-9_.]{0,8}", fullmatch=True), st.tuples(st.sampled_from(Kind), JSON))
)
def test_what_is_let_through_is_read_back_as_the_same_by_json_and_by_yaml(chosen: dict[str, tuple[Kind, Any]]) -> None:
    declared = {name: Variable(kind) for name, (kind, _) in chosen.items()}
    values: dict[str, Value] = {}
    for name, (_, value) in chosen.items():
        with contextlib.suppress(WordError):
            values |= variables({name: declared[name]}, {name: value})
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
    """With types, and without taking 1, 1.0 and True, or 0.0 and -0.0, for the same."""
    return {name: (type(value), repr(value)) for name, value in values.items()}


@given(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.dates())
@example(0, 1e20, date.min)
@example(0, 1e-7, date.max)
def test_each_value_of_a_type_is_taken_as_is_its_text_and_read_back_by_yaml(whole: int, real: float, day: date) -> None:
    assert one(Kind.INTEGER, whole) == one(Kind.INTEGER, json.dumps(whole)) == whole
    assert one(Kind.NUMBER, real) == one(Kind.NUMBER, json.dumps(real)) == real
    assert one(Kind.DATE, day.isoformat()) == day.isoformat()
    values: dict[str, Value] = {"whole": whole, "real": real, "day": day.isoformat()}
    assert typed(yaml.safe_load(vars_argument(values).removeprefix("--vars="))) == typed(values)


@given(st.text(st.sampled_from("{%#a}"), max_size=6), st.text(st.sampled_from("{%#a}"), max_size=6))
def test_no_two_strings_that_are_let_through_make_a_template_side_by_side(first: str, second: str) -> None:
    try:
        both = str(one(Kind.STRING, first)) + str(one(Kind.STRING, second))
    except WordError:
        return
    assert not re.search(r"\{[{%#]", both)


@given(st.sampled_from(Kind), JSON | st.just(10**5000) | st.just("9" * 5000))
def test_a_refusal_is_short_and_plain_whatever_was_given(kind: Kind, value: Any) -> None:
    told = refusal(lambda _: variables({"x": Variable(kind)}, {"x": value}), "")
    assert told is None or (told.isascii() and len(told) < 300)
