"""What a process tells `python -m fastloop top`, over a Unix socket.

It serves from a thread, so that it answers while a loop is blocked. Callbacks are timed
only while somebody looks.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import json
import os
import socket
import stat
import struct
import threading
import time
import warnings
import weakref
from collections import deque
from typing import Any

from . import _loop
from ._version import __version__
from .metrics import Metrics, SlowCallback, snapshot

_SAMPLE_OF = 64  # one in so many callbacks is told, of those that take no millisecond
_LONG = 0.001
_MOST_NAMES = 2000  # in the table of the busiest
_MOST_SLOW = 200
_SHOWN = 20
_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED)
_PAUSE = 0.1
_AGE = 60.0  # seconds that a slow callback is recent for


class _Profile:
    """The busiest and the slowest of a loop, while somebody looks."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.busiest: dict[tuple[str, str, str], list[float]] = {}
        self.slowest: deque[tuple[float, SlowCallback]] = deque(maxlen=_MOST_SLOW)

    def add(self, record: SlowCallback) -> None:
        long = record.wall_seconds >= _LONG
        weight = 1 if long else _SAMPLE_OF
        key = record.kind, record.name, record.source if record.task is None else ""
        with self.lock:
            if long:
                self.slowest.append((time.monotonic(), record))
            row = self.busiest.get(key)
            if row is None:
                if len(self.busiest) >= _MOST_NAMES:
                    return
                row = self.busiest[key] = [0.0, 0.0, 0.0]
            row[0] += weight * record.wall_seconds
            row[1] += weight
            row[2] = max(row[2], record.wall_seconds)

    def take(self) -> dict[str, Any]:
        """Return what came since the last time, and the slowest of late."""
        now = time.monotonic()
        with self.lock:
            busiest, self.busiest = self.busiest, {}
            recent = [(t, r) for t, r in self.slowest if now - t <= _AGE]
        rows = sorted(busiest.items(), key=lambda item: -item[1][0])[:_SHOWN]
        recent.sort(key=lambda item: -item[1].wall_seconds)
        return {
            "busiest": [
                {
                    "kind": kind,
                    "name": name,
                    "source": source,
                    "seconds": seconds,
                    "calls": int(calls),
                    "max_seconds": most,
                }
                for (kind, name, source), (seconds, calls, most) in rows
            ],
            "slowest": [
                {
                    "kind": record.kind,
                    "name": record.name,
                    "source": record.source,
                    "wall_seconds": record.wall_seconds,
                    "cpu_seconds": record.cpu_seconds,
                    "ago_seconds": now - then,
                }
                for then, record in recent[:_SHOWN]
            ],
        }


def rates(now: Metrics, last: Metrics | None) -> dict[str, Any]:
    """Return what an interval between two snapshots was like."""
    if last is None or now.time_ns <= last.time_ns:
        return {}
    seconds = (now.time_ns - last.time_ns) / 1e9
    lag = now.scheduling_lag.since(last.scheduling_lag)
    duration = now.callback_duration.since(last.callback_duration)

    def rate(name: str) -> float:
        more: float = getattr(now, name) - getattr(last, name)
        return more / seconds

    return {
        "seconds": seconds,
        "utilisation": now.utilisation_since(last),
        "iterations_per_second": rate("iterations"),
        "callbacks_per_second": rate("callbacks_run"),
        "events_per_second": rate("poll_events"),
        "timers_per_second": rate("timers_fired"),
        "accepts_per_second": rate("accepts"),
        "bytes_in_per_second": rate("bytes_in"),
        "bytes_out_per_second": rate("bytes_out"),
        "lag_p50_ns": lag.p50_ns,
        "lag_p99_ns": lag.p99_ns,
        "lag_max_ns": lag.max_ns,
        "duration_p50_ns": duration.p50_ns,
        "duration_p99_ns": duration.p99_ns,
        "duration_max_ns": duration.max_ns,
    }


