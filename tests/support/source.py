"""The project's own files."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]


def modules() -> dict[str, Path]:
    """All modules of gateway and runners by name; the demo's lakehouse is data, not a part of the program."""
    found = {}
    for package in ("gateway", "runners"):
        for file in sorted((ROOT / package).rglob("*.py")):
            parts = list(file.relative_to(ROOT).with_suffix("").parts)
            if "lakehouse" in parts:
                continue
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found
