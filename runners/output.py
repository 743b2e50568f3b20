"""The output ring of a job, and its text as a terminal shows it."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from runners import durable

RenderLine = Callable[[int, str], str]

_CONTINUATION = bytes(range(0x80, 0xC0))  # the second and further bytes of a UTF-8 character
_MIN_WINDOW = 64 << 10  # bytes
_MAX_WINDOW = 1 << 20  # bytes
_LONGEST_LINE = 32 << 10  # characters of a line with control sequences; a terminal's last line is short
_MAX_CONTROLLED = 128 << 10  # characters of such lines in one text

# Control characters that change nothing of what is shown: all but tab, line feed, those that move the cursor, and those
# that begin or end a sequence. They are no part of a UTF-8 character.
_INVISIBLE = bytes({*range(0x20), 0x7F} - set(b"\t\n\r\b\x07\x18\x1a\x1b"))
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# A control string (OSC, DCS, SOS, PM, APC), a control sequence other than one that erases, a short escape sequence, and
# control characters. As in a terminal, ESC or the end of the line ends a sequence that has no end of its own. Each
# pattern takes whatever comes without looking back, so the time is in proportion to the length.
_UNSEEN = re.compile(
    r"(?:(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x18\x1a\x1b\x9c]*+(?:\x07|\x1b\\|\x9c)?"
    r"|(?:\x1b\[|\x9b)(?![02]?K)[0-?]*+[ -/]*+[@-~]?"
    r"|\x1b(?!\[)[ -/]*+[0-~]?"
    r"|[\x00-\x07\x0a-\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9a\x9c-\x9f])++"
)
_MOVE = re.compile(r"(\r++|\x08++|(?:(?:\x1b\[|\x9b)[02]?K)++)")


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
    """A line as a terminal shows it, after its control characters and escape sequences were carried out.

    Of a very long line with control characters that is its end.
    """
    if _CONTROL.search(line) is None:
        return line
    parts = _MOVE.split(_UNSEEN.sub("", line[-_LONGEST_LINE:]))
    cells: list[str] = []
    column = 0
    for text, move in zip(parts[::2], [*parts[1::2], ""], strict=True):
        cells[column : column + len(text)] = text
        column += len(text)
        if move.startswith("\r"):
            column = 0
        elif move.startswith("\b"):
            column = max(0, column - len(move))
        elif move:
            # a terminal keeps the column, but programs erase the line in order to write it again from its start
            column = 0 if "2K" in move else column
            del cells[column:]
    return "".join(cells)


def terminal_lines(text: str) -> str:
    """A text of several lines as a terminal shows it."""
    return "\n".join(map(terminal_text, text.split("\n"))) if _CONTROL.search(text) else text


def visible(line: bytes) -> str:
    """A line of output as text, without control characters that show nothing."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(line.translate(None, _INVISIBLE))


def safe_cut(data: bytes) -> int:
    """Where to cut a line that is too long for one part: after a blank near its end, else between two characters.

    There a cut divides neither a secret nor an escape sequence, as far as these have no blanks.
    """
    blank = max(data.rfind(character, len(data) // 8 * 7) for character in (b" ", b"\t", b"\r"))
    if blank >= 0:
        return blank + 1
    begin = len(data.rstrip(_CONTINUATION)) - 1  # the first byte of the last character
    is_cut = begin > 0 and len(data) - begin < 4 and not data[begin:].decode("utf-8", "ignore")
    return begin if is_cut else len(data)


def tail_text(ring: OutputRing, size: int, render_line: RenderLine, mask: Callable[[str], str]) -> str:
    """The last `size` bytes of the output's text, beginning at a character; an incomplete last character is left out.

    Its work and memory are bounded whatever was printed: where little of the output is visible, the text is shorter.

    render_line: returns the text of a line, with its line end if it has one, that begins at this offset.
    mask: replaces secrets in the whole text, before it is cut.
    """
    window = _MIN_WINDOW
    while True:
        chunk = ring.tail(window)
        text, is_enough = _render_tail(chunk, size, render_line)
        if is_enough or len(chunk.data) < window or window >= _MAX_WINDOW:
            encoded = mask(text).encode()
            return encoded[max(0, len(encoded) - size) :].decode(errors="ignore")
        window *= 4


def _render_tail(chunk: Chunk, size: int, render_line: RenderLine) -> tuple[str, bool]:
    """The text of the last lines, and whether it has at least `size` bytes or cost all the work that it may."""
    texts: list[str] = []
    length = controlled = 0
    for start, line in _last_lines(chunk):
        if length >= size or controlled >= _MAX_CONTROLLED:
            break
        text = render_line(start, line)
        if _CONTROL.search(text):
            controlled += min(len(text), _LONGEST_LINE)
        text = terminal_lines(text)
        texts.append(text)
        length += len(text)
    return "".join(reversed(texts)), length >= size or controlled >= _MAX_CONTROLLED


def _last_lines(chunk: Chunk) -> Iterator[tuple[int, str]]:
    """The lines from the last one back, each with its offset, without a first line whose beginning is missing."""
    data = chunk.data
    begin, end = 0, len(data)
    if chunk.start > 0:
        begin = data.find(b"\n") + 1
        if begin in (0, end):  # there is no other line
            begin = end - len(data.lstrip(_CONTINUATION))
    while end > begin:
        start = max(begin, data.rfind(b"\n", begin, end - 1) + 1)
        yield chunk.start + start, visible(data[start:end])
        end = start
