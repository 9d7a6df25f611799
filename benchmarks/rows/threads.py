"""Work that goes through other threads: wall time."""

from __future__ import annotations

import asyncio
import threading
from collections import deque

from harness.bench import Bench
from harness.registry import row


@row(ops=20_000, unit="callback", metric="wall")
async def call_soon_threadsafe(bench: Bench) -> None:
    """call_soon_threadsafe from a thread."""
    loop = asyncio.get_running_loop()
    items: deque[None] = deque()
    given = 0

    def produce(finished: asyncio.Future[None]) -> None:
        call_soon_threadsafe = loop.call_soon_threadsafe
        popleft = items.popleft
        for _ in range(bench.ops):
            call_soon_threadsafe(popleft)
        call_soon_threadsafe(finished.set_result, None)

    for _ in bench:
        items.extend([None] * bench.ops)
        given += bench.ops
        finished = loop.create_future()
        thread = threading.Thread(target=produce, args=(finished,))
        thread.start()
        await finished
        thread.join()
    bench.check(given - len(items))


@row(ops=500, unit="job", metric="wall", seconds=0.6)
async def to_thread(bench: Bench) -> None:
    """to_thread one by one."""
    done = 0

    def job(number: int) -> int:
        return number + 1

    for _ in bench:
        for _ in range(bench.ops):
            done = await asyncio.to_thread(job, done)
    bench.check(done)


@row(ops=1_000, unit="job", metric="wall", seconds=0.6)
async def to_thread_wide(bench: Bench) -> None:
    """to_thread, 1,000 at once."""
    done = 0

    def job(number: int) -> int:
        return number

    for _ in bench:
        jobs = [asyncio.to_thread(job, number) for number in range(bench.ops)]
        done += len(set(await asyncio.gather(*jobs)))
    bench.check(done)
