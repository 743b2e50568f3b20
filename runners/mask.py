"""Replaces secrets in everything that is shown or written. runners.masker.Masker does the work."""

from __future__ import annotations

import base64
import functools
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import BinaryIO
from urllib.parse import quote, quote_plus, unquote

from runners.masker import SHORTEST_SECRET, Masker

# Names of variables whose values are usually secret: of databases, clouds, dlt (`DESTINATION__…__CREDENTIALS`) and dbt
# (`DBT_ENV_SECRET_…`). Not `*CREDENTIALS*`: below dlt's CREDENTIALS are user and host, which must stay readable.
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
_COPIED = 1 << 20  # bytes that are copied at once
_PERCENT = re.compile("%[0-9A-F]{2}")
_JSON_IN_HTML = {ord("&"): r"\u0026", ord("<"): r"\u003c", ord(">"): r"\u003e"}
_PASSWORD = re.compile(r'://[^\s"<>\\/?#:]{0,512}:([^\s"<>\\/?#]{1,512})@')


@dataclass(frozen=True, slots=True)
class Mask:
    """Replaces secrets by `***`: these values, passwords in URLs, and the gateway's own tokens.

    names: of the variables whose values are secret; upper or lower case, `*` for any characters.
    values: the secrets that are known so far.
    """

    names: tuple[str, ...] = ()
    values: frozenset[str] = field(default=frozenset(), repr=False)

    def with_secrets_of(self, environment: Mapping[str, str]) -> Mask:
        """The mask with the secrets of an environment added: values of secret names, and passwords in URLs."""
        secrets = {value.strip() for name, value in environment.items() if self.is_secret(name)}
        secrets.update(text for value in environment.values() for text in _passwords(value))
        return replace(self, values=self.values | {value for value in secrets if len(value) >= SHORTEST_SECRET})

    def is_secret(self, name: str) -> bool:
        """Whether the variable of this name has a secret value."""
        return any(fnmatchcase(name.upper(), pattern.upper()) for pattern in self.names)

    def text(self, text: str) -> str:
        """The text without secrets. Call this before the text is cut, since part of a secret is not found."""
        encoded = bytearray(text.encode(errors="surrogatepass"))
        masker = self._masker()
        masked = b"".join((masker.feed(encoded, len(encoded)), masker.finish()))
        return text if masked == encoded else masked.decode(errors="surrogatepass")

    def copy(self, source: BinaryIO, target: BinaryIO) -> None:
        """Copy a file to its end, without secrets and in bounded memory. Raises OSError."""
        masker = self._masker()
        while piece := bytearray(source.read(_COPIED)):
            target.write(masker.feed(piece, len(piece)))
        target.write(masker.finish())

    def _masker(self) -> Masker:
        return Masker(value.encode(errors="surrogatepass") for value in variants(self.values))

    def masked(self, value: object) -> object:
        """A part of a configuration without secrets, and without the values of secret names."""
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
        """The length of the longest secret in bytes. The masker holds back fewer bytes, apart from URLs and tokens."""
        return max((len(value.encode(errors="surrogatepass")) for value in variants(self.values)), default=0)

    def memory_file(self) -> BinaryIO:
        """The secrets as the shim reads them on its standard input: an open file in memory. Raises OSError."""
        file = open(os.memfd_create("mask"), "r+b")  # noqa: PTH123, SIM115 - it has no path, and the caller closes it
        file.write(json.dumps(variants(self.values)).encode())
        file.seek(0)
        return file


def has_password(text: str) -> bool:
    """Whether a text contains a URL with a password."""
    return _PASSWORD.search(text) is not None


def _passwords(value: str) -> Iterator[str]:
    for match in _PASSWORD.finditer(value):
        yield from (match[1], unquote(match[1]))


@functools.lru_cache(maxsize=64)
def variants(values: frozenset[str]) -> tuple[str, ...]:
    """The spellings of values in output: each line, and as in URLs, JSON, Python, shells, SQL, XML and base64."""
    spellings: set[str] = set()
    for value in values:
        spellings.update(line.strip() for line in value.splitlines())
        encoded = value.encode(errors="surrogatepass")
        spellings |= {*_in_urls(encoded), *_in_base64(encoded), *_in_xml(value)}
        # dbt's documents have SQL in JSON
        for literal in (value, repr(value)[1:-1], ascii(value)[1:-1], *_in_shells_and_sql(value)):
            spellings |= {literal, *_in_json(literal, ascii_only=True), *_in_json(literal, ascii_only=False)}
    return tuple(sorted(text for text in spellings if len(text) >= SHORTEST_SECRET))


def _in_json(value: str, *, ascii_only: bool) -> Iterator[str]:
    """As JSON, as JSON for HTML pages, and as JSON in JSON."""
    for _ in range(2):
        value = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        yield value
        yield value.translate(_JSON_IN_HTML)
        yield value.translate(_JSON_IN_HTML | {ord("'"): r"\u0027"})


def _in_urls(encoded: bytes) -> Iterator[str]:
    for quoted in (quote(encoded), quote(encoded, safe=""), quote(encoded, safe="!*'()"), quote_plus(encoded)):
        yield quoted
        yield _PERCENT.sub(lambda found: found[0].lower(), quoted)


def _in_base64(encoded: bytes) -> Iterator[str]:
    """Without the last character where what follows the value decides it."""
    for alphabet in (base64.standard_b64encode, base64.urlsafe_b64encode):
        yield alphabet(encoded)[: len(encoded) * 8 // 6].decode()


def _in_shells_and_sql(value: str) -> Iterator[str]:
    """Between single quotes: of SQL, of `set -x` in bash, and of shlex.quote and dash."""
    for quote_in_quotes in ("''", r"'\''", "'\"'\"'"):
        yield value.replace("'", quote_in_quotes)


def _in_xml(value: str) -> Iterator[str]:
    text = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for double, single in itertools.product(('"', "&quot;", "&#34;"), ("'", "&apos;", "&#39;", "&#x27;")):
        yield text.replace('"', double).replace("'", single)
