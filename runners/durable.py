"""Files that a power cut can't take back, and folders that are never taken for empty."""

from __future__ import annotations

import json
import os
import re
import threading
from pathlib import Path

_HALF_WAY = re.compile(r".+\.[0-9]+\.[0-9]+")  # a file's own name, the process and the thread


def write(file: Path, value: object) -> None:
    """Make `file` the JSON of a value: see `write_text`. Raises OSError."""
    write_text(file, json.dumps(value))


def write_text(file: Path, text: str) -> None:
    """Make `file` this text, whole or not at all, whoever reads or writes it meanwhile. Raises OSError."""
    new = file.with_name(f"{file.name}.{os.getpid()}.{threading.get_ident()}")
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
    """Remove the files that writers left half-way when they were killed. Only to be called where nobody writes."""
    for name in list_names(directory):
        if _HALF_WAY.fullmatch(name):
            (directory / name).unlink(missing_ok=True)


def sync(directory: Path) -> None:
    """Make the names in a directory last. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def list_names(directory: Path) -> list[str]:
    """The names in a directory, none where there is no such directory. Raises OSError where it can't be read now.

    Not by `glob`: some Pythons call a directory empty that can't be opened for want of descriptors.
    """
    try:
        return os.listdir(directory)  # noqa: PTH208, names are all that is wanted
    except FileNotFoundError:
        return []
