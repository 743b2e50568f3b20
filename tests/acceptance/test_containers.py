"""Steps in real containers: how each of them ended, and that none runs once its job has ended."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeGateway
from tests.support import compose
from tests.support.docker import BUSYBOX_IMAGE, Engine
from tests.support.gateway import Gateway, wait_for

Serve = Callable[..., Gateway]

# the toggles whose defaults depend on the image
PLAIN = {"ENABLE_OPENLINEAGE": "false", "ENABLE_ELEMENTARY": "false"}
WAIT = "until [ -e /shared/go ]; do sleep 0.05; done"
FOR_EVER = "while :; do sleep 0.05; done"
# records the signals that it gets, and ignores them
DEAF = "".join(f"trap 'echo {name} >> /shared/signals' {name}; " for name in ("INT", "TERM")) + "echo ready; "


@pytest.fixture
def serve(tmp_path: Path, engine: Engine, make_gateway: MakeGateway) -> Iterator[Serve]:
    """Start a gateway on a compose project of these services; all their containers are removed afterwards."""

    def start(
        fabric: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        projects: Mapping[str, Any] | None = None,
        **services: Mapping[str, Any],
    ) -> Gateway:
        folder = compose.write(tmp_path / "project", fabric=fabric, projects=projects, **services)
        return make_gateway(folder, {**engine.environment, **PLAIN, **(environment or {})})

    yield start
    engine.remove_containers()


def _docker(folder: Path, script: str) -> Path:
    """A folder with a docker command that runs this script first, where $docker is the real one."""
    real = shutil.which("docker")
    program = folder / "bin/docker"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ndocker={real}\n{script}\nexec "$docker" "$@"\n', "utf-8")
    program.chmod(0o755)
    return program.parent


def _dbt_service(script: str) -> dict[str, Any]:
    """A service whose dbt is this shell script."""
    return compose.service(entrypoint=["sh", "-c", script, "dbt"])


def _stopped(gateway: Gateway, job: str) -> dict[str, Any]:
    """What the record of a job says of its stop."""
    stopped: dict[str, Any] = gateway.call("GET", f"/api/v1/jobs/{job}").json["stopped"]
    return stopped


def _until_it_says(gateway: Gateway, job: str, text: str) -> None:
    wait_for(lambda: text in gateway.poll(job)["output"], f"{text!r} in the output")


def _cancel(gateway: Gateway, job: str) -> None:
    assert gateway.call("POST", f"/api/v1/jobs/{job}/cancel").status in (200, 202)


def _ending(record: Mapping[str, Any]) -> tuple[str, str | None, int | None]:
    """Of a job with one step: its status, its reason, and the step's exit code."""
    return record["status"], record.get("reason"), record["steps"][0]["exitCode"]


def _ended_and_gone(gateway: Gateway, job: str, engine: Engine) -> dict[str, Any]:
    """The record of an ended job; none of its containers runs then, and they are removed soon after."""
    record = gateway.finished(job)
    assert compose.containers_of(engine, job, all=False) == []
    wait_for(lambda: compose.containers_of(engine, job) == [], f"the containers of {job} to be removed")
    return record


# --- how a step ended ---


def test_the_exit_code_is_the_containers_and_not_that_of_compose(serve: Serve, engine: Engine) -> None:
    gateway = serve(ingester=compose.shell('exit "$(cat /shared/code)"'))
    for code in (0, 1, 3, 125, 126, 127, 255):
        (gateway.folder / "code").write_text(str(code))
        job = gateway.trigger(pipeline="ingester")
        record = _ended_and_gone(gateway, job, engine)
        assert (record["exitCode"], *_ending(record)) == (code, "completed", None, code)


