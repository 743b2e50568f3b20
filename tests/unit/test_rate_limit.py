"""The rate limit of triggers: a token bucket for each API token."""

from __future__ import annotations

import pytest

from gateway.web.server import access
from gateway.web.server.access import RateLimit


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def monotonic(self) -> float:
        """The time in seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(access, "time", made)
    return made


def test_a_burst_is_admitted_at_once_and_the_next_has_to_wait(clock: Clock) -> None:
    limit = RateLimit(10, 50)
    assert [limit.take("a") for _ in range(50)] == [0] * 50
    assert limit.take("a") == pytest.approx(0.1)
    clock.now += 0.05
    assert limit.take("a") == pytest.approx(0.05)


def test_after_the_burst_requests_are_admitted_at_the_rate(clock: Clock) -> None:
    limit = RateLimit(10, 50)
    taken = 0
    for _ in range(1_000):  # ten seconds
        clock.now += 0.01
        taken += limit.take("a") == 0
    assert taken == pytest.approx(50 + 100, abs=1)


def test_a_refused_request_uses_up_nothing(clock: Clock) -> None:
    limit = RateLimit(1, 1)
    assert limit.take("a") == 0
    for _ in range(100):
        assert limit.take("a") > 0
    clock.now += 1
    assert limit.take("a") == 0


def test_idle_time_fills_the_bucket_up_to_the_burst(clock: Clock) -> None:
    limit = RateLimit(10, 3)
    clock.now += 3600
    assert [limit.take("a") > 0 for _ in range(4)] == [False, False, False, True]
    clock.now += 3600
    assert [limit.take("a") > 0 for _ in range(4)] == [False, False, False, True]


def test_each_token_has_its_own_bucket(clock: Clock) -> None:
    limit = RateLimit(1, 1)
    assert (limit.take("a"), limit.take("b"), limit.take(None)) == (0, 0, 0)
    assert limit.take("a") > 0


@pytest.mark.parametrize("rate", [0.1, 10])
def test_another_rate_gives_no_caller_another_burst(clock: Clock, rate: float) -> None:
    limit = RateLimit(1, 2)
    assert [limit.take("a") for _ in range(2)] == [0, 0]
    limit.configure(rate, 2)
    assert limit.take("a") == pytest.approx(1 / rate)
    clock.now += 2 / rate
    assert [limit.take("a") > 0 for _ in range(3)] == [False, False, True]
