"""What a client sees of a running job: its output as a terminal shows it, and its changes."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.conftest import MakeApi
from tests.support import hung, projects
from tests.support.api import Api, until
from tests.support.gateway import DEADLINE

KEPT = 10_240
WAITING = """
    import pathlib, time
    print("ready", flush=True)
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    print("done")
"""


async def output(api: Api, job: str) -> str:
    return str((await api.poll(job))["output"])


async def is_running(api: Api, job: str) -> bool:
    return bool((await api.poll(job))["phase"] == "ingester")


async def output_of(api: Api) -> str:
    return await output(api, (await api.run(pipeline="ingester"))["jobId"])


@pytest.mark.parametrize("offset", range(3))
async def test_output_is_the_last_10_240_bytes_cut_at_a_character(
    tmp_path: Path, make_api: MakeApi, offset: int
) -> None:
    said = "x" * offset + "zł€ü\n" * 4000
    folder = projects.make(tmp_path / "project", ingester=f'print("x" * {offset} + "zł€ü\\n" * 4000, end="")')
    shown = await output_of(await make_api(folder))
    assert shown == said.encode()[-KEPT:].decode(errors="ignore")
    assert KEPT - 3 < len(shown.encode()) <= KEPT


async def test_short_output_is_complete_from_stdout_and_stderr(tmp_path: Path, make_api: MakeApi) -> None:
    ingester = """
        import sys
        print("to stdout", flush=True)
        print("to stderr", file=sys.stderr, flush=True)
        print("no line end", end="")
    """
    shown = await output_of(await make_api(projects.make(tmp_path / "project", ingester=ingester)))
    assert shown == "to stdout\nto stderr\nno line end"


async def test_output_is_what_a_terminal_shows(tmp_path: Path, make_api: MakeApi) -> None:
    ingester = r"""
        import sys
        sys.stdout.buffer.write(
            b"\x1b[1;32mgreen\x1b[0m \x1b]0;title\x07text\n"
            b"10%\r50%\r100%\n"
            b"bell\x07 nul\x00 tab\there\n"
            b"\x1b[2K\x1b[1Aup\n"
            b"bad \xff byte\r\n"
        )
    """
    shown = await output_of(await make_api(projects.make(tmp_path / "project", ingester=ingester)))
    assert shown == "green text\n100%\nbell nul tab\there\nup\nbad � byte\n"


SECRET = "s3cret-42-value"
IN_PIECES = {
    "colours": "password: \x1b[1ms3cret\x1b[0m-42-\x1b[32mvalue\x1b[0m",
    "NULs": "password: s3c\0ret-42-\0value",
    "UTF-16": "password: s3cret-42-value".encode("utf-16-le").decode(),
    "overwriting": "password: s3cret-00\b\b42-value",
    "a new start of the line": "password: s3cret-42-\r\x1b[Kpassword: s3cret-42\x07-value",
}


@pytest.mark.parametrize("printed", IN_PIECES.values(), ids=IN_PIECES)
async def test_a_secret_printed_in_pieces_is_masked_in_what_is_shown(
    tmp_path: Path, make_api: MakeApi, printed: str
) -> None:
    """On the disk each piece is no secret; rendering would put them together."""
    event = json.dumps({"table": "\x1b[1ms3cret\x1b[0m-42-value", "done": 1, "total": 2})
    text = f"{event}\n{'x' * 10_230}\n{printed}"
    program = f"import sys; sys.stdout.write({text!r}); sys.exit(3)"
    folder = projects.make(tmp_path / "project", ingester=program)
    api = await make_api(folder, {"DB_PASSWORD": SECRET})
    job = (await api.run(pipeline="ingester"))["jobId"]
    polled, whole = await api.poll(job), await api.get(f"/api/v1/jobs/{job}")
    assert polled["output"].endswith("x\npassword: ***")
    assert whole["firstFailure"]["message"].endswith("password: ***")
    assert whole["progress"]["current"] == "***"
    for answer in (polled, whole):
        assert "value" not in json.dumps(answer)


LIKE_EVENTS = [
    '{"data": {"rows": 5}} loaded',
    '{"info": {"status": "FATAL: disk quota exceeded"}} (attempt 2)',
    '{"info": {"name": "flights", "msg": "loaded", "rows": 336776}, "data": {}}',
    '{"data": {"rows": ',
]


async def test_lines_of_an_ingester_that_look_like_dbts_events_stay(tmp_path: Path, make_api: MakeApi) -> None:
    """Also while later steps run and after the end, beside dbt's own events in the same output."""
    ingester = "\n".join(["print('first')", *(f"print({line!r})" for line in LIKE_EVENTS[:-1])])
    ingester += f"\nprint({LIKE_EVENTS[-1]!r}, end='', flush=True)"
    settings = {"enable_openlineage": False}
    api = await make_api(projects.make(tmp_path / "project", ingester=ingester, settings=settings))
    shown = await output(api, (await api.run(pipeline="full", command="deps"))["jobId"])
    assert shown.startswith("\n".join(["first", *LIKE_EVENTS, ""]))
    assert "Running with dbt=" in shown
    assert '"MainReportVersion"' not in shown


