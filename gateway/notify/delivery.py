"""Delivers what is in the outbox: to each receiver one message after the other, until it has them."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import structlog

from gateway import clock
from gateway.errors import StorageError, UnknownJobError
from gateway.model.notification import NotificationState
from gateway.notify.receiver import Delivered, Delivery, Message, NotDelivered, Receiver
from gateway.storage import outbox
from gateway.storage.outbox import Outbox
from runners.mask import Mask

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds after a failed attempt, doubled by each
_RETRY = 1.0  # seconds between two attempts at a database that refuses
_INTERVAL = 60.0  # seconds between two looks at what is old, or late
_LONGEST_ERROR = 300  # characters

_log = structlog.get_logger()


class Courier:
    """Owns the deliveries. A receiver that fails or hangs delays its own messages only, and no job."""

    def __init__(
        self,
        messages: Outbox,
        receivers: Mapping[str, Receiver],
        projects: Iterable[str],
        record: Callable[[str], Awaitable[Mapping[str, Any]]],
        mask: Mask,
    ) -> None:
        """record: the whole record of a job; raises UnknownJobError. The others: see `configure`."""
        self._outbox = messages
        self._record = record
        self._configured = asyncio.Event()
        self.attempts: Counter[tuple[str, str]] = Counter()  # since the start, by receiver and `delivered` or `failed`
        self.configure(receivers, projects, mask)

    def configure(self, receivers: Mapping[str, Receiver], projects: Iterable[str], mask: Mask) -> None:
        """Deliver to these receivers from now on. projects: those whose pipelines may be late."""
        self._receivers = receivers
        self._projects = tuple(projects)
        self._mask = mask
        self._configured.set()

    async def run(self) -> None:
        """Deliver until cancelled. What is underway when other receivers are configured is delivered again."""
        while True:
            self._configured.clear()
            delivering = asyncio.create_task(self._deliver(), name="notify-all")
            waiting = asyncio.create_task(self._configured.wait(), name="notify-configured")
            try:
                await asyncio.wait((delivering, waiting), return_when=asyncio.FIRST_COMPLETED)
                if delivering.done():
                    delivering.result()
            finally:
                for task in (delivering, waiting):
                    task.cancel()
                await asyncio.wait((delivering, waiting))

    async def waiting(self) -> dict[str, int]:
        """How many messages wait, by receiver; of those that are configured. Raises StorageError."""
        waiting = await self._outbox.waiting()
        return {to: waiting.get(to, 0) for to in self._receivers}

    async def _deliver(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look(), name="notify-look")
            for to, receiver in self._receivers.items():
                tasks.create_task(self._serve(to, receiver), name=f"notify-{to}")

    async def _look(self) -> None:
        while True:
            try:
                await self.look()
            except StorageError as error:
                _log.warning("outbox not looked at", error=str(error))
            await asyncio.sleep(_INTERVAL)

    async def look(self) -> None:
        """Find what is too old, and which pipelines are late. Raises StorageError."""
        now = clock.now()
        count = await self._outbox.give_up(now)
        if count:
            _log.warning("notifications given up", count=count)
        await self._outbox.look_for_late(self._projects, now)

    async def _serve(self, to: str, receiver: Receiver) -> None:
        """Deliver the messages to one receiver."""
        pause = _FIRST_PAUSE
        while True:
            added = self._outbox.added
            try:
                waiting = await self._outbox.next(to)
                done = None if waiting is None else await self._attempt(to, receiver, waiting)
            except UnknownJobError:  # removed meanwhile, and its messages with it
                continue
            except StorageError as error:
                _log.warning("outbox not read", error=str(error))
                await asyncio.sleep(_RETRY)
                continue
            match done:
                case None:
                    await added.wait()
                case Delivered():
                    pause = _FIRST_PAUSE
                case NotDelivered(wait=wait):
                    await asyncio.sleep(max(pause, wait))
                    pause = min(2 * pause, _LONGEST_PAUSE)

    async def _attempt(self, to: str, receiver: Receiver, waiting: outbox.Message) -> Delivery:
        """Try a message once, and record that. Raises UnknownJobError, StorageError."""
        done = await self._send(receiver, waiting)
        match done:
            case Delivered():
                self.attempts[to, "delivered"] += 1
                _log.info("notification delivered", job=waiting.job, to=to, outcome=waiting.outcome)
                await self._keep(waiting, NotificationState.DELIVERED, None)
            case NotDelivered(error=text, final=final):
                self.attempts[to, "failed"] += 1
                error = _cut(self._mask.text(text))
                _log.warning("notification not delivered", job=waiting.job, to=to, error=error, final=final)
                state = NotificationState.GIVEN_UP if final else NotificationState.WAITING
                await self._keep(waiting, state, error)
        return done

    async def _send(self, receiver: Receiver, waiting: outbox.Message) -> Delivery:
        try:
            record = await self._record(waiting.job)
            return await receiver.send(Message(waiting.id, waiting.outcome, record))
        except (UnknownJobError, StorageError):
            raise
        except Exception:  # noqa: BLE001, any bug: one message must not end the service, and the next one at its start
            incident = secrets.token_hex(6)
            _log.exception("notification broke", job=waiting.job, incident=incident)
            return NotDelivered(f"the gateway made a mistake; its log tells more under incident {incident}")

    async def _keep(self, message: outbox.Message, state: NotificationState, error: str | None) -> None:
        """Record an attempt, also on a disk that refuses it for a while: the message would be sent again otherwise."""
        while True:
            try:
                await self._outbox.tried(message, state, error)
            except StorageError as refused:
                _log.warning("notification not recorded", job=message.job, error=str(refused))
                await asyncio.sleep(_RETRY)
            else:
                return


def _cut(text: str) -> str:
    """An error in one line, cut where it is too long."""
    line = " ".join(text.encode(errors="replace").decode().split())  # a status line may be no valid Unicode
    return line if len(line) <= _LONGEST_ERROR else f"{line[: _LONGEST_ERROR - 1]}…"
