"""`pipeline-gateway serve`: the service itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import click

from gateway.cli import options
from gateway.errors import GatewayError
from gateway.settings.settings import Settings

_BUG = 70  # EX_SOFTWARE


@click.command("serve")
@options.configuration
def serve(config: Path | None, env_file: Path | None) -> int:
    """Serve the HTTP API until SIGTERM."""
    from gateway import log

    log.set_up()
    settings, environment = options.load(config, env_file)
    log.set_up(settings.mask(environment))
    return asyncio.run(_serve(settings, environment))


async def _serve(settings: Settings, environment: Mapping[str, str]) -> int:
    from gateway import log
    from gateway.app import Server

    server = Server(settings, environment)
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
