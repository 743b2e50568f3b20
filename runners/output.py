"""Reads the output ring of a job, and shows it as a terminal would."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LineText = Callable[[str], str | None]

_CONTINUATION = bytes(range(0x80, 0xC0))  # bytes of a UTF-8 character after its first
_FIRST_WINDOW = 64 << 10
_LAST_WINDOW = 4 << 20

# One thing that is not text: a string (OSC, DCS, SOS, PM, APC) up to its terminator, a control sequence, a short
# escape, a control character. What the end of the line cuts off belongs to it too.
_SPECIAL = re.compile(
    r"((?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c|$)"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*(?:[@-~]|$)"
    r"|\x1b[ -/]*(?:[0-~]|$)"
    r"|[\x00-\x08\x0a-\x1f\x7f-\x9f])"
)
_ERASE = re.compile(r"(?:\x1b\[|\x9b)([02]?)K")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the output and the absolute offset of its first byte."""

    start: int
    data: bytes


class OutputRing:
    """The kept part of a job's output. The shim may append and drop the oldest segment at any time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def bounds(self) -> tuple[int, int]:
        """The offset of the oldest kept byte and the end."""
        while starts := self._starts():
            try:
                return starts[0], starts[-1] + self._segment(starts[-1]).stat().st_size
            except FileNotFoundError:
                continue  # dropped since it was listed
        return 0, 0

    def read(self, offset: int, limit: int) -> Chunk:
        """At most `limit` bytes from `offset`, or from the first kept byte after it if that is gone."""
        starts = self._starts()
        start = max(offset, 0)
        data = bytearray()
        for begin, following in zip(starts, [*starts, None][1:], strict=True):
            position = start + len(data)
            if following is not None and following <= position:
                continue
            if begin > position:
                if data:
                    break  # a hole: never glue what was not printed together
                start = position = begin
            data += self._piece(begin, position - begin, limit - len(data))
        return Chunk(start, bytes(data))

    def tail(self, limit: int) -> Chunk:
        """The last `limit` bytes."""
        return self.read(self.bounds()[1] - limit, limit)

    def written_at(self) -> float:
        """When something was last appended, epoch seconds; 0 for never."""
        starts = self._starts()
        return self._segment(starts[-1]).stat().st_mtime if starts else 0.0

    def next_line(self) -> int:
        """The offset at which the next line begins, once the last one is ended."""
        last = self.tail(1)
        return last.start + len(last.data) + (0 if last.data in (b"", b"\n") else 1)

    def cut(self, end: int) -> None:
        """Take back what is beyond `end`. Only for when no shim writes."""
        for start in reversed(self._starts()):
            segment = self._segment(start)
            if start < end or start == self._starts()[0]:
                os.truncate(segment, min(segment.stat().st_size, max(0, end - start)))
                return
            segment.unlink()

    def _piece(self, begin: int, skip: int, limit: int) -> bytes:
        try:
            with self._segment(begin).open("rb") as segment:
                return os.pread(segment.fileno(), limit, skip)
        except FileNotFoundError:
            return b""  # dropped since it was listed

    def _segment(self, start: int) -> Path:
        return self._folder / f"output.{start:020}"

    def _starts(self) -> list[int]:
        try:
            names = os.listdir(self._folder)  # noqa: PTH208 - names are all that is needed, at every poll
        except FileNotFoundError:
            return []
        return sorted(int(name[7:]) for name in names if name.startswith("output.") and name[7:].isdecimal())


def terminal_text(line: str) -> str:
    """The text that a terminal shows for a line: without escapes and control characters, overwritten where it was."""
    parts = _SPECIAL.split(line)
    if len(parts) == 1:
        return line
    cells: list[str] = []
    column = 0
    for text, special in zip(parts[::2], [*parts[1::2], ""], strict=True):
        cells[column : column + len(text)] = text
        column += len(text)
        if special == "\r":
            column = 0
        elif special == "\b":
            column = max(0, column - 1)
        elif erase := _ERASE.fullmatch(special):
            # a terminal leaves the cursor where it is; what follows starts the line anew all the same
            column = 0 if erase[1] == "2" else column
            del cells[column:]
    return "".join(cells)


def tail_text(ring: OutputRing, size: int, line_text: LineText) -> str:
    """The last `size` bytes of the output's text, cut at a character.

    `line_text` says what a line reads; None leaves it out. A last character that is not complete yet is left out.
    """
    window = _FIRST_WINDOW
    while True:
        chunk = ring.tail(window)
        text = _last_text(_from_line(chunk), size, line_text)
        if len(text) >= size or len(chunk.data) < window or window >= _LAST_WINDOW:
            return text[max(0, len(text) - size) :].decode(errors="ignore")
        window *= 4


def _last_text(data: bytes, size: int, line_text: LineText) -> bytes:
    """At least the last `size` bytes of the text, with no more lines rendered than that takes."""
    texts: list[bytes] = []
    length = 0
    for line in reversed(_lines(data)):
        if length >= size:
            break
        texts.append(_shown(line, line_text).encode())
        length += len(texts[-1])
    return b"".join(reversed(texts))


def _lines(data: bytes) -> list[str]:
    *lines, rest = codecs.getincrementaldecoder("utf-8")("replace").decode(data).split("\n")
    whole = [f"{line}\n" for line in lines]
    return [*whole, rest] if rest else whole


def _shown(line: str, line_text: LineText) -> str:
    body = line.removesuffix("\n")
    text = line_text(body)
    return "" if text is None else "\n".join(map(terminal_text, text.split("\n"))) + line[len(body) :]


def _from_line(chunk: Chunk) -> bytes:
    """Without the line that lost its beginning, unless there is nothing else."""
    if chunk.start == 0:
        return chunk.data
    return chunk.data.partition(b"\n")[2] or chunk.data.lstrip(_CONTINUATION)
