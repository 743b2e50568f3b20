"""The sentence that says why a step failed: the cause in its output, and not the last thing that was said."""

from __future__ import annotations

import itertools

import pytest

from gateway.fabrics.fabric import masked
from gateway.model.job import Finished
from runners.dbt.output import DbtReader
from runners.ingester import IngesterReader
from runners.mask import Mask
from runners.outcome import Exited, Span
from runners.report import CauseFinder, Failure, OutputReader, one_line, without_frames
from tests.support.recorded import recorded

REFUSED = 'connection to server at "127.0.0.1", port 5432 failed: Connection refused'
SPAN = Span(1.0, 2.0, 1.0)
RUNNING = "Is the server running on that host and accepting TCP/IP connections?"
TELEMETRY = "ERROR:backoff:Giving up send_request(...) after 4 tries (requests.exceptions.ConnectionError: posthog.com)"
OUTPUTS = {
    "the only line": ("no such bucket", "no such bucket"),
    "the last line, where none reports an error": ("loading\nno such bucket\n\n  ", "no such bucket"),
    "an error before a clean-up": ("ERROR: disk quota exceeded\nremoving 3 files\nbye", "ERROR: disk quota exceeded"),
    "the last of several errors": ("error: try 1\nerror: try 2\nbye", "error: try 2"),
    "a refusal without the word": ("cp: cannot stat 'a': No such file\nbye", "cp: cannot stat 'a': No such file"),
    "an error before information": (
        "Error: No such option\n[2026] [INFO] [openlineage] - not emitted",
        "Error: No such option",
    ),
    "an error before telemetry": (f"FATAL: no such role\n{TELEMETRY}", "FATAL: no such role"),
    "telemetry, where there is nothing else": (TELEMETRY, TELEMETRY),
    "the words of a program before those of its caller": (
        (
            'psql: error: no such role\nTraceback (most recent call last):\n  File "a"\n    run()\n'
            "subprocess.CalledProcessError: Command '['psql']' returned non-zero exit status 2.\n"
            "make: *** [load] Error 1"
        ),
        "psql: error: no such role",
    ),
    "a caller's words, where the program said nothing": ("starting\nexited with code 137\nbye", "exited with code 137"),
    "further lines of an error": (
        f"psql: error: {REFUSED}\n\tIs the server running on that host?\nbye",
        f"psql: error: {REFUSED} Is the server running on that host?",
    ),
    "an error behind a progress bar": ("\r 10%|#   | 1/9\r 90%|### | 8/9ERROR: quota", "ERROR: quota"),
    "an error before the last frame of a progress bar": ("ERROR: quota\n\r 10%|#  |\r 90%|###|\n", "ERROR: quota"),
    "a line as a terminal shows it": ("10%\r20%\r\x1b[31mdone \x1b[0m", "done"),
    "the exception of a traceback": (
        "Traceback (most recent call last):\n  File \"a.py\", line 1\n    raise Error('error: b')\nKeyError: 'a'\nbye",
        "KeyError: 'a'",
    ),
    "the exception of the last traceback": (
        (
            "Traceback (most recent call last):\n  File \"a\"\nKeyError: 'a'\n\nDuring handling of that:\n\n"
            'Traceback (most recent call last):\n  File "b"\nNoTable'
        ),
        "NoTable",
    ),
    "the database's words in an exception": (
        (
            'Traceback (most recent call last):\n  File "a"\nload.Failed: at `step=load` with exception:\n\n'
            "<class 'load.DatabaseError'>\nIO Error: could not set lock\nbye"
        ),
        "load.Failed: at `step=load` with exception: <class 'load.DatabaseError'> IO Error: could not set lock",
    ),
    "counts of errors are no error": (
        "no such bucket: failed\nDone. WARN=0 ERROR=0, 0 errors",
        "no such bucket: failed",
    ),
    "nothing": ("", ""),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_cause_of_a_failure_is_what_a_person_would_quote(name: str) -> None:
    output, expected = OUTPUTS[name]
    finder = CauseFinder()
    for line in output.split("\n"):
        finder.feed(line)
    assert one_line(finder.cause) == expected


@pytest.mark.parametrize("with_events", [True, False])
def test_the_cause_of_edrs_failure_is_dbts_error_and_not_its_telemetry(with_events: bool) -> None:
    reader = DbtReader()
    for line in [*recorded("build_failed"), *recorded("edr_failed")]:
        if with_events or not line.startswith("{"):
            reader.feed(line)
    assert "depends on a node named 'dbt_exposures' which was not found" in one_line(reader.cause)
    assert "posthog" not in reader.cause


@pytest.mark.parametrize(
    ("reader", "recordings"),
    [
        (DbtReader(), ["postgres_down"]),
        (DbtReader(), ["build_failed", "edr_postgres_down"]),
        (IngesterReader(), ["dlt_postgres_down"]),
    ],
    ids=["dbt behind dbt-ol", "edr", "dlt"],
)
def test_a_database_that_is_down_is_named_as_the_cause(reader: OutputReader, recordings: list[str]) -> None:
    for line in itertools.chain(*map(recorded, recordings)):
        reader.feed(line)
    refused = 'connection to server at "127.0.0.1", port 47999 failed: Connection refused'
    assert one_line(reader.cause).endswith(f"{refused} {RUNNING}")


def test_a_long_message_keeps_its_beginning_and_its_end() -> None:
    shown = one_line(f"begin {'x' * 9_000} end")
    assert len(shown) == 500
    assert shown.startswith("begin x")
    assert shown.endswith("x end")
    assert "…" in shown
    assert one_line("x" * 500) == "x" * 500


def test_a_message_loses_the_frames_of_its_traceback() -> None:
    frames = "".join(f'    File "{n}.py", line {n}\n      call()\n' for n in range(50))
    exception = "  ModuleNotFoundError: No module named 'b'\n"
    said = f"Runtime Error in model a\n  Traceback (most recent call last):\n{frames}{exception}"
    assert one_line(without_frames(said)) == "Runtime Error in model a ModuleNotFoundError: No module named 'b'"
    assert without_frames("no traceback") == "no traceback"


def test_a_cause_does_not_grow_with_the_output() -> None:
    finder = CauseFinder()
    finder.feed("error: first")
    for _ in range(10_000):
        finder.feed(f"  {'x' * 9_000}")
    assert len(finder.cause) < 100_000
    assert finder.cause.startswith("error: first")


SECRETS = ["s3cret-42-value", "correct horse battery staple", "k3y" * 100]


@pytest.mark.parametrize("secret", SECRETS, ids=["a word", "words", "longer than what is kept"])
def test_a_cut_in_a_message_leaves_no_end_of_a_secret(secret: str) -> None:
    mask = Mask(("KEY",)).with_secrets_of({"KEY": secret})
    parts = {secret[n : n + 4] for n in range(len(secret) - 3)}
    for after in range(0, 260, 3):
        said = f"{'begin ' * 100}{secret} {'e' * after} last"
        finished = Finished(Exited(1, SPAN), None, Failure("model.a.b", said))
        shown = masked(finished, mask).failure
        assert shown is not None
        assert len(shown.message) <= 500
        assert shown.message.endswith(" last")
        assert not any(part in shown.message for part in parts), shown.message


def test_a_word_that_a_cut_divides_is_lost_and_the_next_one_stays() -> None:
    end = "last " * 49 + "words"  # as much as is kept
    assert one_line(f"{'begin ' * 100}secret{end}").endswith(f"…{end[5:]}")
    assert one_line(f"{'begin ' * 100}{end}").endswith(f"…{end}")
    assert one_line(f"{'begin ' * 100}{'x' * 300}").endswith(f"…{'x' * 250}")
