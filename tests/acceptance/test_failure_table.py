"""The failure table: events that may hit a gateway and its steps, and the test of each.

| event | test |
|---|---|
| the gateway is killed while a step runs | test_crash.py::test_a_killed_gateway_adopts_the_running_job_and_its_exit_code |
| the gateway is killed, and the step ends meanwhile | test_crash.py::test_a_job_that_ended_without_a_gateway_has_ended_at_the_first_poll |
| the gateway is killed at random instants | test_kill_loop.py::test_kills_at_random_instants_lose_repeat_or_block_no_job |
| the gateway dies between commit and spawn | test_write_boundaries.py::test_a_job_whose_gateway_is_killed_ends_as_if_undisturbed |
| the gateway dies at a boundary of a cancel | test_write_boundaries.py::test_a_recorded_cancel_is_carried_out_by_the_next_gateway |
| a step is killed | test_data_analytics_endings.py::test_an_ingester_killed_from_outside_fails_the_job_as_killed |
| a step runs out of memory | test_failure_table.py::test_out_of_memory_kills_only_the_step |
| a container runs out of memory | test_containers.py::test_a_container_that_ran_out_of_memory_is_reported_as_such |
| a shim is killed | test_faults.py::test_a_killed_supervisor_ends_its_job_as_unknown_with_its_step |
| a shim is killed, what it leaves is stubborn | test_local_runner.py::test_a_step_whose_supervisor_was_killed_is_ended_and_lost |
| a shim dies at a boundary of its own | test_write_boundaries.py::test_a_supervisor_killed_at_any_point_gives_the_right_outcome |
| a second shim for the same step | test_shim.py::test_a_second_shim_is_refused_while_the_first_runs_and_after |
| many shims at once for the same step | test_shim.py::test_of_many_concurrent_shims_only_one_runs_the_step |
| a step ignores INT and TERM | test_local_runner.py::test_a_step_that_ignores_int_and_term_is_killed |
| a grandchild keeps stdout open | test_local_runner.py::test_a_child_with_the_output_open_does_not_delay_the_end |
| a grandchild escapes with setsid | test_local_runner.py::test_a_grandchild_in_another_session_is_ended_with_its_step |
| a grandchild escapes, and the job is cancelled | test_local_runner.py::test_a_grandchild_in_another_session_is_ended_by_a_stop |
| a whole tree of processes is cancelled | test_data_analytics_endings.py::test_a_cancelled_job_ends_only_with_its_whole_process_tree |
| a second gateway on one state directory | test_failure_table.py::test_a_second_gateway_on_a_state_directory_does_not_affect_the_first |
| the disk is full while a step writes | test_shim.py::test_a_full_disk_loses_only_output_and_only_while_it_is_full |
| the disk is full when a step ends | test_shim.py::test_the_exit_record_is_written_on_a_full_disk |
| the disk is full at a cancel | test_full_disk.py::test_a_job_cancelled_on_a_full_disk_ends_once_there_is_room |
| the disk is full at a trigger | test_full_disk.py::test_below_the_floor_only_triggers_are_refused_until_there_is_room |
| the clock jumps by a day | test_failure_table.py::test_a_clock_jump_of_a_day_hides_ends_and_removes_no_job |
| the host reboots while a step runs | test_failure_table.py::test_a_step_cut_off_by_a_reboot_is_unknown_and_does_not_run_again |
| the host reboots before a step begins | test_failure_table.py::test_a_step_that_had_not_begun_at_a_reboot_runs_once_after_it |
| the engine is stopped or killed, with and without live-restore | test_containers_crash.py::test_a_container_that_ends_with_its_engine_is_recorded_correctly |
| the engine is restarted and leaves containers alone | test_containers_crash.py::test_a_container_that_outlives_its_engine_is_followed_again |
| the docker command is killed | test_containers_crash.py::test_the_reader_of_the_log_may_be_killed_repeatedly |
| the docker command is killed while it makes a container | test_container_jobs.py::test_a_step_whose_maker_was_killed_never_runs_twice |
"""  # noqa: E501, a row of a table is a line

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway import clock
from gateway.model.job import Completed
from gateway.storage.store import Store
from tests.conftest import MakeGateway
from tests.support import process_facts, projects
from tests.support.command import STATE, run, says
from tests.support.dying import JOBS_API, STEPS, DyingGateway, all_is_well, output_of, ran_undisturbed
from tests.support.gateway import Gateway, wait_for
from tests.support.jobs import ended, later, make_job, planned
from tests.support.memory_group import MemoryGroup, memory_group
from tests.support.source import ROOT

