"""What differs between two configurations, by the names of keys alone: values may be secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_ABSENT = object()


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The keys whose values differ, such as `projects.shop.dbt`, in the order of the configuration."""
    return list(_changed(before, after, ""))


def _changed(before: object, after: object, path: str) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in {**before, **after}:
            at = f"{path}.{key}".removeprefix(".")
            yield from _changed(before.get(key, _ABSENT), after.get(key, _ABSENT), at)
    elif before != after:
        yield path
