"""What a loop counts while it works, as records, and in the formats of others.

``loop.metrics()`` returns a Metrics. Names end in their units; what has none is a
number of things. Counters only grow, from the making of the loop on; what is "now",
"pending" or "open" goes up and down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from ._loop import Loop
    from ._otel import Instruments

__all__ = [
    "Histogram",
    "Metrics",
    "Reporter",
    "SlowCallback",
    "Traffic",
    "open_telemetry",
    "prometheus",
    "report",
]


@dataclass(frozen=True, slots=True)
class Histogram:
    """How long something took, how often.

    buckets are (nanoseconds, count): so many took no longer than that, and longer than
    the bucket before says. Empty ones are left out. The borders are the same always,
    eight for each power of two, so that what is told is right by an eighth.
    """

    count: int = 0
    sum_ns: int = 0
    max_ns: int = 0
    buckets: tuple[tuple[int, int], ...] = ()

    def quantile_ns(self, share: float) -> int:
        """Return how long the given share (0.99: 99 of 100) took at most; 0 of none."""
        if not 0 <= share <= 1:
            raise ValueError("share must be between 0 and 1")
        wanted = max(1, math.ceil(share * self.count))
        for border, count in self.buckets:
            wanted -= count
            if wanted <= 0:
                return min(border, self.max_ns)
        return self.max_ns

    @property
    def p50_ns(self) -> int:
        return self.quantile_ns(0.5)

    @property
    def p90_ns(self) -> int:
        return self.quantile_ns(0.9)

    @property
    def p99_ns(self) -> int:
        return self.quantile_ns(0.99)

    @property
    def p999_ns(self) -> int:
        return self.quantile_ns(0.999)

    @property
    def mean_ns(self) -> float:
        return self.sum_ns / self.count if self.count else 0.0

    def since(self, earlier: Histogram) -> Histogram:
        """Return what was added after earlier; max_ns is the border of a bucket."""
        before = dict(earlier.buckets)
        buckets = tuple(
            (border, more)
            for border, count in self.buckets
            if (more := count - before.get(border, 0)) > 0
        )
        return Histogram(
            sum(count for _, count in buckets),
            self.sum_ns - earlier.sum_ns,
            min(buckets[-1][0], self.max_ns) if buckets else 0,
            buckets,
        )


@dataclass(frozen=True, slots=True)
class Traffic:
    """What moved through transports of a kind.

    reads and writes are system calls, or datagrams; opened counts transports from the
    beginning, open those that are so now.
    """

    bytes_in: int = 0
    bytes_out: int = 0
    reads: int = 0
    writes: int = 0
    opened: int = 0
    open: int = 0


@dataclass(frozen=True, slots=True)
class Metrics:
    """A loop at a moment. See the page on operations for what to watch."""

    time_ns: int
    """When, by time.monotonic_ns()."""
    running: bool
    iterations: int
    """Turns of the loop."""
    callbacks_run: int
    """Callbacks, timers and steps of tasks; protocol callbacks are poll_events."""
    callbacks_cancelled: int
    """Those that were cancelled when their turn came."""
    ready_now: int
    ready_peak: int
    """The longest that the ready queue was at the start of a turn."""
    timers_pending: int
    timers_cancelled: int
    """Those that were cancelled and still take room."""
    timers_fired: int
    busy_ns: int
    """Time in runs of the loop that it did not wait for events in."""
    idle_ns: int
    utilisation: float
    """Busy time by running time (0 to 1) since the last loop.metrics()."""
    scheduling_lag: Histogram
    """From when a callback could have run to when it did: each timer, and a sample."""
    callback_duration: Histogram
    """Of a sample of callbacks, about one in 64."""
    polls: int
    """Looks for events, of which some waited."""
    polls_skipped: int
    """Turns without one, because callbacks were ready."""
    poll_events: int
    gil_handovers: int
    """How often the loop let the GIL go to wait or to let others have it."""
    traffic: Mapping[str, Traffic]
    """By kind: tcp, unix, pipe, udp, tls (what the program sees), sock."""
    servers_open: int
    """Listening sockets."""
    accepts: int
    accept_failures: int
    tls_handshakes: int
    tls_handshake_failures: int
    udp_dropped: int
    """Datagrams that the kernel had no room for."""
    executor_jobs: int
    """Jobs given to the default executor, if it is the loop's own."""
    executor_queue: int
    """Jobs that wait for a thread of the default executor."""
    executor_threads: int
    executor_wait: Histogram
    """From run_in_executor() to the start of the job."""

    @property
    def bytes_in(self) -> int:
        """Of all system calls."""
        return sum(t.bytes_in for k, t in self.traffic.items() if k != "tls")

    @property
    def bytes_out(self) -> int:
        """Of all system calls."""
        return sum(t.bytes_out for k, t in self.traffic.items() if k != "tls")

    @property
    def transports_open(self) -> int:
        """Transports that have a descriptor."""
        return sum(t.open for k, t in self.traffic.items() if k != "tls")

    def utilisation_since(self, earlier: Metrics) -> float:
        """Return busy time by running time (0 to 1) since another snapshot."""
        busy = self.busy_ns - earlier.busy_ns
        total = busy + self.idle_ns - earlier.idle_ns
        return min(max(busy / total, 0.0), 1.0) if total > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return everything as what json.dumps() takes."""
        values: dict[str, Any] = {}
        for name in _NAMES:
            value = getattr(self, name)
            if isinstance(value, Histogram):
                values[name] = {
                    "count": value.count,
                    "sum_ns": value.sum_ns,
                    "max_ns": value.max_ns,
                    "p50_ns": value.p50_ns,
                    "p90_ns": value.p90_ns,
                    "p99_ns": value.p99_ns,
                    "p999_ns": value.p999_ns,
                }
            elif name == "traffic":
                values[name] = {
                    kind: {f: getattr(row, f) for f in _TRAFFIC}
                    for kind, row in value.items()
                }
            else:
                values[name] = value
        return values


_NAMES = [f.name for f in fields(Metrics)]
_TRAFFIC = [f.name for f in fields(Traffic)]


@dataclass(frozen=True, slots=True)
class SlowCallback:
    """A callback that took loop.slow_callback_duration seconds or longer."""

    kind: str
    """"task", "callback", "timer", "protocol", "server", "reader" or "executor"."""
    name: str
    """The task's name and its coroutine, or the name of what was called."""
    source: str
    """"file:line", empty where there is no Python code to name. Of a task that goes on,
    where it waits now."""
    wall_seconds: float
    cpu_seconds: float
    """Of the loop's thread; right by 0.2 ms."""
    task: asyncio.Task[Any] | None = field(default=None, repr=False, compare=False)
    callback: object = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        at = f" at {self.source}" if self.source else ""
        return (
            f"{self.kind} {self.name}{at} took {self.wall_seconds:.3f} s "
            f"({self.cpu_seconds:.3f} s of processor time)"
        )


