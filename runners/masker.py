"""How the supervisor of a step masks secrets in its output.

`shim.py` loads this file from its own folder. Like that one, it imports the standard library only.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Iterator

SHORTEST_SECRET = 6  # bytes

_MASK = b"***"
# The gateway's own tokens. Only their form is known; their values are stored nowhere.
_TOKEN_START, _TOKEN_SIZE = b"pgw_", 47
_TOKEN = re.compile(rb"pgw_[A-Za-z0-9_-]{43}")
# The part of a URL with user, password and host, up to this length; without @ it is the host only.
_AUTHORITY_SIZE = 512
_AUTHORITY = re.compile(rb'://([^\x00-\x20"<>\\/?#]{0,512})')
_PARTIAL = re.compile(rb'(?:p(?:gw?)?|pgw_[A-Za-z0-9_-]{0,42}|:/?|://[^\x00-\x20"<>\\/?#]{0,511})\Z')
_PARTIAL_AT_END = re.compile(
    rb'(?:(pgw_[A-Za-z0-9_-]{2,42})|://(?!\[)[^\x00-\x20"<>\\/?#@:]*:([^\x00-\x20"<>\\/?#@]{6,}))\Z'
)
_strstr = ctypes.CDLL(None).strstr
_strstr.restype = ctypes.c_void_p


class Masker:
    """Replaces secrets in a stream by `***`: these values, passwords in URLs, and the gateway's own tokens.

    The result does not depend on how the stream is divided: bytes that may begin a secret are held back until more
    bytes come. Secrets that overlap are masked as one.
    """

    def __init__(self, values: Iterable[bytes]) -> None:
        self._values = [value for value in values if value]
        self._pending = bytearray()
        self._masked_until = 0  # bytes at the beginning of _pending that are masked already

    def feed(self, data: bytearray, end: int) -> memoryview:
        """Take data[:end] and return the masked bytes that are certain now. May overwrite data[end]."""
        if self._pending:
            data = self._pending + data[:end]
            end = len(data)
        partial = _PARTIAL.search(data, max(0, end - _AUTHORITY_SIZE - 3), end)
        length = max(self._partial_length(data, end), end - partial.start() if partial else 0)
        return self._mask(data, end - length, end, self._secrets(data, end))

    def finish(self) -> memoryview:
        """Return the rest at the end of the stream. A long enough beginning of a secret is masked too."""
        data, end = self._pending, len(self._pending)
        secrets = [
            *self._secrets(data, end),
            *((partial.start(partial.lastindex or 0), end) for partial in _PARTIAL_AT_END.finditer(data)),
        ]
        if (length := self._partial_length(data, end)) >= SHORTEST_SECRET:
            secrets.append((end - length, end))
        return self._mask(data, end, end, secrets)

    def _mask(self, data: bytearray, until: int, end: int, secrets: list[tuple[int, int]]) -> memoryview:
        """data[:until] with its secrets masked; data[until:end] becomes pending."""
        parts: list[bytes | bytearray] = []
        masked = self._masked_until
        for begin, after in sorted(secrets):
            if begin >= until:
                break
            if begin >= masked:
                parts += [data[masked:begin], _MASK]
            masked = max(masked, after)
        self._pending, self._masked_until = data[until:end], max(0, masked - until)
        if masked == 0:
            return memoryview(data)[:until]
        return memoryview(b"".join([*parts, data[masked:until]]))

    def _secrets(self, data: bytearray, end: int) -> list[tuple[int, int]]:
        """The positions of secrets, begin and end, in no order."""
        spans = [
            (at, at + (len(value) if value is not _TOKEN_START else _TOKEN_SIZE))
            for value in self._candidates(data, end)
            for at in _find_all(value, data, end)
            if value is not _TOKEN_START or _TOKEN.match(data, at, end)
        ]
        for at in _find_all(b"@", data, end):
            start = data.rfind(b"://", max(0, at - _AUTHORITY_SIZE - 3), at)
            if start >= 0 and (authority := _AUTHORITY.match(data, start, end)) and authority.end() > at:
                begin = data.find(b":", authority.start(1), at) + 1
                if 0 < begin < at:
                    spans.append((begin, at))
        return spans

    def _candidates(self, data: bytearray, end: int) -> list[bytes]:
        """The values, and the beginning of a token, that the data may contain: faster than bytearray.find for each."""
        texts = [*self._values, _TOKEN_START]
        if end == 0 or data.find(0, 0, end) >= 0:  # for strstr a NUL is the end
            return texts
        if end < len(data):
            data[end] = 0
        text = (ctypes.c_char * 0).from_buffer(data)
        return [value for value in texts if _strstr(text, value)]

    def _partial_length(self, data: bytearray, end: int) -> int:
        """The number of bytes at the end that begin one of the values."""
        longest, last = 0, bytes(data[max(0, end - 1) : end])
        for value in self._values if last else ():
            length = min(len(value) - 1, end)
            while (length := value.rfind(last, 0, length) + 1) > longest:
                if data.endswith(value[:length], 0, end):
                    longest = length
                length -= 1
        return longest


def _find_all(text: bytes, data: bytearray, end: int) -> Iterator[int]:
    """The positions of a text in data[:end]."""
    at = data.find(text, 0, end)
    while at >= 0:
        yield at
        at = data.find(text, at + 1, end)
