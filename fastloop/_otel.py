"""What a loop counts, as instruments of OpenTelemetry; imported where it is used."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

try:
    from opentelemetry import metrics as api
    from opentelemetry import trace
except ImportError:
    raise ImportError(
        "OpenTelemetry is not installed: pip install 'fastloop-uv[otel]'"
    ) from None

from ._export import number
from ._version import __version__
from .metrics import SlowCallback, snapshot

if TYPE_CHECKING:
    from ._loop import Loop
    from .metrics import Metrics

_FRESH_NS = 50_000_000  # for so long the instruments of one export share a snapshot

# Name, field, unit, description. Times are told in seconds.
_COUNTERS = (
    ("fastloop.eventloop.iterations", "iterations", "{turn}", "Turns of the loop."),
    ("fastloop.eventloop.callbacks", "callbacks_run", "{callback}", "Callbacks run."),
    ("fastloop.eventloop.busy_time", "busy_ns", "s", "Time that the loop worked."),
    ("fastloop.eventloop.idle_time", "idle_ns", "s", "Time that the loop waited."),
    ("fastloop.eventloop.timers.fired", "timers_fired", "{timer}", "Timers fired."),
    ("fastloop.eventloop.polls", "polls", "{poll}", "Looks for events."),
    (
        "fastloop.eventloop.gil_handovers",
        "gil_handovers",
        "{handover}",
        "How often the loop let the GIL go.",
    ),
    ("fastloop.server.accepts", "accepts", "{connection}", "Connections accepted."),
    (
        "fastloop.server.accept_failures",
        "accept_failures",
        "{connection}",
        "Connections that could not be accepted or served.",
    ),
    ("fastloop.tls.handshakes", "tls_handshakes", "{handshake}", "Handshakes done."),
    (
        "fastloop.tls.handshake_failures",
        "tls_handshake_failures",
        "{handshake}",
        "Handshakes that failed.",
    ),
    (
        "fastloop.udp.dropped",
        "udp_dropped",
        "{datagram}",
        "Datagrams that the kernel had no room for.",
    ),
    ("fastloop.executor.jobs", "executor_jobs", "{job}", "Jobs given to threads."),
)
_GAUGES = (
    ("fastloop.eventloop.ready", "ready_now", "{callback}", "Callbacks to be run."),
    (
        "fastloop.eventloop.timers.pending",
        "timers_pending",
        "{timer}",
        "Timers that are pending.",
    ),
    ("fastloop.server.open", "servers_open", "{socket}", "Listening sockets."),
    ("fastloop.executor.queue", "executor_queue", "{job}", "Jobs that wait."),
    ("fastloop.executor.threads", "executor_threads", "{thread}", "Its threads."),
)
_QUANTILES = (
    ("fastloop.eventloop.delay", "scheduling_lag", "How late callbacks are."),
    (
        "fastloop.eventloop.callback.duration",
        "callback_duration",
        "How long they take.",
    ),
    ("fastloop.executor.wait", "executor_wait", "How long jobs wait for a thread."),
)


class Instruments:
    """A loop's instruments, and the spans of its slow callbacks.

    They tell nothing any more once the loop has gone. close() ends the spans.
    """

    def __init__(self, loop: Loop, meter: Any = None, tracer: Any = None) -> None:
        self._loop = weakref.ref(loop)
        self._lock = threading.Lock()
        self._last: Metrics | None = None
        self._tracer = tracer or trace.get_tracer("fastloop", __version__)
        self._hook: Callable[[SlowCallback], object] | None = None
        self._create(meter or api.get_meter("fastloop", __version__))
        if loop.slow_callback_hook is None:
            self._hook = self.span
            loop.slow_callback_hook = self._hook

    def close(self) -> None:
        """Make no more spans."""
        loop, hook = self._loop(), self._hook
        self._hook = None
        if loop is not None and hook is not None and loop.slow_callback_hook == hook:
            loop.slow_callback_hook = None

    def span(self, slow: SlowCallback) -> None:
        """Make a span of a slow callback; for a hook that does more than this."""
        end = time.time_ns()
        attributes: dict[str, Any] = {
            "fastloop.callback.kind": slow.kind,
            "code.function.name": slow.name,
            "fastloop.callback.cpu_time": slow.cpu_seconds,
        }
        file, _, line = slow.source.rpartition(":")
        if file:
            attributes["code.file.path"] = file
            attributes["code.line.number"] = int(line)
        span = self._tracer.start_span(
            f"slow {slow.kind} {slow.name}",
            start_time=end - int(slow.wall_seconds * 1e9),
            attributes=attributes,
        )
        span.end(end)

    def _metrics(self) -> Metrics | None:
        loop = self._loop()
        if loop is None:
            return None
        with self._lock:
            last = self._last
            if last is None or time.monotonic_ns() - last.time_ns > _FRESH_NS:
                last = self._last = snapshot(loop)
            return last

    def _observing(
        self, read: Callable[[Metrics], Iterator[tuple[float, dict[str, str]]]]
    ) -> list[Callable[[object], Iterator[Any]]]:
        def observe(_: object) -> Iterator[Any]:
            metrics = self._metrics()
            if metrics is not None:
                for value, attributes in read(metrics):
                    yield api.Observation(value, attributes)

        return [observe]

    def _create(self, meter: Any) -> None:
        for rows, create in (
            (_COUNTERS, meter.create_observable_counter),
            (_GAUGES, meter.create_observable_gauge),
        ):
            for name, field, unit, text in rows:
                create(name, self._observing(_reader(field)), unit, text)
        for name, field, text in _QUANTILES:
            meter.create_observable_gauge(
                name, self._observing(_quantiles(field)), "s", text
            )
        meter.create_observable_gauge(
            "fastloop.eventloop.utilization",
            self._observing(_Utilization()),
            "1",
            "Busy time by running time since the export before.",
        )
        meter.create_observable_counter(
            "fastloop.network.io",
            self._observing(_network),
            "By",
            "Bytes received and sent.",
        )
        meter.create_observable_gauge(
            "fastloop.transport.open",
            self._observing(_open),
            "{transport}",
            "Transports that are open.",
        )


def _reader(field: str) -> Callable[[Metrics], Iterator[tuple[float, dict[str, str]]]]:
    def read(metrics: Metrics) -> Iterator[tuple[float, dict[str, str]]]:
        yield number(metrics, field), {}

    return read


def _quantiles(
    field: str,
) -> Callable[[Metrics], Iterator[tuple[float, dict[str, str]]]]:
    def read(metrics: Metrics) -> Iterator[tuple[float, dict[str, str]]]:
        histogram = getattr(metrics, field)
        for share in (0.5, 0.9, 0.99, 0.999):
            yield histogram.quantile_ns(share) / 1e9, {"quantile": str(share)}

    return read


class _Utilization:
    """Since the time before."""

    def __init__(self) -> None:
        self._last: Metrics | None = None

    def __call__(self, metrics: Metrics) -> Iterator[tuple[float, dict[str, str]]]:
        last, self._last = self._last, metrics
        yield (
            metrics.utilisation if last is None else metrics.utilisation_since(last),
            {},
        )


def _network(metrics: Metrics) -> Iterator[tuple[float, dict[str, str]]]:
    for kind, row in metrics.traffic.items():
        for direction, count in (
            ("receive", row.bytes_in),
            ("transmit", row.bytes_out),
        ):
            yield (
                count,
                {"network.transport": kind, "network.io.direction": direction},
            )


def _open(metrics: Metrics) -> Iterator[tuple[float, dict[str, str]]]:
    for kind, row in metrics.traffic.items():
        if kind != "sock":  # those sockets are the program's
            yield row.open, {"network.transport": kind}