def test_a_second_attempt_runs_in_a_container_of_its_own(serve: Serve, engine: Engine) -> None:
    retries = {"attempts": 2, "wait": 0, "errors": ["any"]}
    pipelines = {"load": {"ingester": True, "retries": retries}}
    script = "echo run >> /shared/runs; [ $(wc -l < /shared/runs) = 2 ] || exit 3; " + WAIT
    gateway = serve(fabric={}, projects={"shop": {"pipelines": pipelines}}, ingester=compose.shell(script))
    answer = gateway.call("POST", "/api/v1/jobs", {"pipeline": "load"})
    job = answer.json["jobId"]
    second = compose.name_of(job, "1-ingester.2")
    wait_for(lambda: compose.containers_of(engine, job) == [second], "the second container, alone")
    (gateway.folder / "go").touch()
    record = _ended_and_gone(gateway, job, engine)
    assert [attempt["exitCode"] for attempt in record["steps"][0]["attempts"]] == [3, 0]
    assert (gateway.folder / "runs").read_text() == "run\n" * 2


def test_output_is_live_and_both_streams_are_in_order(serve: Serve) -> None:
    script = 'echo "$n $stream" >&$fd; until [ -e "/shared/saw-$n" ]; do sleep 0.05; done'
    turns = [(1, "out", 1), (2, "err", 2), (3, "out", 1), (4, "err", 2)]
    gateway = serve(
        ingester=compose.shell("; ".join(f"n={n} stream={name} fd={fd}; {script}" for n, name, fd in turns))
    )
    job = gateway.trigger(pipeline="ingester")
    expected = ""
    for n, name, _ in turns:
        expected += f"{n} {name}\n"
        _until_it_says(gateway, job, f"{n} {name}\n")
        assert gateway.poll(job)["output"] == expected
        (gateway.folder / f"saw-{n}").touch()
    assert gateway.finished(job)["output"] == expected


def test_a_last_line_without_a_line_feed_is_kept(serve: Serve) -> None:
    gateway = serve(ingester=compose.shell("echo first; printf last; exit 3"))
    record = gateway.run(pipeline="ingester")
    assert (record["output"], record["exitCode"]) == ("first\nlast", 3)


def test_a_container_that_ran_out_of_memory_is_reported_as_such(serve: Serve, engine: Engine) -> None:
    limits = {"mem_limit": "32m", "memswap_limit": "32m"}
    gateway = serve(ingester=compose.shell("head -c 200m /dev/zero | tail", **limits))
    job = gateway.trigger(pipeline="ingester")
    record = _ended_and_gone(gateway, job, engine)
    assert _ending(record) == ("failed", "killed", 137)
    assert "ran out of memory" in record["error"]


def test_a_container_killed_from_outside_fails_the_job_as_killed(serve: Serve, engine: Engine) -> None:
    gateway = serve(ingester=compose.shell(f"echo ready; {FOR_EVER}"))
    job = gateway.trigger(pipeline="ingester")
    _until_it_says(gateway, job, "ready")
    engine.docker("kill", compose.name_of(job))
    record = _ended_and_gone(gateway, job, engine)
    assert _ending(record) == ("failed", "killed", 137)
    assert "signal 9" in record["error"]


def test_an_exit_code_above_128_counts_as_a_signal(serve: Serve) -> None:
    gateway = serve(ingester=compose.shell('sh -c "kill -9 \\$\\$"; exit $?'))
    assert _ending(gateway.run(pipeline="ingester")) == ("failed", "killed", 137)


def test_a_container_removed_from_outside_fails_the_job_as_unknown(serve: Serve, engine: Engine) -> None:
    gateway = serve(ingester=compose.shell(f"echo ready; {FOR_EVER}"))
    job = gateway.trigger(pipeline="ingester")
    _until_it_says(gateway, job, "ready")
    assert gateway.process is not None
    # between the container's end and its removal the gateway could see it as killed, which would be right as well
    gateway.process.send_signal(signal.SIGSTOP)
    try:
        engine.docker("rm", "--force", compose.name_of(job))
    finally:
        gateway.process.send_signal(signal.SIGCONT)
    record = gateway.finished(job)
    assert _ending(record) == ("failed", "unknown", None)
    assert "removed by another program" in record["error"]
    assert record["output"] == "ready\n"


