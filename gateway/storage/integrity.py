"""Prepares the database file for the store: checks it, migrates it, and sets it aside where it is damaged."""

from __future__ import annotations

import json
import re
import sqlite3
import time
import zlib
from contextlib import closing
from importlib import resources
from pathlib import Path

import structlog

from gateway.errors import StateBusyError, StateError, StorageError

# One script per schema version, in order; `user_version` counts those that have run. A released one never changes.
_MIGRATIONS = ("schema.sql", "schema-2.sql", "schema-3.sql", "schema-4.sql", "schema-5.sql")
_MOST_VERSIONS = 100  # a higher number is no version, but damage
_ASIDE = ".damaged-"
_ASIDE_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}-[0-9]{2}-[0-9]{2}Z")
_KEPT = 3  # damaged databases that are kept
_SIDE_FILES = ("", "-wal", "-shm")
_FORMATS = slice(18, 20)  # the write and read versions in the file's header, 1 or 2; SQLite accepts other numbers too
# Errors that pass by themselves, or when a person frees space or ends a program while the service waits.
_PASSING = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PROTOCOL,
    }
)
# Errors of the disk, or of another program that holds the database.
_REFUSALS = _PASSING | {
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
}

_log = structlog.get_logger()


class _DamagedError(Exception):
    """The database is damaged; the text says how."""


def checksum(*columns: str | float | None) -> int:
    """The checksum of the other columns, from `id` on, of a row of the table of jobs."""
    return zlib.crc32(json.dumps(columns).encode())


def is_damage(error: Exception) -> bool:
    """Whether an error means that the database is damaged; for a text that is not UTF-8, SQLite gives no error code."""
    if isinstance(error, UnicodeDecodeError) or (isinstance(error, sqlite3.OperationalError) and not _code(error)):
        return True
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def concerns_all(error: Exception) -> bool:
    """Whether an error is of the disk or the database, and not of one statement alone."""
    if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
        return False
    return isinstance(error, sqlite3.Error | UnicodeDecodeError)


def storage_error(error: Exception) -> Exception:
    """What the store raises: a StorageError for an error of the disk or the database file, else the error itself."""
    if is_damage(error):
        return StorageError(
            f"The state directory's database is damaged ({error}); the gateway ends now and repairs it at its next "
            "start: try again in a few seconds."
        )
    if _code(error) in _REFUSALS:
        return StorageError(
            f"The state directory's database can't be used now ({error}); free disk space, make it writable or end "
            "what holds it, then try again."
        )
    return error


def _code(error: Exception) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def prepare(file: Path) -> None:
    """Check the database or create it, and migrate it to this version's schema; a damaged one is set aside first.

    Raises StateError if it can't be used or is of a newer version, StateBusyError if the error may pass.
    """
    try:
        try:
            _open(file)
        except _DamagedError as damage:
            set_aside(file, str(damage))
            _open(file)
        _remove_oldest(file)
    except (OSError, sqlite3.Error, _DamagedError) as error:
        kind = StateBusyError if _code(error) in _PASSING else StateError
        raise kind(f"{file}: the database can't be used: {error}; check the disk and the owner") from None


def set_aside(file: Path, why: str) -> None:
    """Rename a damaged database, which must be closed, to a name with the date. Raises OSError."""
    aside = file.with_name(f"{file.name}{_ASIDE}{time.strftime('%Y-%m-%dT%H-%M-%SZ', time.gmtime())}")
    for suffix in _SIDE_FILES:
        if (found := Path(f"{file}{suffix}")).exists():
            found.replace(f"{aside}{suffix}")
    _log.error("database damaged", database=str(file), found=why, set_aside=str(aside))


def _remove_oldest(file: Path) -> None:
    """Remove all but the newest databases that were set aside; only once there is a good one to replace them."""
    prefix = f"{file.name}{_ASIDE}"
    found = file.parent.glob(f"{prefix}*Z")
    aside = sorted(one for one in found if _ASIDE_DATE.fullmatch(one.name, len(prefix)) and one.is_file())
    for old in aside[:-_KEPT]:
        for suffix in _SIDE_FILES:
            Path(f"{old}{suffix}").unlink(missing_ok=True)


def _open(file: Path) -> None:
    _check_header(file)
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=rwc", uri=True, isolation_level=None)) as connection:
        connection.create_function("checksum", -1, checksum, deterministic=True)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA foreign_keys = ON")
            [[version]] = connection.execute("PRAGMA user_version")
            if len(_MIGRATIONS) < version < _MOST_VERSIONS:
                raise StateError(
                    f"{file}: made by a newer version of the gateway (schema {version}, this one knows "
                    f"{len(_MIGRATIONS)}); install that version again, or use another state directory"
                )
            _check(connection, version)
            _migrate(connection, version, file)
            _check_claim_index(connection)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if _code(error) in _REFUSALS:
                raise
            raise _DamagedError(str(error)) from None


def _check_header(file: Path) -> None:
    if file.is_file():
        with file.open("rb") as opened:
            formats = opened.read(_FORMATS.stop)[_FORMATS]
        if not set(formats) <= {1, 2}:
            raise _DamagedError("its header is not SQLite's")


def _check(connection: sqlite3.Connection, version: int) -> None:
    """Check every page with SQLite's own check, and every row by its checksum. Raises _DamagedError."""
    [[found]] = connection.execute("PRAGMA integrity_check(1)")
    if found != "ok":
        raise _DamagedError(str(found))
    if not 0 <= version < _MOST_VERSIONS:
        raise _DamagedError(f"{version} is no version of a schema")
    if version < 2:  # rows have checksums from version 2 on
        return
    columns = "id, state, ended_at, ended_uptime, ended_boot, record"
    columns += ", project, pipeline" if version > 2 else ""
    columns += ", fabric, status, outcome, created_at, seconds" if version > 3 else ""
    rows = connection.execute(f"SELECT seq, checksum, {columns} FROM job")  # noqa: S608, the columns are constants of this function
    for seq, written, *values in rows:
        if checksum(*values) != written:
            raise _DamagedError(f"the row {seq} is not what was written")


def _migrate(connection: sqlite3.Connection, version: int, file: Path) -> None:
    if 0 < version < len(_MIGRATIONS):
        _back_up(connection, Path(f"{file}.schema-{version}"))
    for number, name in enumerate(_MIGRATIONS[version:], version + 1):
        script = resources.files("gateway.storage").joinpath(name).read_text(encoding="utf-8")
        connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")


def _back_up(connection: sqlite3.Connection, copy: Path) -> None:
    """Copy the database, so that the version that made it can be installed again with it."""
    copy.unlink(missing_ok=True)
    connection.execute("VACUUM INTO ?", (str(copy),))


def _check_claim_index(connection: sqlite3.Connection) -> None:
    """Check that two jobs can't hold one resource: damage may have taken the index, which no check of pages finds.

    Raises _DamagedError.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        for job, phase in (("/1", "holds"), ("/2", "waits")):
            connection.execute("INSERT INTO job (id, state, record) VALUES (?, 'trial', '')", (job,))
            connection.execute(
                "INSERT INTO claim (job, resource, phase) VALUES (last_insert_rowid(), '/', ?)", (phase,)
            )
        connection.execute("UPDATE claim SET phase = 'holds' WHERE resource = '/'")
        raise _DamagedError("two jobs could hold one resource")
    except sqlite3.IntegrityError as refused:
        if "claim.resource" not in str(refused):
            raise _DamagedError(str(refused)) from None
    finally:
        connection.execute("ROLLBACK")