# -- the snapshot --------------------------------------------------------------------


def _border(bucket: int) -> int:
    """Return the most that a bucket of the C code holds."""
    if bucket < 8:
        return bucket
    return ((9 + bucket % 8) << (bucket // 8 - 1)) - 1


def _histogram(sum_ns: int, max_ns: int, buckets: list[tuple[int, int]]) -> Histogram:
    return Histogram(
        sum(count for _, count in buckets),
        sum_ns,
        max_ns,
        tuple((_border(bucket), count) for bucket, count in buckets),
    )


def _executor(loop: Any) -> tuple[int, int]:
    """Return how many jobs wait for the default executor, and its threads."""
    executor: Any = getattr(loop, "_default_executor", None)
    try:
        return executor._work_queue.qsize(), len(executor._threads)
    except (AttributeError, TypeError):
        return 0, 0  # there is none yet, or it is of another make


def snapshot(loop: Loop, earlier: tuple[int, int] = (0, 0)) -> Metrics:
    """Return loop's Metrics; utilisation is since earlier, a (busy_ns, idle_ns)."""
    raw = loop._metrics()
    queue, threads = _executor(loop)
    busy_ns, idle_ns = raw["busy_ns"], raw["idle_ns"]
    busy = busy_ns - earlier[0]
    total = busy + idle_ns - earlier[1]
    return Metrics(
        time_ns=raw["time_ns"],
        running=bool(raw["running"]),
        iterations=raw["iterations"],
        callbacks_run=raw["callbacks_run"],
        callbacks_cancelled=raw["callbacks_cancelled"],
        ready_now=raw["ready_now"],
        ready_peak=raw["ready_peak"],
        timers_pending=raw["timers_pending"],
        timers_cancelled=raw["timers_cancelled"],
        timers_fired=raw["timers_fired"],
        busy_ns=busy_ns,
        idle_ns=idle_ns,
        utilisation=min(max(busy / total, 0.0), 1.0) if total > 0 else 0.0,
        scheduling_lag=_histogram(*raw["lag"]),
        callback_duration=_histogram(*raw["duration"]),
        polls=raw["polls"],
        polls_skipped=max(0, raw["iterations"] - raw["polls"]),
        poll_events=raw["poll_events"],
        gil_handovers=raw["gil_handovers"],
        traffic={kind: Traffic(*row) for kind, row in raw["traffic"].items()},
        servers_open=raw["listening"],
        accepts=raw["accepts"],
        accept_failures=raw["accept_failures"],
        tls_handshakes=raw["tls_handshakes"],
        tls_handshake_failures=raw["tls_handshake_failures"],
        udp_dropped=raw["udp_dropped"] + loop._udp_drops(),
        executor_jobs=raw["jobs_submitted"],
        executor_queue=queue,
        executor_threads=threads,
        executor_wait=_histogram(*raw["job_wait"]),
    )


# -- exporters -----------------------------------------------------------------------


def prometheus(
    loop: Loop, *, prefix: str = "fastloop", labels: Mapping[str, str] | None = None
) -> str:
    """Return loop's metrics in Prometheus' text format.

    labels are put on every series: where a process has several loops, one that tells
    them apart. May be called from any thread.
    """
    from ._export import prometheus_text

    return prometheus_text(snapshot(loop), prefix, labels or {})


def open_telemetry(loop: Loop, *, meter: Any = None, tracer: Any = None) -> Instruments:
    """Register loop's metrics as observable instruments of OpenTelemetry.

    Each slow callback becomes a span, if loop.slow_callback_hook is not taken; close()
    of what is returned ends that. meter and tracer are the global providers' if they
    are not given. Needs the extra ``fastloop-uv[otel]``; ImportError without it.
    """
    from ._otel import Instruments

    return Instruments(loop, meter, tracer)


def report(
    loop: Loop,
    callback: Callable[[Metrics], object],
    interval: float = 10.0,
) -> Reporter:
    """Call callback(metrics) every interval seconds, for statsd and its kin.

    utilisation is that of the interval. What the callback raises goes to the loop's
    exception handler, and the next call is made all the same. cancel() of what is
    returned ends it, as does the end of the loop. To be called in the loop's thread.
    """
    return Reporter(loop, callback, interval)


class Reporter:
    """What report() returns."""

    def __init__(
        self, loop: Loop, callback: Callable[[Metrics], object], interval: float
    ) -> None:
        if not callable(callback):
            raise TypeError(f"callback must be callable, not {callback!r}")
        if not interval > 0:
            raise ValueError("interval must be a positive number of seconds")
        self._loop = loop
        self._callback = callback
        self._interval = interval
        self._last = (0, 0)
        self._next = loop.time()
        self._mark(snapshot(loop))
        self._schedule()

    def _mark(self, metrics: Metrics) -> None:
        self._last = (metrics.busy_ns, metrics.idle_ns)

    def _schedule(self) -> None:
        # Not sooner than now: what was missed while the loop was blocked is missed.
        self._next = max(self._next + self._interval, self._loop.time())
        self._handle: asyncio.TimerHandle = self._loop.call_at(self._next, self._call)

    def _call(self) -> None:
        metrics = snapshot(self._loop, self._last)
        self._mark(metrics)
        self._schedule()
        self._callback(metrics)

    def cancel(self) -> None:
        """End it."""
        self._handle.cancel()

    def cancelled(self) -> bool:
        """Return True once it was cancelled."""
        return self._handle.cancelled()
