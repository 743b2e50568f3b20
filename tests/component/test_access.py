"""Access over HTTP: tokens and scopes, the rate limit, the audit trail and the log."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeApi, MakeGateway
from tests.support import access, projects
from tests.support.gateway import PATH, Answer
from tests.support.raw import JSON, request, send

SLEEPER = "import time; time.sleep(600)"


def is_refused(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.json["code"]) == (status, code), answer


@pytest.mark.parametrize("header", ["Authorization: Bearer {}", "Authorization: bearer  {}", "X-AUTH-TOKEN: {}"])
async def test_a_token_is_accepted_in_either_header(tmp_path: Path, make_api: MakeApi, header: str) -> None:
    project = access.project(tmp_path / "project")
    api = await make_api(project.folder, token=project.tokens["admin"])
    assert api.base.port is not None
    line = header.format(project.tokens["read"]).encode()
    assert (await send(api.base.port, request("GET", PATH, line))).status == 200


async def test_a_valid_token_wins_over_other_credentials(tmp_path: Path, make_api: MakeApi) -> None:
    project = access.project(tmp_path / "project")
    api = await make_api(project.folder, token=project.tokens["admin"])
    assert api.base.port is not None
    basic, good = b"Authorization: Basic eDp5", b"X-AUTH-TOKEN: " + project.tokens["read"].encode()
    assert (await send(api.base.port, request("GET", PATH, basic, good))).status == 200


@pytest.mark.parametrize("header", [b"X-AUTH-TOKEN: anything", b"Authorization: Bearer anything"])
async def test_without_configured_tokens_credentials_are_ignored(
    tmp_path: Path, make_api: MakeApi, header: bytes
) -> None:
    api = await make_api(projects.make(tmp_path / "project"))
    assert api.base.port is not None
    assert (await send(api.base.port, request("GET", PATH, header))).status == 200


async def test_the_order_of_refusals_is_401_403_400_404(tmp_path: Path, make_api: MakeApi) -> None:
    project = access.project(tmp_path / "project", {"enabled": False})
    api = await make_api(project.folder)
    wrong = {"pipeline": "nothing"}
    is_refused(await api.call("POST", PATH, wrong), 401, "unauthorized")
    api.token = project.tokens["read"]
    is_refused(await api.call("POST", PATH, wrong), 403, "insufficient_scope")
    api.token = project.tokens["run"]
    is_refused(await api.call("POST", PATH, wrong), 403, "pipelines_disabled")
    is_refused(await api.call("GET", f"{PATH}?jobId="), 400, "invalid_field")
    is_refused(await api.call("GET", f"{PATH}?jobId=x"), 404, "unknown_job")


async def test_the_audit_trail_survives_a_restart(tmp_path: Path, make_gateway: MakeGateway) -> None:
    """The record names the token that triggered the job and the one that cancelled it, each once."""
    project = access.project(tmp_path / "project")
    projects.write(project.folder / "ingest.py", SLEEPER)
    gateway = make_gateway(project.folder)
    run, admin = ({"X-AUTH-TOKEN": project.tokens[name]} for name in ("run", "admin"))
    job = gateway.call("POST", PATH, {"pipeline": "ingester"}, run).json["jobId"]
    for _ in range(3):  # only the first is recorded
        gateway.call("POST", f"/api/v1/jobs/{job}/cancel", headers=admin)
    answer = gateway.call("GET", f"/api/v1/jobs/{job}?wait=60", headers=run).json
    while answer["phase"] != "ended":
        answer = gateway.call("GET", f"/api/v1/jobs/{job}?wait=60", headers=run).json
    gateway.call("POST", f"/api/v1/jobs/{job}/cancel", headers=run)  # it has ended: this is not recorded
    assert gateway.log.read_text().count('"event": "job cancelled"') == 1
    gateway.kill()
    gateway.start()
    audit = gateway.call("GET", f"/api/v1/jobs/{job}", headers=run).json["audit"]
    assert [(act["action"], act["token"], act["address"]) for act in audit] == [
        ("triggered", "run", "127.0.0.1"),
        ("cancelled", "admin", "127.0.0.1"),
    ]
    assert answer["createdAt"] == audit[0]["at"] < audit[1]["at"] < answer["finishedAt"]


async def test_log_lines_have_the_token_name_and_the_request_id(tmp_path: Path, make_gateway: MakeGateway) -> None:
    project = access.project(tmp_path / "project")
    gateway = make_gateway(project.folder)
    accepted = gateway.call("POST", PATH, {"pipeline": "ingester"}, {"X-AUTH-TOKEN": project.tokens["run"]})
    refused = gateway.call("POST", PATH, {"pipeline": "ingester"}, {"X-AUTH-TOKEN": "pgw_unknown"})
    gateway.stop()
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines()]
    [entry] = [line for line in lines if line["event"] == "job accepted"]
    assert (entry["job"], entry["token"], entry["address"]) == (accepted.json["jobId"], "run", "127.0.0.1")
    assert entry["request"] == accepted.headers["X-Request-Id"]
    [entry] = [line for line in lines if line["event"] == "request refused"]
    assert (entry["code"], entry["address"], entry["path"]) == ("unauthorized", "127.0.0.1", PATH)
    assert entry["request"] == refused.headers["X-Request-Id"]
    assert not re.search("|".join([*project.tokens.values(), "pgw_unknown"]), gateway.log.read_text())


async def test_every_answer_has_its_own_request_id_and_not_the_clients(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(projects.make(tmp_path / "project"))
    mine = {"X-Request-Id": "mine"}
    answers = [await api.call("GET", path, headers=mine) for path in ("/healthz", "/no", PATH, f"{PATH}?jobId=x")]
    ids = {answer.headers["X-Request-Id"] for answer in answers}
    assert len(ids) == 4
    assert all(re.fullmatch(r"[0-9a-f]{12}", one) for one in ids)


async def test_triggers_beyond_the_burst_get_429_with_retry_after(tmp_path: Path, make_api: MakeApi) -> None:
    settings: dict[str, Any] = {"trigger_rate": 0.5, "trigger_burst": 3}
    project = access.project(tmp_path / "project", settings)
    api = await make_api(project.folder, token=project.tokens["run"])
    triggers = [await api.call("POST", PATH, {"pipeline": "dbt"}) for _ in range(6)]
    assert {answer.status for answer in triggers[:3]} <= {202, 409}
    for answer in triggers[3:]:
        is_refused(answer, 429, "too_many_triggers")
        assert "trigger_rate" in answer.json["error"]
        assert answer.headers["Retry-After"] in ("1", "2")
    [job, *_] = [answer.json["jobId"] for answer in triggers if answer.status == 202]
    for _ in range(20):  # polls and cancels are not limited
        assert (await api.call("GET", f"{PATH}?jobId={job}")).status == 200
        assert (await api.call("POST", f"/api/v1/jobs/{job}/cancel")).status in (200, 202)
    api.token = project.tokens["admin"]  # another token has its own limit
    assert (await api.call("POST", PATH, {"pipeline": "dbt"})).status in (202, 409)


async def test_requests_that_the_guard_refuses_do_not_use_up_the_rate_limit(tmp_path: Path, make_api: MakeApi) -> None:
    project = access.project(tmp_path / "project", {"trigger_rate": 0.01, "trigger_burst": 1})
    api = await make_api(project.folder, token=project.tokens["run"])
    assert api.base.port is not None
    token = b"X-AUTH-TOKEN: " + project.tokens["run"].encode()
    for headers in ((JSON,), (JSON, token, b"Origin: null"), (JSON, token, b"Host: x.example"), (token,)):
        assert (await send(api.base.port, request("POST", PATH, *headers, body=b"{}"))).status in (401, 403, 415, 421)
    assert (await api.call("POST", PATH, {"pipeline": "dbt"})).status == 202
