"""A job's output from any byte on, as text, in parts that are bounded.

A cursor is the offset of a byte of the stored output. Each part says where the next one begins. A client that goes on
there, also with another gateway, gets every byte once, or the number of those that were dropped.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import UnknownTargetError
from gateway.model.job import Active, Ended, Job
from gateway.output.parts import StepPart, line_renderer, step_parts
from runners.mask import Mask
from runners.output import OutputRing, RenderLine, safe_cut, terminal_lines, visible

_PART = 64 << 10  # bytes of output in a part, and of a line without an end that is waited for
_LONGEST_LINE = 1 << 20  # bytes of a line that comes in one part, once it has its end
_LOOK_BACK = 32 << 10  # bytes; less than the shortest part of a line that was cut


@dataclass(frozen=True, slots=True)
class OutputPart:
    """A part of a job's output. offset, next: of its first byte, and behind its last. dropped: bytes lost before it."""

    offset: int
    next: int
    text: str
    dropped: int


@dataclass(frozen=True, slots=True)
class OutputRange:
    """What of a job's output can be served now. start, end: offsets. dropped: bytes that were asked for and lost."""

    start: int
    end: int
    dropped: int


class JobLog:
    """Reads the output of one job. Its methods block, and raise OSError."""

    def __init__(self, folder: Path, job: Job, mask: Mask) -> None:
        """folder: of the job. job: not older than the output that is read, since it says which step printed a byte."""
        self._ring = OutputRing(folder)
        self._job = job
        self._mask = mask
        self._parts = [part for part in step_parts(job) if part.name is not None]
        self._starts = {part.start: part for part in self._parts}

    def bounds(self) -> tuple[int, int]:
        """The offsets of the oldest kept byte and behind the newest one."""
        start, end = self._ring.bounds()
        printed = self._job.output_end or 0
        return (printed, printed) if end == start and end < printed else (start, end)  # all of it may be removed

    def find(
        self, end: int, *, offset: int | None, tail: int | None, until: int | None, step: str | None, is_final: bool
    ) -> OutputRange:
        """The range that a client asks for, from a line's begin to a line's end. Raises UnknownTargetError.

        end: of the output now. until: an offset behind the range. is_final: a line that ends at the end without a line
        feed is whole.
        """
        kept, _ = self.bounds()
        first, after = self._of_step(step, end)
        last = min(after, end, end if until is None else until)
        asked = max(first, offset or 0) if tail is None else max(first, last - tail)
        if asked < kept:
            start = self._behind_gap(kept, last)
        elif tail is None:
            start = max(first, self.line_start(asked)) if asked < last else asked
        else:
            start = asked if asked == first else self._next_line(asked - 1, last)
        if asked <= last:
            start = min(start, last)
        if last < min(after, end) or (not is_final and after == end):
            last = self._last_line_end(start, last)
        return OutputRange(start, max(start, last), start - asked if asked < kept else 0)

    def line_start(self, offset: int) -> int:
        """Where a line begins, for an offset inside of it that a client made up; those of parts stay as they are."""
        kept, end = self.bounds()
        begin = max(kept, offset - _LOOK_BACK)
        if not begin < offset < end or offset in self._starts:
            return offset
        before = self._ring.read(begin, offset - begin)
        found = before.data.rfind(b"\n") + 1
        return before.start + found if found or before.start == 0 else offset

    def read(self, offset: int, end: int, *, is_final: bool) -> OutputPart | None:
        """The next part from an offset on, None where there is none yet.

        end: where to stop. is_final: a line that ends there without a line feed is whole, else the next part has it.
        """
        kept, _ = self.bounds()
        start = self._behind_gap(kept, end) if offset < kept else offset
        chunk = self._ring.read(start, max(0, min(_PART, end - start)))
        if chunk.data and chunk.start > start:  # dropped just now
            start = self._behind_gap(chunk.start, end)
            chunk = self._ring.read(start, max(0, min(_PART, end - start)))
        start = chunk.start if chunk.data else start
        data = self._whole_lines(start, chunk.data, end, is_final=is_final)
        if not data and start == offset:
            return None
        return OutputPart(start, start + len(data), self._text(start, data), start - offset)

    def _of_step(self, name: str | None, end: int) -> tuple[int, int]:
        """The offsets of a step's first byte and behind its last; both are the end for one that has not begun."""
        if name is None:
            return 0, end
        planned = [str(step.name) for step in self._job.plan.steps]
        if name not in planned:
            raise UnknownTargetError(
                "unknown_step", f"Step {name[:100]!a} not found; the job has {', '.join(planned)}."
            )
        begins = [part for part in self._parts if part.attempt == 1]
        for part, following in zip(begins, [*begins[1:], None], strict=True):
            if part.name == name:
                return part.start, end if following is None else following.start
        return end, end

    def _whole_lines(self, start: int, data: bytes, end: int, *, is_final: bool) -> bytes:
        """The lines at the beginning of the data; of a line that is too long, a part."""
        if is_final and start + len(data) >= end:
            return data
        if length := self._end_of_lines(start, data):
            return data[:length]
        if len(data) < _PART:
            return b""
        line = self._ring.read(start, min(_LONGEST_LINE, end - start))
        if line.start == start and is_final and start + len(line.data) >= end:
            return line.data
        if line.start == start and (found := line.data.find(b"\n") + 1) > 0:
            return line.data[:found]
        return data[: safe_cut(data)]

    def _end_of_lines(self, start: int, data: bytes) -> int:
        """The length of the whole lines in the data; where a step begins, the last line before it ends."""
        begun = [begin - start for begin in self._starts if start < begin <= start + len(data)]
        return max(data.rfind(b"\n") + 1, *begun, 0)

    def _text(self, start: int, data: bytes) -> str:
        render, texts = line_renderer(self._job), []
        headings = {self._heading_at(part): part for part in self._parts if start - 1 <= part.start < start + len(data)}
        for offset, line in _lines(start, data, sorted(headings)):
            if offset in headings:
                texts.append(_heading(headings[offset]))
            texts.append(_render(render, offset, line))
        return self._mask.text("".join(texts))

    def _heading_at(self, part: StepPart) -> int:
        """Where a step's own output begins: the shim may first have ended the last line of the step before."""
        return part.start + (part.start > 0 and self._ring.read(part.start, 1).data == b"\n")

    def _behind_gap(self, kept: int, end: int) -> int:
        """Where the first whole line begins behind bytes that were dropped."""
        if kept == 0 or kept in self._starts or kept >= end:
            return kept
        return self._next_line(kept, end)

    def _next_line(self, offset: int, end: int) -> int:
        """Where the first line begins from an offset on; the offset itself in a line that is too long."""
        found = self._ring.read(offset, max(0, min(_PART, end - offset)))
        return found.start + found.data.find(b"\n") + 1 if b"\n" in found.data else offset

    def _last_line_end(self, start: int, end: int) -> int:
        """Where the last whole line ends; in a line that is too long, where it can be cut."""
        begin = max(start, end - _PART)
        if begin >= end:
            return begin
        data = self._ring.read(begin, end - begin).data
        if length := self._end_of_lines(begin, data):
            return begin + length
        return begin + safe_cut(data) if len(data) == _PART else begin


def is_final(job: Job) -> bool:
    """Whether no step runs, so that a last line without an end is whole."""
    return isinstance(job.state, Ended) or not any(isinstance(state, Active) for state in job.steps)


def _heading(part: StepPart) -> str:
    """The line that names a step, and which attempt of it, where that is not the first one."""
    return f"==> {part.name}{f', attempt {part.attempt}' if part.attempt > 1 else ''} <==\n"


def _lines(start: int, data: bytes, breaks: list[int]) -> Iterator[tuple[int, bytes]]:
    """The lines with their offsets. breaks: offsets at which a line begins, whatever is before."""
    position = 0
    while position < len(data):
        end = data.find(b"\n", position) + 1 or len(data)
        following = bisect_right(breaks, start + position)
        if following < len(breaks):
            end = min(end, breaks[following] - start)
        yield start + position, data[position:end]
        position = end


def _render(render: RenderLine, offset: int, line: bytes) -> str:
    text = visible(line)
    # the beginning of an event whose rest never came has no rendering
    return terminal_lines(render(offset, text) or text)
