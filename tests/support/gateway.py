"""A real gateway process, on a free port, with its own state: a fork, or the installed command where that matters."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.support.forks import SERVER, Process

PATH = "/api/data-analytics/pipeline/trigger"
COMMAND = Path(sys.executable).with_name("pipeline-gateway")
_COMMANDS_MODULE = "gateway.cli.main"
NAMED = {"Host": "localhost"}  # without the port, so that URLs in answers are the same after a restart on another one
DEADLINE = 120.0  # seconds; generous, for a machine that is slow and busy


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        decoded: dict[str, Any] = json.loads(self.body)
        return decoded


class Gateway:
    """One gateway on a folder with a gateway.yaml; it can be killed and started again.

    installed: it is the installed command, as a new process; else a fork, which starts sooner: see fork_server.py.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None, *, installed: bool = False) -> None:
        self.folder = folder
        self.state = folder / ".pipeline-gateway"
        self.log = folder / "gateway.log"
        self.environment = {**os.environ, "PIPELINE_ENABLED": "true", "PORT": "0", **(environment or {})}
        self.port = 0
        self.process: Process | None = None
        self._installed = installed
        self._since = 0  # where the log of the present process begins

    @property
    def base(self) -> str:
        return f"http://localhost:{self.port}"

    def start(self) -> Self:
        """Start it and wait until it serves."""
        self.launch()
        return self.serves()

    def launch(self) -> None:
        """Start it and wait for nothing."""
        self._run(_COMMANDS_MODULE, "serve")

    def _run(self, module: str, *arguments: str, **variables: str) -> None:
        """Start a process that runs `main(arguments)` of a module."""
        self._begin_log()
        environment = {**self.environment, **variables}
        if not self._installed:
            self.process = SERVER.fork(module, arguments, self.folder, environment, self.log)
            return
        command = [str(COMMAND)] if module == _COMMANDS_MODULE else [sys.executable, "-m", module]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*command, *arguments], cwd=self.folder, env=environment, stderr=log)

    def _begin_log(self) -> None:
        """Have `logged` leave out what is in the log already."""
        self.log.touch()
        self._since = self.log.stat().st_size

    def serves(self) -> Self:
        """Wait until it serves."""
        self.port = int(wait_for(lambda: self.event("serving"), f"a gateway in {self.folder}")["port"])
        return self

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, as systemd would; its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        if self.process is None:
            return 0
        process, self.process = self.process, None
        process.send_signal(number)
        return process.wait(DEADLINE)

    def event(self, event: str) -> dict[str, Any] | None:
        """The first line of the log with this event since it was launched; fails where it has ended by itself."""
        assert self.process is not None
        code = self.process.poll()  # before the log is read, so that all of it is read
        text = self.logged()
        assert code is None, f"the gateway ended with {code}:\n{text[-10_000:]}"
        for line in text.splitlines():
            if f'"event": "{event}"' in line:
                said: dict[str, Any] = json.loads(line)
                return said
        return None

    def logged(self) -> str:
        """The whole lines of the log since it was launched."""
        with self.log.open("rb") as log:
            log.seek(self._since)
            return log.read().rpartition(b"\n")[0].decode()

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = DEADLINE,
    ) -> Answer:
        """One HTTP request on a connection of its own; a body that is not bytes is sent as JSON."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        given = {**NAMED, **({} if content is None else {"Content-Type": "application/json"})}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, content, {**given, **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, dict(response.headers.items()), response.read())
        finally:
            connection.close()

    def trigger(self, **fields: Any) -> str:
        """Trigger a pipeline, which must be accepted; the job's id."""
        answer = self.call("POST", PATH, fields)
        assert answer.status == 202, answer
        return str(answer.json["jobId"])

    def poll(self, job_id: str) -> dict[str, Any]:
        """The data-analytics record of a job, which must be there."""
        answer = self.call("GET", f"{PATH}?jobId={job_id}")
        assert answer.status == 200, answer
        return answer.json

    def finished(self, job_id: str) -> dict[str, Any]:
        """The record of a job once it has ended."""

        def ended() -> dict[str, Any] | None:
            record = self.poll(job_id)
            return None if record["status"] == "running" else record

        record: dict[str, Any] = wait_for(ended, f"the end of {job_id}")
        return record

    def run(self, **fields: Any) -> dict[str, Any]:
        """Trigger a pipeline and wait for its end; the record."""
        return self.finished(self.trigger(**fields))


def pause(waited: float) -> float:
    """Seconds until the next look, after so many of waiting: frequent looks slow down what they wait for."""
    return min(0.02 + waited / 20, 0.25)


def wait_for(condition: Any, what: str, deadline: float = DEADLINE) -> Any:
    """The first true answer of a condition; fails with what was waited for."""
    began = time.monotonic()
    while (waited := time.monotonic() - began) < deadline:
        if found := condition():
            return found
        time.sleep(pause(waited))
    raise AssertionError(f"waited {deadline:.0f} s for {what}")
