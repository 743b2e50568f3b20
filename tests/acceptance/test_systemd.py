"""The service under a real systemd: a booted Debian, installed by the manual's own commands.

On a host with cgroups of version 1, a systemd in a container does not enforce the unit's limits of memory and tasks;
there these tests only show that the limits are set.
"""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import yaml

from tests.conftest import Tell
from tests.support import manual
from tests.support.gateway import DEADLINE, PATH, wait_for
from tests.support.installed import FOLDER, SETTINGS, UNIT, UNITS, Installed

RESTARTS = 5
TOKENS = "/etc/pipeline-gateway/tokens"
COPY = "/run/pipeline-gateway.callers"
TOKEN = ("/opt/pipeline-gateway/bin/pipeline-gateway", "token")
LIMIT = 10.0  # seconds a stop may take
GOAL_BROKEN = 1  # requests that a restart may break
GOAL_SERVING = 0.3  # seconds from SIGKILL to serving


def test_the_manuals_five_install_commands_serve_at_once_and_after_a_boot(service: Installed) -> None:
    assert len(manual.block("service.md", "Install").splitlines()) <= 5
    assert service.shown("ActiveState", "SubState", "Type", "StatusText") == [
        "active",
        "running",
        "notify",
        f"Serving on port {service.port}",
    ]
    enabled = service.machine.run("systemctl", "is-enabled", UNIT, "pipeline-gateway.socket").split()
    assert enabled == ["enabled", "enabled"]
    assert service.machine.run("systemctl", "--failed", "--plain", "--no-legend") == ""
    for address in ("127.0.0.1", "::1"):
        socket.create_connection((address, service.port), timeout=DEADLINE).close()
    assert service.call("GET", "/readyz").status == 200
    job = service.waiting()
    service.go()
    assert service.ended_right(job)


def test_the_manuals_other_commands_work_as_written(service: Installed) -> None:
    machine = service.machine
    assert (
        manual.block("service.md", "What your pipelines need").splitlines()[0].startswith("install -D")
    )  # the drop-ins, which the installation ran
    assert FOLDER in machine.run("systemctl", "show", UNIT, "-p", "ReadWritePaths")
    *check, timer, log = manual.block("service.md", "Check, timer and log").splitlines()
    assert "STATE_DIRECTORY" in check[0]
    machine.shell(timer)
    assert "04:30" in machine.run("systemctl", "cat", "pipeline-trigger@full.timer")
    assert machine.run("systemctl", "is-active", "pipeline-trigger@full.timer") == "active\n"
    assert '"event": "serving"' in machine.shell(log)


def test_restarts_during_a_job_refuse_no_client_and_the_job_completes(service: Installed, tell: Tell) -> None:
    job = service.waiting()
    with polling(service, f"{PATH}?jobId={job}", clients=4) as answers:
        for _ in range(RESTARTS):
            before = answers["200"]
            service.machine.run("systemctl", "restart", UNIT)
            wait_for(lambda before=before: answers["200"] > before + 50, "answers after the restart")
    service.go()
    assert service.ended_right(job)
    broken = sum(answers.values()) - answers["200"]
    tell(f"{RESTARTS} restarts, four polling clients: {dict(answers)}; goal: {GOAL_BROKEN} broken a restart")
    assert set(answers) <= {"200", "broken"}
    assert broken <= 10 * GOAL_BROKEN * RESTARTS


@contextmanager
def polling(service: Installed, path: str, clients: int) -> Iterator[Counter[str]]:
    """Clients that poll in a loop, each request on its own connection as with curl; yields the counted results."""
    counts: Counter[str] = Counter()
    over = threading.Event()

    def poll() -> None:
        while not over.is_set():
            try:
                what = str(service.call("GET", path).status)
            except ConnectionRefusedError:
                what = "refused"
            except (OSError, http.client.HTTPException):
                what = "broken"
            with lock:
                counts[what] += 1

    lock = threading.Lock()
    threads = [threading.Thread(target=poll) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: counts["200"] > 0, "the first answer")
        yield counts
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_stop_leaves_the_job_running_and_the_next_start_adopts_it(service: Installed, tell: Tell) -> None:
    job = service.waiting()
    step = service.started(job)
    since = time.monotonic()
    service.machine.run("systemctl", "stop", UNIT)
    took = time.monotonic() - since
    tell(f"systemctl stop with a job running: {took:.2f} s")
    assert took < LIMIT
    assert service.shown("ActiveState", "MainPID") == ["inactive", "0"]
    already = len(service.output(job))
    wait_for(lambda: len(service.output(job)) > already, "output of a step that outlives the service")
    service.machine.run("systemctl", "start", UNIT)
    assert service.poll(job)["phase"] == "ingester"
    assert service.started(job) == step
    assert len([command for command in service.processes().values() if "shim" in command]) == 1
    service.go()
    assert service.ended_right(job)
    wait_for(
        lambda: [str(pid) for pid in service.processes()] == service.shown("MainPID"), "the end of all but the service"
    )


