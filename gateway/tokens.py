"""The tokens that let callers in: a file of names, scopes and hashes, written by the command and read at the start."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from gateway.errors import ConfigError, TokenError
from gateway.fabric import Name
from runners import durable

CREDENTIAL = "tokens"
_PREFIX = "pgw_"  # so that a token is known for one wherever it turns up


class Scope(StrEnum):
    """What a token allows: each includes those before it."""

    READ = "read"
    RUN = "run"
    ADMIN = "admin"

    def includes(self, other: Scope) -> bool:
        """Whether who has this may do what needs the other."""
        order = list(Scope)
        return order.index(self) >= order.index(other)


class Token(BaseModel):
    """One token: its text is nowhere but with its owner."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    scope: Scope
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    created: AwareDatetime
    expires: AwareDatetime | None = None

    def is_expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires is not None and now >= self.expires


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: Annotated[tuple[Token, ...], Field(default=())]


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one file. A file without any lets nobody in: taking the last token away opens nothing."""

    source: Path
    tokens: tuple[Token, ...]

    def find(self, text: str, now: datetime) -> Token | None:
        """The token with this text, if it is one that is good now; takes as long whichever it is."""
        digest = _digest(text)
        found = None
        for token in self.tokens:
            if hmac.compare_digest(token.sha256, digest) and not token.is_expired(now):
                found = token
        return found


def load(file: Path | None, environment: Mapping[str, str]) -> Tokens | None:
    """The tokens to serve with: the credential that systemd hands over, else those of the file; None for neither.

    A credential of nothing but white space is none. Raises ConfigError.
    """
    if directory := environment.get("CREDENTIALS_DIRECTORY"):
        credential = Path(directory) / CREDENTIAL
        if credential.exists() and _content(credential).strip():
            return read(credential)
    return None if file is None else read(file)


def read(file: Path) -> Tokens:
    """The tokens of a file. Raises ConfigError where it is missing, damaged, or readable by everybody."""
    content = _content(file)
    if stat.S_IMODE(file.stat().st_mode) & stat.S_IROTH:
        raise ConfigError(f"{file}: everybody on this host can read the tokens file: chmod o-r it")
    try:
        return Tokens(file, _File.model_validate_json(content).tokens)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(f"{file}: is no tokens file: {where}{': ' if where else ''}{problem['msg']}") from None


def create(file: Path, name: str, scope: Scope, now: datetime, expires: datetime | None) -> str:
    """Add a token to a file, which is made if need be; its text, which is kept nowhere. Raises TokenError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        raise TokenError(f"The name {name[:100]!a} can't be: take letters, digits, `_`, `.` and `-`, 64 at most.")
    text = f"{_PREFIX}{secrets.token_urlsafe(32)}"
    with _changing(file) as known:
        if any(token.name == name for token in known):
            raise TokenError(f"There is a token named {name} in {file}: revoke it first, or take another name.")
        known.append(Token(name=name, scope=scope, sha256=_digest(text), created=now, expires=expires))
    return text


def revoke(file: Path, name: str) -> None:
    """Take a token out of a file. Raises TokenError."""
    with _changing(file) as known:
        left = [token for token in known if token.name != name]
        if len(left) == len(known):
            names = ", ".join(token.name for token in known) or "none"
            raise TokenError(f"There is no token named {name[:100]!a} in {file}; there are: {names}.")
        known[:] = left


@contextlib.contextmanager
def _changing(file: Path) -> Iterator[list[Token]]:
    """The tokens of a file, to be changed by one command at a time; its owner and mode stay."""
    try:
        with _locked(file.parent):
            before = file.stat() if file.exists() else None
            known = list(read(file).tokens) if before is not None and _content(file).strip() else []
            yield known
            content = _File(tokens=tuple(known)).model_dump(mode="json")
            os.umask(0o177)  # no other user may see the file for a moment either
            durable.write_text(file, f"{json.dumps(content, indent=1)}\n")
            if before is not None:
                os.chown(file, before.st_uid, before.st_gid)
                file.chmod(stat.S_IMODE(before.st_mode))
    except OSError as error:
        raise TokenError(f"{file}: the tokens can't be changed: {error.strerror}.") from None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _content(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except FileNotFoundError:
        why = "make it with `pipeline-gateway token create NAME --scope run`, or take `tokens_file` away"
        raise ConfigError(f"{file}: there is no such tokens file: {why}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: the tokens file can't be read: {error}") from None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
