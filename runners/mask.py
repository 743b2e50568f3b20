"""Hides what is secret from everything that is shown or kept: see Masker in the shim, which does the work."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import BinaryIO
from urllib.parse import quote, quote_plus, unquote

from runners.shim import SHORTEST_SECRET, Masker

# Where people keep secrets, databases, clouds, dlt (`DESTINATION__…__CREDENTIALS`) and dbt (`DBT_ENV_SECRET_…`) among
# them. Not everything under dlt's CREDENTIALS: the names of a user and a host would be masked wherever they are said.
USUAL_NAMES = (
    "*PASSWORD*",
    "*PASSWD*",
    "*PASSPHRASE*",
    "*_PASS",
    "*_PWD",
    "*SECRET*",
    "*TOKEN*",
    "*__CREDENTIALS",
    "*API_KEY*",
    "*APIKEY*",
    "*ACCESS_KEY*",
    "*ACCOUNT_KEY*",
    "*PRIVATE_KEY*",
    "*CONNECTION_STRING*",
)
_PASSWORD = re.compile(r'://[^\s"<>\\/?#:]{0,512}:([^\s"<>\\/?#]{1,512})@')


@dataclass(frozen=True, slots=True)
class Mask:
    """Knows what is secret, and puts `***` in its place.

    names: of the variables whose values are secret, in any case; `*` stands for anything.
    values: what is secret for all that is known. Passwords in URLs and the gateway's own tokens are in any case.
    """

    names: tuple[str, ...] = ()
    values: frozenset[str] = field(default=frozenset(), repr=False)

    def with_secrets_of(self, environment: Mapping[str, str]) -> Mask:
        """The same with the secrets of this environment too: by their names, and the passwords of URLs anywhere."""
        found = {value.strip() for name, value in environment.items() if self.is_secret(name)}
        found.update(text for value in environment.values() for text in _passwords(value))
        return replace(self, values=self.values | {value for value in found if len(value) >= SHORTEST_SECRET})

    def is_secret(self, name: str) -> bool:
        """Whether the value of a variable of this name is secret."""
        return any(fnmatchcase(name.upper(), pattern.upper()) for pattern in self.names)

    def text(self, text: str) -> str:
        """The text without anything secret. To be called before the text is cut: half a secret is not found."""
        given = bytearray(text.encode(errors="surrogatepass"))
        masker = Masker(value.encode(errors="surrogatepass") for value in variants(self.values))
        shown = b"".join((masker.feed(given, len(given)), masker.finish()))
        return text if shown == given else shown.decode(errors="surrogatepass")

    def masked(self, value: object) -> object:
        """A part of a configuration without the values of secret names in it."""
        if isinstance(value, dict):
            return {name: "***" if self.is_secret(str(name)) else self.masked(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.masked(item) for item in value]
        if not isinstance(value, str):
            return value
        name, equals, _ = value.partition("=")
        return f"{name}=***" if equals and self.is_secret(name) else self.text(value)

    @property
    def longest(self) -> int:
        """How much may be held back because it may begin a secret, bytes; of URLs and tokens always a little."""
        return max((len(value.encode(errors="surrogatepass")) for value in variants(self.values)), default=0)

    def memory_file(self) -> BinaryIO:
        """What the shim is told on its standard input, as an open file that is on no disk. Raises OSError."""
        file = open(os.memfd_create("mask"), "r+b")  # noqa: PTH123, SIM115 - it has no path, and the caller closes it
        file.write(json.dumps(variants(self.values)).encode())
        file.seek(0)
        return file


def has_password(text: str) -> bool:
    """Whether there is a URL with a password in it."""
    return _PASSWORD.search(text) is not None


def _passwords(value: str) -> Iterator[str]:
    for found in _PASSWORD.finditer(value):
        yield from (found[1], unquote(found[1]))


@functools.lru_cache(maxsize=64)
def variants(values: frozenset[str]) -> tuple[str, ...]:
    """The values as programs may print them: line by line, as in a URL, as Python and JSON write it, in JSON again."""
    found: set[str] = set()
    for value in values:
        encoded = value.encode(errors="surrogatepass")
        found |= {quote(encoded), quote(encoded, safe=""), quote_plus(encoded)}
        found.update(line.strip() for line in value.splitlines())
        for written in (value, repr(value)[1:-1]):
            found |= {written, *_escaped(written, ascii_only=True), *_escaped(written, ascii_only=False)}
    return tuple(sorted(text for text in found if len(text) >= SHORTEST_SECRET))


def _escaped(value: str, *, ascii_only: bool) -> Iterator[str]:
    for _ in range(2):
        value = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        yield value
