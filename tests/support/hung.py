"""A real mount whose filesystem never answers, as that of a dead file server."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import parts

_DETACH = 2


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """Every look at the folder hangs; all of them fail at the end. Skips where mounting is denied."""
    libc = ctypes.CDLL(None)
    try:
        fuse = os.open("/dev/fuse", os.O_RDWR)  # never read from, so the kernel's questions wait
    except OSError as error:
        parts.missing(f"a mount that hangs needs /dev/fuse: {error.strerror}")
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
    try:
        if libc.mount(b"hung", os.fsencode(folder), b"fuse", 0, options) != 0:
            parts.missing("a mount needs root and the right to mount")
        try:
            yield
        finally:
            libc.umount2(os.fsencode(folder), _DETACH)
    finally:
        os.close(fuse)
