"""What a request gave, as the record of its job keeps it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RequestFields:
    """The fields of a request that its job does not tell otherwise, so that the request can be made again.

    built_in: its pipeline is a built-in one, whatever the project declares. parameters: as the client sent them.
    Other fields are None where they were not given.
    """

    built_in: bool = False
    openlineage: bool | None = None
    elementary: bool | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    branch: str | None = None
    version: str | None = None
