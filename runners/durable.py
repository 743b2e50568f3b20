"""Files that survive a power cut, and listings that fail rather than being empty by mistake."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

# name of the file, process id, thread id, and words that nobody else would give to a file
_PARTIAL_FILE = re.compile(r".+\.[0-9]+-[0-9]+\.pipeline-gateway-partial")


# no free descriptor, no memory, no room
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR, errno.ENOSPC, errno.EDQUOT}


def may_pass(error: OSError) -> bool:
    """Whether an error passes by itself, or once somebody makes room, so that it is worth another attempt."""
    return error.errno in _PASSING


def write(file: Path, value: object) -> None:
    """Write a value as JSON: see `write_text`. Raises OSError."""
    write_text(file, json.dumps(value))


def write_text(file: Path, text: str) -> None:
    """Replace the content of a file: see `replacing`. Raises OSError."""
    with replacing(file) as new:
        new.write(text.encode())


@contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """A file whose content takes the place of `file` at the end of the block, atomically and durably.

    Several threads and processes may do so. After an error in the block everything is as before. Raises OSError.
    """
    new = file.with_name(f"{file.name}.{os.getpid()}-{threading.get_ident()}.pipeline-gateway-partial")
    try:
        with new.open("wb") as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        new.replace(file)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync(file.parent)


def open_regular(file: Path) -> BinaryIO:
    """Open a regular file to read it. Raises OSError for anything else; opening a FIFO would wait for a writer."""
    fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is not a regular file", str(file))
    return os.fdopen(fd, "rb")


def read_bytes(file: Path) -> bytes:
    """The content of a regular file. Raises OSError."""
    with open_regular(file) as opened:
        return opened.read()


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
