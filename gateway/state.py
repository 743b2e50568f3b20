"""The state directory: locked by one gateway, which has an id of its own."""

from __future__ import annotations

import asyncio
import fcntl
import json
import secrets
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TextIO

from gateway.errors import StateError
from runners import durable

_LOCK_TIMEOUT = 1.0  # seconds


@asynccontextmanager
async def locked(folder: Path) -> AsyncIterator[str]:
    """Create the directory if it does not exist, and lock it against other gateways; this gateway's id.

    Raises StateError.
    """
    with _create(folder) as lock:
        await _lock(lock, folder)
        durable.remove_partial_files(folder)
        yield _instance(folder)


def _create(folder: Path) -> TextIO:
    """Create the directory if it does not exist; the file that locks it. Raises StateError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_private(folder)
        (folder / "jobs").mkdir(mode=0o700, exist_ok=True)
        _ignore(folder / ".gitignore")
        return (folder / "lock").open("w")
    except OSError as error:
        why = f"The state directory {folder} can't be used: {error.strerror}; make it writable or set STATE_DIRECTORY."
        raise StateError(why) from None


def _ignore(file: Path) -> None:
    """Keep the directory out of the repository that it may lie in."""
    with suppress(OSError), file.open("x", encoding="utf-8") as made:  # it exists, or the disk is full
        made.write("*\n")


def _make_private(folder: Path) -> None:
    """Take all rights from other users: the output and the files of steps may be confidential.

    Raises StateError, OSError.
    """
    mode = folder.stat().st_mode
    if not mode & (stat.S_IRWXG | stat.S_IRWXO):
        return
    if mode & stat.S_ISVTX:  # as /tmp is
        raise StateError(f"The state directory {folder} is shared by all users: create a directory of its own in it.")
    try:
        folder.chmod(0o700)
    except PermissionError:
        raise StateError(
            f"The state directory {folder} can be read by other users, and belongs to another user than the gateway's: "
            "`chmod 700` it, or set another STATE_DIRECTORY."
        ) from None


async def _lock(lock: TextIO, folder: Path) -> None:
    """Lock the directory. A child that a killed gateway was about to start may hold the lock for a moment."""
    limit = time.monotonic() + _LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > limit:
                why = f"Another gateway runs on the state directory {folder}: stop it, or set another STATE_DIRECTORY."
                raise StateError(why) from None
            await asyncio.sleep(_LOCK_TIMEOUT / 20)
        except OSError as error:
            raise StateError(f"{folder}: can't be locked: {error.strerror}; keep it on a local disk.") from None
        else:
            return


def _instance(folder: Path) -> str:
    """The gateway's id, by which it knows its containers: an engine may have those of other gateways too.

    It is bound to this host and this directory, so that a gateway on a copy of the state gets another one.
    """
    file = folder / "instance"
    here = {"host": _text(Path("/etc/machine-id")), "directory": str(folder)}
    try:
        known = _json(_text(file))
        if {**known, **here} != known:
            known = {"id": secrets.token_hex(8), **here}
            durable.write(file, known)
    except OSError as error:
        raise StateError(f"{file}: can't be used: {error}; make it readable, or remove it.") from None
    return known["id"]


def _text(file: Path) -> str:
    try:
        return durable.read_bytes(file).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return ""


def _json(text: str) -> dict[str, str]:
    """The object in a text; an empty one where the text is damaged."""
    with suppress(ValueError, RecursionError):
        value = json.loads(text)
        if isinstance(value, dict) and isinstance(value.get("id"), str):
            return value
    return {}
