"""Descriptors that the program watches itself."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from harness.bench import Bench
from harness.registry import row

WATCHED = 10


@contextmanager
def watched(callback: Callable[[int], None]) -> Iterator[list[int]]:
    """Watch some descriptors with ``callback(fd)``."""
    loop = asyncio.get_running_loop()
    # As semaphores, they stay readable until they are read as often as they were
    # written.
    flags = os.EFD_NONBLOCK | os.EFD_SEMAPHORE | os.EFD_CLOEXEC
    fds = [os.eventfd(0, flags) for _ in range(WATCHED)]
    try:
        for fd in fds:
            loop.add_reader(fd, partial(callback, fd))
        yield fds
    finally:
        for fd in fds:
            loop.remove_reader(fd)
            os.close(fd)


@row(ops=5_000, unit="callback")
async def add_reader(bench: Bench) -> None:
    """add_reader, empty callbacks of 10 descriptors."""
    done = left = 0

    def readable(fd: int) -> None:
        nonlocal done, left
        if left:
            done += 1
            left -= 1
            if not left:
                finished.set_result(None)

    with watched(readable) as fds:
        for fd in fds:
            os.eventfd_write(fd, 1)
        for _ in bench:
            left = bench.ops
            finished = asyncio.get_running_loop().create_future()
            await finished
    bench.check(done)


@row(ops=5_000, unit="callback")
async def add_reader_read(bench: Bench) -> None:
    """add_reader, callbacks of 10 descriptors that read."""
    done = goal = 0

    def readable(fd: int) -> None:
        nonlocal done
        done += os.eventfd_read(fd)
        if done == goal:
            finished.set_result(None)

    with watched(readable) as fds:
        for _ in bench:
            goal += bench.ops
            finished = asyncio.get_running_loop().create_future()
            for fd in fds:
                os.eventfd_write(fd, bench.ops // WATCHED)
            await finished
    bench.check(done)
