"""SIGKILL and lost engines while steps run in containers: one container, all of its output, the right outcome."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from runners.containers.identity import INSTANCE_LABEL, JOB_LABEL, STEP_LABEL
from runners.output import OutputRing
from tests.conftest import MakeGateway
from tests.support import compose
from tests.support.docker import BUSYBOX_IMAGE, Engine
from tests.support.gateway import DEADLINE, PATH, Gateway, wait_for

# Numbered lines on both streams, then it waits for the file `go`.
TALKER = """
    echo run >> runs
    n=0
    while [ $n -lt {lines} ]; do
        n=$((n + 1))
        echo "out $n"
        echo "err $n" >&2
        sleep 0.002
    done
    touch printed
    while [ ! -e go ]; do sleep 0.01; done
    printf 'done' >&2
    touch over
    exit {code}
"""
LINES = 400
# Enough of dbt's output for its `deps` to count.
DBT = """
    echo run >> dbt_runs
    echo '{"info": {"name": "MainReportVersion", "level": "info", "msg": "Running with dbt=1.11.0"}}'
"""

MakeLake = Callable[..., Gateway]
Victim = Callable[[Gateway, str], None]


@pytest.fixture
def lake(tmp_path: Path, make_gateway: MakeGateway, engine: Engine) -> Iterator[MakeLake]:
    """Make gateways on compose projects, on the shared engine; all they started is removed afterwards."""
    made: list[Gateway] = []

    def make(name: str = "lake", **how: Any) -> Gateway:
        made.append(make_gateway(project(tmp_path / name, **how), engine.environment))
        return made[-1]

    yield make
    for gateway in made:
        gateway.stop()
        if found := containers(engine, gateway):
            engine.docker("rm", "--force", *found)
        wait_for(lambda state=str(gateway.state): not processes(state), "the end of what the gateway began")


@pytest.fixture
def own_lake(tmp_path: Path, make_gateway: MakeGateway, own_engine: Engine) -> MakeLake:
    """The same on an engine of the test's own, which is removed with its containers."""

    def make(name: str = "lake", **how: Any) -> Gateway:
        return make_gateway(project(tmp_path / name, **how), own_engine.environment)

    return make


def project(folder: Path, *, ingester: str = TALKER.format(lines=LINES, code=7), dbt: str = DBT) -> Path:
    """A compose project whose services are these shell scripts, which begin in the project's folder."""
    common = {"working_dir": "/shared", "stop_grace_period": "1s"}
    services = {
        "ingester": compose.shell(dedent(ingester), **common),
        "dbt": compose.service(entrypoint=["sh", "-c", dedent(dbt)], **common),
    }
    return compose.write(folder, **services)


def containers(engine: Engine, gateway: Gateway) -> list[str]:
    """The names of all containers of a gateway."""
    label = f"label={INSTANCE_LABEL}={instance(gateway)}"
    return engine.docker("ps", "--all", "--format={{.Names}}", f"--filter={label}").splitlines()


def instance(gateway: Gateway) -> str:
    """The id of a gateway, which is a label of its containers."""
    return str(json.loads((gateway.state / "instance").read_text())["id"])


def identity(engine: Engine, job: str) -> str:
    """What another container, or another start of the same one, would change."""
    return compose.inspect(engine, compose.name_of(job), "{{.Id}} {{.State.StartedAt}}")


def output(gateway: Gateway, job: str) -> bytes:
    """The whole output of a job as it is stored."""
    return OutputRing(gateway.state / "jobs" / job).read(0, 1 << 30).data


def lines(text: bytes, stream: str) -> list[str]:
    """The lines of one stream, which begin with its name; each stream is in order by itself."""
    return [line for line in text.decode().splitlines() if line.startswith(stream)]


def numbered(stream: str, count: int = LINES) -> list[str]:
    return [f"{stream} {number}" for number in range(1, count + 1)]


