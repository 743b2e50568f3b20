"""The ingester step: a command of the user's, and the progress that it may print."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from runners.mask import Mask
from runners.outcome import Command
from runners.parameters import ParameterValue, WordError
from runners.report import CauseFinder, Progress, one_line

# The environment of an ingester, where the gateway's environment and the configuration do not set these variables.
# Without PYTHONUNBUFFERED, Python writes to a pipe in large blocks, so the output would come late.
DEFAULT_VARIABLES = {"PYTHONUNBUFFERED": "1", "DO_NOT_TRACK": "1"}

_OPTION_NAME = re.compile(r"--[A-Za-z0-9][A-Za-z0-9_-]{0,61}")


@dataclass(frozen=True, slots=True)
class Ingester:
    """The ingester of a project.

    command, directory: the command line and its absolute working directory; both empty for a service's own.
    arguments: added to the command, which must then not be empty.
    """

    command: tuple[str, ...]
    directory: str
    arguments: tuple[str, ...] = ()


def check_option(name: str) -> str:
    """The name of an option that may pass a parameter to the ingester. Raises WordError for any other name."""
    if not _OPTION_NAME.fullmatch(name):
        allowed = "-- and at most 62 letters, digits, _ and -, beginning with a letter or a digit"
        raise WordError("option", name, allowed)
    return name


def argument(option: str, value: ParameterValue) -> str:
    """The option with its value as one word, so that no value can begin an option: booleans as true and false."""
    return f"{option}={value if isinstance(value, str) else json.dumps(value)}"


def command(
    ingester: Ingester, environment: Mapping[str, str], *, grace: float, time_limit: float, mask: Mask
) -> Command:
    """The command of an ingester step. environment, mask: see Command. grace, time_limit: seconds."""
    return Command(
        argvs=((*ingester.command, *ingester.arguments),),
        cwd=ingester.directory,
        environment=environment,
        grace=grace,
        time_limit=time_limit,
        mask=mask,
    )


class IngesterReader:
    """Follows an ingester by JSON lines such as `{"table": "flights", "done": 3, "total": 5}`: see OutputReader."""

    def __init__(self) -> None:
        self._causes = CauseFinder()
        self._progress: Progress | None = None

    @property
    def progress(self) -> Progress | None:
        """Tables so far, None until the ingester has printed a JSON line."""
        return self._progress

    @property
    def cause(self) -> str:
        """Why the ingester failed, in the words of its output."""
        return self._causes.cause

    def skip(self) -> None:
        """Nothing to do: each JSON line has the whole progress."""

    def feed(self, line: str) -> None:
        """Take one line of the step's output."""
        self._causes.feed(line)
        if not line.startswith("{") or '"total"' not in line:
            return
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            return
        done, total = event.get("done"), event.get("total")
        if type(done) is int and type(total) is int:  # an exact check, since bool is a subclass of int
            table = one_line(str(event.get("table") or "")) or None
            self._progress = Progress(done=done, total=total, passed=done, current=table)