async def test_output_is_live_while_the_job_runs(tmp_path: Path, make_api: MakeApi) -> None:
    folder = projects.make(tmp_path / "project", ingester=WAITING)
    api = await make_api(folder)
    job = await api.trigger(pipeline="ingester")

    async def ready() -> bool:
        return "ready\n" in await output(api, job)

    await until(ready, "output of a running job")
    assert (await api.poll(job))["phase"] == "ingester"
    (folder / "go").touch()
    await api.finished(job)
    assert await output(api, job) == "ready\ndone\n"


async def test_polls_of_a_flood_on_a_disk_that_hangs_leave_jobs_their_threads(
    tmp_path: Path, make_api: MakeApi
) -> None:
    """More polls than the default executor has threads, on a host with any number of processors."""
    second = {"ingester": {"command": ["true"]}, "pipelines": {"quick": {"ingester": True}}}
    first = {"ingester": {"command": [sys.executable, "ingest.py"]}}
    settings = {
        "fabrics": {"1": {}, "2": {}},
        "default_fabric": "1",
        "projects": {"first": first, "second": second},
        "default_project": "first",
    }
    folder = projects.make(tmp_path / "project", ingester=WAITING, settings=settings)
    api = await make_api(folder)
    job = await api.trigger(pipeline="ingester")
    await until(lambda: is_running(api, job), "the ingester")
    with hung.mounted(folder / ".pipeline-gateway" / "jobs" / job):
        polls = [asyncio.create_task(api.poll(job), name=f"poll {n}") for n in range(40)]
        async with asyncio.timeout(DEADLINE):
            run = {"fabricId": 2, "projectId": "second", "pipelineName": "quick"}
            answer = await api.call("POST", "/api/trigger/pipeline", run)
            other = await api.finished(answer.json["runId"])
        assert not any(poll.done() for poll in polls)
    assert (other["status"], other["exitCode"]) == ("completed", 0)
    (folder / "go").touch()
    assert {poll["jobId"] for poll in await asyncio.gather(*polls)} == {job}
    await api.finished(job)


async def test_a_flood_of_nuls_is_no_burden_and_what_follows_is_shown(tmp_path: Path, make_api: MakeApi) -> None:
    ingester = """
        import sys
        sys.stdout.buffer.write(bytes(8 << 20))
        print("the end")
    """
    api = await make_api(projects.make(tmp_path / "project", ingester=ingester))
    job = (await api.run(pipeline="ingester"))["jobId"]
    assert await output(api, job) == "the end\n"


async def test_200_megabytes_of_output_neither_fail_the_job_nor_fill_the_disk(
    tmp_path: Path, make_api: MakeApi
) -> None:
    ingester = """
        import sys
        line = b"x" * 99 + b"\\n"
        for _ in range(200):
            sys.stdout.buffer.write(line * 10_000)
        print("the end")
    """
    api = await make_api(projects.make(tmp_path / "project", ingester=ingester, settings={"output_cap": "1MiB"}))
    record = await api.run(pipeline="ingester")
    assert (record["status"], record["exitCode"]) == ("completed", 0)
    assert (await output(api, record["jobId"])).endswith("x\nthe end\n")
    kept = (api.folder / ".pipeline-gateway" / "jobs" / record["jobId"]).glob("output.*")
    assert 0 < sum(file.stat().st_size for file in kept) <= 2**20


