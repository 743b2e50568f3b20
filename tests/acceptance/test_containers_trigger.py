"""The trigger pipeline API in containers: commits, parameters and processes, with real git and dbt on a real engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from tests.conftest import MakeGateway
from tests.support import repositories
from tests.support.docker import HOST_IMAGE, Engine, python_mounts
from tests.support.gateway import Answer, Gateway, wait_for

PATH = "/api/trigger/pipeline"
FABRIC, PROJECT = "33290", "41459"
FILES = {
    ".gitignore": "target/\nlogs/\ndbt_packages/\n__pycache__/\n",
    "ingest.py": """
import sys
import duckdb
rows = dict(word.lstrip("-").split("=") for word in sys.argv[1:]).get("rows", "10")
with duckdb.connect("/data/warehouse.duckdb") as connection:
    connection.execute(f"create or replace table raw_numbers as select range as n from range({int(rows)})")
""",
    "transform/dbt_project.yml": "name: small\nversion: '1.0'\nprofile: small\n",
    "transform/profiles.yml": (
        "small: {target: dev, outputs: {dev: {type: duckdb, path: /data/warehouse.duckdb, threads: 2}}}\n"
    ),
    "transform/models/silver/numbers.sql": "select n from raw_numbers where n < {{ var('below', 8) }}\n",
    "transform/models/gold/evens.sql": "select n from {{ ref('numbers') }} where n % 2 = 0\n",
}
PIPELINES: Mapping[str, Any] = {
    "build": {"dbt": {"command": "build"}, "parameters": {"below": {"type": "integer"}}},
    "daily": {"dbt": {"command": "daily"}},
    "load": {"ingester": True, "parameters": {"rows": {"type": "integer", "option": "--rows"}}},
    "all": {"ingester": True, "dbt": {"command": "build"}},
}


@dataclass(frozen=True)
class Shop:
    """A repository with a compose project and a dbt project, its warehouse, and where a gateway of it would be."""

    repository: Path
    data: Path
    folder: Path

    def configure(self, *, dbt: Mapping[str, Any] | None = None, ingester: Mapping[str, Any] | None = None) -> None:
        """Write gateway.yaml. dbt, ingester: settings of the fabric's services."""
        services = {"dbt": dict(dbt or {}), "ingester": dict(ingester or {})}
        fabric = {
            "runner": "compose",
            "resources": {"ingester": "warehouse", "dbt": "warehouse"},
            "compose": {"directory": str(self.repository), **services},
        }
        project = {"directory": str(self.repository), "dbt": "transform", "pipelines": dict(PIPELINES)}
        settings = {
            "enable_openlineage": False,
            "enable_elementary": False,
            "fabrics": {FABRIC: fabric},
            "projects": {PROJECT: project},
        }
        self.folder.mkdir(exist_ok=True)
        (self.folder / "gateway.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")

    def compose(self, **volumes: str) -> None:
        """Commit a compose file whose services mount the repository and, by name, one more volume each."""
        service = {"image": HOST_IMAGE, "network_mode": "none"}
        mounts = [*python_mounts(), f"{self.data}:/data", ".:/shop"]
        dbt = {**service, "working_dir": "/shop/transform", "volumes": [*mounts, *_one(volumes, "dbt")]}
        ingester = {**service, "working_dir": "/shop", "command": ["python", "ingest.py"], "volumes": mounts}
        text = yaml.safe_dump({"name": "shop", "services": {"dbt": dbt, "ingester": ingester}})
        repositories.commit(self.repository, {"compose.yaml": text})

    def rows(self, table: str) -> int | None:
        """How many rows a table of the warehouse has; None where there is no such table."""
        with duckdb.connect(str(self.data / "warehouse.duckdb"), read_only=True) as connection:
            known = {name for (name,) in connection.execute("select table_name from duckdb_tables()").fetchall()}
            known |= {name for (name,) in connection.execute("select view_name from duckdb_views()").fetchall()}
            if table not in known:
                return None
            found = connection.execute(f"select count(*) from {table}").fetchone()
        assert found is not None
        return int(found[0])


def _one(volumes: Mapping[str, str], name: str) -> list[str]:
    return [volumes[name]] if name in volumes else []


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Version 1 has the gold model evens; version 2, and main, have odds too."""
    made = Shop(repositories.repository(tmp_path / "shop", FILES), tmp_path / "data", tmp_path / "gateway")
    made.data.mkdir()
    with duckdb.connect(str(made.data / "warehouse.duckdb")) as connection:
        connection.execute("create table raw_numbers as select range as n from range(10)")
    made.compose()
    repositories.tag(made.repository, "v1")
    odds = "select n from {{ ref('numbers') }} where n % 2 = 1\n"
    repositories.commit(made.repository, {"transform/models/gold/odds.sql": odds})
    repositories.tag(made.repository, "v2")
    made.configure()
    return made


def trigger(gateway: Gateway, pipeline: str, **fields: Any) -> Answer:
    body = {"fabricId": int(FABRIC), "projectId": PROJECT, "pipelineName": pipeline, **fields}
    return gateway.call("POST", PATH, body)


def run(gateway: Gateway, pipeline: str, **fields: Any) -> dict[str, Any]:
    """The record of a run, once it has ended well."""
    answer = trigger(gateway, pipeline, **fields)
    assert answer.status == 200, answer
    record = ended(gateway, answer.json["runId"])
    assert record["exitCode"] == 0, record
    return record


def ended(gateway: Gateway, run_id: str) -> dict[str, Any]:
    """The whole record of a run, once it has ended."""
    wait_for(lambda: gateway.call("GET", f"{PATH}/{run_id}").json["runStatus"] != "RUNNING", f"the end of {run_id}")
    return gateway.call("GET", f"/api/v1/jobs/{run_id}").json


def made_containers(engine: Engine) -> list[str]:
    """The names of the containers that steps ever had, as far as the engine remembers."""
    said = engine.docker(
        "events", "--since=0", "--until=0s", "--filter=event=create", "--format={{.Actor.Attributes.name}}"
    )
    return [name for name in said.splitlines() if not name.startswith("pipeline-gateway-look-")]


def test_a_version_runs_with_the_models_that_it_has_and_the_working_directory_stays_as_it_is(
    shop: Shop, engine: Engine, make_gateway: MakeGateway
) -> None:
    gateway = make_gateway(shop.folder, engine.environment)
    repositories.commit(shop.repository, {})
    edited = shop.repository / "transform/models/gold/evens.sql"
    edited.write_text("somebody is just writing this", encoding="utf-8")
    record = run(gateway, "build", version="1")
    assert (shop.rows("evens"), shop.rows("odds")) == (4, None)
    assert record["source"]["commit"] == repositories.git(shop.repository, "rev-parse", "v1")
    run(gateway, "build", version="2")
    assert shop.rows("odds") == 4
    assert repositories.git(shop.repository, "status", "--porcelain", "--ignored").split() == [
        "M",
        str(edited.relative_to(shop.repository)),
    ]
    wait_for(lambda: engine.containers() == [], "its containers to be removed")
