"""Steps on this host: real processes that are started, followed, stopped, lost and adopted by their folders."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from runners.detached import pidfd, supervisor
from runners.detached.supervisor import MARKER
from runners.outcome import (
    NOTHING_STOPPED,
    Command,
    Exited,
    Killed,
    Lost,
    NotStarted,
    Outcome,
    Stopped,
    StopReport,
    TimedOut,
)
from runners.output import OutputRing
from runners.process.local_runner import LocalRunner
from runners.runner import Liveness, Runner

pytestmark = pytest.mark.usefixtures("measured_shim")

CAP = 64 << 20
ENVIRONMENT = {"PATH": os.environ["PATH"]}
# waits for a file in its folder, like a step that takes long
UNTIL_GO = "until [ -e go ]; do sleep 0.02; done"


def sh(folder: Path, *scripts: str, **more: object) -> Command:
    argvs = tuple(("sh", "-c", script) for script in scripts)
    return Command(**{"argvs": argvs, "cwd": str(folder), "environment": ENVIRONMENT, **more})  # type: ignore[arg-type]  # a mapping of any values


def python(script: str) -> tuple[str, ...]:
    return sys.executable, "-I", "-S", "-c", textwrap.dedent(script)


def expect_supervised(seen: Liveness) -> None:
    assert seen is Liveness.SUPERVISED


async def run(runner: Runner, folder: Path, command: Command) -> Outcome:
    await runner.start(folder, command)
    return await runner.wait(folder, expect_supervised)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not condition():  # noqa: ASYNC110 - other processes set no event here
            await asyncio.sleep(0.01)


def marked_processes(folder: Path) -> list[int]:
    return list(pidfd.find_marked(f"{MARKER}={folder}"))


def is_running(pid: int) -> bool:
    """Whether any thread of it runs: where only the first has ended, the process looks like a zombie."""
    for thread in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            if thread.read_text().rpartition(")")[2].split()[0] not in "ZX":
                return True
        except OSError:  # it has ended meanwhile
            pass
    return False


def report(outcome: Outcome) -> StopReport:
    """How the step was stopped."""
    assert isinstance(outcome, Stopped | TimedOut | Lost)
    assert outcome.report is not None
    return outcome.report


def output(job: Path) -> str:
    return OutputRing(job).read(0, CAP).data.decode()


def printed(job: Path, *lines: str) -> list[str]:
    """Those of these lines that the output has, in its order; a shell whose `sleep` was killed prints more."""
    return [line for line in output(job).splitlines() if line in lines]


def shim_of(folder: Path) -> int:
    pid = json.loads((folder / "started").read_text())["pid"]
    assert isinstance(pid, int)
    return pid


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def children() -> list[str]:
    """The processes that this one has started; those of other tests' programs too."""
    return [pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


@pytest.fixture
def runner() -> LocalRunner:
    return LocalRunner(CAP)


@pytest.mark.parametrize("code", [0, 1, 2, 77, 255])
async def test_the_exit_code_is_the_programs(tmp_path: Path, runner: LocalRunner, code: int) -> None:
    outcome = await run(runner, tmp_path / "1-run", sh(tmp_path, f"exit {code}"))
    assert isinstance(outcome, Exited)
    assert outcome.code == code
    assert outcome.span.duration >= 0
    assert outcome.span.started <= outcome.span.finished


async def test_stdout_and_stderr_are_one_output_in_order(tmp_path: Path, runner: LocalRunner) -> None:
    await run(runner, tmp_path / "1-run", sh(tmp_path, "for i in 1 2 3; do echo out $i; echo err $i >&2; done"))
    assert output(tmp_path) == "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n"


async def test_the_steps_of_a_job_share_one_ring(tmp_path: Path, runner: LocalRunner) -> None:
    for number in range(1, 4):
        await run(runner, tmp_path / f"{number}-run", sh(tmp_path, f"seq {number}0000 {number}9999"))
    assert output(tmp_path) == "".join(f"{i}\n" for i in range(10000, 40000))
    assert (tmp_path / f"output.{0:020}").stat().st_size == 30000 * 6


async def test_the_commands_of_a_step_run_in_order_until_one_fails(tmp_path: Path, runner: LocalRunner) -> None:
    outcome = await run(runner, tmp_path / "1-run", sh(tmp_path, "echo one", "echo two; exit 3", "echo three"))
    assert isinstance(outcome, Exited)
    assert outcome.code == 3
    assert output(tmp_path) == "one\ntwo\n"


async def test_a_command_waits_for_all_processes_of_the_one_before(tmp_path: Path, runner: LocalRunner) -> None:
    left = "(trap 'sleep 0.3; echo left; exit' TERM; : > ready; while :; do sleep 0.02; done) &"
    ready = "until [ -e ready ]; do sleep 0.02; done"
    await run(runner, tmp_path / "1-run", sh(tmp_path, f"{left} {ready}", "echo next"))
    assert printed(tmp_path, "left", "next") == ["left", "next"]


async def test_a_missing_program_is_named(tmp_path: Path, runner: LocalRunner) -> None:
    command = Command((("/x/dbt", "build"),), str(tmp_path), ENVIRONMENT)
    outcome = await run(runner, tmp_path / "1-run", command)
    assert isinstance(outcome, NotStarted)
    assert outcome.why.startswith("the program /x/dbt could not be started: No such file or directory; check")
    assert output(tmp_path) == outcome.why + "\n"


async def test_a_missing_program_of_a_later_command_is_named(tmp_path: Path, runner: LocalRunner) -> None:
    command = Command((("echo", "first"), ("no-such-program",)), str(tmp_path), ENVIRONMENT)
    outcome = await run(runner, tmp_path / "1-run", command)
    assert isinstance(outcome, NotStarted)
    assert output(tmp_path) == f"first\n{outcome.why}\n"


async def test_a_missing_working_folder_is_named(tmp_path: Path, runner: LocalRunner) -> None:
    outcome = await run(runner, tmp_path / "1-run", sh(tmp_path / "gone", "echo no"))
    assert isinstance(outcome, NotStarted)
    assert f"working folder {tmp_path / 'gone'}" in outcome.why


async def test_a_reason_too_long_for_the_exit_record_is_cut(tmp_path: Path, runner: LocalRunner) -> None:
    program = "/" + "ä" * 100 + "\u20ac/" * 80
    outcome = await run(runner, tmp_path / "1-run", Command(((program,),), str(tmp_path), ENVIRONMENT))
    assert isinstance(outcome, NotStarted)
    assert outcome.why.startswith("the program /ää")
    assert outcome.why.endswith("…")
    assert (tmp_path / "1-run" / "exit").stat().st_size == 512


@pytest.mark.parametrize(
    "command",
    [
        Command((("echo", "a\0b"),), "/", ENVIRONMENT),
        Command((("echo", "\ud800"),), "/", ENVIRONMENT),
        Command((("echo", "x" * 200_000),), "/", ENVIRONMENT),
        Command((), "/", ENVIRONMENT),
        Command(((),), "/", ENVIRONMENT),
        Command((("echo",),), "/\0", ENVIRONMENT),
        Command((("echo",),), "/", {**ENVIRONMENT, "A": "the secret\0"}),
        Command((("echo",),), "/", {**ENVIRONMENT, "A=B": "the secret"}),
        Command((("echo",),), "/", {**ENVIRONMENT, "A": "the secret" * 50_000}),
    ],
    ids=["NUL", "surrogate", "long", "none", "empty", "cwd NUL", "variable NUL", "variable name", "long variable"],
)
async def test_a_command_that_can_not_be_executed_is_refused(
    tmp_path: Path, runner: LocalRunner, command: Command
) -> None:
    folder = tmp_path / "1-run"
    outcome = await run(runner, folder, command)
    assert isinstance(outcome, NotStarted)
    assert outcome.why.endswith(("trigger it again", "shorten its arguments or its environment"))
    assert "the secret" not in outcome.why
    assert await LocalRunner(CAP).wait(folder, expect_supervised) == outcome


async def test_a_step_whose_folder_can_not_be_made_is_refused(tmp_path: Path, runner: LocalRunner) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "1-run"):
        outcome = await run(runner, folder, sh(tmp_path, "echo no"))
        assert isinstance(outcome, NotStarted)
        assert str(tmp_path / "file") in outcome.why


