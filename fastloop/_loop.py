"""The event loop: a native core over asyncio's own code.

What runs once per callback, timer, packet or connection is ``_core.Loop``'s, in C.
What runs once per loop, server or connection attempt is ``asyncio.BaseEventLoop``'s,
so that keywords, checks and messages are exactly those of the running Python.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import warnings
from asyncio import events
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVarTuple

from . import _core
from ._base import BaseLoop
from ._dns import DnsMixin
from ._streams import StreamReader
from ._subprocess import SubprocessMixin
from ._tls import TlsMixin
from ._transports import TransportMixin
from ._unix import UnixMixin

if TYPE_CHECKING:
    from .metrics import Metrics

_Args = TypeVarTuple("_Args")
_tasks: Any = asyncio.tasks

_core.use_reader(StreamReader)


class _NoSelector:
    """What stands for asyncio's selector, and leaves the attribute to the program."""

    def __get__(self, loop: object, cls: type) -> NoReturn:
        raise AttributeError(
            "fastloop's loop has no _selector; "
            "run_once() takes a turn, also within a callback"
        )


class Loop(
    _core.Loop,
    DnsMixin,
    SubprocessMixin,
    TlsMixin,
    TransportMixin,
    UnixMixin,
    BaseLoop,
):
    """An asyncio event loop on native I/O.

    It has every method of ``asyncio.SelectorEventLoop`` on this Python, with the same
    keywords, errors and messages.
    """

    _selector = _NoSelector()
    _ssock: socket.socket | None = None
    _csock: socket.socket | None = None
    _pair_files: tuple[os.stat_result, os.stat_result]
    _outer_wakeup_fd: int = -1
    _outer_file: os.stat_result | None = None

    def __init__(self) -> None:
        super().__init__()
        self._signal_handlers: dict[int, asyncio.Handle] = {}
        self._unix_server_sockets = {}
        self._pidfds = {}
        self._watcher_init()

    # -- running ---------------------------------------------------------------------

    def run_forever(self) -> None:
        """Run until stop() is called."""
        self._check_closed()
        self._check_running()
        try:
            self._run_forever_setup()
            self._run()
        finally:
            try:
                self._run_forever_cleanup()
            finally:
                self._ended()

    def _check_running(self) -> None:
        running = events._get_running_loop()
        if isinstance(running, Loop) and not running.is_running():
            # Memory was out when its run ended.
            events._set_running_loop(None)  # pragma: no cover - a tracer takes memory
        super()._check_running()

    # What the native code asks for when it is needed first. An import of its own would
    # be seen by none of the tools that make a program one file.

    def _make_default_executor(self) -> Any:
        from ._executor import make

        return make()

    def _callback_was_slow(self, *measured: Any) -> None:
        from ._slow import report

        report(self, *measured)

    def _callback_was_sampled(self, *measured: Any) -> None:
        from ._slow import sample

        sample(self, *measured)

    def run_once(self, timeout: float | None = None) -> None:
        """Take one turn: wait for something to do, and do it.

        timeout bounds the wait, in seconds: None does not, 0 (or less) does not wait.
        Callbacks that are ready, or stop(), end the wait before it begins. What they
        schedule is for the next turn.

        A callback or a task may call this for the loop that runs it. RuntimeError if
        the loop is closed, runs in another thread, or if another loop runs in this one.
        """
        if events._get_running_loop() is self and self.is_running():
            self._run_once_within(timeout)
            return
        self._check_closed()
        self._check_running()
        try:
            self._run_forever_setup()
            self._run_once(timeout)
        finally:
            try:
                self._run_forever_cleanup()
            finally:
                self._ended()

    def _run_once_within(self, timeout: float | None) -> None:
        """Take a turn within a callback; no other task may run inside of a task."""
        task = asyncio.current_task(self)
        if task is None:
            self._run_once(timeout)
            return
        _tasks._leave_task(self, task)
        try:
            self._run_once(timeout)
        finally:
            _tasks._enter_task(self, task)

    def _run_forever_setup(self) -> None:
        if _BASE_HAS_SETUP:
            super()._run_forever_setup()
        else:
            self._set_coroutine_origin_tracking(self._debug)
            self._old_agen_hooks = sys.get_asyncgen_hooks()
            self._thread_id = threading.get_ident()
            sys.set_asyncgen_hooks(
                firstiter=self._asyncgen_firstiter_hook,
                finalizer=self._asyncgen_finalizer_hook,
            )
            events._set_running_loop(self)
        self._wakeup_install()
        for hook in run_hooks:
            hook(self)

    def _run_forever_cleanup(self) -> None:
        try:
            self._wakeup_uninstall()
        finally:
            if _BASE_HAS_SETUP:
                super()._run_forever_cleanup()
            else:
                self._stopping = False
                self._thread_id = None
                events._set_running_loop(None)
                self._set_coroutine_origin_tracking(False)
                hooks = self.__dict__.pop("_old_agen_hooks", None)
                if hooks is not None:
                    sys.set_asyncgen_hooks(*hooks)

    def close(self) -> None:
        """Close the loop: drop what is scheduled, close its descriptors."""
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        if self.is_closed():
            return
        handlers = list(self._signal_handlers)
        super().close()
        try:
            if not sys.is_finalizing():
                for sig in handlers:
                    self.remove_signal_handler(sig)
            elif handlers:  # pragma: no cover - coverage.py has ended by then
                warnings.warn(
                    f"Closing the loop {self!r} on interpreter shutdown stage, "
                    "skipping signal handlers removal",
                    ResourceWarning,
                    stacklevel=1,
                    source=self,
                )
                self._signal_handlers.clear()
        finally:
            self._close_pidfds()
            self._release()
            self._wakeup_close()

    def __del__(self) -> None:
        self._show_handles()
        super().__del__()

    # -- what it does ----------------------------------------------------------------

    _metrics_mark = (0, 0)

    def metrics(self) -> Metrics:
        """Return what the loop has counted, a fastloop.metrics.Metrics.

        utilisation is since the last call. May be called from any thread.
        """
        from .metrics import snapshot

        metrics = snapshot(self, self._metrics_mark)
        self._metrics_mark = (metrics.busy_ns, metrics.idle_ns)
        return metrics

    # -- signals ---------------------------------------------------------------------

    def _wakeup_pair(self) -> None:
        """Make the socket pair that signal.set_wakeup_fd() writes to."""
        if self._csock is not None:
            return
        ssock, csock = socket.socketpair()
        ssock.setblocking(False)
        csock.setblocking(False)
        self._pair_files = os.fstat(ssock.fileno()), os.fstat(csock.fileno())
        self._watch_wakeup_fd(ssock.fileno())
        self._ssock, self._csock = ssock, csock

    def _wakeup_close(self) -> None:
        ssock, csock = self._ssock, self._csock
        self._ssock = self._csock = None
        if ssock is not None:
            _close_if_it_is(ssock, self._pair_files[0])
        if csock is not None:
            _wakeup_fds.discard(csock.fileno())
            _close_if_it_is(csock, self._pair_files[1])

    def _wakeup_install(self) -> None:
        """While the loop runs in the main thread, signals wake it up."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._wakeup_pair()
        assert self._csock is not None
        try:
            outer = signal.set_wakeup_fd(
                self._csock.fileno(), warn_on_full_buffer=False
            )
        except ValueError:  # pragma: no cover - coverage.py is of the main interpreter
            return  # the main thread of a subinterpreter
        _wakeup_fds.add(self._csock.fileno())
        if outer != self._csock.fileno():
            self._outer_wakeup_fd = outer
            self._outer_file = None if outer == -1 else _file_of(outer)

    def _wakeup_uninstall(self) -> None:
        if self._csock is None or (
            threading.current_thread() is not threading.main_thread()
        ):
            return
        if self._signal_handlers:
            return  # a signal between two runs is for the next run, as in asyncio
        outer, self._outer_wakeup_fd = self._outer(), -1
        # Not in a subinterpreter, nor for a descriptor that was closed meanwhile.
        with contextlib.suppress(ValueError, OSError):
            fd = signal.set_wakeup_fd(outer)
            if fd != self._csock.fileno():
                signal.set_wakeup_fd(fd)  # a callback has set another

    def _outer(self) -> int:
        """Return the wake-up descriptor that was there before ours, or -1.

        Whoever set it may have closed it, and the number be another file's by now.
        """
        outer = self._outer_wakeup_fd
        if outer != -1 and not _is_open_on(outer, self._outer_file):
            outer = self._outer_wakeup_fd = -1
        return outer

    def _process_self_data(self, data: bytes) -> None:
        outer = self._outer()
        if outer != -1:
            # Whoever set the wake-up descriptor before us is owed the numbers, too.
            with contextlib.suppress(OSError):
                os.write(outer, data)
        super()._process_self_data(data)

    def add_signal_handler(
        self,
        sig: int,
        callback: Callable[[*_Args], object],
        *args: *_Args,
    ) -> None:
        """Call callback(*args) in the loop when the signal arrives."""
        if not self.is_closed():
            self._wakeup_pair()
        super().add_signal_handler(sig, callback, *args)

    def remove_signal_handler(self, sig: int) -> bool:
        """Return True if there was a handler, which is gone now."""
        removed: bool = super().remove_signal_handler(sig)
        running = events._get_running_loop()
        if removed and not self._signal_handlers and isinstance(running, Loop):
            running._wakeup_put_back(self)
        return removed

    def _wakeup_put_back(self, loop: Loop) -> None:
        """asyncio's code has just taken the wake-up descriptor down for loop."""
        before = self if self._outer_wakeup_fd != _fileno(loop._csock) else loop
        outer, file = before._outer_wakeup_fd, before._outer_file
        self._wakeup_install()
        self._outer_wakeup_fd, self._outer_file = outer, file


