"""The examples of the trigger pipeline API's reference, as printed except for host, token and run id.

A real gateway process behind a token, real curl, real git, and the real dbt on DuckDB.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import tokens
from gateway.settings.tokens import Scope
from tests.conftest import MakeGateway
from tests.support import bakehouse
from tests.support.bash import Said, bash
from tests.support.gateway import Gateway, wait_for
from tests.support.reference import RUN_FIELDS, RUN_ID, RUN_STATUS, TRIGGER_PIPELINE, UNKNOWN_FABRIC


class Client:
    """A client that calls the reference's examples with an address and a token."""

    def __init__(self, gateway: Gateway, token: str) -> None:
        self._gateway = gateway
        self._token = token

    def call(self, example: str) -> Said:
        host = example.replace("https://app.prophecy.io", self._gateway.base)
        return bash(self._gateway, host.replace("<prophecy-pat>", self._token))

    def status(self, run: str) -> dict[str, Any]:
        answer = self.call(RUN_STATUS.replace(RUN_ID, run))
        assert answer.status == 200, answer
        return answer.json

    def ended(self, run: str) -> dict[str, Any]:
        def over() -> dict[str, Any] | None:
            status = self.status(run)
            assert status["success"] is True
            return None if status["runStatus"] == "RUNNING" else status

        status: dict[str, Any] = wait_for(over, f"the end of {run}")
        return status


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return bakehouse.make(tmp_path / "bakery", settings={"tokens_file": "tokens"})


@pytest.fixture
def client(folder: Path, make_gateway: MakeGateway) -> Client:
    token = tokens.create(folder / "tokens", "prophecy", Scope.RUN, datetime.now(UTC), None)
    return Client(make_gateway(folder), token)


def test_the_trigger_and_its_status_work_as_printed(folder: Path, client: Client) -> None:
    answer = client.call(TRIGGER_PIPELINE)
    assert answer.status == 200, answer
    assert set(answer.json) == {"success", "runId", "msg"}
    assert answer.json["success"] is True
    run = answer.json["runId"]
    assert set(client.status(run)) == RUN_FIELDS
    status = client.ended(run)
    assert set(status) == RUN_FIELDS
    moments = [status.pop(key) for key in ("createdAt", "updatedAt")]
    assert status == {
        "success": True,
        "runId": run,
        "projectId": "41459",
        "pipelineName": "bakehouse",
        "fabricId": "33290",
        "runStatus": "SUCCEEDED",
    }
    assert [re.sub(r"\d", "0", moment) for moment in moments] == ["0000-00-00T00:00:00.000000"] * 2
    # version 2, one franchise, and nothing beyond franchise_reviews
    assert bakehouse.tables(folder) == {"franchises", "franchise_reviews"}
    assert bakehouse.rows(folder, "select distinct franchise_id from franchise_reviews") == [(3000007,)]


def test_an_unknown_fabric_is_refused_in_the_words_of_the_reference(client: Client) -> None:
    answer = client.call(TRIGGER_PIPELINE.replace("33290", "2290"))
    assert (answer.status, answer.json["success"]) == (404, False)
    assert UNKNOWN_FABRIC in answer.json["msg"]


def test_an_invalid_token_and_an_unknown_run_get_the_references_shape(client: Client) -> None:
    unknown = client.call(RUN_STATUS)
    assert (unknown.status, set(unknown.json), unknown.json["success"]) == (404, {"success", "msg"}, False)
    assert RUN_ID in unknown.json["msg"]
    unauthorized = client.call(TRIGGER_PIPELINE.replace("<prophecy-pat>", "pgw_wrong"))
    assert (unauthorized.status, set(unauthorized.json), unauthorized.json["success"]) == (
        401,
        {"success", "msg"},
        False,
    )


def test_a_failed_run_has_status_error_and_a_message(client: Client) -> None:
    """`success` is about the request, which succeeded."""
    example = TRIGGER_PIPELINE.replace('"version": "2"', '"branch": "main"').replace(
        '"processName": "franchise_reviews"', '"processName": "broken"'
    )
    run = client.call(example).json["runId"]
    status = client.ended(run)
    assert set(status) == RUN_FIELDS | {"errorMessage"}
    assert (status["success"], status["runStatus"]) == (True, "ERROR")
    assert status["errorMessage"].startswith("model.bakehouse.broken: ")
    assert "Table with name nowhere does not exist" in status["errorMessage"]
