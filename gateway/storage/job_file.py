"""A job's record as JSON, which is stored in the database and in a file in the job's folder."""

from __future__ import annotations

import zlib
from pathlib import Path

from pydantic import TypeAdapter

from gateway.model.job import Job
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
    """Write the record into the job's folder, durably, with a checksum on a line of its own. Raises OSError."""
    durable.make_directory(folder)
    record = dump(job)
    durable.write_text(folder / NAME, f"{record}\n{_checksum(record)}\n")


def read(folder: Path) -> Job | None:
    """The record in a job's folder; None where there is none, or it is damaged."""
    try:
        record, _, checksum = durable.read_bytes(folder / NAME).decode().rstrip("\n").rpartition("\n")
        return load(record) if checksum == _checksum(record) else None
    except (OSError, ValueError):
        return None


def has_more(folder: Path) -> bool:
    """Whether a job's folder has more than the record: output, or files of its steps."""
    return any(not name.startswith(NAME) for name in durable.list_names(folder))


def _checksum(record: str) -> str:
    return str(zlib.crc32(record.encode()))