def is_complete(text: bytes, count: int = LINES) -> bool:
    """Whether it is exactly the talker's output, without gaps or repetitions."""
    ours = lines(text, "out") == numbered("out", count) and lines(text, "err") == numbered("err", count)
    return ours and len(text.splitlines()) == 2 * count + 1 and text.endswith(b"\ndone")


def ran_once(gateway: Gateway, record: dict[str, Any], code: int = 7, count: int = LINES) -> bool:
    """Whether the talker ran exactly once and its record is complete."""
    assert (record["status"], record["exitCode"]) == ("completed", code), record
    assert (gateway.folder / "runs").read_text() == "run\n"
    text = output(gateway, record["jobId"])
    assert is_complete(text, count), text.decode()
    return True


def processes(*words: str) -> list[int]:
    """The processes whose command line has all these words in it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            command = (folder / "cmdline").read_bytes()
            if command and all(word.encode() in command for word in words):
                found.append(int(folder.name))
    return found


def kill(*words: str) -> bool:
    """SIGKILL to these processes; whether there were any."""
    found = processes(*words)
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(found)


def kill_gateway(gateway: Gateway, _job: str) -> None:
    gateway.kill()
    gateway.start()


def kill_copier(_gateway: Gateway, job: str) -> None:
    wait_for(lambda: kill("\0logs\0", "\0--follow\0", compose.name_of(job)), "a docker command that follows the log")


def kill_supervisor(gateway: Gateway, job: str) -> None:
    folder = gateway.state / "jobs" / job / "1-ingester/container-1/logs-"
    wait_for(lambda: kill("shim.py", str(folder)), "the supervisor of a docker command that follows the log")


def kill_both(gateway: Gateway, job: str) -> None:
    kill_supervisor(gateway, job)
    kill("\0logs\0", "\0--follow\0", compose.name_of(job))  # the gateway may have started another meanwhile


def kill_all(gateway: Gateway, job: str) -> None:
    kill_both(gateway, job)  # first, because only a living gateway starts a copier if there is none
    gateway.kill()
    kill(str(gateway.state / "jobs" / job))
    kill("\0logs\0", compose.name_of(job))
    gateway.start()


def soon(condition: Any, what: str) -> None:
    """As wait_for, but with almost no delay."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"waited {DEADLINE:.0f} s for {what}"
        time.sleep(0.0005)


# --- the gateway ---


def test_a_killed_gateway_adopts_the_container_and_its_exit_code(lake: MakeLake, engine: Engine) -> None:
    gateway = lake()
    job = gateway.trigger(pipeline="ingester")
    wait_for(lambda: "out 5\n" in gateway.poll(job)["output"], "some output")
    before = identity(engine, job)
    gateway.kill()
    gateway.start()
    record = gateway.poll(job)
    assert (record["status"], record["phase"]) == ("running", "ingester")
    assert identity(engine, job) == before
    (gateway.folder / "go").touch()
    assert ran_once(gateway, gateway.finished(job))
    wait_for(lambda: not containers(engine, gateway), "the removal of the container")


def test_a_container_that_ended_without_a_gateway_is_recorded_whole(lake: MakeLake, engine: Engine) -> None:
    """With all of its output and its exit code."""
    gateway = lake()
    job = gateway.trigger(pipeline="ingester")
    wait_for(lambda: "out 5\n" in gateway.poll(job)["output"], "some output")
    gateway.kill()
    (gateway.folder / "go").touch()
    assert engine.docker("wait", compose.name_of(job)).strip() == "7"
    gateway.start()
    assert ran_once(gateway, gateway.finished(job))
    wait_for(lambda: not containers(engine, gateway), "the removal of the container")


def test_a_container_whose_log_had_no_reader_has_all_its_output(lake: MakeLake, engine: Engine) -> None:
    gateway = lake()
    job = gateway.trigger(pipeline="ingester")
    wait_for(lambda: "out 5\n" in gateway.poll(job)["output"], "some output")
    gateway.kill()
    kill_both(gateway, job)
    (gateway.folder / "go").touch()
    engine.docker("wait", compose.name_of(job))
    gateway.start()
    assert ran_once(gateway, gateway.finished(job))


