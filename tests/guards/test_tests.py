"""Rules for the names of tests."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.support.source import ROOT

FILES = sorted((ROOT / "tests").rglob("test_*.py"))
LIMIT = 70


def names(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name


def test_the_tests_are_found() -> None:
    assert "test_the_tests_are_found" in names(Path(__file__))
    assert {file.parent.name for file in FILES} >= {"unit", "component", "acceptance", "guards"}


def test_every_name_of_a_test_is_short() -> None:
    """What the claim needs beyond that is the docstring."""
    assert [name for file in FILES for name in names(file) if len(name) >= LIMIT] == []


def test_no_two_tests_of_a_file_have_the_same_name() -> None:
    """Python would keep only the last of them."""
    counted = {(file, name): count for file in FILES for name, count in Counter(names(file)).items()}
    assert [test for test, count in counted.items() if count > 1] == []
