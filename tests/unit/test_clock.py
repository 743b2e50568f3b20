"""Durations that a jump of the wall clock does not change."""

from __future__ import annotations

import pytest

from gateway import clock
from gateway.clock import Instant, rfc3339

DAY = 86_400.0


@pytest.mark.parametrize(
    ("earlier", "later", "seconds"),
    [
        (Instant(1000, 10, "a"), Instant(1030, 40, "a"), 30),
        (Instant(1000, 10, "a"), Instant(1030 + DAY, 40, "a"), 30),
        (Instant(1000 + DAY, 10, "a"), Instant(1030, 40, "a"), 30),
        (Instant(1000, 10, "a"), Instant(1000, 10, "a"), 0),
        (Instant(1000, 40, "a"), Instant(1030, 10, "a"), 0),
        (Instant(1000, 5000, "a"), Instant(1090, 7, "b"), 90),
        (Instant(1000, 10, "a"), Instant(1000 - DAY, 7, "b"), 0),
    ],
    ids=[
        "an undisturbed half minute",
        "the clock went a day forward meanwhile",
        "the clock went a day back meanwhile",
        "no time",
        "never negative",
        "a reboot leaves the wall clock",
        "never negative across a reboot",
    ],
)
def test_the_time_between_two_instants(earlier: Instant, later: Instant, seconds: float) -> None:
    assert earlier.until(later) == seconds


def test_uptime_does_not_go_back_within_one_boot() -> None:
    first, second = clock.now(), clock.now()
    assert first.boot == second.boot
    assert second.uptime >= first.uptime


@pytest.mark.parametrize(
    ("wall", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000000+00:00"),
        (1_795_300_732.0, "2026-11-21T22:38:52.000000+00:00"),
        (1_795_300_732.125, "2026-11-21T22:38:52.125000+00:00"),
        (1_795_300_732.9999999, "2026-11-21T22:38:53.000000+00:00"),
    ],
)
def test_times_are_rfc_3339_in_utc_with_six_digits_of_microseconds(wall: float, text: str) -> None:
    assert rfc3339(wall) == text
