"""The detached supervisor of one step: runs it, bounds its output, writes down how it ended.

    python -I -S -X utf8 shim.py FOLDER

It is started with the step's environment as its own, and what to mask in the output comes as a JSON list on its
standard input, so nothing secret is ever in a file. It imports the standard library only and nothing of ours: it goes
on while the gateway is restarted, replaced or broken.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import re
import resource
import selectors
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

# what the launching half exits with: started; couldn't, and nothing was; another shim has it; it was started before
STARTED, REFUSED, HELD, ONCE = 0, 74, 75, 76
EXIT_SIZE = 512
SEGMENT_SIZE = 16 << 20
PIPE_SIZE = 1 << 20
KILL_AGAIN = 0.2
SHORTEST_SECRET = 6  # bytes

_MASK = b"***"
# The gateway's own tokens, of which it knows no more than their form.
_TOKEN_START, _TOKEN_SIZE = b"pgw_", 47
_TOKEN = re.compile(rb"pgw_[A-Za-z0-9_-]{43}")
# What of a URL names user, password and host, as far as it is looked at; without @ it is one of them.
_AUTHORITY_SIZE = 512
_AUTHORITY = re.compile(rb'://([^\x00-\x20"<>\\/?#]{0,512})')
_BEGUN = re.compile(rb'(?:p(?:gw?)?|pgw_[A-Za-z0-9_-]{0,42}|:/?|://[^\x00-\x20"<>\\/?#]{0,511})\Z')
_CUT_OFF = re.compile(rb'(?:(pgw_[A-Za-z0-9_-]{2,42})|://(?!\[)[^\x00-\x20"<>\\/?#@:]*:([^\x00-\x20"<>\\/?#@]{6,}))\Z')
_strstr = ctypes.CDLL(None).strstr
_strstr.restype = ctypes.c_void_p


class Masker:
    """Puts `***` in the place of secrets: of these values, of passwords in URLs, of the gateway's own tokens.

    What it makes of a stream does not depend on the pieces that it comes in: what may begin a secret is held back until
    more comes. Wherever a secret begins it is found; those that overlap are masked as one.
    """

    def __init__(self, values: Iterable[bytes]) -> None:
        self._values = [value for value in values if value]
        self._held = bytearray()
        self._covered = 0  # bytes at the beginning of what is held that are masked already

    def feed(self, data: bytearray, end: int) -> memoryview:
        """Take data[:end]; what can be shown of the stream now. The byte after it may be changed."""
        if self._held:
            data = self._held + data[:end]
            end = len(data)
        begun = _BEGUN.search(data, max(0, end - _AUTHORITY_SIZE - 3), end)
        held = max(self._begun(data, end), end - begun.start() if begun else 0)
        return self._shown(data, end - held, end, self._secrets(data, end))

    def finish(self) -> memoryview:
        """What was held back: nothing comes after it. What has so much of a secret that it tells it is masked too."""
        data, end = self._held, len(self._held)
        secrets = [
            *self._secrets(data, end),
            *((cut.start(cut.lastindex or 0), end) for cut in _CUT_OFF.finditer(data)),
        ]
        if (begun := self._begun(data, end)) >= SHORTEST_SECRET:
            secrets.append((end - begun, end))
        return self._shown(data, end, end, secrets)

    def _shown(self, data: bytearray, until: int, end: int, secrets: list[tuple[int, int]]) -> memoryview:
        """data[:until] without its secrets; what comes after it is held."""
        shown: list[bytes | bytearray] = []
        covered = self._covered
        for begin, over in sorted(secrets):
            if begin >= until:
                break
            if begin >= covered:
                shown += [data[covered:begin], _MASK]
            covered = max(covered, over)
        self._held, self._covered = data[until:end], max(0, covered - until)
        if covered == 0:
            return memoryview(data)[:until]
        return memoryview(b"".join([*shown, data[covered:until]]))

    def _secrets(self, data: bytearray, end: int) -> list[tuple[int, int]]:
        """Where secrets begin and end, in no order."""
        found = [
            (at, at + (len(value) if value is not _TOKEN_START else _TOKEN_SIZE))
            for value in self._present(data, end)
            for at in _places(value, data, end)
            if value is not _TOKEN_START or _TOKEN.match(data, at, end)
        ]
        for at in _places(b"@", data, end):
            start = data.rfind(b"://", max(0, at - _AUTHORITY_SIZE - 3), at)
            if start >= 0 and (authority := _AUTHORITY.match(data, start, end)) and authority.end() > at:
                begin = data.find(b":", authority.start(1), at) + 1
                if 0 < begin < at:
                    found.append((begin, at))
        return found

    def _present(self, data: bytearray, end: int) -> list[bytes]:
        """What of the values, and of the beginning of a token, the data may have: a `find` for each is far slower."""
        wanted = [*self._values, _TOKEN_START]
        if end == 0 or data.find(0, 0, end) >= 0:  # C takes a NUL for the end
            return wanted
        if end < len(data):
            data[end] = 0
        text = (ctypes.c_char * 0).from_buffer(data)
        return [value for value in wanted if _strstr(text, value)]

    def _begun(self, data: bytearray, end: int) -> int:
        """How many of the last bytes begin one of the values."""
        longest, last = 0, bytes(data[max(0, end - 1) : end])
        for value in self._values if last else ():
            length = min(len(value) - 1, end)
            while (length := value.rfind(last, 0, length) + 1) > longest:
                if data.endswith(value[:length], 0, end):
                    longest = length
                length -= 1
        return longest


def _places(text: bytes, data: bytearray, end: int) -> Iterator[int]:
    """Where a text begins in data[:end]."""
    at = data.find(text, 0, end)
    while at >= 0:
        yield at
        at = data.find(text, at + 1, end)


class OutputSegments:
    """The job's output ring: segments named by the absolute offset of their first byte."""

    def __init__(self, folder: Path, cap: int) -> None:
        self.folder = folder
        self.cap = cap
        self.size = max(1, min(SEGMENT_SIZE, cap // 4))
        self.dropped = 0
        self.fd = -1
        names = os.listdir(folder)  # noqa: PTH208, a glob may call a folder empty that can't be opened
        self.starts = sorted(int(name[7:]) for name in names if re.fullmatch(r"output\.[0-9]{20}", name))
        self.end = self.starts[-1] + self._segment(self.starts[-1]).stat().st_size if self.starts else 0

    def begin_line(self) -> None:
        """Let what comes next not continue the last line of an earlier step."""
        if self.starts:
            with suppress(OSError), self._segment(self.starts[-1]).open("rb") as segment:
                segment.seek(-1, os.SEEK_END)
                if segment.read() != b"\n":
                    self.write(memoryview(b"\n"))

    def write(self, data: memoryview) -> None:
        """Append; what can't be written is counted and forgotten, for a full disk must not stop the step."""
        while data:
            try:
                fd = self._open()
                written = os.write(fd, data[: self.starts[-1] + self.size - self.end])
            except OSError:
                self.dropped += len(data)
                return
            self.end += written
            data = data[written:]

    def _segment(self, start: int) -> Path:
        return self.folder / f"output.{start:020}"

    def _open(self) -> int:
        """The descriptor of a segment that has room."""
        full = not self.starts or self.end - self.starts[-1] >= self.size
        if not full and self.fd >= 0:
            return self.fd
        # the oldest first: a full disk may have no room for the next until it is gone
        while full and self.starts and self.end - self.starts[0] + self.size > self.cap:
            self._segment(self.starts[0]).unlink(missing_ok=True)
            del self.starts[0]
        start = self.end if full else self.starts[-1]
        opened = os.open(self._segment(start), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        if self.fd >= 0:
            os.close(self.fd)
        if full:
            self.starts.append(start)
        self.fd = opened
        return opened


class SupervisedStep:
    """Runs the commands of a step one after the other and sees to it that nothing of them stays alive."""

    def __init__(self, spec: dict[str, Any], output: OutputSegments, masker: Masker) -> None:
        self.spec = spec
        self.output = output
        self.masker = masker
        self.asked = False
        self.stopped: str | None = None
        self.error: str | None = None
        self.leader = 0
        self.status: int | None = None  # the leader's wait status, once it has left
        self.signals: list[int] = []  # still to be sent, in order; the last is repeated until nothing is alive
        self.due = 0.0
        self.limit = 0.0
        self.skip = spec["output_skip"] or 0  # bytes that the ring has already, masked as they are there
        self.pipe = -1  # the read end of the output, while open
        self.buffer = bytearray()
        self.selector = selectors.DefaultSelector()
        self.wakeup, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.selector.register(self.wakeup, selectors.EVENT_READ)
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._ask)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def run(self) -> None:
        """Run until a command fails, a stop is asked for, or all of them are done."""
        if self.spec["output_skip"] is None:
            self.output.begin_line()
        self.limit = time.monotonic() + self.spec["time_limit"]
        for argv in self.spec["argvs"]:
            self.stopped = self._stop_reason()
            if self.stopped or not self._start(argv) or not self._follow():
                return

    def _ask(self, *_: object) -> None:
        self.asked = True

    def _stop_reason(self) -> str | None:
        if self.asked:
            return "asked"
        return "time_limit" if time.monotonic() >= self.limit else None

    def _start(self, argv: list[str]) -> bool:
        """Fork and exec; true once the program runs. A failure becomes the step's error."""
        self.signals, self.status = [], None
        try:
            self.pipe, output = os.pipe()
            report, reported = os.pipe()
            # nothing may arrive in the child before its handlers are reset: it would wake the shim instead
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            self.leader = os.fork()
        except OSError as error:  # out of processes or descriptors; the shim is about to end
            return self._could_not(_sentence(argv[0], error, "trigger it again when this host is less busy"))
        if self.leader == 0:
            _become(argv, self.spec["cwd"], output, reported)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.close(output)
        os.close(reported)
        with os.fdopen(report, "rb") as reader:
            failure = os.fsdecode(reader.read())
        if failure:
            os.waitpid(self.leader, 0)
            return self._could_not(failure)
        with suppress(OSError):  # the pipes of a user are limited in sum; a smaller one works too
            fcntl.fcntl(self.pipe, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        self.buffer = bytearray(fcntl.fcntl(self.pipe, fcntl.F_GETPIPE_SZ) + 1)  # one more for the masker
        os.set_blocking(self.pipe, False)
        self.selector.register(self.pipe, selectors.EVENT_READ)
        return True

    def _could_not(self, why: str) -> bool:
        told = os.fsencode(f"{why}\n")
        told = b"".join((self.masker.feed(bytearray(told), len(told)), self.masker.finish()))
        self.error = os.fsdecode(told).rstrip()
        self.output.write(memoryview(told))
        return False

    def _follow(self) -> bool:
        """Copy output, and end what is left, until the kernel says that no descendant is alive; true: go on."""
        while self._reap():
            self._advance()
            for key, _ in self.selector.select(self._pause()):
                if key.fd == self.wakeup:
                    os.read(self.wakeup, 4096)
                # the pause lets a writer of short lines fill the pipe: fewer, larger copies
                elif 0 < self._copy() < len(self.buffer) // 2:
                    time.sleep(0.001)
        # one read has all the rest: nothing of the step is alive, and a stranger with the pipe isn't waited for
        self._copy()
        self._close()
        return self.stopped is None and self.status == 0

    def _pause(self) -> float:
        """Seconds until something is due; a day at most, since a poll of weeks is refused."""
        due = self.due if self.signals else self.limit
        return min(max(0.0, due - time.monotonic()), 86400.0)

    def _reap(self) -> bool:
        """Collect the dead; false when no descendant is left."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self.leader:
                    self.status = status
        return False

    def _advance(self) -> None:
        """Begin or go on with ending the step, when it is time."""
        if self.status is None and self.stopped is None:
            self.stopped = self._stop_reason()
            if self.stopped:
                self._end(self.spec["interrupt"], signal.SIGTERM, signal.SIGKILL)
        elif not self.signals:  # the leader left by itself; those it left behind go too
            self._end(signal.SIGTERM, signal.SIGKILL)
        if self.signals and time.monotonic() >= self.due:
            self._send()

    def _end(self, *signals: int) -> None:
        self.signals, self.due = list(signals), time.monotonic()

    def _send(self) -> None:
        number = self.signals[0]
        # the first of three is the interrupt: for the leader's group, surely ours as long as the leader isn't reaped
        for pid in [-self.leader] if len(self.signals) == 3 else _descendants():
            with suppress(OSError):  # gone meanwhile, or another user's
                os.kill(pid, number)
        if len(self.signals) > 1:
            del self.signals[0]
        self.due = time.monotonic() + (KILL_AGAIN if number == signal.SIGKILL else self.spec["grace"])

    def _copy(self) -> int:
        """Move what the pipe holds to the output; how much it was."""
        try:
            count = os.readv(self.pipe, [memoryview(self.buffer)[:-1]]) if self.pipe >= 0 else 0
        except BlockingIOError:
            return 0
        self._show(self.masker.feed(self.buffer, count))
        if count == 0:
            self._close()
        return count

    def _show(self, shown: memoryview) -> None:
        skipped = min(self.skip, len(shown))
        self.skip -= skipped
        self.output.write(shown[skipped:])

    def _close(self) -> None:
        if self.pipe >= 0:
            self.selector.unregister(self.pipe)
            os.close(self.pipe)
            self.pipe = -1
            rest = self.masker.finish()
            if self.spec.get("output_rest", True):  # else the next one has it again, with what comes after it
                self._show(rest)


def _become(argv: list[str], cwd: str, output: int, report: int) -> NoReturn:
    """In the child: turn into the program, with nothing inherited but its environment and its output."""
    remedy = f"check that its working folder {cwd} exists and may be entered"
    try:
        os.setsid()
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)  # whoever started us may have ignored some, and that is inherited
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        with suppress(OSError):  # out of memory: take the step and not the shim, which could then tell nobody
            Path("/proc/self/oom_score_adj").write_text("500")
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(cwd)
        remedy = "check that it and its interpreter are installed and executable"
        os.execvp(argv[0], argv)  # noqa: S606 - a list, no shell
    except OSError as error:
        if error.errno == errno.E2BIG:
            remedy = "shorten its arguments or its environment"
        os.write(report, os.fsencode(_sentence(argv[0], error, remedy)))
    finally:
        os._exit(127)


def _sentence(program: str, error: OSError, remedy: str) -> str:
    return f"the program {program} could not be started: {error.strerror}; {remedy}"


def _descendants() -> list[int]:
    """Every process below this one, wherever it moved: as a subreaper the shim keeps all of them."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_bytes().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found = list(children.get(os.getpid(), ()))
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def _lock(folder: Path) -> bool:
    """Become the folder's only shim; false if another is and has started the step."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)  # closed by the end of this process alone
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if (folder / "started").exists():
                return False
            time.sleep(0.005)  # the other may still fail, and then it is our turn
        else:
            return True


def _claim(folder: Path) -> tuple[int, int]:
    """Reserve the room for the end, then say durably that the step is started; verdict and descriptor of `exit`."""
    if not _lock(folder):
        return HELD, -1
    if (folder / "started").exists():
        return ONCE, -1
    end = os.open(folder / "exit", os.O_WRONLY | os.O_CREAT, 0o600)
    os.pwrite(end, b" " * EXIT_SIZE, 0)
    os.fsync(end)
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    me = {"pid": os.getpid(), "starttime": int(stat[19]), "boot": "", "time": time.time()}
    with suppress(OSError):  # hidden where /proc is restricted; a reboot then reads as a killed supervisor
        me["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    started = os.open(folder / "started", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(started, json.dumps(me).encode())
        os.fsync(started)
        directory = os.open(folder, os.O_RDONLY)
        os.fsync(directory)
    except OSError:
        (folder / "started").unlink()
        raise
    os.close(started)
    os.close(directory)
    return STARTED, end


def _record(end: int, step: SupervisedStep, started: float, clock: float) -> None:
    """Write how it ended, in place: the room for it was there before the disk was full."""
    code = None if step.error or step.status is None else os.waitstatus_to_exitcode(step.status)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    record = {
        "code": code if code is None or code >= 0 else None,
        "signal": -code if code is not None and code < 0 else None,
        "stopped": step.stopped,
        "error": step.error,
        "started": started,
        "finished": time.time(),
        "duration": time.monotonic() - clock,
        "peak_memory": usage.ru_maxrss * 1024,
        "cpu": usage.ru_utime + usage.ru_stime,
        "dropped": step.output.dropped,
    }
    while len(text := json.dumps(record, ensure_ascii=False).encode(errors="replace")) > EXIT_SIZE:
        record["error"] = str(record["error"])[: EXIT_SIZE - len(text) - 2] + "…"
    os.pwrite(end, text.ljust(EXIT_SIZE), 0)
    os.fdatasync(end)


def _step(folder: Path, given: bytes) -> SupervisedStep:
    """The step of the folder; given: what to mask, empty for nothing but what has a form of its own."""
    spec = json.loads((folder / "spec.json").read_bytes())
    secrets = [value.encode(errors="surrogateescape") for value in json.loads(given or b"[]")]
    if "LC_CTYPE" not in spec["environment"]:
        os.environ.pop("LC_CTYPE", None)  # Python adds it to itself in an environment without a locale
    return SupervisedStep(spec, OutputSegments(Path(spec["output"]), spec["output_cap"]), Masker(secrets))


def _supervise(folder: Path, given: bytes, launcher: int) -> None:
    """The daemon: the lock, `started`, the answer to the launcher, the step, `exit`, in this order."""
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    try:
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
        step = _step(folder, given)
        verdict, end = _claim(folder)
    except (OSError, ValueError) as error:
        os.write(launcher, bytes([REFUSED]) + str(error).encode(errors="replace")[:1000])
        return
    with suppress(OSError):  # the launcher was killed; its step is started all the same
        os.write(launcher, bytes([verdict]))
    os.close(launcher)
    if verdict == STARTED:
        started, clock = time.time(), time.monotonic()
        step.run()
        _record(end, step, started, clock)


def main(folder: Path) -> int:
    """The launcher: starts the daemon and says what became of it."""
    with open(0, "rb", closefd=False) as given_to_it:
        given = given_to_it.read()
    answers, launcher = os.pipe()
    if os.fork() == 0:
        try:
            os.close(answers)
            _supervise(folder, given, launcher)
        finally:
            os._exit(0)
    os.close(launcher)
    with os.fdopen(answers, "rb") as reader:
        answer = reader.read() or bytes([REFUSED]) + b"its supervisor died"
    sys.stderr.write(answer[1:].decode(errors="replace"))
    return answer[0]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
