"""The ingester step: its command, and the progress it may print."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from gateway.fabrics.local import LocalFabric
from gateway.model.plan import PlannedStep, StepName
from runners.ingester import Ingester, IngesterReader, argument, check_option, command
from runners.mask import Mask
from runners.outcome import Command
from runners.parameters import Parameter, ParameterType, ParameterValue, WordError, resolve_values
from runners.report import Progress, one_line
from tests.support.injections import WORDS, refusal
from tests.support.settings import load


def test_the_step_runs_the_configured_command_in_its_folder() -> None:
    mask = Mask(("TOKEN",))
    made = command(Ingester(("dlt", "pipeline"), "/srv/in"), {"A": "b"}, grace=60, time_limit=100, mask=mask)
    assert (made.argvs, made.cwd) == ((("dlt", "pipeline"),), "/srv/in")
    assert made.environment == {"A": "b"}
    assert (made.interrupt, made.grace, made.time_limit) == (signal.SIGTERM, 60, 100)
    assert made.mask is mask


def test_arguments_are_appended_to_the_configured_command() -> None:
    made = command(Ingester(("dlt", "pipeline"), "", ("--month=3",)), {}, grace=60, time_limit=100, mask=Mask())
    assert made.argvs == (("dlt", "pipeline", "--month=3"),)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, "--x=3"),
        (-1.5e300, "--x=-1.5e+300"),
        (True, "--x=true"),
        (False, "--x=false"),
        ("2013-03-01", "--x=2013-03-01"),
        ("", "--x="),
        ("-v", "--x=-v"),
        ("a b=\u00fc", "--x=a b=\u00fc"),
    ],
)
def test_an_argument_is_one_word_of_option_and_value(value: ParameterValue, expected: str) -> None:
    assert argument("--x", value) == expected


def test_an_accepted_string_stays_in_one_word_with_its_option() -> None:
    declared = {"x": Parameter(ParameterType.STRING)}
    accepted = [word for word in WORDS if refusal(lambda word: resolve_values(declared, {"x": word}), word) is None]
    assert len(accepted) > 100
    for word in accepted:
        assert argument("--x", resolve_values(declared, {"x": word})["x"]) == f"--x={word}"


OPTIONS = ("--help", "--privileged", "--end-of-options")  # valid names, which a configuration may use


@pytest.mark.parametrize("name", [*OPTIONS, "--month", "--m", "--Full-load_2", "--2", f"--{'a' * 62}"])
def test_a_valid_option_name_is_accepted_unchanged(name: str) -> None:
    assert check_option(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "-m", "--", "---", "--_a", "month", "--a=b", "--a b", "--a\n", "--\u00e9", "--a.b", f"--{'a' * 63}"),
        *(word for word in WORDS if word not in OPTIONS),
    ],
)
def test_an_invalid_option_name_is_refused(name: str) -> None:
    with pytest.raises(WordError, match=r"^The option "):
        check_option(name)


@pytest.mark.parametrize(
    ("inherited", "configured", "found"),
    [
        ({}, {}, ("1", "1")),
        ({"DO_NOT_TRACK": "0"}, {}, ("1", "0")),
        ({"PYTHONUNBUFFERED": "0"}, {"PYTHONUNBUFFERED": ""}, ("", "1")),
    ],
)
async def test_output_is_unbuffered_and_tracking_off_unless_set_otherwise(
    tmp_path: Path, inherited: dict[str, str], configured: dict[str, str], found: tuple[str, str]
) -> None:
    settings = load(
        tmp_path, f"projects: {{a: {{ingester: {{command: [dlt], environment: {json.dumps(configured)}}}}}}}"
    )
    made = await LocalFabric(settings, "local", "a", inherited).command(PlannedStep(StepName.INGESTER), tmp_path / "1")
    assert isinstance(made, Command)
    assert (made.environment["PYTHONUNBUFFERED"], made.environment["DO_NOT_TRACK"]) == found


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        ('{"table": "flights", "rows": 336776, "done": 1, "total": 5}', Progress(1, 5, 1, current="flights")),
        ('{"done": 5, "total": 5}', Progress(5, 5, 5)),
        ('{"table": null, "done": 0, "total": 5}', Progress(0, 5, 0)),
        ('{"table": 7, "done": 0, "total": 5}', Progress(0, 5, 0, current="7")),
        ('{"done": "1", "total": 5}', None),
        ('{"done": 1}', None),
        ('{"total": 5}', None),
        ('{"total": ', None),
        ('["total"]', None),
        (' {"done": 1, "total": 5}', None),
        ("loading 1 of 5", None),
        ('{"total": ' + "[" * 100_000, None),
        ('{"done": ' + "9" * 5_000 + ', "total": 1}', None),
        ("", None),
    ],
    ids=range(14),
)
def test_a_progress_line_is_a_json_object_with_done_and_total(line: str, progress: Progress | None) -> None:
    reader = IngesterReader()
    reader.feed(line)
    assert reader.progress == progress
    assert one_line(reader.cause) == one_line(line)


def test_the_latest_progress_and_the_last_line_with_text_are_kept() -> None:
    reader = IngesterReader()
    for line in ('{"done": 1, "total": 2}', '{"done": 2, "total": 2}', "LoadClientJobFailed: no such table", "", "  "):
        reader.feed(line)
    assert reader.progress == Progress(2, 2, 2)
    assert reader.cause == "LoadClientJobFailed: no such table"


def test_a_table_name_with_a_lone_surrogate_can_be_encoded() -> None:
    reader = IngesterReader()
    reader.feed('{"table": "\\ud800", "done": 1, "total": 2}')
    assert reader.progress is not None
    assert reader.progress.current is not None
    reader.progress.current.encode()


def test_booleans_are_not_accepted_as_numbers_of_progress() -> None:
    reader = IngesterReader()
    reader.feed('{"done": true, "total": true}')
    assert reader.progress is None
