"""No line of the log has a secret in it, from whichever logger."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from gateway import log
from runners.mask import Mask

SECRET = 'open "sesame" \\ ü'


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    """Restore the process-wide logging setup afterwards."""
    root = logging.getLogger()
    handlers, level, raises = root.handlers[:], root.level, logging.raiseExceptions
    yield
    root.handlers[:], root.level, logging.raiseExceptions = handlers, level, raises
    structlog.reset_defaults()


def test_secrets_are_masked_in_lines_tracebacks_and_what_libraries_log(
    logging_as_it_was: None, capsys: pytest.CaptureFixture[str]
) -> None:
    log.set_up()
    log.set_up(Mask(("KEY",)).with_secrets_of({"KEY": SECRET}))
    structlog.get_logger().warning(f"said {SECRET}", error=SECRET, url="http://me:pass@host")
    try:
        int(SECRET)
    except ValueError:
        structlog.get_logger().exception("broke")
        logging.getLogger("asyncio").exception("library broke: %s", SECRET)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["said ***", "broke", "library broke: ***"]
    assert (lines[0]["error"], lines[0]["url"]) == ("***", "http://me:***@host")
    for line in lines[1:]:
        assert "ValueError: invalid literal for int() with base 10: '***'" in line["exception"]
    assert "sesame" not in str(lines)
