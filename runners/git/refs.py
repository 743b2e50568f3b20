"""Branches and tags that git is given: each by its full name, which begins no option and is never ambiguous. Pure."""

from __future__ import annotations

import re

from runners.words import UNPRINTABLE, WordError

_LONGEST = 250  # bytes; with `.lock` behind it, git makes it the name of a file

# What `git check-ref-format --branch` refuses, but for `@{-1}`, which it would turn into the name of another branch.
_REFUSED = re.compile(
    r"""
    [ ~^:?*\[\\] | \.\. | @\{ | //       # anywhere
    | \A[-/] | [/.]\Z                    # at its ends
    | (?:\A|/)\. | \.lock(?:/|\Z)        # at the ends of its pieces
    | \A(?:HEAD)?\Z                    # whole
    """,
    re.VERBOSE,
)


def branch(name: str) -> str:
    """The full name of a branch. Raises WordError."""
    return f"refs/heads/{_checked('branch', name)}"


def tag(name: str) -> str:
    """The full name of a tag. Raises WordError."""
    return f"refs/tags/{_checked('tag', name)}"


def _checked(what: str, name: str) -> str:
    if _REFUSED.search(name) or UNPRINTABLE.search(name) or len(name.encode()) > _LONGEST:
        raise WordError(
            what,
            name,
            f"a name that git allows: at most {_LONGEST} bytes, no space, .. // @{{ ~ ^ : ? * [ or \\, no - or / in "
            "front, no / or . behind, no piece with . in front or .lock behind",
        )
    return name
