"""Asks a program: runs it to its end within a time, and takes what it says. Steps are not run like this."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LARGEST_ANSWER = 64 << 20


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """What a program answered; code None: nothing in time, or it was not even run."""

    code: int | None
    output: bytes
    error: str
    was_run: bool = True


async def run(
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    within: float,
    directory: str | Path = "/",
    stdin: int = asyncio.subprocess.DEVNULL,
    umask: int = -1,
) -> ProgramResult:
    """Run a program with this whole environment, or end it with all its children after so many seconds.

    It has nothing to read, but for `stdin`, and no terminal to ask at. It may be missing.
    """
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *argv,
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            cwd=directory,
            umask=umask,
            start_new_session=True,  # its children end with it
        )
    )
    try:
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:  # asyncio itself would end it, but not its children
        with contextlib.suppress(OSError, ValueError):
            await _end(await starting)
        raise
    except (OSError, ValueError) as error:
        there = await asyncio.to_thread(Path(directory).is_dir)
        why = f"{argv[0]} does not run: {error}" if there else f"the folder {directory} does not exist"
        return ProgramResult(None, b"", why, was_run=False)
    try:
        async with asyncio.timeout(within):
            output, error_output = await asyncio.gather(_all(process.stdout), _all(process.stderr))
            await process.wait()
    except TimeoutError:
        return ProgramResult(None, b"", f"it did not answer within {within:.0f} s")
    finally:
        await _end(process)
    return ProgramResult(process.returncode, output, error_output.decode(errors="replace").strip())


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a program with its children, unless it has ended."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _all(stream: asyncio.StreamReader | None) -> bytes:
    """Everything that a stream has, up to a bound; what is beyond is read and forgotten."""
    assert stream is not None
    content = bytearray()
    while piece := await stream.read(1 << 16):
        content += piece[: _LARGEST_ANSWER - len(content)]
    return bytes(content)
