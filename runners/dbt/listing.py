"""The nodes that a dbt step would run, as `dbt ls` lists them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from runners.dbt.command import DbtConfig, DbtPaths, DbtStep, deps_command, list_command
from runners.mask import Mask
from runners.program import ProgramResult
from runners.report import one_line

TIMEOUT = 120.0  # seconds that dbt may need to parse a large project

Found = TypeVar("Found")
Ask = Callable[[tuple[str, ...]], Awaitable[ProgramResult]]
Question = Callable[[DbtConfig, DbtStep, DbtPaths, Ask, Mask], Awaitable[Found]]


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a dbt project.

    fqn: its fully qualified name: package, folders, name, and for a version of a model the version.
    """

    name: str
    resource_type: str
    fqn: tuple[str, ...]
    has_version: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """What dbt calls it: its name, or that of one version of a model, in both spellings."""
        return tuple(mark.join(self.fqn[-2:]) for mark in "._") if self.has_version else (self.name,)


def word_for(node: Node, nodes: Iterable[Node]) -> str | None:
    """The word with which dbt selects this node and no other one; None if there is none.

    The short one, unless another package has a node of this name, or a folder has it.
    """
    others = [other for other in nodes if other != node]
    words = (node.words[0], ".".join(node.fqn))
    return next((word for word in words if not any(_selects(word, other) for other in others)), None)


def _selects(word: str, node: Node) -> bool:
    """Whether dbt's selection `fqn:word` has a node in it, without wildcards."""
    return node.resource_type != "source" and any(
        _matches(word.split("."), fqn, has_version=node.has_version) for fqn in (node.fqn, node.fqn[1:])
    )


def _matches(parts: list[str], fqn: tuple[str, ...], *, has_version: bool) -> bool:
    if has_version and (fqn[-2:-1] == (".".join(parts),) or "_".join(fqn[-2:]) == "_".join(parts[-2:])):
        return True
    if not has_version and fqn[-1:] == (".".join(parts),):
        return True
    return ".".join(fqn).split(".")[: len(parts)] == parts


async def list_nodes(
    dbt: DbtConfig, step: DbtStep, paths: DbtPaths, ask: Ask, mask: Mask, *, may_install: bool
) -> list[Node] | str:
    """The nodes of a step, or a sentence about why dbt can't list them.

    ask: runs a command line of dbt in the project. may_install: `dbt deps` installs missing packages first; otherwise
    the project's folder is not changed. mask: of dbt's messages.
    """
    result = await ask(list_command(dbt, step, paths))
    if result.code != 0 and _lacks_packages(result.output) and may_install:
        result = await ask(deps_command(dbt, step, paths))
        result = await ask(list_command(dbt, step, paths)) if result.code == 0 else result
    nodes = _parse_nodes(result.output)
    if result.code != 0 or (result.output.strip() and not nodes):
        return f"dbt can't list the models: {mask.text(message(result.output, result.error))}"
    return nodes


def _parse_nodes(output: bytes) -> list[Node]:
    """The nodes in the output of `dbt ls`; other lines are skipped."""
    return [node for line in output.decode(errors="replace").splitlines() if (node := _parse_node(line)) is not None]


def _parse_node(line: str) -> Node | None:
    if not line.startswith("{"):
        return None
    try:
        node = json.loads(line)
        fqn, has_version = tuple(map(str, node["fqn"])), node.get("version") is not None
        return Node(str(node["name"]), str(node["resource_type"]), fqn, has_version)
    except (ValueError, RecursionError, LookupError, TypeError):
        return None


def _lacks_packages(output: bytes) -> bool:
    """Whether dbt could list nothing because packages are not installed."""
    return b'Run "dbt deps"' in output


def message(output: bytes, error: str) -> str:
    """What dbt printed instead of an answer, in one line."""
    lines = [line for line in output.decode(errors="replace").splitlines() if not line.startswith("{")]
    return one_line(" ".join(lines) or error or "it said nothing")
