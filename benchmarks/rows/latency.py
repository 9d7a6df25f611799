"""How long one waits: wall times of single operations, and how late timers are."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from harness.bench import Bench
from harness.load import connect, payload
from harness.registry import row

from .tcp import KIB, echo_server

INTERVAL = 0.01  # seconds between the timers
RATE = 1_000  # requests a second: far from what any loop can do
MESSAGE = payload(KIB)


def paced(bench: Bench) -> None:
    """Ask an echo server at a steady rate; late answers do not delay what follows."""
    got = bytearray(KIB)
    done = 0
    with connect(bench.address) as sock:
        for _ in bench:
            began = time.perf_counter()
            for number in range(bench.ops):
                due = began + number / RATE
                while (now := time.perf_counter()) < due:
                    time.sleep(min(due - now, 0.0005))
                start = time.perf_counter()
                sock.sendall(MESSAGE)
                sock.recv_into(got, KIB, 256)  # MSG_WAITALL
                bench.latencies.append(time.perf_counter() - start)
                done += got == MESSAGE
    bench.check(done)


@row(serve=echo_server, ops=500, unit="round trip", metric="p50", seconds=1)
def echo_p50(bench: Bench) -> None:
    """TCP echo at 1,000 a second, median."""
    paced(bench)


@row(serve=echo_server, ops=500, unit="round trip", metric="p99", seconds=2)
def echo_p99(bench: Bench) -> None:
    """TCP echo at 1,000 a second, 99th percentile."""
    paced(bench)


async def timers(bench: Bench) -> None:
    """Note how late a timer of 10 ms fires, again and again."""
    loop = asyncio.get_running_loop()
    done = 0

    def fire(due: float, fired: asyncio.Future[None]) -> None:
        bench.latencies.append(time.monotonic() - due)
        fired.set_result(None)

    for _ in bench:
        for _ in range(bench.ops):
            fired = loop.create_future()
            due = time.monotonic() + INTERVAL
            loop.call_later(INTERVAL, fire, due, fired)
            await fired
            done += 1
    bench.check(done)


@row(ops=20, unit="timer", metric="p50", seconds=1)
async def timer_idle(bench: Bench) -> None:
    """A 10 ms timer of an idle loop is late by (median)."""
    await timers(bench)


@row(ops=20, unit="timer", metric="p99", seconds=1)
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


@row(ops=20, unit="timer", metric="p99", seconds=1)
async def timer_threads(bench: Bench) -> None:
    """A 10 ms timer beside a thread that floods call_soon_threadsafe is late by."""
    loop = asyncio.get_running_loop()

    def nothing() -> None:
        pass

    def flood() -> None:
        for _ in range(1_000):
            loop.call_soon_threadsafe(nothing)

    await beside(flood, bench)


@row(ops=20, unit="timer", metric="p99", seconds=1)
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
