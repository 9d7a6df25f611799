"""The names that exporters give to what a loop counts, and Prometheus' text format."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .metrics import Histogram, Metrics

# Field, name, type, help.
SERIES: tuple[tuple[str, str, str, str], ...] = (
    ("iterations", "iterations_total", "counter", "Turns of the loop."),
    ("callbacks_run", "callbacks_total", "counter", "Callbacks run."),
    (
        "callbacks_cancelled",
        "callbacks_cancelled_total",
        "counter",
        "Callbacks that were cancelled when their turn came.",
    ),
    ("ready_now", "ready", "gauge", "Callbacks that are ready to run."),
    ("ready_peak", "ready_peak", "gauge", "The most that were ready at once."),
    ("timers_pending", "timers_pending", "gauge", "Timers that are pending."),
    (
        "timers_cancelled",
        "timers_cancelled",
        "gauge",
        "Timers that were cancelled and still take room.",
    ),
    ("timers_fired", "timers_fired_total", "counter", "Timers that have fired."),
    ("busy_ns", "busy_seconds_total", "counter", "Time that the loop worked."),
    ("idle_ns", "idle_seconds_total", "counter", "Time that the loop waited."),
    ("polls", "polls_total", "counter", "Looks for events."),
    ("polls_skipped", "polls_skipped_total", "counter", "Turns without a look."),
    ("poll_events", "poll_events_total", "counter", "Events of descriptors."),
    (
        "gil_handovers",
        "gil_handovers_total",
        "counter",
        "How often the loop let the GIL go.",
    ),
    ("servers_open", "servers_open", "gauge", "Listening sockets."),
    ("accepts", "accepts_total", "counter", "Connections accepted."),
    (
        "accept_failures",
        "accept_failures_total",
        "counter",
        "Connections that could not be accepted or served.",
    ),
    ("tls_handshakes", "tls_handshakes_total", "counter", "TLS handshakes done."),
    (
        "tls_handshake_failures",
        "tls_handshake_failures_total",
        "counter",
        "TLS handshakes that failed.",
    ),
    (
        "udp_dropped",
        "udp_dropped_total",
        "counter",
        "Datagrams that the kernel had no room for.",
    ),
    (
        "executor_jobs",
        "executor_jobs_total",
        "counter",
        "Jobs given to the default executor.",
    ),
    (
        "executor_queue",
        "executor_queue",
        "gauge",
        "Jobs that wait for a thread of the default executor.",
    ),
    (
        "executor_threads",
        "executor_threads",
        "gauge",
        "Threads of the default executor.",
    ),
)
TRAFFIC_SERIES: tuple[tuple[str, str, str, str], ...] = (
    ("bytes_in", "received_bytes_total", "counter", "Bytes received."),
    ("bytes_out", "sent_bytes_total", "counter", "Bytes sent."),
    ("reads", "reads_total", "counter", "Reads that brought something."),
    ("writes", "writes_total", "counter", "Writes that sent something."),
    ("opened", "transports_opened_total", "counter", "Transports opened."),
    ("open", "transports_open", "gauge", "Transports that are open."),
)
HISTOGRAMS: tuple[tuple[str, str, str], ...] = (
    (
        "scheduling_lag",
        "scheduling_lag_seconds",
        "From when a callback could have run to when it did.",
    ),
    (
        "callback_duration",
        "callback_duration_seconds",
        "How long callbacks took, of a sample.",
    ),
    (
        "executor_wait",
        "executor_wait_seconds",
        "From run_in_executor() to the start of the job.",
    ),
)
# Borders that stay the same, as Prometheus wants them; 2 ** n nanoseconds.
_BORDERS_NS = tuple(1 << power for power in range(10, 37, 2))

_LABEL = re.compile("[a-zA-Z_][a-zA-Z0-9_]*")
_PREFIX = re.compile("[a-zA-Z_:][a-zA-Z0-9_:]*")
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def number(metrics: Metrics, field: str) -> float:
    """Return a field as exporters tell it: times in seconds."""
    value: int = getattr(metrics, field)
    return value / 1e9 if field.endswith("_ns") else value


def cumulated(histogram: Histogram) -> Iterator[tuple[float, int]]:
    """Yield (border in seconds, how many took no longer) for fixed borders."""
    fine = iter(histogram.buckets)
    total = 0
    border, count = next(fine, (0, 0))
    for limit in _BORDERS_NS:
        while count and border < limit:
            total += count
            border, count = next(fine, (0, 0))
        yield limit / 1e9, total


def prometheus_text(metrics: Metrics, prefix: str, labels: Mapping[str, str]) -> str:
    """Return the text; ValueError for a prefix or a label that has no place there."""
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"not a prefix of names: {prefix!r}")
    for name in labels:
        if not _LABEL.fullmatch(name) or name in ("kind", "le"):
            raise ValueError(f"not a name for a label here: {name!r}")
    return "\n".join([*_lines(metrics, prefix, dict(labels)), ""])


def _labelled(labels: Mapping[str, object]) -> str:
    if not labels:
        return ""
    pairs = (f'{k}="{str(v).translate(_ESCAPES)}"' for k, v in labels.items())
    return "{" + ",".join(pairs) + "}"


def _lines(metrics: Metrics, prefix: str, labels: dict[str, str]) -> Iterator[str]:
    base = _labelled(labels)
    for field, name, kind, text in SERIES:
        yield from _head(f"{prefix}_{name}", kind, text)
        yield f"{prefix}_{name}{base} {number(metrics, field)!r}"
    for field, name, kind, text in TRAFFIC_SERIES:
        yield from _head(f"{prefix}_{name}", kind, text)
        for of, row in metrics.traffic.items():
            more = _labelled({**labels, "kind": of})
            yield f"{prefix}_{name}{more} {getattr(row, field)}"
    for field, name, text in HISTOGRAMS:
        histogram: Histogram = getattr(metrics, field)
        yield from _head(f"{prefix}_{name}", "histogram", text)
        for border, count in cumulated(histogram):
            more = _labelled({**labels, "le": repr(border)})
            yield f"{prefix}_{name}_bucket{more} {count}"
        more = _labelled({**labels, "le": "+Inf"})
        yield f"{prefix}_{name}_bucket{more} {histogram.count}"
        yield f"{prefix}_{name}_sum{base} {histogram.sum_ns / 1e9!r}"
        yield f"{prefix}_{name}_count{base} {histogram.count}"


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
