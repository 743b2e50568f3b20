r"""Reads a file of environment variables, which `--env-file` names.

The syntax is the one of Docker Compose's `.env` files, without its expansion of variables:

- A line is NAME=VALUE, with or without `export` before it. Blank lines and lines that begin with `#` are skipped.
- A value without quotes ends at the end of the line, or at a `#` that follows a space.
- A value in single quotes is taken as it is, but for `\'` and `\\`. In double quotes, `\n`, `\"` and the other escapes
  of C are decoded. Both may go over several lines, and a comment may follow them.
- `$` has no meaning.
"""

from __future__ import annotations

import io
from pathlib import Path

from dotenv.parser import Binding, parse_stream

from gateway.errors import ConfigError


def read(file: Path) -> dict[str, str]:
    """The variables of a file. Raises ConfigError, which names the file and the line, but never quotes it.

    A line that can't be read may hold a secret.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: can't be read: {error}") from None
    variables = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.key is None and not binding.error:
            continue  # a comment, or the blank lines at the end
        if binding.key is None or binding.value is None or not binding.key.isidentifier():
            expected = "expected NAME=VALUE, where a value that begins with a quote ends with it"
            raise ConfigError(f"{file}, line {_line(binding)}: {expected}")
        variables[binding.key] = binding.value
    return variables


def _line(binding: Binding) -> int:
    """The number of the line on which a binding begins; the parser counts the blank lines before it as a part of it."""
    text = binding.original.string
    blank = len(text) - len(text.lstrip())
    return binding.original.line + text.count("\n", 0, blank)
