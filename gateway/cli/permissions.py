"""What another user of this host may do with the files that the gateway needs."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Sequence
from pathlib import Path

from gateway.errors import ConfigError
from gateway.fabrics.local import LocalFabric
from gateway.settings.project import ProjectSettings
from gateway.settings.settings import Settings
from runners.dbt import project as dbt_project


def account(name: str) -> pwd.struct_passwd:
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f"--user: there is no user {name!r} on this host") from None
    if os.geteuid() not in (0, user.pw_uid):
        raise ConfigError(f"--user {name}: only root can find out what another user may do")
    return user


def of(
    settings: Settings, works: Sequence[LocalFabric], user: pwd.struct_passwd, sources: Sequence[Path]
) -> list[tuple[str, str, bool]]:
    """What a user must be able to do: the verb, the path, and whether it may; found by being that user for a moment."""
    files = [file for work in works for file in dbt_project.files(work.dbt, work.environment) if file.exists()]
    programs = [program for work in works for program in work.programs()]
    wanted = [
        *(("read", path, os.R_OK | os.X_OK) for path in _folders(settings)),
        *(("read", path, os.R_OK) for path in dict.fromkeys(str(file) for file in (*sources, *files))),
        *(("run", path, os.X_OK) for path in dict.fromkeys(programs)),
        *(("write", path, os.W_OK | os.X_OK) for path in _written(settings)),
    ]
    may = _as_user(user, [(path, mode) for _, path, mode in wanted])
    return [(verb, path, good) for (verb, path, _), good in zip(wanted, may, strict=True)]


def _folders(settings: Settings) -> Iterable[str]:
    folders: list[Path | None] = []
    for project in _on_this_host(settings):
        folders += [project.directory, project.dbt, project.ingester.directory if project.ingester else None]
    folders += [fabric.dbt.profiles_directory for fabric in settings.fabrics.values()]
    return dict.fromkeys(str(folder) for folder in folders if folder is not None)


def _written(settings: Settings) -> Iterable[str]:
    """The state directory, and the dbt projects, into which dbt installs packages."""
    folders = [existing(settings.state_directory), *(project.dbt for project in _on_this_host(settings))]
    return dict.fromkeys(str(folder) for folder in folders)


def _on_this_host(settings: Settings) -> Iterable[ProjectSettings]:
    """Those of a repository are checked out by the gateway's user itself."""
    return (project for project in settings.projects.values() if project.repository is None)


def existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _as_user(user: pwd.struct_passwd, wanted: Sequence[tuple[str, int]]) -> list[bool]:
    """Whether that user is granted each of these. A child changes its user: what it may do is the kernel's answer."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() != user.pw_uid:
                os.initgroups(user.pw_name, user.pw_gid)
                os.setgid(user.pw_gid)
                os.setuid(user.pw_uid)
            os.write(writer, bytes(os.access(path, mode) for path, mode in wanted))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        granted = answers.read()
    os.waitpid(child, 0)
    return [bool(answer) for answer in granted]
