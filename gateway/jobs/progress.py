"""Follows the output of a running step, so that its progress is known."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

from runners.output import OutputRing
from runners.report import OutputReader, Progress

_INTERVAL = 0.25  # seconds between two looks
_CHUNK = 2**20
_TOO_FAR = 4 * 2**20  # what a step wrote beyond this since the last look is passed over
_LONGEST_LINE = 2**20


class ProgressFollower:
    """Feeds the lines of a step's output to its reader, from `offset` on."""

    def __init__(self, ring: OutputRing, offset: int, reader: OutputReader) -> None:
        self._ring = ring
        self._offset = offset
        self._reader = reader
        self._rest = b""
        self._lock = threading.Lock()  # a look that was cancelled goes on in its thread until it is done

    @property
    def progress(self) -> Progress | None:
        """How far the step is by what was read so far."""
        return self._reader.progress

    async def run(self, changed: Callable[[], None]) -> None:
        """Follow until cancelled; `changed` is called when the progress is another."""
        while True:
            before = self.progress
            with contextlib.suppress(OSError):  # out of descriptors, say: the next look will do
                await asyncio.to_thread(self.catch_up)
            if self.progress != before:
                changed()
            await asyncio.sleep(_INTERVAL)

    def finish(self) -> None:
        """Read what is left of a step that has ended, its last line too. Blocks. Raises OSError."""
        self.catch_up()
        with self._lock:
            self._feed(self._rest)
            self._rest = b""

    def catch_up(self) -> None:
        """Read what is there now; a talkative step can't keep this from returning. Blocks. Raises OSError."""
        with self._lock:
            end = self._ring.bounds()[1]
            if end < self._offset:
                self._pass_over(end)  # what a broken copy of a container's log ended with was taken back
            self._read()  # in any case: a step says first what it is
            if end - self._offset > _TOO_FAR:
                self._pass_over(end - _CHUNK)
            while self._offset < end and self._read():
                pass

    def _read(self) -> bool:
        """Take the next chunk; false if there is none."""
        chunk = self._ring.read(self._offset, _CHUNK)
        if chunk.start > self._offset:
            self._pass_over(chunk.start)  # the ring has dropped it
        self._offset += len(chunk.data)
        *lines, rest = (self._rest + chunk.data).split(b"\n")
        self._rest = rest[-_LONGEST_LINE:]
        for line in lines:
            self._feed(line)
        return bool(chunk.data)

    def _pass_over(self, offset: int) -> None:
        self._offset, self._rest = offset, b""
        self._reader.skip()

    def _feed(self, line: bytes) -> None:
        self._reader.feed(line.decode("utf-8", "replace"))