@pytest.mark.parametrize(
    "policy",
    [{"restart": "always"}, {"deploy": {"restart_policy": {"condition": "any"}}}],
    ids=["restart", "deploy.restart_policy"],
)
def test_a_restart_policy_does_not_run_a_step_twice(serve: Serve, engine: Engine, policy: dict[str, Any]) -> None:
    gateway = serve(ingester=compose.shell("echo run >> /shared/runs; echo over; exit 3", **policy))
    job = gateway.trigger(pipeline="ingester")
    record = _ended_and_gone(gateway, job, engine)
    assert _ending(record) == ("completed", None, 3)
    assert (record["output"], (gateway.folder / "runs").read_text()) == ("over\n", "run\n")


# --- steps that never ran ---


@pytest.mark.parametrize(
    ("services", "words"),
    [
        pytest.param({"dbt": compose.shell("true")}, ("no service ingester", "dbt", "compose file"), id="service"),
        pytest.param(
            {"ingester": {"image": "registry.invalid/nothing:1"}},
            ("registry.invalid/nothing:1", "docker compose pull ingester"),
            id="image",
        ),
        pytest.param({"ingester": compose.service(command=["nosuch"])}, ("nosuch", "install it there"), id="program"),
        pytest.param(
            {"ingester": compose.service(command=["/etc/passwd"])},
            ("/etc/passwd", "make that program executable"),
            id="executable",
        ),
        pytest.param(
            {"ingester": compose.service(command=["true"], network_mode="nowhere")},
            ("nowhere", "see that the service's networks exist"),
            id="network",
        ),
        pytest.param(
            {"ingester": {"image": BUSYBOX_IMAGE, "networks": ["nowhere"]}},
            ("nowhere", "mend the compose file"),
            id="undefined-network",
        ),
        pytest.param(
            {"ingester": compose.service(command=["true"]) | {"environment": {"X": "${NOSUCH:?is wanted}"}}},
            ("NOSUCH", "is wanted", "set"),
            id="interpolation",
        ),
        pytest.param(
            {"ingester": compose.service(command=["true"], env_file=["nosuch.env"])},
            ("nosuch.env", "mend the compose file"),
            id="env-file",
        ),
        pytest.param(
            {
                "ingester": compose.service(
                    command=["true"],
                    volumes=[
                        {
                            "type": "bind",
                            "source": "/nosuch",
                            "target": "/data",
                            "bind": {"create_host_path": False},
                        }
                    ],
                )
            },
            ("/nosuch",),
            id="volume",
        ),
    ],
)
def test_a_missing_prerequisite_is_named_with_what_to_do(
    serve: Serve, engine: Engine, services: dict[str, Any], words: tuple[str, ...]
) -> None:
    gateway = serve(**services)
    job = gateway.trigger(pipeline="ingester")
    _not_started(gateway, job, engine, *words)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        pytest.param("services: {ingester: [", ("yaml: line 1", "mend the compose file"), id="yaml"),
        pytest.param("services: {ingester: {image: 7}}", ("image", "mend the compose file"), id="type"),
        pytest.param("", ("empty compose file",), id="empty"),
        pytest.param(None, ("no configuration file", "compose file"), id="gone"),
        pytest.param(
            f"services: {{ingester: {{image: '{BUSYBOX_IMAGE}', networks: [nowhere]}}}}\n"
            "networks: {nowhere: {external: true}}",
            ("nowhere", "see that the service's networks exist"),
            id="external-network",
        ),
    ],
)
def test_a_mistake_in_the_compose_file_is_named(
    serve: Serve, engine: Engine, file: str | None, words: tuple[str, ...]
) -> None:
    gateway = serve(ingester=compose.shell("true"))
    (gateway.folder / "compose.yaml").unlink()
    if file is not None:
        (gateway.folder / "compose.yaml").write_text(file)
    job = gateway.trigger(pipeline="ingester")
    _not_started(gateway, job, engine, *words)


