"""Words from outside that are to become part of a command line: what all of them are refused for. Pure."""

from __future__ import annotations

import re

_SHOWN = 100

# Control characters, line breaks, halves of characters, and what YAML has no place for.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


class WordError(ValueError):
    """A word is refused: the text names it, shows it (bounded, in ASCII) and says what is allowed."""

    def __init__(self, what: str, value: object, allowed: str) -> None:
        super().__init__(f"The {what} {_shown(value)} is refused: it must be {allowed}.")


def _shown(value: object) -> str:
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # a number of thousands of digits; a list nested too deep
        text = f"(of type {type(value).__name__})"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
