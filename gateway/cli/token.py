"""`pipeline-gateway token`: the tokens that let callers in."""

from __future__ import annotations

import argparse
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.cli import options as shared
from gateway.errors import ConfigError
from gateway.settings import tokens
from gateway.settings.tokens import Scope

_RESTART = "Restart the gateway: it reads its tokens when it starts."


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its actions."""
    parser.description = (
        "The tokens that let callers in. The gateway reads them when it starts: restart it after a change."
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    create = actions.add_parser(
        "create",
        help="make one and print it, once: only its SHA-256 is kept",
        description="Make a token and print it, once: only its SHA-256 is kept.",
        epilog="scopes: read GETs; run also triggers, cancels and retries; admin is everything there will be",
    )
    create.add_argument("name", metavar="NAME", help="whose it is; jobs are recorded under it")
    create.add_argument("--scope", required=True, choices=[str(scope) for scope in Scope], help="what it allows")
    create.add_argument("--expires", type=_lifetime, metavar="TIME", help="such as 90d or 12h; default: never")
    create.set_defaults(run=_create)

    listing = actions.add_parser("list", help="list names, scopes and ends", description="List the tokens.")
    listing.set_defaults(run=_list)

    revoke = actions.add_parser("revoke", help="revoke one", description="Revoke a token.")
    revoke.add_argument("name", metavar="NAME", help="as `token list` shows it")
    revoke.set_defaults(run=_revoke)

    for action in (create, listing, revoke):
        shared.add_configuration(action)
        action.add_argument(
            "--file", type=Path, metavar="TOKENS", help="the tokens file; default: `tokens_file` of the configuration"
        )


def _lifetime(text: str) -> timedelta:
    found = re.fullmatch(r"([1-9][0-9]{0,3})([dh])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected days or hours such as 90d or 12h, found {text!r}")
    return timedelta(**{{"d": "days", "h": "hours"}[found[2]]: int(found[1])})


def _create(options: argparse.Namespace) -> int:
    now = datetime.now(UTC).replace(microsecond=0)
    expires = None if options.expires is None else now + options.expires
    print(tokens.create(_file(options), options.name, Scope(options.scope), now, expires))
    print(_RESTART, file=sys.stderr)
    return 0


def _list(options: argparse.Namespace) -> int:
    now = datetime.now(UTC)
    for token in tokens.read(_file(options)).tokens:
        end = "never expires" if token.expires is None else f"expires {token.expires.isoformat()}"
        end = f"EXPIRED {token.expires.isoformat()}" if token.expires and token.is_expired(now) else end
        print(f"{token.name:20} {token.scope:5} created {token.created.isoformat()}, {end}")
    return 0


def _revoke(options: argparse.Namespace) -> int:
    tokens.revoke(_file(options), options.name)
    print(_RESTART, file=sys.stderr)
    return 0


def _file(options: argparse.Namespace) -> Path:
    if options.file is not None:
        return Path(options.file)
    settings, _ = shared.load(options)
    if settings.tokens_file is None:
        raise ConfigError(
            "There is no tokens file: set `tokens_file` in gateway.yaml, or name it with --file "
            "(the systemd service reads /etc/pipeline-gateway/tokens)."
        )
    return settings.tokens_file
