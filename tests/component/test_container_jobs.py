"""Jobs in real containers of a service in this process: what its own names, clock and files must not change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import MakeApi
from tests.support import compose
from tests.support.api import Api
from tests.support.docker import Engine

FABRIC, PROJECT = "1", "shop"


def lake(folder: Path, *, pipelines: Mapping[str, Any] | None = None, **services: Mapping[str, Any]) -> Path:
    """A compose project of these services with a gateway.yaml that declares these pipelines."""
    compose.write(folder, **services)
    settings = {
        "enabled": True,
        "fabrics": {FABRIC: {"runner": "compose"}},
        "projects": {PROJECT: {"pipelines": dict(pipelines or {})}},
    }
    (folder / "gateway.yaml").write_text(yaml.safe_dump(settings), "utf-8")
    return folder


async def run_pipeline(api: Api, name: str, **parameters: str) -> dict[str, Any]:
    """The record of a declared pipeline's run, without its output, once it has ended."""
    body = {"fabricId": int(FABRIC), "projectId": PROJECT, "pipelineName": name, "parameters": parameters}
    answer = await api.call("POST", "/api/trigger/pipeline", body)
    assert answer.status == 200, answer
    return await api.finished(answer.json["runId"])


async def test_a_job_may_have_eof_in_its_id(tmp_path: Path, engine: Engine, make_api: MakeApi) -> None:
    folder = lake(tmp_path / "lake", pipelines={"geofence": {"ingester": True}}, ingester=compose.shell("exit 3"))
    api = await make_api(folder, engine.environment)
    assert (await run_pipeline(api, "geofence"))["exitCode"] == 3


async def test_an_image_that_is_there_needs_no_registry_but_where_asked(
    tmp_path: Path, engine: Engine, make_api: MakeApi
) -> None:
    """With `pull_policy: always` Compose asks the registry, as it does by hand; the error says what to set instead."""
    services = {"ingester": compose.shell("exit 3", pull_policy="always")}
    api = await make_api(lake(tmp_path / "lake", **services), engine.environment)
    record = await api.run(pipeline="ingester")
    assert record["reason"] == "not_started"
    assert "`pull_policy: missing`" in record["error"]
    compose.write(api.folder, ingester=compose.shell("exit 3", pull_policy="missing"))
    assert (await api.run(pipeline="ingester"))["exitCode"] == 3
