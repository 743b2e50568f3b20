"""HTTP as bytes, for requests that no client library would send."""

from __future__ import annotations

import asyncio

from tests.support.gateway import DEADLINE, Answer

JSON = b"Content-Type: application/json"


def request(method: str, target: str | bytes, *headers: bytes, body: bytes | None = None) -> bytes:
    """A request as it goes over the wire; its Host is localhost unless the headers name one."""
    path = target.encode() if isinstance(target, str) else target
    lines = [b"%s %s HTTP/1.1" % (method.encode(), path), *headers, b"Connection: close"]
    if not any(header.lower().startswith(b"host:") for header in headers):
        lines.insert(1, b"Host: localhost")
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


async def send(port: int, data: bytes) -> Answer:
    """What a server on loopback answers to these bytes."""
    async with asyncio.timeout(DEADLINE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(data)
            status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
            headers = dict(line.split(": ", 1) for line in lines)
            # not to the end of the connection, which a server may keep open for what was not sent yet
            length = 0 if data.startswith(b"HEAD ") else int(headers.get("Content-Length", 0))
            body = await reader.readexactly(length)
        finally:
            writer.close()
    return Answer(int(status.split()[1]), headers, body)
