"""The artifacts of jobs, kept by a real service."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import MakeApi
from tests.support import projects

# leaves a file that is kept, where nothing can be kept any more
SPOILING = """
    import os, pathlib, shutil
    step = pathlib.Path(os.environ["PIPELINE_GATEWAY_STEP"])
    (step / "lineage.ndjson").write_text("{}\\n")
    shutil.rmtree(step / "artifacts")
    (step / "artifacts").touch()
"""


async def test_an_artifact_that_the_disk_refuses_costs_no_step_its_end(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(projects.make(tmp_path / "project", ingester=SPOILING))
    record = await api.run(pipeline="ingester")
    assert (record["status"], record["exitCode"]) == ("completed", 0), record
    [note] = record["notes"]
    assert note.startswith("lineage.ndjson of the step ingester could not be kept: [Errno 20] Not a directory")
