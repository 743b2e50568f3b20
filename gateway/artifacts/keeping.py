"""Keeps what a step leaves behind in a folder of the step's own, under fixed names and without secrets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import structlog

from gateway.model.plan import StepName
from runners import durable
from runners.dbt import artifacts
from runners.mask import Mask
from runners.outcome import Command

COMMAND = "command.json"
LARGEST = 64 << 20  # bytes of an artifact
_TAIL = 64  # bytes

_log = structlog.get_logger()


def folder_of(step: Path) -> Path:
    """The folder of the artifacts of the step whose folder this is."""
    return step / "artifacts"


def keep_command(step: Path, command: Command) -> None:
    """Keep what a step runs, as it was decided first: a gateway that takes the step up may have other settings. Blocks.

    step: the folder of the step. A disk that refuses it does not keep the step from being started.
    """
    file, hide = folder_of(step) / COMMAND, command.mask.text
    if not command.argvs or file.exists():
        return
    content = {
        "argvs": [[hide(word) for word in argv] for argv in command.argvs],
        "cwd": hide(command.cwd),
        "variables": sorted(command.environment),
    }
    try:
        durable.make_directory(file.parent)
        durable.write(file, content)
    except OSError as error:
        _log.warning("artifact not kept", file=str(file), error=str(error))


def keep(step: Path, name: StepName, mask: Mask) -> tuple[str, ...]:
    """Keep the files of a step that has ended; a note for each one that could not be kept. Blocks.

    step: the folder of the step. Doing it again, after a kill, gives the same files.
    """
    notes = []
    for artifact, file in artifacts.files(step).items():
        try:
            why = _keep(file, folder_of(step) / artifact, mask)
        except FileNotFoundError:
            continue
        except OSError as error:
            why = f"could not be kept: {error}"
        if why is not None:
            notes.append(mask.text(f"{artifact} of the step {name} {why}."))
            _log.warning("artifact not kept", file=str(file), why=why)
    return tuple(notes)


def _keep(file: Path, artifact: Path, mask: Mask) -> str | None:
    """Keep one file; why it is not kept. Raises OSError."""
    with durable.open_regular(file) as source:
        size = source.seek(0, os.SEEK_END)
        if size > LARGEST:
            return f"is not kept: it has {size} bytes, and the most for one artifact is {LARGEST}"
        if artifact.suffix == ".json" and not _is_whole(source, size):
            return "is not kept: dbt was stopped while it wrote the file"
        source.seek(0)
        durable.make_directory(artifact.parent)
        with durable.replacing(artifact) as target:
            mask.copy(source, target)
    return None


def _is_whole(source: BinaryIO, size: int) -> bool:
    """Whether the end of a JSON object is there; what is before it costs too much to be parsed here."""
    source.seek(max(0, size - _TAIL))
    return source.read().rstrip().endswith(b"}")
