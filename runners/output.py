"""The output ring of a job, and its text as a terminal shows it."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runners import durable

RenderLine = Callable[[str], str | None]

_CONTINUATION = bytes(range(0x80, 0xC0))  # the second and further bytes of a UTF-8 character
_MIN_WINDOW = 64 << 10  # bytes
_MAX_WINDOW = 4 << 20  # bytes

# A control string (OSC, DCS, SOS, PM, APC) up to its terminator, a control sequence, a short escape sequence, or a
# control character; also one that the end of the line cuts off.
_CONTROL = re.compile(
    r"((?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c|$)"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*(?:[@-~]|$)"
    r"|\x1b[ -/]*(?:[0-~]|$)"
    r"|[\x00-\x08\x0a-\x1f\x7f-\x9f])"
)
_ERASE = re.compile(r"(?:\x1b\[|\x9b)([02]?)K")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of the output. start: the absolute offset of its first byte."""

    start: int
    data: bytes


class OutputRing:
    """The kept part of a job's output, in segments. The shim may append, and remove the oldest segment, at any time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def bounds(self) -> tuple[int, int]:
        """The offset of the oldest kept byte, and the offset behind the newest one."""
        while starts := self._segment_starts():
            try:
                return starts[0], starts[-1] + self._segment(starts[-1]).stat().st_size
            except FileNotFoundError:
                continue  # removed since the folder was listed
        return 0, 0

    def read(self, offset: int, limit: int) -> Chunk:
        """At most `limit` bytes from `offset` on, or from the first kept byte after it."""
        starts = self._segment_starts()
        start = max(offset, 0)
        data = bytearray()
        for begin, following in zip(starts, [*starts, None][1:], strict=True):
            position = start + len(data)
            if following is not None and following <= position:
                continue
            if begin > position:
                if data:
                    break  # a gap: bytes before and after it do not belong together
                start = position = begin
            data += self._read_segment(begin, position - begin, limit - len(data))
        return Chunk(start, bytes(data))

    def tail(self, limit: int) -> Chunk:
        """The last `limit` bytes."""
        return self.read(self.bounds()[1] - limit, limit)

    def written_at(self) -> float:
        """The time of the last append, epoch seconds; 0 without output."""
        starts = self._segment_starts()
        return self._segment(starts[-1]).stat().st_mtime if starts else 0.0

    def next_line(self) -> int:
        """The offset at which the next line begins, counting a line feed that the last line may still lack."""
        last = self.tail(1)
        return last.start + len(last.data) + (0 if last.data in (b"", b"\n") else 1)

    def truncate(self, end: int) -> None:
        """Remove the bytes from offset `end` on. No shim may be writing."""
        for start in reversed(self._segment_starts()):
            segment = self._segment(start)
            if start < end or start == self._segment_starts()[0]:
                os.truncate(segment, min(segment.stat().st_size, max(0, end - start)))
                return
            segment.unlink()

    def _read_segment(self, begin: int, skip: int, limit: int) -> bytes:
        try:
            with durable.open_regular(self._segment(begin)) as segment:
                return os.pread(segment.fileno(), limit, skip)
        except FileNotFoundError:
            return b""  # removed since the folder was listed

    def _segment(self, start: int) -> Path:
        return self._folder / f"output.{start:020}"

    def _segment_starts(self) -> list[int]:
        try:
            names = os.listdir(self._folder)  # noqa: PTH208 - only names are needed, at each poll
        except FileNotFoundError:
            return []
        return sorted(int(name[7:]) for name in names if name.startswith("output.") and name[7:].isdecimal())


def terminal_text(line: str) -> str:
    """A line as a terminal shows it, after its control characters and escape sequences were carried out."""
    parts = _CONTROL.split(line)
    if len(parts) == 1:
        return line
    cells: list[str] = []
    column = 0
    for text, control in zip(parts[::2], [*parts[1::2], ""], strict=True):
        cells[column : column + len(text)] = text
        column += len(text)
        if control == "\r":
            column = 0
        elif control == "\b":
            column = max(0, column - 1)
        elif erase := _ERASE.fullmatch(control):
            # a terminal keeps the column, but programs erase the line in order to write it again from its start
            column = 0 if erase[1] == "2" else column
            del cells[column:]
    return "".join(cells)


def tail_text(ring: OutputRing, size: int, render_line: RenderLine) -> str:
    """The last `size` bytes of the output's text, beginning at a character; an incomplete last character is left out.

    render_line: returns the text of a line, None to leave it out.
    """
    window = _MIN_WINDOW
    while True:
        chunk = ring.tail(window)
        text = _render_tail(_without_partial_line(chunk), size, render_line)
        if len(text) >= size or len(chunk.data) < window or window >= _MAX_WINDOW:
            return text[max(0, len(text) - size) :].decode(errors="ignore")
        window *= 4


def _render_tail(data: bytes, size: int, render_line: RenderLine) -> bytes:
    """At least the last `size` bytes of the text. Renders only as many lines as needed."""
    texts: list[bytes] = []
    length = 0
    for line in reversed(_decode_lines(data)):
        if length >= size:
            break
        texts.append(_render(line, render_line).encode())
        length += len(texts[-1])
    return b"".join(reversed(texts))


def _decode_lines(data: bytes) -> list[str]:
    *lines, rest = codecs.getincrementaldecoder("utf-8")("replace").decode(data).split("\n")
    complete = [f"{line}\n" for line in lines]
    return [*complete, rest] if rest else complete


def _render(line: str, render_line: RenderLine) -> str:
    body = line.removesuffix("\n")
    text = render_line(body)
    return "" if text is None else "\n".join(map(terminal_text, text.split("\n"))) + line[len(body) :]


def _without_partial_line(chunk: Chunk) -> bytes:
    """The data without its first line, whose beginning is missing, unless it is the only one."""
    if chunk.start == 0:
        return chunk.data
    return chunk.data.partition(b"\n")[2] or chunk.data.lstrip(_CONTINUATION)
