"""Copies a container's log into the job's ring: every byte once, whoever is killed meanwhile."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path

from runners import durable
from runners.detached import supervisor as process
from runners.mask import Mask
from runners.outcome import Command, Outcome
from runners.output import OutputRing

_LONGER_THAN_WORDS = 4096  # bytes; what docker says of its own at the end of a broken copy is shorter
_LONGEST = 20 * 86400.0  # seconds that a copier may take; another one follows it
_GRACE = 2.0
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.01, 15.0
_LOST_ITS_PLACE = "(pipeline-gateway: lines may be missing or repeated here, since the log of this container rotates)"


class ContainerLog:
    """The log of one container and the ring that it goes into, one copier at a time.

    A copier is `docker logs` under a shim, so it outlives the gateway. An engine replays a log from its beginning and
    in a fixed order, so a later copier leaves out as many bytes of the masked log as the ring has.

    folder: the container's own, where each copier has a folder. docker: the command line that reaches the engine.
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
        self._over = 0  # the number of the last copier whose end is known
        self._last: int | None = None  # the number of the copier that reads the log to its end
        self._pause = _SHORTEST_PAUSE
        self._next = 0.0  # when a copier may be started again, by the monotonic clock

    async def follow(self, within: float, mask: Mask, *, rotates: bool) -> None:
        """Have a copier follow the log for so many seconds, or until it ends."""
        if self._copier is None and time.monotonic() < self._next:
            await asyncio.sleep(min(within, self._next - time.monotonic()))
            return
        await self._waited(within, await self._start("--follow", mask=mask, rotates=rotates))
        if self._copier is None:  # it lost its engine, or the log can't be read: again, but ever more rarely
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            self._next = time.monotonic() + self._pause

    async def finish(self, within: float, mask: Mask, *, rotates: bool) -> bool | None:
        """Copy what is left of an ended container's log; whether it is whole, None while that isn't known.

        The following form loses the last bytes now and then, so the log is read once more without it.
        """
        if self._last is None:
            if await self._number() > self._over:  # there is one that follows, or was when the gateway was last alive
                follower = await self._start("--follow", mask=mask, rotates=rotates)
                if not await self._waited(_GRACE, follower):
                    await process.stop(self._folder_of(follower))
                if not await self._waited(within, follower):
                    return None
            if rotates and self._over and self._is_whole(self._over):
                return True  # what it has forgotten can't be told from what was never copied
            self._last = await self._start(mask=mask, rotates=rotates)
        if not await self._waited(within, self._last):
            return None
        last, self._last = self._last, None
        return await asyncio.to_thread(self._is_whole, last)

    def was_broken(self) -> bool:
        """Whether a copier that followed the log lost its engine, or was lost itself. Raises OSError."""
        ends = [process.record(self._folder / name) for name in self._copiers()]
        return any(end.get("code") != 0 and end.get("stopped") is None for end in ends)

    def close(self) -> None:
        """Look no more; a copier goes on."""
        if self._copier is not None:
            self._copier.cancel()

    async def _waited(self, within: float, number: int) -> bool:
        """Whether a copier ends within so many seconds."""
        if self._copier is not None:
            await asyncio.wait([self._copier], timeout=within)
        return self._over >= number

    async def _start(self, *options: str, mask: Mask, rotates: bool) -> int:
        """Have the latest copier while it may be alive, else another one; its number."""
        if self._copier is not None:
            return self._over + 1
        number = max(await self._number(), self._over + 1)
        folder = self._folder_of(number)
        if not (folder / "started").exists():
            argv, skip = await asyncio.to_thread(self._resumed, number, options, mask, rotates=rotates)
            command = Command(argv, "/", self._environment, grace=_GRACE, time_limit=_LONGEST, mask=mask)
            # after one that follows comes one that reads the log to its end, unless the beginning may be gone by then
            output = process.OutputTarget(self._ring, self._cap, skip, rest=rotates or "--follow" not in options)
            await process.start(folder, command, output)
        self._copier = asyncio.create_task(self._wait(number), name=f"copy-{self._name}")
        self._over = number - 1
        return number

    async def _wait(self, number: int) -> Outcome:
        outcome = await process.wait(self._folder_of(number), lambda _: None)
        self._over, self._copier = number, None
        return outcome

    def _resumed(
        self, number: int, options: tuple[str, ...], mask: Mask, *, rotates: bool
    ) -> tuple[tuple[tuple[str, ...], ...], int | None]:
        """The commands of a copier, and how much of the log the ring has; None for nothing, so that a line begins.

        Nobody else writes into the ring now.
        """
        ring, begin = OutputRing(self._ring), self._begin()
        end = ring.bounds()[1]
        argv = (*self._docker, "container", "logs", *options)
        if rotates and end > begin:
            since = f"--since={ring.written_at():.3f}"
            return (("echo", _LOST_ITS_PLACE), (*argv, since, "--", self._name)), None
        earlier = range(1, number)
        if earlier and not self._is_whole(earlier[-1]) and end > begin:
            # Docker may have said last what broke it, and that is no part of the log: it is copied anew from before
            # that, and from before what was held back then.
            end = max(begin, end - _LONGER_THAN_WORDS - mask.longest)
            ring.cut(end)
        dropped = sum(int(process.record(self._folder_of(one)).get("dropped", 0)) for one in earlier)
        return ((*argv, "--", self._name),), None if end <= begin else end - begin + dropped

    def _begin(self) -> int:
        """Where in the ring the log begins, decided once."""
        file = self._folder / "begin"
        try:
            return int(json.loads(file.read_bytes()))
        except FileNotFoundError:
            begin = OutputRing(self._ring).next_line()
            durable.write(file, begin)
            return begin

    def _is_whole(self, number: int) -> bool:
        end = process.record(self._folder_of(number))
        return end.get("code") == 0 and end.get("stopped") is None

    def _folder_of(self, number: int) -> Path:
        return self._folder / f"logs-{number}"

    async def _number(self) -> int:
        """The number of the latest copier, 0 for none. Raises OSError."""
        return max((int(name[5:]) for name in await asyncio.to_thread(self._copiers)), default=0)

    def _copiers(self) -> list[str]:
        return [name for name in durable.names(self._folder) if name.startswith("logs-")]
