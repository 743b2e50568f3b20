"""The pace of triggers: a bucket of its own for each token."""

from __future__ import annotations

import pytest

from gateway.web import access
from gateway.web.access import RateLimit


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(access, "time", made)
    return made


def test_the_burst_is_taken_at_once_and_the_next_has_to_wait(clock: Clock) -> None:
    pace = RateLimit(10, 50)
    assert [pace.take("a") for _ in range(50)] == [0] * 50
    assert pace.take("a") == pytest.approx(0.1)
    clock.now += 0.05
    assert pace.take("a") == pytest.approx(0.05)


def test_it_goes_on_at_the_rate_and_no_faster(clock: Clock) -> None:
    pace = RateLimit(10, 50)
    taken = 0
    for _ in range(1_000):  # ten seconds
        clock.now += 0.01
        taken += pace.take("a") == 0
    assert taken == pytest.approx(50 + 100, abs=1)


def test_a_refusal_costs_nothing(clock: Clock) -> None:
    pace = RateLimit(1, 1)
    assert pace.take("a") == 0
    for _ in range(100):
        assert pace.take("a") > 0
    clock.now += 1
    assert pace.take("a") == 0


def test_a_rest_fills_the_bucket_and_no_more(clock: Clock) -> None:
    pace = RateLimit(10, 3)
    clock.now += 3600
    assert [pace.take("a") > 0 for _ in range(4)] == [False, False, False, True]
    clock.now += 3600
    assert [pace.take("a") > 0 for _ in range(4)] == [False, False, False, True]


def test_one_token_does_not_slow_another(clock: Clock) -> None:
    pace = RateLimit(1, 1)
    assert (pace.take("a"), pace.take("b"), pace.take(None)) == (0, 0, 0)
    assert pace.take("a") > 0
