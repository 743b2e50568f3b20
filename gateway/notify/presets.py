"""The bodies that chat and push services take. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.notify.receiver import TEST, Message

_LONGEST_TITLE = 200  # characters; Discord takes 256
_LONGEST_TEXT = 1500  # characters; Slack takes 3,000, and ntfy makes an attachment of more than 4,096 bytes
_TITLES = {
    "succeeded": "{name} succeeded",
    "warnings": "{name} succeeded with warnings",
    "errors": "{name} ended with errors",
    "cancelled": "{name} was cancelled",
    "failed": "{name} failed",
    "recovered": "{name} is good again",
    "late": "{name} is late",
    TEST: "Pipeline Gateway: a test message",
}
_GREEN, _RED, _GREY = 0x2EB67D, 0xE01E5A, 0x808080
_COLOURS = {"succeeded": _GREEN, "warnings": _GREEN, "recovered": _GREEN, "cancelled": _GREY, TEST: _GREY}


@dataclass(frozen=True, slots=True)
class Summary:
    """A message in a few words. link: to the output of the job."""

    title: str
    text: str
    link: str


def summary(message: Message) -> Summary:
    """What a person wants to know first: pipeline, outcome, cause, duration."""
    record = message.record
    title = _TITLES[message.outcome].format(name=f"{record['projectId']}/{record['pipeline']}")
    facts = [_cause(record), f"Job {record['jobId']} took {_duration(record['durationSeconds'])}."]
    if message.outcome == "late":
        facts[1] = f"Its last job, {record['jobId']}, ended at {record['finishedAt']}: {record['outcome']}."
    if message.outcome == TEST:
        facts = ["This receiver gets the notifications of its pipelines."]
    text = _cut("\n".join(filter(None, facts)), _LONGEST_TEXT)
    return Summary(_cut(title, _LONGEST_TITLE), text, record["logUrl"])


def slack(message: Message) -> dict[str, Any]:
    """The body of an incoming webhook of Slack."""
    said = summary(message)
    return {"text": f"*{_slack_text(said.title)}*\n{_slack_text(said.text)}\n<{said.link}|Output>"}


def teams(message: Message) -> dict[str, Any]:
    """The body of a workflow of Microsoft Teams that posts an adaptive card."""
    said = summary(message)
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.2",
        "body": [
            {"type": "TextBlock", "text": _plain(said.title), "weight": "Bolder", "size": "Medium", "wrap": True},
            {"type": "TextBlock", "text": _plain(said.text).replace("\n", "\n\n"), "wrap": True},
        ],
        "actions": [{"type": "Action.OpenUrl", "title": "Output", "url": said.link}],
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def discord(message: Message) -> dict[str, Any]:
    """The body of a webhook of Discord, without mentions."""
    said = summary(message)
    embed = {
        "title": _plain(said.title),
        "url": said.link,
        "description": _plain(said.text),
        "color": _COLOURS.get(message.outcome, _RED),
    }
    return {"embeds": [embed], "allowed_mentions": {"parse": []}}


def ntfy(message: Message, topic: str) -> dict[str, Any]:
    """The body of a message to a topic of ntfy, which takes it at the address of the server."""
    said = summary(message)
    good = message.outcome in _COLOURS
    return {
        "topic": topic,
        "title": said.title,
        "message": said.text,
        "priority": 3 if good else 4,
        "tags": ["white_check_mark" if good else "rotating_light"],
        "click": said.link,
    }


def _cause(record: Mapping[str, Any]) -> str | None:
    first = record.get("firstFailure")
    if first is None:
        error: str | None = record.get("error")
        return error
    more = f" ({first['more']} more failed)" if first["more"] else ""
    return f"{first['node']}: {first['message']}{more}"


def _duration(seconds: float) -> str:
    """Seconds as people say them: `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _cut(text: str, longest: int) -> str:
    """A text that is too long, cut in its middle: its end may say the cause."""
    if len(text) <= longest:
        return text
    half = (longest - 3) // 2
    return f"{text[:half]} … {text[-half:]}"


def _slack_text(text: str) -> str:
    """A text in which Slack finds no link, mention or command."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _plain(text: str) -> str:
    r"""A text in which nothing is read as Markdown: `stg_orders` stays what it is."""
    return "".join(f"\\{sign}" if sign in r"\`*_[]~|" else sign for sign in text)
