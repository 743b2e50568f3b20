"""The artifacts that are kept of a job: which there are, and one of them to be read."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gateway.artifacts.keeping import COMMAND, LARGEST, folder_of
from gateway.errors import UnknownTargetError
from gateway.model import attempts
from gateway.model.job import Job, Waiting
from runners import durable
from runners.dbt import artifacts

_LEFT = artifacts.files(Path())  # where the files of dbt and its companions are in the folder of a step
NAMES = (*_LEFT, COMMAND)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A kept file. size: bytes. version: another one for another content."""

    step: str
    name: str
    size: int
    version: str


def step_folder(folder: Path, job: Job, n: int) -> Path:
    """The folder of the last attempt that was begun of the nth step, counted from 0. folder: of the job."""
    state = job.steps[n]
    return folder / attempts.step_folder(job, n, len(state.attempts) if isinstance(state, Waiting) else None)


def of_job(folder: Path, job: Job) -> list[Artifact]:
    """What is kept of a job, in the order of its steps. folder: of the job. Blocks. Raises OSError."""
    found = []
    for n, planned in enumerate(job.plan.steps):
        for name in NAMES:
            opened = _open(step_folder(folder, job, n), planned.name, name)
            if opened is not None:
                found.append(opened[0])
                opened[1].close()
    return found


def open_one(folder: Path, job: Job, step: str, name: str) -> tuple[Artifact, BinaryIO]:
    """An artifact and its file, which the caller closes. folder: of the job. Blocks.

    Raises UnknownTargetError, OSError.
    """
    must_have_step(job, step)
    if name not in NAMES:
        raise UnknownTargetError(
            "unknown_artifact", f"Artifact {name[:100]!a} not found; there are {', '.join(NAMES)}."
        )
    for n, planned in enumerate(job.plan.steps):
        opened = _open(step_folder(folder, job, n), step, name) if planned.name == step else None
        if opened is not None:
            return opened
    raise UnknownTargetError(
        "unknown_artifact",
        f"Artifact {name} of the step {step} not found: the step has not left one, has not ended, or its files were "
        f"removed. GET /api/v1/jobs/{job.id}/artifacts lists those there are.",
    )


def must_have_step(job: Job, name: str) -> None:
    """Raises UnknownTargetError."""
    planned = [str(step.name) for step in job.plan.steps]
    if name not in planned:
        raise UnknownTargetError("unknown_step", f"Step {name[:100]!a} not found; the job has {', '.join(planned)}.")


def document(step: Path, name: str) -> bytes | None:
    """A JSON artifact of a step: kept, else as the step has left it so far; None without it. Blocks.

    step: the folder of the step. What an earlier version has left was not kept.
    """
    for file in (folder_of(step) / name, step / _LEFT[name]):
        with contextlib.suppress(OSError):
            return read(file)
    return None


def read(file: Path) -> bytes | None:
    """The content of a file, None for one that is too large. Blocks. Raises OSError."""
    with durable.open_regular(file) as opened:
        content = opened.read(LARGEST + 1)
    return content if len(content) <= LARGEST else None


def _open(folder: Path, step: str, name: str) -> tuple[Artifact, BinaryIO] | None:
    try:
        file = durable.open_regular(folder_of(folder) / name)
    except (FileNotFoundError, NotADirectoryError):
        return None
    found = os.fstat(file.fileno())
    return Artifact(step, name, found.st_size, f"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}"), file
