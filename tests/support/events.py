"""A client of server-sent events."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.support.gateway import DEADLINE, Gateway


@dataclass(frozen=True)
class Event:
    """One event. id: None where it has none."""

    kind: str
    data: dict[str, Any]
    id: str | None


def events(gateway: Gateway, job: str, last: str | None = None) -> Iterator[Event]:
    """The events of a job until the gateway closes. last: the id of the last event that was seen before.

    Raises OSError or http.client.HTTPException where the connection breaks.
    """
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)
    try:
        headers = {} if last is None else {"Last-Event-ID": last}
        connection.request("GET", f"/api/v1/jobs/{job}/events", headers=headers)
        response = connection.getresponse()
        assert (response.status, response.headers["Content-Type"]) == (200, "text/event-stream")
        yield from parse(iter(response.readline, b""))
    finally:
        connection.close()


def parse(lines: Iterator[bytes]) -> Iterator[Event]:
    """The events in the lines of a stream. An event without its empty line is not complete, so it is left out."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name:
            fields[name] = value
        elif "data" in fields:
            yield Event(fields.get("event", "message"), json.loads(fields["data"]), fields.get("id"))
            fields = {}
        if not name:
            fields = {}


class Follower:
    """Follows one job across broken connections, as a browser does."""

    def __init__(self, gateway: Gateway, job: str) -> None:
        self.gateway = gateway
        self.job = job
        self.logs: list[dict[str, Any]] = []
        self.states: list[dict[str, Any]] = []
        self.connections = 0
        self.last: str | None = None

    @property
    def text(self) -> str:
        return "".join(part["text"] for part in self.logs)

    def follow(self) -> Iterator[Event]:
        """The events of one connection, which are kept too."""
        self.connections += 1
        for number, event in enumerate(events(self.gateway, self.job, self.last)):
            assert number > 0 or event.kind == "state"
            if event.kind == "state":
                self.states.append(event.data)
            else:
                assert event.id == str(event.data["next"])
                self.last = event.id
                self.logs.append(event.data)
            yield event

    def to_the_end(self) -> None:
        """Follow until the job has ended, connecting again where a connection breaks."""
        while True:
            try:
                for _ in self.follow():
                    pass
                if self.states[-1]["phase"] == "ended":
                    return
            except (OSError, http.client.HTTPException):
                continue

    def must_have_every_byte_once(self, size: int) -> None:
        """Each part begins where the one before ended, with what was dropped between them counted."""
        position = 0
        for part in self.logs:
            assert part["offset"] == position + part["dropped"], part
            position = part["next"]
        assert position == size
