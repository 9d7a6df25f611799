"""Callbacks, timers and tasks: no I/O."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable

from harness.bench import Bench
from harness.registry import row

BATCH = 1_000  # callbacks that are ready at the same time
LIVE = 50_000  # timers that wait while others come and go
FAR = 3600.0  # seconds: the delay of a timer that is not meant to fire

Callback = Callable[..., object]


class Batch:
    """1,000 plain Python callbacks, of which one in ``SHARE`` counts.

    Counting takes a fourth of the time that the fastest loop needs for a callback, and
    would make all loops look alike. The order of callbacks is that of their scheduling,
    so that what comes after a batch finds it done.
    """

    SHARE = 20

    def __init__(self) -> None:
        self.counted = 0

        def count(*_: object) -> None:
            self.counted += 1

        def empty() -> None:
            pass

        def empty_of_three(first: object, second: object, third: object) -> None:
            pass

        self.plain = self._mix(empty, count)
        self.of_three = self._mix(empty_of_three, count)

    def _mix(self, empty: Callback, count: Callback) -> list[Callback]:
        return [*[empty] * (self.SHARE - 1), count] * (BATCH // self.SHARE)

    @property
    def done(self) -> int:
        """The callbacks that have run."""
        return self.counted * self.SHARE


@row(ops=20_000, unit="callback")
async def call_soon(bench: Bench) -> None:
    """call_soon, 1,000 callbacks a batch."""
    call_soon = asyncio.get_running_loop().call_soon
    batch = Batch()
    for _ in bench:
        for _ in range(bench.ops // BATCH):
            for callback in batch.plain:
                call_soon(callback)
            await asyncio.sleep(0)
    bench.check(batch.done)


@row(ops=200_000, unit="callback")
async def call_soon_wide(bench: Bench) -> None:
    """call_soon, 200,000 callbacks in one batch."""
    call_soon = asyncio.get_running_loop().call_soon
    batch = Batch()
    for _ in bench:
        for _ in range(bench.ops // BATCH):
            for callback in batch.plain:
                call_soon(callback)
        await asyncio.sleep(0)
    bench.check(batch.done)


@row(ops=20_000, unit="callback")
async def call_soon_args(bench: Bench) -> None:
    """call_soon with three arguments."""
    call_soon = asyncio.get_running_loop().call_soon
    batch = Batch()
    for _ in bench:
        for _ in range(bench.ops // BATCH):
            for callback in batch.of_three:
                call_soon(callback, None, bench, "third")
            await asyncio.sleep(0)
    bench.check(batch.done)


@row(ops=20_000, unit="callback")
async def call_soon_builtin(bench: Bench) -> None:
    """call_soon of a builtin method."""
    call_soon = asyncio.get_running_loop().call_soon
    items: deque[None] = deque()
    popleft = items.popleft
    given = 0
    for _ in bench:
        for _ in range(bench.ops // BATCH):
            items.extend([None] * BATCH)
            given += BATCH
            for _ in range(BATCH):
                call_soon(popleft)
            await asyncio.sleep(0)
    bench.check(given - len(items))


@row(ops=20_000, unit="callback")
async def call_soon_chain(bench: Bench) -> None:
    """call_soon from the callback before."""
    loop = asyncio.get_running_loop()
    call_soon = loop.call_soon
    done = left = 0

    def callback() -> None:
        nonlocal done, left
        done += 1
        left -= 1
        if left:
            call_soon(callback)
        else:
            finished.set_result(None)

    for _ in bench:
        left = bench.ops
        finished = loop.create_future()
        call_soon(callback)
        await finished
    bench.check(done)


async def cancel_timers(bench: Bench, batch: int = BATCH) -> None:
    """Schedule and cancel timers, and let the loop turn after each batch."""
    call_later = asyncio.get_running_loop().call_later
    done = 0

    def callback() -> None:
        raise AssertionError("a cancelled timer has fired")

    for _ in bench:
        for _ in range(bench.ops // batch):
            for _ in range(batch):
                timer = call_later(FAR, callback)
                timer.cancel()
            done += timer.cancelled() * batch
            await asyncio.sleep(0)
    bench.check(done)


@row(ops=20_000, unit="timer")
async def call_later_cancel(bench: Bench) -> None:
    """call_later and cancel, 1,000 timers a turn."""
    await cancel_timers(bench)


@row(ops=100_000, unit="timer")
async def call_later_cancel_wide(bench: Bench) -> None:
    """call_later and cancel, 100,000 timers in one turn."""
    await cancel_timers(bench, bench.ops)


@row(ops=20_000, unit="timer")
async def call_later_cancel_live(bench: Bench) -> None:
    """call_later and cancel beside 50,000 live timers."""
    loop = asyncio.get_running_loop()
    delays = random.Random(1)
    live = [
        loop.call_later(FAR / 2 + FAR * delays.random(), print) for _ in range(LIVE)
    ]
    await cancel_timers(bench)
    assert not any(timer.cancelled() for timer in live)


async def fire_timers(bench: Bench, window: float) -> None:
    """Let timers fire, spread evenly over so many seconds, scheduled in any order."""
    loop = asyncio.get_running_loop()
    delays = [window * number / bench.ops for number in range(bench.ops)]
    random.Random(1).shuffle(delays)
    done = goal = 0

    def callback() -> None:
        nonlocal done
        done += 1
        if done == goal:
            finished.set_result(None)

    for _ in bench:
        goal += bench.ops
        finished = loop.create_future()
        for delay in delays:
            loop.call_later(delay, callback)
        await finished
    bench.check(done)


@row(ops=10_000, unit="timer")
async def timers_fire(bench: Bench) -> None:
    """10,000 timers that fire within 1 ms."""
    await fire_timers(bench, 1e-3)


@row(ops=1_000, unit="timer")
async def timers_fire_spread(bench: Bench) -> None:
    """1,000 timers that fire over 100 ms."""
    await fire_timers(bench, 0.1)


@row(ops=10_000, unit="switch")
async def sleep_0(bench: Bench) -> None:
    """sleep(0) by one task."""
    done = 0
    for _ in bench:
        for _ in range(bench.ops):
            await asyncio.sleep(0)
            done += 1
    bench.check(done)


@row(ops=50_000, unit="switch")
async def tasks_switch(bench: Bench) -> None:
    """1,000 tasks switching with sleep(0)."""
    done = 0

    async def switch(times: int) -> None:
        nonlocal done
        for _ in range(times):
            await asyncio.sleep(0)
            done += 1

    for _ in bench:
        await asyncio.gather(*[switch(bench.ops // 1_000) for _ in range(1_000)])
    bench.check(done)


@row(ops=10_000, unit="sleeper", seconds=0.5)
async def gather_sleepers(bench: Bench) -> None:
    """gather of 10,000 sleepers."""
    done = 0
    for _ in bench:
        results = await asyncio.gather(
            *[asyncio.sleep(0.05, True) for _ in range(bench.ops)]
        )
        done += sum(results)
    bench.check(done)


@row(ops=2_000, unit="call")
async def wait_for(bench: Bench) -> None:
    """wait_for of sleep(0)."""
    done = 0
    for _ in bench:
        for _ in range(bench.ops):
            done += await asyncio.wait_for(asyncio.sleep(0, True), FAR)
    bench.check(done)


@row(ops=10_000, unit="task")
async def create_task(bench: Bench) -> None:
    """create_task, 1,000 at a time."""
    loop = asyncio.get_running_loop()

    async def empty() -> None:
        pass

    done = 0
    for _ in bench:
        for _ in range(bench.ops // BATCH):
            tasks = [loop.create_task(empty()) for _ in range(BATCH)]
            await tasks[-1]
            done += sum([task.done() for task in tasks])
    bench.check(done)
