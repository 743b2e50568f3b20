"""Secrets that nothing else looks like, and a look for them, or for any piece of them, wherever something is told."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from tests.support.gateway import PATH, Gateway

# Files that are dbt's own, kept as dbt wrote them.
_DBTS_OWN = frozenset({"target", "logs", "parse"})


class Canaries:
    """Secrets by the name of the variable that each is in; every piece of eight characters of them is their own."""

    def __init__(self) -> None:
        self.token = f"pgw_{secrets.token_urlsafe(32)}"
        self.password = _odd()
        self.environment = {
            "WAREHOUSE_PIN": f"{_odd()}/+ %\"'\\{_odd()}",
            "DBT_ENV_SECRET_GIT": _odd(),
            "LOADER_PASSWORD": _odd(),
            "DEPLOY_PRIVATE_KEY": f"-----BEGIN-----\n{_odd()}\n{_odd()}\n-----END-----\n",
            "LAKE": f"postgresql://loader:{self.password}@db.example/lake",
        }
        words = [self.token, *self.environment.values()]
        self._pieces = {piece.encode() for word in words for piece in _pieces(word)}
        self._pieces |= {self.password[:8].encode(), self.password[-8:].encode()}

    def found_in(self, told: bytes) -> list[str]:
        """The pieces of secrets that are in it."""
        return [piece.decode() for piece in self._pieces if piece in told]

    def everywhere(self, gateway: Gateway, job: str) -> Mapping[str, list[str]]:
        """Where a piece of a secret is told: answers, log, files of gateway and jobs, command lines of this host."""
        places = dict(self._answers(gateway, job)) | dict(_files(gateway.state)) | dict(_command_lines())
        places["log"] = gateway.log.read_bytes()
        assert {"log", "gateway.db", f"jobs/{job}/job.json"} <= set(places)
        return {place: found for place, told in places.items() if (found := self.found_in(told))}

    def _answers(self, gateway: Gateway, job: str) -> Iterator[tuple[str, bytes]]:
        paths = [PATH, f"{PATH}?jobId={job}", f"/api/v1/jobs/{job}", "/healthz", "/readyz", "/nowhere"]
        for path in paths:
            answer = gateway.call("GET", path)
            yield path, answer.body + json.dumps(dict(answer.headers)).encode()


def _odd() -> str:
    return secrets.token_hex(12)


def _pieces(word: str) -> Iterator[str]:
    """The ends of each odd part of a secret."""
    for line in word.replace("/+ %\"'\\", "\n").splitlines():
        part = line.removeprefix("pgw_")
        if not part.startswith(("-----", "postgresql:")):
            yield from (part[:8], part[-8:])


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for file in folder.rglob("*"):
        if file.is_file() and not _DBTS_OWN & set(file.relative_to(folder).parts):
            yield str(file.relative_to(folder)), file.read_bytes()


def _command_lines() -> Iterator[tuple[str, bytes]]:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            yield f"command line of {process.name}", process.joinpath("cmdline").read_bytes()
