"""Logging: one JSON object per line on stderr, or readable lines where a person watches."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections import deque
from typing import TextIO, cast

import structlog

from runners.mask import Mask

_LINES = 10  # of one kind
_SECOND = 1.0


class _Stderr:
    """Standard error that loses a line rather than break what it tells of: its reader may be gone."""

    def write(self, text: str) -> None:
        """Write, if that can be."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        """Flush, if that can be."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


class Limit:
    """Lets ten lines of one kind through in a second, and tells afterwards how many it kept back.

    A kind is the event of our own lines, the name of its logger of a library's: never what a client sends. What
    becomes of a job is told whatever else is: these lines are no more than there are jobs.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: dict[str, deque[float]] = {}  # when the latest lines of each kind were let through
        self._kept_back: dict[str, int] = {}

    def __call__(self, _: object, level: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """Our own lines, as one of structlog's processors."""
        of_a_job = level == "info" and "job" in event
        if not of_a_job and not self._lets(str(event["event"])):
            raise structlog.DropEvent
        return event

    def filter(self, record: logging.LogRecord) -> bool:
        """The lines of libraries, as a filter of logging."""
        return self._lets(record.name)

    def _lets(self, kind: str) -> bool:
        now = time.monotonic()
        with self._lock:
            told = self._told.setdefault(kind, deque(maxlen=_LINES))
            if len(told) < _LINES or now - told[0] >= _SECOND:
                told.append(now)
                return True
            first = kind not in self._kept_back
            self._kept_back[kind] = self._kept_back.get(kind, 0) + 1
        if first:
            self._tell_later(kind)
        return False

    def _tell_later(self, kind: str) -> None:
        later = threading.Timer(_SECOND, self._tell, [kind])
        later.daemon = True
        try:
            later.start()
        except RuntimeError:  # no thread to be had: these are never told, the next may be
            with self._lock:
                self._kept_back.pop(kind, None)

    def _tell(self, kind: str) -> None:
        with self._lock:
            lines = self._kept_back.pop(kind)
        structlog.get_logger().warning("lines kept back", of=kind, lines=lines)


def set_up(mask: Mask | None = None, *, quiet: bool = False) -> None:
    """Configure structlog, and let the libraries' warnings come out the same way. Doing it again is harmless.

    mask: knows what is secret, as far as that is known by now. quiet: nothing below a warning.
    """
    known = mask or Mask()

    def masked(_logger: object, _method: str, line: object) -> str:
        """A line as it is written, with its traceback."""
        return known.text(str(line))

    # What a client wrote moves no cursor, and the values of variables, tokens among them, are no part of a traceback.
    console = structlog.dev.ConsoleRenderer(repr_native_str=True, exception_formatter=structlog.dev.plain_traceback)
    rendering: list[structlog.typing.Processor] = (
        [console, masked]
        if sys.stderr.isatty()
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(), masked]
    )
    limit = Limit()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[limit, *shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING if quiet else logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Stderr())),
    )
    handler = logging.StreamHandler(_Stderr())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    handler.addFilter(limit.filter)
    logging.raiseExceptions = False
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def crashed() -> None:
    """Say that the service goes down, and of what."""
    structlog.get_logger().exception("crashed")
