"""The commands for the jobs of a running gateway, as a person or a script calls them."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import MakeGateway
from tests.support import access, damage, projects
from tests.support.command import Done, run, says
from tests.support.forks import SERVER, Fork
from tests.support.gateway import COMMAND, DEADLINE, Gateway, wait_for
from tests.support.ports import free_port

FAILED, REFUSED, UNREACHABLE, INTERRUPTED, USAGE, CONFIGURATION = 125, 75, 69, 130, 2, 78
LINES = 400
# Prints numbered lines, half of them at once and half once the file `go` is there.
PRINTS = f"""
    import pathlib, time
    for number in range({LINES}):
        if number == {LINES // 2}:
            print("half", flush=True)
            while not pathlib.Path("go").exists():
                time.sleep(0.01)
        print("line", number, flush=True)
"""


@pytest.fixture
def gateway(tmp_path: Path, make_gateway: MakeGateway) -> Gateway:
    """A gateway whose ingester does what the file `how` says, on an address that a restart keeps."""
    return make_gateway(damage.project(tmp_path / "project"), {"PORT": str(free_port())})


def told(gateway: Gateway, how: str) -> Gateway:
    (gateway.folder / "how").write_text(how)
    return gateway


def call(gateway: Gateway, *arguments: str, **environment: str) -> Done:
    """Run a command that speaks to the gateway."""
    return run(*arguments, cwd=gateway.folder, PIPELINE_GATEWAY_SERVER=gateway.base, **environment)


@contextmanager
def running(gateway: Gateway, *arguments: str) -> Iterator[tuple[Fork, Path, Path]]:
    """A command that goes on, with the files of what it prints to stdout and stderr."""
    stdout, stderr = gateway.folder / "stdout", gateway.folder / "stderr"
    environment = {**os.environ, "PIPELINE_GATEWAY_SERVER": gateway.base}
    process = SERVER.fork("gateway.cli.main", arguments, gateway.folder, environment, stderr, stdout)
    try:
        yield process, stdout, stderr
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait(DEADLINE)


def test_trigger_prints_the_id_of_its_job_and_nothing_else_on_stdout(gateway: Gateway) -> None:
    done = call(told(gateway, "0"), "trigger", "ingester")
    says(done, 0)
    assert gateway.finished(done.stdout.strip())["exitCode"] == 0


def test_retry_does_a_failed_job_again_and_ends_as_it_does(gateway: Gateway) -> None:
    failed = told(gateway, "7").run(pipeline="ingester")["jobId"]
    done = call(told(gateway, "0"), "retry", failed)
    says(done, 0)
    assert gateway.finished(done.stdout.strip())["exitCode"] == 0
    says(call(gateway, "retry", done.stdout.strip()), REFUSED, "succeeded")
    says(call(told(gateway, "3"), "retry", "--from", "start", "--wait", failed), 3)


@pytest.mark.parametrize("how", ["--wait", "--follow"])
@pytest.mark.parametrize(("end", "code"), [("0", 0), ("7", 7), ("kill", FAILED)])
def test_the_exit_code_is_the_jobs_or_125(gateway: Gateway, how: str, end: str, code: int) -> None:
    done = call(told(gateway, end), "trigger", how, "ingester")
    says(done, code)
    assert (f"how: {end}" in done.stdout.splitlines()) == (how == "--follow")
    says(call(gateway, "wait"), code)


def test_options_may_stand_before_and_after_words(tmp_path: Path, make_gateway: MakeGateway) -> None:
    parameters = {"a": {"type": "string", "option": "--a"}, "b": {"type": "integer", "option": "--b"}}
    load = {"ingester": True, "parameters": parameters}
    shop = {"ingester": {"command": [sys.executable, "ingest.py"]}, "pipelines": {"load": load}}
    prints = "import sys; print(sys.argv[1:])"
    gateway = make_gateway(projects.make(tmp_path, ingester=prints, settings={"projects": {"shop": shop}}))
    done = call(gateway, "trigger", "shop:load", "a=1", "--follow", "b=2", "--fabric=local")
    says(done, 0, "['--a=1', '--b=2']")


def test_artifacts_are_listed_printed_and_saved(gateway: Gateway) -> None:
    job = call(told(gateway, "0"), "trigger", "ingester", "--wait", "--json").stdout
    job = json.loads(job)["jobId"]
    listed = call(gateway, "artifacts", job)
    says(listed, 0, "ARTIFACT\tBYTES\tTYPE\n", "ingester/command.json\t", "\tapplication/json\n")
    [one] = json.loads(call(gateway, "artifacts", "--json", job).stdout)["artifacts"]
    printed = call(gateway, "artifacts", job, "ingester/command.json")
    says(printed, 0)
    assert json.loads(printed.stdout)["argvs"][0][-1] == "ingest.py"
    says(call(gateway, "artifacts", job, "ingester/command.json", "-o", "saved"), 0)
    assert len((gateway.folder / "saved").read_bytes()) == one["bytes"]
    says(call(gateway, "artifacts", job, "ingester/nothing.json", "-o", "none"), REFUSED, "'nothing.json' not found")
    assert not (gateway.folder / "none").exists()
    says(call(gateway, "artifacts", job, "ingester/command.json", "-o", "/no/folder"), 1, "/no/folder")
    says(call(gateway, "artifacts", job, "command.json"), USAGE, "'command.json' is no STEP/NAME")


# dbt, as far as its log: a quick model and a slow one that fails
LOGS = """
    #!/bin/sh
    event() { printf '{"data": {%s}, "info": {"name": "%s", "msg": ""}}\\n' "$2" "$1"; }
    node() { printf '"node_info": {"unique_id": "model.small.%s", "node_name": "%s", ' $1 $1
             printf '"resource_type": "model", "node_status": "%s"}' $2; }
    event MainReportVersion
    event LogModelResult "$(node quick success), \\"execution_time\\": 1.5"
    event LogModelResult "$(node slow error), \\"execution_time\\": 75"
    event RunResultError "$(node slow None), \\"msg\\": \\"no such table\\""
    exit 1
"""


def test_one_command_shows_which_nodes_were_slow(tmp_path: Path, make_gateway: MakeGateway) -> None:
    projects.write(tmp_path / "dbt", LOGS)
    (tmp_path / "dbt").chmod(0o755)
    settings = {"fabrics": {"local": {"dbt": {"executable": str(tmp_path / "dbt")}}}, "enable_openlineage": False}
    gateway = make_gateway(projects.make(tmp_path / "project", settings=settings))
    says(call(gateway, "trigger", "dbt", "--command=build", "--wait"), 1)
    quick, slow = "success\t1.5 s\tquick\tbuild\t\n", "error\t1:15\tslow\tbuild\tno such table\n"
    assert call(gateway, "nodes", "--slowest").stdout == f"STATUS\tTOOK\tNODE\tSTEP\tMESSAGE\n{slow}{quick}"
    assert call(gateway, "nodes", "--status", "error,fail").stdout.splitlines(keepends=True)[1:] == [slow]
    assert json.loads(call(gateway, "nodes", "--json", "--type=seed").stdout) == {"nodes": []}
    says(call(gateway, "nodes", "--step", "test"), REFUSED, "Step 'test' not found")
    says(call(gateway, "nodes", "--sql", "nope"), USAGE, "no node 'nope'")
    says(call(gateway, "nodes", "--sql", "slow"), 1, "The SQL of slow is not known")
    assert json.loads(call(gateway, "nodes", "--sql", "slow", "--json").stdout) == {
        "compiledSql": None,
        "failuresSql": None,
    }
    [build] = gateway.state.glob("jobs/*/*-build")
    slow_one = {"unique_id": "model.small.slow", "resource_type": "model", "compiled_code": "\nselect 1\n"}
    (build / "artifacts/manifest.json").write_text(json.dumps({"nodes": {"model.small.slow": slow_one}}))
    for node in ("slow", "model.small.slow"):
        assert call(gateway, "nodes", "--sql", node).stdout == "select 1\n"


def test_refusals_exit_75_with_the_services_own_sentence(gateway: Gateway) -> None:
    says(call(gateway, "trigger", "nope"), REFUSED, "`nope` not found", "ingester")
    says(call(gateway, "status", "none-1"), REFUSED, "'none-1' not found")
    job = call(told(gateway, "wait"), "trigger", "ingester").stdout.strip()
    says(call(gateway, "trigger", "ingester"), REFUSED, job)
    says(call(gateway, "cancel", job), 0, "is being cancelled")
    says(call(gateway, "wait", job), FAILED, "cancelled")
    says(call(gateway, "cancel", job), 0, "has ended: cancelled")
    says(call(gateway, "status", job), 0, "cancelled", "stopped: 1 process by SIGTERM in ")


def test_a_paused_pipeline_is_refused_until_it_is_unpaused(gateway: Gateway) -> None:
    told(gateway, "0")
    says(call(gateway, "pause", "ingester"), 0, ":ingester is paused since")
    assert re.search(r"^\w+:ingester\t.*\tsince ", call(gateway, "pipelines").stdout, re.MULTILINE)
    refused = call(gateway, "trigger", "ingester")
    says(refused, REFUSED, "is paused")
    [unpause] = re.findall(r"`pipeline-gateway (unpause \w+:ingester)`", refused.stderr)
    done = call(gateway, *unpause.split(), "--json")
    assert (done.returncode, json.loads(done.stdout)["paused"]) == (0, False)
    says(call(gateway, "trigger", "ingester", "--wait"), 0)
    says(call(gateway, "pause", "nope"), USAGE, "pipeline-gateway pipelines")


def test_a_name_that_two_projects_have_is_not_guessed(tmp_path: Path, make_gateway: MakeGateway) -> None:
    settings = {"projects": {"shop": {}, "other": {}}, "default_project": "shop"}
    gateway = make_gateway(projects.make(tmp_path, settings=settings))
    says(call(gateway, "pause", "dbt"), USAGE, "2 projects", ":dbt")
    says(call(gateway, "pause", "other:dbt"), 0, "other:dbt is paused")


def test_open_prints_the_url_of_a_job_on_the_page(tmp_path: Path) -> None:
    server = ("--server", "https://gateway.example/")
    says(run("open", "dbt-1-abc", *server, cwd=tmp_path), 0, "https://gateway.example/#/jobs/dbt-1-abc\n")
    assert json.loads(run("open", "--json", *server, cwd=tmp_path).stdout) == {"url": "https://gateway.example/"}


def test_a_gateway_that_does_not_answer_exits_69_and_is_named(tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    says(run("status", "--server", address, cwd=tmp_path), UNREACHABLE, address, "pipeline-gateway serve")


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        (["trigger", "ingester", "month"], "NAME=VALUE"),
        (["trigger"], "pipeline-gateway trigger full"),
        (["status", "--server", "localhost"], "http://localhost:3000"),
        (["list", "--since", "yesterday"], "7d"),
        (["logs", "--follow", "--tail", "10"], "--tail"),
    ],
)
def test_a_wrong_command_line_exits_2_and_shows_a_right_one(
    tmp_path: Path, arguments: list[str], mentions: str
) -> None:
    says(run(*arguments, cwd=tmp_path), USAGE, mentions)


@pytest.mark.parametrize("command", [["trigger", "ingester", "--follow"], ["logs", "--follow"]])
def test_a_follower_prints_each_line_once_across_a_kill_of_the_gateway(
    tmp_path: Path, make_gateway: MakeGateway, command: list[str]
) -> None:
    gateway = make_gateway(projects.make(tmp_path / "project", ingester=PRINTS), {"PORT": str(free_port())})
    if command[0] == "logs":
        gateway.trigger(pipeline="ingester")
    with running(gateway, *command) as (process, stdout, _):
        wait_for(lambda: stdout.exists() and "half\n" in stdout.read_text(), "half of the output")
        gateway.kill()
        (gateway.folder / "go").touch()
        gateway.start()
        assert process.wait(DEADLINE) == 0
        printed = [line for line in stdout.read_text().splitlines() if line.startswith("line ")]
    assert printed == [f"line {number}" for number in range(LINES)]


def test_an_interrupted_follower_exits_130_and_the_job_goes_on(gateway: Gateway) -> None:
    with running(told(gateway, "wait"), "trigger", "ingester", "--follow") as (process, stdout, stderr):
        wait_for(lambda: stdout.exists() and "how: wait" in stdout.read_text(), "output")
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == INTERRUPTED
        assert "pipeline-gateway cancel" in stderr.read_text()
    (gateway.folder / "go").touch()
    says(call(gateway, "wait"), 7)


@pytest.mark.parametrize(("answer", "outcome"), [("y\n", FAILED), ("n\n", 7)])
def test_ctrl_c_on_a_terminal_asks_whether_to_cancel(gateway: Gateway, answer: str, outcome: int) -> None:
    with on_terminal(told(gateway, "wait"), "trigger", "ingester", "--wait") as (process, terminal):
        read_until(terminal, "ingester  ")  # the command follows the job, and so hears the key
        os.write(terminal, b"\x03")
        read_until(terminal, "Cancel the job?")
        os.write(terminal, answer.encode())
        read_until(terminal, "cancel")
        assert process.wait(DEADLINE) == INTERRUPTED
    if answer == "n\n":
        (gateway.folder / "go").touch()
    says(call(gateway, "wait"), outcome)


def test_a_bare_trigger_on_a_terminal_shows_what_can_be_triggered(gateway: Gateway) -> None:
    with on_terminal(gateway, "trigger") as (process, terminal):
        assert "small:ingester" in read_until(terminal, "small:full")
        assert process.wait(DEADLINE) == USAGE


@contextmanager
def on_terminal(gateway: Gateway, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The installed command on a terminal of its own."""
    terminal, of_command = pty.openpty()
    environment = {**os.environ, "PIPELINE_GATEWAY_SERVER": gateway.base, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", str(COMMAND), *arguments],
        cwd=gateway.folder,
        env=environment,
        stdin=of_command,
        stdout=of_command,
        stderr=of_command,
    )
    os.close(of_command)
    try:
        yield process, terminal
    finally:
        process.kill()
        process.wait(DEADLINE)
        os.close(terminal)


def read_until(terminal: int, word: str) -> str:
    """What a terminal shows until this word."""
    shown = ""
    while word not in shown:
        shown += os.read(terminal, 4096).decode(errors="replace")
    return shown


def test_list_filters_jobs_and_prints_tabs_in_a_pipe(gateway: Gateway) -> None:
    good = call(told(gateway, "0"), "trigger", "ingester", "--wait", "--json")
    bad = call(told(gateway, "7"), "trigger", "ingester", "--wait", "--json")
    ids = [json.loads(done.stdout)["jobId"] for done in (good, bad)]
    head, *rows = call(gateway, "list", "--since", "1h").stdout.splitlines()
    assert head.split("\t")[:2] == ["JOB", "OUTCOME"]
    assert [row.split("\t")[:2] for row in rows] == [[ids[1], "errors"], [ids[0], "succeeded"]]
    found = json.loads(call(gateway, "list", "--outcome", "errors,failed", "--json").stdout)
    assert [job["jobId"] for job in found["jobs"]] == [ids[1]]
    assert call(gateway, "list", "-n", "1").stdout.count("\n") == 2


def test_a_trigger_with_a_time_limit_fails_once_it_has_passed(gateway: Gateway) -> None:
    said = call(told(gateway, "wait"), "trigger", "ingester", "--timeout", "0.5", "--wait")
    says(said, FAILED, "its time limit of 0.5 s")


def test_list_shows_triggers_that_were_refused(gateway: Gateway) -> None:
    call(told(gateway, "wait"), "trigger", "ingester")
    refused = call(gateway, "trigger", "ingester")
    head, row = call(gateway, "list", "--status", "refused", "--pipeline", "ingester").stdout.splitlines()
    assert head.split("\t") == ["CREATED", "PIPELINE", "CODE", "WHY"]
    _, pipeline, code, why = row.split("\t")
    assert (pipeline, code, f"{why}\n") == ("ingester", "already_running", refused.stderr)


def test_status_shows_the_newest_job_and_why_it_went_wrong(gateway: Gateway) -> None:
    says(call(gateway, "status"), USAGE, "no job yet")
    call(told(gateway, "7"), "trigger", "ingester", "--wait")
    says(call(gateway, "status"), 0, "errors, exit code 7", "ingester", "how: 7")
    record = json.loads(call(gateway, "status", "--json").stdout)
    assert record["exitCode"] == 7
    assert call(gateway, "logs", "--step", "ingester").stdout.endswith("how: 7\n")
    assert call(gateway, "logs", "--tail", "7").stdout.endswith("\nhow: 7\n")


def test_the_token_comes_from_an_option_the_environment_or_a_file(tmp_path: Path, make_gateway: MakeGateway) -> None:
    guarded = access.project(tmp_path / "project")
    gateway, token = make_gateway(guarded.folder), guarded.tokens["read"]
    says(call(gateway, "list"), REFUSED, "token")
    says(call(gateway, "list", PIPELINE_GATEWAY_TOKEN=token), 0)
    (guarded.folder / "token").write_text(f"{token}\n")
    says(call(gateway, "list", "--token-file", "token"), 0)
    file = guarded.folder / "home/pipeline-gateway/client.yaml"
    projects.write(file, f"server: {gateway.base}\ntoken: {token}\n")
    home = {"XDG_CONFIG_HOME": str(guarded.folder / "home")}
    file.chmod(0o644)
    says(run("list", cwd=tmp_path, **home), CONFIGURATION, f"chmod 600 {file}")
    file.chmod(0o600)
    says(run("list", cwd=tmp_path, **home), 0)
    projects.write(file, "sever: http://localhost\n")
    says(run("list", cwd=tmp_path, **home), CONFIGURATION, "sever", "server: http://localhost:3000")


def test_a_shell_gets_its_completion(tmp_path: Path) -> None:
    done = subprocess.run(
        [COMMAND], env={**os.environ, "_PIPELINE_GATEWAY_COMPLETE": "bash_source"}, capture_output=True, check=True
    )
    assert b"complete" in done.stdout


def test_the_service_imports_nothing_of_the_client() -> None:
    """structlog imports rich where that is installed."""
    script = "import sys, gateway.cli.main, gateway.cli.serve, gateway.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "gateway.app" in loaded
    assert [name for name in loaded if name.startswith(("gateway.cli.client", "gateway.client"))] == []
