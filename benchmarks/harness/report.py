"""Results: medians, ratios, the table and the JSON file."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .loops import KEEP_MEMORY, REFERENCES
from .registry import METRIC_NAMES, Row

NOISY = 0.1  # middle half of the samples, as a share of the median


@dataclass
class Result:
    """The samples of one row, by loop, and why there are none."""

    row: Row
    samples: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def median(self, loop: str) -> float | None:
        """Return the median of a loop's samples, None where one has failed."""
        if loop in self.errors or not self.samples.get(loop):
            return None
        return statistics.median(self.samples[loop])

    def noisy(self, loop: str) -> bool:
        """Tell whether the samples lie so far apart that the median says little."""
        values = self.samples.get(loop, [])
        if len(values) < 4 or not (median := statistics.median(values)):
            return False
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return (high - low) / median > NOISY

    def ratio(self, loop: str, reference: str) -> float | None:
        """Tell how many times as fast as the reference a loop is."""
        mine, theirs = self.median(loop) or 0, self.median(reference) or 0
        return theirs / mine if mine > 0 and theirs > 0 else None  # timers may be early


def duration(seconds: float) -> str:
    """Write a duration in three digits, like ``1.23 us``; what is early is below 0."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    for unit, scale in (("ns", 1e9), ("us", 1e6), ("ms", 1e3)):
        value = seconds * scale
        if value < 999.5:
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:.{digits}f} {unit}"
    return f"{seconds:.2f} s"


def amount(value: float, metric: str) -> str:
    """Write what a metric counted, by the name of the metric."""
    if metric == METRIC_NAMES["switches"]:
        return f"{value:g}"
    if metric == METRIC_NAMES["memory"]:
        return f"{value / 1024:.2f} KiB"
    return duration(value)


def table(results: Iterable[Result], loops: list[str]) -> str:
    """Lay out medians of all loops, then their speed against the references."""
    comparisons = [
        (reference, loop)
        for reference in REFERENCES
        if reference in loops
        for loop in loops
        if loop != reference
    ]
    header = ["", "per", *loops]
    header += [loop for _, loop in comparisons]
    lines = []
    for result in results:
        cells = [result.row.title, result.row.unit]
        for loop in loops:
            median = result.median(loop)
            if median is None:
                cells.append("failed" if loop in result.errors else "-")
            else:
                noisy = "~" if result.noisy(loop) else ""
                cells.append(noisy + amount(median, METRIC_NAMES[result.row.metric]))
        for reference, loop in comparisons:
            ratio = result.ratio(loop, reference)
            cells.append(f"{ratio:.2f}x" if ratio else "-")
        lines.append((result.row.area, cells))
    widths = [
        max(len(cells[column]) for cells in [header, *[cells for _, cells in lines]])
        for column in range(len(header))
    ]

    def lay_out(cells: list[str]) -> str:
        parts = [cells[0].ljust(widths[0]), cells[1].ljust(widths[1])]
        parts += [
            cell.rjust(width) for cell, width in zip(cells[2:], widths[2:], strict=True)
        ]
        return "  ".join(parts).rstrip()

    over = " " * (sum(widths[: 2 + len(loops)]) + 2 * (1 + len(loops)))
    column = 2 + len(loops)
    for reference in dict.fromkeys(reference for reference, _ in comparisons):
        count = sum(reference == other for other, _ in comparisons)
        width = sum(widths[column : column + count]) + 2 * (count - 1)
        over += "  " + f" speed, {reference} = 1 ".center(width, "-")
        column += count
    text = [over.rstrip(), lay_out(header)] if comparisons else [lay_out(header)]
    area = ""
    for name, cells in lines:
        if name != area:
            text.append("")
            area = name
        text.append(lay_out(cells))
    return "\n".join(text)


def machine() -> dict[str, Any]:
    """Describe the computer."""
    facts: dict[str, Any] = {
        "platform": platform.platform(),
        "architecture": platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
    }
    for path, key, name in (
        ("/proc/cpuinfo", "model name", "processor"),
        ("/proc/meminfo", "MemTotal", "memory"),
    ):
        for line in Path(path).read_text().splitlines():
            if line.startswith(key):
                facts[name] = line.partition(":")[2].strip()
                break
    return facts


def as_json(
    results: Iterable[Result],
    versions: dict[str, str],
    *,
    rounds: int,
    keep_memory: bool,
    seconds: float,
) -> dict[str, Any]:
    """Return everything that is known about a run."""
    rows = {}
    for result in results:
        row = result.row
        rows[row.key] = {
            "area": row.area,
            "title": row.title,
            "unit": row.unit,
            "metric": METRIC_NAMES[row.metric],
            "median": {
                loop: median
                for loop in versions
                if (median := result.median(loop)) is not None
            },
            "samples": result.samples,
            "errors": result.errors,
        }
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "rounds": rounds,
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "compiler": platform.python_compiler(),
        },
        "loops": versions,
        "machine": machine(),
        "libc": " ".join(platform.libc_ver()),
        "malloc": KEEP_MEMORY if keep_memory else {},
        "rows": rows,
    }
