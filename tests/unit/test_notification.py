"""What a receiver is told of a job."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.model.job import JobOutcome
from gateway.model.notification import told
from gateway.settings.notify import NotifyOutcome, NotifySettings


def receiver(*outcomes: str, **given: Any) -> NotifySettings:
    chosen = {"outcomes": outcomes} if outcomes else {}
    return NotifySettings.model_validate({"command": ["true"], **chosen, **given})


@pytest.mark.parametrize("outcome", list(JobOutcome))
def test_unless_told_otherwise_only_bad_ends_are_told(outcome: JobOutcome) -> None:
    bad = outcome in (JobOutcome.ERRORS, JobOutcome.FAILED)
    assert told(receiver(), "full", outcome, None) == (NotifyOutcome(outcome) if bad else None)
    assert told(receiver(*JobOutcome), "full", outcome, None) == NotifyOutcome(outcome)


@pytest.mark.parametrize("before", [None, *JobOutcome])
@pytest.mark.parametrize("now", list(JobOutcome))
def test_recovered_is_good_after_bad(now: JobOutcome, before: JobOutcome | None) -> None:
    good = now in (JobOutcome.SUCCEEDED, JobOutcome.WARNINGS)
    recovered = good and before in (JobOutcome.ERRORS, JobOutcome.FAILED)
    assert told(receiver("recovered"), "full", now, before) == ("recovered" if recovered else None)


def test_a_recovered_pipeline_is_told_once_also_where_each_success_is() -> None:
    wanted = receiver("recovered", "succeeded")
    assert told(wanted, "full", JobOutcome.SUCCEEDED, JobOutcome.FAILED) == NotifyOutcome.RECOVERED
    assert told(wanted, "full", JobOutcome.SUCCEEDED, JobOutcome.SUCCEEDED) == NotifyOutcome.SUCCEEDED


def test_only_the_named_pipelines_are_told() -> None:
    assert told(receiver(pipelines=["dbt"]), "full", JobOutcome.FAILED, None) is None
    assert told(receiver(pipelines=["dbt", "full"]), "full", JobOutcome.FAILED, None) == NotifyOutcome.FAILED