async def test_a_refused_start_may_be_tried_again(tmp_path: Path, runner: LocalRunner) -> None:
    folder = tmp_path / "1-run"
    assert isinstance(await run(runner, folder, sh(tmp_path)), NotStarted)
    assert isinstance(await run(runner, folder, sh(tmp_path, "exit 0")), Exited)


async def test_a_step_without_any_file_is_lost(tmp_path: Path, runner: LocalRunner) -> None:
    """Only a written refusal says that a step was not started."""
    await runner.stop(tmp_path / "1-run")
    outcome = await runner.wait(tmp_path / "1-run", expect_supervised)
    assert isinstance(outcome, Lost)
    assert outcome.why.startswith("its files were removed")


async def test_the_step_of_a_folder_runs_once(tmp_path: Path, runner: LocalRunner) -> None:
    folder, command = tmp_path / "1-run", sh(tmp_path, "echo ran >> runs")
    starts = [(LocalRunner(CAP) if n % 2 else runner).start(folder, command) for n in range(6)]
    await asyncio.gather(*starts)
    outcomes = await asyncio.gather(*(LocalRunner(CAP).wait(folder, expect_supervised) for _ in range(3)))
    assert {type(outcome) for outcome in outcomes} == {Exited}
    await runner.start(folder, command)
    assert await runner.wait(folder, expect_supervised) == outcomes[0]
    assert (tmp_path / "runs").read_text() == "ran\n"


