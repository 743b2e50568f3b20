"""The settings of notifications: which receiver is told of which jobs."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from gateway.settings.fabric import Argument, Name, Seconds, Section, VariableName
from gateway.settings.project import resolve

_BUILTIN = ("ingester", "dbt", "full")  # which every project has


class NotifyOutcome(StrEnum):
    """What a receiver may be told: an outcome of a job, and two that follow from the jobs before it."""

    SUCCEEDED = "succeeded"
    WARNINGS = "warnings"
    ERRORS = "errors"
    CANCELLED = "cancelled"
    FAILED = "failed"
    RECOVERED = "recovered"
    LATE = "late"


class WebhookSettings(Section):
    """An address that gets a POST. It and its secret are named by variables, whose values are masked everywhere."""

    url_variable: VariableName = Field(
        description="The variable that has the address, `https://…`. Redirects are not followed.",
        examples=["SLACK_URL"],
    )
    secret_variable: VariableName | None = Field(
        None,
        description="The variable that has the secret by which each message is signed (Standard Webhooks): `whsec_` "
        "and base64, or any text.",
        examples=["WEBHOOK_SECRET"],
    )
    preset: Literal["slack", "teams", "discord", "ntfy"] | None = Field(
        None,
        description="The form of the body: `slack`, `teams` (a workflow's webhook), `discord` or `ntfy` (the address "
        "of a topic). Unset: the whole record of the job.",
    )


class NotifySettings(Section):
    """A receiver, a `webhook` or a `command`, and what it is told."""

    name: Name | None = Field(
        None,
        description="Its name in records; unset, the name of the webhook's variable, or of the command's program. Each "
        "receiver has another one.",
        examples=["on-call"],
    )
    outcomes: Annotated[tuple[NotifyOutcome, ...], Field(min_length=1)] = Field(
        (NotifyOutcome.ERRORS, NotifyOutcome.FAILED),
        description="What it is told: `succeeded`, `warnings`, `errors`, `cancelled`, `failed`, `recovered` (good "
        "again after `errors` or `failed`), `late` (not good for `late_after`).",
    )
    pipelines: tuple[Name, ...] = Field(
        (), description="Of which pipelines it is told, in every project that has them; unset, all.", examples=[["dbt"]]
    )
    late_after: Seconds | None = Field(
        None,
        description="Seconds without a good end after which one of its `pipelines` is `late`. It is told once, until "
        "the pipeline is good again.",
        examples=[93600],
    )
    webhook: WebhookSettings | None = Field(None, description="An address that gets a POST.")
    command: tuple[Argument, ...] = Field(
        (),
        description="A command, a list of words, which gets the record of the job as JSON on its standard input; no "
        "shell reads it. Exit code 0 means that it is done. It is killed after 30 seconds.",
        examples=[["/usr/local/bin/mail-on-call"]],
    )

    @property
    def to(self) -> str:
        """The name of the receiver."""
        if self.name is not None:
            return self.name
        return self.webhook.url_variable if self.webhook is not None else posixpath.basename(self.command[0])

    @property
    def secret_names(self) -> Iterator[str]:
        """The variables whose values are secret."""
        if self.webhook is not None:
            yield self.webhook.url_variable
            if self.webhook.secret_variable is not None:
                yield self.webhook.secret_variable

    def resolved(self, base: Path) -> NotifySettings:
        """With the program of its command as an absolute path, unless it is a name that is looked for on PATH."""
        if not self.command or "/" not in self.command[0]:
            return self
        return self.model_copy(update={"command": (str(resolve(base, Path(self.command[0]))), *self.command[1:])})

    @model_validator(mode="after")
    def _one_receiver(self) -> NotifySettings:
        if (self.webhook is None) == (not self.command):
            right = "- webhook: {url_variable: SLACK_URL, preset: slack}"
            raise ValueError(f"give it a `webhook` or a `command`, not both, such as `{right}`")
        return self

    @model_validator(mode="after")
    def _late_is_whole(self) -> NotifySettings:
        if (NotifyOutcome.LATE in self.outcomes) != (self.late_after is not None):
            raise ValueError("`late` in `outcomes` and `late_after` belong together: give both, or none")
        if self.late_after is not None and not self.pipelines:
            raise ValueError("late_after: give the `pipelines` that must be good so often, such as `pipelines: [dbt]`")
        return self


def check(receivers: Sequence[NotifySettings], declared: set[str]) -> None:
    """Raises ValueError where two receivers have one name, or a pipeline is unknown. declared: by projects."""
    names, known = [one.to for one in receivers], sorted({*_BUILTIN, *declared})
    for n, one in enumerate(receivers):
        if names.count(one.to) > 1:
            raise ValueError(f"notify.{n}: another receiver is called {one.to} too; give each a `name` of its own")
        for pipeline in one.pipelines:
            if pipeline not in known:
                raise ValueError(f"notify.{n}.pipelines: expected some of {', '.join(known)}, found {pipeline!r}")
