"""What PID 1 of a container has to do: pass signals on, and collect every process that ends without a parent."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def run(command: Callable[[], int]) -> int:
    """The exit code of `command`, which PID 1 runs in a child: the supervisors of steps become children of PID 1.

    The kernel gives PID 1 every process whose parent has ended. One that does not wait for them keeps them as zombies.
    """
    if os.getpid() != 1:
        return command()
    # before the fork: a signal that comes early must not be lost
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        return command()
    for number in _PASSED_ON:
        signal.signal(number, lambda given, _: _send(child, given))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
