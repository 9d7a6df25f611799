"""The rows, and how one is declared.

A row is a function that gets a ``Bench`` and repeats a fixed piece of work for as long
as the bench asks for it. There are two kinds:

- without ``serve``, the function is what is measured: a coroutine function runs inside
  the loop under test, a plain one makes its own loops;
- with ``serve``, that coroutine function is what is measured: it runs alone in a
  process of its own on the loop under test, and the row's function is the load, a plain
  program without an event loop that is the same for all.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from .bench import Address, Bench

AREAS = (
    "core",
    "threads",
    "tcp",
    "tls",
    "connect",
    "sock",
    "udp",
    "reader",
    "process",
    "http",
    "services",
    "latency",
    "memory",
    "growth",
)
ASKED_FOR = {"growth"}  # areas that take long, and run only if they are named

Metric = Literal["cpu", "wall", "switches", "memory", "p50", "p99", "p99.9"]
METRIC_NAMES: dict[Metric, str] = {
    "cpu": "processor time",
    "wall": "wall time",
    "switches": "voluntary context switches",
    "memory": "resident memory",
    "p50": "median of wall times",
    "p99": "99th percentile of wall times",
    "p99.9": "99.9th percentile of wall times",
}
QUANTILE_TITLES: dict[Metric, str] = {
    "p50": "median",
    "p99": "99th percentile",
    "p99.9": "99.9th percentile",
}
Ceiling = Literal["tcp", "unix"]
Body = Callable[[Bench], Coroutine[Any, Any, None] | None]
Serve = Callable[[Callable[[Address], None]], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    ``ops`` is the number of operations in one pass of the body, 0 where the body counts
    them itself, ``seconds`` how long the passes of one sample go on. ``passes`` fixes
    their number instead, and then nothing is run to warm up. A ``parallel`` row uses no
    processor, so that all its samples may run at once. ``ceiling`` says that plain
    libuv can serve it, too: over "tcp" or a "unix" socket.
    """

    area: str
    name: str
    title: str
    unit: str
    ops: int
    metric: Metric
    seconds: float
    passes: int | None
    parallel: bool
    body: Body
    serve: Serve | None
    ceiling: Ceiling | None

    @property
    def key(self) -> str:
        """The row's name on the command line and in the JSON file."""
        return f"{self.area}.{self.name}"


_rows: dict[str, Row] = {}


def row(
    *,
    ops: int,
    unit: str,
    metric: Metric | tuple[Metric, ...] = "cpu",
    serve: Serve | None = None,
    seconds: float = 0.25,
    passes: int | None = None,
    parallel: bool = False,
    ceiling: Ceiling | None = None,
) -> Callable[[Body], Body]:
    """Register the decorated function as a row; its docstring becomes the title.

    Several metrics make as many rows of it, whose samples are taken together.
    """

    def add(body: Body, name: str, title: str, metric: Metric) -> None:
        found = Row(
            area=body.__module__.rpartition(".")[2],
            name=name,
            title=title,
            unit=unit,
            ops=ops,
            metric=metric,
            seconds=seconds,
            passes=passes,
            parallel=parallel,
            body=body,
            serve=serve,
            ceiling=ceiling,
        )
        assert found.key not in _rows, f"two rows are named {found.key}"
        _rows[found.key] = found

    def register(body: Body) -> Body:
        name = body.__name__
        title = (body.__doc__ or "").partition("\n")[0].rstrip(".")
        assert title, f"{body.__qualname__} has no docstring"
        if isinstance(metric, tuple):
            for one in metric:
                suffix = one.replace(".", "")
                add(body, f"{name}_{suffix}", f"{title}, {QUANTILE_TITLES[one]}", one)
        else:
            add(body, name, title, metric)
        return body

    return register


def get_row(key: str) -> Row:
    """Return one row, importing its area only."""
    importlib.import_module(f"rows.{key.partition('.')[0]}")
    return _rows[key]


def select_rows(patterns: list[str]) -> list[Row]:
    """Return the rows that the patterns name; without a pattern, what runs unasked.

    A pattern is an area (``tcp``), a row (``tcp.echo_1k``) or a glob of either
    (``core.call_*``). LookupError for one that names nothing.
    """
    for area in AREAS:
        importlib.import_module(f"rows.{area}")
    if not patterns:
        return [found for found in _rows.values() if found.area not in ASKED_FOR]

    def matches(found: Row, pattern: str) -> bool:
        return any(fnmatchcase(text, pattern) for text in (found.area, found.key))

    for pattern in patterns:
        if not any(matches(found, pattern) for found in _rows.values()):
            raise LookupError(f"no row matches {pattern!r}")
    return [
        found
        for found in _rows.values()
        if any(matches(found, pattern) for pattern in patterns)
    ]
