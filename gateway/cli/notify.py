"""`pipeline-gateway notify`: tries the receivers of notifications."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from gateway import clock
from gateway.cli import options
from gateway.errors import ConfigError
from gateway.jobs.execution import JobSnapshot
from gateway.model.job import Completed, Ended, Job
from gateway.model.plan import Plan
from gateway.notify import receivers, variables
from gateway.notify.receiver import TEST, Delivered, Message, NotDelivered
from gateway.settings.settings import Settings
from gateway.web.records import whole_record


@click.group("notify")
def notify() -> None:
    """Try the receivers of notifications."""


@notify.command("test")
@click.argument("name", required=False)
@options.configuration
def test(name: str | None, config: Path | None, env_file: Path | None) -> int:
    """Send a test message to each receiver, or to NAME, and say whether it was taken. No gateway has to run."""
    settings, environment = options.load(config, env_file)
    known = receivers.make(settings, environment)
    if not known:
        raise ConfigError("There are no receivers: name some under `notify` in gateway.yaml.")
    if name is not None and name not in known:
        raise click.BadParameter(
            f"there is no receiver {name[:100]!a}; there are: {', '.join(known)}", param_hint="NAME"
        )
    mask = variables.mask(settings, environment)
    message = Message(f"msg_{secrets.token_hex(16)}", TEST, _record(settings))
    code = 0
    for to, receiver in known.items():
        if name not in (None, to):
            continue
        match asyncio.run(receiver.send(message)):
            case Delivered():
                print(f"ok     {to}: took the message")
            case NotDelivered(error=error):
                code = 1
                print(f"WRONG  {to}: {' '.join(mask.text(error).split())}")
    return code


def _record(settings: Settings) -> Mapping[str, Any]:
    """The record of a job that never was, whose link leads to the gateway."""
    now = clock.now()
    state, plan = Ended(now, Completed(0, None)), Plan((), ())
    job = Job("test", TEST, None, settings.default_project, settings.default_fabric, plan, now, (), state)
    record = whole_record(JobSnapshot(job)).model_dump(mode="json")
    return record | {"logUrl": settings.link_base}
