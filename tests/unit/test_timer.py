"""The hour of the nightly timer."""

from __future__ import annotations

import re
import zoneinfo
from datetime import datetime, timedelta

import pytest

from tests.support.source import ROOT

YEAR = 2027


def minute_of_the_timer() -> timedelta:
    text = (ROOT / "systemd" / "pipeline-trigger@.timer").read_text(encoding="utf-8")
    [(hour, minute)] = re.findall(r"^OnCalendar=\*-\*-\* (\d\d):(\d\d)$", text, re.MULTILINE)
    return timedelta(hours=int(hour), minutes=int(minute))


def test_the_nightly_timer_elapses_once_a_night_in_every_time_zone() -> None:
    """Also in the nights in which clocks change: its minute is neither skipped nor repeated."""
    zones = zoneinfo.available_timezones()
    if "Europe/Berlin" not in zones:
        pytest.skip("this host has no time zones")
    minute = minute_of_the_timer()
    for name in zones:
        zone = zoneinfo.ZoneInfo(name)
        for week in range(52):
            monday = datetime(YEAR, 1, 4) + timedelta(weeks=week)  # noqa: DTZ001, a clock on the wall
            nights = [monday + timedelta(days=day) + minute for day in range(8)]
            if nights[0].replace(tzinfo=zone).utcoffset() != nights[-1].replace(tzinfo=zone).utcoffset():
                for night in nights:  # of a change: a time that is skipped or repeated has two offsets
                    early, late = (night.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
                    assert early.utcoffset() == late.utcoffset(), (name, night)
