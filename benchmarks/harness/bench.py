"""The stopwatch that a row's body iterates over."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator

QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}

Address = tuple[str, int] | str  # of a server: host and port, or the path of a socket


class MissingError(Exception):
    """What a row needs is not on this machine."""


class Bench:
    """Gives out the passes of one sample and measures them.

    A body does its set-up, says ``for _ in bench:``, does ``bench.ops`` operations in
    each pass, and after the loop tells ``check()`` how many it has seen done. Only what
    is inside the loop is measured. Where ``ops`` is 0, ``check()`` is told of the
    measured passes only: those whose number is not 0. Rows that are about latency add
    to ``latencies`` in each pass.
    """

    def __init__(
        self,
        ops: int,
        clock: Callable[[], float],
        *,
        seconds: float,
        passes: int | None,
        new_event_loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
        address: Address = "",
        pid: int = 0,
    ) -> None:
        self.ops = ops
        self.address = address
        self.pid = pid  # of the server
        self.latencies: list[float] = []  # seconds
        self.passes = 0  # the measured ones
        self.value = 0.0  # what the clock counted in them
        self.wall = 0.0  # seconds they took
        self._clock = clock
        self._seconds = seconds
        self._wanted = passes
        self._new_event_loop = new_event_loop
        self._given = 0  # passes given out, with the one that warms up
        self._counted = 0
        self._checked = False

    def __iter__(self) -> Iterator[int]:
        if self._wanted is None:
            self._given += 1
            yield 0
        gc.collect()
        self.latencies.clear()
        began = time.perf_counter()
        start = self._clock()
        while True:
            self._given += 1
            self.passes += 1
            yield self.passes
            self.wall = time.perf_counter() - began
            if self._wanted is None:
                if self.wall >= self._seconds:
                    break
            elif self.passes == self._wanted:
                break
        self.value = self._clock() - start

    def per_op(self, metric: str) -> dict[str, float]:
        """What the clock counted for one operation, or all quantiles."""
        if metric not in QUANTILES:
            return {metric: self.value / self.measured}
        ranked = sorted(self.latencies)
        last = len(ranked) - 1
        return {
            name: ranked[min(int(len(ranked) * share), last)]
            for name, share in QUANTILES.items()
        }

    @property
    def measured(self) -> int:
        """How many operations were measured."""
        return self._counted or self.passes * self.ops

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Make a loop of the kind under test, for bodies that are not coroutines."""
        assert self._new_event_loop is not None
        return self._new_event_loop()

    def check(self, done: int) -> None:
        """Compare the work seen done, warm-up included, with what was asked for."""
        expected = self._given * self.ops
        if not self.ops:
            self._counted = expected = done
        if done != expected or not done:
            raise AssertionError(f"{done} operations were done, not {expected}")
        self._checked = True

    def finish(self) -> None:
        """Refuse a body that has not run or not checked its work."""
        if not self._checked:
            raise AssertionError("the row has not checked its work")
