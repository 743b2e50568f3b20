"""The shim with one thing about it changed from outside, by variables of its environment.

TEST_SHIM_POINT, TEST_SHIM_MARK: it kills itself at this point, once, after writing this file.
TEST_CLOCK: a file with the seconds that the wall clock is wrong by, read at each look at the clock.

It runs as the real one does: without site-packages and without anything of ours on the path.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

_REAL = Path(__file__).parents[2] / "runners" / "shim.py"
# point: what is called then, and whether the shim dies after it
POINTS = {
    "launcher forked": ("os.fork", True),
    "before the lock": ("_lock", False),
    "after the lock": ("_lock", True),
    "before started": ("os.open started", False),
    "started is empty": ("os.open started", True),
    "after started": ("_claim", True),
    "before the step": ("Step.run", False),
    "step runs": ("Step._start", True),
    "output copied": ("Output.write last", True),
    "stop has begun": ("Step._send", True),
    "before exit": ("_record", False),
    "after exit": ("_record", True),
}


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("shim", _REAL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _die_at(shim: ModuleType, point: str, mark: Path) -> None:
    what, after = POINTS[point]
    name, _, argument = what.partition(" ")
    place, _, name = name.rpartition(".")
    owner: Any = os if place == "os" else getattr(shim, place) if place else shim
    real: Callable[..., Any] = getattr(owner, name)

    def die() -> None:
        with suppress(FileExistsError), mark.open("x") as file:
            file.write(point)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    def deadly(*args: Any, **kwargs: Any) -> Any:
        due = _due(argument, *args)
        if due and not after:
            die()
        result = real(*args, **kwargs)
        if due and after and not (name == "fork" and result == 0):
            die()
        return result

    setattr(owner, name, deadly)


def _due(argument: str, *args: Any) -> bool:
    """Whether it is the call meant: with a file of that name, or with the last line before a step waits."""
    if argument == "last":
        return bytes(args[1]).endswith(b" line 49\n")
    return not argument or Path(args[0]).name == argument


def _set_clock(file: Path) -> None:
    real = time.time
    time.time = lambda: real() + float(file.read_text())


def main(folder: Path) -> int:
    """As the real one."""
    shim = _load()
    if point := os.environ.get("TEST_SHIM_POINT"):
        _die_at(shim, point, Path(os.environ["TEST_SHIM_MARK"]))
    if clock := os.environ.get("TEST_CLOCK"):
        _set_clock(Path(clock))
    return int(shim.main(folder))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
