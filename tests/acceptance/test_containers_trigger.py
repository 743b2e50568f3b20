"""The trigger pipeline API in containers: commits, parameters and processes, with real git and dbt on a real engine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from tests.conftest import MakeGateway
from tests.support import projects, repositories
from tests.support.docker import HOST_IMAGE, Engine, python_mounts
from tests.support.gateway import Answer, Gateway, wait_for

PATH = "/api/trigger/pipeline"
FABRIC, PROJECT = "33290", "41459"
TABLES = ("dbt_run_results", "elementary_test_results")
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


# the entrypoint of the service dbt, which waits while there is a file of this name
WAIT = ["sh", "-c", 'while [ -e /data/wait ]; do sleep 0.05; done; exec "$@"', "sh"]
_OFF = {"enable_openlineage": False, "enable_elementary": False}


@dataclass(frozen=True)
class Shop:
    """A repository with a compose project and a dbt project, its warehouse, and the folder of its gateway."""

    repository: Path
    data: Path
    folder: Path

    def configure(
        self,
        *,
        dbt: Mapping[str, Any] | None = None,
        ingester: Mapping[str, Any] | None = None,
        toggles: Mapping[str, bool] = _OFF,
    ) -> None:
        """Write gateway.yaml; `dbt` and `ingester` are settings of the fabric's services."""
        services = {"dbt": dict(dbt or {}), "ingester": dict(ingester or {})}
        fabric = {
            "runner": "compose",
            "resources": {"ingester": "warehouse", "dbt": "warehouse"},
            "compose": {"directory": str(self.repository), **services},
        }
        project = {"directory": str(self.repository), "dbt": "transform", "pipelines": dict(PIPELINES)}
        settings = {
            **toggles,
            "fabrics": {FABRIC: fabric},
            "projects": {PROJECT: project},
        }
        self.folder.mkdir(exist_ok=True)
        (self.folder / "gateway.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")

    def compose(self, *more: str, environment: Mapping[str, str] | None = None) -> None:
        """Commit a compose file whose services mount the repository.

        more, environment: volumes and variables that dbt's service has too.
        """
        service = {"image": HOST_IMAGE, "network_mode": "none"}
        mounts = [*python_mounts(), f"{self.data}:/data", ".:/shop"]
        dbt = {**service, "working_dir": "/shop/transform", "entrypoint": WAIT, "volumes": [*mounts, *more]}
        ingester = {**service, "working_dir": "/shop", "command": ["python", "ingest.py"], "volumes": mounts}
        services = {"dbt": {**dbt, "environment": dict(environment or {})}, "ingester": ingester}
        text = yaml.safe_dump({"name": "shop", "services": services}).replace("$", "$$")
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


def make_shop(folder: Path) -> Shop:
    """Version 1 has the gold model evens; version 2, and main, have odds too."""
    made = Shop(repositories.repository(folder / "shop", FILES), folder / "data", folder / "gateway")
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


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A shop of the test's own."""
    return make_shop(tmp_path)


@dataclass(frozen=True)
class Runs:
    """Runs of version 1, of version 2 up to a model, and of all of version 2, of which the last two came at once.

    rows: of evens and odds after the run of version 1, and after the last one.
    """

    shop: Shop
    gateway: Gateway
    records: tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
    rows: tuple[tuple[int | None, int | None], tuple[int | None, int | None]]

    def results(self, number: int) -> list[str]:
        """The nodes in the results that were kept of a run."""
        job = self.gateway.state / "jobs" / self.records[number]["jobId"]
        results = json.loads((job / "1-build/target/run_results.json").read_bytes())["results"]
        return sorted(result["unique_id"] for result in results)


EDITED = "transform/models/gold/evens.sql"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, shared_engine: Engine) -> Iterator[Runs]:
    """In a working directory with an edit, which no run changes."""
    shop = make_shop(tmp_path_factory.mktemp("runs"))
    (shop.repository / EDITED).write_text("half-written text", encoding="utf-8")
    gateway = Gateway(shop.folder, shared_engine.environment).start()
    first = run(gateway, "build", version="1")
    rows = shop.rows("evens"), shop.rows("odds")
    both = [
        trigger(gateway, "build", version="2", **fields).json["runId"] for fields in ({"processName": "numbers"}, {})
    ]
    up_to, whole = (ended(gateway, run_id) for run_id in both)
    wait_for(lambda: shared_engine.containers() == [], "their containers to be removed")
    yield Runs(shop, gateway, (first, up_to, whole), (rows, (shop.rows("evens"), shop.rows("odds"))))
    gateway.stop()


