"""The demo: a lakehouse in a folder, a gateway beside it, one `full` pipeline through its own HTTP API."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import aiohttp

from gateway.app import Server
from gateway.client import Client
from gateway.demo import starter
from gateway.demo.screen import Screen
from gateway.settings import settings as config
from gateway.web.data_analytics import PATH

_WAIT = 10.0  # seconds that one request waits for a change of the job
_TAIL = 10_240  # bytes of output that are shown of a job that went wrong
_TRY = """
The gateway serves on {base} until Ctrl-C. Try:

  BASE={base}
  curl -s -X POST "$BASE{path}" -H "Content-Type: application/json" -d '{{"pipeline": "full"}}'
  curl -s "$BASE{path}?jobId={job_id}"
  curl -s "$BASE{path}"
  curl -s "$BASE/api/v1/jobs/{job_id}"
  curl -s "$BASE/api/v1/pipelines"
  curl -s -X POST "$BASE/api/trigger/pipeline" -H "Content-Type: application/json" -d '{run}'
"""
_RUN = '{"fabricId": 1, "projectId": "flights", "pipelineName": "carrier_report", "parameters": {"carrier": "B6"}}'


async def run(folder: Path, environment: Mapping[str, str], port: int | None, *, serve: bool, out: TextIO) -> int:
    """Run the demo in a folder, which is created if it does not exist; the exit code, 0 only if everything worked."""
    screen = Screen(out)
    if not (folder / "gateway.yaml").exists():
        starter.copy(folder)
    screen.write(f"Lakehouse: {folder}")
    settings = config.load(
        folder / "gateway.yaml",
        {**environment, "PIPELINE_ENABLED": "true", "HOST": "localhost", "PORT": _port(port, environment)},
    )
    server = Server(settings, environment)
    try:
        await server.start()
        base = f"http://localhost:{server.port}"
        screen.write(f"Gateway:   {base}")
        async with aiohttp.ClientSession() as session:
            client = Client(session, base)
            record = await _pipeline(client, screen)
            succeeded = record["status"] == "completed" and record["exitCode"] == 0
            if not succeeded:
                await _explain(client, record, screen)
        succeeded = succeeded and await _show(folder, screen)
        if serve:
            screen.write(_TRY.format(base=base, path=PATH, job_id=record["jobId"], run=_RUN))
            await server.wait()
    finally:
        await server.close()
    return 0 if succeeded else 1


def _port(port: int | None, environment: Mapping[str, str]) -> str:
    """The port that was asked for by the option, else by the environment; else 3000, or any where that is taken."""
    return str(port) if port is not None else environment.get("PORT") or str(_free_port(3000))


def _free_port(wanted: int) -> int:
    """The wanted port, or 0, any free port, where it is in use on a loopback address."""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address, wanted))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return 0
    return wanted


async def _pipeline(client: Client, screen: Screen) -> dict[str, Any]:
    """Trigger `full` and show the job until it ends; it is cancelled if the demo is interrupted."""
    job_id = str((await client.trigger({"pipeline": "full"}))["jobId"])
    try:
        screen.write(f"Job:       {job_id}\n")
        record = await client.job(job_id)
        while record["status"] == "running":
            screen.show(record)
            record = await client.job(job_id, wait=_WAIT)
    except BaseException:  # Ctrl-C, or the reader of the output has closed it
        await client.cancel(job_id)
        while (await client.job(job_id, wait=_WAIT))["status"] == "running":
            pass
        raise
    screen.show(record)
    screen.write(f"\n  {record['status']}, exit code {record['exitCode']}, {record['durationSeconds']:.1f} s in all")
    for note in record["notes"]:
        screen.write(f"  {note}")
    return record


async def _explain(client: Client, record: Mapping[str, Any], screen: Screen) -> None:
    failure = record.get("firstFailure") or {}
    screen.write(f"\n{record.get('error') or failure.get('message')}\n")
    screen.write(await client.log(record["jobId"], {"tail": str(_TAIL)}))


async def _show(folder: Path, screen: Screen) -> bool:
    """Show what the lakehouse's tables hold, with the lakehouse's own script; whether that worked."""
    screen.write()
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(folder / "show.py"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    screen.write(output.decode(errors="replace").rstrip())
    return process.returncode == 0