HOUR, DAY = 3600.0, 86_400.0
MIB = 2**20


def test_every_row_names_a_test_that_exists() -> None:
    assert __doc__ is not None
    rows = __doc__.splitlines()[4:]
    found = [re.fullmatch(r"\| .+ \| (test_\w+\.py)::(test_\w+) \|", row) for row in rows]
    assert len(rows) > 20
    for row, named in zip(rows, found, strict=True):
        assert named, row
        [file] = (ROOT / "tests").glob(f"*/{named[1]}")
        assert re.search(rf"^(async )?def {named[2]}\(", file.read_text("utf-8"), re.MULTILINE), row


# Allocates more and more memory, in small pieces.
GLUTTON = """
    import os
    print("ready", flush=True)
    taken = []
    while True:
        taken.append(b"x" * 1_000_000)
"""
# A process with much memory, as a gateway may have, that is not marked as the first to be killed.
BALLAST = "import sys; taken = b'x' * int(sys.argv[1]); print('taken', flush=True); sys.stdin.read()"


@pytest.mark.installed
def test_out_of_memory_kills_only_the_step(tmp_path: Path, make_gateway: MakeGateway) -> None:
    gateway = make_gateway(projects.make(tmp_path / "project", ingester=GLUTTON))
    assert gateway.process is not None
    with memory_group(400 * MIB) as group:
        group.add(gateway.process.pid)
        with ballast(group, 250 * MIB) as larger:
            record = gateway.run(pipeline="ingester")
            assert larger.poll() is None
            assert group.kills == 1
            assert gateway.process.poll() is None
            exit_file = gateway.state / "jobs" / record["jobId"] / "1-ingester" / "exit"
            assert json.loads(exit_file.read_bytes())["signal"] == signal.SIGKILL  # its supervisor lived to record this
        gateway.stop()
    assert (record["status"], record["success"], record["exitCode"]) == ("failed", False, -1)
    assert record["reason"] == "killed"
    assert "out of memory" in record["error"]
    assert [(step["status"], step["exitCode"]) for step in record["steps"]] == [("failed", 137)]


