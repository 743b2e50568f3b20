"""A running gateway answers as its own /openapi.json says, whatever it is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import MakeGateway, Tell
from tests.support import conformance

REQUESTS = 2000


@pytest.mark.timeout(900)  # 100 s on free processors, and more beside other tests
def test_2000_requests_from_the_description_are_answered_by_it(
    tmp_path: Path, make_gateway: MakeGateway, tell: Tell
) -> None:
    """Right and wrong ones; tests/support/schemathesis.toml says what is excused, and why."""
    folder, token = conformance.project(tmp_path / "project")
    tried = conformance.attempt(make_gateway(folder), token, REQUESTS)
    tell(f"schemathesis: {tried.requests} requests from seed {conformance.SEED}")
    assert tried.exit_code == 0, tried.text
    assert tried.requests >= REQUESTS
