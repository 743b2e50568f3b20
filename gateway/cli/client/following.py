"""Follows a job to its end; the exit code of the command is the job's."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

import click

from gateway.cli.client import screen
from gateway.client import Client

FAILED = 125  # the exit code for a job that failed, which has none of its own
_INTERRUPTED = 130


def exit_code(record: Mapping[str, Any]) -> int:
    """The exit code that says how a job ended."""
    return int(record["exitCode"]) if record["status"] == "completed" else FAILED


async def to_the_end(client: Client, job_id: str, *, output: bool, as_json: bool) -> int:
    """Follow a job until it ends; its exit code. output: show what it prints. as_json: each event as a line of JSON.

    Ctrl-C stops the following and asks, on a terminal, whether to cancel the job.
    """
    following = _show_output if output else _show_steps
    task = asyncio.ensure_future(following(client, job_id, as_json))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        record = await task
    except asyncio.CancelledError:
        loop.remove_signal_handler(signal.SIGINT)
        await _interrupted(client, job_id)
        return _INTERRUPTED
    finally:
        loop.remove_signal_handler(signal.SIGINT)
    return exit_code(record)


async def _show_output(client: Client, job_id: str, as_json: bool) -> dict[str, Any]:
    record = await show_events(client, job_id, {}, screen.print_json if as_json else None)
    if not as_json:
        screen.errors.print(_end(record))
    return record


async def show_events(
    client: Client, job_id: str, parameters: Mapping[str, str], show: Callable[[object], None] | None
) -> dict[str, Any]:
    """Print the output of a job as it comes, until the job has ended; its record. show: given each event instead."""
    record: Mapping[str, Any] = {}
    async for event in client.events(job_id, parameters):
        if event.name == "state":
            record = event.data
        if show is not None:
            show({"event": event.name, **event.data})
        elif event.name == "log":
            if event.data["dropped"]:
                screen.errors.print(f"[{event.data['dropped']} bytes of output are gone]")
            sys.stdout.write(event.data["text"])
            sys.stdout.flush()
    return dict(record)


async def _show_steps(client: Client, job_id: str, as_json: bool) -> dict[str, Any]:
    record: dict[str, Any] = {}
    with screen.JobScreen() as shown:
        async for changed in client.changes(job_id):
            record = changed
            if not as_json:
                shown.show(record)
    if as_json:
        screen.print_json(record)
    else:
        screen.console.print(_end(record))
    return record


def _end(record: Mapping[str, Any]) -> str:
    code = f", exit code {record['exitCode']}" if record["status"] == "completed" else ""
    why = screen.why(record)
    return f"{record['jobId']}: {screen.outcome(record)}{code}{f': {why}' if why else ''}"


async def _interrupted(client: Client, job_id: str) -> None:
    if sys.stdin.isatty() and click.confirm("\nCancel the job?", default=False, err=True):
        await client.cancel(job_id)
        screen.errors.print(f"{job_id} is being cancelled.")
    else:
        screen.errors.print(f"{job_id} goes on. To end it: pipeline-gateway cancel {job_id}")