def _fileno(sock: socket.socket | None) -> int:
    return -1 if sock is None else sock.fileno()


def _file_of(fd: int) -> os.stat_result | None:
    try:
        return os.fstat(fd)
    except OSError:
        return None


def _is_open_on(fd: int, file: os.stat_result | None) -> bool:
    found = _file_of(fd)
    if found is None or file is None:
        return False
    return os.path.samestat(found, file)


def _close_if_it_is(sock: socket.socket, file: os.stat_result) -> None:
    """Close sock, unless its number is another file's by now, or nobody's."""
    if _is_open_on(sock.fileno(), file):
        sock.close()
    else:
        sock.detach()


_wakeup_fds: set[int] = set()


def _after_fork_in_child() -> None:
    """A child's signals are not for the parent's loop."""
    if not _wakeup_fds:
        return
    with contextlib.suppress(ValueError, OSError):
        fd = signal.set_wakeup_fd(-1)
        if fd not in _wakeup_fds and fd != -1:
            signal.set_wakeup_fd(fd)
    _wakeup_fds.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)

_BASE_HAS_SETUP = hasattr(asyncio.BaseEventLoop, "_run_forever_setup")

run_hooks: list[Callable[[Loop], None]] = []
"""Called with each loop that runs, if somebody asked for that: _watchdog, _agent."""

if os.environ.get("FASTLOOP_WATCHDOG"):
    from ._watchdog import from_environment

    from_environment(os.environ["FASTLOOP_WATCHDOG"])
if os.environ.get("FASTLOOP_TOP"):
    from ._agent import start

    start(os.environ["FASTLOOP_TOP"])
