"""What the ingester step runs: any command of the user's, and the progress it may print."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from runners.mask import Mask
from runners.outcome import Command
from runners.parameters import ParameterValue
from runners.report import Progress, one_line
from runners.words import WordError

# What an ingester finds in its environment unless somebody has set it otherwise. Python buffers what it prints into a
# pipe, and all of it would arrive at the end.
VARIABLES = {"PYTHONUNBUFFERED": "1", "DO_NOT_TRACK": "1"}


_OPTION = re.compile(r"--[A-Za-z0-9][A-Za-z0-9_-]{0,61}")


@dataclass(frozen=True, slots=True)
class Ingester:
    """How data is brought in: a command and the absolute folder it runs in, both empty for its place's own.

    arguments: go behind the command, which must then be given: behind an empty one they would be the command.
    """

    command: tuple[str, ...]
    directory: str
    arguments: tuple[str, ...] = ()


def option(name: str) -> str:
    """The name of an option that an argument may be given by. Raises WordError."""
    if not _OPTION.fullmatch(name):
        allowed = "-- and at most 62 letters, digits, _ and -, beginning with a letter or a digit"
        raise WordError("option", name, allowed)
    return name


def argument(option: str, value: ParameterValue) -> str:
    """The option with its value, in one word, so that no value begins an option of its own.

    A boolean is true or false, a date what it is as a value: ISO text.
    """
    return f"{option}={value if isinstance(value, str) else json.dumps(value)}"


def command(
    ingester: Ingester, environment: Mapping[str, str], *, grace: float, time_limit: float, mask: Mask
) -> Command:
    """The command of an ingester step. environment and mask: as for Command. grace and time_limit in seconds."""
    return Command(
        argvs=((*ingester.command, *ingester.arguments),),
        cwd=ingester.directory,
        environment=environment,
        grace=grace,
        time_limit=time_limit,
        mask=mask,
    )


class IngesterReader:
    """Follows an ingester by the JSON lines it may print: `{"table": "flights", "done": 3, "total": 5}`."""

    def __init__(self) -> None:
        self.last_line = ""
        self._progress: Progress | None = None

    @property
    def progress(self) -> Progress | None:
        """Tables so far, None until the ingester said how many there are."""
        return self._progress

    def skip(self) -> None:
        """A lost line may have said more; the next one does."""

    def feed(self, line: str) -> None:
        """Take one line of the step's output."""
        self.last_line = line.strip() or self.last_line
        if not line.startswith("{") or '"total"' not in line:
            return
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            return
        done, total = said.get("done"), said.get("total")
        if type(done) is int and type(total) is int:  # a bool is an int, but no number
            table = one_line(str(said.get("table") or "")) or None
            self._progress = Progress(done=done, total=total, passed=done, current=table)
