"""Logging: one JSON object per line on stderr, or readable lines where a person watches."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TextIO, cast

import structlog

from runners.mask import Mask


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


def _in_one_line(record: logging.LogRecord) -> bool:
    """What aiohttp's parser refuses is the client's mistake: a line, and no traceback of ours."""
    if record.exc_info:
        record.msg, record.args = f"{record.getMessage()}: {record.exc_info[1]}", ()
        record.exc_info = None
    return True


def set_up(mask: Mask | None = None, *, quiet: bool = False) -> None:
    """Configure structlog, and let the libraries' warnings come out the same way. Doing it again is harmless.

    mask: knows what is secret, as far as that is known by now. quiet: nothing below a warning.
    """
    known = mask or Mask()

    def masked(_logger: object, _method: str, line: object) -> str:
        """A line as it is written, with its traceback."""
        return known.text(str(line))

    rendering: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(), masked]
        if sys.stderr.isatty()
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(), masked]
    )
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, *rendering],
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
    logging.getLogger("aiohttp.server").addFilter(_in_one_line)
    logging.raiseExceptions = False
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def crashed() -> None:
    """Say that the service goes down, and of what."""
    structlog.get_logger().exception("crashed")
