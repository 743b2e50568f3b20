"""The shim, run as a command."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runners import shim
from runners.detached import supervisor as process_module
from runners.output import OutputRing

pytestmark = pytest.mark.usefixtures("measured_shim")


def make(job: Path, script: str, **more: Any) -> Path:
    folder = job / "1-run"
    folder.mkdir(exist_ok=True)
    spec = {
        "v": 1,
        "argvs": [["sh", "-c", script]],
        "cwd": str(job),
        "environment": ["PATH"],
        "interrupt": signal.SIGTERM,
        "grace": 10.0,
        "time_limit": 600.0,
        "output": str(job),
        "output_cap": 64 << 20,
        "output_skip": None,
    }
    (folder / "spec.json").write_text(json.dumps({**spec, **more}))
    return folder


def popen(folder: Path, *before: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*before, sys.executable, "-I", "-S", "-X", "utf8", process_module._SHIM, str(folder)],
        env={"PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def launch(folder: Path, *before: str) -> tuple[int, str]:
    with popen(folder, *before) as process:
        _, stderr = process.communicate()
    return process.returncode, stderr.decode()


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def ended(folder: Path) -> dict[str, Any]:
    until(lambda: bool((folder / "exit").read_bytes().strip()))
    end = json.loads((folder / "exit").read_bytes())
    assert isinstance(end, dict)
    return end


def output(job: Path) -> bytes:
    return OutputRing(job).read(0, 64 << 20).data


def test_a_time_limit_longer_than_a_poll_can_wait_is_accepted(tmp_path: Path) -> None:
    folder = make(tmp_path, "exit 3", time_limit=366 * 86400.0)
    assert launch(folder) == (0, "")
    assert ended(folder)["code"] == 3


def test_output_that_the_ring_already_has_is_skipped(tmp_path: Path) -> None:
    assert launch(make(tmp_path, "printf 'one two th'")) == (0, "")
    ended(tmp_path / "1-run")
    later = tmp_path / "other" / "2-again"
    later.mkdir(parents=True)
    made = make(tmp_path, "printf 'one two three'", output_skip=10)
    (made / "spec.json").rename(later / "spec.json")
    assert launch(later) == (0, "")
    ended(later)
    assert output(tmp_path) == b"one two three"


def test_the_exit_record_has_the_code_the_times_and_the_resources(tmp_path: Path) -> None:
    folder = make(tmp_path, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exit 3")
    before = time.time()
    assert launch(folder) == (0, "")
    end = ended(folder)
    assert (folder / "exit").stat().st_size == 512
    assert before <= end["started"] <= end["finished"]
    assert 0 < end["cpu"] <= end["duration"] * (os.cpu_count() or 1) + 1
    assert 1 << 20 < end["peak_memory"] < 1 << 30
    assert {key: end[key] for key in ("code", "signal", "stopped", "stop", "error", "dropped")} == {
        "code": 3,
        "signal": None,
        "stopped": None,
        "stop": None,
        "error": None,
        "dropped": 0,
    }


def test_the_shim_is_detached_from_the_process_that_started_it(tmp_path: Path) -> None:
    """It has its own session, /dev/null as its standard streams, and / as its working folder."""
    folder = make(tmp_path, "until [ -e go ]; do sleep 0.02; done")
    assert launch(folder)[0] == 0
    started = json.loads((folder / "started").read_text())
    process = Path(f"/proc/{started['pid']}")
    assert os.getsid(started["pid"]) == started["pid"]
    assert process.joinpath("cwd").readlink() == Path("/")
    assert {process.joinpath("fd", fd).readlink() for fd in "012"} == {Path("/dev/null")}
    (tmp_path / "go").touch()
    assert ended(folder)["code"] == 0


def test_the_shim_goes_on_while_its_own_files_are_replaced(tmp_path: Path) -> None:
    """As an upgrade does it: also what it does at the end needs none of them."""
    program = tmp_path / "installed"
    program.mkdir()
    for name in ("shim.py", "masker.py"):
        shutil.copy(Path(shim.__file__).with_name(name), program)
    script = "trap '' TERM; echo hunter22; until [ -e go ]; do sleep 0.02; done; echo hunter22; : > told; sleep 1000"
    folder = make(tmp_path, script, grace=0.1)
    assert launch_with_input(folder, b'["hunter22"]', str(program / "shim.py")) == (0, "")
    until(lambda: output(tmp_path) == b"***\n")
    shutil.rmtree(program)
    (tmp_path / "go").touch()
    until((tmp_path / "told").exists)
    os.kill(json.loads((folder / "started").read_text())["pid"], signal.SIGTERM)
    end = ended(folder)
    assert (end["stopped"], end["signal"], end["stop"]["signals"]) == ("asked", 9, [15, 9])
    assert output(tmp_path) == b"***\n***\n"


def test_a_second_shim_is_refused_while_the_first_runs_and_after(tmp_path: Path) -> None:
    folder = make(tmp_path, "echo ran >> runs; until [ -e go ]; do sleep 0.02; done")
    assert launch(folder)[0] == 0
    assert launch(folder)[0] == 75
    (tmp_path / "go").touch()
    ended(folder)
    until(lambda: launch(folder)[0] == 76)  # the exit record is written shortly before the lock is released
    assert (tmp_path / "runs").read_text() == "ran\n"


def test_of_many_concurrent_shims_only_one_runs_the_step(tmp_path: Path) -> None:
    folder = make(tmp_path, "echo ran >> runs")
    processes = [popen(folder) for _ in range(8)]
    for process in processes:
        process.communicate()
    codes = [process.returncode for process in processes]
    assert codes.count(0) == 1
    assert set(codes) <= {0, 75, 76}
    assert ended(folder)["code"] == 0
    assert (tmp_path / "runs").read_text() == "ran\n"


def test_a_launcher_killed_at_any_moment_does_not_run_the_step_twice(tmp_path: Path) -> None:
    for number in range(12):
        job = tmp_path / str(number)
        job.mkdir()
        folder = make(job, "echo ran >> runs")
        with popen(folder) as process:
            time.sleep(number * 0.004)  # a different moment each time; the assertions hold for any
            process.kill()
            process.communicate()
        assert launch(folder)[0] in (0, 75, 76)
        assert ended(folder)["code"] == 0
        assert (job / "runs").read_text() == "ran\n"


def test_without_a_spec_nothing_is_started(tmp_path: Path) -> None:
    folder = tmp_path / "1-run"
    folder.mkdir()
    code, why = launch(folder)
    assert code == 74
    assert "spec.json" in why
    assert not (folder / "started").exists()


def test_the_step_inherits_no_ignored_signal_and_no_descriptor(tmp_path: Path) -> None:
    """It has no blocked signal either, and an oom_score_adj of 500."""
    folder = make(tmp_path, "grep -E '^Sig(Blk|Ign)' /proc/self/status; cat /proc/self/oom_score_adj; ls /proc/self/fd")
    assert launch(folder, "sh", "-c", "trap '' INT QUIT HUP TERM CHLD PIPE; exec \"$@\"", "sh")[0] == 0
    assert ended(folder)["code"] == 0
    lines = output(tmp_path).decode().split("\n")
    assert [line.split()[1] for line in lines[:2]] == ["0" * 16] * 2
    assert lines[2] == "500"
    assert lines[3:] == ["0", "1", "2", "3", ""]  # 3 is how ls reads the list


def test_the_step_has_no_input_and_its_own_group_and_session(tmp_path: Path) -> None:
    folder = make(tmp_path, "cat; readlink /proc/self/fd/0; [ $(cut -d' ' -f5,6 /proc/$$/stat | tr ' ' -) = $$-$$ ]")
    assert launch(folder)[0] == 0
    assert ended(folder)["code"] == 0
    assert output(tmp_path) == b"/dev/null\n"


def test_a_step_that_closes_its_output_has_not_ended(tmp_path: Path) -> None:
    folder = make(tmp_path, "echo before; exec >&- 2>&-; sleep 0.3; exit 5")
    assert launch(folder)[0] == 0
    assert ended(folder)["code"] == 5
    assert output(tmp_path) == b"before\n"


def test_another_process_with_the_output_open_does_not_delay_the_end(tmp_path: Path) -> None:
    folder = make(tmp_path, "echo before; : > ready; until [ -e go ]; do sleep 0.02; done; echo after")
    assert launch(folder)[0] == 0
    until((tmp_path / "ready").exists)
    shim_pid = json.loads((folder / "started").read_text())["pid"]
    [leader] = Path(f"/proc/{shim_pid}/task/{shim_pid}/children").read_text().split()
    with Path(f"/proc/{leader}/fd/1").open("wb", buffering=0):
        (tmp_path / "go").touch()
        assert ended(folder)["code"] == 0
    assert output(tmp_path) == b"before\nafter\n"


def test_the_output_of_a_step_begins_on_a_new_line(tmp_path: Path) -> None:
    (tmp_path / f"output.{0:020}").write_bytes(b"the last words of an earlier step")
    folder = make(tmp_path, "echo first")
    assert launch(folder)[0] == 0
    ended(folder)
    assert output(tmp_path) == b"the last words of an earlier step\nfirst\n"


def test_the_ring_continues_where_the_last_step_ended(tmp_path: Path) -> None:
    (tmp_path / f"output.{0:020}").write_bytes(b"a" * 100)
    (tmp_path / f"output.{100:020}").write_bytes(b"b" * 29 + b"\n")
    folder = make(tmp_path, "printf %070d 0; printf %0230d 0", output_cap=400)
    assert launch(folder)[0] == 0
    ended(folder)
    assert OutputRing(tmp_path).bounds() == (100, 430)
    assert [path.name[-3:] for path in sorted(tmp_path.glob("output.*"))] == ["100", "200", "300", "400"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"needs a small disk: {mount.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return


def test_on_a_full_disk_nothing_is_started_and_the_reason_is_reported(small_disk: Path) -> None:
    folder = make(small_disk, "echo no")
    fill(small_disk)
    code, why = launch(folder)
    assert code == 74
    assert "No space left" in why
    assert not (folder / "started").exists()


# prints 2 MB, never more than 4 KiB ahead of the shim, then waits and prints a last line
STEADY = """
import fcntl, os, struct, sys, termios, time
for _ in range(500):
    os.write(1, b"x" * 4095 + b"\\n")
    while any(fcntl.ioctl(1, termios.FIONREAD, bytes(4))):
        time.sleep(0.0005)