@contextmanager
def ballast(group: MemoryGroup, size: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process with this much memory."""
    command = ["sh", "-c", 'read go; exec "$@"', "sh", sys.executable, "-I", "-S", "-c", BALLAST, str(size)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        group.add(process.pid)
        process.stdin.write(b"go\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"taken\n"
        yield process
        process.kill()


@pytest.fixture
def gateway(dying: DyingGateway) -> DyingGateway:
    """Gateways on one folder, whose steps wait while they are held."""
    return dying


def test_a_second_gateway_on_a_state_directory_does_not_affect_the_first(gateway: DyingGateway) -> None:
    gateway.start()
    gateway.hold()
    job = gateway.trigger(pipeline="ingester")
    wait_for(lambda: gateway.poll(job)["output"].endswith("line 49\n"), "all that the step prints while it is held")
    wait_for(lambda: gateway.poll(job)["outputBytes"] == len(gateway.poll(job)["output"]), "a look at its size")
    before = state_of(gateway, job)
    for _ in range(3):
        says(run("serve", cwd=gateway.folder, PORT="0"), STATE, "Another gateway", str(gateway.state))
    assert state_of(gateway, job) == before
    gateway.release()
    ran(gateway, job)
    all_is_well(gateway)


def state_of(gateway: Gateway, job: str) -> Any:
    """The record, and the processes of steps."""
    record = gateway.poll(job)
    del record["durationSeconds"]
    for step in record["steps"]:
        del step["durationSeconds"]
    return record, sorted(process_facts.of_steps(gateway.state))


def ran(gateway: DyingGateway, job: str) -> dict[str, Any]:
    """The record of a job of one step, which must complete and have run once."""
    record = gateway.finished(job)
    assert (record["status"], record["exitCode"], record.get("reason")) == ("completed", 0, None), record
    assert gateway.runs(job) == [1, 0]
    assert gateway.output(job) == record["output"] == output_of(STEPS[0])
    return record


@pytest.mark.parametrize("jump", [-DAY, DAY], ids=["back", "ahead"])
def test_a_clock_jump_of_a_day_hides_ends_and_removes_no_job(gateway: DyingGateway, jump: float) -> None:
    """The clock jumps while a step runs, for gateway and supervisor, and stays wrong across a restart."""
    wrong_by = gateway.folder / "clock"
    wrong_by.write_text("0")
    # an error of a day would time out a step, which has an hour, and remove a record, which has half a day
    limits = {
        "GATEWAY_RECORD_DAYS": "0.5",
        "GATEWAY_FABRICS": "{local: {time_limit: 3600, resources: {ingester: warehouse}}}",
        "TEST_CLOCK": str(wrong_by),
    }
    # hours since each job ended
    gateway.state.mkdir()
    asyncio.run(past(gateway.state, {"within-the-hour": 0.5, "of-today": 2.0, "expired": 13.0}))
    gateway.start_elsewhere(**limits)
    earlier = gateway.trigger(pipeline="ingester")
    before = ran(gateway, earlier)
    gateway.hold()
    limited = {"pipeline": "ingester", "timeoutSeconds": 1800}  # and so the whole job
    running = str(gateway.call("POST", JOBS_API, limited).json["jobId"])
    wait_for(lambda: gateway.runs(running)[0], "the step")
    listed = [running, earlier, "within-the-hour"]
    for restart in (False, True):
        wrong_by.write_text(str(jump))
        if restart:
            gateway.kill()
            gateway.start_elsewhere(**limits)
        assert list(gateway.listed()) == listed
        assert gateway.poll(running)["status"] == "running"
    # the sweep at this start removed the expired record only
    wait_for(lambda: gateway.call("GET", f"{JOBS_API}/expired").status == 404, "the sweep")
    assert gateway.call("GET", f"{JOBS_API}/of-today").status == 200
    assert gateway.poll(earlier) == before
    gateway.release()
    record = ran(gateway, running)
    for timed in (record, *record["steps"]):
        assert 0 <= timed["durationSeconds"] < HOUR
    assert list(gateway.listed()) == listed
    # and correcting the clock changes nothing
    wrong_by.write_text("0")
    assert list(gateway.listed()) == listed
    assert gateway.poll(running) == record
    gateway.kill()
    gateway.start_elsewhere(**limits)
    assert list(gateway.listed()) == listed
    all_is_well(gateway)


async def past(state: Path, hours: dict[str, float]) -> None:
    """Record jobs that ended this many hours ago, oldest first."""
    store = await Store.open(state / "gateway.db")
    now = clock.now()
    for name, ago in sorted(hours.items(), key=lambda item: -item[1]):
        job = make_job(name, plan=planned("ingester", resources=[name]), created=later(-ago * HOUR - 60, now))
        await store.insert(job)
        await store.save(ended(job, Completed(0, None), later(-ago * HOUR, now)))
    await store.close()


def power_cut(gateway: DyingGateway) -> None:
    """Kill the gateway, all supervisors and all steps, so that none of them can notice the death of another."""
    gateway.kill()
    pids = [int(process.split()[0]) for process in process_facts.of_steps(gateway.state)]
    supervisors = [json.loads(file.read_bytes())["pid"] for file in gateway.jobs.glob("*/*/started")]
    for pid in sorted(pids, key=lambda pid: pid not in supervisors):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not process_facts.of_steps(gateway.state), "the end of all processes")


def test_a_step_cut_off_by_a_reboot_is_unknown_and_does_not_run_again(gateway: DyingGateway) -> None:
    gateway.serve()
    earlier = gateway.trigger(pipeline="ingester")
    before = ran(gateway, earlier)
    gateway.hold()
    job = str(gateway.submit())
    wait_for(lambda: gateway.runs(job)[0], "the first step")
    power_cut(gateway)
    gateway.release()
    gateway.start_elsewhere(TEST_BOOT="the next one")
    record = gateway.finished(job)
    assert (record["status"], record["success"], record["exitCode"]) == ("failed", False, -1)
    assert record["reason"] == "unknown"
    assert "the host was rebooted" in record["error"]
    assert [step["status"] for step in record["steps"]] == ["failed", "skipped"]
    assert record["durationSeconds"] >= 0
    assert gateway.runs(job) == [1, 0]
    assert list(gateway.listed()) == [job, earlier]
    assert gateway.poll(earlier) == before
    ran(gateway, gateway.trigger(pipeline="ingester"))
    gateway.kill()
    gateway.start_elsewhere(TEST_BOOT="the next but one")
    assert gateway.poll(job) == record
    all_is_well(gateway)


def test_a_step_that_had_not_begun_at_a_reboot_runs_once_after_it(gateway: DyingGateway) -> None:
    gateway.serve("living: after spec.json of 1")
    gateway.submit()
    gateway.died()
    power_cut(gateway)
    gateway.start_elsewhere(TEST_BOOT="the next one")
    [job] = gateway.listed()
    ran_undisturbed(gateway, job)
    all_is_well(gateway)
