"""Random requests, from a seed: whatever they are, the gateway knows what to answer."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

from tests.conftest import MakeApi
from tests.support import projects
from tests.support.gateway import PATH
from tests.support.raw import JSON, request, send

JOBS = "/api/v1/jobs"

METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")
TARGETS = (PATH, JOBS, f"{JOBS}/x", f"{JOBS}/x/cancel", "/healthz", "/", "*", f"{PATH}?jobId=x", f"{JOBS}/x?wait=1")
HEADERS = ("Content-Type", "Accept", "Origin", "Host", "If-None-Match", "Sec-Fetch-Site", "Range", "Cookie", "X-Y")
VALUES = ("application/json", "", "null", "localhost", "*", '"', "a=b; c", "bytes=1-", "none", "\xff", "gzip", "1, 2")
SCALARS = (None, True, 0, -1, 1e308, "", "dbt", "ingester", "full", "daily", "\x00", "é", "\ud800", "x" * 3000)
FIELDS = ("pipeline", "command", "enableOpenlineage", "enableElementary", "", "jobId", "\ud800")


def junk(chance: random.Random) -> bytes:
    """One request that is mostly HTTP and otherwise anything."""
    target = chance.choice(TARGETS)
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(target) + 1)
        target = target[:at] + chance.choice("%/?&=.;#~aZ0[]|%2F%00") + target[at:]
    headers = [f"{chance.choice(HEADERS)}: {chance.choice(VALUES)}".encode("latin-1") for _ in range(2)]
    fields: dict[str, Any] = {
        chance.choice(FIELDS): chance.choice([*SCALARS, [], {"a": [1]}]) for _ in range(chance.randrange(5))
    }
    body = bytearray(json.dumps(fields, ensure_ascii=chance.random() < 0.5).encode(errors="surrogatepass"))
    for _ in range(chance.choice((0, 0, 1, 20))):
        body.insert(chance.randrange(len(body) + 1), chance.randrange(256))
    return request(chance.choice(METHODS), target, JSON, *headers, body=bytes(body) if chance.random() < 0.8 else None)


async def test_of_500_random_requests_none_is_a_mistake_of_the_gateway(tmp_path: Path, make_api: MakeApi) -> None:
    no_dbt = {"local": {"dbt": {"executable": "/no/dbt"}}}  # what happens to be a trigger ends at once
    api = await make_api(projects.make(tmp_path / "project", settings={"fabrics": no_dbt, "trigger_rate": 100_000}))
    port = api.base.port
    assert port is not None
    chance = random.Random(20260101)
    seen: Counter[int] = Counter()
    for _ in range(25):
        batch = [junk(chance) for _ in range(20)]
        for data, answer in zip(batch, await asyncio.gather(*(send(port, data) for data in batch)), strict=True):
            seen[answer.status] += 1
            assert answer.status < 500, (data, answer)
            assert b"Traceback" not in answer.body, (data, answer)
    assert (await api.call("GET", "/healthz")).status == 200
    assert len(seen) >= 6, f"these requests are too much alike: {seen}"
