"""`pipeline-gateway token`: the tokens that let callers in."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from gateway.cli import options
from gateway.errors import ConfigError
from gateway.settings import tokens
from gateway.settings.tokens import Scope

_RELOAD = (
    "Reload the gateway (SIGHUP, or `systemctl reload pipeline-gateway`), or restart it: it reads its tokens then."
)


def _lifetime(_: click.Context, __: click.Parameter, text: str | None) -> timedelta | None:
    if text is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,3})([dh])", text)
    if found is None:
        raise click.BadParameter(f"expected days or hours such as 90d or 12h, found {text!r}")
    return timedelta(**{{"d": "days", "h": "hours"}[found[2]]: int(found[1])})


def _tokens_file(action: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which file holds the tokens, and give the action that file."""

    @options.configuration
    @click.option(
        "--file",
        type=click.Path(path_type=Path),
        metavar="TOKENS",
        help="The tokens file; default: `tokens_file` of the configuration.",
    )
    @functools.wraps(action)
    def with_file(*, config: Path | None, env_file: Path | None, file: Path | None, **given: object) -> None:
        action(file or _configured(config, env_file), **given)

    return with_file


@click.group("token")
def token() -> None:
    """Make, list or revoke the tokens that let callers in.

    The gateway reads them when it starts and when it is reloaded: SIGHUP, or `systemctl reload`.
    """


@token.command(epilog="Scopes: read GETs; run also triggers, cancels and retries; admin is everything there will be.")
@click.argument("name")
@click.option("--scope", required=True, type=click.Choice([str(scope) for scope in Scope]), help="What it allows.")
@click.option("--expires", callback=_lifetime, metavar="TIME", help="Such as 90d or 12h; default: never.")
@_tokens_file
def create(file: Path, name: str, scope: str, expires: timedelta | None) -> None:
    """Make a token and print it, once: only its SHA-256 is kept. Jobs are recorded under NAME."""
    now = datetime.now(UTC).replace(microsecond=0)
    print(tokens.create(file, name, Scope(scope), now, None if expires is None else now + expires))
    print(_RELOAD, file=sys.stderr)


@token.command("list")
@_tokens_file
def list_tokens(file: Path) -> None:
    """List names, scopes and ends."""
    now = datetime.now(UTC)
    for one in tokens.read(file).tokens:
        end = "never expires" if one.expires is None else f"expires {one.expires.isoformat()}"
        end = f"EXPIRED {one.expires.isoformat()}" if one.expires and one.is_expired(now) else end
        print(f"{one.name:20} {one.scope:5} created {one.created.isoformat()}, {end}")


@token.command()
@click.argument("name")
@_tokens_file
def revoke(file: Path, name: str) -> None:
    """Revoke the token NAME, as `token list` shows it."""
    tokens.revoke(file, name)
    print(_RELOAD, file=sys.stderr)


def _configured(config: Path | None, env_file: Path | None) -> Path:
    settings, _ = options.load(config, env_file)
    if settings.tokens_file is None:
        raise ConfigError(
            "There is no tokens file: set `tokens_file` in gateway.yaml, or name it with --file "
            "(the systemd service reads /etc/pipeline-gateway/tokens)."
        )
    return settings.tokens_file
