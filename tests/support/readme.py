"""The README's own commands, so that what it says is what is tested."""

from __future__ import annotations

import re

from tests.support.source import ROOT

_SERVICE = "As a service"


def block(number: int, section: str = _SERVICE, language: str = "sh") -> str:
    """One block of code of a section, counted from 0 among those of its language."""
    text = (ROOT / "README.md").read_text("utf-8")
    found = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    blocks: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", found, re.DOTALL | re.MULTILINE)
    return blocks[number]
