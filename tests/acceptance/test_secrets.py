"""Secrets stay secret: canaries that a job prints in every encoding are in no answer, file or log."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from runners.containers.identity import container_name
from runners.output import OutputRing
from tests.conftest import MakeGateway
from tests.support import compose, projects
from tests.support.canaries import Canaries
from tests.support.docker import Engine
from tests.support.gateway import Gateway, wait_for
from tests.support.quick_dbt import QUICK_DBT

# Prints its secrets and the token in every encoding, in halves with a pause, and across every buffer border.
TALKER = """
    import json, os, pathlib, sys, time
    from urllib.parse import quote
    names = pathlib.Path("names").read_text().split()
    secrets = [*map(os.environ.get, names), pathlib.Path("token").read_text()]
    for secret in secrets:
        print(secret, repr(secret), json.dumps(secret), json.dumps(json.dumps(secret)), quote(secret, safe=""))
        print(secret, file=sys.stderr, flush=True)
    os.write(1, secrets[0][:9].encode())
    pathlib.Path("half").touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    os.write(1, secrets[0][9:].encode() + b"\\n")
    for number in range(4000):
        os.write(1 + number % 2, b"-" * (number % 97) + secrets[number % len(secrets)].encode() + b"\\n")
    pathlib.Path("printed").touch()
    print("the end")
    if pathlib.Path("fail").exists():
        sys.exit("x" * 470 + " ".join(secrets))
    os.write(1, secrets[-1][:30].encode())
