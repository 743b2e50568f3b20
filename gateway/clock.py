"""Moments, and the time between them, which stays right when the wall clock jumps."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment: `wall` (epoch seconds) is for people; `uptime` (seconds since `boot`) is for arithmetic."""

    wall: float
    uptime: float
    boot: str

    def until(self, later: Instant) -> float:
        """Seconds from here to `later`, never negative; by the wall clock only across a reboot."""
        if self.boot == later.boot:
            return max(0.0, later.uptime - self.uptime)
        return max(0.0, later.wall - self.wall)


@functools.cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def now() -> Instant:
    """The current moment."""
    return Instant(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), _boot())


def rfc3339(wall: float) -> str:
    """Epoch seconds in the format of RFC 3339: `2026-11-21T22:25:32.123456+00:00`."""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="microseconds")


def microseconds(moment: datetime) -> int:
    """Microseconds since the epoch; moment: with a zone."""
    return (moment - _EPOCH) // timedelta(microseconds=1)
