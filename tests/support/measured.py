"""The shim under coverage: it runs without site-packages, where coverage would otherwise hook itself in."""

from __future__ import annotations

import os
from pathlib import Path

import coverage

from runners import shim

_NAMES = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
# by which coverage measures this very process, if it does: read before the tests take them out of the environment
VARIABLES = {name: os.environ[name] for name in _NAMES if name in os.environ}
_WRAPPER = """
import os, runpy, sys
sys.path.append({packages!r})
import coverage
os.environ.update({variables!r})
coverage.process_startup()
for name in {variables!r}:
    del os.environ[name]  # the step gets the environment that it would have got
sys.argv[0] = {shim!r}
runpy.run_path({shim!r}, run_name="__main__")
"""


def wrapper(folder: Path) -> Path | None:
    """A program that is the shim and measures it, if this very process is being measured."""
    if not VARIABLES:
        return None
    packages = str(Path(coverage.__file__).parents[1])
    program = folder / "measured_shim.py"
    program.write_text(_WRAPPER.format(packages=packages, variables=VARIABLES, shim=shim.__file__), encoding="utf-8")
    return program
