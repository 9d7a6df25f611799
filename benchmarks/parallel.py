"""How much more loops in several threads do than one: for Pythons without a GIL.

    python benchmarks/parallel.py [LOOP...] [--threads N] [--rounds N] [--only WORK]

LOOP is a module with new_event_loop(), or asyncio. Each round does the same work on one
loop and then on a loop in each of N threads, side by side in time, so that a machine
that slows down meanwhile favours neither. Of N threads that share nothing, the gain is
N. It is told twice:

wall  by the time on the clock, which other programs on the machine take their part of
cpu   by the processor time of the threads, which tells what they cost each other:
      counts of references that all of them change, locks, allocation
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import socket
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable


async def callbacks(count: int) -> None:
    """call_soon() from a callback."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def again(left: int) -> None:
        if left:
            loop.call_soon(again, left - 1)
        else:
            done.set_result(None)

    loop.call_soon(again, count)
    await done


async def switches(count: int) -> None:
    """sleep(0) by one task."""
    for _ in range(count):
        await asyncio.sleep(0)


async def tasks(count: int) -> None:
    """create_task() and its end."""

    async def nothing() -> None:
        pass

    for _ in range(count):
        await asyncio.create_task(nothing())


async def timers(count: int) -> None:
    """call_later() and cancel()."""
    loop = asyncio.get_running_loop()
    for number in range(count):
        loop.call_later(60, print).cancel()
        if number % 100 == 0:
            await asyncio.sleep(0)


async def echoes(count: int) -> None:
    """A KiB to and fro between two transports."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    class Client(Echo):
        left = count

        def data_received(self, data: bytes) -> None:
            self.left -= 1
            if self.left:
                self.transport.write(data)
            else:
                done.set_result(None)

    a, b = socket.socketpair()
    one, _ = await loop.create_connection(Echo, sock=a)
    other, _ = await loop.create_connection(Client, sock=b)
    other.write(b"x" * 1024)
    await done
    one.close()
    other.close()
    await asyncio.sleep(0)


async def streams(count: int) -> None:
    """A line to and fro between two pairs of asyncio's streams."""
    a, b = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=a)
    other_reader, other_writer = await asyncio.open_connection(sock=b)
    line = b"x" * 100 + b"\n"
    for _ in range(count):
        writer.write(line)
        other_writer.write(await other_reader.readline())
        await reader.readline()
    writer.close()
    other_writer.close()
    await asyncio.sleep(0)


Work = Callable[[int], Awaitable[None]]
WORKS: dict[Work, int] = {
    callbacks: 150_000,
    switches: 100_000,
    tasks: 40_000,
    timers: 150_000,
    echoes: 10_000,
    streams: 5_000,
}


def measure(
    new_event_loop: Callable[[], asyncio.AbstractEventLoop], work: Work, threads: int
) -> tuple[float, float]:
    """Return (wall time, mean processor time of a thread) of threads at work."""
    begin = threading.Barrier(threads + 1)
    end = threading.Barrier(threads + 1)
    times: list[float] = []

    def run() -> None:
        loop = new_event_loop()
        loop.run_until_complete(asyncio.sleep(0))
        begin.wait()
        started = time.thread_time()
        loop.run_until_complete(work(WORKS[work]))
        times.append(time.thread_time() - started)
        end.wait()
        loop.close()

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    begin.wait()
    started = time.perf_counter()
    end.wait()
    wall = time.perf_counter() - started
    for worker in workers:
        worker.join()
    return wall, statistics.mean(times)


def main() -> None:
    """Print a line for each loop and work."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("loops", nargs="*", default=["fastloop"], metavar="LOOP")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", choices=[work.__name__ for work in WORKS])
    arguments = parser.parse_args()
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        print("this Python runs with a GIL: expect 1.0", file=sys.stderr)
    print(f"{'':24}{'one, ms':>9}{'wall':>7}{'cpu':>7}")
    for work in WORKS:
        if arguments.only not in (None, work.__name__):
            continue
        for name in arguments.loops:
            new_event_loop = importlib.import_module(name).new_event_loop
            alone, walls, costs = [], [], []
            for _ in range(arguments.rounds):
                wall, cpu = measure(new_event_loop, work, 1)
                walls_together, cpu_together = measure(
                    new_event_loop, work, arguments.threads
                )
                alone.append(wall)
                walls.append(arguments.threads * wall / walls_together)
                costs.append(arguments.threads * cpu / cpu_together)
            print(
                f"{work.__name__ + ' ' + name:24}"
                f"{statistics.median(alone) * 1e3:9.1f}"
                f"{statistics.median(walls):7.2f}{statistics.median(costs):7.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