_CONTAINER = "1-ingester/container-1"


@pytest.mark.parametrize(
    "moment",
    [
        "",
        "1-ingester",
        "1-ingester/container.json",
        f"{_CONTAINER}/make-1",
        f"{_CONTAINER}/make-1/spec.json",
        f"{_CONTAINER}/make-1/lock",
        f"{_CONTAINER}/make-1/started",
        f"{_CONTAINER}/begin",
        f"{_CONTAINER}/logs-1",
        f"{_CONTAINER}/logs-1/spec.json",
        f"{_CONTAINER}/logs-1/started",
        f"{_CONTAINER}/logs-2",
        f"{_CONTAINER}/logs-2/started",
    ],
)
def test_a_gateway_killed_at_any_file_of_a_step_runs_the_step_once(lake: MakeLake, engine: Engine, moment: str) -> None:
    gateway = lake(ingester=TALKER.format(lines=20, code=3))
    job = gateway.trigger(pipeline="ingester")
    folder = gateway.state / "jobs" / job
    if "logs-2" in moment:  # a container that ends at once may have no follower, only one read of its log
        soon((folder / _CONTAINER / "logs-1/started").exists, "a follower")
    (gateway.folder / "go").touch()
    if moment:
        soon((folder / moment).exists, moment)
    gateway.kill()
    gateway.start()
    gateway.kill()  # and again, just after it has adopted the job
    gateway.start()
    assert ran_once(gateway, gateway.finished(job), code=3, count=20)
    wait_for(lambda: not containers(engine, gateway), "the removal of the container")


@pytest.mark.parametrize("seed", range(6))
def test_output_is_complete_whatever_process_is_killed_at_any_time(lake: MakeLake, engine: Engine, seed: int) -> None:
    chance = random.Random(seed)
    victims: list[Victim] = [kill_gateway, kill_copier, kill_supervisor, kill_both, kill_all]
    gateway = lake()
    job = gateway.trigger(pipeline="ingester")
    soon(lambda: lines(output(gateway, job), "out"), "some output")
    before = identity(engine, job)
    for least in sorted(chance.randrange(6000) for _ in range(5)):
        soon(lambda least=least: len(output(gateway, job)) >= least, f"{least} bytes of output")
        chance.choice(victims)(gateway, job)
    (gateway.folder / "go").touch()
    if containers(engine, gateway):
        assert identity(engine, job) == before
    assert ran_once(gateway, gateway.finished(job))
    wait_for(lambda: not containers(engine, gateway), "the removal of the container")


def test_output_over_its_cap_keeps_its_exact_end_across_kills(lake: MakeLake) -> None:
    torrent = """
        seq 1 60000
        touch half
        while [ ! -e more ]; do sleep 0.01; done
        seq 60001 120000
        while [ ! -e go ]; do sleep 0.01; done
    """
    gateway = lake(ingester=torrent)
    gateway.stop()
    gateway.environment["GATEWAY_OUTPUT_CAP"] = "256KiB"
    gateway.start()
    whole = "".join(f"{number}\n" for number in range(1, 120_001)).encode()
    job = gateway.trigger(pipeline="ingester")
    ring = OutputRing(gateway.state / "jobs" / job)
    soon(lambda: ring.bounds()[1] > 100_000, "some output")
    kill_all(gateway, job)
    soon((gateway.folder / "half").exists, "half of the lines")
    kill_copier(gateway, job)
    (gateway.folder / "more").touch()
    soon(lambda: ring.bounds()[1] > 500_000, "more output")
    kill_supervisor(gateway, job)
    (gateway.folder / "go").touch()
    assert gateway.finished(job)["exitCode"] == 0
    begin, end = ring.bounds()
    assert end == len(whole)
    assert 0 < end - begin <= 256 * 1024
    assert ring.read(begin, end - begin).data == whole[begin:end]


