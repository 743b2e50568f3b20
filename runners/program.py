"""Runs a short program within a time limit and returns its output. Steps are not run like this."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_MAX_OUTPUT = 64 << 20  # bytes of each stream


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """The result of a program. code: None if it was killed at its time limit, or could not be run (was_run).

    output: its standard output. error: its standard error, or a sentence about why there is no code.
    """

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
    """Run a program, and kill it with its children after `within` seconds. A missing program is a result, no error.

    environment: the whole environment. stdin: descriptor of its standard input, empty by default.
    The program has no terminal.
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
            start_new_session=True,  # so that its children can be killed with it
        )
    )
    try:
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:  # asyncio would kill the program, but not its children
        with contextlib.suppress(OSError, ValueError):
            await _kill(await starting)
        raise
    except (OSError, ValueError) as error:
        has_directory = await asyncio.to_thread(Path(directory).is_dir)
        why = f"{argv[0]} does not run: {error}" if has_directory else f"the folder {directory} does not exist"
        return ProgramResult(None, b"", why, was_run=False)
    try:
        async with asyncio.timeout(within):
            output, error_output = await asyncio.gather(_read_all(process.stdout), _read_all(process.stderr))
            await process.wait()
    except TimeoutError:
        return ProgramResult(None, b"", f"it did not answer within {within:.0f} s")
    finally:
        await _kill(process)
    return ProgramResult(process.returncode, output, error_output.decode(errors="replace").strip())


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill a program and its children, unless it has exited."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _read_all(stream: asyncio.StreamReader | None) -> bytes:
    """The content of a stream; bytes beyond the limit are read and dropped."""
    assert stream is not None
    content = bytearray()
    while piece := await stream.read(1 << 16):
        content += piece[: _MAX_OUTPUT - len(content)]
    return bytes(content)
