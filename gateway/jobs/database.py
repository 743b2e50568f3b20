"""The database file before the store opens it: checked, of this version's schema, and set aside where it is damaged."""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from importlib import resources
from pathlib import Path

import structlog

from gateway.errors import StateError

# One script per schema version, in order; `user_version` counts those that have run. A released one never changes.
_MIGRATIONS = ("schema.sql", "schema-2.sql")
_MOST_VERSIONS = 1000  # no version of ours: somebody else wrote over it
_ASIDE = ".damaged-"
_KEPT = 3  # damaged databases that are kept
_SIDE_FILES = ("", "-wal", "-shm")
# What the disk, or another program that holds the database, may say for a while.
REFUSALS = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
    }
)
DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


_log = structlog.get_logger()


class _DamagedError(Exception):
    """What was found wrong."""


def checksum(*columns: str | float | None) -> int:
    """Of a row of the table of jobs, all its other columns but the first in their order."""
    return zlib.crc32(json.dumps(columns).encode())


def prepare(file: Path) -> None:
    """Check the database, or make a new one, and bring it to this version's schema; a damaged one is set aside first.

    Raises StateError if there can't be a database here, or it is of a newer version.
    """
    try:
        try:
            _open(file)
        except _DamagedError as damage:
            set_aside(file, str(damage))
            _open(file)
    except (OSError, sqlite3.Error, _DamagedError) as error:
        raise StateError(f"{file}: the database can't be used: {error}; check the disk and the owner") from None


def set_aside(file: Path, why: str) -> None:
    """Give a damaged database, which nobody has open, a name with the date. Raises OSError."""
    aside = file.with_name(f"{file.name}{_ASIDE}{time.strftime('%Y-%m-%dT%H-%M-%SZ', time.gmtime())}")
    for suffix in _SIDE_FILES:
        if (found := Path(f"{file}{suffix}")).exists():
            found.replace(f"{aside}{suffix}")
    _log.error("database damaged", database=str(file), found=why, set_aside=str(aside))
    before = sorted(path for path in file.parent.glob(f"{file.name}{_ASIDE}*Z") if path != aside)
    for old in before[: max(0, len(before) + 1 - _KEPT)]:
        for suffix in _SIDE_FILES:
            Path(f"{old}{suffix}").unlink(missing_ok=True)


def _open(file: Path) -> None:
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=rwc", uri=True, isolation_level=None)) as connection:
        connection.create_function("checksum", -1, checksum, deterministic=True)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            [[version]] = connection.execute("PRAGMA user_version")
            for what in _damage(connection, version):
                raise _DamagedError(what)
            _migrate(connection, version, file)
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF in REFUSALS:
                raise
            raise _DamagedError(str(error)) from None


def _damage(connection: sqlite3.Connection, version: int) -> Iterator[str]:
    """What is wrong with the file, first the most."""
    for [finding] in connection.execute("PRAGMA integrity_check(1)"):
        if finding != "ok":
            yield str(finding)
    if not 0 <= version < _MOST_VERSIONS:
        yield f"{version} is no version of a schema"
    if 2 <= version <= len(_MIGRATIONS):
        rows = connection.execute(
            "SELECT seq, checksum, id, state, ended_at, ended_uptime, ended_boot, record FROM job"
        )
        for seq, written, *columns in rows:
            if checksum(*columns) != written:
                yield f"the row {seq} is not what was written"


def _migrate(connection: sqlite3.Connection, version: int, file: Path) -> None:
    if version > len(_MIGRATIONS):
        raise StateError(
            f"{file}: made by a newer version of the gateway (schema {version}, this one knows {len(_MIGRATIONS)}); "
            "install that version again, or use another state directory"
        )
    if 0 < version < len(_MIGRATIONS):
        _back_up(connection, Path(f"{file}.schema-{version}"))
    for number, name in enumerate(_MIGRATIONS[version:], version + 1):
        script = resources.files("gateway.jobs").joinpath(name).read_text(encoding="utf-8")
        connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")


def _back_up(connection: sqlite3.Connection, copy: Path) -> None:
    """What the version that made it can be given again."""
    copy.unlink(missing_ok=True)
    connection.execute("VACUUM INTO ?", (str(copy),))