def test_a_variable_that_is_passed_on_must_be_set(serve: Serve, engine: Engine) -> None:
    gateway = serve({"compose": {"environment": ["NOSUCH"]}}, ingester=compose.shell("true"))
    job = gateway.trigger(pipeline="ingester")
    _not_started(gateway, job, engine, "NOSUCH", "fabrics.containers.compose.environment", "set it")


def test_without_the_docker_command_nothing_is_started(serve: Serve, engine: Engine) -> None:
    gateway = serve(environment={"PATH": "/nowhere"}, ingester=compose.shell("true"))
    job = gateway.trigger(pipeline="ingester")
    _not_started(gateway, job, engine, "docker", "install the docker command line")


@pytest.mark.parametrize("make", ["create", "run --detach"], ids=["created", "running"])
def test_a_foreign_container_with_the_steps_name_is_named_and_kept(
    serve: Serve, engine: Engine, tmp_path: Path, make: str
) -> None:
    service = f'"$docker" {make} --network=none "$word" {BUSYBOX_IMAGE} sleep 1000'
    folder = _docker(tmp_path, f'for word in "$@"; do case "$word" in --name=*) {service} ;; esac; done')
    gateway = serve(environment={"PATH": f"{folder}:{os.environ['PATH']}"}, ingester=compose.shell("true"))
    job = gateway.trigger(pipeline="ingester")
    _not_started(gateway, job, engine, compose.name_of(job), "remove")
    # removed once the step's end is recorded, which is before the job's end
    assert engine.containers() == [compose.name_of(job)]


def _not_started(gateway: Gateway, job: str, engine: Engine, *words: str) -> None:
    record = _ended_and_gone(gateway, job, engine)
    assert _ending(record) == ("failed", "not_started", None)
    assert (record["success"], record["exitCode"]) == (False, -1)
    error = record["error"]
    assert [word for word in words if word not in error] == [], error
    assert "\n" not in error


# --- how a step is stopped ---


def test_a_cancelled_step_gets_sigterm_and_its_exit_code_is_recorded(serve: Serve, engine: Engine) -> None:
    gateway = serve(ingester=compose.shell(f"trap 'echo bye; exit 7' TERM; echo ready; {FOR_EVER}"))
    job = gateway.trigger(pipeline="ingester")
    _until_it_says(gateway, job, "ready")
    _cancel(gateway, job)
    record = _ended_and_gone(gateway, job, engine)
    assert (*_ending(record), record["output"]) == ("failed", "cancelled", 7, "ready\nbye\n")


def test_a_cancelled_dbt_gets_sigint_first(serve: Serve, engine: Engine) -> None:
    gateway = serve(dbt=_dbt_service(f"{DEAF} trap 'echo INT >> /shared/signals; exit 2' INT; {FOR_EVER}"))
    job = gateway.trigger(pipeline="dbt", command="build")
    _until_it_says(gateway, job, "ready")
    _cancel(gateway, job)
    assert _ending(_ended_and_gone(gateway, job, engine)) == ("failed", "cancelled", 2)
    assert (gateway.folder / "signals").read_text() == "INT\n"
    assert _stopped(gateway, job)["signals"] == ["SIGINT"]


@pytest.mark.parametrize(
    ("pipeline", "signals"), [("ingester", "TERM\n"), ("dbt", "INT\nTERM\n")], ids=["ingester", "dbt"]
)
def test_a_step_that_ignores_its_signals_is_killed_after_its_grace(
    serve: Serve, engine: Engine, pipeline: str, signals: str
) -> None:
    gateway = serve(
        {"dbt": {"grace": 1}, "compose": {"ingester": {"grace": 1}}},
        ingester=compose.shell(DEAF + FOR_EVER),
        dbt=_dbt_service(DEAF + FOR_EVER),
    )
    job = gateway.trigger(pipeline=pipeline, command="build")
    _until_it_says(gateway, job, "ready")
    _cancel(gateway, job)
    assert _ending(_ended_and_gone(gateway, job, engine)) == ("failed", "cancelled", 137)
    assert (gateway.folder / "signals").read_text() == signals
    stopped = _stopped(gateway, job)
    assert stopped["signals"] == [*(f"SIG{name}" for name in signals.split()), "SIGKILL"]
    assert stopped["seconds"] >= len(signals.split())
    assert stopped["processes"] >= 1


