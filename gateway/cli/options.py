"""The options that say where settings come from, which several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from gateway.settings import settings as config
from gateway.settings.settings import Settings

_Command = TypeVar("_Command", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path)


def configuration(command: _Command) -> _Command:
    """Add the options `--config` and `--env-file`, whose values `load` reads."""
    command = click.option(
        "--env-file",
        type=_FILE,
        metavar="FILE",
        help="NAME=VALUE lines, for settings and steps; the environment beats it.",
    )(command)
    return click.option("--config", type=_FILE, metavar="FILE", help="Default: ./gateway.yaml, if there is one.")(
        command
    )


def load(config_file: Path | None, env_file: Path | None) -> tuple[Settings, Mapping[str, str]]:
    """The settings, and the environment that they and the steps see. Raises ConfigError."""
    environment = {**_variables(env_file), **os.environ}
    return config.load(config_file, environment), environment


def _variables(file: Path | None) -> Mapping[str, str]:
    if file is None:
        return {}
    from gateway.settings import env_file  # only here, because most starts need no parser of such files

    return env_file.read(file)