async def test_a_wait_answers_when_the_job_changes(tmp_path: Path, make_api: MakeApi) -> None:
    folder = projects.make(tmp_path / "project", ingester=WAITING)
    api = await make_api(folder)
    job = await api.trigger(pipeline="ingester")
    await until(lambda: is_running(api, job), "the ingester")
    tag = (await api.call("GET", f"/api/v1/jobs/{job}")).headers["ETag"]
    asked = asyncio.create_task(
        api.call("GET", f"/api/v1/jobs/{job}?wait=60", headers={"If-None-Match": tag}), name="the question"
    )
    (folder / "go").touch()
    async with asyncio.timeout(DEADLINE):
        answer = await asked
    assert (answer.status, answer.headers["ETag"] != tag) == (200, True)
    assert (await api.finished(job))["status"] == "completed"


async def test_a_wait_without_a_change_answers_304_to_a_matching_etag(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(projects.make(tmp_path / "project", ingester=WAITING))
    job = await api.trigger(pipeline="ingester")
    await until(lambda: is_running(api, job), "the ingester")
    tag = (await api.call("GET", f"/api/v1/jobs/{job}")).headers["ETag"]
    for wait in ("0", "0.1"):
        answer = await api.call("GET", f"/api/v1/jobs/{job}?wait={wait}", headers={"If-None-Match": tag})
        assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", tag)
    assert (await api.call("GET", f"/api/v1/jobs/{job}?wait=0.1")).status == 200


async def test_a_wait_understands_weak_and_listed_etags(tmp_path: Path, make_api: MakeApi) -> None:
    """A proxy that compresses makes each tag weak, and a cache may name several; neither may become a busy loop."""
    folder = projects.make(tmp_path / "project", ingester=WAITING)
    api = await make_api(folder)
    job = await api.trigger(pipeline="ingester")
    await until(lambda: is_running(api, job), "the ingester")
    tag = (await api.call("GET", f"/api/v1/jobs/{job}")).headers["ETag"]
    for known in (f"W/{tag}", f'"another", W/{tag}', "*"):
        answer = await api.call("GET", f"/api/v1/jobs/{job}?wait=0.1", headers={"If-None-Match": known})
        assert (answer.status, answer.headers["ETag"]) == (304, tag), known
    for unknown in ('W/"another"', "nonsense"):
        answer = await api.call("GET", f"/api/v1/jobs/{job}?wait=60", headers={"If-None-Match": unknown})
        assert answer.status == 200, unknown
    asked = asyncio.create_task(
        api.call("GET", f"/api/v1/jobs/{job}?wait=60", headers={"If-None-Match": f"W/{tag}"}), name="the question"
    )
    (folder / "go").touch()
    async with asyncio.timeout(DEADLINE):
        assert (await asked).status == 200


async def test_the_etag_of_an_ended_job_does_not_change(project: Path, make_api: MakeApi) -> None:
    api = await make_api(project)
    job = (await api.run(pipeline="ingester"))["jobId"]
    tags = {(await api.call("GET", f"/api/v1/jobs/{job}?wait=60")).headers["ETag"] for _ in range(2)}
    assert len(tags) == 1
    answer = await api.call("GET", f"/api/v1/jobs/{job}?wait=60", headers={"If-None-Match": tags.pop()})
    assert answer.status == 304


@pytest.mark.parametrize("wait", ["61", "-1", "nan", "inf", "soon", "", "1&wait=2"])
async def test_a_wait_that_is_not_a_number_up_to_60_is_refused_by_name(
    project: Path, make_api: MakeApi, wait: str
) -> None:
    answer = await (await make_api(project)).call("GET", f"/api/v1/jobs/x?wait={wait}")
    assert answer.status == 400
    assert "'wait'" in answer.json["error"]
