"""Subprocesses: asyncio's transport over subprocess.Popen, exits by pidfd.

Python's own Popen runs the child, so every keyword works and a large parent does not
slow it down. A pidfd becomes readable when the child has exited: no signal handler, no
thread, any loop in any thread, and no child watcher of the policy has to be attached. A
child watcher that the program chose, where Python has them, is asked all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from asyncio import events, unix_events
from asyncio.log import logger
from asyncio.subprocess import SubprocessStreamProtocol
from typing import Any

from ._base import MixinBase
from ._core import adopt_reader

_REAPED_ELSEWHERE = 255
"""The exit status of a child that somebody else waited for, as in asyncio."""


_Unix: Any = unix_events
_UNIX_LOOP: Any = _Unix._UnixSelectorEventLoop
_events: Any = events

_LOOPS_HAVE_WATCHERS = not hasattr(unix_events, "AbstractChildWatcher")
"""Since Python 3.14, where policies have none any more."""

_TURNS = 0 if sys.version_info >= (3, 14) else 1 if sys.version_info >= (3, 12) else 2
"""How many turns asyncio lets go by between the exit and process_exited()'s scheduling,
so that what the child wrote last is read before it."""

_NO_MEMORY_WAIT = 0.01
"""Seconds until a thread that waits for a child tries again to tell of its end."""

_THREADED: tuple[Any, ...] = ()
if _LOOPS_HAVE_WATCHERS:
    _THREADED = (_Unix._ThreadedChildWatcher,)


class SubprocessMixin(MixinBase):
    """The hook that BaseEventLoop.subprocess_exec() and subprocess_shell() call."""

    _pidfds: dict[int, asyncio.Handle | None]
    _add_reader: Any  # native
    _remove_reader: Any  # native
    _watches: Any  # native
    _pipe_transport: Any  # native
    _watcher: Any = None
    _child_watcher_callback = _UNIX_LOOP._child_watcher_callback

    def _watcher_init(self) -> None:
        if _LOOPS_HAVE_WATCHERS:
            pidfd = _Unix.can_use_pidfd()
            self._watcher = (
                _Unix._PidfdChildWatcher() if pidfd else _Unix._ThreadedChildWatcher()
            )

    async def _make_subprocess_transport(
        self,
        protocol: asyncio.BaseProtocol,
        args: Any,
        shell: bool,
        stdin: Any,
        stdout: Any,
        stderr: Any,
        bufsize: int,
        extra: Any = None,
        **kwargs: Any,
    ) -> asyncio.SubprocessTransport:
        if _watcher_of_program() is not None:
            return await _UNIX_LOOP._make_subprocess_transport(  # type: ignore[no-any-return]
                self,
                protocol,
                args,
                shell,
                stdin,
                stdout,
                stderr,
                bufsize,
                extra=extra,
                **kwargs,
            )
        waiter = self.create_future()
        transport: Any = unix_events._UnixSubprocessTransport(  # type: ignore[attr-defined]
            self,
            protocol,
            args,
            shell,
            stdin,
            stdout,
            stderr,
            bufsize,
            waiter=waiter,
            extra=extra,
            **kwargs,
        )
        try:
            self._watch_child(transport)
        except BaseException:
            transport.close()  # kills it: nobody would hear of its end
            pid = transport.get_pid()
            status, left = _exit_status(transport._proc, pid)
            transport._process_exited(status)
            if left:
                _reap(pid)
            raise
        try:
            await waiter
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            transport.close()
            if not waiter.cancelled():
                self._give_up_pipes(transport)
            end = transport._wait()
            await (asyncio.shield(end) if _LOOPS_HAVE_WATCHERS else end)
            raise
        if not self.get_debug() and type(protocol) is SubprocessStreamProtocol:
            adopt_reader(protocol.stdout)
            adopt_reader(protocol.stderr)
        return transport  # type: ignore[no-any-return]

    def _watch_child(self, transport: Any) -> None:
        pid = transport.get_pid()
        pidfd = -1
        try:
            if isinstance(self._watcher, _THREADED):  # pragma: no cover - since 3.14
                raise OSError  # this system has no pidfds, says asyncio
            pidfd = os.pidfd_open(pid)
            self._pidfds[pidfd] = None
            waits = [None] * (1 + _TURNS)
            self._pidfds[pidfd] = self._add_reader(
                pidfd, self._child_exited, transport, pidfd, waits
            )
        except (AttributeError, OSError, RuntimeError):
            # An old kernel, a sandbox, no descriptor left, a child already reaped, or a
            # number that a transport has whose descriptor the program closed.
            self._drop_pidfd(pidfd)
            if _LOOPS_HAVE_WATCHERS:
                if not isinstance(self._watcher, _THREADED):
                    self._watcher = _Unix._ThreadedChildWatcher()
                self._watcher.add_child_handler(
                    pid, self._child_watcher_callback, transport
                )
                return
            threading.Thread(
                target=self._wait_for_child,
                args=(transport, pid),
                name=f"waitpid-{pid}",
                daemon=True,
            ).start()
        except BaseException:
            self._drop_pidfd(pidfd)
            raise

    def _drop_pidfd(self, pidfd: int) -> None:
        """Close one that nobody watches."""
        self._pidfds.pop(pidfd, None)
        if pidfd != -1:
            os.close(pidfd)

    def _child_exited(
        self, transport: Any, pidfd: int, waits: list[int | None]
    ) -> None:
        """Tell transport of the end of its child, some turns later.

        The pidfd stays ready until transport has the status, which waits[0] keeps:
        where memory runs out on the way, this is reported and tried again next turn.
        """
        if len(waits) > 1:
            waits.pop()
            return
        try:
            if waits[0] is None:
                pid = transport.get_pid()
                fd = pidfd if self._has_pidfd(pidfd) else -1
                waits[0], left = _exit_status(transport._proc, pid, fd)
                if left:
                    _reap(pid)
            transport._process_exited(waits[0])
        except BaseException as exc:
            lasts = isinstance(exc, Exception) and not isinstance(exc, MemoryError)
            if lasts or transport._returncode is not None:
                self._forget_pidfd(pidfd)
            raise
        self._forget_pidfd(pidfd)

    def _wait_for_child(self, transport: Any, pid: int) -> None:
        """Wait in a thread of its own, where there are no pidfds."""
        status = None
        while True:
            try:
                if status is None:  # pragma: no branch - again where memory was out
                    status, left = _exit_status(transport._proc, pid)
                    if left:
                        _reap(pid)
                self._child_watcher_callback(pid, status, transport)
            except MemoryError:  # pragma: no cover - a tracer takes memory, too
                time.sleep(_NO_MEMORY_WAIT)
                continue
            except RuntimeError:
                logger.warning("Loop %r that handles pid %r is closed", self, pid)
            return

    def _give_up_pipes(self, transport: Any) -> None:
        """Have transport end with its process: its pipes could not be connected.

        Up to Python 3.13 it waits for the end of pipes that it never had, and keeps
        what it has to tell until they are connected.
        """
        if hasattr(transport, "_pipes_connected"):
            return  # pragma: no cover - since Python 3.14
        process = transport._proc
        for fd, stream in enumerate((process.stdin, process.stdout, process.stderr)):
            if stream is None or transport._pipes.get(fd) is not None:
                continue
            transport._pipes.pop(fd, None)
            made = self._pipe_transport(stream)
            if made is None:
                stream.close()
            else:  # memory ran out before transport had it
                made.set_protocol(asyncio.Protocol())
                made.close()
        # Its own was told nothing.
        transport.set_protocol(asyncio.SubprocessProtocol())
        transport._pending_calls = None

    def _has_pidfd(self, pidfd: int) -> bool:
        """Whether the number is still the file that it was when it was opened.

        The program may have closed it, as daemons close all descriptors, and the
        number be a stranger's by now.
        """
        handle = self._pidfds.get(pidfd)
        return (
            handle is not None
            and not handle.cancelled()  # as it is where another reader took its place
            and self._watches(pidfd)
        )

    def _forget_pidfd(self, pidfd: int) -> None:
        ours = self._has_pidfd(pidfd)
        handle = self._pidfds.pop(pidfd, None)
        if handle is not None and not handle.cancelled():
            self._remove_reader(pidfd)
        if ours:
            os.close(pidfd)

    def _close_pidfds(self) -> None:
        for pidfd in list(self._pidfds):
            with contextlib.suppress(OSError):
                self._forget_pidfd(pidfd)


def _watcher_of_program() -> Any:
    """Return the child watcher that the program chose, up to Python 3.13, or None.

    Those that asyncio comes with and that do as we do are none of a program's choice.
    """
    if _LOOPS_HAVE_WATCHERS:
        return None
    watcher = getattr(_events._event_loop_policy, "_watcher", None)
    own = (_Unix.PidfdChildWatcher, _Unix.ThreadedChildWatcher)
    return None if type(watcher) in own else watcher


_P_PIDFD = getattr(os, "P_PIDFD", 3)


def _wait(pid: int, pidfd: int) -> os.waitid_result | None:
    """Wait for the end of a child, by its pidfd if there is one, and leave it there.

    None where a sandbox lets nobody do so. The number is another child's where
    somebody has reaped the one that is meant.
    """
    options = os.WEXITED | os.WNOWAIT
    if pidfd != -1:
        try:
            return os.waitid(_P_PIDFD, pidfd, options)
        except ChildProcessError:
            raise
        except OSError:
            pass  # Linux 5.3 and sandboxes have pidfds, but do not wait for them
    try:
        return os.waitid(os.P_PID, pid, options)
    except ChildProcessError:
        raise
    except OSError:
        return None


def _exit_status(process: Any, pid: int, pidfd: int = -1) -> tuple[int, bool]:
    """Return the exit status of a child, negative for a signal; waits for its end.

    And whether the child is still to be reaped: waitpid() would take its status from
    the kernel before it makes the objects that it returns, and without memory nobody
    had it then. Until it is reaped, its number is nobody else's.
    """
    try:
        end = _wait(pid, pidfd)
        if end is None:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), False
    except ChildProcessError:
        if process is not None and process.returncode is not None:
            return int(process.returncode), False  # by Popen.poll() or send_signal()
        logger.warning(
            "child process pid %d exit status already read: "
            " will report returncode 255",
            pid,
        )
        return _REAPED_ELSEWHERE, False
    return end.si_status if end.si_code == os.CLD_EXITED else -end.si_status, True


def _reap(pid: int) -> None:
    """Let go of a child whose status is known."""
    # Somebody else did, or the objects could not be made afterwards. Not suppress(),
    # which is an object itself.
    try:  # noqa: SIM105
        os.waitpid(pid, os.WNOHANG)
    except (ChildProcessError, MemoryError):
        pass