open("full", "w").close()
while not os.path.exists("go"):
    time.sleep(0.02)
print("room again")
sys.exit(6)
"""


def test_a_full_disk_loses_only_output_and_only_while_it_is_full(small_disk: Path, tmp_path: Path) -> None:
    reserve = small_disk / "reserve"
    reserve.write_bytes(b"x" * 500_000)
    folder = make(small_disk, "", argvs=[[sys.executable, "-I", "-S", "-c", STEADY]], cwd=str(tmp_path))
    assert launch(folder)[0] == 0
    until((tmp_path / "full").exists)
    reserve.unlink()
    (tmp_path / "go").touch()
    end = ended(folder)
    assert end["code"] == 6
    assert end["dropped"] > 1_000_000
    assert output(small_disk).endswith(b"room again\n")
    assert OutputRing(small_disk).bounds()[1] + end["dropped"] == 500 * 4096 + len("room again\n")


def test_the_exit_record_is_written_on_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    folder = make(small_disk, f"cd {tmp_path}; until [ -e go ]; do sleep 0.02; done; echo lost; exit 6")
    assert launch(folder)[0] == 0
    fill(small_disk)
    (tmp_path / "go").touch()
    end = ended(folder)
    assert (end["code"], end["dropped"]) == (6, len("lost\n"))
    assert output(small_disk) == b""


SECRET = "hunter2-of-the-warehouse"


def launch_with_input(folder: Path, given: bytes, program: str = process_module._SHIM) -> tuple[int, str]:
    """Launch the shim with this on its standard input."""
    command = [sys.executable, "-I", "-S", "-X", "utf8", program, str(folder)]
    done = subprocess.run(command, env={"PATH": os.environ["PATH"]}, input=given, stderr=subprocess.PIPE, check=False)
    return done.returncode, done.stderr.decode()


def test_secrets_from_the_shims_input_are_masked_before_the_disk(tmp_path: Path) -> None:
    """Also a secret printed in two halves with a pause between them, and one cut off by the end."""
    (tmp_path / "script").write_text(f"""
        echo whole {SECRET}; printf 'two {SECRET[:9]}'; touch half; until [ -e go ]; do sleep 0.02; done
        printf '{SECRET[9:]} halves, {SECRET[:12]}'
    """)
    folder = make(tmp_path, "", argvs=[["sh", "script"]])
    assert launch_with_input(folder, json.dumps([SECRET]).encode()) == (0, "")
    until((tmp_path / "half").exists)
    until(lambda: output(tmp_path) == b"whole ***\ntwo ")
    shim = json.loads((folder / "started").read_text())["pid"]
    assert SECRET.encode() not in Path(f"/proc/{shim}/environ").read_bytes()
    assert SECRET.encode() not in Path(f"/proc/{shim}/cmdline").read_bytes()
    (tmp_path / "go").touch()
    assert ended(folder)["code"] == 0
    assert output(tmp_path) == b"whole ***\ntwo *** halves, ***"
    assert [file.name for file in folder.iterdir() if SECRET.encode() in file.read_bytes()] == []


def test_without_input_tokens_and_passwords_in_urls_are_masked(tmp_path: Path) -> None:
    folder = make(tmp_path, f"echo pgw_{'a' * 43}; echo postgres://me:secret@db/lake")
    assert launch_with_input(folder, b"") == (0, "")
    ended(folder)
    assert output(tmp_path) == b"***\npostgres://me:***@db/lake\n"


@pytest.mark.parametrize("given", [b'["hunter2', b"{", b"7"])
def test_a_step_whose_secrets_can_not_be_read_is_not_started(tmp_path: Path, given: bytes) -> None:
    code, why = launch_with_input(make(tmp_path, "echo ran >> runs"), given)
    assert code == 74
    assert "hunter2" not in why
    assert not (tmp_path / "1-run/started").exists()
    assert not (tmp_path / "runs").exists()


def test_output_that_the_ring_already_has_is_counted_as_masked(tmp_path: Path) -> None:
    (tmp_path / f"output.{0:020}").write_bytes(b"one *** tw")
    folder = make(tmp_path, "printf 'one hunter22 two hunter22 three'", output_skip=10)
    assert launch_with_input(folder, b'["hunter22"]') == (0, "")
    ended(folder)
    assert output(tmp_path) == b"one *** two *** three"


def test_without_flush_bytes_that_may_begin_a_secret_are_not_written(tmp_path: Path) -> None:
    """The next copier reads them again."""
    folder = make(tmp_path, "printf 'one hunt'", output_rest=False)
    assert launch_with_input(folder, b'["hunter22"]') == (0, "")
    ended(folder)
    assert output(tmp_path) == b"one "


def test_the_error_of_a_start_is_masked_in_output_and_exit_record(tmp_path: Path) -> None:
    folder = make(tmp_path, "", argvs=[["/nowhere/hunter22"]])
    assert launch_with_input(folder, b'["hunter22"]') == (0, "")
    assert ended(folder)["error"].startswith("the program /nowhere/*** could not be started")
    assert output(tmp_path).startswith(b"the program /nowhere/*** could not be started")