def test_a_request_starts_a_stopped_service(service: Installed) -> None:
    """A stopped socket stops both."""
    service.machine.run("systemctl", "stop", UNIT)
    assert service.call("GET", PATH).status == 200
    assert service.shown("ActiveState") == ["active"]
    service.machine.run("systemctl", "stop", "pipeline-gateway.socket")
    assert service.shown("ActiveState") == ["inactive"]
    with pytest.raises(ConnectionRefusedError):
        service.call("GET", PATH)
    service.machine.run("systemctl", "start", "pipeline-gateway")
    assert service.call("GET", PATH).status == 200


def test_a_killed_service_serves_again_and_the_job_completes(service: Installed, tell: Tell) -> None:
    job = service.waiting()
    took = []
    for _ in range(RESTARTS):
        killed = service.signal(signal.SIGKILL)
        since = time.monotonic()
        wait_for(lambda: answers(service), "an answer")
        took.append(time.monotonic() - since)
        assert service.shown("MainPID") != [str(killed)]
    tell(f"SIGKILL to an answer: median {sorted(took)[len(took) // 2]:.2f} s of {len(took)}, goal {GOAL_SERVING} s")
    service.go()
    assert service.ended_right(job)


def answers(service: Installed) -> bool:
    """Whether a request is answered; while no service runs it waits in systemd's socket."""
    try:
        return service.call("GET", PATH).status == 200
    except ConnectionRefusedError:
        raise
    except (OSError, http.client.HTTPException):  # the killed process had accepted it
        return False


def test_a_hanging_service_is_restarted_by_the_watchdog(service: Installed) -> None:
    service.drop_in("watchdog", "[Service]\nWatchdogSec=5s\n")
    service.machine.run("systemctl", "restart", UNIT)
    job = service.waiting()
    hung = service.signal(signal.SIGSTOP)
    assert service.call("GET", PATH).status == 200  # waits for the next process
    assert service.shown("MainPID") != [str(hung)]
    assert "Watchdog timeout" in service.journal()
    service.go()
    assert service.ended_right(job)


def test_a_timers_unit_ends_with_its_job_and_has_its_exit_code(service: Installed) -> None:
    machine, unit = service.machine, "pipeline-trigger@ingester.service"
    machine.write(f"{UNITS}/test-told.service", f"[Service]\nType=oneshot\nExecStart=touch {FOLDER}/told\n")
    service.drop_in("told", "[Unit]\nOnFailure=test-told.service\n", unit)
    timer = "pipeline-trigger@ingester.timer"
    service.drop_in("soon", "[Timer]\nOnCalendar=\nOnActiveSec=1s\nRandomizedDelaySec=0\n", timer)
    machine.run("systemctl", "start", timer)
    [job] = wait_for(service.active, "the job of the timer")
    assert machine.run("systemctl", "show", unit, "-P", "ActiveState") == "activating\n"
    assert not (service.folder / "told").exists()
    service.go()
    assert service.ended_right(job)
    wait_for((service.folder / "told").exists, "the unit of OnFailure=")
    assert machine.run("systemctl", "show", unit, "-P", "Result") == "exit-code\n"
    assert machine.run("systemctl", "show", unit, "-P", "ExecMainStatus") == "7\n"
    assert f"{job}: errors, exit code 7" in machine.run("journalctl", "-u", unit, "-o", "cat")
    machine.run("systemctl", "stop", timer)
    machine.shell(f"rm {UNITS}/test-told.service {FOLDER}/told")


def test_a_timers_unit_fails_if_its_trigger_is_refused(service: Installed) -> None:
    machine, unit = service.machine, "pipeline-trigger@lakehouse:ingester.service"
    job = service.waiting()
    assert machine.try_run("systemctl", "start", unit).returncode != 0
    assert machine.run("systemctl", "show", unit, "-P", "ExecMainStatus") == "75\n"
    assert job in machine.run("journalctl", "-u", unit, "-o", "cat")  # the job that it conflicts with


def test_the_journal_has_a_json_object_per_line(service: Installed) -> None:
    job = service.waiting()
    service.signal(signal.SIGKILL)
    wait_for(lambda: answers(service), "an answer")
    lines = service.machine.run("journalctl", "_SYSTEMD_UNIT=pipeline-gateway.service", "-o", "cat").splitlines()
    said = [json.loads(line) for line in lines]
    assert all({"event", "level", "timestamp"} <= set(line) for line in said)
    assert any(line["event"] == "job recovered" and line["job"] == job for line in said)
    service.go()
    assert service.ended_right(job)


