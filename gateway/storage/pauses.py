"""The pauses of pipelines: a file each, so that a damaged or lost database forgets none of them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from gateway import clock
from gateway.errors import PausedError, StateBusyError, StateError, StorageError
from gateway.model.job import Caller
from runners import durable

_SEPARATOR = ":"  # between project and pipeline in the name of a file; neither may have it in its own

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Pause:
    """Since when a pipeline is paused (epoch seconds), and who paused it."""

    since: float
    by: Caller


class Pauses:
    """The pipelines whose triggers are refused. folder: of the files."""

    def __init__(self, folder: Path) -> None:
        """Read the pauses. Raises StateError, since an overlooked pause would start what a person forbade."""
        self._folder = folder
        self._lock = asyncio.Lock()
        try:
            durable.remove_partial_files(folder)
            files = [folder / name for name in durable.list_names(folder)]
            self._known = {file.name: _read(file) for file in files if _SEPARATOR in file.name}
        except OSError as error:
            why = f"The paused pipelines in {folder} can't be read: {error.strerror}; check its type and owner."
            raise (StateBusyError if durable.may_pass(error) else StateError)(why) from None

    def get(self, project: str, pipeline: str) -> Pause | None:
        """The pause of a pipeline, None where it is not paused."""
        return self._known.get(_name(project, pipeline))

    def must_not_be_paused(self, project: str, pipeline: str) -> None:
        """Raises PausedError."""
        pause = self.get(project, pipeline)
        if pause is not None:
            since, by = clock.rfc3339(pause.since), _caller(pause.by)
            raise PausedError(
                f"The pipeline `{pipeline}` of the project `{project}` is paused since {since} by {by}; to take its "
                f"triggers again: `pipeline-gateway unpause {project}:{pipeline}`."
            )

    async def set(self, project: str, pipeline: str, by: Caller, *, paused: bool) -> None:
        """Pause a pipeline or end its pause, durably. The first of several pauses counts. Raises StorageError."""
        name = _name(project, pipeline)
        async with self._lock:
            if (name in self._known) == paused:
                return
            pause = Pause(clock.now().wall, by)
            try:
                await asyncio.to_thread(_write if paused else _remove, self._folder / name, pause)
            except OSError as error:
                raise StorageError(f"The pause of {project}:{pipeline} can't be stored: {error}; mend that.") from None
            if paused:
                self._known[name] = pause
            else:
                del self._known[name]
        what = "pipeline paused" if paused else "pipeline not paused any more"
        _log.info(what, project=project, pipeline=pipeline, token=by.token, address=by.address)


def _name(project: str, pipeline: str) -> str:
    return f"{project}{_SEPARATOR}{pipeline}"


def _caller(caller: Caller) -> str:
    if caller.token is not None:
        return f"the token {caller.token}"
    return "an unknown caller" if caller.address is None else f"a caller at {caller.address}"


def _read(file: Path) -> Pause:
    """The pause in a file. A damaged file is a pause too, since its name alone says what is paused. Raises OSError."""
    try:
        content = json.loads(durable.read_bytes(file))
        return Pause(float(content["since"]), Caller(**content["by"]))
    except (ValueError, KeyError, TypeError) as error:
        _log.warning("pause damaged", file=str(file), error=str(error))
        return Pause(file.stat().st_mtime, Caller())


def _write(file: Path, pause: Pause) -> None:
    durable.make_directory(file.parent)
    durable.write(file, asdict(pause))


def _remove(file: Path, _: Pause) -> None:
    file.unlink(missing_ok=True)
    durable.sync(file.parent)
