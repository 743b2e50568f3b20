"""The command `pipeline-gateway`: assembles its commands, and maps errors to exit codes.

A command imports what it needs when it runs: a service that starts again should not wait for what only `demo` and
`check` need.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import metadata

from gateway.cli import check, demo, init, init_process, schema, serve, token
from gateway.errors import GatewayError

# By name: what adds the options to the command's parser and sets `run`, which returns the exit code; and what the list
# of commands says about it.
COMMANDS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], str]] = {
    "serve": (serve.add, "serve the HTTP API"),
    "demo": (demo.add, "run a real pipeline from end to end"),
    "init": (init.add, "begin a lakehouse of your own"),
    "check": (check.add, "say what is wrong, without serving"),
    "schema": (schema.add, "print the JSON Schema of gateway.yaml, for editors"),
    "token": (token.add, "make, list or revoke the tokens that let callers in"),
}
_EPILOG = """\
first steps:
  pipeline-gateway demo              see it work: real flights, dlt, dbt and DuckDB in ./lakehouse
  pipeline-gateway init DIR          begin your own from the same files
  pipeline-gateway check             find out what is wrong before the first trigger
  pipeline-gateway serve             serve ./gateway.yaml on http://localhost:3000
  pipeline-gateway token create ME --scope run --file tokens
                                     admit only callers with a token, once `tokens_file: tokens` is in gateway.yaml

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = parser().parse_args(arguments)
    try:
        code = init_process.run(lambda: int(options.run(options)))
        if sys.stdout is not None:  # a closed descriptor leaves none
            sys.stdout.flush()
    except GatewayError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the reader of the output has ended, as `head` does; the flush at the exit must not fail too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="pipeline-gateway",
        description="Start and follow the data pipelines of one server over HTTP.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"pipeline-gateway {metadata.version('pipeline-gateway')}"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (add, summary) in COMMANDS.items():
        add(commands.add_parser(name, help=summary))
    return parser