def test_a_reload_takes_up_the_configuration_while_a_job_runs(service: Installed) -> None:
    """One that is refused leaves the service running, with a status that says so."""
    job, process = service.waiting(), service.shown("MainPID")
    added = {**SETTINGS, "default_project": "lakehouse", "projects": {**SETTINGS["projects"], "added": {}}}
    service.configure(yaml.safe_dump(added))
    service.machine.run("systemctl", "reload", UNIT)
    wait_for(lambda: "added" in projects(service), "the new project")
    service.configure("enabled: perhaps\n")
    service.machine.run("systemctl", "reload", UNIT)
    refused = ["active", f"Serving on port {service.port}; the last reload was refused, see the log"]
    wait_for(lambda: service.shown("ActiveState", "StatusText") == refused, "the refusal")
    assert "added" in projects(service)
    service.go()
    assert service.ended_right(job)
    assert service.shown("MainPID") == process


def projects(service: Installed) -> set[str]:
    """The ids of all projects."""
    return {one["projectId"] for one in service.call("GET", "/api/v1/pipelines").json["pipelines"]}


def test_a_reload_takes_up_the_tokens_of_roots_file_or_keeps_the_old(service: Installed) -> None:
    """Without the file there are none. A step can't change what lets callers in."""
    machine, process = service.machine, service.shown("MainPID")
    try:
        first = made_token(service, "first")
        reload(service, {"": 401, first: 200})
        second = made_token(service, "second")
        machine.run(*TOKEN, "revoke", "first", "--file", TOKENS)
        reload(service, {"": 401, first: 401, second: 200})
        machine.write(TOKENS, machine.path(TOKENS).read_text()[:-9])
        machine.run("systemctl", "reload", UNIT)
        wait_for(lambda: "reload was refused" in service.shown("StatusText")[0], "the refusal")
        machine.run("rm", TOKENS)
        machine.run("mkdir", TOKENS)
        assert machine.try_run("systemctl", "reload", UNIT).returncode != 0
        assert statuses(service, "", first, second) == [401, 401, 200]
        assert machine.run("stat", "-c", "%U %G %a", COPY) == "root pipeline-gateway 440\n"
        machine.run(*as_a_step(service), "cat", COPY)
        for change in (f"chmod a+w {COPY}", f"mv {COPY} {COPY}.old", f"touch {COPY}.new"):
            assert machine.try_run(*as_a_step(service), "sh", "-c", change).returncode != 0, change
        assert machine.try_run(*as_a_step(service), "cat", TOKENS).returncode != 0
    finally:
        machine.run("rm", "-rf", TOKENS)
    reload(service, {"": 200})
    assert service.shown("ActiveState", "MainPID") == ["active", *process]


def made_token(service: Installed, name: str, file: str = TOKENS) -> str:
    """A token that root adds to a file."""
    return service.machine.run(*TOKEN, "create", name, "--scope", "read", "--file", file).strip()


def reload(service: Installed, after: dict[str, int]) -> None:
    """Reload the service, until each of these tokens is answered with its status."""
    service.machine.run("systemctl", "reload", UNIT)
    wait_for(lambda: statuses(service, *after) == list(after.values()), f"the answers {after}")


def statuses(service: Installed, *texts: str) -> list[int]:
    """What requests with these tokens are answered; an empty one is not sent."""
    return [service.call("GET", PATH, headers={"X-AUTH-TOKEN": text} if text else {}).status for text in texts]


def as_a_step(service: Installed) -> list[str]:
    """What begins a command that has the user and sees the files of the service's steps."""
    user = ["setpriv", "--reuid=pipeline-gateway", "--regid=pipeline-gateway", "--clear-groups"]
    return ["nsenter", f"--target={service.shown('MainPID')[0]}", "--mount", "--", *user]


def test_a_drop_ins_credential_counts_and_a_stop_removes_the_copy(service: Installed) -> None:
    """As drop-ins for earlier versions of the unit have it."""
    machine = service.machine
    try:
        of_the_file, passed = made_token(service, "of-the-file"), made_token(service, "passed", "/srv/passed")
        service.drop_in("passed", "[Service]\nLoadCredential=tokens:/srv/passed\n")
        machine.run("systemctl", "restart", UNIT)
        assert statuses(service, of_the_file, passed) == [401, 200]
        machine.run("systemctl", "stop", UNIT)
        assert machine.shell(f"ls {COPY}* || true") == ""
    finally:
        machine.run("rm", "-f", TOKENS, "/srv/passed")


def test_an_invalid_configuration_stops_the_service_and_closes_the_port(service: Installed) -> None:
    since = service.position()
    service.configure("enabled: perhaps\n")
    with polling(service, PATH, clients=2) as answers:
        service.machine.try_run("systemctl", "restart", UNIT)
        wait_for(lambda: service.shown("ActiveState") == ["failed"], "the service to give up")
        wait_for(lambda: answers["refused"], "a closed port")
    assert service.shown("Result", "ExecMainStatus") == ["exit-code", "78"]
    [sentence] = re.findall(r"^.*enabled.*perhaps.*$", service.journal(since), re.MULTILINE)
    assert sentence
    service.reset()
    assert service.call("GET", PATH).status == 200
