"""Real parts that a machine may not have."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest


def missing(why: str) -> NoReturn:
    """Skip a test for lack of a part; where everything is required, fail it."""
    if os.environ.get("REQUIRE_ALL"):
        pytest.fail(why)
    pytest.skip(why)


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A real filesystem of its own, in memory and of this size (such as 2m); skips where mounting is denied."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        missing("a filesystem of its own needs root and the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def remount_read_only(folder: Path) -> None:
    """Make such a filesystem read-only; none of its files may be open."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


@contextmanager
def bound(folder: Path, to: Path) -> Iterator[None]:
    """A folder that can be reached at another one's path too."""
    subprocess.run(["mount", "--bind", folder, to], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", to], check=True)
