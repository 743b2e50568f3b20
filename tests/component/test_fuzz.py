"""Random requests from a fixed seed: none causes a server error."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import MakeApi
from tests.support import access
from tests.support.gateway import PATH
from tests.support.raw import JSON, request, send

JOBS = "/api/v1/jobs"

METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")
RUNS = "/api/trigger/pipeline"
TARGETS = (
    PATH,
    RUNS,
    f"{RUNS}/x",
    "/api/v1/pipelines",
    JOBS,
    f"{JOBS}?status=failed&limit=5&since=2026-01-31T06:00:00Z",
    f"{JOBS}/x",
    f"{JOBS}/x/log?offset=1&step=build",
    f"{JOBS}/x/events?offset=1",
    f"{JOBS}/x/cancel",
    "/healthz",
    "/",
    "*",
    f"{PATH}?jobId=x",
    f"{JOBS}/x?wait=1",
)
HEADERS = ("Content-Type", "Accept", "Origin", "Host", "If-None-Match", "Sec-Fetch-Site", "Range", "Cookie", "X-Y")
VALUES = ("application/json", "", "null", "localhost", "*", '"', "a=b; c", "bytes=1-", "none", "\xff", "gzip", "1, 2")
SCALARS = (None, True, 0, -1, 1e308, "", "dbt", "ingester", "full", "daily", "\x00", "é", "\ud800", "x" * 3000)
TRIGGER = ("pipeline", "command", "enableOpenlineage", "enableElementary", "", "jobId", "\ud800")
RUN = ("fabricId", "pipelineName", "projectId", "parameters", "branch", "version", "processName")
FIELDS = (*TRIGGER, *RUN)


def random_request(rng: random.Random, tokens: Sequence[str]) -> bytes:
    """A request that is mostly HTTP, with random parts."""
    if rng.random() < 0.01:  # a valid request now and then
        return request("POST", PATH, JSON, f"X-AUTH-TOKEN: {tokens[1]}".encode(), body=b'{"pipeline": "dbt"}')
    target = rng.choice(TARGETS)
    for _ in range(rng.choice((0, 0, 1, 2, 3))):
        at = rng.randrange(len(target) + 1)
        target = target[:at] + rng.choice("%/?&=.;#~aZ0[]|%2F%00") + target[at:]
    headers = [f"{rng.choice(HEADERS)}: {rng.choice(VALUES)}".encode("latin-1") for _ in range(rng.choice((0, 1, 2)))]
    if rng.random() < 0.7:
        token = rng.choice(tokens)
        headers.append(rng.choice((f"X-AUTH-TOKEN: {token}", f"Authorization: Bearer {token}")).encode("latin-1"))
    fields: dict[str, Any] = (
        {"pipeline": "dbt"}
        if rng.random() < 0.3
        else {rng.choice(FIELDS): rng.choice([*SCALARS, [], {"a": [1]}]) for _ in range(rng.randrange(5))}
    )
    body = bytearray(json.dumps(fields, ensure_ascii=rng.random() < 0.5).encode(errors="surrogatepass"))
    for _ in range(rng.choice((0, 0, 1, 20))):
        body.insert(rng.randrange(len(body) + 1), rng.randrange(256))
    return request(rng.choice(METHODS), target, JSON, *headers, body=bytes(body) if rng.random() < 0.8 else None)


@pytest.mark.parametrize("guarded", [False, True])
async def test_2000_random_requests_cause_no_server_error(tmp_path: Path, make_api: MakeApi, guarded: bool) -> None:
    project = access.project(tmp_path / "project", {"trigger_rate": 100_000, "trigger_burst": 100_000})
    if not guarded:
        settings = yaml.safe_load((project.folder / "gateway.yaml").read_text())
        del settings["tokens_file"]
        (project.folder / "gateway.yaml").write_text(yaml.safe_dump(settings))
    api = await make_api(project.folder, token=project.tokens["admin"])
    port = api.base.port
    assert port is not None
    rng = random.Random(20260101)
    tokens = [*project.tokens.values(), "", "pgw_", "\xff"]
    seen: Counter[int] = Counter()
    for _ in range(100):
        batch = [random_request(rng, tokens) for _ in range(20)]
        for data, answer in zip(batch, await asyncio.gather(*(send(port, data) for data in batch)), strict=True):
            seen[answer.status] += 1
            assert answer.status < 500, (data, answer)
            assert b"Traceback" not in answer.body, (data, answer)
            assert guarded or answer.status != 401
    assert (await api.call("GET", "/healthz")).status == 200
    assert len(seen) >= 7, f"these requests are too similar: {seen}"
    assert seen[202] >= 1