def trigger(gateway: Gateway, pipeline: str, **fields: Any) -> Answer:
    body = {"fabricId": int(FABRIC), "projectId": PROJECT, "pipelineName": pipeline, **fields}
    return gateway.call("POST", PATH, body)


def run(gateway: Gateway, pipeline: str, **fields: Any) -> dict[str, Any]:
    """The record of a run, which must succeed."""
    answer = trigger(gateway, pipeline, **fields)
    assert answer.status == 200, answer
    record = ended(gateway, answer.json["runId"])
    assert record["exitCode"] == 0, record
    return record


def ended(gateway: Gateway, run_id: str) -> dict[str, Any]:
    """The whole record of a run, once it has ended."""
    wait_for(lambda: gateway.call("GET", f"{PATH}/{run_id}").json["runStatus"] != "RUNNING", f"the end of {run_id}")
    return gateway.call("GET", f"/api/v1/jobs/{run_id}").json


def checkout(shop: Shop, gateway: Gateway, ref: str) -> list[str]:
    """The files in the checkout of a commit, sorted."""
    root = gateway.state / "checkouts" / FABRIC / repositories.git(shop.repository, "rev-parse", ref)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def made_containers(engine: Engine) -> list[str]:
    """The names of all containers that steps had, from the engine's events."""
    said = engine.docker(
        "events", "--since=0", "--until=0s", "--filter=event=create", "--format={{.Actor.Attributes.name}}"
    )
    return [name for name in said.splitlines() if not name.startswith("pipeline-gateway-look-")]


def test_a_version_runs_with_its_own_models(runs: Runs) -> None:
    """The working directory does not change."""
    shop, record = runs.shop, runs.records[0]
    assert runs.rows == ((4, None), (4, 4))
    assert record["commit"] == repositories.git(shop.repository, "rev-parse", "v1")
    assert (record["version"], record["branch"]) == ("1", None)
    assert runs.results(0) == ["model.small.evens", "model.small.numbers"]
    changed = repositories.git(shop.repository, "status", "--porcelain", "--ignored").splitlines()
    assert [line.split() for line in changed] == [["M", EDITED]]
    for commit in ("v1", "v2"):
        files = repositories.git(shop.repository, "ls-tree", "-r", "--name-only", commit).splitlines()
        assert checkout(shop, runs.gateway, commit) == sorted(files)  # no step wrote into it


def test_a_run_up_to_a_process_stops_after_it(runs: Runs) -> None:
    record = runs.records[1]
    assert (record["exitCode"], record["processName"]) == (0, "numbers")
    assert runs.results(1) == ["model.small.numbers"]


def test_two_jobs_of_one_commit_share_its_checkout(runs: Runs) -> None:
    _, up_to, whole = runs.records
    assert (up_to["exitCode"], whole["exitCode"], whole["commit"]) == (0, 0, up_to["commit"])
    assert len(list((runs.gateway.state / "checkouts" / FABRIC).iterdir())) == 2  # of two commits


def test_an_unknown_process_is_refused_before_a_container_is_made(runs: Runs, shared_engine: Engine) -> None:
    before = made_containers(shared_engine)
    answer = trigger(runs.gateway, "build", version="1", processName="odds")  # a model of the next version
    assert answer.status == 400
    assert "`odds` not found" in answer.json["msg"]
    assert "evens" in answer.json["msg"]
    answer = trigger(runs.gateway, "build", processName="missing")  # of the service's own project
    assert answer.status == 400
    assert "odds" in answer.json["msg"]
    assert made_containers(shared_engine) == before
    assert shared_engine.containers() == []


def test_a_branch_runs_at_its_head_and_a_parameter_changes_the_rows(
    shop: Shop, engine: Engine, make_gateway: MakeGateway
) -> None:
    gateway = make_gateway(shop.folder, engine.environment)
    repositories.branch(shop.repository, "more")
    repositories.commit(shop.repository, {"transform/models/gold/thirds.sql": "select 1 as n"})
    thirds = "select n from {{ ref('numbers') }} where n % 3 = 0"
    head = repositories.commit(shop.repository, {"transform/models/gold/thirds.sql": thirds})
    repositories.switch(shop.repository, "main")
    record = run(gateway, "build", branch="more", parameters={"below": "4"})
    assert (record["commit"], record["branch"], record["parameters"]) == (head, "more", {"below": 4})
    assert (shop.rows("numbers"), shop.rows("thirds")) == (4, 2)


