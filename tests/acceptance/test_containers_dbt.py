"""How dbt is called in its service, and how its results are read.

dbt, dbt-ol and edr are fakes here, shell scripts that print how they were called; the real ones are run by
test_containers_lakehouse.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeGateway
from tests.support import compose
from tests.support.compose import service
from tests.support.docker import Engine
from tests.support.gateway import Gateway, wait_for

DBT = """#!/bin/sh
echo "called: ${0##*/} $*"
echo "in: $PWD"
env
echo '{"info": {"name": "MainReportVersion", "msg": "Running with dbt=1.0", "invocation_id": "this-run", "ts": ""}}'
mkdir -p target
[ -e keep ] && exit
echo '{"metadata": {"invocation_id": "this-run"}, "results": [
    {"unique_id": "model.fake.one", "status": "success", "message": ""}]}' >target/run_results.json
echo '{"metadata": {"invocation_id": "this-run"}, "nodes": {"model.fake.one": {
    "unique_id": "model.fake.one", "name": "one", "compiled_code": "'"$WAREHOUSE_PASSWORD"'"}}}' >target/manifest.json
echo '{"metadata": {"invocation_id": "this-run"}}' >target/catalog.json
"""
EDR = """#!/bin/sh
echo "called: ${0##*/} $*"
for word in "$@"; do case "$word" in --file-path=*) echo "<h1>report</h1>" >"${word#*=}"; esac; done
"""
WRAPPER = """#!/bin/sh
echo wrapped
exec "$@"
"""
# its first run fails at one of two models; a retry runs what had failed by the state, which it needs
FAILS_FIRST = """#!/bin/sh
echo "called: ${0##*/} $*"
for word in "$@"; do case "$word" in --state=*) state=${word#*=}; esac; done
id=$(cat /proc/sys/kernel/random/uuid)
echo '{"info": {"name": "MainReportVersion", "msg": "Running with dbt=1.0", "invocation_id": "'$id'", "ts": ""}}'
results() { echo '{"metadata": {"invocation_id": "'$id'"}, "args": {"which": "build"}, "results": ['"$1]}"; }
one='{"unique_id": "model.fake.one", "status": "success"}'
two='{"unique_id": "model.fake.two", "status": "'
mkdir -p /tmp/target
[ "$1" = build ] && results "$one, $two"'error", "message": "no"}' >/tmp/target/run_results.json && exit 1
grep -q '"model.fake.two", "status": "error"' "$state/run_results.json" || exit 2
results "$two"'success"}' >/tmp/target/run_results.json
"""
PACKAGES = "packages:\n  - package: elementary-data/elementary\n    version: 0.16.1\n"


class Fake:
    """A compose project with fakes of dbt, and a gateway on it."""

    def __init__(self, folder: Path, engine: Engine, make_gateway: MakeGateway) -> None:
        self.folder = folder
        self._engine = engine
        self._make_gateway = make_gateway
        for name, script in {"dbt": DBT, "dbt-ol": DBT, "edr": EDR, "wrap": WRAPPER}.items():
            program = folder / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(script)
            program.chmod(0o755)

    def gateway(
        self,
        fabric: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        variables: Mapping[str, str] | None = None,
        entrypoint: list[str] | None = None,
        user: str = "0",
    ) -> Gateway:
        """`environment` is the gateway's; `variables`, `entrypoint` and `user` are the dbt service's."""
        keys = {} if entrypoint is None else {"entrypoint": entrypoint}
        found = {"PATH": "/shared/bin:/bin", **(variables or {})}
        dbt = service(working_dir="/shared", environment=found, user=user, **keys)
        compose.write(self.folder, ingester=service(command=["true"]), dbt=dbt, fabric=fabric or {})
        given = {"ENABLE_OPENLINEAGE": "false", "ENABLE_ELEMENTARY": "false", **self._engine.environment}
        return self._make_gateway(self.folder, {**given, **(environment or {})})


@pytest.fixture
def fake(tmp_path: Path, engine: Engine, make_gateway: MakeGateway) -> Fake:
    return Fake(tmp_path, engine, make_gateway)


def called(record: Mapping[str, Any]) -> list[str]:
    """The programs that were called, with their first argument."""
    lines = [line.split() for line in record["output"].splitlines() if line.startswith("called: ")]
    return [f"{words[1]} {words[2]}" for words in lines]


@pytest.mark.parametrize(
    ("entrypoint", "wrapped"),
    [(None, False), (["dbt"], False), (["/shared/bin/dbt"], False), (["wrap"], True), (["wrap", "dbt"], True)],
)
def test_fake_dbt_and_dbt_ol_run_whatever_entrypoint_the_service_has(
    fake: Fake, entrypoint: list[str] | None, wrapped: bool
) -> None:
    gateway = fake.gateway(entrypoint=entrypoint)
    plain = gateway.run(pipeline="dbt", command="build")
    assert (plain["exitCode"], called(plain)) == (0, ["dbt build"])
    lineage = gateway.run(pipeline="dbt", command="run", enableOpenlineage=True)
    assert (lineage["exitCode"], called(lineage)) == (0, ["dbt-ol run"])
    assert ("wrapped" in plain["output"], "wrapped" in lineage["output"]) == (wrapped, wrapped)


def test_dbt_settings_reach_the_container_as_its_own_paths(fake: Fake) -> None:
    (fake.folder / "sub").mkdir()
    chosen = {
        "dbt": {"target": "prod", "threads": 3, "arguments": ["--full-refresh"]},
        "compose": {
            "dbt": {
                "working_directory": "/shared/sub",
                "profiles_directory": "/profiles",
                "target_path": "/shared/results",
            }
        },
    }
    record = fake.gateway(chosen).run(pipeline="dbt", command="build")
    options = record["output"].partition("called: ")[2].splitlines()[0]
    for option in (
        "--profiles-dir=/profiles",
        "--target=prod",
        "--target-path=/shared/results",
        "--threads=3",
        "--full-refresh",
        "--log-format=json",
    ):
        assert option in options.split()
    assert "--project-dir" not in options
    assert "in: /shared/sub\n" in record["output"]


def test_variables_reach_the_container_by_name_and_its_own_win(fake: Fake) -> None:
    chosen = {"environment": {"COLOUR": "blue"}, "compose": {"environment": ["TOKEN"]}}
    gateway = fake.gateway(chosen, {"TOKEN": "s3cret", "OTHER": "unseen"}, {"DO_NOT_TRACK": "theirs"})
    record = gateway.run(pipeline="dbt", command="build")
    for line in ("COLOUR=blue", "TOKEN=***", "DO_NOT_TRACK=theirs"):  # the token has the value that is masked
        assert f"\n{line}\n" in record["output"]
    assert "OTHER=" not in record["output"]
    decided = (gateway.state / "jobs" / record["jobId"] / "1-build/container.json").read_text()
    assert "TOKEN" in decided
    assert "s3cret" not in decided


def test_lineage_goes_to_a_file_unless_the_service_sets_an_address(fake: Fake) -> None:
    gateway = fake.gateway()
    record = gateway.run(pipeline="dbt", command="build", enableOpenlineage=True)
    assert "\nOPENLINEAGE__TRANSPORT__TYPE=file\n" in record["output"]
    gateway.stop()
    gateway = fake.gateway(variables={"OPENLINEAGE_URL": "http://marquez:5000"})
    record = gateway.run(pipeline="dbt", command="build", enableOpenlineage=True)
    assert "\nOPENLINEAGE_URL=http://marquez:5000\n" in record["output"]
    assert "OPENLINEAGE__TRANSPORT" not in record["output"]


def test_dbt_ol_gets_what_dbts_variables_choose(fake: Fake) -> None:
    """Those of the service and of the fabric; those of the fabric win, as in the container."""
    chosen = {
        "DBT_TARGET": "x",
        "DBT_PROFILE": "shop",
        "DBT_PROJECT_DIR": "/shared",
        "DBT_ENGINE_TARGET_PATH": "target",
    }
    gateway = fake.gateway({"environment": {"DBT_TARGET": "prod"}}, variables=chosen)
    for lineage in (True, False):
        record = gateway.run(pipeline="dbt", command="build", enableOpenlineage=lineage)
        options = record["output"].partition("called: ")[2].splitlines()[0].split()
        for option in ("--target=prod", "--profile=shop", "--project-dir=/shared", "--target-path=target"):
            assert (option in options) == lineage, option


def test_lineage_goes_by_the_profile_in_the_service(fake: Fake) -> None:
    """A target that only dbt takes becomes an option, and one that only dbt can evaluate turns lineage off."""
    (fake.folder / "dbt_project.yml").write_text("profile: shop\n")
    (fake.folder / "profiles.yml").write_text("shop: {outputs: {default: {type: duckdb, path: /w.duckdb}}}\n")
    gateway = fake.gateway({"dbt": {"edr": "edr"}}, {"ENABLE_OPENLINEAGE": "", "ENABLE_ELEMENTARY": ""})
    record = gateway.run(pipeline="dbt", command="build")
    assert called(record) == ["dbt-ol build"]
    assert "--target=default" in record["output"].partition("called: ")[2].splitlines()[0].split()
    (fake.folder / "profiles.yml").write_text("shop: {target: \"{{ env_var('T') | as_text }}\"}\n")
    (fake.folder / "packages.yml").write_text(PACKAGES)
    (fake.folder / "bin/edr").unlink()
    gateway.stop()  # a running gateway reuses an answer for two seconds
    gateway.start()
    record = gateway.run(pipeline="dbt")
    assert called(record) == ["dbt deps", "dbt build"]
    lineage, elementary = gateway.call("GET", f"/api/v1/jobs/{record['jobId']}").json["notes"]
    assert lineage.startswith("OpenLineage is off: dbt-ol needs the profile's target in /shared/profiles.yml, whose")
    assert elementary == "Elementary is off: edr was not found."
    asked = gateway.run(pipeline="dbt", command="build", enableOpenlineage=True)
    assert asked["reason"] == "not_started"
    assert "OpenLineage is wanted, but in the service dbt dbt-ol needs the profile's target" in asked["error"]


def test_unset_toggles_depend_on_the_image_and_the_record_notes_it(fake: Fake) -> None:
    unsaid = {"ENABLE_OPENLINEAGE": "", "ENABLE_ELEMENTARY": ""}
    gateway = fake.gateway(environment=unsaid)
    record = gateway.run(pipeline="dbt")
    assert called(record) == ["dbt deps", "dbt-ol build"]
    whole = gateway.call("GET", f"/api/v1/jobs/{record['jobId']}").json
    assert whole["notes"] == ["Elementary is off: the project does not have its package."]
    (fake.folder / "bin/dbt-ol").unlink()
    (fake.folder / "packages.yml").write_text(PACKAGES)
    gateway.stop()  # a running gateway reuses an answer for two seconds
    gateway.start()
    assert called(gateway.run(pipeline="dbt")) == ["dbt deps", "dbt build", "dbt run"]


@pytest.mark.parametrize(
    ("toggle", "part"),
    [("enableOpenlineage", "install openlineage-dbt in its image"), ("enableElementary", "add elementary-data")],
)
def test_a_toggle_without_its_package_fails_before_the_first_step(fake: Fake, toggle: str, part: str) -> None:
    (fake.folder / "bin/dbt-ol").unlink()
    record = fake.gateway().run(**{"pipeline": "full", toggle: True})
    assert (record["status"], record["reason"]) == ("failed", "not_started")
    assert part in record["error"]
    assert record["steps"][0]["status"] == "skipped"


def test_elementary_is_followed_by_its_report_which_is_copied_out(fake: Fake, engine: Engine) -> None:
    (fake.folder / "packages.yml").write_text(PACKAGES)
    variables = {"WAREHOUSE_PASSWORD": "of-the-service"}
    gateway = fake.gateway({"dbt": {"edr": "edr"}}, variables=variables, entrypoint=["dbt"])
    record = gateway.run(pipeline="dbt", command="elementary")
    assert (record["exitCode"], called(record)) == (0, ["dbt run", "edr report"]), record
    folder = gateway.state / "jobs" / record["jobId"] / "1-elementary"
    assert (folder / "elementary_report.html").read_text() == "<h1>report</h1>\n"
    wait_for(lambda: compose.containers_of(engine, record["jobId"]) == [], "both containers to be removed")
    names = [
        artifact["name"]
        for artifact in gateway.call("GET", f"/api/v1/jobs/{record['jobId']}/artifacts").json["artifacts"]
    ]
    assert names == ["run_results.json", "manifest.json", "elementary_report.html", "command.json"]
    [node] = gateway.call("GET", f"/api/v1/jobs/{record['jobId']}/nodes").json["nodes"]
    assert (node["name"], node["status"]) == ("one", "success")
    manifests = [json.loads(file.read_bytes()) for file in folder.glob("*/manifest.json")]
    assert [manifest["nodes"]["model.fake.one"]["compiled_code"] for manifest in manifests] == ["***", "***"]


def test_exit_code_0_with_the_results_of_an_earlier_run_is_a_failure(fake: Fake) -> None:
    gateway = fake.gateway()
    assert gateway.run(pipeline="dbt", command="build")["exitCode"] == 0
    old = {"metadata": {"invocation_id": "an-earlier-run"}, "results": []}
    for name in ("run_results.json", "manifest.json"):
        (fake.folder / "target" / name).write_text(json.dumps(old))
    (fake.folder / "keep").touch()
    record = gateway.run(pipeline="dbt", command="build")
    assert (record["status"], record["reason"]) == ("failed", "not_started")
    assert "without leaving a run_results.json" in record["error"]
    kept = gateway.call("GET", f"/api/v1/jobs/{record['jobId']}/artifacts").json["artifacts"]
    assert [artifact["name"] for artifact in kept] == ["command.json"]


def test_a_second_attempt_is_dbt_retry_for_any_user_of_a_container(fake: Fake) -> None:
    for name in ("dbt", "dbt-ol"):
        (fake.folder / "bin" / name).write_text(FAILS_FIRST)
    fake.folder.chmod(0o755)
    retries = {"attempts": 2, "wait": 0, "errors": ["any"]}
    chosen = {"dbt": {"retries": retries}, "compose": {"dbt": {"target_path": "/tmp/target"}}}
    gateway = fake.gateway(chosen, user="65534")
    record = gateway.run(pipeline="dbt", command="build", enableOpenlineage=True)
    assert called(record) == ["dbt-ol build", "dbt retry"]
    assert (record["exitCode"], record["progress"]["done"], record["progress"]["pass"]) == (0, 2, 2), record
    whole = gateway.call("GET", f"/api/v1/jobs/{record['jobId']}").json
    assert [attempt["exitCode"] for attempt in whole["steps"][0]["attempts"]] == [1, 0]
    note = "The step build runs only what had failed or was skipped, by `dbt retry`; without OpenLineage"
    assert [one for one in whole["notes"] if one.startswith(note)], whole["notes"]
    nodes = gateway.call("GET", f"/api/v1/jobs/{record['jobId']}/nodes").json["nodes"]
    assert {node["name"]: node["status"] for node in nodes} == {"one": "success", "two": "success"}
