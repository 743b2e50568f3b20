"""The log: a flood of lines, and tracebacks on a terminal."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from gateway import log
from tests.support.gateway import wait_for


@pytest.fixture(autouse=True)
def _set_up() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, raises = root.handlers[:], root.level, logging.raiseExceptions
    log.set_up()
    yield
    structlog.reset_defaults()
    root.handlers[:], logging.raiseExceptions = handlers, raises
    root.setLevel(level)


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_a_traceback_on_a_terminal_shows_no_values(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    log.set_up()
    token = "confidential business"
    try:
        int("no number")
    except ValueError:
        structlog.get_logger().exception("broke")
    shown = capfd.readouterr().err
    assert "no number" in shown
    assert token, "it is a value of this frame"
    assert "business" not in shown


def kept_back(capfd: pytest.CaptureFixture[str]) -> dict[str, object]:
    """The line that counts the suppressed lines; it is written without another event."""
    found: list[dict[str, object]] = wait_for(lambda: lines(capfd), "the line that counts the suppressed ones")
    return found[0]


def test_ten_lines_of_an_event_are_written_and_the_others_counted(capfd: pytest.CaptureFixture[str]) -> None:
    for number in range(1000):
        structlog.get_logger().warning("flood", number=number)
    structlog.get_logger().warning("another")
    written = lines(capfd)
    assert [line.get("number") for line in written] == [*range(10), None]
    after = kept_back(capfd)
    assert (after["event"], after["of"], after["lines"]) == ("lines kept back", "flood", 990)
    structlog.get_logger().warning("flood", number=1000)
    assert [line["number"] for line in lines(capfd)] == [1000]


def test_ten_lines_of_a_library_are_written_whatever_their_text(capfd: pytest.CaptureFixture[str]) -> None:
    for number in range(1000):
        logging.getLogger("asyncio").error("flood %d", number)
    logging.getLogger("another").error("said")
    assert [line["event"] for line in lines(capfd)] == [*(f"flood {number}" for number in range(10)), "said"]
    after = kept_back(capfd)
    assert (after["of"], after["lines"]) == ("asyncio", 990)


def test_lines_about_jobs_are_never_suppressed(capfd: pytest.CaptureFixture[str]) -> None:
    for number in range(100):
        structlog.get_logger().info("job accepted", job=number)
    assert [line["job"] for line in lines(capfd)] == [*range(100)]
