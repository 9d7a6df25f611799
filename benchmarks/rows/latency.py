"""How long one waits: wall times of single operations, and how late timers are."""

from __future__ import annotations

import asyncio
import contextlib
import select
import threading
import time
from collections import deque
from collections.abc import Callable

from harness.bench import Bench
from harness.load import connect, payload
from harness.registry import row

from .http import plaintext_server
from .tcp import KIB, echo_server

INTERVAL = 0.01  # seconds between the timers
RATE = 10_000  # round trips a second: half of what the loops can do, or less
HTTP_RATE = 5_000
PERCENTILES = ("p50", "p99", "p99.9")
CONNECTIONS = 10
MESSAGE = payload(KIB)
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def paced(bench: Bench, rate: int, request: bytes, end: bytes) -> None:
    """Ask a server at a steady rate, over some connections in turn.

    An answer is late from when its request was due, be it sent later because all
    connections were waited for.
    """
    done = 0
    with contextlib.ExitStack() as stack:
        poll = stack.enter_context(select.epoll())
        socks = {}
        for _ in range(CONNECTIONS):
            sock = stack.enter_context(connect(bench.address))
            socks[sock.fileno()] = sock
            poll.register(sock, select.EPOLLIN)
        for _ in bench:
            idle = deque(socks)
            due: dict[int, float] = {}
            got = dict.fromkeys(socks, b"")
            asked = answered = 0
            began = time.perf_counter()
            while answered < bench.ops:
                when = began + asked / rate
                if asked < bench.ops and idle and time.perf_counter() >= when:
                    fd = idle.popleft()
                    due[fd] = when
                    socks[fd].sendall(request)
                    asked += 1
                for fd, _events in poll.poll(0):
                    got[fd] += socks[fd].recv(2 * KIB)
                    if got[fd].endswith(end):
                        bench.latencies.append(time.perf_counter() - due[fd])
                        got[fd] = b""
                        idle.append(fd)
                        answered += 1
            done += answered
    bench.check(done)


@row(
    serve=echo_server,
    ops=2_500,
    unit="round trip",
    metric=PERCENTILES,
    seconds=1,
)
def echo(bench: Bench) -> None:
    """TCP echo, 10,000 a second."""
    paced(bench, RATE, MESSAGE, MESSAGE)


@row(
    serve=plaintext_server,
    ops=2_500,
    unit="request",
    metric=PERCENTILES,
    seconds=1,
)
def uvicorn(bench: Bench) -> None:
    """uvicorn, 5,000 requests a second."""
    paced(bench, HTTP_RATE, REQUEST, b"Hello, world!")


async def timers(bench: Bench, together: int = 5) -> None:
    """Note how late timers of 10 ms fire, again and again, some of them at a time."""
    loop = asyncio.get_running_loop()
    done = 0

    def fire(due: float, fired: asyncio.Future[None]) -> None:
        bench.latencies.append(time.monotonic() - due)
        fired.set_result(None)

    async def one_by_one(count: int) -> None:
        nonlocal done
        for _ in range(count):
            fired = loop.create_future()
            due = time.monotonic() + INTERVAL
            loop.call_later(INTERVAL, fire, due, fired)
            await fired
            done += 1

    for _ in bench:
        async with asyncio.TaskGroup() as group:
            for _ in range(together):
                group.create_task(one_by_one(bench.ops // together))
                await asyncio.sleep(INTERVAL / together)
    bench.check(done)


@row(ops=20, unit="timer", metric="p50", seconds=0.6)
async def timer_idle(bench: Bench) -> None:
    """A 10 ms timer of an idle loop is late by (median)."""
    await timers(bench, together=1)


@row(ops=50, unit="timer", metric="p99", seconds=0.5)
async def timer_callbacks(bench: Bench) -> None:
    """A 10 ms timer beside a flood of call_soon is late by (99th percentile)."""
    loop = asyncio.get_running_loop()
    going = True

    def again() -> None:
        if going:
            loop.call_soon(again)

    for _ in range(100):
        loop.call_soon(again)
    await timers(bench)
    going = False


@row(ops=50, unit="timer", metric="p99", seconds=0.5)
async def timer_threads(bench: Bench) -> None:
    """A 10 ms timer beside a thread that floods call_soon_threadsafe is late by."""
    loop = asyncio.get_running_loop()

    def nothing() -> None:
        pass

    def flood() -> None:
        for _ in range(1_000):
            loop.call_soon_threadsafe(nothing)

    await beside(flood, bench)


@row(ops=50, unit="timer", metric="p99", seconds=0.5)
async def timer_compute(bench: Bench) -> None:
    """A 10 ms timer beside a thread that computes is late by."""

    def compute() -> None:
        sum(range(10_000))

    await beside(compute, bench)


async def beside(work: Callable[[], None], bench: Bench) -> None:
    """Measure timers while a thread does the work over and over."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            work()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        await timers(bench)
    finally:
        stop.set()
        thread.join()