# --- the docker command line ---


@pytest.mark.parametrize("victim", [kill_copier, kill_supervisor, kill_both])
def test_the_reader_of_the_log_may_be_killed_repeatedly(lake: MakeLake, victim: Victim) -> None:
    gateway = lake()
    job = gateway.trigger(pipeline="ingester")
    for number in (1, 100, 200, 300, LINES):
        soon(lambda number=number: f"out {number}\n".encode() in output(gateway, job), f"line {number}")
        victim(gateway, job)
    assert gateway.poll(job)["status"] == "running"
    (gateway.folder / "go").touch()
    assert ran_once(gateway, gateway.finished(job))


@pytest.mark.parametrize("moment", ["logs-2", "logs-2/spec.json", "logs-2/lock", "logs-2/started"])
def test_a_repair_of_the_output_cut_off_by_a_kill_is_done_by_the_next(lake: MakeLake, moment: str) -> None:
    gateway = lake()
    job = gateway.trigger(pipeline="ingester")
    soon(lambda: b"out 200\n" in output(gateway, job), "half of the lines")
    kill_copier(gateway, job)
    soon((gateway.state / "jobs" / job / _CONTAINER / moment).exists, moment)
    gateway.kill()
    gateway.start()
    (gateway.folder / "go").touch()
    assert ran_once(gateway, gateway.finished(job))


def _make_command(job: str) -> tuple[str, ...]:
    return "\0compose\0", "\0run\0", f"--name={compose.name_of(job)}\0"


def _ran_once_or_is_unknown(gateway: Gateway, record: dict[str, Any]) -> None:
    """Whether the talker ran, once, or no container of it was ever seen and its job says that it can't know."""
    if (gateway.folder / "runs").exists():
        assert ran_once(gateway, record, code=3, count=20)
    else:
        assert (record["status"], record["reason"]) == ("failed", "unknown"), record
        assert "`docker compose run` was killed" in record["error"]


def test_a_docker_compose_run_killed_at_once_is_not_repeated(lake: MakeLake, engine: Engine) -> None:
    gateway = lake(ingester=TALKER.format(lines=20, code=3))
    (gateway.folder / "go").touch()
    job = gateway.trigger(pipeline="ingester")
    soon(lambda: kill(*_make_command(job)), "docker compose run")
    _ran_once_or_is_unknown(gateway, gateway.finished(job))
    wait_for(lambda: not containers(engine, gateway), "the removal of the container")


@pytest.mark.parametrize("event", ["create", "start"])
def test_docker_compose_run_may_be_killed_once_the_container_exists(lake: MakeLake, engine: Engine, event: str) -> None:
    gateway = lake(ingester=TALKER.format(lines=20, code=3))
    (gateway.folder / "go").touch()
    command = ["docker", "events", f"--since={int(time.time())}", "--filter=type=container", f"--filter=event={event}"]
    environment = {**os.environ, **engine.environment}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as events:
        job = gateway.trigger(pipeline="ingester")
        assert events.stdout is not None
        next(line for line in events.stdout if compose.name_of(job) in line)
        kill(*_make_command(job))
        events.kill()
    assert ran_once(gateway, gateway.finished(job), code=3, count=20)
    wait_for(lambda: not containers(engine, gateway), "the removal of the container")


def test_the_supervisor_of_docker_compose_run_may_be_killed(lake: MakeLake, engine: Engine) -> None:
    gateway = lake(ingester=TALKER.format(lines=20, code=3))
    (gateway.folder / "go").touch()
    job = gateway.trigger(pipeline="ingester")
    folder = gateway.state / "jobs" / job / _CONTAINER / "make-1"
    soon((folder / "started").exists, "the supervisor")
    kill("shim.py", str(folder))
    _ran_once_or_is_unknown(gateway, gateway.finished(job))
    wait_for(lambda: not containers(engine, gateway), "the removal of the container")


# --- leftovers ---


