"""Logging: one JSON object per line on stderr, or readable lines where stderr is a terminal."""

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

_LINES = 10  # of one kind, in a second
_SECOND = 1.0


class _Stderr:
    """Standard error that drops a line where it can't be written, so that logging never breaks the code that logs."""

    def write(self, text: str) -> None:
        """Write, if that is possible."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        """Flush, if that is possible."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


class Limit:
    """Passes ten lines of one kind in a second, and logs afterwards how many lines it kept back.

    The kind of a line is its event, or, for a library's line, the name of its logger; never a text that a client sent.
    Lines of level info about a job always pass: the number of jobs bounds them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._passed: dict[str, deque[float]] = {}  # when the latest lines of each kind passed
        self._kept_back: dict[str, int] = {}

    def __call__(self, _: object, level: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """Limit the gateway's own lines, as a processor of structlog."""
        of_a_job = level == "info" and "job" in event
        if not of_a_job and not self._passes(str(event["event"])):
            raise structlog.DropEvent
        return event

    def filter(self, record: logging.LogRecord) -> bool:
        """Limit the lines of libraries, as a filter of logging."""
        return self._passes(record.name)

    def _passes(self, kind: str) -> bool:
        now = time.monotonic()
        with self._lock:
            passed = self._passed.setdefault(kind, deque(maxlen=_LINES))
            if len(passed) < _LINES or now - passed[0] >= _SECOND:
                passed.append(now)
                return True
            first = kind not in self._kept_back
            self._kept_back[kind] = self._kept_back.get(kind, 0) + 1
        if first:
            self._report_later(kind)
        return False

    def _report_later(self, kind: str) -> None:
        later = threading.Timer(_SECOND, self._report, [kind])
        later.daemon = True
        try:
            later.start()
        except RuntimeError:  # no thread can be started: these lines are not reported, later ones may be
            with self._lock:
                self._kept_back.pop(kind, None)

    def _report(self, kind: str) -> None:
        with self._lock:
            lines = self._kept_back.pop(kind)
        structlog.get_logger().warning("lines kept back", of=kind, lines=lines)


def set_up(mask: Mask | None = None, *, quiet: bool = False) -> None:
    """Configure structlog, and the logging of libraries to give the same lines. Calling it again is harmless.

    mask: the secrets that are known so far. quiet: log nothing below a warning.
    """
    known = mask or Mask()

    def masked(_logger: object, _method: str, line: object) -> str:
        """Mask a rendered line, with its traceback."""
        return known.text(str(line))

    # repr_native_str keeps a client's text from moving the cursor; a plain traceback shows no values of variables,
    # which may be tokens.
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
    """Log the exception that ends the service."""
    structlog.get_logger().exception("crashed")
