"""A webhook: an address that gets a POST."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from gateway.notify import presets, signature
from gateway.notify.receiver import Delivered, Delivery, Message, NotDelivered

_LIMIT = 15.0  # seconds for an attempt
_LONGEST_ANSWER = 1024  # bytes of a refusal that are read
_LONGEST_WAIT = 3600.0  # seconds; a receiver may ask for more, and is tried again then

_PRESETS: Mapping[str, Callable[[Message], dict[str, Any]]] = {
    "slack": presets.slack,
    "teams": presets.teams,
    "discord": presets.discord,
}


class Webhook:
    """Sends each message on a connection of its own. Redirects are not followed: they would take the secret along."""

    def __init__(self, url: str, signing_key: bytes | None, preset: str | None) -> None:
        self._url = URL(url)
        self._key = signing_key
        self._preset = preset
        self._resolver = _Resolver()

    async def send(self, message: Message) -> Delivery:
        """POST it once."""
        url, content = self._request(message)
        body = json.dumps(content).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "pipeline-gateway",
            **signature.headers(message.id, int(time.time()), body, self._key),
        }
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(resolver=self._resolver, force_close=True),
                    timeout=aiohttp.ClientTimeout(total=_LIMIT),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    auto_decompress=False,
                    trust_env=True,  # HTTPS_PROXY and NO_PROXY, which hosts behind a firewall need
                ) as session,
                session.post(url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                return await _answer(response)
        except TimeoutError:
            return NotDelivered(f"it did not answer within {_LIMIT:.0f} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return NotDelivered(str(error) or type(error).__name__)

    def _request(self, message: Message) -> tuple[URL, Mapping[str, Any]]:
        if self._preset is None:
            return self._url, message.body
        if self._preset == "ntfy":
            return self._url.parent.with_query(self._url.query), presets.ntfy(message, self._url.name)
        return self._url, _PRESETS[self._preset](message)


async def _answer(response: aiohttp.ClientResponse) -> Delivery:
    if 200 <= response.status < 300:
        return Delivered()
    said = (await response.content.read(_LONGEST_ANSWER)).decode(errors="replace").strip()
    error = f"it answered {response.status} {response.reason or ''}".rstrip()
    if 300 <= response.status < 400:
        return NotDelivered(f"{error}, and redirects are not followed: give the address that this one leads to")
    final = response.status == HTTPStatus.GONE
    return NotDelivered(f"{error}: {said}" if said else error, _retry_after(response), final)


def _retry_after(response: aiohttp.ClientResponse) -> float:
    """The seconds that the receiver asks for; a date is not understood, and the usual pause follows."""
    given = response.headers.get("Retry-After", "")
    try:
        return min(max(float(given), 0.0), _LONGEST_WAIT)
    except ValueError:
        return 0.0


class _Resolver(AbstractResolver):
    """Asks for addresses in daemon threads of its own, one for each host.

    A name server that does not answer must hold up neither the threads that jobs need nor the end of the process.
    """

    def __init__(self) -> None:
        self._lookups: dict[tuple[str, int, int], asyncio.Future[list[ResolveResult]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        key = (host, port, family)
        if key not in self._lookups:
            self._lookups[key] = found = _in_a_thread(lambda: _addresses(host, port, family))
            found.add_done_callback(lambda _: self._lookups.pop(key))
        return await asyncio.shield(self._lookups[key])

    async def close(self) -> None:
        """Nothing is open."""


def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return [
        ResolveResult(
            hostname=host, host=str(address[0]), port=int(address[1]), family=kind, proto=protocol, flags=numeric
        )
        for kind, _, protocol, _, address in found
    ]


def _in_a_thread(look: Callable[[], list[ResolveResult]]) -> asyncio.Future[list[ResolveResult]]:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[list[ResolveResult]] = loop.create_future()

    def settle(found: list[ResolveResult], error: OSError | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(found)
        else:
            done.set_exception(error)
            done.exception()  # marks it as retrieved, because the attempt may be over

    def run() -> None:
        found: list[ResolveResult] = []
        failed = None
        try:
            found = look()
        except OSError as error:
            failed = error
        except UnicodeError as error:  # of a host name that can't be encoded
            failed = OSError(str(error))
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, found, failed)

    threading.Thread(target=run, name="notify-resolver", daemon=True).start()
    return done
