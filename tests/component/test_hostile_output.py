"""Output of pipelines is shown without escapes and control characters, in every answer and in the log."""

from __future__ import annotations

import http.client
import json
import os
import pty
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from runners.output import terminal_text
from tests.conftest import MakeApi
from tests.support import access, projects
from tests.support.gateway import COMMAND, DEADLINE, PATH

# C0 except tab and line feed, DEL, and C1: they move the cursor, ring, open links or change the title.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
HOSTILE = (
    "\x1b[2J\x1b[31mred\x1b[0m\x1b]0;title\x07"
    "\x1b]8;;http://page.example\x1b\\link\x1b]8;;\x1b\\\x9b31m\x85\x90q\x9c\x00\x08\x7f<script>"
)
SHOWN = "<script>"


def strings(value: Any) -> list[str]:
    """Every text in an answer."""
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in (key, *strings(item))]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


async def clean(api: Any, job_id: str, *, shown: int) -> None:
    """No answer about the job has a control character, and at least `shown` texts have the rest of the output."""
    answers = [await api.get(path) for path in (f"{PATH}?jobId={job_id}", PATH, f"/api/v1/jobs/{job_id}")]
    found = [text for answer in answers for text in strings(answer)]
    assert [text for text in found if CONTROL.search(text)] == []
    assert sum(SHOWN in text for text in found) >= shown


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
async def test_escapes_that_an_ingester_prints_are_removed_from_answers(
    tmp_path: Path, make_api: MakeApi, encoding: str
) -> None:
    line = json.dumps({"table": HOSTILE, "done": 1, "total": 2})
    printed = f"{line}\n{HOSTILE}\n{HOSTILE}".encode(encoding)
    program = f"import sys; sys.stdout.buffer.write({printed!r}); sys.exit(3)"
    api = await make_api(projects.make(tmp_path / "project", ingester=program))
    job_id = (await api.run(pipeline="ingester"))["jobId"]
    await clean(api, job_id, shown=3)
    record = await api.get(f"/api/v1/jobs/{job_id}")
    assert record["firstFailure"]["message"].endswith(SHOWN)
    assert SHOWN in record["progress"]["current"]


async def test_escapes_in_a_dbt_error_are_removed_from_answers(tmp_path: Path, make_api: MakeApi) -> None:
    folder = projects.make(tmp_path / "project", settings={"enable_openlineage": False})
    bad = "{{ config(materialized='table') }}" + f"select error('{HOSTILE.replace(chr(0), '')}')"
    projects.write(folder / "transform/models/evens.sql", bad)
    api = await make_api(folder)
    record = await api.run(pipeline="dbt", command="run")
    assert (record["status"], record["exitCode"]) == ("completed", 1), record
    assert SHOWN in record["firstFailure"]["message"]
    await clean(api, record["jobId"], shown=2)


def test_escapes_in_a_request_do_not_reach_a_terminal_with_the_log(tmp_path: Path) -> None:
    project = access.project(tmp_path / "project")
    watched, terminal = pty.openpty()
    environment = {**os.environ, "PORT": "0"}
    with subprocess.Popen([COMMAND, "serve"], cwd=project.folder, env=environment, stderr=terminal) as gateway:
        try:
            os.close(terminal)
            [port] = re.findall(r"port=(\d+)", terminal_text(_log_line(watched, "serving")))
            connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=DEADLINE)
            connection.request("GET", "/%1b%5b2J%c2%9b31m%1b%5d0;title%07")
            assert connection.getresponse().status == 401
            connection.close()
            line = _log_line(watched, "request refused")
            for hostile in ("\x1b[2J", "\x9b", "\x07"):
                assert hostile not in line
            assert "title" in line
        finally:
            gateway.kill()
            os.close(watched)


def _log_line(terminal: int, event: str) -> str:
    """The log line of an event, as the terminal receives it."""
    seen = ""
    while not (line := re.search(rf"^.*{event}.*\n", seen, re.MULTILINE)):
        seen += os.read(terminal, 4096).decode()
    return line[0]
