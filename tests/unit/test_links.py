"""Links without a token: each for one path and one minute."""

from __future__ import annotations

import pytest

from gateway.web.server.links import LIFETIME, Links

PATH = "/api/v1/jobs/full-1796043514018-ioqtdn/artifacts/build/manifest.json"


def test_a_link_is_good_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    links = Links()
    link = links.query(PATH).removeprefix("link=")
    now += LIFETIME - 0.01
    assert links.open(PATH, link)
    now += 0.02
    assert not links.open(PATH, link)


def test_a_link_of_another_process_opens_nothing() -> None:
    assert not Links().open(PATH, Links().query(PATH).removeprefix("link="))


@pytest.mark.parametrize("link", ["", "-", "x-y", "\udcff-\udcff", "9999999999-", "inf-00"])
def test_what_is_no_link_opens_nothing(link: str) -> None:
    assert not Links().open(PATH, link)
