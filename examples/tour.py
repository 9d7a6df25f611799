"""A tour of real asyncio programs, timed on asyncio's own loop and on fastloop.

    python examples/tour.py [--loop asyncio|fastloop|both] [--rounds N] [--json FILE]

Each loop runs in a fresh process of its own, in turn, so that neither warms the other.
The times are medians of the rounds. Every program checks its own result, and the
results must be equal on both loops; exit status 1 otherwise.
"""

import argparse
import asyncio
import faulthandler
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

LOOPS = ("asyncio", "fastloop")
ROUND_TIMEOUT = 180  # seconds, after which a round counts as hung
SPARE_FILES = 200  # descriptors for everything that is not a chat client


def main():
    arguments = parse_arguments()
    if arguments.child:
        child(arguments.child, json.loads(arguments.sizes))
        return 0

    from stages import STAGES

    sizes = {stage.name: stage.size for stage in STAGES}
    clients = chat_clients(sizes["chat"])
    if clients < sizes["chat"]:
        print(
            f"This process may open {file_limit():,} files, so the chat has "
            f"{clients:,} clients instead of {sizes['chat']:,} "
            "(two files each; `ulimit -Hn` shows the limit).\n"
        )
        sizes["chat"] = clients

    loops = LOOPS if arguments.loop == "both" else (arguments.loop,)
    rounds = []
    for number in range(arguments.rounds):
        # The order changes from round to round: a machine that slows down or speeds up
        # meanwhile favours nobody.
        for loop in loops if number % 2 == 0 else reversed(loops):
            label = loop
            if arguments.rounds > 1:
                label += f", round {number + 1} of {arguments.rounds}"
            rounds.append({"loop": loop, **run_round(loop, label, sizes)})

    differences = compare(rounds)
    medians = summarize(rounds, loops)
    print_table(medians, loops, sizes)
    if arguments.json:
        report = {
            "python": platform.python_version(),
            "machine": platform.platform(),
            "sizes": sizes,
            "seconds": medians,
            "rounds": rounds,
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    for difference in differences:
        print(f"error: {difference}", file=sys.stderr)
    return 1 if differences else 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--loop", choices=[*LOOPS, "both"], default="both", help="default: both"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds on each loop; default: 3"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write all the measurements there"
    )
    parser.add_argument("--child", choices=LOOPS, help=argparse.SUPPRESS)
    parser.add_argument("--sizes", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds takes a number from 1")
    return arguments


# What the child does.


def child(loop, sizes):
    """Run every program on a loop; tell the parent by lines of JSON on stdout."""
    faulthandler.dump_traceback_later(ROUND_TIMEOUT - 5, exit=True)
    from stages import STAGES

    if loop == "fastloop":
        import fastloop

        loop_factory = fastloop.new_event_loop
    else:
        loop_factory = asyncio.new_event_loop

    for stage in STAGES:
        size = sizes[stage.name]
        run = stage.prepare(size)
        progress = Reporter(stage.name, size)
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.get_loop()
            cpu, wall = time.process_time(), time.perf_counter()
            facts = runner.run(run(progress))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        tell(stage=stage.name, seconds=wall, cpu_seconds=cpu, facts=facts)


class Reporter:
    """Counts a program's steps and tells the parent at every fiftieth part of them."""

    def __init__(self, stage, total):
        self.stage = stage
        self.total = total
        self.done = 0
        self.next = 0

    def __call__(self, steps=1):
        self.done += steps
        if self.done >= self.next:
            self.next = self.done + self.total // 50
            tell(stage=self.stage, done=self.done, total=self.total)


def tell(**message):
    print(json.dumps(message), flush=True)


# What the parent does.


def run_round(loop, label, sizes):
    """Run every program in a fresh process; return what it measured by stage."""
    from stages import STAGES

    command = [
        *(sys.executable, __file__),
        *("--child", loop),
        *("--sizes", json.dumps(sizes)),
    ]
    stages = {stage.name: stage for stage in STAGES}
    measured = {}
    print(label, flush=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            message = json.loads(line)
            stage = stages[message.pop("stage")]
            title = stage.title.format(n=sizes[stage.name])
            if "done" in message:
                show_progress(title, message["done"], message["total"])
            else:
                measured[stage.name] = message
                show_result(title, message["seconds"])
    if process.returncode != 0:
        clear_line()
        sys.exit(f"error: {loop} ended with exit status {process.returncode}")
    print()
    return {"stages": measured}


def show_progress(title, done, total):
    if not sys.stdout.isatty():
        return
    width = 30
    filled = min(width, done * width // total)
    bar = "#" * filled + "." * (width - filled)
    percent = min(100, done * 100 // total)
    print(f"\r  {title:<38} [{bar}] {percent:3}%", end="", flush=True)


def show_result(title, seconds):
    clear_line()
    print(f"  {title:<38} {seconds:8.2f} s", flush=True)


def clear_line():
    if sys.stdout.isatty():
        print("\r\x1b[K", end="")


def compare(rounds):
    """Return a sentence for each program whose facts were not always the same."""
    first = rounds[0]
    return [
        f"{name}: {first['loop']} found {measured['facts']}, "
        f"{other['loop']} found {other['stages'][name]['facts']}"
        for other in rounds[1:]
        for name, measured in first["stages"].items()
        if other["stages"][name]["facts"] != measured["facts"]
    ]


def summarize(rounds, loops):
    """Return the median seconds by stage and loop."""
    return {
        name: {
            loop: statistics.median(
                one["stages"][name]["seconds"] for one in rounds if one["loop"] == loop
            )
            for loop in loops
        }
        for name in rounds[0]["stages"]
    }


def print_table(medians, loops, sizes):
    from stages import STAGES

    rows = [
        (stage.title.format(n=sizes[stage.name]), medians[stage.name])
        for stage in STAGES
    ]
    total = {loop: sum(row[loop] for _, row in rows) for loop in loops}
    head = f"{'seconds (median)':<40}" + "".join(f"{loop:>10}" for loop in loops)
    if len(loops) == 2:
        head += f"{'ratio':>9}"
    print(f"CPython {platform.python_version()}, {platform.system()}")
    print(head)
    print("-" * len(head))
    for title, row in [*rows, ("total", total)]:
        if title == "total":
            print("-" * len(head))
        text = f"{title:<40}" + "".join(f"{row[loop]:>10.2f}" for loop in loops)
        if len(loops) == 2:
            text += f"{row['asyncio'] / row['fastloop']:>8.2f}x"
        print(text)
    if len(loops) == 2:
        print("\nA ratio above 1 means that fastloop took less time.")


# Two descriptors for each chat client, in one process.


def chat_clients(wanted):
    """Raise the limit of open files as far as needed; return how many clients fit."""
    needed = 2 * wanted + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        for limits in ((needed, max(hard, needed)), (hard, hard)):
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
                break
            except (ValueError, OSError):
                continue
    return max(1, min(wanted, (file_limit() - SPARE_FILES) // 2))


def file_limit():
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
