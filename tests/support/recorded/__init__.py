"""Output of real programs, recorded."""

from __future__ import annotations

from pathlib import Path


def recorded(name: str) -> list[str]:
    """The lines of a recording."""
    return Path(__file__).with_name(f"{name}.txt").read_text(encoding="utf-8").splitlines()
