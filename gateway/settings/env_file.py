"""Reads a file of environment variables, as `--env-file` names one."""

from __future__ import annotations

from pathlib import Path

from gateway.errors import ConfigError


def read(file: Path) -> dict[str, str]:
    """The variables of a file of NAME=VALUE lines; comments, blank lines, `export` and quotes are understood.

    Raises ConfigError that names the file and the line.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: can't be read: {error}") from None
    variables = {}
    for number, raw in enumerate(lines, 1):
        line = raw.strip().removeprefix("export ").lstrip()
        if not line or line.startswith("#"):
            continue
        name, separator, value = line.partition("=")
        name, value = name.strip(), value.strip()
        if not separator or not name.isidentifier():
            raise ConfigError(f"{file}, line {number}: expected NAME=VALUE")  # it may be a line of a secret
        quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""
        variables[name] = value[1:-1] if quoted else value
    return variables