def test_a_cancelled_job_ends_only_when_its_container_has_ended(serve: Serve, engine: Engine) -> None:
    gateway = serve(ingester=compose.shell(f"{DEAF} {WAIT}; exit 4"))
    job = gateway.trigger(pipeline="ingester")
    _until_it_says(gateway, job, "ready")
    _cancel(gateway, job)
    signals = gateway.folder / "signals"
    wait_for(signals.exists, "the first signal")
    _cancel(gateway, job)
    record = gateway.poll(job)
    assert (record["status"], record["phase"]) == ("running", "cancelling")
    (gateway.folder / "go").touch()
    assert _ending(_ended_and_gone(gateway, job, engine)) == ("failed", "cancelled", 4)
    assert _stopped(gateway, job)["signals"] == ["SIGTERM"]
    assert signals.read_text() == "TERM\n"  # a second signal would make dlt abandon its work


MOMENTS = ["accepted", "decided", "asked for", "made", "started"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_job_cancelled_while_it_starts_leaves_no_container(serve: Serve, engine: Engine, moment: str) -> None:
    gateway = serve({"compose": {"ingester": {"grace": 1}}}, ingester=compose.shell(FOR_EVER))
    job = gateway.trigger(pipeline="ingester")
    step = gateway.state / "jobs" / job / "1-ingester"
    reached = {
        "accepted": lambda: True,
        "decided": (step / "container.json").exists,
        "asked for": (step / "container-1/make-1/started").exists,
        "made": lambda: compose.containers_of(engine, job),
        "started": lambda: compose.containers_of(engine, job, all=False),
    }
    wait_for(reached[moment], f"{job} to be {moment}")
    _cancel(gateway, job)
    record = _ended_and_gone(gateway, job, engine)
    assert (record["status"], record["reason"]) == ("failed", "cancelled")


@pytest.mark.parametrize("pipeline", ["ingester", "dbt"])
def test_a_paused_container_can_be_cancelled(serve: Serve, engine: Engine, pipeline: str) -> None:
    script = f"trap 'exit 7' INT TERM; echo ready; {FOR_EVER}"
    fabric = {"dbt": {"grace": 1}, "compose": {"ingester": {"grace": 1}}}
    gateway = serve(fabric, ingester=compose.shell(script), dbt=_dbt_service(script))
    job = gateway.trigger(pipeline=pipeline, command="build")
    _until_it_says(gateway, job, "ready")
    [container] = compose.containers_of(engine, job)
    engine.docker("pause", container)
    assert gateway.poll(job)["status"] == "running"
    _cancel(gateway, job)
    record = _ended_and_gone(gateway, job, engine)
    assert (record["status"], record["reason"]) == ("failed", "cancelled")


@pytest.mark.parametrize("pipeline", ["ingester", "dbt"])
def test_a_step_over_its_time_limit_is_stopped(serve: Serve, engine: Engine, pipeline: str) -> None:
    script = f"trap 'exit 7' INT TERM; {FOR_EVER}"
    gateway = serve({"time_limit": 2}, ingester=compose.shell(script), dbt=_dbt_service(script))
    job = gateway.trigger(pipeline=pipeline, command="build")
    record = _ended_and_gone(gateway, job, engine)
    assert (record["status"], record["reason"], record["exitCode"]) == ("failed", "timed_out", -1)
    assert "time_limit" in record["error"]
    assert _stopped(gateway, job)["signals"] == ["SIGTERM" if pipeline == "ingester" else "SIGINT"]