def test_a_gateway_killed_once_the_job_has_ended_leaves_no_container(lake: MakeLake, engine: Engine) -> None:
    gateway = lake(ingester="echo hello\n")
    job = gateway.trigger(pipeline="ingester")
    soon(lambda: gateway.poll(job)["status"] != "running", "the end of the job")
    gateway.kill()
    gateway.start()
    assert gateway.poll(job)["exitCode"] == 0
    wait_for(lambda: not containers(engine, gateway), "the removal of the container")


def test_a_start_removes_its_own_stopped_containers_of_unknown_jobs(lake: MakeLake, engine: Engine) -> None:
    """It removes no others."""
    gateway = lake()
    gateway.stop()
    # an engine lists the newest first, so the foreign container comes before the others
    made = [_by_hand(engine, instance(gateway)) for _ in range(2)]
    foreign = _by_hand(engine, "0" * 16)
    try:
        engine.docker("start", made[0])
        engine.docker("start", foreign)
        engine.docker("wait", made[0], foreign)
        gateway.start()
        wait_for(lambda: not containers(engine, gateway), "the removal of the gateway's own")
        left = engine.docker("ps", "--all", "--quiet", "--no-trunc").split()
        assert [one for one in (*made, foreign) if one in left] == [foreign]
    finally:
        engine.try_docker("rm", "--force", *made, foreign)


def test_a_running_container_of_an_unknown_job_is_kept(lake: MakeLake, engine: Engine) -> None:
    """The database may be a copy or may have been restored."""
    gateway = lake()
    gateway.stop()
    running, ended = (_by_hand(engine, instance(gateway), *command) for command in (["sleep", "1000"], ["true"]))
    try:
        engine.docker("start", running, ended)
        engine.docker("wait", ended)
        gateway.start()
        wait_for(lambda: len(containers(engine, gateway)) == 1, "the removal of the one that ended")
        assert engine.docker("inspect", "--format={{.State.Running}}", running).strip() == "true"
    finally:
        engine.try_docker("rm", "--force", running, ended)


def _by_hand(engine: Engine, owner: str, *command: str) -> str:
    """Make a container as a gateway does, for a job that does not exist, and return its id."""
    labels = {INSTANCE_LABEL: owner, JOB_LABEL: "ingester-1-abcdef", STEP_LABEL: "1-ingester"}
    options = [f"--label={label}={value}" for label, value in labels.items()]
    return engine.docker("create", "--network=none", *options, BUSYBOX_IMAGE, *(command or ["true"])).strip()


def test_gateways_that_share_an_engine_do_not_affect_each_other(lake: MakeLake, engine: Engine) -> None:
    first, second = lake("first"), lake("second")
    jobs = {gateway: gateway.trigger(pipeline="ingester") for gateway in (first, second)}
    for gateway, job in jobs.items():
        wait_for(lambda gateway=gateway, job=job: output(gateway, job), "some output")
    before = {job: identity(engine, job) for job in jobs.values()}
    first.kill()
    (second.folder / "go").touch()
    second.kill()
    second.start()  # and looks for leftovers
    assert ran_once(second, second.finished(jobs[second]))
    wait_for(lambda: not containers(engine, second), "the removal of the one container")
    assert identity(engine, jobs[first]) == before[jobs[first]]
    first.start()
    (first.folder / "go").touch()
    assert ran_once(first, first.finished(jobs[first]))


# --- the engine ---

LATER = """
    echo run >> runs
    trap 'echo trapped; exit 5' TERM
    echo begun
    while [ ! -e go ]; do sleep 0.01; done
    echo done
"""
STUBBORN = LATER.replace("trap 'echo trapped; exit 5' TERM", "")


def unreachable(gateway: Gateway, job: str) -> bool:
    """Whether the job's phase is `unreachable`; its record must be answered at once."""
    record = gateway.poll(job)
    assert record["status"] == "running", record
    return bool(record["phase"] == "unreachable")


