"""A command that gets the record of a job on its standard input."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO

from gateway.notify.receiver import Delivered, Delivery, Message, NotDelivered

_LIMIT = 30.0  # seconds for a command
_MOST_OUTPUT = 64 * 1024  # bytes of its end that are kept
_LAST_WORDS = 0.5  # seconds after its end for what it printed before


class CommandReceiver:
    """Runs a command for each message."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self._argv = argv
        self._environment = environment

    async def send(self, message: Message) -> Delivery:
        """Run it once. It is killed with its children at the time limit, and where this task is cancelled."""
        with _input(message) as given, _pipe() as (reader, writer):
            starting = asyncio.ensure_future(
                asyncio.create_subprocess_exec(
                    *self._argv,
                    stdin=given,
                    stdout=writer.fileno(),
                    stderr=writer.fileno(),
                    env=self._environment,
                    start_new_session=True,  # so that its children can be killed with it
                )
            )
            try:
                process = await asyncio.shield(starting)
            except asyncio.CancelledError:  # asyncio would kill the command, but not its children
                with contextlib.suppress(OSError, ValueError):
                    await _kill(await starting)
                raise
            except (OSError, ValueError) as error:
                return NotDelivered(f"{self._argv[0]} does not run: {error}")
            return await _finish(process, reader, writer)


async def _finish(process: asyncio.subprocess.Process, reader: FileIO, writer: FileIO) -> Delivery:
    writer.close()
    output = bytearray()
    reading = asyncio.create_task(_read_end(reader, output))
    try:
        async with asyncio.timeout(_LIMIT):
            code = await process.wait()
        await asyncio.wait([reading], timeout=_LAST_WORDS)  # a child in the background may keep it open
    except TimeoutError:
        return NotDelivered(f"it did not end within {_LIMIT:.0f} s and was killed")
    finally:
        await _kill(process)
        reading.cancel()
        await asyncio.wait([reading])
    if code == 0:
        return Delivered()
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    lines = output.decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return NotDelivered(f"{how}: {last}" if last else how)


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill a command and its children, unless it has exited."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _read_end(pipe: FileIO, output: bytearray) -> None:
    """Read to the end, and keep the last part."""
    stream = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), pipe)
    try:
        while piece := await stream.read(1 << 16):
            output += piece
            del output[:-_MOST_OUTPUT]
    finally:
        transport.close()


@contextlib.contextmanager
def _input(message: Message) -> Iterator[int]:
    """A descriptor from which the message is read; in memory, so that a command may read none of it."""
    descriptor = os.memfd_create("message")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(json.dumps(message.body).encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[FileIO, FileIO]]:
    reader, writer = os.pipe()
    with FileIO(reader, "r") as read_end, FileIO(writer, "w") as write_end:
        yield read_end, write_end
