"""A client that is generated from /openapi.json, by the manual's own lines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import MakeGateway, need
from tests.support import manual, quick_jobs
from tests.support.gateway import DEADLINE, Gateway

# What a user of the client writes; mypy checks it with the client.
USER = """
import sys

from pipeline_gateway_client import Client
from pipeline_gateway_client.api.data_analytics import get_pipeline_jobs
from pipeline_gateway_client.api.jobs import get_job, list_jobs, trigger_job
from pipeline_gateway_client.models import JobPage, PolledJob, Refusal, TriggerBody, WholeRecord


def run(client: Client) -> str:
    job = trigger_job.sync(client=client, body=TriggerBody(pipeline="ingester"))
    assert isinstance(job, WholeRecord), job
    while job.phase != "ended":
        found = get_job.sync(job.job_id, client=client, wait=20.0)
        assert isinstance(found, WholeRecord), found
        job = found
    polled = get_pipeline_jobs.sync(client=client, job_id=job.job_id)
    assert isinstance(polled, PolledJob), polled
    page = list_jobs.sync(client=client)
    assert isinstance(page, JobPage) and page.jobs[0].job_id == job.job_id
    refused = trigger_job.sync(client=client, body=TriggerBody(pipeline="nightly"))
    assert isinstance(refused, Refusal), refused
    return f"{job.status} {job.exit_code} {job.steps[0].name} {job.created_at.year > 2000} {refused.code}"


print(run(Client(base_url=sys.argv[1])))
"""


@pytest.fixture
def gateway(tmp_path: Path, make_gateway: MakeGateway) -> Gateway:
    return make_gateway(quick_jobs.quick_project(tmp_path / "project"))


def run(folder: Path, *command: str, **variables: str) -> str:
    """What a command prints, which must succeed; the programs of this Python come first."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(folder), "PYTHONPATH": "pipeline-gateway-client", **variables}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 0, done
    return done.stdout


def test_a_generated_client_is_typed_and_runs_a_trigger_to_its_end(tmp_path: Path, gateway: Gateway) -> None:
    need("curl")
    run(tmp_path, "bash", "-ec", manual.block("api.md", "A client in your language"), BASE=gateway.base)
    (tmp_path / "user.py").write_text(USER)
    checked = ["user.py", "pipeline-gateway-client/pipeline_gateway_client"]
    run(tmp_path, sys.executable, "-m", "mypy", "--strict", "--no-incremental", *checked)
    said = run(tmp_path, sys.executable, "user.py", gateway.base)
    assert said == "completed 0 ingester True unknown_pipeline\n"
