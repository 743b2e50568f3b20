"""A job's record as JSON: what the database stores, and beside it a file in the job's own folder."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from gateway.jobs.job import Job
from runners import durable

NAME = "job.json"
_RECORD: TypeAdapter[Job] = TypeAdapter(Job)


def dump(job: Job) -> str:
    """The record as JSON."""
    return _RECORD.dump_json(job).decode()


def load(text: str) -> Job:
    """The job of a record. Raises ValueError."""
    return _RECORD.validate_json(text)


def write(folder: Path, job: Job) -> None:
    """Keep the record in the job's folder, durably. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    durable.write_text(folder / NAME, dump(job))


def read(folder: Path) -> Job | None:
    """The record in a job's folder, None where there is none that can be read."""
    try:
        return load((folder / NAME).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def has_more(folder: Path) -> bool:
    """Whether a job's folder has anything besides the record: output, or files of its steps."""
    return any(name != NAME for name in durable.names(folder))
