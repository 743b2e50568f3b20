"""The bodies for Slack, Teams, Discord and ntfy, word for word."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.notify import presets
from gateway.notify.receiver import TEST, Message
from gateway.settings.notify import NotifyOutcome

LINK = "https://pipelines.example/api/v1/jobs/gold-1/log"
RECORD: dict[str, Any] = {
    "projectId": "shop",
    "pipeline": "gold_daily",
    "jobId": "gold-1",
    "outcome": "errors",
    "finishedAt": "2026-11-21T12:00:00.000000+00:00",
    "durationSeconds": 754.2,
    "logUrl": LINK,
    "firstFailure": {"node": "stg_orders", "message": "a <b> & *c*", "more": 2},
}
ERRORS = Message("msg_1", "errors", RECORD)


def test_the_body_for_slack() -> None:
    assert presets.slack(ERRORS) == {
        "text": "*shop/gold_daily ended with errors*\n"
        "stg_orders: a &lt;b&gt; &amp; *c* (2 more failed)\n"
        "Job gold-1 took 13 min.\n"
        f"<{LINK}|Output>"
    }


def test_the_body_for_teams() -> None:
    text = "stg\\_orders: a <b> & \\*c\\* (2 more failed)\n\nJob gold-1 took 13 min."
    assert presets.teams(ERRORS) == {
        "type": "message",
        "attachments": [
            {
                "contentType": "application/vnd.microsoft.card.adaptive",
                "contentUrl": None,
                "content": {
                    "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                    "type": "AdaptiveCard",
                    "version": "1.2",
                    "body": [
                        {
                            "type": "TextBlock",
                            "text": "shop/gold\\_daily ended with errors",
                            "weight": "Bolder",
                            "size": "Medium",
                            "wrap": True,
                        },
                        {"type": "TextBlock", "text": text, "wrap": True},
                    ],
                    "actions": [{"type": "Action.OpenUrl", "title": "Output", "url": LINK}],
                },
            }
        ],
    }


def test_the_body_for_discord() -> None:
    assert presets.discord(ERRORS) == {
        "embeds": [
            {
                "title": "shop/gold\\_daily ended with errors",
                "url": LINK,
                "description": "stg\\_orders: a <b> & \\*c\\* (2 more failed)\nJob gold-1 took 13 min.",
                "color": 0xE01E5A,
            }
        ],
        "allowed_mentions": {"parse": []},
    }


def test_the_body_for_ntfy() -> None:
    assert presets.ntfy(ERRORS, "pipelines") == {
        "topic": "pipelines",
        "title": "shop/gold_daily ended with errors",
        "message": "stg_orders: a <b> & *c* (2 more failed)\nJob gold-1 took 13 min.",
        "priority": 4,
        "tags": ["rotating_light"],
        "click": LINK,
    }


@pytest.mark.parametrize(
    ("outcome", "title"),
    [
        ("succeeded", "shop/gold_daily succeeded"),
        ("warnings", "shop/gold_daily succeeded with warnings"),
        ("cancelled", "shop/gold_daily was cancelled"),
        ("failed", "shop/gold_daily failed"),
        ("recovered", "shop/gold_daily is good again"),
        ("late", "shop/gold_daily is late"),
        (TEST, "Pipeline Gateway: a test message"),
    ],
)
def test_the_title_says_pipeline_and_outcome(outcome: str, title: str) -> None:
    assert presets.summary(Message("msg_1", outcome, RECORD)).title == title


def test_every_outcome_has_a_title() -> None:
    for outcome in NotifyOutcome:
        assert presets.summary(Message("msg_1", outcome, RECORD)).title


def test_a_failed_job_says_its_error_and_a_good_one_only_its_duration() -> None:
    good = {name: value for name, value in RECORD.items() if name != "firstFailure"} | {"durationSeconds": 7.4}
    assert presets.summary(Message("msg_1", "recovered", good)).text == "Job gold-1 took 7 s."
    failed = presets.summary(
        Message("msg_1", "failed", good | {"error": "dbt was not found.", "durationSeconds": 7500})
    )
    assert failed.text == "dbt was not found.\nJob gold-1 took 2 h 5 min."


def test_a_late_pipeline_says_when_its_last_job_ended_and_how() -> None:
    said = presets.summary(Message("msg_1", "late", RECORD)).text.splitlines()[-1]
    assert said == "Its last job, gold-1, ended at 2026-11-21T12:00:00.000000+00:00: errors."


def test_a_long_cause_is_cut_in_its_middle() -> None:
    record = {**RECORD, "firstFailure": {"node": "a", "message": f"begin {'x' * 5000} end", "more": 0}}
    text = presets.summary(Message("msg_1", "errors", record)).text
    assert len(text) <= 1500
    assert text.startswith("a: begin x")
    assert text.endswith("x end\nJob gold-1 took 13 min.")
