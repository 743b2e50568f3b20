"""Settings from a gateway.yaml written by the test."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.settings import settings as config
from gateway.settings.settings import Settings


def load(folder: Path, text: str, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of a gateway.yaml with this text."""
    file = folder / "gateway.yaml"
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    return config.load(file, environment or {})


def refusal(folder: Path, text: str, environment: Mapping[str, str] | None = None) -> str:
    """What is said of a gateway.yaml with this text, which must be refused."""
    with pytest.raises(ConfigError) as refused:
        load(folder, text, environment)
    return str(refused.value)
