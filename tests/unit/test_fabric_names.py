"""Names in the configuration: an accepted name begins no option, is no path and is one line of ASCII."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from gateway.settings.fabric import Name, ServiceName, Text, VariableName, VariableValue
from tests.support.injections import WORDS

TEXTS = st.text() | st.text(st.sampled_from("aZ0_.-/\n\0 é=:"), max_size=6) | st.sampled_from(WORDS)
KINDS = {
    "name": (Name, r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"),
    "service": (ServiceName, r"[A-Za-z0-9_.][A-Za-z0-9_.-]*"),
    "variable": (VariableName, r"[A-Za-z_][A-Za-z0-9_]*"),
    "text": (Text, r"[^\0]+"),
    "value": (VariableValue, r"[^\0]*"),
}


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
@example(text="a\n")
@example(text="-a")
@example(text="a" * 64)
@example(text="a" * 65)
def test_a_name_is_accepted_unchanged_or_refused(kind: str, text: str) -> None:
    type_, pattern = KINDS[kind]
    adapter: TypeAdapter[Any] = TypeAdapter(type_)
    has_halves = re.search("[\ud800-\udfff]", text) is not None  # these can't be in a variable or an argument
    if re.fullmatch(pattern, text, re.DOTALL) and not has_halves:
        assert adapter.validate_python(text) == text
    else:
        with pytest.raises(ValidationError):
            adapter.validate_python(text)
    if kind in ("name", "service", "variable") and re.fullmatch(pattern, text):
        assert not text.startswith("-")
        assert text.isascii()
        assert not set(text) & set("/\n\0 =")
