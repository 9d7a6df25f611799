"""create_connection, create_unix_connection and connect_accepted_socket."""

import asyncio
import contextvars
import errno
import gc
import os
import re
import socket
import sys

import pytest
from iosupport import (
    BufferedRecorder,
    Clients,
    Echo,
    Recorder,
    in_thread,
    left_to_the_collector,
    settle,
    tcp_socketpair,
    turns,
)


def test_connect_to_a_closed_port(loop, run):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = unused.getsockname()

        async def main():
            with pytest.raises(
                ConnectionRefusedError,
                match=re.escape(f"Connect call failed {address}"),
            ):
                await loop.create_connection(Recorder, *address)

        run(main())


@pytest.mark.parametrize("way", ["address", "sock"])
def test_what_a_protocol_factory_sets_for_its_connection(loop, run, way):
    var = contextvars.ContextVar("var", default="default")
    seen = []

    class Protocol(Recorder):
        def __init__(self):
            super().__init__()
            var.set("factory")

        def connection_made(self, transport):
            seen.append(var.get())
            super().connection_made(transport)

    async def main():
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
            address = server.sockets[0].getsockname()
            var.set("caller")
            if way == "address":
                connect = loop.create_connection(Protocol, *address)
            else:
                sock = socket.create_connection(address)
                connect = loop.create_connection(Protocol, sock=sock)
            transport, protocol = await connect
            assert var.get() == "factory"
            transport.close()
            await protocol.lost
            await settle()

    run(main())
    # Since Python 3.15 the connection's context is made first.
    assert seen == ["caller" if sys.version_info >= (3, 15) else "factory"]


def test_connect_tries_every_address(loop, run):
    async def getaddrinfo(host, port, **kwargs):
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.2", port)),
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port)),
        ]

    loop.getaddrinfo = getaddrinfo

    async def main():
        async with await loop.create_server(Recorder, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            for kwargs in ({}, {"happy_eyeballs_delay": 0.01}, {"interleave": 1}):
                transport, protocol = await loop.create_connection(
                    Recorder, "name.invalid", port, **kwargs
                )
                assert transport.get_extra_info("peername") == ("127.0.0.1", port)
                transport.close()
                await protocol.lost
            await settle()

    run(main())


def test_connect_with_every_address_refused(loop, run):
    async def getaddrinfo(host, port, **kwargs):
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", (f"127.0.0.{n}", port))
            for n in (1, 2)
        ]

    loop.getaddrinfo = getaddrinfo

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        async def main():
            with pytest.raises(
                OSError, match=r"Multiple exceptions: .*127\.0\.0\.1.*127\.0\.0\.2"
            ):
                await loop.create_connection(Recorder, "name.invalid", port)
            if sys.version_info >= (3, 12):
                with pytest.raises(ExceptionGroup) as info:
                    await loop.create_connection(
                        Recorder, "name.invalid", port, all_errors=True
                    )
                assert [type(exc) for exc in info.value.exceptions] == [
                    ConnectionRefusedError
                ] * 2

        run(main())


def test_connect_from_a_local_address(loop, run):
    async def main():
        async with await loop.create_server(Recorder, "127.0.0.1", 0) as server:
            address = server.sockets[0].getsockname()
            transport, protocol = await loop.create_connection(
                Recorder, *address, local_addr=("127.0.0.3", 0)
            )
            assert transport.get_extra_info("sockname")[0] == "127.0.0.3"
            transport.close()
            await protocol.lost
            with pytest.raises(
                OSError, match="error while attempting to bind on address"
            ):
                await loop.create_connection(
                    Recorder, *address, local_addr=("192.0.2.77", 0)
                )
            await settle()

    run(main())


