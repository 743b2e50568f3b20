"""A Debian of the tests' own, booted by its own systemd in a container that shares the network of this host."""

from __future__ import annotations

import ast
import configparser
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.support import debian
from tests.support.gateway import wait_for

_PROGRAMS = ("debootstrap", "systemd-nspawn", "nsenter", "setpriv")
# what would wait for a terminal or a network card, of which there is none
_MASKED = ("console-getty.service", "getty@.service", "systemd-networkd.service", "systemd-resolved.service")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PATIENCE = 600.0  # seconds for one command: some of them fetch packages


def missing() -> str | None:
    """Which part of such a machine is missing here, in a sentence."""
    for program in _PROGRAMS:
        if shutil.which(program) is None:
            return f"{program} is not installed"
    denied = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], check=False, capture_output=True)
    if os.geteuid() != 0 or denied.returncode != 0:
        return "a booted machine needs root and the right to make namespaces"
    return None


class Machine:
    """One Debian. Its files are reached through `path`, its programs through `run` and `shell`."""

    def __init__(self) -> None:
        # not in TMPDIR: sockets are put into it, and the path of a Unix socket is at most 107 bytes
        self.folder = Path(tempfile.mkdtemp(prefix="machine-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.log = self.folder / "log"
        self._root = Path(os.environ.get(debian.MADE) or self.folder / "root")
        self._container: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def make(self) -> str | None:
        """Put a Debian into its folder; why that can't be had, in a sentence."""
        if not self._root.exists():
            with self.log.open("ab") as log:
                command = debian.command(self._root)
                made = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            if made.returncode != 0:
                return f"debootstrap failed: {self._said()}"
        for unit in _MASKED:
            self.path(f"/etc/systemd/system/{unit}").unlink(missing_ok=True)
            self.path(f"/etc/systemd/system/{unit}").symlink_to("/dev/null")
        with self.path("/etc/pip.conf").open("w", encoding="utf-8") as file:
            _pip().write(file)
        return None

    def boot(self) -> None:
        """Start it and wait until its systemd is done with that."""
        binds = [f"--bind-ro={path}" for path in dict.fromkeys(_named_paths(_pip()))]
        command = [
            *("setpriv", "--pdeathsig", "TERM"),
            *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot", "--console=pipe"),
            *(f"--directory={self._root}", "--machine=tests", *binds),
        ]
        with self.log.open("ab") as log:
            self._container = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(self._booted, "a booted machine")

    def _booted(self) -> bool:
        """Whether its systemd has started everything; fails where it ended instead."""
        assert self._container is not None
        assert self._container.poll() is None, f"the machine ended: {self._said()}"
        children = Path(f"/proc/{self._container.pid}/task/{self._container.pid}/children").read_text().split()
        self._leader = int(children[0]) if children else 0
        if not self._leader or Path(f"/proc/{self._leader}/comm").read_text().strip() != "systemd":
            return False
        return self.try_run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded")

    def path(self, name: str) -> Path:
        """A file of the machine, as this host sees it. The machine has its own /run, /tmp, /dev and /proc."""
        return self._root / name.lstrip("/")

    def write(self, name: str, text: str) -> None:
        """A text file of the machine, with the folders to it."""
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).write_text(text, "utf-8")

    def copy(self, file: Path, name: str) -> None:
        """A file of this host, or a folder, in the machine."""
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            shutil.copytree(file, self.path(name), ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(file, self.path(name))

    def here(self, pid: int) -> int:
        """A process of the machine as this host counts them."""
        root = Path(f"/proc/{self._leader}/ns/pid").stat().st_ino
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                same = (process / "ns/pid").stat().st_ino == root
                if same and re.search(rf"^NSpid:.*\s{pid}$", (process / "status").read_text(), re.MULTILINE):
                    return int(process.name)
        raise AssertionError(f"the machine has no process {pid}")

    def run(self, *command: str, folder: str = "/") -> str:
        """What a command of the machine prints, as its root; it must succeed."""
        done = self.try_run(*command, folder=folder)
        assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def shell(self, script: str, folder: str = "/") -> str:
        """The same for the lines of a shell, as a person would type them; each must succeed."""
        return self.run("bash", "-euo", "pipefail", "-c", script, folder=folder)

    def try_run(self, *command: str, folder: str = "/") -> subprocess.CompletedProcess[str]:
        """How a command of the machine ended."""
        given = {name: os.environ[name] for name in _PROXIES if name in os.environ}
        return subprocess.run(
            ["nsenter", f"--target={self._leader}", "-m", "-p", "-u", "-i", "--", "env", f"--chdir={folder}", *command],
            env={"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8", **given},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )

    def close(self) -> None:
        """End it and everything in it, and leave nothing."""
        if self._container is not None:
            if self._leader and self._container.poll() is None:
                with suppress(ProcessLookupError):  # its systemd ends, and with it whatever runs there
                    os.kill(self._leader, signal.SIGKILL)
            else:
                self._container.kill()
            self._container.wait(_PATIENCE)
        shutil.rmtree(self.folder)

    def _said(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]


def _pip() -> configparser.RawConfigParser:
    """What pip is told here, by files and environment, so that it finds the same packages in the machine."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    settings = configparser.RawConfigParser()
    settings.add_section("global")
    for line in sorted(listed.splitlines(), reverse=True):  # `:env:` comes last, since it wins
        key, _, value = line.partition("=")
        settings.set("global", key.rpartition(".")[2], str(ast.literal_eval(value)))
    return settings


def _named_paths(settings: configparser.RawConfigParser) -> Iterator[Path]:
    """The files and folders of this host that the settings name."""
    for _, value in settings.items("global"):
        for word in value.split():
            path = Path(word.removeprefix("file://"))
            if word.startswith("file://"):
                path = path.parent  # an index's packages lie beside its pages
            if path.is_absolute() and path.exists() and path != Path("/"):
                yield path
