"""The files that a container's step keeps in its folder: read with care, since a disk may damage any of them."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import TypeVar

from runners import durable

# Out of descriptors, memory or disk: no fact about the file.
_MAY_PASS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EAGAIN)

T = TypeVar("T")


class UnreadableError(Exception):
    """A file of a step can't be used, and another attempt would not help. The message is a sentence's beginning."""


def read(file: Path, kind: type[T]) -> T | None:
    """The JSON value of this type in a file, None without the file. Raises UnreadableError, OSError if it may pass."""
    try:
        value = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise_unless_passing(error)
        raise
    except (ValueError, RecursionError):
        value = None
    if type(value) is not kind:  # an exact check, since bool is a subclass of int
        raise damaged(file)
    return value


def damaged(file: Path) -> UnreadableError:
    """The error of a file with other content than was written."""
    return UnreadableError(f"its file {file} is damaged")


def raise_unless_passing(error: OSError) -> None:
    """Raise UnreadableError unless the error may pass by itself."""
    if error.errno not in _MAY_PASS:
        raise UnreadableError(f"a file of it can't be used ({error})") from None


def numbers(folder: Path, prefix: str) -> list[int]:
    """The numbers n of the names `<prefix><n>` in a folder, sorted. Raises OSError."""
    found = (name.removeprefix(prefix) for name in durable.list_names(folder) if name.startswith(prefix))
    return sorted(int(number) for number in found if number.isascii() and number.isdecimal())
