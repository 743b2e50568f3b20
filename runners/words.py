"""The error for a word from outside that may not become part of a command line. Pure."""

from __future__ import annotations

import re

_MAX_SHOWN = 100  # characters

# Control characters, line breaks, lone surrogates, and characters that YAML does not allow.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


class WordError(ValueError):
    """A word is refused. The message names it, shows it (in ASCII, cut) and says what is allowed."""

    def __init__(self, what: str, value: object, allowed: str) -> None:
        super().__init__(f"The {what} {_shown(value)} is refused: it must be {allowed}.")


def _shown(value: object) -> str:
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # a number of thousands of digits; a list nested too deep
        text = f"(of type {type(value).__name__})"
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."