async def test_another_runner_adopts_a_running_step(tmp_path: Path, runner: LocalRunner) -> None:
    folder = tmp_path / "1-run"
    await runner.start(folder, sh(tmp_path, f"{UNTIL_GO}; exit 9"))
    seen: list[Liveness] = []
    waiting = asyncio.create_task(LocalRunner(CAP).wait(folder, seen.append))
    await until(lambda: bool(seen))
    (tmp_path / "go").touch()
    outcome = await waiting
    assert isinstance(outcome, Exited)
    assert outcome.code == 9
    assert seen == [Liveness.SUPERVISED]


async def test_a_step_outlives_the_process_that_started_it(tmp_path: Path, runner: LocalRunner) -> None:
    gateway = """
        import asyncio, pathlib, sys
        from runners.process.local_runner import LocalRunner
        from runners.outcome import Command
        async def main(job):
            runner = LocalRunner(1 << 20)
            script = "echo before; until [ -e go ]; do sleep 0.02; done; seq 50000; exit 7"
            await runner.start(job / "1-run", Command((("sh", "-c", script),), str(job), {}))
            await runner.wait(job / "1-run", print)
        asyncio.run(main(pathlib.Path(sys.argv[1])))
    """
    argv = [sys.executable, "-c", textwrap.dedent(gateway), str(tmp_path)]
    with subprocess.Popen(  # noqa: ASYNC220 - nothing else runs meanwhile
        argv, stdout=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as process:
        assert process.stdout is not None
        assert b"SUPERVISED" in process.stdout.readline()
        process.kill()
    (tmp_path / "go").touch()
    outcome = await runner.wait(tmp_path / "1-run", expect_supervised)
    assert isinstance(outcome, Exited)
    assert outcome.code == 7
    assert output(tmp_path) == "before\n" + "".join(f"{i}\n" for i in range(1, 50001))


async def test_cancelling_the_wait_does_not_stop_the_step(tmp_path: Path, runner: LocalRunner) -> None:
    folder = tmp_path / "1-run"
    await runner.start(folder, sh(tmp_path, UNTIL_GO))
    before = descriptors()
    seen: list[Liveness] = []
    waiting = asyncio.create_task(runner.wait(folder, seen.append))
    await until(lambda: bool(seen))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert descriptors() == before
    (tmp_path / "go").touch()
    assert isinstance(await runner.wait(folder, expect_supervised), Exited)


async def test_a_stop_right_after_the_start_ends_the_step(tmp_path: Path, runner: LocalRunner) -> None:
    for number in range(15):
        folder = tmp_path / f"{number}-run"
        await runner.start(folder, sh(tmp_path, "exec sleep 1000"))
        await runner.stop(folder)
        outcome = await runner.wait(folder, expect_supervised)
        assert isinstance(outcome, Stopped)
        assert outcome.code in (-1, 128 + signal.SIGTERM)
        if outcome.code == -1:  # no process of it was started
            assert replace(report(outcome), seconds=0.0) == NOTHING_STOPPED
        else:
            assert (report(outcome).signals, report(outcome).processes) == (("SIGTERM",), 1)


async def test_a_second_stop_changes_nothing(tmp_path: Path, runner: LocalRunner) -> None:
    folder = tmp_path / "1-run"
    command = sh(tmp_path, "trap ': > told; until [ -e go ]; do sleep 0.02; done; exit 4' TERM; : > ready; " + UNTIL_GO)
    await runner.start(folder, command)
    await until((tmp_path / "ready").exists)
    await runner.stop(folder)
    await until((tmp_path / "told").exists)
    await runner.stop(folder)
    (tmp_path / "go").touch()
    outcome = await runner.wait(folder, expect_supervised)
    assert isinstance(outcome, Stopped)
    assert outcome.code == 4
    await runner.stop(folder)
    assert await runner.wait(folder, expect_supervised) == outcome


async def test_a_stopped_step_starts_no_further_command(tmp_path: Path, runner: LocalRunner) -> None:
    folder = tmp_path / "1-run"
    await runner.start(folder, sh(tmp_path, f"trap 'exit 0' TERM; : > ready; {UNTIL_GO}", "echo no"))
    await until((tmp_path / "ready").exists)
    await runner.stop(folder)
    outcome = await runner.wait(folder, expect_supervised)
    assert isinstance(outcome, Stopped)
    assert outcome.code == 0
    assert printed(tmp_path, "no") == []


async def test_a_child_keeps_its_grace_if_its_parent_exits_at_once(tmp_path: Path, runner: LocalRunner) -> None:
    """As dbt under dbt-ol: the interrupt ends the wrapper, and dbt still writes its results."""
    child = (
        "trap 'sleep 0.5; echo results; exit' INT; trap 'echo too early' TERM; : > ready; while :; do sleep 0.02; done"
    )
    wrapper = f"""
        import signal, subprocess
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        subprocess.run(["sh", "-c", {child!r}])
    """
    folder = tmp_path / "1-run"
    command = Command((python(wrapper),), str(tmp_path), ENVIRONMENT, interrupt=signal.SIGINT, grace=60.0)
    await runner.start(folder, command)
    await until((tmp_path / "ready").exists)
    await runner.stop(folder)
    outcome = await runner.wait(folder, expect_supervised)
    assert isinstance(outcome, Stopped)
    assert outcome.code == 128 + signal.SIGINT
    assert report(outcome).signals == ("SIGINT",)
    assert report(outcome).seconds >= 0.5
    assert printed(tmp_path, "results", "too early") == ["results"]


async def test_a_step_that_ignores_int_and_term_is_killed(tmp_path: Path, runner: LocalRunner) -> None:
    folder = tmp_path / "1-run"
    script = "trap '' INT TERM; : > ready; (while :; do sleep 0.02; done) & while :; do sleep 0.02; done"
    await runner.start(folder, sh(tmp_path, script, interrupt=signal.SIGINT, grace=0.2))
    await until((tmp_path / "ready").exists)
    await runner.stop(folder)
    outcome = await runner.wait(folder, expect_supervised)
    assert isinstance(outcome, Stopped)
    assert outcome.code == 128 + signal.SIGKILL
    assert report(outcome).signals == ("SIGINT", "SIGTERM", "SIGKILL")
    assert report(outcome).seconds >= 0.4
    assert (report(outcome).processes or 0) >= 2
    assert marked_processes(folder) == []


async def test_a_step_is_stopped_at_its_time_limit(tmp_path: Path, runner: LocalRunner) -> None:
    command = sh(tmp_path, "exec sleep 1000", "echo no", interrupt=signal.SIGINT, time_limit=0.3)
    outcome = await run(runner, tmp_path / "1-run", command)
    assert isinstance(outcome, TimedOut)
    assert outcome.code == 128 + signal.SIGINT
    assert (report(outcome).signals, report(outcome).processes) == (("SIGINT",), 1)
    assert outcome.span.duration >= 0.3


async def test_a_signal_from_another_process_is_reported_as_killed(tmp_path: Path, runner: LocalRunner) -> None:
    outcome = await run(runner, tmp_path / "1-run", sh(tmp_path, "kill -KILL $$"))
    assert isinstance(outcome, Killed)
    assert outcome.signal == signal.SIGKILL


RUNAWAY = """
    import os, signal, sys, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            if "stubborn" in sys.argv:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            with open("runaway.new", "w") as file:
                file.write(str(os.getpid()))
            os.rename("runaway.new", "runaway")
            os.closerange(0, 1000)
            while True:
                time.sleep(60)
        os._exit(0)
    os.wait()
    while "stays" in sys.argv or not os.path.exists("runaway"):
        time.sleep(0.02)
"""


@pytest.mark.parametrize("arguments", [(), ("stubborn",)], ids=["ends at SIGTERM", "ignores SIGTERM"])
async def test_a_grandchild_in_another_session_is_ended_with_its_step(
    tmp_path: Path, runner: LocalRunner, arguments: tuple[str, ...]
) -> None:
    command = Command(((*python(RUNAWAY), *arguments),), str(tmp_path), ENVIRONMENT, grace=0.2)
    outcome = await run(runner, tmp_path / "1-run", command)
    assert isinstance(outcome, Exited)
    assert outcome.code == 0
    assert not is_running(int((tmp_path / "runaway").read_text()))


@pytest.mark.parametrize("arguments", [(), ("stubborn",)], ids=["ends at SIGTERM", "ignores SIGTERM"])
async def test_a_grandchild_in_another_session_is_ended_by_a_stop(
    tmp_path: Path, runner: LocalRunner, arguments: tuple[str, ...]
) -> None:
    folder = tmp_path / "1-run"
    await runner.start(
        folder, Command(((*python(RUNAWAY), "stays", *arguments),), str(tmp_path), ENVIRONMENT, grace=0.2)
    )
    await until((tmp_path / "runaway").exists)
    await runner.stop(folder)
    outcome = await runner.wait(folder, expect_supervised)
    assert isinstance(outcome, Stopped)
    assert report(outcome).signals == (("SIGTERM", "SIGKILL") if arguments else ("SIGTERM",))
    assert report(outcome).processes == 2
    assert not is_running(int((tmp_path / "runaway").read_text()))


# A daemon as it should be: its own session, no variable of the step, and its parents have ended. No SIGTERM ends it.
DAEMON = """
    import os, time
    if os.fork() == 0:
        os.setsid()
        between = os.getpid()
        if os.fork() == 0:
            while os.getppid() == between:
                time.sleep(0.01)
            script = "trap '' TERM; echo $PPID $$ > daemon.new; mv daemon.new daemon; while :; do sleep 0.1; done"
            os.execve("/bin/sh", ["sh", "-c", script], {"PATH": os.environ["PATH"]})
        os._exit(0)
    os.wait()
    time.sleep(1000)
"""


@pytest.mark.parametrize("orphaned", [False, True])
async def test_a_daemon_without_the_steps_variables_is_ended_with_its_step(
    tmp_path: Path, runner: LocalRunner, monkeypatch: pytest.MonkeyPatch, orphaned: bool
) -> None:
    monkeypatch.setattr(supervisor, "_CONTINUE_INTERVAL", 0.05)
    folder = tmp_path / "1-run"
    await runner.start(folder, Command((python(DAEMON),), str(tmp_path), ENVIRONMENT, grace=0.2))
    await until((tmp_path / "daemon").exists)
    parent, daemon = map(int, (tmp_path / "daemon").read_text().split())
    assert parent == shim_of(folder)
    waiting = asyncio.create_task(runner.wait(folder, lambda _: None))
    if orphaned:
        await until((folder / "orphans").exists)
        os.kill(parent, signal.SIGKILL)
    else:
        await runner.stop(folder)
    outcome = await waiting
    assert isinstance(outcome, Lost if orphaned else Stopped)
    assert report(outcome).signals == ("SIGTERM", "SIGKILL")
    assert (report(outcome).processes or 0) >= 2
    assert not is_running(daemon)


async def test_a_child_with_the_output_open_does_not_delay_the_end(tmp_path: Path, runner: LocalRunner) -> None:
    outcome = await run(runner, tmp_path / "1-run", sh(tmp_path, "sleep 1000 & echo done"))
    assert isinstance(outcome, Exited)
    assert output(tmp_path) == "done\n"
    await until(lambda: not marked_processes(tmp_path / "1-run"))  # the shim itself ends a moment after its record


@pytest.mark.parametrize("arguments", [(), ("stubborn",)], ids=["ends at SIGTERM", "ignores SIGTERM"])
async def test_a_step_whose_supervisor_was_killed_is_ended_and_lost(
    tmp_path: Path, runner: LocalRunner, arguments: tuple[str, ...]
) -> None:
    folder = tmp_path / "1-run"
    await runner.start(
        folder, Command(((*python(RUNAWAY), "stays", *arguments),), str(tmp_path), ENVIRONMENT, grace=0.2)
    )
    await until((tmp_path / "runaway").exists)
    seen: list[Liveness] = []
    waiting = asyncio.create_task(runner.wait(folder, seen.append))
    await until(lambda: bool(seen))
    os.kill(shim_of(folder), signal.SIGKILL)
    outcome = await waiting
    assert isinstance(outcome, Lost)
    assert outcome.why.startswith("its supervisor was killed")
    assert report(outcome).signals == (("SIGTERM", "SIGKILL") if arguments else ("SIGTERM",))
    assert report(outcome).processes == 2
    assert seen == [Liveness.SUPERVISED, Liveness.ORPHANED]
    assert marked_processes(folder) == []
    assert not is_running(int((tmp_path / "runaway").read_text()))
    # it stays lost when no process is left
    seen.clear()
    assert await LocalRunner(CAP).wait(folder, seen.append) == outcome
    await runner.start(folder, sh(tmp_path, "echo again"))
    assert await runner.wait(folder, seen.append) == outcome
    assert seen == []
    assert output(tmp_path) == ""


# A child without the environment by which a step's processes are found, which no SIGTERM ends.
HIDDEN = """
    import os, subprocess, sys, time
    child = "trap '' TERM; echo $$ > hidden; while :; do /bin/sleep 0.1; done"
    subprocess.Popen(["/bin/sh", "-c", child], env={}, start_new_session=True)
    while True:
        time.sleep(60)
"""


@pytest.mark.parametrize("gateways", [1, 2])
async def test_an_orphan_that_was_found_through_its_parent_is_ended_too(
    tmp_path: Path, runner: LocalRunner, gateways: int
) -> None:
    """With two gateways, the first ends after it has ended the parent."""
    folder = tmp_path / "1-run"
    grace = 1.0 if gateways == 1 else 600.0
    await runner.start(folder, Command((python(HIDDEN),), str(tmp_path), ENVIRONMENT, grace=grace))
    await until(lambda: (tmp_path / "hidden").exists() and bool((tmp_path / "hidden").read_text()))
    hidden = int((tmp_path / "hidden").read_text())
    os.kill(shim_of(folder), signal.SIGKILL)
    if gateways == 2:
        waiting = asyncio.create_task(runner.wait(folder, lambda _: None))
        await until(lambda: not marked_processes(folder))
        waiting.cancel()
        await asyncio.wait([waiting])
        assert is_running(hidden)
        spec = json.loads((folder / "spec.json").read_text())
        (folder / "spec.json").write_text(json.dumps({**spec, "grace": 0.1}))
    assert isinstance(await LocalRunner(CAP).wait(folder, lambda _: None), Lost)
    assert not is_running(hidden)


# A process whose first thread has ended: it looks like a zombie, while its other thread goes on.
HEADLESS = """
    import ctypes, os, threading, time
    def go_on():
        while open("/proc/self/stat").read().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        with open("headless.new", "w") as file:
            file.write(str(os.getpid()))
        os.rename("headless.new", "headless")
        time.sleep(1000)
    threading.Thread(target=go_on).start()
    ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)
"""


@pytest.mark.parametrize("orphaned", [False, True])
async def test_a_process_whose_first_thread_has_ended_is_ended_too(
    tmp_path: Path, runner: LocalRunner, orphaned: bool
) -> None:
    folder = tmp_path / "1-run"
    await runner.start(folder, Command((python(HEADLESS),), str(tmp_path), ENVIRONMENT))
    await until((tmp_path / "headless").exists)
    pid = int((tmp_path / "headless").read_text())
    if orphaned:
        os.kill(shim_of(folder), signal.SIGKILL)
    else:
        await runner.stop(folder)
    outcome = await runner.wait(folder, lambda _: None)
    assert isinstance(outcome, Lost if orphaned else Stopped)
    assert (report(outcome).signals, report(outcome).processes) == (("SIGTERM",), 1)
    assert not is_running(pid)


async def test_a_step_started_before_a_reboot_is_lost(tmp_path: Path, runner: LocalRunner) -> None:
    folder = tmp_path / "1-run"
    await run(runner, folder, sh(tmp_path, "exit 0"))
    started = json.loads((folder / "started").read_text())
    (folder / "started").write_text(json.dumps({**started, "boot": "another"}))
    (folder / "exit").write_bytes(b" " * 512)
    outcome = await runner.wait(folder, expect_supervised)
    assert isinstance(outcome, Lost)
    assert outcome.why.startswith("the host was rebooted")


async def test_a_step_with_files_cut_off_by_a_power_failure_is_lost(tmp_path: Path, runner: LocalRunner) -> None:
    folder = tmp_path / "1-run"
    folder.mkdir()
    (folder / "started").touch()
    (folder / "exit").write_bytes(b"\0" * 512)
    assert isinstance(await runner.wait(folder, expect_supervised), Lost)
    await runner.stop(folder)


async def test_no_value_of_the_environment_is_written_to_a_file(tmp_path: Path, runner: LocalRunner) -> None:
    secret = "hunter2-and-some-more"
    command = sh(tmp_path, 'echo ${#SECRET}; [ -z "$LC_CTYPE$LANG" ]', environment={"SECRET": secret})
    outcome = await run(runner, tmp_path / "1-run", command)
    assert isinstance(outcome, Exited)
    assert outcome.code == 0
    assert output(tmp_path) == f"{len(secret)}\n"
    assert [path for path in files(tmp_path) if secret.encode() in path.read_bytes()] == []
    assert "SECRET" in json.loads((tmp_path / "1-run" / "spec.json").read_text())["environment"]


async def test_thirty_steps_leak_no_descriptor_and_no_zombie(tmp_path: Path, runner: LocalRunner) -> None:
    async def one(number: int) -> Outcome:
        return await run(runner, tmp_path / f"{number}-run", sh(tmp_path, f"exit {number}"))

    others = children()
    await one(0)
    before = descriptors()
    for first in range(1, 31, 5):
        outcomes = await asyncio.gather(*map(one, range(first, first + 5)))
        assert [outcome.code for outcome in outcomes if isinstance(outcome, Exited)] == list(range(first, first + 5))
    assert descriptors() == before
    assert children() == others


async def test_a_large_output_is_bounded_and_its_offsets_stay_correct(tmp_path: Path) -> None:
    cap, total = 8 << 20, 200_000_000
    script = """
        import sys
        for first in range(0, 2_000_000, 10_000):
            sys.stdout.write("".join(f"{n * 100:099}\\n" for n in range(first, first + 10_000)))
    """
    job = tmp_path
    outcome = await run(LocalRunner(cap), job / "1-run", Command((python(script),), str(job), ENVIRONMENT))
    assert isinstance(outcome, Exited)
    assert outcome.code == 0
    ring = OutputRing(job)
    first, end = ring.bounds()
    assert end == total
    assert cap // 2 < end - first <= cap
    assert sum(path.stat().st_size for path in files(job) if path.parent == job) == end - first
    for offset in range(first + 99 - (first + 99) % 100, end, 100_000):  # each line contains its own offset
        assert ring.read(offset, 100).data == b"%099d\n" % offset
    assert ring.read(0, 10).start == first
    assert ring.tail(100).data == b"%099d\n" % (total - 100)
    assert json.loads((job / "1-run" / "exit").read_text())["dropped"] == 0