"""
MODEL = """
    {{ config(materialized="table") }}
    select error('{{ "x" * 400 }} {{ env_var("WAREHOUSE_PIN").replace("'", "''") }} {{ env_var("LOADER_PASSWORD") }}')
"""


def planted(folder: Path, canaries: Canaries) -> Path:
    """A project whose steps have the canaries: two from the fabric's environment, the others from the gateway's."""
    own = {name: canaries.environment[name] for name in ("WAREHOUSE_PIN", "LOADER_PASSWORD")}
    settings = {
        "secrets": ["*_PIN", "*PASSWORD*", "*PRIVATE_KEY*", "DBT_ENV_SECRET_*"],
        "output_cap": "1MiB",
        "fabrics": {
            "local": {
                "resources": {"ingester": "warehouse", "dbt": "warehouse"},
                "dbt": {"executable": str(QUICK_DBT.program)},
                "environment": own,
            }
        },
    }
    projects.make(folder, ingester=TALKER, settings=settings)
    projects.write(folder / "transform/models/evens.sql", MODEL)
    (folder / "names").write_text(" ".join(canaries.environment))
    (folder / "token").write_text(canaries.token)
    return folder


def inherited(canaries: Canaries) -> dict[str, str]:
    return {name: canaries.environment[name] for name in ("DBT_ENV_SECRET_GIT", "DEPLOY_PRIVATE_KEY", "LAKE")}


def output(gateway: Gateway, job: str) -> bytes:
    return OutputRing(gateway.state / "jobs" / job).read(0, 1 << 30).data


def test_secrets_that_steps_print_are_masked_everywhere(tmp_path: Path, make_gateway: MakeGateway) -> None:
    canaries = Canaries()
    gateway = make_gateway(planted(tmp_path / "project", canaries), inherited(canaries))
    (gateway.folder / "fail").touch()
    job = gateway.trigger(pipeline="ingester")
    wait_for((gateway.folder / "half").exists, "the first half")
    assert canaries.everywhere(gateway, job) == {}
    gateway.kill()
    gateway.start()
    (gateway.folder / "go").touch()
    record = gateway.finished(job)
    assert record["exitCode"] == 1, record
    assert record["firstFailure"]["message"] == "postgresql://loader:***@db.example/lake ***"
    assert b"the end\n" in output(gateway, job)
    assert canaries.everywhere(gateway, job) == {}
    assert gateway.stop() == 0
    assert canaries.found_in(b"".join(file.read_bytes() for file in gateway.state.glob("gateway.db*"))) == []


def test_a_secret_cut_off_by_the_end_of_the_output_is_masked(tmp_path: Path, make_gateway: MakeGateway) -> None:
    canaries = Canaries()
    gateway = make_gateway(planted(tmp_path / "project", canaries), inherited(canaries))
    (gateway.folder / "go").touch()
    record = gateway.run(pipeline="ingester")
    assert record["exitCode"] == 0, record
    assert record["output"].endswith("\nthe end\n***")
    assert canaries.everywhere(gateway, record["jobId"]) == {}


def test_secrets_in_dbts_results_are_masked_in_every_answer(tmp_path: Path, make_gateway: MakeGateway) -> None:
    """The secret is where the message of its results is cut."""
    canaries = Canaries()
    gateway = make_gateway(planted(tmp_path / "project", canaries), inherited(canaries))
    record = gateway.run(pipeline="dbt", command="build", enableOpenlineage=False)
    assert record["firstFailure"]["node"] == "model.small.evens", record
    assert "xxx ***" in record["firstFailure"]["message"]
    left = gateway.state / "jobs" / record["jobId"] / "1-build/target/run_results.json"
    assert canaries.found_in(left.read_bytes())  # dbt's own file, which only its user may read
    assert canaries.everywhere(gateway, record["jobId"]) == {}


# The same in a container whose service has a secret that the gateway learns of from Compose only.
CONTAINER = """
    n=0
    while [ $n -lt 300 ]; do
        n=$((n + 1))
        echo "$n $WAREHOUSE_PIN $SERVICE_PASSWORD"
        echo "$n $LAKE" >&2
        [ $n = 150 ] && touch half && while [ ! -e go ]; do sleep 0.01; done
        sleep 0.002
    done
    echo the end
"""


def test_output_of_containers_is_masked_and_complete_across_kills(
    tmp_path: Path, make_gateway: MakeGateway, engine: Engine
) -> None:
    canaries = Canaries()
    names = ("WAREHOUSE_PIN", "LAKE")
    fabric: dict[str, Any] = {"compose": {"environment": list(names)}}
    service = compose.shell(
        CONTAINER,
        working_dir="/shared",
        environment={"SERVICE_PASSWORD": canaries.environment["LOADER_PASSWORD"]},
    )
    folder = compose.write(tmp_path / "lake", fabric=fabric, ingester=service, dbt=compose.shell("true"))
    own = {name: canaries.environment[name] for name in names}
    secret_names = '["*_PIN", "*PASSWORD*"]'
    gateway = make_gateway(
        folder, {**engine.environment, **own, "PIPELINE_ENABLED": "true", "GATEWAY_SECRETS": secret_names}
    )
    job = gateway.trigger(pipeline="ingester")
    wait_for((folder / "half").exists, "the first half")
    wait_for(lambda: b"\n150 postgres" in output(gateway, job), "all of it in the output")
    assert canaries.everywhere(gateway, job) == {}
    _kill_copier(gateway, job)
    gateway.kill()
    gateway.start()
    (folder / "go").touch()
    assert gateway.finished(job)["exitCode"] == 0
    lines = output(gateway, job).decode().splitlines()
    assert [line for line in lines if line.endswith("*** ***")] == [f"{n} *** ***" for n in range(1, 301)]
    urls = [f"{n} postgresql://loader:***@db.example/lake" for n in range(1, 301)]
    assert [line for line in lines if line.endswith("/lake")] == urls
    assert sorted(set(lines) - {f"{n} *** ***" for n in range(1, 301)} - set(urls)) == ["the end"]
    assert len(lines) == 601
    assert canaries.everywhere(gateway, job) == {}


def _kill_copier(gateway: Gateway, job: str) -> None:
    """Kill the supervisor of the command that follows the log, then that command."""
    folder = gateway.state / "jobs" / job
    name = container_name(folder / "1-ingester")
    for words in ((b"shim.py", b"logs-"), (b"\0logs\0", name.encode())):
        wait_for(lambda words=words: _killed(words, str(folder).encode()), f"{words}")


def _killed(words: tuple[bytes, ...], folder: bytes) -> bool:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = process.joinpath("cmdline").read_bytes()
        except OSError:
            continue  # it has ended
        if all(word in command for word in words) and (folder in command or b"\0logs\0" in command):
            os.kill(int(process.name), signal.SIGKILL)
            return True
    return False
