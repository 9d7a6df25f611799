"""Compare event loops, one operation a row.

    python benchmarks/run.py [ROWS...] [--loops A,B] [--rounds N] [--json FILE]

ROWS are areas (tcp), rows (tcp.echo_1k_1) or globs (core.call_*); without any, all but
growth. Each sample is taken in a fresh process, and the loops take turns, so that a
machine that slows down or speeds up meanwhile favours none. Results are medians. What
runs in one thread is measured in processor time, what needs other threads or children
in wall time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.child import SampleError, take_sample
from harness.loops import CEILING, KNOWN, environment, installed
from harness.registry import METRIC_NAMES, Body, Row, select_rows
from harness.report import Result, as_json, table

TIMEOUT = 60  # seconds, after which a sample counts as hung
BAR = 30  # characters


def main() -> int:
    """Run the rows that the command line names; exit status 1 if a sample failed."""
    arguments = parse_arguments()
    try:
        rows = select_rows(arguments.rows)
    except LookupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.list:
        for row in rows:
            print(f"{row.key:30} {row.title} ({METRIC_NAMES[row.metric]})")
        return 0
    wanted = arguments.loops.split(",") if arguments.loops else list(KNOWN)
    versions = installed(wanted)
    if missing := [loop for loop in wanted if loop not in versions]:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        if arguments.loops:
            return 2
    variables = environment(keep_memory=not arguments.trim)
    together: dict[Body, list[Result]] = {}
    for row in rows:
        together.setdefault(row.body, []).append(Result(row))
    samples = sum(len(contestants(body[0].row, versions)) for body in together.values())
    progress = Progress(samples * arguments.rounds)
    began = time.monotonic()
    for body in together.values():
        loops = contestants(body[0].row, versions)
        run_rows(body, loops, arguments.rounds, variables, progress)
    results = [result for body in together.values() for result in body]
    progress.clear()
    print(", ".join(f"{loop} {version}" for loop, version in versions.items()))
    print(f"medians of {arguments.rounds} rounds; ~ marks those that vary much\n")
    print(table(results, list(versions)))
    if arguments.json:
        report = as_json(
            results,
            versions,
            rounds=arguments.rounds,
            keep_memory=not arguments.trim,
            seconds=time.monotonic() - began,
        )
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    failed = 0
    for result in results:
        for loop, reason in result.errors.items():
            # What another loop or the machine has not got is no fault of this run.
            excused = "MissingError" in reason or (
                loop != "fastloop" and reason.startswith("NotImplemented")
            )
            failed |= not excused
            print(f"{result.row.key} failed on {loop}: {reason}", file=sys.stderr)
    return failed


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROWS")
    parser.add_argument(
        "--loops",
        metavar="A,B",
        help=f"modules with new_event_loop(); default: the installed of {KNOWN}",
    )
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument(
        "--trim",
        action="store_true",
        help="let glibc give freed memory back to the kernel, which is its default",
    )
    parser.add_argument("--list", action="store_true", help="name the rows and stop")
    return parser.parse_args()


def contestants(row: Row, versions: dict[str, str]) -> list[str]:
    """Return who takes part in a row."""
    return [loop for loop in versions if loop != CEILING or row.ceiling]


def run_rows(
    results: list[Result],
    loops: list[str],
    rounds: int,
    variables: dict[str, str],
    progress: Progress,
) -> None:
    """Take the samples of one body's rows. A loop that failed is not asked again."""
    row = results[0].row

    def sample(loop: str) -> None:
        if loop not in results[0].errors:
            try:
                values = take_sample(
                    sys.executable, row, loop, variables, timeout=TIMEOUT
                )
            except SampleError as error:
                for result in results:
                    result.errors[loop] = str(error)
            else:
                for result in results:
                    mine = values[result.row.metric]
                    result.samples.setdefault(loop, []).append(mine)
        progress.step(f"{row.key} {loop}")

    turns = loops * rounds
    if row.parallel:
        with ThreadPoolExecutor(len(turns)) as pool:
            list(pool.map(sample, turns))
    else:
        for loop in turns:
            sample(loop)


class Progress:
    """A bar on a terminal, silence elsewhere."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.began = time.monotonic()
        self.visible = sys.stderr.isatty()

    def step(self, label: str) -> None:
        """Count one sample."""
        self.done += 1
        if not self.visible:
            return
        bar = "#" * (BAR * self.done // self.total)
        spent = time.monotonic() - self.began
        left = spent / self.done * (self.total - self.done)
        text = f"[{bar:<{BAR}}] {self.done}/{self.total}, {left:.0f} s left, {label}"
        print(f"\r{text[:110]}\033[K", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Remove the bar."""
        if self.visible:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
