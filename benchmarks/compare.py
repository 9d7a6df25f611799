"""Count the instructions of two builds of fastloop, operation by operation.

    python benchmarks/compare.py A B [ROWS...] [--passes N M]

A and B are folders that hold a built fastloop (put first on PYTHONPATH), interpreters
that have one installed, or names of other loops. Each row runs under callgrind twice,
once with few passes and once with more: the difference is free of start-up, and the
same on a busy machine as on an idle one. Needs valgrind. Counts are of the user's side
only: system calls are in run.py's times.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness.child import SampleError, take_sample
from harness.loops import environment
from harness.registry import Row, select_rows

TIMEOUT = 600  # seconds for one run: valgrind is about fifty times slower


@dataclass(frozen=True)
class Side:
    """One of the two that are compared."""

    name: str
    python: str
    loop: str
    path: str | None

    @classmethod
    def parse(cls, text: str) -> Side:
        """Tell a folder, an interpreter and the name of a loop apart."""
        path = Path(text)
        if path.is_dir():
            return cls(text, sys.executable, "fastloop", str(path.resolve()))
        if path.is_file():
            return cls(text, text, "fastloop", None)
        if text.isidentifier():
            return cls(text, sys.executable, text, None)
        raise argparse.ArgumentTypeError(f"no folder, interpreter or loop: {text}")


def main() -> int:
    """Compare the rows that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", type=Side.parse, metavar="A")
    parser.add_argument("b", type=Side.parse, metavar="B")
    parser.add_argument("rows", nargs="*", metavar="ROWS", default=["core.call_soon"])
    parser.add_argument(
        "--passes",
        type=int,
        nargs=2,
        default=(2, 4),
        metavar=("N", "M"),
        help="how often the row's work is done in the two runs; default: 2 4",
    )
    arguments = parser.parse_args()
    few, many = arguments.passes
    if not 0 < few < many:
        parser.error("--passes wants two growing numbers")
    if shutil.which("valgrind") is None:
        parser.error("valgrind is not installed")
    try:
        rows = select_rows(arguments.rows)
    except LookupError as error:
        parser.error(str(error))
    print(
        f"instructions per operation; A is {arguments.a.name}, B {arguments.b.name}\n"
    )
    print(f"{'instructions per operation':30} {'A':>12} {'B':>12} {'B / A':>8}")
    failed = 0
    for row in rows:
        try:
            first, second = (
                (count(row, side, many) - count(row, side, few))
                / (row.ops * (many - few))
                for side in (arguments.a, arguments.b)
            )
        except SampleError as reason:
            failed = 1
            print(f"{row.key:30} failed: {reason}", flush=True)
            continue
        print(
            f"{row.key:30} {first:12,.0f} {second:12,.0f} {second / first:8.3f}",
            flush=True,
        )
    return failed


def count(row: Row, side: Side, passes: int) -> int:
    """Run a row under callgrind; return the instructions of the process under test."""
    with tempfile.TemporaryDirectory() as folder:
        # One file for each process: a child that forks leaves one, too.
        output = Path(folder, "callgrind")
        wrap = [
            "valgrind",
            "--tool=callgrind",
            "--quiet",
            f"--callgrind-out-file={output}.%p",
        ]
        variables = environment()
        if side.path is not None:
            inherited = variables.get("PYTHONPATH")
            variables["PYTHONPATH"] = ":".join(filter(None, [side.path, inherited]))
        take_sample(
            side.python,
            row,
            side.loop,
            variables,
            timeout=TIMEOUT,
            options=("--passes", str(passes), "--wrap", shlex.join(wrap)),
        )
        return sum(total(path) for path in Path(folder).iterdir())


def total(path: Path) -> int:
    """Read the number of instructions from a file of callgrind's."""
    for line in path.read_text().splitlines():
        if line.startswith("totals:"):
            return int(line.split()[1])
    raise RuntimeError(f"callgrind has not finished: {path}")


if __name__ == "__main__":
    sys.exit(main())
