"""Copies the lakehouse that comes with the package into a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from gateway.errors import GatewayError

LAKEHOUSE = Path(__file__).with_name("lakehouse")


class OccupiedError(GatewayError):
    """The folder has files of somebody's."""


def copy(folder: Path) -> None:
    """Copy the lakehouse into a new or empty folder. Raises OccupiedError, OSError."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OccupiedError(f"{folder} exists and is not an empty folder: give another one.")
    shutil.copytree(LAKEHOUSE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
