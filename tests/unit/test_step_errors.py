"""What kind of error ended a step, in the words of databases, networks and dbt."""

from __future__ import annotations

import pytest

from runners.dbt.command import DbtStep
from runners.dbt.output import DbtReader
from runners.dbt.results import judge_outcome
from runners.ingester import IngesterReader
from runners.mask import Mask
from runners.outcome import Exited, Killed, Lost, NotStarted, Outcome, StepError, Stopped, TimedOut, error_kinds
from runners.report import Failure
from tests.support.jobs import SPAN
from tests.support.recorded import recorded

ANY, LOCKED, NETWORK = StepError.ANY, StepError.LOCKED, StepError.NETWORK
DATABASE, TIMED_OUT, KILLED = StepError.DATABASE_UNAVAILABLE, StepError.TIMED_OUT, StepError.KILLED
SAID = {
    "FATAL:  the database system is starting up": {DATABASE},
    'connection to server at "db", port 5432 failed: FATAL:  sorry, too many clients already': {DATABASE},
    "server closed the connection unexpectedly": {DATABASE},
    "Database Error in model a: SSL connection has been closed; connection reset by peer": {DATABASE, NETWORK},
    'could not translate host name "db" to address: Name or service not known': {NETWORK},
    "HTTPSConnectionPool(host='api'): Max retries exceeded (Caused by NewConnectionError: refused)": {NETWORK},
    "requests.exceptions.ReadTimeout: HTTPSConnectionPool(host='api'): Read timed out.": {NETWORK},
    "503 Service Unavailable for url: https://hub.example/index.json": {NETWORK},
    "deadlock detected": {LOCKED},
    "canceling statement due to lock timeout": {LOCKED},
    "sqlite3.OperationalError: database is locked": {LOCKED},
    # what another attempt would only repeat
    'connection to server at "db" failed: FATAL:  password authentication failed for user "etl"': set(),
    'FATAL:  database "warehouse" does not exist': set(),
    'Database Error in model a: Binder Error: Referenced column "n" not found': set(),
    "KeyError: 'month'": set(),
}


@pytest.mark.parametrize("said", SAID)
def test_the_words_of_a_failure_tell_its_kind(said: str) -> None:
    assert error_kinds(Exited(1, SPAN), Failure("ingester", said)) == {ANY, *SAID[said]}
    assert error_kinds(NotStarted(f"dbt build: {said}; trigger it again.", 2, SPAN), None) == {ANY, *SAID[said]}


@pytest.mark.parametrize(
    ("outcome", "kinds"),
    [
        (Exited(0, SPAN), set()),
        (Exited(1, SPAN), {ANY}),
        (TimedOut(143, SPAN), {ANY, TIMED_OUT}),
        (Killed(9, SPAN), {ANY, KILLED}),
        (Stopped(143, SPAN), {ANY, KILLED}),
        (NotStarted("dbt build exited 0 without leaving a run_results.json.", 0, SPAN), {ANY}),
        (Lost("the host was rebooted"), set()),
    ],
)
def test_the_end_of_a_step_tells_its_kind(outcome: Outcome, kinds: set[StepError]) -> None:
    assert error_kinds(outcome, None) == kinds


def test_a_test_that_failed_is_no_error_of_a_kind_whatever_it_quotes() -> None:
    quoted = "Got 3 results, configured to fail if != 0: connection refused, database is locked"
    for node in ("test.shop.orders_are_paid", "unit_test.shop.orders.paid"):
        assert error_kinds(Exited(1, SPAN), Failure(node, quoted)) == {ANY}
    error = Failure("test.shop.orders_are_paid", "Database Error in test orders_are_paid: deadlock detected")
    assert error_kinds(Exited(1, SPAN), error) == {ANY, LOCKED}


@pytest.mark.parametrize(
    ("names", "verb", "kinds"),
    [
        (["postgres_down"], "build", {ANY, DATABASE, NETWORK}),
        (["database_locked"], "build", {ANY, LOCKED}),
        (["build_failed"], "build", {ANY}),
        (["compile_error"], "build", {ANY}),
        (["unknown_target"], "build", {ANY}),
        (["deps_failed"], "deps", {ANY}),
        (["build_failed", "edr_postgres_down"], "run", {ANY, DATABASE, NETWORK}),
        (["build_failed", "edr_failed"], "run", {ANY}),
    ],
)
def test_the_recorded_words_of_dbt_and_edr_tell_their_kind(names: list[str], verb: str, kinds: set[StepError]) -> None:
    reader = DbtReader()
    for line in (line for name in names for line in recorded(name)):
        reader.feed(line)
    outcome = judge_outcome(Exited(2, SPAN), DbtStep(verb), reader, None, Mask(), has_report=False)
    assert error_kinds(outcome, Failure(verb, reader.cause)) == kinds


def test_the_recorded_words_of_dlt_tell_their_kind() -> None:
    reader = IngesterReader()
    for line in recorded("dlt_postgres_down"):
        reader.feed(line)
    assert error_kinds(Exited(1, SPAN), Failure("ingester", reader.cause)) == {ANY, DATABASE, NETWORK}
