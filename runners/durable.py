"""Files that a power cut can't take back, and folders that are never taken for empty."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path


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


def sync(directory: Path) -> None:
    """Make the names in a directory last. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def names(directory: Path) -> list[str]:
    """The names in a directory, none where there is no such directory. Raises OSError where it can't be read now.

    Not by `glob`: some Pythons call a directory empty that can't be opened for want of descriptors.
    """
    try:
        return os.listdir(directory)  # noqa: PTH208, names are all that is wanted
    except FileNotFoundError:
        return []
