"""Which errors of the disk are tried again, and for how long."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

import pytest

from gateway.jobs import record
from gateway.jobs.record import retry_while_it_may_pass


async def attempts(numbers: Iterable[int]) -> int:
    """How many attempts a read takes that fails with these errors, one after the other. Raises the last that stays."""
    count, errors = 0, iter(numbers)

    async def read() -> int:
        nonlocal count
        count += 1
        if number := next(errors, 0):
            raise OSError(number, os.strerror(number))
        return count

    return await retry_while_it_may_pass(read)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_RETRY", 0)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT])
async def test_an_error_that_may_pass_is_tried_again(number: int) -> None:
    assert await attempts([number] * 5) == 6


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.EIO, errno.EINVAL])
async def test_any_other_error_is_raised_at_once(number: int) -> None:
    with pytest.raises(OSError, match=os.strerror(number)):
        await attempts([number])


async def test_an_error_that_does_not_pass_in_time_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_PATIENCE", 0.0)
    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        await attempts([errno.EMFILE] * 10)
