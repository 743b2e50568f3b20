"""Copies the log of a container into the ring of its job: each byte once, also where a process is killed meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

from runners import durable
from runners.containers import step_files
from runners.containers.step_files import UnreadableError
from runners.detached import shim_files, supervisor
from runners.mask import Mask
from runners.outcome import Command, Outcome
from runners.output import OutputRing

_MAX_DOCKER_MESSAGE = 4096  # bytes; docker's own message at the end of an interrupted copy is shorter
_TIME_LIMIT = 20 * 86400.0  # seconds for one copier; a next one follows it
_GRACE = 2.0  # seconds
_MIN_DELAY, _MAX_DELAY = 0.01, 15.0  # seconds before a copier that follows is started again
_GAP_NOTE = "(pipeline-gateway: lines may be missing or repeated here, since the log of this container rotates)"


class ContainerLog:
    """The log of one container, and the ring into which one copier at a time copies it.

    A copier is `docker logs` under a shim, so it outlives the gateway. An engine prints a log from its beginning and
    always in the same order, so each further copier leaves out the bytes that are in the ring.

    folder: the container's own; each copier has a folder in it. docker: the command line that reaches the engine.
    ring: the folder of the job's ring, which keeps `cap` bytes.
    """

    def __init__(
        self, folder: Path, name: str, docker: tuple[str, ...], environment: Mapping[str, str], ring: Path, cap: int
    ) -> None:
        self._folder = folder
        self._name = name
        self._docker = docker
        self._environment = environment
        self._ring = ring
        self._cap = cap
        self._copier: asyncio.Task[Outcome] | None = None
        self._last_ended = 0  # the number of the latest copier that is known to have ended
        self._final: int | None = None  # the number of the copier that reads the log of the ended container
        self._delay = _MIN_DELAY
        self._earliest_start = 0.0  # of the next copier, by the monotonic clock

    async def follow(self, within: float, mask: Mask, *, rotates: bool) -> None:
        """Let a copier follow the log for at most `within` seconds, or until it ends.

        rotates: the engine may drop the beginning of the log.
        """
        if self._copier is None and time.monotonic() < self._earliest_start:
            await asyncio.sleep(min(within, self._earliest_start - time.monotonic()))
            return
        await self._ends_within(within, await self._ensure_copier("--follow", mask=mask, rotates=rotates))
        if self._copier is None:  # the engine is down, or the log can't be read: try again, with a growing pause
            self._delay = min(2 * self._delay, _MAX_DELAY)
            self._earliest_start = time.monotonic() + self._delay

    async def finish(self, within: float, mask: Mask, *, rotates: bool) -> bool | None:
        """Copy the rest of the log of an ended container; whether it is complete, None while the copy goes on.

        `docker logs --follow` sometimes loses the last bytes, so the log is read again without --follow.
        """
        if self._final is None:
            if await self._latest() > self._last_ended:  # a copier follows the log, or did when the gateway died
                follower = await self._ensure_copier("--follow", mask=mask, rotates=rotates)
                if not await self._ends_within(_GRACE, follower):
                    await supervisor.stop(self._copier_folder(follower))
                if not await self._ends_within(within, follower):
                    return None
            if rotates and self._last_ended and self._is_complete(self._last_ended):
                return True  # bytes that the engine has dropped look the same as bytes that were never copied
            self._final = await self._ensure_copier(mask=mask, rotates=rotates)
        if not await self._ends_within(within, self._final):
            return None
        final, self._final = self._final, None
        return await asyncio.to_thread(self._is_complete, final)

    def close(self) -> None:
        """Stop waiting for the copier, which goes on."""
        if self._copier is not None:
            self._copier.cancel()

    async def _ends_within(self, within: float, number: int) -> bool:
        """Whether a copier ends within so many seconds."""
        if self._copier is not None:
            await asyncio.wait([self._copier], timeout=within)
        return self._last_ended >= number

    async def _ensure_copier(self, *options: str, mask: Mask, rotates: bool) -> int:
        """Re-attach to the latest copier if it may be alive, else start the next one; its number."""
        if self._copier is not None:
            return self._last_ended + 1
        number = max(await self._latest(), self._last_ended + 1)
        folder = self._copier_folder(number)
        if not (folder / "started").exists():
            argvs, skip = await asyncio.to_thread(self._resume, number, options, mask, rotates=rotates)
            command = Command(argvs, "/", self._environment, grace=_GRACE, time_limit=_TIME_LIMIT, mask=mask)
            # The copier after one that follows reads what that one holds back, unless the engine may have dropped it.
            flush = rotates or "--follow" not in options
            await supervisor.start(folder, command, supervisor.OutputTarget(self._ring, self._cap, skip, flush=flush))
        self._copier = asyncio.create_task(self._wait(number), name=f"copy-{self._name}")
        self._last_ended = number - 1
        return number

    async def _wait(self, number: int) -> Outcome:
        outcome = await supervisor.wait(self._copier_folder(number), lambda _: None)
        self._last_ended, self._copier = number, None
        return outcome

    def _resume(
        self, number: int, options: tuple[str, ...], mask: Mask, *, rotates: bool
    ) -> tuple[tuple[tuple[str, ...], ...], int | None]:
        """The commands of a copier, and how many bytes of the log the ring has; None if the log begins a new line.

        No other process writes into the ring now.
        """
        ring, start = OutputRing(self._ring), self._start_offset()
        end = ring.bounds()[1]
        argv = (*self._docker, "container", "logs", *options)
        if rotates and end > start:
            since = f"--since={ring.written_at():.3f}"
            return (("echo", _GAP_NOTE), (*argv, since, "--", self._name)), None
        earlier = range(1, number)
        if earlier and not self._is_complete(earlier[-1]) and end > start:
            # The last bytes may be docker's own error message, which is not in the log. Copy again from before that
            # message, and from before the bytes that the masker held back then.
            end = max(start, end - _MAX_DOCKER_MESSAGE - mask.longest)
            ring.truncate(end)
        dropped = sum(self._dropped(one) for one in earlier)
        return ((*argv, "--", self._name),), None if end <= start else end - start + dropped

    def _start_offset(self) -> int:
        """The offset in the ring at which the log begins, decided once."""
        file = self._folder / "begin"
        try:
            offset = step_files.read(file, int)
        except UnreadableError:
            offset = None  # the output may then have the log twice, but the step's end is still recorded
        if offset is None:
            offset = OutputRing(self._ring).next_line()
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # somebody may have removed it
            durable.write(file, offset)
        return offset

    def _dropped(self, number: int) -> int:
        """The bytes that a copier left out of the ring."""
        dropped = shim_files.exit_record(self._copier_folder(number)).get("dropped")
        return dropped if isinstance(dropped, int) else 0

    def _is_complete(self, number: int) -> bool:
        end = shim_files.exit_record(self._copier_folder(number))
        return end.get("code") == 0 and end.get("stopped") is None

    def _copier_folder(self, number: int) -> Path:
        return self._folder / f"logs-{number}"

    async def _latest(self) -> int:
        """The number of the latest copier, 0 for none. Raises OSError."""
        return max(await asyncio.to_thread(self._copiers), default=0)

    def _copiers(self) -> list[int]:
        return step_files.numbers(self._folder, "logs-")
