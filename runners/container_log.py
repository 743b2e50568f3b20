"""Copies a container's log into the job's ring: every byte once, whoever is killed meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from runners import process
from runners.output import Ring
from runners.step import Command, Exited, Outcome

_LONGER_THAN_WORDS = 4096  # bytes; what docker says of its own at the end of a broken copy is shorter
_YEAR = 366 * 86400.0
_GRACE = 2.0


class ContainerLog:
    """The log of one container and the ring that it goes into, one copier at a time.

    A copier is `docker logs` under a shim, so it outlives the gateway. An engine replays a log from its beginning and
    in a fixed order, so a later copier leaves out as many bytes as the ring has.

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

    async def follow(self, within: float) -> bool:
        """Have a copier follow the log for so many seconds, unless it ends before; whether it goes on."""
        copier = self._copier or await self._start("--follow")
        await asyncio.wait([copier], timeout=within)
        return not copier.done()

    async def finish(self) -> bool:
        """Copy what is left of an ended container's log; whether it is whole.

        The following form loses the last bytes now and then, so the log is read once more without it.
        """
        if self._number() > self._over:  # there is one that follows, or there was when the gateway was last alive
            follower = self._copier or await self._start("--follow")
            await asyncio.wait([follower], timeout=_GRACE)
            await process.stop(self._folder_of(self._number()))
            await asyncio.wait([follower])
        return isinstance(await (await self._start()), Exited) and self._is_whole(self._number())

    def was_broken(self) -> bool:
        """Whether a copier that followed the log lost its engine, or was lost itself."""
        ends = (process.record(self._folder_of(number)) for number in range(1, self._number() + 1))
        return any(end.get("code") != 0 and end.get("stopped") is None for end in ends)

    def close(self) -> None:
        """Look no more; a copier goes on."""
        if self._copier is not None:
            self._copier.cancel()

    async def _start(self, *options: str) -> asyncio.Task[Outcome]:
        """The latest copier while it may be alive, else another one."""
        number = max(self._number(), self._over + 1)
        folder = self._folder_of(number)
        if not (folder / "started").exists():
            command = Command(
                argvs=((*self._docker, "container", "logs", *options, "--", self._name),),
                cwd="/",
                environment=self._environment,
                grace=_GRACE,
                time_limit=_YEAR,
            )
            skip = await asyncio.to_thread(self._already, number)
            await process.start(folder, command, process.Output(self._ring, self._cap, skip))
        self._copier = asyncio.create_task(self._wait(number), name=f"copy-{self._name}")
        return self._copier

    async def _wait(self, number: int) -> Outcome:
        outcome = await process.wait(self._folder_of(number), lambda _: None)
        self._over, self._copier = number, None
        return outcome

    def _already(self, number: int) -> int | None:
        """How much of the log the ring has; None for nothing, so that a line begins with it. Nobody writes now."""
        ring, begin = Ring(self._ring), self._begin()
        end = ring.bounds()[1]
        earlier = range(1, number)
        if earlier and not self._is_whole(earlier[-1]) and end > begin:
            # Docker may have said last what broke it, and that is no part of the log: it is copied anew from before.
            end = max(begin, end - _LONGER_THAN_WORDS)
            ring.cut(end)
        if end <= begin:
            return None
        return end - begin + sum(int(process.record(self._folder_of(one)).get("dropped", 0)) for one in earlier)

    def _begin(self) -> int:
        """Where in the ring the log begins, decided once."""
        file = self._folder / "begin"
        try:
            return int(file.read_text("ascii"))
        except (FileNotFoundError, ValueError):
            begin = Ring(self._ring).next_line()
            file.write_text(str(begin), "ascii")
            return begin

    def _is_whole(self, number: int) -> bool:
        end = process.record(self._folder_of(number))
        return end.get("code") == 0 and end.get("stopped") is None

    def _folder_of(self, number: int) -> Path:
        return self._folder / f"logs-{number}"

    def _number(self) -> int:
        """The number of the latest copier, 0 for none."""
        return max((int(path.name[5:]) for path in self._folder.glob("logs-*")), default=0)
