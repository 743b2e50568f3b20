"""Parameters: the accepted values of each type, valid declarations, and the messages of refusals."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runners.parameters import Parameter, ParameterType, ParameterValue, WordError, check, resolve_values
from tests.support.injections import JSON, refusal


def resolve_one(kind: ParameterType, value: object) -> ParameterValue:
    return resolve_values({"x": Parameter(kind)}, {"x": value})["x"]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (ParameterType.STRING, "table_1", "table_1"),
        (ParameterType.STRING, "", ""),
        (ParameterType.STRING, "3000007", "3000007"),
        (ParameterType.STRING, "a } %} #} b", "a } %} #} b"),
        (ParameterType.STRING, '{"a": {"b": 1} }', '{"a": {"b": 1} }'),
        (ParameterType.INTEGER, 7, 7),
        (ParameterType.INTEGER, "3000007", 3000007),
        (ParameterType.INTEGER, "-1", -1),
        (ParameterType.INTEGER, -(2**63), -(2**63)),
        (ParameterType.NUMBER, 1.5, 1.5),
        (ParameterType.NUMBER, 7, 7),
        (ParameterType.NUMBER, "1e20", 1e20),
        (ParameterType.NUMBER, "-0.25", -0.25),
        (ParameterType.BOOLEAN, True, True),
        (ParameterType.BOOLEAN, "false", False),
        (ParameterType.DATE, "2026-11-30", "2026-11-30"),
    ],
)
def test_a_value_or_its_text_is_converted_to_the_declared_type(kind: ParameterType, value: Any, expected: Any) -> None:
    fitting = resolve_one(kind, value)
    assert (fitting, type(fitting)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *[
            (ParameterType.STRING, value)
            for value in (1, True, 1.5, [], {}, ["a"], {"a": 1}, "{{ 1 }}", "{%", "{#", "a{", "a\nb")
        ],
        *[
            (ParameterType.STRING, value)
            for value in ("\0", "\x1b", "\x7f", "\x85", "\u2028", "\ud800", "\udc80", "\uffff", "{{{")
        ],
        *[
            (ParameterType.INTEGER, value)
            for value in (True, 1.0, "1.0", " 1", "1 ", "+1", "01", "1_0", "0x1", "", "\u0661", 2**63)
        ],
        *[(ParameterType.INTEGER, value) for value in ("9" * 5000, [1], "1\n", "--1")],
        *[
            (ParameterType.NUMBER, value)
            for value in (True, "nan", "inf", "1e999", float("inf"), float("nan"), "1.", ".5", "1e", "")
        ],
        *[(ParameterType.BOOLEAN, value) for value in (0, 1, "yes", "True", "TRUE", "1", "", "true ", [True])],
        *[
            (ParameterType.DATE, value)
            for value in ("2026-02-30", "20261130", "2026-W01-1", "0000-01-01", "2026-1-1", 20261130)
        ],
    ],
)
def test_an_invalid_value_is_refused_with_the_name_of_its_parameter(kind: ParameterType, value: object) -> None:
    with pytest.raises(WordError, match=r"^The parameter x = .* is refused: it must be ") as refused:
        resolve_one(kind, value)
    assert len(str(refused.value)) < 300
    assert str(refused.value).isascii()


def test_an_undeclared_name_is_refused_and_the_declared_ones_listed() -> None:
    declared = {"day": Parameter(ParameterType.DATE), "size": Parameter(ParameterType.INTEGER)}
    with pytest.raises(WordError, match=r"^The parameter 'dya' is refused: .*\(day, size\)"):
        resolve_values(declared, {"dya": "2026-11-30"})
    with pytest.raises(WordError, match="none"):
        resolve_values({}, {"x": 1})


def test_a_default_replaces_a_missing_value_and_null() -> None:
    declared = {
        "a": Parameter(ParameterType.INTEGER, 1),
        "b": Parameter(ParameterType.STRING, "b"),
        "c": Parameter(ParameterType.BOOLEAN),
    }
    assert resolve_values(declared, {}) == {"a": 1, "b": "b"}
    assert resolve_values(declared, {"a": None, "b": "", "c": False}) == {"a": 1, "b": "", "c": False}


def test_a_required_parameter_must_be_given() -> None:
    declared = {"day": Parameter(ParameterType.DATE, required=True), "n": Parameter(ParameterType.INTEGER, 1)}
    assert resolve_values(declared, {"day": "2026-11-30"}) == {"day": "2026-11-30", "n": 1}
    said = r"^The parameter 'day' is refused: it must be given, since it is required: a date, such as 2026-11-30"
    for values in ({}, {"day": None}):
        with pytest.raises(WordError, match=said):
            resolve_values(declared, values)


def test_a_wrong_default_is_refused_even_if_a_value_is_given() -> None:
    with pytest.raises(WordError, match=r"^The default of parameter x = '\{\{ 1 }}'"):
        resolve_values({"x": Parameter(ParameterType.STRING, "{{ 1 }}")}, {"x": "a"})


@pytest.mark.parametrize("name", ["", "1a", "a b", "a:", "é", "a\n", "<<", "a" * 129])
def test_a_parameter_name_that_yaml_could_misread_is_refused(name: str) -> None:
    with pytest.raises(WordError, match="name"):
        check(name, Parameter(ParameterType.STRING))


def test_all_parameters_together_are_at_most_8_kib() -> None:
    declared = {"x": Parameter(ParameterType.STRING)}
    room = 8192 - len('{"x": ""}')
    assert resolve_values(declared, {"x": "é" * (room // 2)})
    with pytest.raises(WordError, match="8192"):
        resolve_values(declared, {"x": "é" * (room // 2 + 1)})


@given(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.dates())
@example(0, 1e20, date.min)
@example(0, 1e-7, date.max)
def test_integers_numbers_and_dates_are_accepted_as_value_and_as_text(whole: int, real: float, day: date) -> None:
    assert resolve_one(ParameterType.INTEGER, whole) == resolve_one(ParameterType.INTEGER, json.dumps(whole)) == whole
    assert resolve_one(ParameterType.NUMBER, real) == resolve_one(ParameterType.NUMBER, json.dumps(real)) == real
    assert resolve_one(ParameterType.DATE, day.isoformat()) == day.isoformat()


MONTH = Parameter(ParameterType.INTEGER, minimum=1, maximum=12)
CARRIER = Parameter(ParameterType.STRING, choices=("AA", "B6", "DL"))
IN_2013 = Parameter(ParameterType.DATE, minimum="2013-01-01", maximum="2013-12-31")


@pytest.mark.parametrize(
    ("parameter", "accepted", "refused", "allowed"),
    [
        (MONTH, (1, 12, "1", "12"), (0, 13, "0", "13", -1), "an integer from 1 to 12"),
        (
            Parameter(ParameterType.INTEGER, minimum=2**53 + 1),
            (2**53 + 1,),
            (2**53,),
            "an integer from 9007199254740993 on",
        ),
        (Parameter(ParameterType.INTEGER, maximum=-1), (-1,), (0, 2**62), "an integer up to -1"),
        (
            Parameter(ParameterType.NUMBER, minimum=0, maximum=0.5),
            (0, -0.0, "0.5"),
            (-1e-9, 0.51),
            "a number from 0 to 0.5",
        ),
        (IN_2013, ("2013-01-01", "2013-12-31"), ("2012-12-31", "2014-01-01"), "a date from 2013-01-01 to 2013-12-31"),
        (
            Parameter(ParameterType.DATE, minimum="0999-12-31"),
            ("1000-01-01",),
            ("0999-12-30",),
            "a date from 0999-12-31 on",
        ),
        (CARRIER, ("AA", "DL"), ("aa", "AA ", "", "ZZ"), "one of AA, B6, DL"),
        (
            Parameter(ParameterType.STRING, choices=("a b", "", "\u00e9")),
            ("a b", ""),
            ("a",),
            r'one of "a b", "", "\u00e9"',
        ),
        (Parameter(ParameterType.INTEGER, choices=(1, 3)), (1, "3"), (2, True), "one of 1, 3"),
        (Parameter(ParameterType.NUMBER, choices=(1, 2.5)), (1, 1.0, "2.5"), (2,), "one of 1, 2.5"),
        (Parameter(ParameterType.BOOLEAN, choices=(True,)), (True, "true"), (False, 1), "one of true"),
        (Parameter(ParameterType.DATE, choices=("2013-01-01",)), ("2013-01-01",), ("2013-01-02",), "one of 2013-01-01"),
    ],
)
def test_a_value_must_be_within_its_bounds_and_one_of_the_choices(
    parameter: Parameter, accepted: tuple[ParameterValue, ...], refused: tuple[ParameterValue, ...], allowed: str
) -> None:
    for value in accepted:
        assert resolve_values({"x": parameter}, {"x": value})
    for value in refused:
        message = refusal(lambda _: resolve_values({"x": parameter}, {"x": value}), "")  # noqa: B023 - called at once
        assert message == f"The parameter x = {value!a} is refused: it must be {allowed}."


@given(st.dates(), st.dates(), st.dates())
def test_dates_are_compared_as_dates(low: date, high: date, day: date) -> None:
    low, high = sorted((low, high))
    parameter = Parameter(ParameterType.DATE, minimum=low.isoformat(), maximum=high.isoformat())
    check("day", parameter)
    message = refusal(lambda word: resolve_values({"day": parameter}, {"day": word}), day.isoformat())
    assert (message is None) == (low <= day <= high)


def test_a_long_list_of_choices_is_shortened_in_the_message() -> None:
    days = tuple((date(2013, 1, 1) + timedelta(days=number)).isoformat() for number in range(365))
    message = refusal(
        lambda word: resolve_values({"day": Parameter(ParameterType.DATE, choices=days)}, {"day": word}), "2012-12-31"
    )
    assert message is not None
    assert "one of 2013-01-01, 2013-01-02, " in message
    assert message.endswith("... (365 of them).")
    assert len(message) < 300


def test_a_long_list_of_declared_names_is_shortened_in_the_message() -> None:
    message = refusal(lambda word: resolve_values({f"n{number}": MONTH for number in range(100)}, {word: 1}), "m")
    assert message is not None
    assert message.endswith("... (100 of them)).")
    assert len(message) < 300


@pytest.mark.parametrize(
    "parameter",
    [
        MONTH,
        CARRIER,
        IN_2013,
        Parameter(ParameterType.INTEGER, 3, minimum=3, maximum=3, choices=(3,)),
        Parameter(ParameterType.NUMBER, 0.5, minimum=0),
        Parameter(ParameterType.STRING, "AA", choices=("AA",)),
        Parameter(ParameterType.BOOLEAN, False, choices=(False, True)),
        Parameter(ParameterType.DATE, "2013-02-28", maximum="2013-12-31"),
    ],
)
def test_a_consistent_declaration_is_accepted(parameter: Parameter) -> None:
    check("x", parameter)


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        (
            Parameter(ParameterType.INTEGER, 13, minimum=1, maximum=12),
            "default of parameter x = 13 .* an integer from 1 to 12",
        ),
        (Parameter(ParameterType.STRING, "ZZ", choices=("AA",)), "default of parameter x = 'ZZ' .* one of AA"),
        (Parameter(ParameterType.INTEGER, 3, required=True), "default of parameter x = 3 .* left out: a run must give"),
        (Parameter(ParameterType.INTEGER, "3"), "default of parameter x = '3' .* an integer of"),
        (Parameter(ParameterType.BOOLEAN, "true"), "default of parameter x = 'true' .* true or false"),
        (Parameter(ParameterType.STRING, 3), "default of parameter x = 3 .* a string"),
        (Parameter(ParameterType.DATE, "2013-02-29"), "default of parameter x = '2013-02-29' .* a date"),
        (Parameter(ParameterType.INTEGER, minimum="1"), "minimum of parameter x = '1' .* an integer"),
        (Parameter(ParameterType.INTEGER, maximum=1.5), "maximum of parameter x = 1.5 .* an integer"),
        (Parameter(ParameterType.INTEGER, minimum=True), "minimum of parameter x = True .* an integer"),
        (Parameter(ParameterType.NUMBER, maximum=float("nan")), "maximum of parameter x = nan .* a finite number"),
        (Parameter(ParameterType.DATE, minimum=2013), "minimum of parameter x = 2013 .* a date"),
        (Parameter(ParameterType.DATE, maximum="tomorrow"), "maximum of parameter x = 'tomorrow' .* a date"),
        (
            Parameter(ParameterType.STRING, minimum="a"),
            "minimum of parameter x = 'a' .* left out: a string has no bounds",
        ),
        (
            Parameter(ParameterType.BOOLEAN, maximum=True),
            "maximum of parameter x = True .* left out: a boolean has no bounds",
        ),
        (
            Parameter(ParameterType.INTEGER, minimum=2, maximum=1),
            "minimum of parameter x = 2 .* no more than its maximum, 1",
        ),
        (
            Parameter(ParameterType.DATE, minimum="2013-02-01", maximum="2013-01-31"),
            "minimum of .* its maximum, 2013-01-31",
        ),
        (
            Parameter(ParameterType.STRING, choices=()),
            r"list of choices of parameter x = \[\] .* left out, or have one choice",
        ),
        (Parameter(ParameterType.STRING, choices=("a", 1)), "choice of parameter x = 1 .* a string"),
        (
            Parameter(ParameterType.STRING, choices=("{{ 1 }}",)),
            r"choice of parameter x = '\{\{ 1 }}' .* a string without",
        ),
        (
            Parameter(ParameterType.INTEGER, maximum=12, choices=(12, 13)),
            "choice of parameter x = 13 .* an integer up to 12",
        ),
    ],
)
def test_an_inconsistent_declaration_is_refused_with_any_values(parameter: Parameter, message: str) -> None:
    with pytest.raises(WordError, match=f"^The {message}"):
        check("x", parameter)
    with pytest.raises(WordError, match=f"^The {message}"):
        resolve_values({"x": parameter}, {"x": 1})


DECLARED = st.none() | st.sampled_from([1, 2.5, "a", "2013-01-01", True]) | st.integers() | st.floats() | st.text()


@given(
    st.builds(
        Parameter,
        st.sampled_from(ParameterType),
        DECLARED,
        DECLARED,
        DECLARED,
        st.none() | st.tuples(DECLARED, DECLARED),
    ),
    JSON,
)
def test_any_declaration_and_value_are_accepted_or_refused_briefly(parameter: Parameter, given: Any) -> None:
    message = refusal(lambda _: resolve_values({"x": parameter}, {"x": given}), "")
    assert message is None or (message.isascii() and len(message) < 350)


@given(st.text(st.sampled_from("{%#a}"), max_size=6), st.text(st.sampled_from("{%#a}"), max_size=6))
def test_two_accepted_strings_side_by_side_form_no_template(first: str, second: str) -> None:
    try:
        both = str(resolve_one(ParameterType.STRING, first)) + str(resolve_one(ParameterType.STRING, second))
    except WordError:
        return
    assert not re.search(r"\{[{%#]", both)


@given(st.sampled_from(ParameterType), JSON | st.just(10**5000) | st.just("9" * 5000))
def test_the_refusal_of_any_value_is_short_and_ascii(kind: ParameterType, value: Any) -> None:
    message = refusal(lambda _: resolve_values({"x": Parameter(kind)}, {"x": value}), "")
    assert message is None or (message.isascii() and len(message) < 300)
