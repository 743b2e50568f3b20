"""`pipeline-gateway serve`: the service itself."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping

from gateway.cli import options as shared
from gateway.errors import GatewayError
from gateway.settings.settings import Settings

_BUG = 70  # EX_SOFTWARE


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = "Serve the HTTP API until SIGTERM."
    shared.add_configuration(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from gateway import log

    log.set_up()
    settings, environment = shared.load(options)
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
