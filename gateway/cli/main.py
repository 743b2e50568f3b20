"""The command `pipeline-gateway`."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

from gateway import log
from gateway.app import Server
from gateway.errors import ConfigError, GatewayError, StateError
from gateway.settings import env_file, tokens
from gateway.settings import settings as config
from gateway.settings.tokens import Scope

_DESCRIPTION = "Start and follow the data pipelines of one server over HTTP."
_EPILOG = """\
first steps:
  pipeline-gateway demo              see it work: real flights, dlt, dbt and DuckDB in ./lakehouse
  pipeline-gateway init DIR          begin your own from the same files
  pipeline-gateway check             find out what is wrong before anybody triggers anything
  pipeline-gateway serve             serve ./gateway.yaml on http://localhost:3000
  pipeline-gateway token create ME --scope run --file tokens
                                     let in only who has a token, once `tokens_file: tokens` is in gateway.yaml

environment (it beats gateway.yaml):
  PIPELINE_ENABLED    take triggers (off unless set)
  ENABLE_OPENLINEAGE  run dbt through dbt-ol; unset: where dbt-ol is installed
  ENABLE_ELEMENTARY   end `daily` with Elementary; unset: where the project has its package
  HOST, PORT          where to listen (localhost, 3000)
  JOB_TTL             seconds an ended job stays in the list (3600)
  STATE_DIRECTORY     where jobs, their output and the database are kept
  GATEWAY_<SETTING>   any other setting of gateway.yaml, as YAML

