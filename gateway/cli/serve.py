"""`pipeline-gateway serve`: the service itself."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import click

from gateway.cli import options
from gateway.errors import GatewayError
from gateway.settings.settings import Settings

_BUG = 70  # EX_SOFTWARE
_Load = Callable[[], tuple[Settings, Mapping[str, str]]]


@click.command("serve")
@options.configuration
def serve(config: Path | None, env_file: Path | None) -> int:
    """Serve the HTTP API until SIGTERM.

    SIGHUP has it read its configuration, the environment file and the tokens again.
    """
    from gateway import log

    log.set_up()
    load = functools.partial(options.load, config, env_file)
    settings, environment = load()
    log.set_up(settings.mask(environment))
    return asyncio.run(_serve(settings, environment, load))


async def _serve(settings: Settings, environment: Mapping[str, str], load: _Load) -> int:
    from gateway import log
    from gateway.app import Server

    server = Server(settings, environment, load)
    try:
        await server.start(signals=True)
        await server.wait()
    except GatewayError:
        raise
    except Exception:  # noqa: BLE001, a service-wide task died of any error: exit, so that systemd starts it again
        log.crashed()
        return _BUG
    finally:
        await server.close()
    return 0