@pytest.mark.parametrize("ended", [Engine.stop, Engine.kill])
def test_a_container_that_outlives_its_engine_is_followed_again(
    own_lake: MakeLake, own_engine: Engine, ended: Callable[[Engine], None]
) -> None:
    own_engine.stop()
    own_engine.start(live_restore=True)
    gateway = own_lake()
    job = gateway.trigger(pipeline="ingester")
    wait_for(lambda: b"out 50\n" in output(gateway, job), "some output")
    before = identity(own_engine, job)
    ended(own_engine)
    wait_for(lambda: unreachable(gateway, job), "the loss of the engine")
    own_engine.start(live_restore=True)
    wait_for(lambda: gateway.poll(job)["phase"] == "ingester", "the engine")
    wait_for((gateway.folder / "printed").exists, "the last lines")
    assert identity(own_engine, job) == before
    log = own_engine.try_docker("logs", compose.name_of(job))
    wait_for(lambda: numbered("err")[-1].encode() in output(gateway, job), "the last lines in the output")
    (gateway.folder / "go").touch()
    record = gateway.finished(job)
    assert (record["status"], record["exitCode"]) == ("completed", 7), record
    # an engine may lose lines at a restart; the output must match its log
    text = output(gateway, job)
    assert lines(text, "out") == log.stdout.splitlines()
    assert lines(text, "err") == log.stderr.splitlines()
    assert text.splitlines()[-1] == b"done"
    assert len(text.splitlines()) == len(log.stdout.splitlines()) + len(log.stderr.splitlines()) + 1
    wait_for(lambda: not containers(own_engine, gateway), "the removal of the container")


@pytest.mark.parametrize("ended", [Engine.stop, Engine.kill])
@pytest.mark.parametrize("script", [LATER, STUBBORN], ids=["trapped", "not_trapped"])
def test_a_container_that_ends_with_its_engine_is_recorded_correctly(
    own_lake: MakeLake, own_engine: Engine, ended: Callable[[Engine], None], script: str
) -> None:
    gateway = own_lake(ingester=script)
    job = gateway.trigger(pipeline="ingester")
    wait_for(lambda: b"begun\n" in output(gateway, job), "the container")
    ended(own_engine)
    wait_for(lambda: unreachable(gateway, job), "the loss of the engine")
    own_engine.start()
    record = gateway.finished(job)
    own = output(gateway, job).endswith(b"trapped\n")
    truth = ("completed", 5, None) if own else ("failed", -1, "killed")
    assert (record["status"], record["exitCode"], record.get("reason")) == truth, record
    assert output(gateway, job) in (b"begun\n", b"begun\ntrapped\n")
    assert (gateway.folder / "runs").read_text() == "run\n"
    wait_for(lambda: not containers(own_engine, gateway), "the removal of the container")


def test_a_gateway_and_its_engine_may_go_down_together(own_lake: MakeLake, own_engine: Engine) -> None:
    gateway, job = _both_down(own_lake, own_engine)
    own_engine.start(live_restore=True)
    wait_for(lambda: gateway.poll(job)["phase"] == "ingester", "the engine")
    (gateway.folder / "go").touch()
    assert ran_once(gateway, gateway.finished(job))
    wait_for(lambda: not containers(own_engine, gateway), "the removal of the container")


def test_an_end_while_gateway_and_engine_were_down_has_its_exit_code(own_lake: MakeLake, own_engine: Engine) -> None:
    gateway, job = _both_down(own_lake, own_engine)
    (gateway.folder / "go").touch()
    wait_for((gateway.folder / "over").exists, "the end of the container")
    own_engine.start(live_restore=True)
    record = gateway.finished(job)
    assert (record["status"], record["exitCode"]) == ("completed", 7), record
    # without an engine its last word was not logged
    assert is_complete(output(gateway, job).removesuffix(b"done") + b"done")
    wait_for(lambda: not containers(own_engine, gateway), "the removal of the container")