exit codes: 0 done, 1 the demo or a check failed, or a token could not be changed, 70 a bug, 73 state directory or port
unusable, 75 the same but it may pass (disk full), 78 wrong configuration
"""
_BUG = 70
_RESTART = "Restart the gateway: it reads its tokens when it starts."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (ConfigError, StateError) as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except GatewayError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head`: nobody reads on, so there is nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pipeline-gateway",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"pipeline-gateway {metadata.version('pipeline-gateway')}"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    serve = commands.add_parser("serve", help="serve the HTTP API", description="Serve the HTTP API until SIGTERM.")
    _add_configuration(serve)
    serve.set_defaults(run=_serve)

    show = commands.add_parser(
        "demo",
        help="run a real pipeline from end to end",
        description="Make a lakehouse in a folder, serve it on loopback, trigger `full` over HTTP, show the outcome.",
    )
    show.add_argument("folder", nargs="?", type=Path, default=Path("lakehouse"), help="default: ./lakehouse")
    show.add_argument("--port", type=int, help="default: 3000, or a free one where that is taken")
    show.add_argument("--serve", action="store_true", help="keep serving afterwards, and say what to try")
    show.set_defaults(run=_demo)

    init = commands.add_parser(
        "init", help="begin a lakehouse of your own", description="Copy the demo's files into a new or empty folder."
    )
    init.add_argument("folder", type=Path, metavar="DIR")
    init.set_defaults(run=_init)

    look = commands.add_parser(
        "check",
        help="say what is wrong, without serving",
        description="Check configuration, programs and their versions, dbt project and profile, state directory, disk.",
    )
    _add_configuration(look)
    look.add_argument("--user", metavar="NAME", help="also say what this user could not read or write (needs root)")
    look.set_defaults(run=_check)
    _add_token(commands)
    return parser


def _add_token(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    token = commands.add_parser(
        "token",
        help="make, list or revoke the tokens that let callers in",
        description="The tokens that let callers in. The gateway reads them when it starts: restart it after a change.",
    )
    actions = token.add_subparsers(title="actions", metavar="ACTION", required=True)

    create = actions.add_parser(
        "create",
        help="make one and print it, once: only its SHA-256 is kept",
        description="Make a token and print it, once: only its SHA-256 is kept.",
        epilog="scopes: read GETs; run also triggers, cancels and retries; admin is everything there will be",
    )
    create.add_argument("name", metavar="NAME", help="whose it is; jobs are recorded under it")
    create.add_argument("--scope", required=True, choices=[str(scope) for scope in Scope], help="what it allows")
    create.add_argument("--expires", type=_lifetime, metavar="TIME", help="such as 90d or 12h; default: never")
    create.set_defaults(run=_create_token)

    listing = actions.add_parser("list", help="list names, scopes and ends", description="List the tokens.")
    listing.set_defaults(run=_list_tokens)

    revoke = actions.add_parser("revoke", help="take one away", description="Take a token away.")
    revoke.add_argument("name", metavar="NAME")
    revoke.set_defaults(run=_revoke_token)

    for action in (create, listing, revoke):
        _add_configuration(action)
        action.add_argument(
            "--file", type=Path, metavar="TOKENS", help="the tokens file; default: `tokens_file` of the configuration"
        )


def _lifetime(text: str) -> timedelta:
    found = re.fullmatch(r"([1-9][0-9]{0,3})([dh])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected days or hours such as 90d or 12h, found {text!r}")
    return timedelta(**{{"d": "days", "h": "hours"}[found[2]]: int(found[1])})


def _add_configuration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="default: ./gateway.yaml, if there is one")
    parser.add_argument(
        "--env-file",
        type=Path,
        metavar="FILE",
        help="NAME=VALUE lines, for settings and steps; the environment beats it",
    )


def _environment(options: argparse.Namespace) -> Mapping[str, str]:
    given = {} if options.env_file is None else env_file.read(options.env_file)
    return {**given, **os.environ}


def _serve(options: argparse.Namespace) -> int:
    log.set_up()
    environment = _environment(options)
    settings = config.load(options.config, environment)
    log.set_up(settings.mask(environment))
    return asyncio.run(_serving(Server(settings, environment)))


async def _serving(server: Server) -> int:
    try:
        await server.start(signals=True)
        await server.wait()
    except GatewayError:
        raise
    except Exception:  # noqa: BLE001, a service-wide task died, of whatever: down, loudly, for systemd to start anew
        log.crashed()
        return _BUG
    finally:
        await server.close()
    return 0


def _demo(options: argparse.Namespace) -> int:
    from gateway.demo import run as demo  # here, since a service that starts again has no time for it

    log.set_up(quiet=True)
    return asyncio.run(
        demo.run(options.folder.absolute(), os.environ, options.port, serve=options.serve, out=sys.stdout)
    )


def _create_token(options: argparse.Namespace) -> int:
    now = datetime.now(UTC).replace(microsecond=0)
    expires = None if options.expires is None else now + options.expires
    print(tokens.create(_tokens_file(options), options.name, Scope(options.scope), now, expires))
    print(_RESTART, file=sys.stderr)
    return 0


def _list_tokens(options: argparse.Namespace) -> int:
    now = datetime.now(UTC)
    for token in tokens.read(_tokens_file(options)).tokens:
        end = "never expires" if token.expires is None else f"expires {token.expires.isoformat()}"
        end = f"EXPIRED {token.expires.isoformat()}" if token.expires and token.is_expired(now) else end
        print(f"{token.name:20} {token.scope:5} created {token.created.isoformat()}, {end}")
    return 0


def _revoke_token(options: argparse.Namespace) -> int:
    tokens.revoke(_tokens_file(options), options.name)
    print(_RESTART, file=sys.stderr)
    return 0


def _tokens_file(options: argparse.Namespace) -> Path:
    named: Path | None = options.file or config.load(options.config, _environment(options)).tokens_file
    if named is None:
        raise ConfigError(
            "There is no tokens file: set `tokens_file` in gateway.yaml, or name it with --file "
            "(the systemd service reads /etc/pipeline-gateway/tokens)."
        )
    return named


def _init(options: argparse.Namespace) -> int:
    from gateway.demo import starter  # here, as above

    starter.copy(options.folder)
    print(f"{options.folder} is ready. Next: cd {options.folder}; pipeline-gateway check; pipeline-gateway serve")
    return 0


def _check(options: argparse.Namespace) -> int:
    from gateway.cli import findings  # here, as above

    environment = _environment(options)
    settings = config.load(options.config, environment)
    sources = [file for file in (options.config or config.DEFAULT_FILE, options.env_file) if file and file.exists()]
    look = findings.findings(settings, environment, options.user, [file.absolute() for file in sources])
    found = asyncio.run(look)
    for finding in found:
        print(f"{'WRONG' if not finding.good else 'warn ' if finding.warns else 'ok   '}  {finding.text}")
    return 0 if all(finding.good for finding in found) else 1
