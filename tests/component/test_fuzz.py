"""Random requests, from a seed: whatever they are, the gateway knows what to answer."""

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
    f"{JOBS}/x",
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


def junk(chance: random.Random, tokens: Sequence[str]) -> bytes:
    """One request that is mostly HTTP and otherwise anything."""
    if chance.random() < 0.01:  # a good one among them
        return request("POST", PATH, JSON, f"X-AUTH-TOKEN: {tokens[1]}".encode(), body=b'{"pipeline": "dbt"}')
    target = chance.choice(TARGETS)
    for _ in range(chance.choice((0, 0, 1, 2, 3))):
        at = chance.randrange(len(target) + 1)
        target = target[:at] + chance.choice("%/?&=.;#~aZ0[]|%2F%00") + target[at:]
    headers = [
        f"{chance.choice(HEADERS)}: {chance.choice(VALUES)}".encode("latin-1") for _ in range(chance.choice((0, 1, 2)))
    ]
    if chance.random() < 0.7:
        token = chance.choice(tokens)
        headers.append(chance.choice((f"X-AUTH-TOKEN: {token}", f"Authorization: Bearer {token}")).encode("latin-1"))
    fields: dict[str, Any] = (
        {"pipeline": "dbt"}
        if chance.random() < 0.3
        else {chance.choice(FIELDS): chance.choice([*SCALARS, [], {"a": [1]}]) for _ in range(chance.randrange(5))}
    )
    body = bytearray(json.dumps(fields, ensure_ascii=chance.random() < 0.5).encode(errors="surrogatepass"))
    for _ in range(chance.choice((0, 0, 1, 20))):
        body.insert(chance.randrange(len(body) + 1), chance.randrange(256))
    return request(chance.choice(METHODS), target, JSON, *headers, body=bytes(body) if chance.random() < 0.8 else None)


@pytest.mark.parametrize("guarded", [False, True])
async def test_of_2000_random_requests_none_is_a_mistake_of_the_gateway(
    tmp_path: Path, make_api: MakeApi, guarded: bool
) -> None:
    project = access.project(tmp_path / "project", {"trigger_rate": 100_000, "trigger_burst": 100_000})
    if not guarded:
        settings = yaml.safe_load((project.folder / "gateway.yaml").read_text())
        del settings["tokens_file"]
        (project.folder / "gateway.yaml").write_text(yaml.safe_dump(settings))
    api = await make_api(project.folder, token=project.tokens["admin"])
    port = api.base.port
    assert port is not None
    chance = random.Random(20260101)
    tokens = [*project.tokens.values(), "", "pgw_", "\xff"]
    seen: Counter[int] = Counter()
    for _ in range(100):
        batch = [junk(chance, tokens) for _ in range(20)]
        for data, answer in zip(batch, await asyncio.gather(*(send(port, data) for data in batch)), strict=True):
            seen[answer.status] += 1
            assert answer.status < 500, (data, answer)
            assert b"Traceback" not in answer.body, (data, answer)
            assert guarded or answer.status != 401
    assert (await api.call("GET", "/healthz")).status == 200
    assert len(seen) >= 7, f"these requests are too much alike: {seen}"
    assert seen[202] >= 1
