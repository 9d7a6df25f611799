"""What is counted: processor time, wall time, context switches, memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from .bench import QUANTILES
from .registry import Metric


def clock_of(metric: Metric, pid: int | None = None) -> Callable[[], float]:
    """Return the clock of a metric, for another process if ``pid`` is given."""
    if metric == "wall" or metric in QUANTILES:
        return time.perf_counter
    if pid is None:
        assert metric == "cpu"
        return time.process_time
    other = pid
    if metric == "switches":
        return lambda: voluntary_switches(other)
    if metric == "memory":
        return lambda: resident(other)
    # The clock that clock_getcpuclockid(3) returns on Linux: exact, and the process
    # that is measured has no part in it.
    clock = (~other << 3) | 2
    return lambda: time.clock_gettime(clock)


def voluntary_switches(pid: int) -> int:
    """Count how often the threads of a process went to sleep."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                total += int(line.split()[1])
    return total


def resident(pid: int) -> int:
    """Return how many bytes of its own a process has in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise LookupError("no RssAnon in /proc")
