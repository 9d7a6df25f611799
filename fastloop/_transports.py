"""Hooks of the loop that make, upgrade and borrow transports, where that is cold."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import os
import socket
import stat
import sys
import types
import weakref
from asyncio import selector_events, trsock
from asyncio.log import logger
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from . import _core
from ._base import BaseLoop, MixinBase

_CONTEXT_FIRST = sys.version_info >= (3, 15)


class _Connected:
    """The protocol's factory of a connection that the loop has just made.

    asyncio takes two turns at least until it makes the protocol, in which a program may
    cancel the connection without a word to anybody.
    """

    __slots__ = ("factory",)

    def __init__(self, factory: Any) -> None:
        self.factory = factory

    def __call__(self) -> Any:
        return self.factory()


class _TransportSocket(trsock.TransportSocket):
    """What get_extra_info("socket") tells: behind what the transport was given."""

    __slots__ = ("_transport",)

    def __init__(self, sock: socket.socket, transport: Any) -> None:
        super().__init__(sock)
        self._transport = weakref.ref(transport)

    def fileno(self) -> int:
        # Who takes the number, as subprocess.Popen() does, may write to it.
        _send_all(self._transport())
        return super().fileno()

    def setsockopt(self, *args: Any, **kwargs: Any) -> None:
        # What was sent before has the options that it was sent with.
        _send_all(self._transport())
        super().setsockopt(*args, **kwargs)

    def shutdown(self, how: int) -> None:
        _send_all(self._transport())
        super().shutdown(how)

    def dup(self) -> socket.socket:
        _send_all(self._transport())
        return super().dup()


for _name in ("__module__", "__name__", "__qualname__", "__doc__"):
    setattr(_TransportSocket, _name, getattr(trsock.TransportSocket, _name))


def _send_all(transport: Any) -> None:
    """Send what waits for the end of the turn; what TLS above has, first."""
    if transport is None:
        return
    above = transport.get_protocol()
    if isinstance(above, _core.SSLTransport):
        _send_all(above)
    with contextlib.suppress(RuntimeError):  # another thread's loop
        transport.get_write_buffer_size()  # offers it to the socket


@types.coroutine
def _next_turn() -> Generator[None, None, None]:
    """As asyncio.sleep(0), which a test may have replaced."""
    yield


if TYPE_CHECKING:

    class _SelectorSocketTransport(asyncio.Transport):
        """asyncio's, private parts and all."""

        _closing: bool
        _loop: asyncio.AbstractEventLoop | None
        _sock: Any
        _sock_fd: int

else:
    _SelectorSocketTransport = selector_events._SelectorSocketTransport


class _ForeignTransport(_SelectorSocketTransport):
    """asyncio's transport, whose own repr() asks its loop's selector."""

    def __repr__(self) -> str:
        info = [type(self).__name__]
        if self._sock is None:
            info.append("closed")
        elif self._closing:
            info.append("closing")
        info.append(f"fd={self._sock_fd}")
        if self._loop is not None and not self._loop.is_closed():
            size = self.get_write_buffer_size()
            info.append(f"read={'polling' if self.is_reading() else 'idle'}")
            info.append(f"write=<{'polling' if size else 'idle'}, bufsize={size}>")
        return f"<{' '.join(info)}>"


_ForeignTransport.__name__ = _ForeignTransport.__qualname__ = "_SelectorSocketTransport"


