"""What a selection selects, by dbt's own word. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass

from runners.report import one_line

_KEYS = ("name", "resource_type", "fqn")
# What `dbt ls` is asked: one JSON object a line, and of its log errors only.
OPTIONS = ("--quiet", "--output=json", *(f"--output-keys={key}" for key in _KEYS))


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a dbt project. path: its fully qualified name, the project first, its own name last."""

    name: str
    kind: str
    path: tuple[str, ...]


def read(output: bytes) -> list[Node]:
    """The nodes that `dbt ls` has listed; lines that are none are passed over."""
    return [node for line in output.decode(errors="replace").splitlines() if (node := _node(line)) is not None]


def _node(line: str) -> Node | None:
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
        return Node(str(found["name"]), str(found["resource_type"]), tuple(map(str, found["fqn"])))
    except (ValueError, RecursionError, LookupError, TypeError):
        return None


def lacks_packages(output: bytes) -> bool:
    """Whether nothing could be listed for want of packages, which `dbt deps` installs."""
    return b'Run "dbt deps"' in output


def why(output: bytes, error: str) -> str:
    """What dbt said instead, in one line."""
    lines = [line for line in output.decode(errors="replace").splitlines() if not line.startswith("{")]
    return one_line(" ".join(lines) or error or "it said nothing")
