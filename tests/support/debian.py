"""How the Debian of machine.py is made; a program by itself, so that it can be made before anything is installed.

    python3 -m tests.support.debian FOLDER

The standard library only. Where the variable TESTS_DEBIAN names the folder, the tests use that Debian, once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

MADE = "TESTS_DEBIAN"
_SUITE = "bookworm"
_PACKAGES = ("systemd", "systemd-sysv", "dbus", "python3", "python3-venv", "curl", "jq", "git", "sqlite3")


def command(folder: Path) -> list[str]:
    """What makes a Debian with all that the tests need of one."""
    return ["debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", _SUITE, str(folder)]


if __name__ == "__main__":
    os.execvp("debootstrap", command(Path(sys.argv[1])))