def test_wrong_arguments_of_create_connection(loop, run):
    async def main():
        with (
            socket.socket() as stream,
            socket.socket(type=socket.SOCK_DGRAM) as datagram,
        ):
            for kwargs, message in [
                (
                    {"host": "x", "port": 1, "sock": stream},
                    "host/port and sock can not be specified at the same time",
                ),
                ({}, "host and port was not specified and no sock specified"),
                ({"sock": datagram}, "A Stream Socket was expected, got"),
                (
                    {"sock": stream, "server_hostname": "x"},
                    "server_hostname is only meaningful with ssl",
                ),
                (
                    {"sock": stream, "ssl": True},
                    "You must set server_hostname when using ssl without a host",
                ),
                (
                    {"sock": stream, "ssl_handshake_timeout": 1},
                    "ssl_handshake_timeout is only meaningful with ssl",
                ),
                (
                    {"sock": stream, "ssl_shutdown_timeout": 1},
                    "ssl_shutdown_timeout is only meaningful with ssl",
                ),
            ]:
                with pytest.raises(ValueError, match=message):
                    await loop.create_connection(Recorder, **kwargs)
            with pytest.raises(TypeError):
                await loop.create_connection(Recorder, sock=stream, nonsense=1)
            for kwargs, message in [
                (
                    {"path": "x", "sock": stream},
                    "path and sock can not be specified at the same time",
                ),
                ({}, "no path and sock were specified"),
                ({"sock": stream}, "A UNIX Domain Stream Socket was expected, got"),
                (
                    {"path": "x", "ssl": True},
                    "you have to pass server_hostname when using ssl",
                ),
                (
                    {"path": "x", "server_hostname": "x"},
                    "server_hostname is only meaningful with ssl",
                ),
            ]:
                with pytest.raises(ValueError, match=message):
                    await loop.create_unix_connection(Recorder, **kwargs)

    run(main())


def test_connect_to_a_missing_unix_path(loop, run, tmp_path):
    async def main():
        with pytest.raises(FileNotFoundError):
            await loop.create_unix_connection(Recorder, tmp_path / "nobody")

    run(main())


def test_connect_with_an_unconnected_socket_reports_the_loss(loop, run):
    async def main():
        sock = socket.socket()
        transport, protocol = await loop.create_connection(Recorder, sock=sock)
        assert transport.get_extra_info("peername") is None
        exc = await protocol.lost
        assert isinstance(exc, OSError) or exc is None
        if exc is not None:
            assert exc.errno == errno.ENOTCONN
        await turns()
        assert sock.fileno() == -1

    run(main())


@pytest.mark.parametrize("factory", [Recorder, BufferedRecorder])
def test_connect_accepted_socket(loop, run, factory):
    async def main():
        client, accepted = tcp_socketpair()
        with client:
            transport, protocol = await loop.connect_accepted_socket(factory, accepted)
            assert transport.get_extra_info("peername") == client.getsockname()
            assert accepted.getblocking() is False
            client.send(b"ping")
            assert await protocol.received(4) == b"ping"
            transport.write(b"pong")
            assert await in_thread(client.recv, 4) == b"pong"
            transport.close()
            assert await protocol.lost is None
        with socket.socket(type=socket.SOCK_DGRAM) as datagram:
            with pytest.raises(ValueError, match="A Stream Socket was expected, got"):
                await loop.connect_accepted_socket(Recorder, datagram)

    run(main())


def test_factory_that_raises(loop, run):
    async def main():
        ours, peer = socket.socketpair()
        with ours, peer, pytest.raises(ZeroDivisionError):
            await loop.create_connection(lambda: 1 / 0, sock=ours)

    run(main())


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_socket_of_a_factory_that_raises(loop, run, tmp_path, kind):
    def factory():
        raise ZeroDivisionError

    async def main():
        clients = Clients()
        if kind == "tcp":
            server = await loop.create_server(clients, "127.0.0.1", 0)
            connecting = loop.create_connection(
                factory, *server.sockets[0].getsockname()
            )
        else:
            server = await loop.create_unix_server(clients, tmp_path / "socket")
            connecting = loop.create_unix_connection(factory, tmp_path / "socket")
        async with server:
            with pytest.raises(ZeroDivisionError):
                await connecting
            gc.collect()
            await clients.number(1)
            await clients.gone()

    with left_to_the_collector(loop):
        run(main())


def test_cancelled_while_connecting(loop, run):
    async def main():
        ours, peer = socket.socketpair()
        with peer:
            task = asyncio.create_task(loop.create_connection(Recorder, sock=ours))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await settle()
            assert await in_thread(peer.recv, 1) == b""
            assert ours.fileno() == -1

    run(main())


def test_descriptors_come_back(loop, run):
    async def main():
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
            address = server.sockets[0].getsockname()

            async def visit():
                transport, protocol = await loop.create_connection(Recorder, *address)
                transport.write(b"x")
                await protocol.received(1)
                transport.close()
                await protocol.lost

            await visit()
            await settle()
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(20):
                await visit()
            for _ in range(1000):
                if len(os.listdir("/proc/self/fd")) <= before:
                    break
                await asyncio.sleep(0.01)
            assert len(os.listdir("/proc/self/fd")) <= before

    run(main())
