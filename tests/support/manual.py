"""The README and the pages of the manual, whose own commands the tests run."""

from __future__ import annotations

import re

from tests.support.source import ROOT

README = ROOT / "README.md"
PAGES = sorted((ROOT / "gateway/docs").glob("*.md"))
TEXT = "\n".join(file.read_text("utf-8") for file in (README, *PAGES))


def block(page: str, heading: str, language: str = "sh") -> str:
    """The first block of code, in a language, below a heading of a page."""
    text = (ROOT / "gateway/docs" / page).read_text("utf-8")
    _, found, below = text.partition(f"# {heading}\n")
    assert found, f"{page} has no heading {heading}"
    return blocks(below, language)[0]


def blocks(text: str, language: str) -> list[str]:
    """All blocks of code in a language."""
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return found
