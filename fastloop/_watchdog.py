"""The watchdog: says what blocks a loop, while it does.

A thread for each loop that is watched serves ``_core.Watch``, which needs no GIL to
notice. See csrc/core/watchdog.c for how a stack is shown when C code holds the GIL.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import re
import signal
import sys
import threading
import traceback
import types
import warnings
import weakref
from asyncio import events
from asyncio.log import logger
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from . import _core, _loop
from ._slow import name_of_task  # not when it is needed: files may be out by then

_JOIN_SECONDS = 1.0  # at the interpreter's end, for a hook that does not return


@dataclass(frozen=True, slots=True)
class Block:
    """What a watchdog reports: a loop that has not come back for too long.

    The first report has over false and comes while the loop is blocked; the second, of
    the same incident, has over true and the duration of the whole, right by a fourth of
    the threshold.
    """

    over: bool
    seconds: float
    """How long the loop has been blocked so far; when it is over, the whole."""
    name: str
    """The task that runs, or the function that the loop has called."""
    source: str
    """"file:line" of where the thread is; empty where that cannot be told."""
    stack: tuple[traceback.FrameSummary, ...] = field(repr=False)
    """The frames of the loop's thread, the outermost first; of both reports those that
    were there when the block was noticed."""
    gil_was_held: bool
    """C code held the GIL all the time: the report comes late, and what could be had
    without the GIL was written to stderr in time."""
    thread_id: int
    task: asyncio.Task[Any] | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        at = f" at {self.source}" if self.source else ""
        if self.over:
            return f"Loop was blocked for {self.seconds:.3f} s by {self.name}{at}"
        text = f"Loop is blocked for {self.seconds:.3f} s by now, by {self.name}{at}"
        if self.stack:
            lines = "".join(traceback.format_list(list(self.stack))).rstrip()
            text += f"\nStack (most recent call last):\n{lines}"
        return text


_Hook = Callable[[Block], object]


class Watchdog:
    """What watchdog() returns. A context manager, too: it stops at the end."""

    def __init__(self, threshold: float, on_block: _Hook | None) -> None:
        if on_block is not None and not callable(on_block):
            raise TypeError(f"on_block must be callable or None, not {on_block!r}")
        if not 0.001 <= threshold <= 1e6:  # also what is not a number
            raise ValueError("threshold must be from 0.001 to 1,000,000 seconds")
        self._threshold = threshold
        self._on_block = on_block
        self._guards: weakref.WeakKeyDictionary[_loop.Loop, _Guard] = (
            weakref.WeakKeyDictionary()
        )
        self._stopped = False

    @property
    def threshold(self) -> float:
        """How long a loop may be away, in seconds."""
        return self._threshold

    def watch(self, loop: _loop.Loop) -> None:
        """Watch another loop, too. Nothing happens if it is watched by this already."""
        if self._stopped or (
            (guard := self._guards.get(loop)) is not None and guard.is_alive()
        ):
            return
        self._guards[loop] = _Guard(loop, self._threshold, self._on_block)

    def _watch_if_possible(self, loop: _loop.Loop) -> None:
        try:
            self.watch(loop)
        except RuntimeError as exc:  # no thread more, or no more threads at the end
            logger.warning("No watchdog for %r: %s", loop, exc)

    def stop(self) -> None:
        """End it. A report that is on its way may still come."""
        global _everywhere
        self._stopped = True
        if _everywhere is self:
            _everywhere = None
            _loop.run_hooks.remove(self._watch_if_possible)
        for guard in list(self._guards.values()):
            guard.stop()

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def watchdog(
    threshold: float = 0.5,
    on_block: _Hook | None = None,
    *,
    loop: _loop.Loop | None = None,
) -> Watchdog:
    """Report when a loop does not come back for threshold seconds, while that is so.

    Each incident is logged as a warning of the logger ``asyncio`` when it is noticed,
    and again when it is over; on_block(block) is called with a Block both times, in the
    watchdog's thread. What blocks the loop is told with its Python stack, also if it is
    C code that holds the GIL: then on stderr at first.

    loop is what to watch; None is the loop that runs in this thread, or, where none
    runs, each loop of fastloop that runs from now on. ``FASTLOOP_WATCHDOG=0.5`` in the
    environment does that for a whole program. stop() of what is returned ends it, and
    so does closing the loop.

    ValueError if threshold is below 1 ms; TypeError if loop is not one of fastloop's.
    """
    global _everywhere
    running = loop if loop is not None else events._get_running_loop()
    found = Watchdog(threshold, on_block)
    if running is None:
        if _everywhere is not None:
            _everywhere.stop()
        _everywhere = found
        _loop.run_hooks.append(found._watch_if_possible)
    elif not isinstance(running, _loop.Loop):
        raise TypeError(f"a loop of fastloop was expected, not {running!r}")
    else:
        found.watch(running)
    return found


_everywhere: Watchdog | None = None
_guards: weakref.WeakSet[_Guard] = weakref.WeakSet()


def from_environment(value: str) -> None:
    """Watch every loop, as FASTLOOP_WATCHDOG asks for."""
    try:
        watchdog(float(value))
    except ValueError:
        warnings.warn(
            f"FASTLOOP_WATCHDOG must be a number of seconds, not {value!r}",
            RuntimeWarning,
            stacklevel=2,
        )


class _Guard:
    """The thread that watches one loop."""

    def __init__(
        self, loop: _loop.Loop, threshold: float, on_block: _Hook | None
    ) -> None:
        self._watch = _core.Watch(loop, threshold)
        self._loop = weakref.ref(loop)
        self._on_block = on_block
        self._pid = os.getpid()
        _take_dumper(self._watch)
        keywords: dict[str, Any] = {"target": self._run, "name": "fastloop-watchdog"}
        try:
            self._thread = threading.Thread(**keywords, daemon=True)
            self._thread.start()
        except RuntimeError:  # this subinterpreter has no daemons
            self._thread = threading.Thread(**keywords, daemon=False)
            self._thread.start()
            _stop_before_threads_are_joined()
        _guards.add(self)

    def is_alive(self) -> bool:
        return self._thread.is_alive() and self._pid == os.getpid()

    def stop(self) -> None:
        self._watch.stop()

    def join(self) -> None:
        if self._thread is not threading.current_thread() and self.is_alive():
            self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        noticed: Block | None = None
        while (news := self._watch.wait()) is not None:
            what, seconds = news
            if what == "blocked":
                block = noticed = self._gather(seconds)
            else:
                assert noticed is not None  # there is no end of what was not told of
                block = replace(noticed, over=True, seconds=seconds)
                noticed = None
            self._tell(block)
            del block

    def _tell(self, block: Block) -> None:
        try:
            logger.warning("%s", block)
            if self._on_block is not None:
                self._on_block(block)
        except Exception:
            logger.error("Exception in on_block", exc_info=True)

    def _gather(self, seconds: float) -> Block:
        """Return the report of what goes on just now."""
        loop = self._loop()
        thread_id = (loop._thread_id if loop is not None else None) or 0
        frame = _frame(self._watch, thread_id)
        dumped = self._watch.gathered()
        task = None
        if dumped is not None:  # by now the thread may be elsewhere
            stack = parse_dump(dumped, thread_id)
        else:
            stack = traceback.StackSummary.extract(traceback.walk_stack(frame))
            stack.reverse()
            with contextlib.suppress(RuntimeError):
                task = asyncio.current_task(loop) if loop is not None else None
        del frame
        name, source = _name_of(task, stack)
        return Block(
            False,
            seconds,
            name,
            source,
            tuple(stack),
            dumped is not None,
            thread_id,
            task,
        )


def _frame(watch: _core.Watch, thread_id: int) -> types.FrameType | None:
    try:
        return watch.frame()
    except NotImplementedError:  # pragma: no cover - without a GIL
        return sys._current_frames().get(thread_id)


def _name_of(
    task: asyncio.Task[Any] | None, stack: list[traceback.FrameSummary]
) -> tuple[str, str]:
    """Return (name, source) for what is at the top of a stack."""
    if not stack:
        return "something that cannot be told", ""
    source = f"{stack[-1].filename}:{stack[-1].lineno}"
    if task is not None:
        return f"task {name_of_task(task)}", source
    if stack[-1].filename == _loop.__file__:
        return "a callback that is not Python code", ""
    # What the loop called, and not what that called in turn.
    for outer, frame in zip(stack[::-1][1:], stack[::-1], strict=False):
        if outer.filename == _loop.__file__:
            return frame.name, source
    return stack[-1].name, source


_DUMPED = re.compile(r'  File "(.*)", line (\d+) in (.*)')


def parse_dump(text: str, thread_id: int) -> list[traceback.FrameSummary]:
    """Return the frames of a thread out of what faulthandler has written."""
    stack: list[traceback.FrameSummary] = []
    ours = False
    for line in text.splitlines():
        if found := re.match(r"(?:Current t|T)hread 0x([0-9a-f]+)", line):
            ours = int(found[1], 16) == thread_id
        elif ours and (found := _DUMPED.match(line)):
            stack.append(
                traceback.FrameSummary(
                    found[1], int(found[2]), found[3], lookup_line=False
                )
            )
    stack.reverse()
    return stack


# -- stacks without the GIL ----------------------------------------------------------

_dumper: tuple[int, int] | None = None  # signal, descriptor; of this process
_dumper_lock = threading.Lock()


def _take_dumper(watch: _core.Watch) -> None:
    """Give watch faulthandler's way to show stacks, if it can be had.

    Its handlers belong to the process, and show the interpreter that has made them: the
    main one's is taken. Without a GIL nobody can hold it.
    """
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return  # pragma: no cover - without a GIL
    if threading.main_thread().ident is None or not _is_main_interpreter():
        return  # pragma: no cover - coverage.py is of the main interpreter
    import faulthandler

    global _dumper
    with _dumper_lock:
        if _dumper is None:
            try:
                fd = watch.memory_file()
            except OSError:  # no descriptor is left: it watches without
                return
            # A signal that nobody uses, which is not sent, either: its handler is a
            # function that is called.
            for signum in range(signal.SIGRTMAX - 1, signal.SIGRTMIN, -1):
                if signal.getsignal(signum) == signal.SIG_DFL:
                    _dumper = signum, fd
                    break
            else:
                os.close(fd)
                return
        signum, fd = _dumper
        faulthandler.unregister(signum)
        faulthandler.register(signum, file=fd, all_threads=True, chain=False)
        watch.take_dumper(signum, fd)


def _is_main_interpreter() -> bool:
    try:
        import _interpreters  # type: ignore[import-not-found]
    except ImportError:
        try:
            import _xxsubinterpreters as _interpreters  # type: ignore[import-not-found]
        except ImportError:  # pragma: no cover - a Python with neither
            return True
    current = _interpreters.get_current()
    number = current[0] if isinstance(current, tuple) else current
    return int(number) == 0


# -- the ends of interpreters and processes ------------------------------------------


@atexit.register
def _stop_all() -> None:
    if _everywhere is not None:
        _everywhere.stop()
    guards = list(_guards)
    for guard in guards:
        guard.stop()
    for guard in guards:
        guard.join()


def _stop_before_threads_are_joined() -> None:
    """An interpreter waits for threads that are no daemons before atexit's turn."""
    register = getattr(threading, "_register_atexit", None)
    if register is not None:  # pragma: no branch - private, and there up to 3.15
        register(_stop_all)
