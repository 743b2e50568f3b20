"""The options that say where settings come from, which several commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from gateway.settings import settings as config
from gateway.settings.settings import Settings


def add_configuration(parser: argparse.ArgumentParser) -> None:
    """Add the options that `load` reads."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="default: ./gateway.yaml, if there is one")
    parser.add_argument(
        "--env-file",
        type=Path,
        metavar="FILE",
        help="NAME=VALUE lines, for settings and steps; the environment beats it",
    )


def load(options: argparse.Namespace) -> tuple[Settings, Mapping[str, str]]:
    """The settings, and the environment that they and the steps see. Raises ConfigError."""
    environment = {**_variables(options.env_file), **os.environ}
    return config.load(options.config, environment), environment


def _variables(file: Path | None) -> Mapping[str, str]:
    if file is None:
        return {}
    from gateway.settings import env_file  # only here, because most starts need no parser of such files

    return env_file.read(file)
