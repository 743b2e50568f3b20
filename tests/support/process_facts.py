"""What a process holds, by the kernel's word, and which processes the steps of a gateway have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class Facts:
    """What a process holds. descriptors: what each leads to, sorted. zombies: dead children that it took no note of."""

    threads: int
    descriptors: tuple[str, ...]
    zombies: int


@dataclass(frozen=True)
class Memory:
    """Of a process, in MB. heap: what is its alone, whatever other processes have the same programs loaded."""

    rss: float
    heap: float


def facts(pid: int) -> Facts:
    """What a process holds now. Raises OSError once it is gone."""
    tasks = list((_PROC / str(pid) / "task").iterdir())
    return Facts(len(tasks), _descriptors(pid), sum(_is_zombie(child) for task in tasks for child in _children(task)))


def memory(pid: int) -> Memory:
    """How much memory a process takes. Raises OSError once it is gone, KeyError while it is going."""
    lines = (_PROC / str(pid) / "status").read_text().splitlines()
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return Memory(rss=int(fields["VmRSS"][0]) / 1000, heap=int(fields["RssAnon"][0]) / 1000)


def descriptors(pid: int) -> int:
    """How many descriptors a process has open. Raises OSError once it is gone."""
    return len(list((_PROC / str(pid) / "fd").iterdir()))


def of_steps(state: Path) -> list[str]:
    """The processes of the steps of a state directory, and of their supervisors: each says so in its environment."""
    mark = f"{state / 'jobs'}/".encode()
    found = []
    for process in _PROC.glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes():
                found.append(f"{process.name} {(process / 'cmdline').read_bytes().decode(errors='replace')}")
        except OSError:
            continue  # gone meanwhile
    return found


def _descriptors(pid: int) -> tuple[str, ...]:
    found = []
    for entry in (_PROC / str(pid) / "fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            continue  # closed meanwhile
        found.append(target if target.startswith("/") else target.partition(":")[0])  # no socket's own number
    return tuple(sorted(found))


def _children(task: Path) -> list[str]:
    try:
        return (task / "children").read_text().split()
    except OSError:
        return []  # a thread that ended meanwhile


def _is_zombie(pid: str) -> bool:
    try:
        return (_PROC / pid / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False
