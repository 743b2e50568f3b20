"""Branches, tags and versions of a git repository: which names are allowed, and which tags are a version. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from packaging.version import Version

from runners.parameters import UNPRINTABLE, WordError

_LONGEST = 250  # bytes; git makes a file of this name with `.lock` behind it

# What `git check-ref-format --branch` refuses, and also `@{-1}`, which git turns into the name of another branch.
_REFUSED = re.compile(
    r"""
    [ ~^:?*\[\\] | \.\. | @\{ | //       # anywhere
    | \A[-/] | [/.]\Z                    # at the ends of the name
    | (?:\A|/)\. | \.lock(?:/|\Z)        # at the ends of a component
    | \A(?:HEAD)?\Z                      # the whole name
    """,
    re.VERBOSE,
)


def branch_ref(name: str) -> str:
    """The full name of a branch, which begins no option and is never ambiguous. Raises WordError."""
    return f"refs/heads/{_checked('branch', name)}"


def tag_ref(name: str) -> str:
    """The full name of a tag, which begins no option and is never ambiguous. Raises WordError."""
    return f"refs/tags/{_checked('tag', name)}"


def version_tags(version: str, project_names: Sequence[str]) -> tuple[str, ...]:
    """The tags that a version may be, in order: `2` may be `2`, `v2`, `<project>/2` and `<project>/v2`."""
    spellings = (version, f"v{version}") if version[:1].isdecimal() else (version,)
    prefixes = ("", *(f"{name}/" for name in project_names))
    return tuple(dict.fromkeys(f"{prefix}{spelling}" for prefix in prefixes for spelling in spellings))


def highest_version_tags(tags: Iterable[str], project_names: Sequence[str]) -> tuple[str, ...]:
    """The tags of the highest version, several if they spell it differently, none if no tag is a version.

    The order is that of PEP 440: a pre-release comes before its own release and after all earlier ones.
    """
    tags_by_version: dict[Version, list[str]] = {}
    for tag in tags:
        version = _parse_version(tag, project_names)
        if version is not None:
            tags_by_version.setdefault(version, []).append(tag)
    return tuple(sorted(tags_by_version[max(tags_by_version)])) if tags_by_version else ()


def _checked(what: str, name: str) -> str:
    if _REFUSED.search(name) or UNPRINTABLE.search(name) or len(name.encode()) > _LONGEST:
        raise WordError(
            what,
            name,
            f"a name that git allows: at most {_LONGEST} bytes, no space, .. // @{{ ~ ^ : ? * [ or \\, no - or / in "
            "front, no / or . behind, no piece with . in front or .lock behind",
        )
    return name


def _parse_version(tag: str, project_names: Sequence[str]) -> Version | None:
    for name in project_names:
        if tag.startswith(f"{name}/"):
            tag = tag.removeprefix(f"{name}/")
            break
    try:
        return Version(tag)  # accepts a leading v
    except ValueError:  # InvalidVersion, or a number of thousands of digits
        return None
