"""What an ended container's state means for its step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runners.containers.container import Container, ContainerSpec
from runners.containers.docker import ContainerState
from runners.mask import Mask
from runners.outcome import Exited, Killed, Lost, Outcome, Span, Stopped, TimedOut

SPAN = Span(100.0, 102.5, 2.5)


def outcome(
    folder: Path, code: int, *, memory: bool = False, ended_by: str | None = None, copier: object = None
) -> Outcome:
    """Of a container that left with this code. copier: how the one that followed its log ended."""
    step = folder / "job" / "1-build"
    copied = step / "container-1/logs-1"
    copied.mkdir(parents=True)
    (copied / "exit").write_text(json.dumps(copier or {"code": 0, "stopped": None}))
    if ended_by is not None:
        (step / "ending").write_text(json.dumps(ended_by))
    spec = ContainerSpec((("docker",),), "/", ("docker",), 15, 1.0, 60.0, 0.0, 0.0, {})
    state = ContainerState(
        "id", "exited", code, "", memory, 100.0, 102.5, {}, "/", log_rotates=False, has_own_processes=True
    )
    return Container(step, 0, spec, {}, 1 << 20, lambda _: None, Mask())._outcome(state)


@pytest.mark.parametrize("code", [0, 1, 2, 125, 126, 127, 128, 200, 254, 255])
def test_a_code_of_its_own_is_its_own(tmp_path: Path, code: int) -> None:
    assert outcome(tmp_path, code) == Exited(code, SPAN)


@pytest.mark.parametrize("number", [1, 2, 6, 9, 11, 15])
def test_a_code_of_a_signal_that_nobody_of_ours_sent_is_killed(tmp_path: Path, number: int) -> None:
    assert outcome(tmp_path, 128 + number) == Killed(number, SPAN)


@pytest.mark.parametrize("code", [1, 137, 247])
def test_a_failure_with_an_out_of_memory_kill_is_killed(tmp_path: Path, code: int) -> None:
    assert outcome(tmp_path, code, memory=True) == Killed(9, SPAN, out_of_memory=True)


def test_an_exit_with_0_after_an_out_of_memory_kill_is_exited(tmp_path: Path) -> None:
    """The kernel may have killed a child that the program did without."""
    assert outcome(tmp_path, 0, memory=True) == Exited(0, SPAN)


@pytest.mark.parametrize("code", [0, 2, 130, 137])
def test_one_that_we_ended_is_told_as_that_with_its_code(tmp_path: Path, code: int) -> None:
    assert outcome(tmp_path / "a", code, ended_by="asked") == Stopped(code, SPAN)
    assert outcome(tmp_path / "b", code, ended_by="time_limit") == TimedOut(code, SPAN)


@pytest.mark.parametrize("copier", [{"code": 1, "stopped": None}, {"code": None, "stopped": None}, {" ": 0}])
def test_255_is_unknown_where_the_engine_was_lost_meanwhile(tmp_path: Path, copier: object) -> None:
    assert isinstance(outcome(tmp_path / "a", 255, copier=copier), Lost)
    assert outcome(tmp_path / "b", 1, copier=copier) == Exited(1, SPAN)
