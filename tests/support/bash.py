"""Runs scripts of curl and jq as a person on the server would."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from typing import Any

from tests.conftest import need
from tests.support.gateway import DEADLINE, Gateway


@dataclass(frozen=True)
class Said:
    """What a script printed, and the status and headers of curl's last answer."""

    text: str
    status: int
    headers: dict[str, str] = field(repr=False)

    @property
    def json(self) -> dict[str, Any]:
        decoded: dict[str, Any] = json.loads(self.text)
        return decoded


def bash(gateway: Gateway, script: str) -> Said:
    """Run a script. What only a terminal would show, status and headers, comes from curl's own configuration file."""
    need("curl"), need("jq")
    dump = gateway.folder / "headers"
    # without a terminal curl would print its progress
    (gateway.folder / ".curlrc").write_text(f"dump-header = {dump}\nno-progress-meter\n")
    done = subprocess.run(
        ["bash", "-c", script],
        env={"PATH": os.environ["PATH"], "CURL_HOME": str(gateway.folder), "BASE": gateway.base},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    status, *lines = dump.read_text().strip().splitlines()
    return Said(done.stdout, int(status.split()[1]), dict(line.split(": ", 1) for line in lines))
