"""Hooks of the loop that make TLS connections, where that is cold."""

from __future__ import annotations

import asyncio
from asyncio import sslproto
from typing import TYPE_CHECKING, Any, cast

from ._base import MixinBase

try:
    import ssl
except ImportError:  # pragma: no cover
    if not TYPE_CHECKING:
        ssl = None

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from . import _core


class TlsMixin(MixinBase):
    """What asyncio does with sslproto.SSLProtocol."""

    _make_tls: Callable[..., _core.SSLTransport]  # native
    _make_socket_transport: Any  # native

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: Any,
        sslcontext: Any,
        waiter: Any = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: Any = None,
        server: Any = None,
        ssl_handshake_timeout: Any = None,
        ssl_shutdown_timeout: Any = None,
        call_connection_made: bool = True,
        context: Any = None,
    ) -> Any:
        if not sslcontext and ssl is not None:
            sslcontext = sslproto._create_transport_context(
                server_side, server_hostname
            )
        transport = self._make_tls(
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            ssl_handshake_timeout,
            ssl_shutdown_timeout,
            call_connection_made,
        )
        self._make_socket_transport(
            rawsock, transport, extra=extra, server=server, context=context
        )
        return transport

    async def start_tls(
        self,
        transport: Any,
        protocol: Any,
        sslcontext: Any,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> asyncio.Transport | None:
        """Upgrade transport to TLS; return the transport for protocol from now on."""
        if ssl is None:
            raise RuntimeError("Python ssl module is not available")
        if not isinstance(sslcontext, ssl.SSLContext):
            raise TypeError(
                f"sslcontext is expected to be an instance of ssl.SSLContext, "
                f"got {sslcontext!r}"
            )
        if not getattr(transport, "_start_tls_compatible", False):
            raise TypeError(f"transport {transport!r} is not supported by start_tls()")
        waiter = self.create_future()
        upgraded = self._make_tls(
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            ssl_handshake_timeout,
            ssl_shutdown_timeout,
            False,
        )
        # Nothing may come for the new one before it is told of the connection.
        transport.pause_reading()
        if server_side:
            _move_buffered(protocol, upgraded)
        transport.set_protocol(upgraded)
        made = self.call_soon(upgraded.connection_made, transport)
        resumed = self.call_soon(transport.resume_reading)
        try:
            await waiter
        except BaseException:
            transport.close()
            made.cancel()
            resumed.cancel()
            raise
        finally:
            del waiter  # an exception in it would lead back here
        if upgraded.get_extra_info("cipher") is None:
            return None  # closed before the handshake: asyncio returns that, too
        return cast(asyncio.Transport, upgraded)


def _move_buffered(protocol: Any, upgraded: Any) -> None:
    """Bytes of a StreamReader that nobody has read are the handshake's beginning.

    asyncio moves them from Python 3.14 on; before, the handshake waited in vain.
    """
    if not isinstance(protocol, asyncio.StreamReaderProtocol):
        return
    reader = getattr(protocol, "_stream_reader", None)
    if reader is not None and reader._buffer:
        upgraded._feed(bytes(reader._buffer))
        reader._buffer.clear()
