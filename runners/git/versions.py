"""Versions of a project among the tags of its repository: which tags one may be, and which is the highest. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from packaging.version import Version


def names(version: str, project_names: Sequence[str]) -> tuple[str, ...]:
    """The tags that a version may be, as given first: `2` is also `v2`, `<project>/2` and `<project>/v2`."""
    written = (version, f"v{version}") if version[:1].isdecimal() else (version,)
    beginnings = ("", *(f"{name}/" for name in project_names))
    return tuple(dict.fromkeys(f"{beginning}{one}" for beginning in beginnings for one in written))


def highest(tags: Iterable[str], project_names: Sequence[str]) -> tuple[str, ...]:
    """The tags of the highest version, several where it is written in several ways; none where no tag is a version.

    The order is PEP 440's, in which a pre-release comes before its own release and after all earlier ones.
    """
    found: dict[Version, list[str]] = {}
    for tag in tags:
        version = _version(tag, project_names)
        if version is not None:
            found.setdefault(version, []).append(tag)
    return tuple(sorted(found[max(found)])) if found else ()


def _version(tag: str, project_names: Sequence[str]) -> Version | None:
    for name in project_names:
        if tag.startswith(f"{name}/"):
            tag = tag.removeprefix(f"{name}/")
            break
    try:
        return Version(tag)  # takes the v off itself
    except ValueError:  # InvalidVersion, or a number of thousands of digits
        return None