class Agent:
    """Serves what the loops of this process do, at path."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._pid = os.getpid()
        self._loops: weakref.WeakSet[_loop.Loop] = weakref.WeakSet()
        self._profiles: weakref.WeakKeyDictionary[_loop.Loop, _Profile] = (
            weakref.WeakKeyDictionary()
        )
        self._lock = threading.Lock()
        self._clients = 0
        self._sock = _listen(path)
        threading.Thread(target=self._serve, name="fastloop-top", daemon=True).start()

    def add(self, loop: _loop.Loop) -> None:
        """A loop runs."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._loops.add(loop)
            if self._clients > 0:
                self._profile(loop)

    def close(self) -> None:
        """End it; the path goes."""
        if self._pid == os.getpid():
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def _profile(self, loop: _loop.Loop) -> None:
        if loop not in self._profiles:
            profile = self._profiles[loop] = _Profile()
            loop._sampler = profile.add

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._sock.accept()
            except OSError as exc:
                if exc.errno not in _PASSING:
                    return
                time.sleep(_PAUSE)
                continue
            thread = threading.Thread(
                target=self._talk, args=(client,), name="fastloop-top", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # none more just now
                client.close()

    def _talk(self, client: socket.socket) -> None:
        with client:
            if not _is_ours(client):
                return
            with self._lock:
                self._clients += 1
                for loop in self._loops:
                    self._profile(loop)
            try:
                self._tell(client)
            except (OSError, ValueError, TypeError, LookupError, RecursionError):
                pass  # the client has gone, or is none
            finally:
                with self._lock:
                    self._clients -= 1
                    if self._clients == 0:
                        for loop in self._profiles:
                            loop._sampler = None
                        self._profiles.clear()

    def _tell(self, client: socket.socket) -> None:
        client.settimeout(10)
        asked = json.loads(client.makefile("r").readline(1000))
        interval = min(max(float(asked["interval"]), 0.01), 3600.0)
        client.settimeout(60)
        last: weakref.WeakKeyDictionary[_loop.Loop, Metrics] = (
            weakref.WeakKeyDictionary()
        )
        due = time.monotonic()
        while True:
            text = json.dumps(self._record(last))
            client.sendall(text.encode() + b"\n")
            due = max(due + interval, time.monotonic())
            # Whoever goes while nothing is due is noticed then.
            time.sleep(max(0.0, due - time.monotonic()))

    def _record(self, last: Any) -> dict[str, Any]:
        with self._lock:
            loops = [loop for loop in self._loops if not loop.is_closed()]
            profiles = [self._profiles.get(loop) for loop in loops]
        rows = []
        for loop, profile in zip(loops, profiles, strict=True):
            now = snapshot(loop)
            row = {
                "thread_id": loop._thread_id,
                "metrics": now.as_dict(),
                "interval": rates(now, last.get(loop)),
            }
            row.update(profile.take() if profile is not None else {})
            last[loop] = now
            rows.append(row)
        return {"pid": self._pid, "fastloop": __version__, "loops": rows}


def _is_ours(client: socket.socket) -> bool:
    """Whether the other end is the same user, or root; permissions say so, too."""
    size = struct.calcsize("3i")
    found = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    uid: int = struct.unpack("3i", found)[1]
    return uid in (0, os.geteuid())


def _listen(path: str) -> socket.socket:
    """Return a socket that only the owner may connect to; OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.lstat(path).st_mode) and not _is_served(path):
                os.unlink(path)  # left by a process that was killed
        # Nobody can connect before listen(), and then only its owner.
        sock.bind(path)
        os.chmod(path, 0o600)
        sock.listen()
    except BaseException:
        sock.close()
        raise
    return sock


def _is_served(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(5)
        try:
            sock.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
    return True


_agent: Agent | None = None


def start(path: str) -> None:
    """Serve at path, as FASTLOOP_TOP asks for; ``{pid}`` in it is this process."""
    global _agent
    try:
        _agent = Agent(path.replace("{pid}", str(os.getpid())))
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:  # a process that has started this one
            return
        warnings.warn(f"FASTLOOP_TOP={path}: {exc}", RuntimeWarning, stacklevel=2)
        return
    except RuntimeError as exc:
        warnings.warn(f"FASTLOOP_TOP={path}: {exc}", RuntimeWarning, stacklevel=2)
        return
    _loop.run_hooks.append(_agent.add)
    atexit.register(_agent.close)
