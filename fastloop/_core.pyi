"""Types of the native half; what asyncio's classes declare is as they declare it."""

import asyncio
from collections.abc import Callable
from socket import socket
from types import FrameType
from typing import Any, final

from typing_extensions import disjoint_base

from .metrics import SlowCallback

def libuv_version() -> str:
    """Return the version of libuv in use, as '1.44.2'."""

def read_some(reader: asyncio.StreamReader, n: int, again: bool, /) -> Any:
    """Return up to n bytes, a future to wait for, or None: asyncio's turn."""

def read_exactly(reader: asyncio.StreamReader, n: int, again: bool, /) -> Any:
    """Return n bytes, a future to wait for, or None: asyncio's turn."""

def read_until(reader: asyncio.StreamReader, separator: Any, seen: int, /) -> Any:
    """Return bytes up to a separator, a future to wait for, or None.

    seen bytes were there before the read waited; -1 if it did not.
    """

def adopt_reader(reader: object, /) -> None:
    """Give that class to a reader, if it is one of asyncio's own."""

def use_reader(cls: type[asyncio.StreamReader], /) -> None:
    """Give this class to the readers that are fed."""

@disjoint_base
class Handle(asyncio.Handle):
    """A callback that was scheduled; see asyncio.Handle."""

@final
class TimerHandle(asyncio.TimerHandle):
    """A callback that is due at a time; see asyncio.TimerHandle."""

@final
class JobQueue:
    """The queue between a loop and the threads of its default executor."""

    needed: bool
    room: int

    def __new__(
        cls,
        run_item: Callable[[Any], object],
        hand_over: Callable[[asyncio.Future[Any], bool, Any], object],
        submit: Callable[..., object],
        /,
    ) -> JobQueue: ...
    def serve(self) -> None:
        """Run items until a None comes."""

    def put(self, item: object, /) -> None:
        """Queue an item; None ends a worker."""

    def get_nowait(self) -> Any:
        """Take an item; queue.Empty without one."""

    def qsize(self) -> int:
        """Return how many items wait."""

    def empty(self) -> bool:
        """Return True if no item waits."""

@final
class Watch:
    """What looks after a loop from another thread."""

    def __new__(cls, loop: Loop, threshold: float, /) -> Watch: ...
    def wait(self) -> tuple[str, float] | None:
        """Wait for news: ('blocked' or 'over', seconds); None at the end."""

    def frame(self) -> FrameType | None:
        """Return the frame of the loop's thread, or None."""

    def gathered(self) -> str | None:
        """The stack was had. Return what was dumped before that, or None."""

    def stop(self) -> None:
        """Have wait() return None."""

    @staticmethod
    def memory_file() -> int:
        """Return the descriptor of a new file that is in no folder."""

    def take_dumper(self, signum: int, fd: int, /) -> None:
        """Take over what faulthandler.register(signum, fd) has made."""

@disjoint_base
class Loop(asyncio.BaseEventLoop):
    """The native half of fastloop.Loop."""

    _closed: bool
    _debug: bool
    _stopping: bool
    _thread_id: int | None
    _current_handle: asyncio.Handle | None

    @property
    def slow_callback_hook(self) -> Callable[[SlowCallback], object] | None:
        """Called with a fastloop.metrics.SlowCallback; None: nothing is timed."""

    @slow_callback_hook.setter
    def slow_callback_hook(
        self, hook: Callable[[SlowCallback], object] | None
    ) -> None: ...
    @property
    def _sampler(self) -> Callable[[SlowCallback], object] | None: ...
    @_sampler.setter
    def _sampler(self, sampler: Callable[[SlowCallback], object] | None) -> None: ...
    def _metrics(self) -> dict[str, Any]: ...
    def _udp_drops(self) -> int: ...
    def _run(self) -> None: ...
    def _run_once(self, timeout: float | None = None, /) -> None: ...
    def _ended(self) -> None: ...
    def _release(self) -> None: ...
    def _show_handles(self) -> None: ...
    def _check_closed(self) -> None: ...
    def _check_thread(self) -> None: ...
    def _watch_wakeup_fd(self, fd: int, /) -> None: ...
    def _write_to_self(self) -> None: ...
    def _connect_literal(
        self, factory: Any, host: Any, port: Any, last_step: Any, /
    ) -> Any: ...
    def _resolve_literal(
        self,
        host: Any,
        port: Any,
        family: int,
        type: int,
        proto: int,
        flags: int,
        /,
    ) -> list[Any] | None: ...
    def _has_transport(self, fd: int, /) -> bool: ...
    def _stop_listening(self, sock: socket, /) -> None: ...
    _add_reader: Callable[..., None]
    _add_writer: Callable[..., None]
    _remove_reader: Callable[[Any], bool]
    _remove_writer: Callable[[Any], bool]
    _make_socket_transport: Callable[..., SocketTransport]
    _make_tls: Callable[..., SSLTransport]
    _make_datagram_transport: Callable[..., DatagramTransport]
    def _pipe_transport(
        self, pipe: object, /
    ) -> ReadPipeTransport | WritePipeTransport | None: ...
    _make_read_pipe_transport: Callable[..., ReadPipeTransport]
    _make_write_pipe_transport: Callable[..., WritePipeTransport]
    _start_serving: Callable[..., None]

@final
class SocketTransport(asyncio.Transport):
    """A transport over a connected stream socket."""

    max_size: int

@final
class SSLTransport(asyncio.Transport):
    """A TLS transport over another transport."""

    max_size: int

    def set_read_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        """Set the marks, in bytes, for pausing the transport below."""

    def get_read_buffer_limits(self) -> tuple[int, int]:
        """Return (low, high), in bytes."""

    def get_read_buffer_size(self) -> int:
        """Return how many bytes wait, as the peer sent them."""

    # A protocol of the transport below.
    def connection_made(self, transport: asyncio.BaseTransport, /) -> None: ...
    def connection_lost(self, exc: BaseException | None, /) -> None: ...
    def data_received(self, data: bytes, /) -> None: ...
    def eof_received(self) -> bool: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...

@final
class ReadPipeTransport(asyncio.ReadTransport):
    """A transport over the reading end of a pipe."""

    max_size: int

@final
class WritePipeTransport(asyncio.Transport):
    """A transport over the writing end of a pipe."""

    max_size: int

@final
class DatagramTransport(asyncio.Transport, asyncio.DatagramTransport):
    """A transport over a datagram socket."""

    max_size: int
