"""The shim with one thing about it changed from outside, by variables of its environment.

TEST_SHIM_POINT, TEST_SHIM_MARK: it kills itself at this point, once, after writing this file.
TEST_CLOCK: a file with the seconds that the wall clock is wrong by, read at each look at the clock.

It runs as the real one does: without site-packages and without the gateway's packages on the path.
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
    "before the step": ("SupervisedStep.run", False),
    "step runs": ("SupervisedStep._start", True),
    "output copied": ("OutputSegments.write last", True),
    "stop has begun": ("SupervisedStep._send", True),
    "before exit": ("_record", False),
    "after exit": ("_record", True),
}


def load() -> ModuleType:
    """The real shim."""
    spec = importlib.util.spec_from_file_location("shim", _REAL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def owner(shim: ModuleType, point: str) -> tuple[Any, str, str]:
    """What has the call of a point, the call's name, and which of its arguments is meant."""
    what, _, argument = POINTS[point][0].partition(" ")
    place, _, name = what.rpartition(".")
    return (os if place == "os" else getattr(shim, place) if place else shim), name, argument


def _die_at(shim: ModuleType, point: str, mark: Path) -> None:
    having, name, argument = owner(shim, point)
    after = POINTS[point][1]
    real: Callable[..., Any] = getattr(having, name)

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

    setattr(having, name, deadly)


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
    shim = load()
    if point := os.environ.get("TEST_SHIM_POINT"):
        _die_at(shim, point, Path(os.environ["TEST_SHIM_MARK"]))
    if clock := os.environ.get("TEST_CLOCK"):
        _set_clock(Path(clock))
    return int(shim.main(folder))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
