"""What a receiver gets, and how it takes that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

TEST = "test"  # the outcome in a message that only tries a receiver


@dataclass(frozen=True, slots=True)
class Message:
    """A message. id: the same at each attempt. outcome: what is told. record: the whole record of the job, as JSON."""

    id: str
    outcome: str
    record: Mapping[str, Any]

    @property
    def body(self) -> Mapping[str, Any]:
        """The record, and in `told` what is told: the last job of a pipeline that is late may have any outcome."""
        return {"told": self.outcome, **self.record}


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has the message."""


@dataclass(frozen=True, slots=True)
class NotDelivered:
    """An attempt that failed. error: may have secrets of the receiver in it.

    wait: the seconds that the receiver asked for. final: it wants no message again.
    """

    error: str
    wait: float = 0
    final: bool = False


Delivery = Delivered | NotDelivered


class Receiver(Protocol):
    """A webhook or a command."""

    async def send(self, message: Message) -> Delivery:
        """Try once. Any failure is a value."""
        ...
