"""What a user of this host may do with the files that the gateway needs."""

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


def find_user(name: str) -> pwd.struct_passwd:
    """The user with this name. Raises ConfigError for an unknown one, and where this process can't become that user."""
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f"--user: there is no user {name!r} on this host") from None
    if os.geteuid() not in (0, user.pw_uid):
        raise ConfigError(f"--user {name}: only root can find out what another user may do")
    return user


def check(
    settings: Settings, fabrics: Sequence[LocalFabric], user: pwd.struct_passwd, sources: Sequence[Path]
) -> list[tuple[str, str, bool]]:
    """What the gateway must be able to do: the verb, the path, and whether this user may.

    fabrics: those of projects that run in their own directory. sources: the files that the settings come from.
    """
    files = [file for one in fabrics for file in dbt_project.files(one.dbt, one.environment) if file.exists()]
    programs = [program for one in fabrics for program in one.programs()]
    wanted = [
        *(("read", path, os.R_OK | os.X_OK) for path in _folders(settings)),
        *(("read", path, os.R_OK) for path in dict.fromkeys(str(file) for file in (*sources, *files))),
        *(("run", path, os.X_OK) for path in dict.fromkeys(programs)),
        *(("write", path, os.W_OK | os.X_OK) for path in _written(settings)),
    ]
    granted = _access(user, [(path, mode) for _, path, mode in wanted])
    return [(verb, path, is_granted) for (verb, path, _), is_granted in zip(wanted, granted, strict=True)]


def _folders(settings: Settings) -> Iterable[str]:
    folders: list[Path | None] = []
    for project in _on_this_host(settings):
        folders += [project.directory, project.dbt, project.ingester.directory if project.ingester else None]
    folders += [fabric.dbt.profiles_directory for fabric in settings.fabrics.values()]
    return dict.fromkeys(str(folder) for folder in folders if folder is not None)


def _written(settings: Settings) -> Iterable[str]:
    """The state directory, and the dbt projects, because dbt installs packages into them."""
    folders = [nearest_existing(settings.state_directory), *(project.dbt for project in _on_this_host(settings))]
    return dict.fromkeys(str(folder) for folder in folders)


def _on_this_host(settings: Settings) -> Iterable[ProjectSettings]:
    """The projects in directories; the gateway checks out those of repositories itself."""
    return (project for project in settings.projects.values() if project.repository is None)


def nearest_existing(folder: Path) -> Path:
    """The folder, or the nearest folder above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _access(user: pwd.struct_passwd, wanted: Sequence[tuple[str, int]]) -> list[bool]:
    """Whether the user has each of these accesses; the kernel says so to a child process that becomes that user."""
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
