"""Follows the output of a running step, so that its progress is known."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Executor

from gateway.output.parts import OutputSize
from runners.output import OutputRing
from runners.report import OutputReader, Progress

_INTERVAL = 0.25  # seconds between two reads
_CHUNK = 2**20
_TOO_FAR = 4 * 2**20  # bytes; a reader that is further behind skips ahead
_LONGEST_LINE = 2**20


class ProgressFollower:
    """Feeds the lines of a step's output to its reader, from `offset` on."""

    def __init__(self, ring: OutputRing, offset: int, reader: OutputReader) -> None:
        self._ring = ring
        self._offset = offset
        self._reader = reader
        self._rest = b""
        self.size: OutputSize | None = None  # of the job's output at the last read
        self._lock = threading.Lock()  # the thread of a cancelled read goes on until it is done

    @property
    def progress(self) -> Progress | None:
        """The step's progress by the output read so far."""
        return self._reader.progress

    async def run(self, readers: Executor, on_change: Callable[[], None]) -> None:
        """Follow until cancelled. readers: has the threads. on_change: called after each change of the progress."""
        while True:
            before = self.progress
            with contextlib.suppress(OSError):  # such as no free descriptor: the next read gets it
                await asyncio.get_running_loop().run_in_executor(readers, self.catch_up)
            if self.progress != before:
                on_change()
            await asyncio.sleep(_INTERVAL)

    def finish(self) -> None:
        """Read the rest of an ended step's output, with a last line that has no end. Blocks. Raises OSError."""
        self.catch_up()
        with self._lock:
            self._feed(self._rest)
            self._rest = b""

    def catch_up(self) -> None:
        """Read up to the end that the output has now, so this returns while the step prints. Blocks. Raises OSError."""
        with self._lock:
            start, end = self._ring.bounds()
            self.size = OutputSize(end - start, start)
            if end < self._offset:
                self._skip_to(end)  # a broken copy of a container's log was cut back
            self._read()  # before skipping ahead: the first lines of a step say what it is
            if end - self._offset > _TOO_FAR:
                self._skip_to(end - _CHUNK)
            while self._offset < end and self._read():
                pass

    def _read(self) -> bool:
        """Read the next chunk; false if there is none."""
        chunk = self._ring.read(self._offset, _CHUNK)
        if chunk.start > self._offset:
            self._skip_to(chunk.start)  # the ring has dropped that part
        self._offset += len(chunk.data)
        *lines, rest = (self._rest + chunk.data).split(b"\n")
        self._rest = rest[-_LONGEST_LINE:]
        for line in lines:
            self._feed(line)
        return bool(chunk.data)

    def _skip_to(self, offset: int) -> None:
        self._offset, self._rest = offset, b""
        self._reader.skip()

    def _feed(self, line: bytes) -> None:
        self._reader.feed(line.decode("utf-8", "replace"))
