"""python -m fastloop top: a live view of the loops of a program."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import IO, Any

_CLEAR = "\x1b[H\x1b[J"
_ENTER = "\x1b[?1049h\x1b[?25l"
_LEAVE = "\x1b[?25h\x1b[?1049l"
_START_SECONDS = 30.0  # for a program to make its first loop

DESCRIPTION = """\
Show what the loops of a program do: utilisation, lag, rates, the busiest tasks and the
slowest recent callbacks.

  python -m fastloop top [options] script.py [args]
      runs a program as `python -m fastloop script.py` does
  python -m fastloop top [options] --attach PATH
      looks at one that was started with FASTLOOP_TOP=PATH in its environment

q or Ctrl-C ends it, and the program that it has started.
"""


def main(arguments: list[str]) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fastloop top",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--attach", metavar="PATH", help="of FASTLOOP_TOP")
    parser.add_argument(
        "--json", action="store_true", help="write a JSON object a line, and no screen"
    )
    parser.add_argument(
        "--interval", type=float, default=1.0, metavar="SECONDS", help="default: 1"
    )
    parser.add_argument("--count", type=int, metavar="N", help="end after N of them")
    parser.add_argument(
        "program", nargs=argparse.REMAINDER, help="script, or -m module, and arguments"
    )
    options = parser.parse_args(arguments)
    if not options.interval > 0:
        parser.error("--interval must be positive")
    if options.count is not None and options.count <= 0:
        parser.error("--count must be positive")
    if (options.attach is None) == (not options.program):
        parser.error("what to look at: a program, or --attach PATH")
    if not options.json and not sys.stdout.isatty():
        parser.error("no terminal to draw on: use --json")
    try:
        if options.attach is not None:
            return _look(options, options.attach, None)
        return _run(options)
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:  # whoever reads --json has enough
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(options: argparse.Namespace) -> int:
    """Start the program, look at it, and end it."""
    with tempfile.TemporaryDirectory(prefix="fastloop-top-") as folder:
        path = os.path.join(folder, "socket")
        output = None if options.json else subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, "-m", "fastloop", *options.program],
            env={**os.environ, "FASTLOOP_TOP": path},
            stdin=None if options.json else subprocess.DEVNULL,
            stdout=sys.stderr if options.json else output,
            stderr=subprocess.STDOUT if output else None,
            text=True,
            errors="replace",
        )
        try:
            status = _look(options, path, process)
        finally:
            _end(process)
    if process.returncode in (-signal.SIGINT, -signal.SIGTERM):
        return status
    return process.returncode or status


def _end(process: subprocess.Popen[str]) -> None:
    ways = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
    for sig in ways:  # pragma: no branch - nobody outlives the last
        if process.poll() is not None:
            return
        process.send_signal(sig)
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.wait(5)


def _look(
    options: argparse.Namespace, path: str, process: subprocess.Popen[str] | None
) -> int:
    """Show records until there are no more."""
    printed = _Tail(process.stdout) if process is not None else None
    try:
        sock = _connect(path, process)
    except OSError as exc:
        print(f"python -m fastloop top: {path}: {exc.strerror or exc}", file=sys.stderr)
        return 1
    if sock is None:  # the program has ended without a loop
        assert printed is not None
        printed.show()
        return 0
    with sock:
        ask = json.dumps({"interval": options.interval})
        sock.sendall(ask.encode() + b"\n")
        records = _records(sock, options.count)
        if options.json:
            for record in records:
                print(json.dumps(record), flush=True)
        else:
            with _screen() as quits:
                for record in records:
                    size = shutil.get_terminal_size()
                    lines = printed.lines() if printed is not None else []
                    text = render(record, size.columns, size.lines, lines)
                    sys.stdout.write(_CLEAR + text)
                    sys.stdout.flush()
                    if quits(sock):
                        break
    if printed is not None and not options.json:
        printed.show()
    return 0


def _connect(path: str, process: subprocess.Popen[str] | None) -> socket.socket | None:
    """Return a connection; None if the program ends before it has a loop."""
    until = time.monotonic() + _START_SECONDS
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(path)
            return sock
        except OSError:
            sock.close()
            if process is None or time.monotonic() > until:
                raise
            if process.poll() is not None:
                return None
        time.sleep(0.02)


def _records(sock: socket.socket, count: int | None) -> Iterator[dict[str, Any]]:
    with sock.makefile("r") as file, contextlib.suppress(ConnectionError):
        for number, line in enumerate(file, 1):
            yield json.loads(line)
            if number == count:
                return


class _Tail:
    """The last lines that the program has written."""

    def __init__(self, file: IO[str] | None) -> None:
        self._lines: deque[str] = deque(maxlen=1000)
        self._thread: threading.Thread | None = None
        if file is not None:
            self._thread = threading.Thread(
                target=self._lines.extend, args=(file,), daemon=True
            )
            self._thread.start()

    def lines(self) -> list[str]:
        return [line.rstrip("\n") for line in list(self._lines)[-5:]]

    def show(self) -> None:
        """Once the screen is gone."""
        if self._thread is not None:
            self._thread.join(1)
        for line in list(self._lines):
            print(line, end="")


@contextlib.contextmanager
def _screen() -> Iterator[Any]:
    """Give a terminal that is drawn on, and takes q; it is as before at the end."""
    import termios
    import tty

    fd = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else -1
    before = termios.tcgetattr(fd) if fd >= 0 else None
    keys = [fd] if fd >= 0 else []

    def quits(sock: socket.socket) -> bool:
        """Wait for the next record; True if q was pressed."""
        while True:
            ready, _, _ = select.select([sock, *keys], [], [])
            if sock in ready:
                return False
            if os.read(fd, 1) in (b"q", b"Q", b""):
                return True

    handler = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sys.stdout.write(_ENTER)
    try:
        if before is not None:
            tty.setcbreak(fd)
        yield quits
    finally:
        if before is not None:
            termios.tcsetattr(fd, termios.TCSADRAIN, before)
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        signal.signal(signal.SIGTERM, handler)


# -- drawing -------------------------------------------------------------------------


def render(record: dict[str, Any], width: int, height: int, printed: list[str]) -> str:
    """Return the screen for a record."""
    lines = [f"fastloop {record['fastloop']}, process {record['pid']}", ""]
    loops = record["loops"]
    if not loops:
        lines.append("no loop runs")
    # The busiest first, and each less room.
    loops = sorted(loops, key=_utilisation, reverse=True)
    bottom = [*(["", "-- output"] if printed else []), *printed]
    room = height - len(bottom) - 1
    for loop in loops:
        left = room - len(lines)
        if left < 6:
            lines.append(f"… {len(loops) - loops.index(loop)} more loops")
            break
        lines += _loop_lines(loop, width, left)
    shown = [_plain(line)[:width] for line in lines[:room] + bottom]
    return "\n".join(shown)


def _utilisation(loop: dict[str, Any]) -> float:
    share: float = loop["interval"].get("utilisation", 0.0)
    return share


def _loop_lines(loop: dict[str, Any], width: int, room: int) -> list[str]:
    metrics, interval = loop["metrics"], loop["interval"]
    share = interval.get("utilisation", metrics["utilisation"])
    bar = "#" * round(share * 20)
    traffic = metrics["traffic"]
    is_open = sum(row["open"] for kind, row in traffic.items() if kind != "tls")
    get = interval.get
    lines = [
        f"busy {share:6.1%} [{bar:<20}]   lag p50 {_time(get('lag_p50_ns', 0) / 1e9)}"
        f"  p99 {_time(get('lag_p99_ns', 0) / 1e9)}"
        f"  max {_time(get('lag_max_ns', 0) / 1e9)}",
        f"callbacks {_rate(get('callbacks_per_second', 0))}"
        f"   events {_rate(get('events_per_second', 0))}"
        f"   timers {_rate(get('timers_per_second', 0))}"
        f"   turns {_rate(get('iterations_per_second', 0))}",
        f"in {_size(get('bytes_in_per_second', 0))}/s"
        f"   out {_size(get('bytes_out_per_second', 0))}/s"
        f"   accepts {_rate(get('accepts_per_second', 0))}"
        f"   open {is_open}   servers {metrics['servers_open']}",
        f"ready {metrics['ready_now']} (peak {metrics['ready_peak']})"
        f"   timers {metrics['timers_pending']}"
        f"   jobs waiting {metrics['executor_queue']}"
        f"   threads {metrics['executor_threads']}",
    ]
    tables = max(0, room - len(lines) - 5) // 2
    seconds = get("seconds", 1.0)
    lines += ["", f"{'BUSIEST':<52} {'TIME':>6} {'CALLS':>9} {'MAX':>9}"]
    lines += [
        f"{_name(row):<52.52} {row['seconds'] / seconds:6.1%} "
        f"{row['calls']:>9,} {_time(row['max_seconds']):>9}"
        for row in loop.get("busiest", [])[:tables]
    ]
    lines += [
        "",
        f"{'SLOWEST OF THE LAST MINUTE':<52} {'WALL':>9} {'CPU':>9} {'AGO':>5}",
    ]
    lines += [
        f"{_name(row):<52.52} {_time(row['wall_seconds']):>9} "
        f"{_time(row['cpu_seconds']):>9} {row['ago_seconds']:4.0f}s"
        for row in loop.get("slowest", [])[:tables]
    ]
    return [*lines, ""]


def _name(row: dict[str, Any]) -> str:
    file, _, line = row["source"].rpartition(":")
    at = f" {os.path.basename(file)}:{line}" if file else ""
    return f"{row['kind']} {row['name']}{at}"


def _plain(text: str) -> str:
    """Return text without what a terminal would obey to."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _time(seconds: float) -> str:
    for limit, unit in ((1e-3, "us"), (1.0, "ms")):
        if seconds < limit:
            return f"{seconds / limit * 1000:.1f} {unit}"
    return f"{seconds:.2f} s"


def _rate(number: float) -> str:
    return f"{number:,.0f}/s"


def _size(number: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:,.0f} {unit}"
        number /= 1024
    return f"{number:,.1f} GiB"
