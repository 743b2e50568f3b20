"""The tokens of callers: a file of names, scopes and hashes, written by the command, read at a start and a reload."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from gateway.errors import ConfigError, TokenError
from gateway.settings import refusals
from gateway.settings.expected import in_words
from gateway.settings.fabric import Name
from runners import durable

CREDENTIAL = "tokens"
COPY = "CALLERS_FILE"  # names the copy of root's file that the systemd unit makes
_NONE = "none"
_PREFIX = "pgw_"  # so that people and scanners recognise a token that has leaked


class Scope(StrEnum):
    """What a token allows: each includes those before it."""

    READ = "read"
    RUN = "run"
    ADMIN = "admin"

    def includes(self, other: Scope) -> bool:
        """Whether a token with this scope may do what needs the other."""
        order = list(Scope)
        return order.index(self) >= order.index(other)


Moment = Annotated[AwareDatetime, Field(examples=["2026-11-22T12:00:00Z"])]


class Token(BaseModel):
    """One token. Only its owner has its text: the file has a hash of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    scope: Scope
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", **in_words("64 hexadecimal digits", "0" * 64))]
    created: Moment
    expires: Moment | None = None

    def is_expired(self, now: datetime) -> bool:
        """Whether the token has expired."""
        return self.expires is not None and now >= self.expires


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: Annotated[tuple[Token, ...], Field(default=())]


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one file. With none in it, every request is refused: to revoke the last token opens nothing."""

    source: Path
    tokens: tuple[Token, ...]

    def find(self, text: str, now: datetime) -> Token | None:
        """The valid token with this text. The search takes equally long for each, so that its time tells nothing."""
        digest = _digest(text)
        found = None
        for token in self.tokens:
            if hmac.compare_digest(token.sha256, digest) and not token.is_expired(now):
                found = token
        return found


def load(file: Path | None, environment: Mapping[str, str]) -> Tokens | None:
    """The tokens of a credential that a drop-in has systemd pass, of the copy that the unit makes, or of the file.

    The first of them counts; None where there is none. A credential or copy with the text `none` counts as absent; an
    empty one is a mistake, and so is a missing copy, without which every caller would be let in. Raises ConfigError.
    """
    if directory := environment.get("CREDENTIALS_DIRECTORY"):
        with contextlib.suppress(FileNotFoundError):
            if known := _passed(Path(directory) / CREDENTIAL):
                return known
    if copy := environment.get(COPY):
        try:
            if known := _passed(Path(copy)):
                return known
        except FileNotFoundError:
            why = "its ExecStartPre= makes it: take the empty line `ExecStartPre=` out of the unit's drop-ins"
            raise ConfigError(f"{copy}: the unit's copy of the tokens file is missing: {why}") from None
    return None if file is None else read(file)


def _passed(file: Path) -> Tokens | None:
    """The tokens of a file that may say that there are none. Raises FileNotFoundError, ConfigError."""
    return None if _text(file).strip() == _NONE else read(file)


def are_passed(known: Tokens | None, environment: Mapping[str, str]) -> bool:
    """Whether a credential decides on the tokens, which systemd passes at the start alone. known: those in use."""
    credential = Path(environment.get("CREDENTIALS_DIRECTORY", "")) / CREDENTIAL
    return credential.is_absolute() and credential.exists() and (known is None or known.source == credential)


def read(file: Path) -> Tokens:
    """The tokens of a file. Raises ConfigError where it is missing, damaged, or other users may read or write it."""
    try:
        content, mode = _text(file), file.stat().st_mode
    except FileNotFoundError:
        why = "make it with `pipeline-gateway token create NAME --scope run`, or remove the setting `tokens_file`"
        raise ConfigError(f"{file}: there is no such tokens file: {why}") from None
    if stat.S_IMODE(mode) & stat.S_IRWXO:
        raise ConfigError(f"{file}: other users of this host can read or change the tokens file: run `chmod o= {file}`")
    return Tokens(file, _parsed(file, content))


def create(file: Path, name: str, scope: Scope, now: datetime, expires: datetime | None) -> str:
    """Add a token to a file, which is created if it does not exist; the token's text, which is not stored.

    Raises TokenError.
    """
    text = f"{_PREFIX}{secrets.token_urlsafe(32)}"
    try:
        token = Token(name=name, scope=scope, sha256=_digest(text), created=now, expires=expires)
    except ValidationError:
        why = "use letters, digits, `_`, `.` and `-`, 64 at most"
        raise TokenError(f"The name {name[:100]!a} is not allowed: {why}.") from None
    with _edited(file, os.O_CREAT) as known:
        if any(one.name == name for one in known):
            raise TokenError(f"There is a token named {name} in {file}: revoke it first, or choose another name.")
        known.append(token)
    return text


def revoke(file: Path, name: str) -> None:
    """Remove a token from a file. Raises TokenError."""
    with _edited(file) as known:
        kept = [token for token in known if token.name != name]
        if len(kept) == len(known):
            names = ", ".join(token.name for token in known) or "none"
            raise TokenError(f"There is no token named {name[:100]!a} in {file}; there are: {names}.")
        known[:] = kept


@contextlib.contextmanager
def _edited(file: Path, flags: int = 0) -> Iterator[list[Token]]:
    """The tokens of a file, as a list to change; it is written back at the end, with the file's owner and mode."""
    if file.is_symlink():
        raise TokenError(f"{file} is a link, which the command would replace: name the file that it points to.")
    try:
        with _locked(file, flags) as before:
            content = _text(file)
            known = list(_parsed(file, content)) if content.strip() else []
            yield known
            changed = _File(tokens=tuple(known)).model_dump(mode="json")
            _replace(file, f"{json.dumps(changed, indent=1)}\n", before)
    except OSError as error:
        raise TokenError(f"{file}: the tokens can't be changed: {error.strerror}.") from None


@contextlib.contextmanager
def _locked(file: Path, flags: int) -> Iterator[os.stat_result]:
    """Lock the file against other commands. The lock is on the file itself, which a user without access can't hold."""
    while True:
        fd = os.open(file, os.O_RDWR | os.O_NOFOLLOW | flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            locked, current = os.fstat(fd), file.stat()
            if locked.st_ino == current.st_ino:  # else another command has replaced the file meanwhile
                yield locked
                return
        finally:
            os.close(fd)


def _replace(file: Path, text: str, before: os.stat_result) -> None:
    """Replace a file. The new one gets the owner and the mode of the old one before it takes its name.

    Afterwards nothing is done by name: another user may own the folder, and put another file under that name.
    """
    new = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as opened:
            os.fchown(fd, before.st_uid, before.st_gid)
            os.fchmod(fd, stat.S_IMODE(before.st_mode) & ~stat.S_IRWXO)
            opened.write(text)
            opened.flush()
            os.fsync(fd)
        new.replace(file)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    durable.sync(file.parent)


def _parsed(file: Path, content: str) -> tuple[Token, ...]:
    try:
        return _File.model_validate_json(content).tokens
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        why = "it is not the JSON that `pipeline-gateway token create` writes"
        if where:
            why = f"{where}: {refusals.sentence(_File, problem, problem['input'], is_secret='sha256' in where)}"
        raise ConfigError(f"{file}: is no tokens file: {why}") from None


def _text(file: Path) -> str:
    """The content of a file. Raises FileNotFoundError, ConfigError."""
    try:
        return file.read_text("utf-8")
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: the tokens file can't be read: {error}") from None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
