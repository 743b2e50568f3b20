"""Pipelines under the hardened service, and its maintenance with the manual's commands."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from tests.support import compose, docker, manual, parts
from tests.support.gateway import PATH, wait_for
from tests.support.installed import CLONE, FOLDER, SETTINGS, UNIT, Installed

GIT = "git init -q clone && cd clone && git -c user.name=a -c user.email=a@localhost commit -q --allow-empty -m b"


def test_dlt_dbt_and_git_run_under_the_hardened_service(service: Installed) -> None:
    """After an upgrade in the middle of a job."""
    machine = service.machine
    job = service.waiting()
    machine.shell(manual.block("service.md", "Upgrade").replace("install .", "install '.[demo]'"), CLONE)
    service.go()
    assert service.ended_right(job)
    machine.run("/opt/pipeline-gateway/bin/pipeline-gateway", "init", f"{FOLDER}/flights")
    machine.run("chown", "--recursive", "pipeline-gateway:", f"{FOLDER}/flights")
    settings: dict[str, Any] = yaml.safe_load((service.folder / "flights/gateway.yaml").read_text())
    for project in settings["projects"].values():
        project["directory"] = f"{FOLDER}/flights"
    service.configure(yaml.safe_dump({**settings, "enabled": True}))
    machine.run("systemctl", "restart", UNIT)
    checked = machine.shell("\n".join(manual.block("service.md", "Check, timer and log").splitlines()[:2]))
    assert "WRONG" not in checked
    record = service.run(pipeline="full")
    assert (record["status"], record["exitCode"]) == ("completed", 0), record
    assert "Done. PASS=" in record["output"]
    service.configure(ingester(["sh", "-c", f"{GIT} && git log --oneline"]))
    machine.run("systemctl", "restart", UNIT)
    record = service.run(pipeline="ingester")
    assert (record["exitCode"], record["output"].split()[1:]) == (0, ["b"]), record


def ingester(command: list[str]) -> str:
    """A gateway.yaml with this ingester."""
    project = {"directory": FOLDER, "ingester": {"command": command}}
    return yaml.safe_dump({**SETTINGS, "projects": {"lakehouse": project}})


def test_a_branch_of_roots_repository_runs_under_the_hardened_service(service: Installed) -> None:
    machine = service.machine
    repository = machine.path("/srv/shop")
    shutil.rmtree(repository, ignore_errors=True)
    commit = "git -c user.name=a -c user.email=a@localhost commit -q -m one && git rev-parse HEAD"
    made = "git init -q -b main . && echo 'echo on main' > ingest.sh && git add ingest.sh"
    repository.mkdir(mode=0o755)
    head = machine.shell(f"{made} && {commit}", "/srv/shop").strip()
    (repository / "ingest.sh").write_text("echo not committed")
    project = {"directory": "/srv/shop", "ingester": {"command": ["sh", "ingest.sh"]}}
    pipelines = {"load": {"ingester": True}}
    settings = {"enabled": True, "fabrics": {1: {}}, "projects": {"shop": {**project, "pipelines": pipelines}}}
    service.configure(yaml.safe_dump(settings))
    machine.run("systemctl", "restart", UNIT)
    run = {"fabricId": 1, "projectId": "shop", "pipelineName": "load", "branch": "main"}
    answer = service.call("POST", "/api/trigger/pipeline", run)
    assert answer.status == 200, answer
    record = service.finished(answer.json["runId"])
    assert (record["exitCode"], record["output"]) == (0, "on main\n"), record
    assert service.call("GET", f"/api/v1/jobs/{record['jobId']}").json["commit"] == head


def test_with_the_docker_drop_in_steps_run_in_containers(service: Installed, engine: docker.Engine) -> None:
    machine = service.machine
    client = shutil.which("docker")
    assert client is not None
    machine.copy(Path(client).resolve(), "/usr/local/bin/docker")
    plugin = engine.folder / "config/cli-plugins/docker-compose"
    machine.copy(plugin.resolve(), "/usr/local/lib/docker/cli-plugins/docker-compose")
    machine.shell("groupadd --force docker")
    socket = machine.path("/srv/docker.sock")
    socket.unlink(missing_ok=True)
    try:
        os.link(
            engine.environment["DOCKER_HOST"].removeprefix("unix://"), socket
        )  # the same socket, inside of the machine
    except OSError as error:
        parts.missing(f"the engine's socket can't be had in the machine: {error}")
    machine.shell("chgrp docker /srv/docker.sock; chmod 660 /srv/docker.sock")
    machine.write("/etc/pipeline-gateway/environment", "DOCKER_HOST=unix:///srv/docker.sock\n")
    service.drop_in("docker", (machine.path(CLONE) / "systemd/docker.conf").read_text())
    compose.write(service.folder, ingester=compose.service(command=["sh", "-c", "echo in a container"]))
    project = service.folder / "compose.yaml"
    settings = yaml.safe_load(project.read_text())
    del settings["services"]["ingester"]["volumes"]  # the engine can't see the machine's files under these names
    project.write_text(yaml.safe_dump(settings))
    fabric = {"runner": "compose", "compose": {"directory": FOLDER}}
    service.configure(yaml.safe_dump({"enabled": True, "fabrics": {"containers": fabric}}))
    machine.run("systemctl", "restart", UNIT)
    record = service.run(pipeline="ingester")
    assert (record["exitCode"], record["output"]) == (0, "in a container\n"), record
    machine.path("/etc/pipeline-gateway/environment").unlink()


def test_with_tokens_the_timer_uses_its_own_and_others_are_refused(service: Installed) -> None:
    machine = service.machine
    folder = machine.path("/etc/pipeline-gateway")
    try:
        machine.shell(manual.block("security.md", "For the systemd service"))
        assert [file.stat().st_mode & 0o777 for file in (folder / "tokens", folder / "trigger-token")] == [0o600] * 2
        wait_for(lambda: service.call("GET", PATH).status == 401, "the tokens of the reload")
        text = (folder / "trigger-token").read_text().strip()
        header = {"X-AUTH-TOKEN": text}
        machine.run("systemctl", "start", "--no-block", "pipeline-trigger@ingester.service")
        [job] = wait_for(lambda: listed(service, header), "the job of the unit")
        assert job["pipeline"] == "ingester"
        whole = service.call("GET", f"/api/v1/jobs/{job['jobId']}", headers=header).json
        assert [(act["action"], act["token"]) for act in whole["audit"]] == [("triggered", "timer")]
        assert text not in service.journal()
        (folder / "trigger-token").unlink()
        assert machine.try_run("systemctl", "start", "pipeline-trigger@full.service").returncode != 0
    finally:
        machine.shell("rm -f /etc/pipeline-gateway/tokens /etc/pipeline-gateway/trigger-token")


def listed(service: Installed, header: dict[str, str]) -> list[dict[str, Any]]:
    """The jobs that have not ended."""
    jobs: list[dict[str, Any]] = service.call("GET", PATH, headers=header).json["jobs"]
    return [job for job in jobs if job["phase"] != "ended"]


def test_a_timers_unit_passes_the_parameters_of_its_drop_in(service: Installed) -> None:
    machine, unit = service.machine, "pipeline-trigger@lakehouse:load.service"
    load = {"ingester": True, "parameters": {"month": {"type": "integer", "option": "--month"}}}
    project = {"directory": FOLDER, "ingester": {"command": ["echo", "loads"]}, "pipelines": {"load": load}}
    service.configure(yaml.safe_dump({**SETTINGS, "projects": {"lakehouse": project}}))
    machine.run("systemctl", "restart", UNIT)
    service.drop_in("month", '[Service]\nEnvironment="ARGUMENTS=month=3"\n', unit)
    machine.run("systemctl", "start", unit)
    newest, *_ = service.call("GET", PATH).json["jobs"]
    assert (newest["pipeline"], service.output(newest["jobId"])) == ("load", "loads --month=3\n")


def test_a_backup_taken_during_a_job_is_restored_completely(service: Installed) -> None:
    job = service.waiting()
    service.machine.shell(manual.block("service.md", "Backup"))
    service.go()
    assert service.ended_right(job)
    service.machine.run("systemctl", "stop", "pipeline-gateway.socket")
    service.machine.shell(manual.block("service.md", "Restore"))
    record = service.finished(job)
    assert record["reason"] == "unknown", record  # it ran when the backup was made, and only the backup is left
    assert "line 5\n" in service.output(job)
    assert "records restored" not in service.journal().rpartition("Started")[2]
    service.machine.run("rm", "-r", "/var/backups/pipeline-gateway")


def test_an_uninstall_keeps_user_data_and_the_next_install_uses_it(service: Installed) -> None:
    machine = service.machine
    job = service.waiting()
    service.go()
    assert service.ended_right(job)
    machine.run("systemctl", "enable", "--now", "pipeline-trigger@full.timer")
    machine.shell(manual.block("service.md", "Uninstall"))
    assert machine.shell("systemctl list-units --all --plain --no-legend 'pipeline-*'") == ""
    assert machine.shell("find /etc/systemd /etc/tmpfiles.d -name '*pipeline-*'") == ""
    assert not machine.path("/opt/pipeline-gateway").exists()
    service.install()
    assert service.poll(job)["status"] == "completed"
