"""How the cost of one operation grows with what else there is: the same in many sizes.

Row ``growth.timers_1000`` is of the family ``timers`` in size 1,000; publish.py draws a
curve for each family.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any, cast

from harness.bench import Bench
from harness.load import connect, exchange, payload
from harness.registry import Body, row

from .memory import crowded_server, many_descriptors
from .tcp import KIB

OPS = 1_000  # in a pass, or as many as the size
MESSAGE = payload(64)
ACTIVE = 10  # connections that talk while the others are silent
FAR = 1_000_000  # seconds


def family(title: str, unit: str, *sizes: int, **options: Any) -> Callable[..., None]:
    """Register a row for each size of the decorated function, which gets the size."""

    def register(function: Callable[[Bench, int], Any]) -> None:
        for size in sizes:
            body = sized(function, size)
            body.__doc__ = f"{title}, {size:,}."
            body.__name__ = f"{function.__name__}_{size}"
            row(ops=max(OPS, size), unit=unit, **options)(body)

    return register


def sized(function: Callable[[Bench, int], Any], size: int) -> Body:
    """Return the row's body for one size."""
    if asyncio.iscoroutinefunction(function):

        async def coroutine(bench: Bench) -> None:
            await function(bench, size)

        return coroutine

    def plain(bench: Bench) -> Coroutine[Any, Any, None] | None:
        result: Coroutine[Any, Any, None] | None = function(bench, size)
        return result

    return plain


@family("call_later and cancel, live timers", "timer", 10, 1_000, 100_000, 1_000_000)
async def timers(bench: Bench, size: int) -> None:
    """Schedule and cancel beside timers that stay."""
    loop = asyncio.get_running_loop()
    live = [loop.call_later(FAR + number, print) for number in range(size)]
    done = 0
    for _ in bench:
        for _ in range(bench.ops // OPS):
            for number in range(OPS):
                loop.call_later(FAR / 2 + number, print).cancel()
                done += 1
            await asyncio.sleep(0)
    assert not any(timer.cancelled() for timer in live)
    bench.check(done)


@family("call_soon, callbacks in a batch", "callback", 1, 100, 10_000, 1_000_000)
async def ready(bench: Bench, size: int) -> None:
    """Run callbacks in batches."""
    loop = asyncio.get_running_loop()
    ran = 0

    def count() -> None:
        nonlocal ran
        ran += 1

    for _ in bench:
        for _ in range(bench.ops // size):
            for _ in range(size):
                loop.call_soon(count)
            await asyncio.sleep(0)
    bench.check(ran)


@family(
    "TCP echo by 10, connections",
    "round trip",
    *(10, 100, 1_000, 10_000),
    serve=crowded_server,
)
def connections(bench: Bench, size: int) -> None:
    """Talk over ten connections while the others are silent."""
    many_descriptors()
    idle = [connect(bench.address) for _ in range(size - ACTIVE)]
    exchange(bench, connections=ACTIVE, request=MESSAGE, reply=MESSAGE)
    for sock in idle:
        sock.close()


@family("write, writes that wait", "write", 100, 1_000, 10_000, 100_000)
async def writes(bench: Bench, size: int) -> None:
    """Write to one who does not read, until so many writes wait; then he reads."""
    loop = asyncio.get_running_loop()
    filler = bytes(32 * KIB)
    near, far = socket.socketpair()
    far.setblocking(False)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(filler) // 4)
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
    transport = cast(asyncio.Transport, transport)
    transport.set_write_buffer_limits(high=1 << 30)
    done = 0
    for _ in bench:
        for _ in range(bench.ops // size):
            transport.write(filler)
            for _ in range(size):
                transport.write(MESSAGE)
            missing = len(filler) + size * len(MESSAGE)
            while missing:
                missing -= len(await loop.sock_recv(far, 1 << 20))
            done += size
    transport.abort()
    far.close()
    bench.check(done)
