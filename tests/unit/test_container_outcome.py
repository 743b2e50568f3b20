"""The outcome of a step by the state of its ended container."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from runners.containers.compose_runner import _joined
from runners.containers.container import Container, ContainerSpec, uptime
from runners.containers.docker import ContainerState
from runners.mask import Mask
from runners.outcome import Exited, Killed, Lost, Outcome, Span, Stopped, StopReport, TimedOut

SPAN = Span(100.0, 102.5, 2.5)


def outcome(
    folder: Path, code: int, *, memory: bool = False, ended_by: str | None = None, seen: bool = True
) -> Outcome:
    """The outcome of a container with this exit code. seen: the engine saw the exit."""
    step = folder / "job" / "1-build"
    step.mkdir(parents=True, exist_ok=True)
    if ended_by is not None:
        (step / "ending").write_text(json.dumps(ended_by))
    spec = ContainerSpec((("docker",),), "/", ("docker",), 2, 1.0, 60.0, 0.0, 0.0, {})
    state = ContainerState(
        "id",
        "exited",
        code,
        "",
        memory,
        100.0,
        102.5,
        {},
        "/",
        log_rotates=False,
        has_own_processes=True,
        stop_signal="SIGQUIT",
    )
    return Container(step, 0, spec, {}, 1 << 20, lambda _: None, Mask())._outcome(state, exit_was_seen=seen)


@pytest.mark.parametrize("code", [0, 1, 2, 125, 126, 127, 128, 200, 254, 255])
def test_a_code_that_means_no_signal_is_reported_as_the_exit_code(tmp_path: Path, code: int) -> None:
    assert outcome(tmp_path, code) == Exited(code, SPAN)


@pytest.mark.parametrize("number", [1, 2, 6, 9, 11, 15])
def test_the_code_of_a_signal_that_the_runner_did_not_send_means_killed(tmp_path: Path, number: int) -> None:
    assert outcome(tmp_path, 128 + number) == Killed(number, SPAN)


@pytest.mark.parametrize("code", [1, 137, 247])
def test_a_failure_after_an_out_of_memory_kill_is_reported_as_killed(tmp_path: Path, code: int) -> None:
    assert outcome(tmp_path, code, memory=True) == Killed(9, SPAN, out_of_memory=True)


def test_exit_code_0_after_an_out_of_memory_kill_is_reported_as_exited(tmp_path: Path) -> None:
    """The kernel may have killed a child process that the program did not need."""
    assert outcome(tmp_path, 0, memory=True) == Exited(0, SPAN)


@pytest.mark.parametrize("code", [0, 2, 130, 137])
def test_a_container_ended_by_the_runner_is_stopped_or_timed_out(tmp_path: Path, code: int) -> None:
    assert outcome(tmp_path / "a", code, ended_by="asked") == Stopped(code, SPAN)
    assert outcome(tmp_path / "b", code, ended_by="time_limit") == TimedOut(code, SPAN)


@pytest.mark.parametrize(
    ("code", "memory", "sent", "signals"),
    [
        (2, False, ["interrupted"], ("SIGINT",)),
        (143, False, ["interrupted", "terminated"], ("SIGINT", "SIGQUIT")),
        (143, False, ["terminated"], ("SIGQUIT",)),
        (137, False, ["terminated"], ("SIGQUIT", "SIGKILL")),
        (137, True, ["terminated"], ("SIGQUIT",)),
        (0, False, [], ()),
    ],
)
def test_the_outcome_says_which_signals_a_container_got(
    tmp_path: Path, code: int, memory: bool, sent: list[str], signals: tuple[str, ...]
) -> None:
    container = tmp_path / "job/1-build/container-1"
    container.mkdir(parents=True)
    (container / "stopping").write_text(json.dumps({"at": 101.0, "uptime": 0.0, "processes": 3}))
    for name in sent:
        (container / name).touch()
    assert outcome(tmp_path, code, memory=memory, ended_by="asked") == Stopped(code, SPAN, StopReport(signals, 1.5, 3))


@pytest.mark.parametrize(
    ("at", "up", "seconds"), [(101.0, 1e12, 0.0), (200.0, 0.0, 0.0), (-1e12, 0.0, pytest.approx(uptime(), rel=0.5))]
)
def test_a_stop_takes_no_longer_than_this_hosts_clock_says(
    tmp_path: Path, at: float, up: float, seconds: float
) -> None:
    """The engine may be on another host, whose clock is wrong."""
    container = tmp_path / "job/1-build/container-1"
    container.mkdir(parents=True)
    (container / "stopping").write_text(json.dumps({"at": at, "uptime": up, "processes": None}))
    assert outcome(tmp_path, 0, ended_by="asked") == Stopped(0, SPAN, StopReport((), seconds, None))


def test_an_exit_that_the_engine_missed_is_lost(tmp_path: Path) -> None:
    assert isinstance(outcome(tmp_path, 255, seen=False), Lost)


def test_an_exit_that_the_engine_missed_after_a_stop_is_stopped(tmp_path: Path) -> None:
    assert outcome(tmp_path, 255, ended_by="asked", seen=False) == Stopped(255, SPAN)


def test_a_step_used_the_sum_of_its_containers_and_the_largest_peak() -> None:
    """Where one of them is not known, neither is what the step has used."""
    first, last = Span(1.0, 2.0, 1.0, 500, 1.5), Span(4.0, 8.0, 4.0, 300, 2.0)
    assert _joined(first, last) == Span(1.0, 8.0, 5.0, 500, 3.5)
    assert _joined(first, replace(last, peak_memory=None)) == Span(1.0, 8.0, 5.0, None, 3.5)
    assert _joined(replace(first, cpu=None), last) == Span(1.0, 8.0, 5.0, 500, None)