def test_a_parameter_follows_the_command_of_the_ingesters_service(
    shop: Shop, engine: Engine, make_gateway: MakeGateway
) -> None:
    gateway = make_gateway(shop.folder, engine.environment)
    broken = repositories.commit(shop.repository, {"ingest.py": "raise SystemExit(3)"})
    repositories.git(shop.repository, "revert", "--no-edit", broken)
    repositories.git(shop.repository, "tag", "v3", broken)
    record = run(gateway, "load", parameters={"rows": 3}, version="3")  # the ingester is not of the commit
    assert shop.rows("raw_numbers") == 3
    assert any("commit has no part in it" in note for note in record["notes"])
    assert run(gateway, "load", parameters={"rows": 4})["notes"] == []
    assert shop.rows("raw_numbers") == 4


def test_with_its_project_path_set_the_ingester_is_of_the_commit(
    shop: Shop, engine: Engine, make_gateway: MakeGateway
) -> None:
    shop.configure(ingester={"project": "/shop"})
    gateway = make_gateway(shop.folder, engine.environment)
    repositories.commit(shop.repository, {"ingest.py": FILES["ingest.py"].replace('"10"', '"6"')})
    repositories.tag(shop.repository, "v3")
    (shop.repository / "ingest.py").write_text("raise SystemExit(3)", encoding="utf-8")
    record = run(gateway, "load", version="3")
    assert (shop.rows("raw_numbers"), record["notes"]) == (6, [])
    run(gateway, "load", version="2")
    assert shop.rows("raw_numbers") == 10


def test_a_run_up_to_a_model_fills_it_whatever_its_service_sets(
    shop: Shop, engine: Engine, make_gateway: MakeGateway
) -> None:
    shop.compose(environment={"DBT_ENGINE_EMPTY": "1", "DBT_EMPTY": "1"})
    run(make_gateway(shop.folder, engine.environment), "build", version="2", processName="evens")
    assert shop.rows("evens") == 4


def test_a_database_in_dbts_target_folder_is_found(shop: Shop, engine: Engine, make_gateway: MakeGateway) -> None:
    here = "small: {target: dev, outputs: {dev: {type: duckdb, path: target/dev.duckdb}}}\n"
    numbers = {"transform/profiles.yml": here, "transform/models/silver/numbers.sql": "select 1 as n\n"}
    repositories.commit(shop.repository, numbers)
    run(make_gateway(shop.folder, engine.environment), "build", branch="main")


def test_the_commit_replaces_a_services_own_mount_of_its_project(
    shop: Shop, engine: Engine, make_gateway: MakeGateway
) -> None:
    shop.compose("./transform:/shop/transform/")
    gateway = make_gateway(shop.folder, engine.environment)
    run(gateway, "build", version="1")
    assert (shop.rows("evens"), shop.rows("odds")) == (4, None)


def test_the_projects_path_may_differ_from_the_working_directory(
    shop: Shop, engine: Engine, make_gateway: MakeGateway
) -> None:
    shop.configure(dbt={"project": "/project", "profiles_directory": "/shop/transform"})
    gateway = make_gateway(shop.folder, engine.environment)
    run(gateway, "build", version="1")
    assert (shop.rows("evens"), shop.rows("odds")) == (4, None)


def test_missing_packages_are_installed_into_the_checkout_for_a_listing(
    shop: Shop, engine: Engine, make_gateway: MakeGateway
) -> None:
    _add_package(shop, "extra")
    gateway = make_gateway(shop.folder, engine.environment)
    answer = trigger(gateway, "build", version="3", processName="missing")
    assert answer.status == 400
    assert "from_extra" in answer.json["msg"]
    root = gateway.state / "checkouts" / FABRIC / repositories.git(shop.repository, "rev-parse", "v3")
    assert (root / "transform/dbt_packages/extra").is_symlink()  # to its path in the container


def test_elementary_is_on_only_if_the_commit_has_its_package(
    shop: Shop, engine: Engine, make_gateway: MakeGateway
) -> None:
    _add_package(shop, "elementary")
    repositories.git(shop.repository, "rm", "-r", "-q", "transform/packages.yml")
    repositories.commit(shop.repository, {})
    shop.configure(toggles={})
    gateway = make_gateway(shop.folder, engine.environment)
    for fields, there in (({"version": "3"}, True), ({"version": "2"}, False), ({}, False)):
        run_id = trigger(gateway, "daily", **fields).json["runId"]
        gateway.call("POST", f"/api/v1/jobs/{run_id}/cancel")
        record = ended(gateway, run_id)
        assert (record["enableElementary"], record["enableOpenlineage"]) == (there, True), fields


