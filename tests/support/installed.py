"""The service as systemd runs it in a booted machine, installed by the manual's commands."""

from __future__ import annotations

import json
import os
import signal as signals
import textwrap
from typing import Any

import yaml

from tests.support import manual
from tests.support.gateway import PATH, Gateway, wait_for
from tests.support.machine import Machine
from tests.support.ports import free_port
from tests.support.source import ROOT

UNIT = "pipeline-gateway.service"
FOLDER = "/srv/lakehouse"  # as systemd/projects.conf has it
CLONE = "/usr/local/src/pipeline-gateway"
INGESTER = """
    import pathlib, sys, time
    with pathlib.Path("runs").open("a") as runs:
        runs.write("run\\n")
    number = 0
    while not pathlib.Path("go").exists():
        print("line", number, flush=True)
        number += 1
        time.sleep(0.01)
    print("done", flush=True)
    sys.exit(7)
"""
SETTINGS: dict[str, Any] = {
    "enabled": True,
    "fabrics": {"local": {}},
    "projects": {"lakehouse": {"directory": FOLDER, "ingester": {"command": ["/usr/bin/python3", "ingest.py"]}}},
}
_STATE = "/var/lib/pipeline-gateway"
_PACKAGED = ("gateway", "runners", "systemd", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
# a clone that `git pull` works in
_COMMIT = """
    git init --quiet --initial-branch=main && git add $(ls -A | grep -v gateway.yaml)
    git -c user.name=tests -c user.email=tests@localhost commit --quiet --message=clone
    git clone --quiet --bare . ../origin && git remote add origin ../origin && git fetch --quiet
    git branch --quiet --set-upstream-to=origin/main
"""
UNITS = "/etc/systemd/system"
_OF_A_TEST = "test-"  # begins the names of drop-ins that the next test takes away


class Installed(Gateway):
    """The service of a machine."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.path(FOLDER))
        self.machine = machine
        self.state = machine.path(_STATE)
        ports = machine.path("/etc/systemd/system/pipeline-gateway.socket.d/port.conf")
        if ports.exists():
            self.port = int(ports.read_text("utf-8").rpartition(":")[2])

    def install(self) -> None:
        """Follow the manual, with a port that is free on this host: the machine shares its network."""
        self.port = free_port()
        port = f"ListenStream=\nListenStream=127.0.0.1:{self.port}\nListenStream=[::1]:{self.port}\n"
        self.machine.write(f"{UNITS}/pipeline-gateway.socket.d/port.conf", f"[Socket]\n{port}")
        base = f"[Service]\nEnvironment=PIPELINE_GATEWAY_SERVER=http://127.0.0.1:{self.port}\n"
        self.machine.write(f"{UNITS}/pipeline-trigger@.service.d/port.conf", base)
        if not self.machine.path(CLONE).exists():
            self._clone()
        self.machine.shell(manual.block("service.md", "Install"), CLONE)
        self.machine.run("chown", "--recursive", "pipeline-gateway:", FOLDER)
        self.machine.shell(manual.block("service.md", "What your pipelines need"), CLONE)

    def _clone(self) -> None:
        for name in _PACKAGED:
            self.machine.copy(ROOT / name, f"{CLONE}/{name}")
        self.machine.write(f"{CLONE}/gateway.yaml", yaml.safe_dump(SETTINGS))
        self.machine.write(f"{FOLDER}/ingest.py", textwrap.dedent(INGESTER))
        self.machine.shell(_COMMIT, CLONE)

    def reset(self) -> None:
        """As it was installed, started, with no job running."""
        for drop_in in self.machine.path(UNITS).glob(f"*.d/{_OF_A_TEST}*.conf"):
            drop_in.unlink()
        for name in ("go", "runs"):
            (self.folder / name).unlink(missing_ok=True)
        self.machine.write("/etc/pipeline-gateway/gateway.yaml", yaml.safe_dump(SETTINGS))
        self.machine.shell(f"systemctl daemon-reload; systemctl reset-failed; systemctl restart {UNIT}")

    def configure(self, text: str) -> None:
        """Another gateway.yaml, for the next start of this test."""
        self.machine.write("/etc/pipeline-gateway/gateway.yaml", text)

    def drop_in(self, name: str, text: str, unit: str = UNIT) -> None:
        """Lines for a unit, until the end of this test."""
        self.machine.write(f"{UNITS}/{unit}.d/{_OF_A_TEST}{name}.conf", text)
        self.machine.run("systemctl", "daemon-reload")

    def clear(self) -> None:
        """Cancel what still runs, and see it gone."""
        self.reset()
        for job in self.active():
            self.call("POST", f"/api/v1/jobs/{job}/cancel")
            self.finished(job)

    def active(self) -> list[str]:
        """The jobs that have not ended."""
        return [job["jobId"] for job in self.call("GET", PATH).json["jobs"] if job["phase"] != "ended"]

    def waiting(self) -> str:
        """A job whose ingester runs, and talks, until `go`."""
        job = self.trigger(pipeline="ingester")
        wait_for(lambda: "line 5\n" in self.output(job), "the ingester")
        return job

    def go(self) -> None:
        """Let the ingester end."""
        (self.folder / "go").touch()

    def ended_right(self, job: str) -> bool:
        """Whether the job ended as its ingester did, which ran once, with nothing of its output lost or doubled."""
        record = self.finished(job)
        assert (record["status"], record["exitCode"]) == ("completed", 7), record
        assert (self.folder / "runs").read_text() == "run\n"
        *lines, last = self.output(job).splitlines()
        assert (lines, last) == ([f"line {number}" for number in range(len(lines))], "done")
        return True

    def output(self, job: str) -> str:
        """The whole output, by the files: asking the service would start it."""
        return "".join(file.read_text() for file in sorted((self.state / "jobs" / job).glob("output.*")))

    def started(self, job: str) -> dict[str, Any]:
        """What the supervisor of the job's step wrote down when it began."""
        found: dict[str, Any] = json.loads((self.state / "jobs" / job / "1-ingester/started").read_text())
        return found

    def shown(self, *properties: str) -> list[str]:
        """What systemd knows of the service."""
        return [self.machine.run("systemctl", "show", UNIT, "-P", name).strip() for name in properties]

    def signal(self, number: signals.Signals) -> int:
        """Send a signal to the service alone, without a moment lost; which process, by the machine's count."""
        [pid] = (int(text) for text in self.shown("MainPID"))
        os.kill(self.machine.here(pid), number)
        return pid

    def processes(self) -> dict[int, str]:
        """The processes of the unit with their command lines, by the machine's count."""
        listed = self.machine.run("sh", "-c", f"cd /proc && grep -ls /{UNIT} [0-9]*/cgroup; true").splitlines()
        return {int(row.partition("/")[0]): self._command(row.partition("/")[0]) for row in listed}

    def _command(self, pid: str) -> str:
        return self.machine.try_run("cat", f"/proc/{pid}/cmdline").stdout.replace("\0", " ")

    def journal(self, since: str = "") -> str:
        """What the service and systemd said of it. since: a position that `position` gave."""
        after = [f"--after-cursor={since}"] if since else []
        return self.machine.run("journalctl", "-u", UNIT, "-o", "cat", *after)

    def position(self) -> str:
        """Where the journal ends now."""
        return self.machine.run("journalctl", "-n", "0", "--show-cursor").strip().rpartition("-- cursor: ")[2]
