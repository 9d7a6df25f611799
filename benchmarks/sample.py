"""Take one sample of one row on one loop, in this process.

    python benchmarks/sample.py ROW LOOP [--passes N] [--wrap COMMAND]

Prints a JSON object. run.py and compare.py start this; by hand it serves for profiling:
``--wrap "perf record"`` puts the process under test under that command, be it this one
or the server that it starts.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

from harness import native
from harness.bench import Address, Bench
from harness.clocks import clock_of
from harness.loops import CEILING
from harness.registry import Row, get_row


def main() -> None:
    """Take the sample that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("row")
    parser.add_argument("loop", help="a module with new_event_loop()")
    parser.add_argument(
        "--passes", type=int, help="this many, instead of as many as fit the time"
    )
    parser.add_argument("--wrap", default="", metavar="COMMAND")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    row = get_row(arguments.row)
    wrap = shlex.split(arguments.wrap)
    if arguments.serve:
        serve(row, loop_factory(arguments.loop))
        return
    passes = arguments.passes or row.passes
    if row.serve is not None:
        bench = measure_server(row, arguments.loop, passes, wrap)
    else:
        if wrap:
            command = [sys.executable, __file__, row.key, arguments.loop]
            if passes:
                command += ["--passes", str(passes)]
            os.execvp(wrap[0], [*wrap, *command])
        bench = measure_here(row, loop_factory(arguments.loop), passes)
    bench.finish()
    result = {
        "values": bench.per_op(row.metric),
        "passes": bench.passes,
        "ops": bench.measured,
        "wall": bench.wall,
    }
    print(json.dumps(result))


LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def loop_factory(name: str) -> LoopFactory:
    """Find what makes the loops of that name."""
    return cast(LoopFactory, importlib.import_module(name).new_event_loop)


def measure_here(row: Row, factory: LoopFactory, passes: int | None) -> Bench:
    """Run a row whose body is what is measured."""
    bench = Bench(
        row.ops,
        clock_of(row.metric),
        seconds=row.seconds,
        passes=passes,
        new_event_loop=factory,
    )
    coroutine = row.body(bench)
    if coroutine is not None:
        with asyncio.Runner(loop_factory=factory, debug=False) as runner:
            runner.run(coroutine)
    return bench


def measure_server(row: Row, loop: str, passes: int | None, wrap: list[str]) -> Bench:
    """Run a row whose server is what is measured; this process is the load."""
    cpus = sorted(os.sched_getaffinity(0))
    with server_process(row, loop, wrap) as (pid, address):
        if len(cpus) > 1:
            # Neither takes the other's processor, and neither wanders.
            os.sched_setaffinity(pid, cpus[-1:])
            os.sched_setaffinity(0, cpus[:-1])
        bench = Bench(
            row.ops,
            clock_of(row.metric, pid),
            seconds=row.seconds,
            passes=passes,
            address=address,
            pid=pid,
        )
        row.body(bench)
    return bench


@contextmanager
def server_process(
    row: Row, loop: str, wrap: list[str]
) -> Iterator[tuple[int, Address]]:
    """Run the row's server in a process of its own; gives its id and address."""
    command = [*wrap, sys.executable, __file__, row.key, loop, "--serve"]
    if loop == CEILING:
        folder = [tempfile.mkdtemp()] if row.ceiling == "unix" else []
        command = [*wrap, str(native.program("echo")), *folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError("the server has not started")
            address = json.loads(line)
            yield (
                process.pid,
                address if isinstance(address, str) else (address[0], address[1]),
            )
        finally:
            # Some of what wraps a server ends when that does, and not before.
            if not wrap or subprocess.call(["pkill", "-P", str(process.pid)]):
                process.terminate()


def serve(row: Row, factory: LoopFactory) -> None:
    """Be the server that is measured, until the load ends this process."""

    def ready(address: Address) -> None:
        print(json.dumps(address), flush=True)

    assert row.serve is not None
    with asyncio.Runner(loop_factory=factory, debug=False) as runner:
        runner.run(row.serve(ready))


if __name__ == "__main__":
    main()