def test_elementary_loses_no_results_while_its_tables_are_missing(
    shop: Shop, engine: Engine, make_gateway: MakeGateway
) -> None:
    files = {f"transform/packages/elementary/{file}": text for file, text in projects.ELEMENTARY_STAND_IN.items()}
    test = {"transform/tests/no_odds.sql": "select n from {{ ref('evens') }} where n % 2 = 1\n"}
    declared = {"transform/packages.yml": "packages:\n  - local: packages/elementary\n"}
    repositories.commit(shop.repository, {**files, **test, **declared})
    repositories.tag(shop.repository, "v3")
    shop.configure(toggles={"enable_openlineage": False, "enable_elementary": True})
    gateway = make_gateway(shop.folder, engine.environment)
    found = []
    for _ in range(2):
        notes = run(gateway, "daily", version="3")["notes"]
        which = [note.partition(" Elementary's models")[0] for note in notes if "Elementary" in note]
        found.append((which, *map(shop.rows, TABLES)))
    # numbers, evens, odds and a test; Elementary's three models by its own step, and on the first day by build too
    first, second = 4 + 3 + 3, 4 + 3
    assert found == [(["The step build makes"], first, 1), (["The step build leaves"], first + second, 2)]


def _add_package(shop: Shop, name: str) -> None:
    """Tag a version 3 whose dbt project has a package of one model."""
    package = {"dbt_project.yml": f"name: {name}\nversion: '1.0'\n", f"models/from_{name}.sql": "select 1 as one\n"}
    files = {f"transform/packages/{name}/{file}": text for file, text in package.items()}
    declared = f"packages:\n  - local: packages/{name}\n"
    repositories.commit(shop.repository, {**files, "transform/packages.yml": declared})
    repositories.tag(shop.repository, "v3")


def test_a_job_of_a_commit_is_adopted_by_the_next_gateway(
    shop: Shop, engine: Engine, make_gateway: MakeGateway
) -> None:
    wait = shop.data / "wait"
    wait.touch()
    gateway = make_gateway(shop.folder, engine.environment)
    run_id = trigger(gateway, "build", version="1").json["runId"]
    wait_for(lambda: any(run_id in name for name in engine.containers(all=False)), "its container")
    gateway.kill()
    gateway.start()
    wait.unlink()
    assert ended(gateway, run_id)["exitCode"] == 0
    assert (gateway.state / "jobs" / run_id / "1-build/target/run_results.json").exists()
    assert (shop.rows("evens"), shop.rows("odds")) == (4, None)


def test_a_commit_without_the_dbt_project_is_named_in_the_error(
    shop: Shop, engine: Engine, make_gateway: MakeGateway
) -> None:
    repositories.git(shop.repository, "mv", "transform", "models")
    repositories.commit(shop.repository, {})
    repositories.tag(shop.repository, "v3")
    gateway = make_gateway(shop.folder, engine.environment)
    record = ended(gateway, trigger(gateway, "build", version="3").json["runId"])
    assert record["reason"] == "not_started"
    assert "there is no" in record["error"]
    assert "dbt_project.yml" in record["error"]
    assert not [name for name in checkout(shop, gateway, "v3") if name.startswith("transform")]


def test_a_retry_of_a_commit_is_dbt_retry_in_its_container(
    shop: Shop, engine: Engine, make_gateway: MakeGateway
) -> None:
    """Real dbt, which has its project and the results that it goes on from in two mounts."""
    repositories.commit(shop.repository, {"transform/models/gold/always.sql": "select 1 as n\n"})
    with duckdb.connect(str(shop.data / "warehouse.duckdb")) as connection:
        connection.execute("alter table raw_numbers rename to gone")
    gateway = make_gateway(shop.folder, engine.environment)
    failed = ended(gateway, trigger(gateway, "build", branch="main").json["runId"])
    assert (failed["exitCode"], failed["firstFailure"]["node"]) == (1, "model.small.numbers"), failed
    with duckdb.connect(str(shop.data / "warehouse.duckdb")) as connection:
        connection.execute("alter table gone rename to raw_numbers")
    answer = gateway.call("POST", f"/api/v1/jobs/{failed['jobId']}/retry")
    record = ended(gateway, answer.json["jobId"])
    assert (record["exitCode"], record["commit"], shop.rows("evens")) == (0, failed["commit"], 4), record
    assert "The step build runs only what had failed or was skipped, by `dbt retry`." in record["notes"]
    job = gateway.state / "jobs" / record["jobId"] / "1-build"
    ran = json.loads((job / "target/run_results.json").read_bytes())["results"]
    assert sorted(result["unique_id"].rpartition(".")[2] for result in ran) == ["evens", "numbers", "odds"]
    [step] = record["steps"]
    assert (step["progress"]["done"], step["progress"]["total"], step["progress"]["pass"]) == (4, 4, 4)
