"""The detached supervisor of one step: it runs the step, bounds its output, and writes its outcome.

    python -I -S -X utf8 shim.py FOLDER

Its own environment is the step's, and the secrets to mask come as a JSON list on its standard input, so that no secret
is in a file. It imports the standard library only, and the file `masker.py` beside it before the step begins, so that
it goes on while the gateway is restarted, replaced or broken.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import importlib.util
import json
import os
import re
import resource
import selectors
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

# Exit codes of the launcher: the step has started; it could not; another shim runs it; it was started before.
STARTED, FAILED, ALREADY_RUNNING, ALREADY_STARTED = 0, 74, 75, 76
EXIT_SIZE = 512  # bytes
SEGMENT_SIZE = 16 << 20  # bytes
PIPE_SIZE = 1 << 20  # bytes
KILL_INTERVAL = 0.2  # seconds between two SIGKILLs


def _load_beside(name: str) -> Any:
    """The module in a file beside this one. `-I` keeps this folder off the path, and with it the gateway's modules."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Masker = _load_beside("masker").Masker


class OutputSegments:
    """The job's output ring: files that are named by the absolute offset of their first byte.

    cap: bytes to keep. dropped: bytes that could not be written.
    """

    def __init__(self, folder: Path, cap: int) -> None:
        self.folder = folder
        self.cap = cap
        self.size = max(1, min(SEGMENT_SIZE, cap // 4))
        self.dropped = 0
        self.fd = -1
        names = os.listdir(folder)  # noqa: PTH208, a glob may return nothing for a folder that can't be opened
        self.starts = sorted(int(name[7:]) for name in names if re.fullmatch(r"output\.[0-9]{20}", name))
        self.end = self.starts[-1] + self._segment(self.starts[-1]).stat().st_size if self.starts else 0

    def begin_line(self) -> None:
        """End the last line of an earlier step, if that line has no line feed."""
        if self.starts:
            with suppress(OSError), self._segment(self.starts[-1]).open("rb") as segment:
                segment.seek(-1, os.SEEK_END)
                if segment.read() != b"\n":
                    self.write(memoryview(b"\n"))

    def write(self, data: memoryview) -> None:
        """Append. Bytes that can't be written are counted and dropped, since a full disk must not stop the step."""
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
        """The descriptor of the segment to append to."""
        full = not self.starts or self.end - self.starts[-1] >= self.size
        if not full and self.fd >= 0:
            return self.fd
        # remove the oldest first: a full disk may have no room for a new one before
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


class Stop:
    """The end of a step by its supervisor. reason: `asked` or `time_limit`."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.began = time.monotonic()
        self.signals: list[int] = []  # those that were sent, each once, in order
        self.processes: set[tuple[int, int]] = set()  # those that were alive then, pid and start time

    def add(self, number: int, alive: dict[int, int]) -> None:
        """Note that a signal is sent, and which processes are alive."""
        if number not in self.signals:
            self.signals.append(number)
        self.processes.update(alive.items())

    def record(self) -> dict[str, Any]:
        """What was ended how, once no process is alive."""
        seconds = round(time.monotonic() - self.began, 3)
        return {"signals": self.signals, "seconds": seconds, "processes": len(self.processes)}


class SupervisedStep:
    """Runs the commands of a step one after the other, and ends all processes that they leave behind."""

    def __init__(self, spec: dict[str, Any], output: OutputSegments, masker: Any) -> None:
        self.spec = spec
        self.output = output
        self.masker = masker
        self.stop_requested = False
        self.stop: Stop | None = None
        self.error: str | None = None
        self.leader = 0
        self.status: int | None = None  # the leader's wait status, once it has ended
        self.signals: list[int] = []  # to be sent, in order; the last is repeated until no process is alive
        self.next_signal_at = 0.0
        self.deadline = 0.0
        self.skip_bytes = spec["output_skip"] or 0  # masked bytes that the ring has already
        self.pipe = -1  # the read end of the output, while open
        self.buffer = bytearray()
        self.selector = selectors.DefaultSelector()
        self.wakeup, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.selector.register(self.wakeup, selectors.EVENT_READ)
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def run(self) -> None:
        """Run until a command fails, a stop is requested, or all have exited with 0."""
        if self.spec["output_skip"] is None:
            self.output.begin_line()
        self.deadline = time.monotonic() + self.spec["time_limit"]
        for argv in self.spec["argvs"]:
            self.stop = self._due_stop()
            if self.stop or not self._start(argv) or not self._run_to_end():
                return

    def _on_sigterm(self, *_: object) -> None:
        self.stop_requested = True

    def _due_stop(self) -> Stop | None:
        if self.stop_requested:
            return Stop("asked")
        return Stop("time_limit") if time.monotonic() >= self.deadline else None

    def _start(self, argv: list[str]) -> bool:
        """Fork and exec; True once the program runs. A failure becomes the step's error."""
        self.signals, self.status = [], None
        try:
            self.pipe, output = os.pipe()
            report, reported = os.pipe()
            # a signal to the child before its handlers are reset would wake the shim instead
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            self.leader = os.fork()
        except OSError as error:  # out of processes or descriptors
            return self._fail(_error_message(argv[0], error, "trigger it again when this host is less busy"))
        if self.leader == 0:
            _exec(argv, self.spec["cwd"], output, reported)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.close(output)
        os.close(reported)
        with os.fdopen(report, "rb") as reader:
            failure = os.fsdecode(reader.read())
        if failure:
            os.waitpid(self.leader, 0)
            return self._fail(failure)
        with suppress(OSError):  # the kernel limits the pipes of a user in sum; a smaller pipe works too
            fcntl.fcntl(self.pipe, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        self.buffer = bytearray(fcntl.fcntl(self.pipe, fcntl.F_GETPIPE_SZ) + 1)  # one byte more for the masker
        os.set_blocking(self.pipe, False)
        self.selector.register(self.pipe, selectors.EVENT_READ)
        return True

    def _fail(self, why: str) -> bool:
        message = os.fsencode(f"{why}\n")
        message = b"".join((self.masker.feed(bytearray(message), len(message)), self.masker.finish()))
        self.error = os.fsdecode(message).rstrip()
        self.output.write(memoryview(message))
        return False

    def _run_to_end(self) -> bool:
        """Copy output and send signals until no descendant is alive; True if the next command may start."""
        while self._reap():
            self._send_if_due()
            for key, _ in self.selector.select(self._seconds_to_wait()):
                if key.fd == self.wakeup:
                    os.read(self.wakeup, 4096)
                # a pause, so that a writer of short lines fills the pipe: fewer, larger copies
                elif 0 < self._copy_output() < len(self.buffer) // 2:
                    time.sleep(0.001)
        # One read gets the rest, since the step has no process. Other processes with the pipe are not waited for.
        self._copy_output()
        self._close_pipe()
        return self.stop is None and self.status == 0

    def _seconds_to_wait(self) -> float:
        """Seconds until a signal or the time limit is due; at most a day, since a poll of weeks is refused."""
        next_signal_at = self.next_signal_at if self.signals else self.deadline
        return min(max(0.0, next_signal_at - time.monotonic()), 86400.0)

    def _reap(self) -> bool:
        """Collect ended children; False when no descendant is left."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self.leader:
                    self.status = status
        return False

    def _send_if_due(self) -> None:
        """Begin to end the step, or send its next signal, when that is due."""
        if self.status is None and self.stop is None:
            self.stop = self._due_stop()
            if self.stop:
                self._schedule(self.spec["interrupt"], signal.SIGTERM, signal.SIGKILL)
        elif not self.signals:  # the leader has ended by itself; end the processes that it left
            self._schedule(signal.SIGTERM, signal.SIGKILL)
        if self.signals and time.monotonic() >= self.next_signal_at:
            self._send()

    def _schedule(self, *signals: int) -> None:
        self.signals, self.next_signal_at = list(signals), time.monotonic()

    def _send(self) -> None:
        number, alive = self.signals[0], _descendants()
        if self.stop:
            self.stop.add(number, alive)
        # The first of three is the interrupt, for the leader's group, which exists as long as the leader is not reaped.
        for pid in [-self.leader] if len(self.signals) == 3 else alive:
            with suppress(OSError):  # it has ended, or belongs to another user
                os.kill(pid, number)
        if len(self.signals) > 1:
            del self.signals[0]
        self.next_signal_at = time.monotonic() + (KILL_INTERVAL if number == signal.SIGKILL else self.spec["grace"])

    def _copy_output(self) -> int:
        """Copy the content of the pipe to the output; the number of bytes."""
        try:
            count = os.readv(self.pipe, [memoryview(self.buffer)[:-1]]) if self.pipe >= 0 else 0
        except BlockingIOError:
            return 0
        self._write(self.masker.feed(self.buffer, count))
        if count == 0:
            self._close_pipe()
        return count

    def _write(self, masked: memoryview) -> None:
        skipped = min(self.skip_bytes, len(masked))
        self.skip_bytes -= skipped
        self.output.write(masked[skipped:])

    def _close_pipe(self) -> None:
        if self.pipe >= 0:
            self.selector.unregister(self.pipe)
            os.close(self.pipe)
            self.pipe = -1
            rest = self.masker.finish()
            if self.spec.get("output_rest", True):  # else the next copier reads these bytes again
                self._write(rest)


def _exec(argv: list[str], cwd: str, output: int, report: int) -> NoReturn:
    """In the child: execute the program, which inherits environment and output only."""
    remedy = f"check that its working folder {cwd} exists and may be entered"
    try:
        os.setsid()
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)  # ignored signals are inherited from the starter
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        with suppress(OSError):  # without memory, the kernel shall kill the step and not the shim
            Path("/proc/self/oom_score_adj").write_text("500")
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(cwd)
        remedy = "check that it and its interpreter are installed and executable"
        os.execvp(argv[0], argv)  # noqa: S606 - a list, no shell
    except OSError as error:
        if error.errno == errno.E2BIG:
            remedy = "shorten its arguments or its environment"
        os.write(report, os.fsencode(_error_message(argv[0], error, remedy)))
    finally:
        os._exit(127)


def _error_message(program: str, error: OSError, remedy: str) -> str:
    return f"the program {program} could not be started: {error.strerror}; {remedy}"


def _descendants() -> dict[int, int]:
    """All living descendants, pid to start time. Those whose parent has ended become children of the shim, a subreaper.

    A process whose first thread has ended looks like a zombie while its other threads go on.
    """
    starttimes: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            stat, pid = (folder / "stat").read_bytes().rpartition(b")")[2].split(), int(folder.name)
            if stat[0] not in (b"Z", b"X") or int(stat[17]) > 1:
                starttimes[pid] = int(stat[19])
                children.setdefault(int(stat[1]), []).append(pid)
    descendants = list(children.get(os.getpid(), ()))
    for pid in descendants:
        descendants.extend(children.get(pid, ()))
    return {pid: starttimes[pid] for pid in descendants}


def _lock(folder: Path) -> bool:
    """Become the folder's only shim; False if another shim is alive and has started the step."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)  # stays open until this process ends
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if (folder / "started").exists():
                return False
            time.sleep(0.005)  # the other shim may still fail, and then this one starts the step
        else:
            return True


def _claim(folder: Path) -> tuple[int, int]:
    """Reserve space for `exit`, then write `started` durably; the launcher's exit code and the descriptor of `exit`."""
    if not _lock(folder):
        return ALREADY_RUNNING, -1
    if (folder / "started").exists():
        return ALREADY_STARTED, -1
    end = os.open(folder / "exit", os.O_WRONLY | os.O_CREAT, 0o600)
    os.pwrite(end, b" " * EXIT_SIZE, 0)
    os.fsync(end)
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    record = {"pid": os.getpid(), "starttime": int(stat[19]), "boot": "", "time": time.time()}
    with suppress(OSError):  # /proc is restricted; a reboot then looks like a killed supervisor
        record["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    started = os.open(folder / "started", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(started, json.dumps(record).encode())
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
    """Write the outcome into the space that was reserved, so that a full disk does not matter."""
    code = None if step.error or step.status is None else os.waitstatus_to_exitcode(step.status)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    record = {
        "code": code if code is None or code >= 0 else None,
        "signal": -code if code is not None and code < 0 else None,
        "stopped": step.stop and step.stop.reason,
        "stop": step.stop and step.stop.record(),
        "error": step.error,
        "started": started,
        "finished": time.time(),
        "duration": time.monotonic() - clock,
        "peak_memory": usage.ru_maxrss * 1024,
        "cpu": usage.ru_utime + usage.ru_stime,
        "dropped": step.output.dropped,
    }
    error = step.error or ""
    while len(text := json.dumps(record, ensure_ascii=False).encode(errors="replace")) > EXIT_SIZE:
        error = error[: (EXIT_SIZE - len(text)) // 6]  # a character takes 6 bytes at most
        record["error"] = f"{error}…"
    os.pwrite(end, text.ljust(EXIT_SIZE), 0)
    os.fdatasync(end)


def _load_step(folder: Path, secrets_json: bytes) -> SupervisedStep:
    """The step of the folder. secrets_json: a list of values to mask, may be empty."""
    spec = json.loads((folder / "spec.json").read_bytes())
    secrets = [value.encode(errors="surrogateescape") for value in json.loads(secrets_json or b"[]")]
    if "LC_CTYPE" not in spec["environment"]:
        os.environ.pop("LC_CTYPE", None)  # Python sets it in its own environment if that has no locale
    return SupervisedStep(spec, OutputSegments(Path(spec["output"]), spec["output_cap"]), Masker(secrets))


def _supervise(folder: Path, secrets_json: bytes, launcher: int) -> None:
    """The daemon: lock, `started`, answer to the launcher, step, `exit`, in this order."""
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    try:
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
        step = _load_step(folder, secrets_json)
        result, end = _claim(folder)
    except (OSError, ValueError) as error:
        os.write(launcher, bytes([FAILED]) + str(error).encode(errors="replace")[:1000])
        return
    with suppress(OSError):  # the launcher was killed; the step starts all the same
        os.write(launcher, bytes([result]))
    os.close(launcher)
    if result == STARTED:
        started, clock = time.time(), time.monotonic()
        step.run()
        _record(end, step, started, clock)


def main(folder: Path) -> int:
    """The launcher: start the daemon, and return STARTED, FAILED, ALREADY_RUNNING or ALREADY_STARTED."""
    with open(0, "rb", closefd=False) as stdin:
        secrets_json = stdin.read()
    answers, launcher = os.pipe()
    if os.fork() == 0:
        try:
            os.close(answers)
            _supervise(folder, secrets_json, launcher)
        finally:
            os._exit(0)
    os.close(launcher)
    with os.fdopen(answers, "rb") as reader:
        answer = reader.read() or bytes([FAILED]) + b"its supervisor died"
    sys.stderr.write(answer[1:].decode(errors="replace"))
    return answer[0]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
