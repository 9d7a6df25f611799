"""User code: methods of a loop, with what they take and return."""

import asyncio
import signal
import socket
import ssl
from typing import assert_type

import fastloop


class Echo(asyncio.Protocol):
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def main(loop: fastloop.Loop, sock: socket.socket) -> None:
    assert_type(loop.time(), float)
    assert_type(loop.call_soon(print, "a", 1), asyncio.Handle)
    assert_type(loop.call_later(0.5, print), asyncio.TimerHandle)
    assert_type(loop.call_at(loop.time() + 1, print), asyncio.TimerHandle)
    assert_type(loop.call_soon_threadsafe(print), asyncio.Handle)

    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=100)
    assert_type(server, asyncio.Server)
    transport, protocol = await loop.create_connection(
        Echo, "127.0.0.1", 80, ssl=ssl.create_default_context()
    )
    assert_type(transport, asyncio.Transport)
    assert_type(protocol, Echo)
    transport.set_write_buffer_limits(high=65536, low=16384)

    datagrams, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=("127.0.0.1", 53)
    )
    assert_type(datagrams, asyncio.DatagramTransport)

    names = await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    assert_type(names[0][2], int)
    assert_type(await loop.getnameinfo(("127.0.0.1", 80)), tuple[str, str])
    upgraded = await loop.start_tls(transport, protocol, ssl.create_default_context())
    assert_type(upgraded, asyncio.Transport | None)

    assert_type(await loop.sock_recv(sock, 1024), bytes)
    assert_type(await loop.sock_sendall(sock, b"data"), None)
    assert_type(await loop.run_in_executor(None, len, "abc"), int)

    loop.add_signal_handler(signal.SIGTERM, loop.stop)
    assert_type(loop.remove_signal_handler(signal.SIGTERM), bool)
    loop.add_reader(sock, print, "readable")
    assert_type(loop.remove_reader(sock), bool)

    loop.set_debug(True)
    loop.slow_callback_duration = 0.05
    assert_type(loop.get_debug(), bool)

    process = await asyncio.create_subprocess_exec("true")
    assert_type(await process.wait(), int)

    loop.call_later("soon", print)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
