"""Copies the lakehouse that comes with the package into a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from gateway.errors import GatewayError

LAKEHOUSE = Path(__file__).with_name("lakehouse")


class StarterError(GatewayError):
    """The folder can't be used: it is not empty, or it can't be made."""


def copy(folder: Path) -> None:
    """Copy the lakehouse into a new or empty folder. Raises StarterError."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StarterError(f"{folder} exists and is not an empty folder: name another one.")
    try:
        shutil.copytree(LAKEHOUSE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    except (OSError, shutil.Error) as error:
        raise StarterError(f"{folder} can't be made: {error}") from None
