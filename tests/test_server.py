"""Servers: create_server and create_unix_server, their life, their sockets and what goes wrong on accept."""

import asyncio
import contextlib
import errno
import os
import socket
import stat
import sys

import pytest
from iosupport import (
    TIMEOUT,
    Clients,
    Echo,
    Recorder,
    finish,
    in_thread,
    settle,
    turns,
    visit,
)

V3_12_1 = sys.version_info >= (3, 12, 1)
"""wait_closed() waits for the connections too."""


# Life


def test_serves_at_once(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        assert isinstance(server, asyncio.AbstractServer)
        assert server.is_serving() is True
        assert server.get_loop() is loop
        await visit(loop, server.sockets[0].getsockname())
        assert server.close() is None
        assert server.is_serving() is False
        server.close()
        await server.wait_closed()
        await settle()

    run(main())


def test_sockets(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        sockets = server.sockets
        assert isinstance(sockets, tuple)
        assert len(sockets) == 1
        assert isinstance(sockets[0], asyncio.trsock.TransportSocket)
        assert sockets[0].getsockname()[0] == "127.0.0.1"
        assert sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert "sockets=(<asyncio.TransportSocket fd=" in repr(server)
        server.close()
        assert server.sockets == ()
        assert sockets[0].fileno() == -1
        await server.wait_closed()

    run(main())


def test_close_stops_listening(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        server.close()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Recorder, *address)
        await server.wait_closed()

    run(main())


def test_close_leaves_connections_alone(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        transport, protocol = await loop.create_connection(
            Recorder, *server.sockets[0].getsockname()
        )
        transport.write(b"1")
        await protocol.received(1)
        server.close()
        transport.write(b"2")
        assert await protocol.received(2) == b"12"
        transport.close()
        await protocol.lost
        await settle()

    run(main())


def test_wait_closed(loop, run):
    async def main():
        clients = Clients()
        server = await loop.create_server(clients, "127.0.0.1", 0)
        transport, protocol = await loop.create_connection(
            Recorder, *server.sockets[0].getsockname()
        )
        await clients.number(1)
        waiting = asyncio.create_task(server.wait_closed())
        await turns()
        assert not waiting.done()
        server.close()
        await turns()
        # Earlier waiters wait for the connections on every version.
        assert not waiting.done()
        late = asyncio.create_task(server.wait_closed())
        await turns()
        assert late.done() is not V3_12_1
        transport.close()
        await asyncio.gather(waiting, late)
        assert clients.protocols[0].lost.done()
        await protocol.lost

    run(main())


def test_wait_closed_without_connections(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        waiting = asyncio.create_task(server.wait_closed())
        await turns()
        server.close()
        await waiting
        await server.wait_closed()

    run(main())


def test_context_manager(loop, run):
    async def main():
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
            assert server.is_serving()
        assert not server.is_serving()
        assert server.sockets == ()

    run(main())


def test_start_serving(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, start_serving=False)
        assert server.is_serving() is False
        address = server.sockets[0].getsockname()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Recorder, *address)
        await server.start_serving()
        await server.start_serving()
        assert server.is_serving() is True
        await visit(loop, address)
        server.close()
        await server.wait_closed()
        await settle()

    run(main())


def test_serve_forever(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, start_serving=False)
        task = asyncio.create_task(server.serve_forever())
        await turns()
        assert server.is_serving() is True
        await visit(loop, server.sockets[0].getsockname())
        with pytest.raises(
            RuntimeError, match="is already being awaited on serve_forever"
        ):
            await server.serve_forever()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert server.is_serving() is False
        with pytest.raises(RuntimeError, match=r"server .* is closed"):
            await server.serve_forever()
        await settle()

    run(main())


def test_close_ends_serve_forever(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        task = asyncio.create_task(server.serve_forever())
        await turns()
        server.close()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_start_serving_after_close(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        server.close()
        with pytest.raises((RuntimeError, TypeError)):
            await server.serve_forever()
        await server.wait_closed()

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="from 3.13 on")
@pytest.mark.parametrize("name", ["close_clients", "abort_clients"])
def test_ending_the_clients(loop, run, name):
    async def main():
        clients = Clients()
        server = await loop.create_server(clients, "127.0.0.1", 0)
        peers = [
            await loop.create_connection(Recorder, *server.sockets[0].getsockname())
            for _ in range(5)
        ]
        await clients.number(5)
        server.close()
        getattr(server, name)()
        await server.wait_closed()
        assert all(protocol.lost.done() for protocol in clients.protocols)
        for _, protocol in peers:
            assert await protocol.lost is None

    run(main())


def test_server_closed_while_a_client_waits(loop, run):
    async def main():
        for _ in range(10):
            clients = Clients()
            server = await loop.create_server(clients, "127.0.0.1", 0)
            sock = socket.create_connection(server.sockets[0].getsockname())
            sock.settimeout(TIMEOUT)
            server.close()
            # The client is refused or served, never left hanging.
            await settle()
            for protocol in clients.protocols:
                await finish(protocol)
            with contextlib.suppress(ConnectionResetError):
                assert await in_thread(sock.recv, 1) == b""
            sock.close()
            await server.wait_closed()

    run(main())


def test_server_closed_by_its_own_client(loop, run):
    async def main():
        class Closing(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                server.close()

        clients = Clients(Closing)
        server = await loop.create_server(clients, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        socks = [socket.socket() for _ in range(5)]
        for sock in socks:
            sock.connect(address)
        while not clients.protocols:
            await asyncio.sleep(0)
        await settle()
        for protocol in clients.protocols:
            await finish(protocol)
        for sock in socks:
            sock.close()
        await server.wait_closed()
        assert server.sockets == ()

    run(main())


# Where it listens


def test_several_hosts(loop, run):
    async def main():
        async with await loop.create_server(
            Echo, ["127.0.0.1", "127.0.0.2", "::1"], 0
        ) as server:
            names = {sock.getsockname()[0] for sock in server.sockets}
            assert names == {"127.0.0.1", "127.0.0.2", "::1"}
            for sock in server.sockets:
                await visit(loop, sock.getsockname())
        await settle()

    run(main())


def test_same_host_twice(loop, run):
    async def main():
        async with await loop.create_server(
            Echo, ["127.0.0.1", "127.0.0.1"], 0
        ) as server:
            assert len(server.sockets) == 1

    run(main())


@pytest.mark.parametrize("host", [None, ""])
def test_all_interfaces(loop, run, host):
    async def main():
        probe = socket.socket(socket.AF_INET6)
        probe.bind(("::", 0))
        # It keeps the port, and does not listen: others may, who say the same.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port = probe.getsockname()[1]
        with probe:
            server = await loop.create_server(Echo, host, port)
        async with server:
            assert {sock.family for sock in server.sockets} == {
                socket.AF_INET,
                socket.AF_INET6,
            }
            for sock in server.sockets:
                if sock.family == socket.AF_INET6:
                    assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            await visit(loop, ("127.0.0.1", port))
            await visit(loop, ("::1", port))
        await settle()

    run(main())


def test_host_by_name(loop, run):
    async def main():
        async with await loop.create_server(
            Echo, "localhost", 0, family=socket.AF_INET
        ) as server:
            assert server.sockets[0].getsockname()[0] == "127.0.0.1"

    run(main())


def test_address_in_use(loop, run):
    async def main():
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(
                OSError, match="error while attempting to bind on address"
            ) as info:
                await loop.create_server(Echo, "127.0.0.1", port)
            assert info.value.errno == errno.EADDRINUSE

    run(main())


def test_reuse_port(loop, run):
    async def main():
        async with await loop.create_server(
            Echo, "127.0.0.1", 0, reuse_port=True
        ) as first:
            port = first.sockets[0].getsockname()[1]
            assert first.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
            async with await loop.create_server(
                Echo, "127.0.0.1", port, reuse_port=True
            ):
                for _ in range(20):
                    await visit(loop, ("127.0.0.1", port))
        await settle()

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="from 3.13 on")
def test_keep_alive(loop, run):
    async def main():
        async with await loop.create_server(
            Echo, "127.0.0.1", 0, keep_alive=True
        ) as server:
            assert server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    run(main())


def test_socket_of_the_program(loop, run):
    async def main():
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        async with await loop.create_server(Echo, sock=sock) as server:
            assert sock.getblocking() is False
            assert server.sockets[0].fileno() == sock.fileno()
            await visit(loop, sock.getsockname())
        await settle()
        assert sock.fileno() == -1

    run(main())


def test_wrong_arguments(loop, run):
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
                ({}, "Neither host/port nor sock were specified"),
                ({"sock": datagram}, "A Stream Socket was expected, got"),
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
                    await loop.create_server(Echo, **kwargs)
            with pytest.raises(
                TypeError, match="ssl argument must be an SSLContext or None"
            ):
                await loop.create_server(Echo, sock=stream, ssl=True)
            for kwargs, message in [
                (
                    {"path": "x", "sock": stream},
                    "path and sock can not be specified at the same time",
                ),
                ({}, "path was not specified, and no sock specified"),
                ({"sock": stream}, "A UNIX Domain Stream Socket was expected, got"),
                (
                    {"path": "x", "ssl_handshake_timeout": 1},
                    "ssl_handshake_timeout is only meaningful with ssl",
                ),
            ]:
                with pytest.raises(ValueError, match=message):
                    await loop.create_unix_server(Echo, **kwargs)

    run(main())


# Unix sockets


@pytest.mark.parametrize(
    "form", [str, lambda path: path, os.fsencode], ids=["str", "path", "bytes"]
)
def test_unix_paths(loop, run, tmp_path, form):
    path = form(tmp_path / "socket")

    async def main():
        async with await loop.create_unix_server(Echo, path) as server:
            assert stat.S_ISSOCK(os.stat(path).st_mode)
            assert server.sockets[0].getsockname() == str(tmp_path / "socket")
            transport, protocol = await loop.create_unix_connection(Recorder, path)
            transport.write(b"x")
            assert await protocol.received(1) == b"x"
            transport.close()
            await protocol.lost
        await settle()
        assert os.path.exists(path) is (sys.version_info < (3, 13))

    run(main())


@pytest.mark.parametrize("form", [str, str.encode])
def test_abstract_unix_path(loop, run, form):
    path = form("\0fastloop-test-" + os.urandom(8).hex())

    async def main():
        async with await loop.create_unix_server(Echo, path):
            transport, protocol = await loop.create_unix_connection(Recorder, path)
            transport.write(b"x")
            assert await protocol.received(1) == b"x"
            assert transport.get_extra_info("peername") == os.fsencode(path)
            transport.close()
            await protocol.lost
        await settle()

    run(main())


def test_stale_unix_path(loop, run, tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)

    async def main():
        async with await loop.create_unix_server(Echo, path):
            transport, protocol = await loop.create_unix_connection(Recorder, path)
            transport.close()
            await protocol.lost
        await settle()

    run(main())


def test_unix_path_that_is_a_file(loop, run, tmp_path):
    path = tmp_path / "file"
    path.write_text("precious")

    async def main():
        with pytest.raises(OSError, match="is already in use"):
            await loop.create_unix_server(Echo, path)

    run(main())
    assert path.read_text() == "precious"


def test_unix_path_in_a_missing_folder(loop, run, tmp_path):
    async def main():
        with pytest.raises(FileNotFoundError):
            await loop.create_unix_server(Echo, tmp_path / "missing" / "socket")

    run(main())


def test_unix_socket_of_the_program(loop, run, tmp_path):
    async def main():
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "socket"))
        async with await loop.create_unix_server(Echo, sock=sock):
            transport, protocol = await loop.create_unix_connection(
                Recorder, tmp_path / "socket"
            )
            transport.write(b"x")
            await protocol.received(1)
            transport.close()
            await protocol.lost
        await settle()

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="from 3.13 on")
def test_unix_cleanup(loop, run, tmp_path):
    async def main():
        kept = tmp_path / "kept"
        async with await loop.create_unix_server(Echo, kept, cleanup_socket=False):
            pass
        assert kept.exists()
        replaced = tmp_path / "replaced"
        async with await loop.create_unix_server(Echo, replaced):
            replaced.unlink()
            replaced.write_text("of someone else")
        assert replaced.read_text() == "of someone else"

    run(main())
