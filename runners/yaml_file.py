"""YAML files that people write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_MAX_DEPTH = 50  # levels; the parser and all that reads its result are recursive


class _RefusedError(yaml.MarkedYAMLError):
    """The text is YAML, but nothing that is taken."""

    def __init__(self, problem: str, mark: Any) -> None:
        super().__init__(problem=problem, problem_mark=mark)


class _Loader(yaml.SafeLoader):
    """The safe loader of YAML, which refuses what nobody can read without end: deep nesting, an alias inside itself."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # of the stubs
        if isinstance(event, yaml.AliasEvent):
            named = self.anchors.get(event.anchor)
            if named is not None and named.end_mark is None:  # it has not ended yet
                raise _RefusedError(f"the alias *{event.anchor} refers to what it is in", event.start_mark)
        if self._depth == _MAX_DEPTH:
            raise _RefusedError(f"more than {_MAX_DEPTH} levels are nested", event.start_mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _UniqueKeysLoader(_Loader):
    """Refuses a key that a mapping has twice, of which YAML would silently take the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)  # also 1 and "1", which are one id
            if name in seen:
                raise _RefusedError(f"the key `{name}` is there twice: remove one, or join them", key.start_mark)
            seen.add(name)
        return node


def load(text: str, *, unique_keys: bool = False) -> Any:
    """The value of a YAML text. unique_keys: refuse repeated keys. Raises YAMLError, ValueError."""
    return yaml.load(text, _UniqueKeysLoader if unique_keys else _Loader)  # noqa: S506, both are safe loaders


def read_mapping(file: Path, *, unique_keys: bool = False) -> Mapping[str, object] | str:
    """The mapping in a YAML file, empty for an empty file; or a sentence about what is wrong with the file.

    unique_keys: see load. In its own files dbt allows repeated keys.
    """
    try:
        return parse_mapping(file.read_bytes(), str(file), unique_keys=unique_keys)
    except OSError as error:
        return f"{file}: can't be read: {error.strerror}"
    except ValueError as error:  # a path with a NUL
        return f"{file}: {describe_error(error)}"


def parse_mapping(content: bytes, file: str, *, unique_keys: bool = False) -> Mapping[str, object] | str:
    """The same for the content of a file."""
    try:
        found = load(content.decode(), unique_keys=unique_keys)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, an impossible date
        return f"{file}: {describe_error(error)}"
    if found is None:
        return {}
    if not isinstance(found, dict):
        return f"{file}: expected a YAML mapping, found {type(found).__name__}"
    return {str(key): value for key, value in found.items()}


def describe_error(error: Exception) -> str:
    """What is wrong with a text, and in which line, without the text itself: it may contain a password."""
    what = "" if isinstance(error, _RefusedError) else "is not YAML: "
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{what}{error.problem} in line {mark.line + 1}, column {mark.column + 1}"
    return what + " ".join(str(error).split())
