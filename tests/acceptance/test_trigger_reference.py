"""The examples of the trigger pipeline API's reference, as printed except for host, token and run id.

A real gateway process behind a token, real curl, real git, and the real dbt on DuckDB.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import tokens
from gateway.settings.tokens import Scope
from tests.support import bakehouse, repositories
from tests.support.bash import Said, bash
from tests.support.gateway import PATH as OTHER_API
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

    def output(self, run: str) -> str:
        """What its steps have printed, which only the other API tells."""
        answer = self._gateway.call("GET", f"{OTHER_API}?jobId={run}", headers={"X-AUTH-TOKEN": self._token})
        assert answer.status == 200, answer
        return str(answer.json["output"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bakehouse, where the head of main has two models that fail."""
    made = bakehouse.make(tmp_path_factory.mktemp("reference") / "bakery", settings={"tokens_file": "tokens"})
    too = {"transform/models/gold/broken_too.sql": "select 1 as one from nowhere\n"}
    repositories.commit(made / "bakehouse", too)
    return made


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Client]:
    token = tokens.create(folder / "tokens", "prophecy", Scope.RUN, datetime.now(UTC), None)
    gateway = Gateway(folder).start()
    yield Client(gateway, token)
    gateway.stop()


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
    # version 2, one franchise, and nothing beyond franchise_reviews, neither a model nor a test
    assert bakehouse.tables(folder) == {"franchises", "franchise_reviews"}
    assert bakehouse.rows(folder, "select distinct franchise_id from franchise_reviews") == [(3000007,)]
    assert "nothing_lost" not in client.output(run)


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
    """`success` is about the request, which succeeded. The message has the first failure and the number of others."""
    example = TRIGGER_PIPELINE.replace('"version": "2"', '"branch": "main"').replace(
        ',\n"processName": "franchise_reviews"', ""
    )
    run = client.call(example).json["runId"]
    status = client.ended(run)
    assert set(status) == RUN_FIELDS | {"errorMessage"}
    assert (status["success"], status["runStatus"]) == (True, "ERROR")
    assert re.match(r"model\.bakehouse\.broken(_too)?: ", status["errorMessage"])
    assert "Table with name nowhere does not exist" in status["errorMessage"]
    assert status["errorMessage"].endswith("(1 more failed)")