class TransportMixin(MixinBase):
    """What asyncio's selector loop does with a selector or with super()."""

    _unix_server_sockets: dict[socket.socket, int]
    _make_socket_transport: Any  # native
    _has_transport: Any  # native
    _connect_literal: Any  # native
    _stop_listening: Any  # native

    def _make_foreign_transport(
        self,
        sock: Any,
        protocol: Any,
        waiter: Any = None,
        *,
        extra: Any = None,
        server: Any = None,
        context: Any = None,
    ) -> Any:
        """Serve what has recv() and send() of its own with asyncio's transport."""
        vars(self).setdefault("_transports", weakref.WeakValueDictionary())
        options = {} if context is None else {"context": context}
        make: Any = _ForeignTransport
        return make(self, sock, protocol, waiter, extra, server, **options)

    def _make_transport_socket(self, sock: socket.socket, transport: Any) -> Any:
        return _TransportSocket(sock, transport)

    if not TYPE_CHECKING:  # its overloads are asyncio's

        @functools.wraps(BaseLoop.create_connection)
        async def create_connection(
            self,
            protocol_factory: Any,
            host: Any = None,
            port: Any = None,
            **options: Any,
        ) -> Any:
            # To a literal address, without options: what asyncio would come to do.
            if not options or _says_nothing(options):
                connecting = self._connect_literal(
                    protocol_factory, host, port, _LAST_STEP
                )
                if connecting is not None:
                    return await connecting
            if options.get("sock") is None:
                protocol_factory = _Connected(protocol_factory)
            return await super().create_connection(
                protocol_factory, host, port, **options
            )

        @functools.wraps(BaseLoop.create_datagram_endpoint)
        async def create_datagram_endpoint(
            self,
            protocol_factory: Any,
            local_addr: Any = None,
            remote_addr: Any = None,
            *,
            family: int = 0,
            proto: int = 0,
            flags: int = 0,
            reuse_port: bool | None = None,
            allow_broadcast: bool | None = None,
            sock: Any = None,
        ) -> Any:
            failed: list[BaseException] = []

            def factory() -> Any:
                # asyncio would leave the socket to the garbage collector.
                try:
                    return protocol_factory()
                except Exception as exc:
                    failed.append(exc)
                    return asyncio.DatagramProtocol()

            transport, protocol = await super().create_datagram_endpoint(
                factory,
                local_addr,
                remote_addr,
                family=family,
                proto=proto,
                flags=flags,
                reuse_port=reuse_port,
                allow_broadcast=allow_broadcast,
                sock=sock,
            )
            if failed:
                transport.abort()
                raise failed.pop()
            return transport, protocol

    async def _create_connection_transport(
        self,
        sock: socket.socket,
        protocol_factory: Any,
        ssl: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Close a socket that no transport came to own, as Python 3.14 does."""
        try:
            if isinstance(protocol_factory, _Connected):
                protocol_factory = protocol_factory.factory
                await _next_turn()
                await _next_turn()
            if ssl or "context" in kwargs:
                return await super()._create_connection_transport(
                    sock, protocol_factory, ssl, *args, **kwargs
                )
            if sock.gettimeout() != 0:
                sock.setblocking(False)
            # Since Python 3.15 a connection's context is older than its protocol.
            options = {"context": contextvars.copy_context()} if _CONTEXT_FIRST else {}
            protocol = protocol_factory()
            waiter = self.create_future()
            transport = self._make_socket_transport(sock, protocol, waiter, **options)
            try:
                await waiter
            except BaseException:
                transport.close()
                raise
            return transport, protocol
        except BaseException:
            fd = sock.fileno()
            if not isinstance(fd, int) or (fd != -1 and not self._has_transport(fd)):
                sock.close()
            raise

    async def _sendfile_native(
        self, transp: Any, file: Any, offset: int, count: int | None
    ) -> int:
        # Also lends the descriptor, so that add_writer() takes it. RuntimeError where
        # another sendfile() has it, and still needs its waiter.
        waiter = transp._make_empty_waiter()
        resume_reading = False
        try:
            resume_reading = transp.is_reading()
            transp.pause_reading()
            await waiter
            return await self.sock_sendfile(
                transp._sock, file, offset, count, fallback=False
            )
        finally:
            transp._reset_empty_waiter()
            if resume_reading:
                transp.resume_reading()

    def _stop_serving(self, sock: socket.socket) -> None:
        inode = self._unix_server_sockets.pop(sock, None)
        path = sock.getsockname() if inode is not None else None
        self._stop_listening(sock)
        sock.close()
        if path:  # pragma: no cover - since Python 3.13
            _unlink_own_socket(path, inode)


_LAST_STEP = TransportMixin._create_connection_transport

_DEFAULTS = BaseLoop.create_connection.__kwdefaults__ or {}


def _says_nothing(options: dict[str, Any]) -> bool:
    """Whether these options of create_connection() might as well be left away."""
    return all(
        value is None and _DEFAULTS.get(name, ...) is None
        for name, value in options.items()
    )


def _unlink_own_socket(  # pragma: no cover - since Python 3.13
    path: str, inode: int | None
) -> None:
    """Remove the file of a Unix socket, unless another has taken its place."""
    try:
        found = os.stat(path)
        if stat.S_ISSOCK(found.st_mode) and found.st_ino == inode:
            os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as exc:
        logger.error("Unable to unlink listening UNIX socket %r: %r", path, exc)
