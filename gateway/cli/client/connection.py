"""Which gateway a command speaks to: its address and token, from options, environment or a file."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import click

from gateway.client import Client
from gateway.errors import ConfigError
from runners.yaml_file import read_mapping

SERVER, TOKEN = "PIPELINE_GATEWAY_SERVER", "PIPELINE_GATEWAY_TOKEN"
_DEFAULT = "http://localhost:3000"
_KEYS = ("server", "token")

Action = Callable[..., Awaitable[int | None]]


def client(action: Action) -> Callable[..., int | None]:
    """Make a command of a coroutine whose first argument is a client of the chosen gateway."""

    @click.option("--server", metavar="URL", help=f"The gateway's address; default: {SERVER}, client.yaml, {_DEFAULT}.")
    @click.option(
        "--token-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"A file with the token alone. Without it the token is the value of {TOKEN}, else that of the key token "
        "in client.yaml, which is ~/.config/pipeline-gateway/client.yaml and also has the key server.",
    )
    @functools.wraps(action)
    def command(*, server: str | None, token_file: Path | None, **given: Any) -> int | None:
        chosen = _read_file(_file())
        address = server or os.environ.get(SERVER) or chosen.get("server") or _DEFAULT
        if token_file is not None:
            token: str | None = _read_token(token_file) or None
        else:
            token = os.environ.get(TOKEN) or chosen.get("token")
        if not address.startswith(("http://", "https://")):
            raise click.UsageError(f"The address {address!r} of the gateway is no URL, such as {_DEFAULT}.")
        return asyncio.run(_run(action, address, token, given))

    return command


async def _run(action: Action, address: str, token: str | None, given: dict[str, Any]) -> int | None:
    async with aiohttp.ClientSession() as session:
        return await action(Client(session, address, token), **given)


def _file() -> Path:
    # a user without a home folder, such as systemd's dynamic ones, has no such file
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111, it never raises
    return Path(folder) / "pipeline-gateway" / "client.yaml"


def _read_file(file: Path) -> dict[str, str]:
    """The address and the token that a file gives. Raises ConfigError."""
    if not os.path.exists(file):  # noqa: PTH110, it never raises
        return {}
    content = read_mapping(file)
    if isinstance(content, str):
        raise ConfigError(f"The client's file can't be read: {content}")
    for key, value in content.items():
        if key not in _KEYS or not isinstance(value, str):
            raise ConfigError(f"{file}: {key}: expected the keys server and token, such as `server: {_DEFAULT}`")
    if "token" in content and file.stat().st_mode & 0o077:
        raise ConfigError(f"{file} holds a token, and other users may read it: chmod 600 {file}")
    return {str(key): str(value) for key, value in content.items()}


def _read_token(file: Path) -> str:
    try:
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The token file {file} can't be read: {error}") from None