def _both_down(own_lake: MakeLake, own_engine: Engine) -> tuple[Gateway, str]:
    """A gateway that was killed together with its engine and restarted before it; the job's container still runs."""
    own_engine.stop()
    own_engine.start(live_restore=True)
    gateway = own_lake()
    job = gateway.trigger(pipeline="ingester")
    wait_for((gateway.folder / "printed").exists, "the lines")
    wait_for(lambda: numbered("err")[-1].encode() in output(gateway, job), "the lines in the output")
    gateway.kill()
    own_engine.kill()
    gateway.start()
    wait_for(lambda: unreachable(gateway, job), "the look for the engine")
    return gateway, job


def test_a_silent_engine_is_waited_for_and_polls_go_on(own_lake: MakeLake, own_engine: Engine) -> None:
    gateway = own_lake()
    job = gateway.trigger(pipeline="ingester")
    wait_for((gateway.folder / "printed").exists, "the lines")
    own_engine.pause()
    try:
        wait_for(lambda: unreachable(gateway, job), "the silence of the engine")
        (gateway.folder / "go").touch()
        for _ in range(20):
            assert unreachable(gateway, job)
        assert [listed["jobId"] for listed in gateway.call("GET", PATH).json["jobs"]] == [job]
    finally:
        own_engine.resume()
    assert ran_once(gateway, gateway.finished(job))
    wait_for(lambda: not containers(own_engine, gateway), "the removal of the container")


@pytest.mark.parametrize(
    ("ended", "back"),
    [(Engine.pause, Engine.resume), (Engine.stop, Engine.start), (Engine.kill, Engine.start)],
    ids=["paused", "stopped", "killed"],
)
def test_a_trigger_without_an_engine_is_refused_and_nothing_is_recorded(
    own_lake: MakeLake, own_engine: Engine, ended: Callable[[Engine], None], back: Callable[[Engine], object]
) -> None:
    gateway = own_lake(ingester="echo hello\n")
    for pipeline in ("ingester", "full"):
        ended(own_engine)
        try:
            refused = gateway.call("POST", PATH, {"pipeline": pipeline})
            assert (refused.status, refused.json["code"]) == (503, "engine_unavailable"), refused
            assert "Retry-After" in refused.headers
            assert gateway.call("GET", PATH).json == {"success": True, "jobs": []}
        finally:
            back(own_engine)
    assert gateway.run(pipeline="ingester")["exitCode"] == 0


@pytest.mark.parametrize("ended", [Engine.stop, Engine.kill])
@pytest.mark.parametrize("seen", [False, True], ids=["end_not_seen", "end_seen"])
def test_an_engine_that_stops_between_two_steps_costs_no_outcome(
    own_lake: MakeLake, own_engine: Engine, ended: Callable[[Engine], None], seen: bool
) -> None:
    gateway = own_lake(ingester=TALKER.format(lines=20, code=0))
    job = gateway.trigger(pipeline="full", command="deps", enableOpenlineage=False, enableElementary=False)
    wait_for((gateway.folder / "printed").exists, "the last act of the ingester")
    (gateway.folder / "go").touch()
    soon(lambda: output(gateway, job).endswith(b"done"), "its last word")
    if seen:
        soon(lambda: gateway.poll(job)["steps"][0]["status"] == "completed", "its end")
    ended(own_engine)
    own_engine.start()
    record = gateway.finished(job)
    ingester, deps = record["steps"]
    if ended is Engine.kill and not seen and record["status"] == "failed":
        # the engine was killed after the log had ended and before it had the exit, so it makes up the exit code 255
        assert (record["reason"], ingester["status"], deps["status"]) == ("unknown", "failed", "skipped"), record
    else:
        assert (ingester["status"], ingester["exitCode"]) == ("completed", 0), record
        assert (record["status"], record["exitCode"], deps["status"]) == ("completed", 0, "completed"), record
        assert (gateway.folder / "dbt_runs").read_text() == "run\n"
    kill_gateway(gateway, job)  # the next start removes at once what could not be removed without an engine
    wait_for(lambda: not containers(own_engine, gateway), "the removal of the containers")
