"""Files that survive a power cut, and listings that fail rather than being empty by mistake."""

from __future__ import annotations

import json
import os
import re
import threading
from contextlib import suppress
from pathlib import Path

# name of the file, process id, thread id, and words that nobody else would give to a file
_PARTIAL_FILE = re.compile(r".+\.[0-9]+-[0-9]+\.pipeline-gateway-partial")


def write(file: Path, value: object) -> None:
    """Write a value as JSON: see `write_text`. Raises OSError."""
    write_text(file, json.dumps(value))


def write_text(file: Path, text: str) -> None:
    """Replace the content of a file atomically and durably. Several threads and processes may do so. Raises OSError."""
    new = file.with_name(f"{file.name}.{os.getpid()}-{threading.get_ident()}.pipeline-gateway-partial")
    try:
        with new.open("w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        new.replace(file)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync(file.parent)


def remove_partial_files(directory: Path) -> None:
    """Remove the partial files of writers that were killed; what can't be removed stays. No writer may be alive."""
    with suppress(OSError):
        for name in list_names(directory):
            if _PARTIAL_FILE.fullmatch(name) and (directory / name).is_file():
                (directory / name).unlink()


def make_directory(directory: Path) -> None:
    """Make a directory durable, unless it exists. Raises OSError."""
    if not directory.exists():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync(directory.parent)


def sync(directory: Path) -> None:
    """Make the entries of a directory durable. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def list_names(directory: Path) -> list[str]:
    """The names in a directory, none if it does not exist. Raises OSError if it can't be read.

    `Path.glob` does not do: in some Python versions it returns nothing for a directory that can't be opened.
    """
    try:
        return os.listdir(directory)  # noqa: PTH208, only names are needed
    except FileNotFoundError:
        return []
