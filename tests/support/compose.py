"""Compose projects of small scripted services, and what a gateway has made of them on an engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from runners.containers.identity import JOB_LABEL, container_name
from tests.support.docker import BUSYBOX_IMAGE, Engine


def shell(script: str, **more: Any) -> dict[str, Any]:
    """A service whose own command is this shell script, as PID 1. more: further keys of the service."""
    return service(command=["sh", "-c", script], **more)


def service(**keys: Any) -> dict[str, Any]:
    """A service of the busybox image without a network, with these keys besides; `$` stands for itself in them."""
    plain: dict[str, Any] = json.loads(json.dumps(keys).replace("$", "$$"))
    return {"image": BUSYBOX_IMAGE, "network_mode": "none", **plain}


def write(
    folder: Path,
    *,
    fabric: Mapping[str, Any] | None = None,
    projects: Mapping[str, Any] | None = None,
    **services: Mapping[str, Any],
) -> Path:
    """A compose project of these services; its folder, which each of them has as /shared.

    fabric: settings of the fabric `containers` in a gateway.yaml beside it; without them there is no such file.
    projects: settings of projects in that file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shared = {name: {"volumes": [f"{folder}:/shared"], **keys} for name, keys in services.items()}
    (folder / "compose.yaml").write_text(yaml.safe_dump({"services": shared}), "utf-8")
    if fabric is not None:
        fabrics = {"fabrics": {"containers": {"runner": "compose", **fabric}}}
        more = {} if projects is None else {"projects": dict(projects)}
        (folder / "gateway.yaml").write_text(yaml.safe_dump({**fabrics, **more}), "utf-8")
    return folder


def containers_of(engine: Engine, job: str, all: bool = True) -> list[str]:  # noqa: A002 - the name of docker's option
    """The names of a job's containers, or only of those that run."""
    states = ["--all"] if all else []
    return engine.docker("ps", *states, "--format={{.Names}}", f"--filter=label={JOB_LABEL}={job}").splitlines()


def name_of(job: str, step: str = "1-ingester") -> str:
    """The name of the container of a job's step, which is named as its folder is."""
    return container_name(Path(job) / step)


def inspect(engine: Engine, container: str, template: str) -> str:
    """What docker's template makes of a container, which must be there."""
    return engine.docker("container", "inspect", f"--format={template}", container).strip()
