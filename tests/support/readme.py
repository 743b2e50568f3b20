"""The README's own commands, so that what it says is what is tested."""

from __future__ import annotations

import re

from tests.support.source import ROOT

_SECTION = "As a service"


def block(number: int) -> str:
    """One block of shell commands of the section on the service, counted from 0."""
    text = (ROOT / "README.md").read_text("utf-8")
    section = text.partition(f"\n## {_SECTION}\n")[2].partition("\n## ")[0]
    blocks: list[str] = re.findall(r"^```sh\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    return blocks[number]
