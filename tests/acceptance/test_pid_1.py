"""The gateway as PID 1, as in a container whose image names nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import parts, process_facts, projects
from tests.support.gateway import COMMAND, DEADLINE, Gateway, wait_for

_CONTAINED = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


class ContainedGateway(Gateway):
    """The installed command as PID 1 of a namespace of its own."""

    def _run(self, module: str, *arguments: str, **variables: str) -> None:
        self._begin_log()
        command = [*_CONTAINED, str(COMMAND), *arguments]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, env={**self.environment, **variables}, stderr=log)

    @property
    def pid_1(self) -> int:
        assert isinstance(self.process, subprocess.Popen)
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(children.read_text())


@pytest.fixture
def contained(tmp_path: Path) -> Any:
    if subprocess.run([*_CONTAINED, "true"], capture_output=True, check=False).returncode:
        parts.missing("this user may not make a PID namespace")
    gateway = ContainedGateway(projects.make(tmp_path / "project")).start()
    yield gateway
    gateway.kill()


def test_as_pid_1_it_leaves_no_zombie_and_ends_at_sigterm(contained: ContainedGateway) -> None:
    for _ in range(5):
        assert contained.run(pipeline="ingester")["exitCode"] == 0
    wait_for(lambda: process_facts.facts(contained.pid_1).zombies == 0, "the end of the supervisors", deadline=20)
    assert contained.process is not None
    os.kill(contained.pid_1, signal.SIGTERM)
    assert contained.process.wait(DEADLINE) == 0
    assert '"event": "stopped"' in contained.logged()
