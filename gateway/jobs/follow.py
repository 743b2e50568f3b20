"""Follows the output of a running step, so that its progress is known."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from runners.output import Ring
from runners.report import Progress, Reader

_INTERVAL = 0.25  # seconds between two looks
_CHUNK = 2**20
_TOO_FAR = 16 * 2**20  # a step that is this many bytes ahead is not followed line by line any more
_LONGEST_LINE = 2**20


class Follower:
    """Feeds the lines of a step's output to its reader, from `offset` on."""

    def __init__(self, ring: Ring, offset: int, reader: Reader) -> None:
        self._ring = ring
        self._offset = offset
        self._reader = reader
        self._rest = b""

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

    def catch_up(self) -> None:
        """Read all there is. Blocks; what a talkative step wrote too far ahead is passed over."""
        end = self._ring.bounds()[1]
        if end - self._offset > _TOO_FAR:
            self._offset, self._rest = end - _CHUNK, b""
        while True:
            chunk = self._ring.read(self._offset, _CHUNK)
            if not chunk.data:
                return
            if chunk.start != self._offset:
                self._rest = b""  # the beginning of this line is gone
            self._offset = chunk.start + len(chunk.data)
            *lines, rest = (self._rest + chunk.data).split(b"\n")
            self._rest = rest[-_LONGEST_LINE:]
            for line in lines:
                self._reader.feed(line.decode("utf-8", "replace"))
