"""A receiver of webhooks, which answers as a test says."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DROP, HANG = -1, -2  # instead of a status: close the connection; answer only when the receiver ends


@dataclass(frozen=True)
class Received:
    """A request that arrived."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        decoded: dict[str, Any] = json.loads(self.body)
        return decoded


@dataclass(frozen=True)
class Reply:
    """An answer to one request."""

    status: int = 204
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    reason: str | None = None


class Hooks:
    """What arrived, in order, and the replies to the next requests; after those, each is taken."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.replies: list[Reply] = []
        self.refused_job = ""  # each request about this job is answered with 400
        self.port = 0
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        """An address of it, whose path is the secret."""
        return f"http://127.0.0.1:{self.port}/hook/key-of-the-hook"


@contextmanager
def serving(port: int = 0) -> Iterator[Hooks]:
    """A receiver on a port of loopback, any free one unless named."""
    hooks = Hooks()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received = Received(self.path, dict(self.headers.items()), body)
            reply = hooks.replies.pop(0) if hooks.replies else Reply()
            if hooks.refused_job and received.json["jobId"] == hooks.refused_job:
                reply = Reply(400)
            hooks.received.append(received)
            if reply.status == HANG:
                hooks.ended.wait()
            if reply.status < 0:
                self.close_connection = True
                return
            self.send_response(reply.status, reply.reason)
            for name, value in (*reply.headers, ("Content-Length", str(len(reply.body)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    hooks.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hooks
    finally:
        hooks.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def signed(received: Received, key: bytes) -> bool:
    """Whether a request has the signature of Standard Webhooks; an HMAC by its definition in RFC 2104."""
    content = f"{received.headers['webhook-id']}.{received.headers['webhook-timestamp']}.".encode() + received.body
    padded = (key if len(key) <= 64 else hashlib.sha256(key).digest()).ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded) + content).digest()
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded) + inner).digest()
    return received.headers["webhook-signature"] == f"v1,{base64.b64encode(outer).decode()}"
