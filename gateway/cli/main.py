"""The command `pipeline-gateway`: assembles its commands, and maps errors to exit codes.

A command's module is imported when it runs, and imports what it needs then: a service that starts again should not wait
for what only other commands need.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from importlib import metadata

import click

from gateway.cli import init_process
from gateway.errors import GatewayError

# The commands in the order of the help, each with the module that has it.
SERVICE = {
    "serve": "gateway.cli.serve:serve",
    "demo": "gateway.cli.demo:demo",
    "init": "gateway.cli.init:init",
    "check": "gateway.cli.check:check",
    "schema": "gateway.cli.init:schema",
    "token": "gateway.cli.token:token",
    "notify": "gateway.cli.notify:notify",
}
CLIENT = {
    "trigger": "gateway.cli.client.trigger:trigger",
    "status": "gateway.cli.client.jobs:status",
    "logs": "gateway.cli.client.logs:logs",
    "nodes": "gateway.cli.client.nodes:nodes",
    "artifacts": "gateway.cli.client.artifacts:artifacts",
    "wait": "gateway.cli.client.jobs:wait",
    "cancel": "gateway.cli.client.jobs:cancel",
    "retry": "gateway.cli.client.trigger:retry",
    "list": "gateway.cli.client.jobs:list_jobs",
    "pipelines": "gateway.cli.client.pipelines:pipelines",
    "pause": "gateway.cli.client.pipelines:pause",
    "unpause": "gateway.cli.client.pipelines:unpause",
    "open": "gateway.cli.client.jobs:open_page",
}
COMMANDS = SERVICE | CLIENT
_EPILOG = """\
\b
First steps:
  pipeline-gateway demo              see it work: real flights, dlt, dbt and DuckDB in ./lakehouse
  pipeline-gateway init DIR          begin your own from the same files
  pipeline-gateway check             find out what is wrong before the first trigger
  pipeline-gateway serve             serve ./gateway.yaml on http://localhost:3000
  pipeline-gateway trigger full -f   run the ingester and dbt, and show their output
  pipeline-gateway notify test       try the receivers of notifications
  pipeline-gateway token create ME --scope run --file tokens
                                     admit only callers with a token, once `tokens_file: tokens` is in gateway.yaml

\b
Environment of the service (it beats gateway.yaml):
  PIPELINE_ENABLED    take triggers (off unless set)
  ENABLE_OPENLINEAGE  run dbt through dbt-ol; unset: where dbt-ol is installed
  ENABLE_ELEMENTARY   end `daily` with Elementary; unset: where the project has its package
  HOST, PORT          where to listen (localhost, 3000)
  JOB_TTL             seconds an ended job stays in the list of the data-analytics API (3600)
  STATE_DIRECTORY     where jobs, their output and the database are kept
  GATEWAY_<SETTING>   any other setting of gateway.yaml, as YAML

\b
Environment of the commands for jobs:
  PIPELINE_GATEWAY_SERVER  the address of the gateway (http://localhost:3000)
  PIPELINE_GATEWAY_TOKEN   the token, where the gateway wants one

\b
Exit codes: 0 done, 1 the demo or a check failed, or a token could not be changed, 2 a wrong command line, 70 a bug, 73
state directory or port unusable, 75 the same but it may pass (disk full), 78 wrong configuration.

\b
Exit codes of the commands for jobs: the job's own (trigger and retry with --wait or --follow, wait), 125 the job
failed or was cancelled, 75 the gateway refused the request, 69 the gateway can't be reached, 130 interrupted.
"""


class _Commands(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002, click passes it by this name
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002, as above
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        found = getattr(importlib.import_module(module), name)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in (("The service", SERVICE), ("Jobs of a running gateway", CLIENT)):
            commands = ((name, self.get_command(ctx, name)) for name in names)
            with formatter.section(title):
                formatter.write_dl([(name, command.get_short_help_str(80)) for name, command in commands if command])


@click.group(
    cls=_Commands,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(metadata.version("pipeline-gateway"), message="%(prog)s %(version)s")
def cli() -> None:
    """Start and follow the data pipelines of one server over HTTP."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    given = None if arguments is None else list(arguments)
    try:
        code = init_process.run(lambda: _run(given))
        if sys.stdout is not None:  # a closed descriptor leaves none
            sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except GatewayError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        # the reader of the output has ended, as `head` does; the flush at the exit must not fail too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _run(arguments: list[str] | None) -> int:
    """Run a command, which returns its exit code, None for 0."""
    return int(cli.main(arguments, prog_name="pipeline-gateway", standalone_mode=False) or 0)
