"""The command on state directories of every earlier schema."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runners.output import OutputRing
from tests.conftest import MakeGateway
from tests.fixtures.make import RUNNING
from tests.fixtures.state import Kept, lasting, schemas, whole_record
from tests.support.gateway import PATH

pytestmark = pytest.mark.installed  # the version before was an installed command too


@pytest.fixture(params=schemas())
def supervised(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    """The state of a killed gateway of that schema, whose job is really running."""
    kept = Kept(request.param, tmp_path / "project")
    kept.supervise()
    yield kept
    (kept.folder / "go").touch()


def test_a_job_begun_by_an_older_version_is_adopted_with_its_output(
    make_gateway: MakeGateway, supervised: Kept
) -> None:
    kept = supervised
    gateway = make_gateway(kept.folder)
    assert [gateway.poll(job)["phase"] for job in kept.active] == ["ingester", "queued"][: len(kept.active)]
    refused = gateway.call("POST", PATH, {"pipeline": "dbt"})
    assert (refused.status, refused.json["conflict"]["jobId"]) == (409, kept.running)
    (kept.folder / "go").touch()
    for job in kept.active:
        record = gateway.finished(job)
        assert (record["status"], record["exitCode"]) == ("completed", 7)
    assert (kept.folder / "runs").read_text() == "run\n" * len(kept.active)
    said = ["Grüße, wait", *(f"line {number}" for number in range(RUNNING)), "waiting", "done"]
    output = OutputRing(kept.state / "jobs" / kept.running).read(0, 1 << 20).data.decode()
    assert output.splitlines() == said
    for job, expected in kept.answers["records"].items():
        assert lasting(gateway.call("GET", f"/api/v1/jobs/{job}").json) == whole_record(expected)


@pytest.mark.parametrize("schema", schemas())
def test_a_job_of_an_older_version_runs_once_after_a_reboot(
    tmp_path: Path, make_gateway: MakeGateway, schema: int
) -> None:
    """Its step's folder has only a spec: it was never started."""
    kept = Kept(schema, tmp_path / "project")
    (kept.folder / "go").touch()
    gateway = make_gateway(kept.folder)
    assert [gateway.finished(job)["exitCode"] for job in kept.active] == [7] * len(kept.active)
    assert (kept.folder / "runs").read_text() == "run\n" * len(kept.active)
