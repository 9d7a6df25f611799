"""What a transport tells about itself, while it is open and after its end, and how long it lives."""

import asyncio
import gc
import re
import socket
import sys
import weakref

import pytest
from iosupport import (
    Recorder,
    endpoint,
    in_thread,
    is_stock,
    raw_pair,
    read_exactly,
    read_pipe,
    reset,
    tcp_pair,
    tcp_socketpair,
    turns,
    write_pipe,
)
from tlssupport import Certificates, tls_pair


def test_kind(loop, run):
    async def main():
        async with raw_pair() as (protocol, _):
            transport = protocol.transport
            assert isinstance(transport, asyncio.Transport)
            assert isinstance(transport, asyncio.ReadTransport)
            assert isinstance(transport, asyncio.WriteTransport)
            assert weakref.ref(transport)() is transport
            assert len({transport, transport}) == 1

    run(main())


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_extra_info(loop, run, family):
    async def main():
        ours, peer = tcp_socketpair(family)
        names = ours.getsockname(), ours.getpeername()
        with peer:
            transport, protocol = await loop.create_connection(Recorder, sock=ours)
            sock = transport.get_extra_info("socket")
            assert isinstance(sock, asyncio.trsock.TransportSocket)
            assert sock.fileno() == ours.fileno()
            assert sock.family == family
            assert sock.type == socket.SOCK_STREAM
            assert sock.getsockname() == names[0]
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert transport.get_extra_info("sockname") == names[0]
            assert transport.get_extra_info("peername") == names[1]
            assert transport.get_extra_info("nothing") is None
            assert transport.get_extra_info("nothing", 5) == 5
            assert transport.get_extra_info("sslcontext", "none") == "none"
            sock.shutdown(socket.SHUT_WR)
            assert peer.recv(1) == b""
            transport.close()
            await protocol.lost
            await turns()
            assert transport.get_extra_info("sockname") == names[0]
            assert transport.get_extra_info("peername") == names[1]
            assert transport.get_extra_info("socket").fileno() == -1
            assert ours.fileno() == -1

    run(main())


def test_both_sides_name_each_other(loop, run):
    async def main():
        async with tcp_pair() as (client, server):
            for one, other in ((client, server), (server, client)):
                assert one.transport.get_extra_info(
                    "peername"
                ) == other.transport.get_extra_info("sockname")
                sock = one.transport.get_extra_info("socket")
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert sock.getpeername() == one.transport.get_extra_info("peername")

    run(main())


def test_extra_info_of_unix_sockets(loop, run, tmp_path):
    path = str(tmp_path / "socket")

    async def main():
        accepted = loop.create_future()

        class Server(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                accepted.set_result(self)

        async with await loop.create_unix_server(Server, path):
            transport, client = await loop.create_unix_connection(Recorder, path)
            server = await accepted
            assert transport.get_extra_info("peername") == path
            assert transport.get_extra_info("sockname") == ""
            assert server.transport.get_extra_info("sockname") == path
            assert server.transport.get_extra_info("peername") == ""
            assert transport.get_extra_info("socket").family == socket.AF_UNIX
            transport.close()
            await server.lost
            await client.lost
            await turns()

    run(main())


def test_peername_of_a_client_that_went(loop, run):
    async def main():
        made = loop.create_future()

        class Server(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                made.set_result((self, transport.get_extra_info("peername")))

        async with await loop.create_server(Server, "127.0.0.1", 0) as server:
            sock = socket.create_connection(server.sockets[0].getsockname())
            name = sock.getsockname()
            reset(sock)
            protocol, peername = await made
            assert peername == name
            await protocol.lost
            assert protocol.transport.get_extra_info("peername") == name
            await turns()

    run(main())


def test_repr(loop, run):
    async def main():
        async with raw_pair(size=8192) as (protocol, _peer):
            transport = protocol.transport
            fd = transport.get_extra_info("socket").fileno()
            await turns()
            assert re.fullmatch(
                rf"<\S+ fd={fd} read=polling write=<idle, bufsize=0>>", repr(transport)
            )
            transport.pause_reading()
            assert "read=idle" in repr(transport)
            transport.write(bytes(1_000_000))
            await turns()
            size = transport.get_write_buffer_size()
            assert f"write=<polling, bufsize={size}>" in repr(transport)
            transport.close()
            assert re.match(rf"<\S+ closing fd={fd} ", repr(transport))
            transport.abort()
            await protocol.lost
            await turns()
            assert re.match(r"<\S+ closed ", repr(transport))

    run(main())


def test_getters_after_the_end(loop, run):
    async def main():
        async with raw_pair() as (protocol, peer):
            transport = protocol.transport
            peer.close()
            await protocol.lost
            await turns()
            assert transport.is_closing() is True
            assert transport.is_reading() is False
            assert transport.get_write_buffer_size() == 0
            assert transport.get_write_buffer_limits() == (16384, 65536)
            assert transport.can_write_eof() is True
            assert transport.get_extra_info("peername") == ""
            assert transport.pause_reading() is None
            assert transport.resume_reading() is None
            assert transport.write(b"dropped") is None
            assert transport.writelines([b"dropped"]) is None
            assert transport.write_eof() is None
            assert transport.close() is None
            assert transport.abort() is None
            transport.set_write_buffer_limits(high=10)
            assert transport.get_write_buffer_limits() == (2, 10)

    # From 3.12 to 3.13 asyncio's writelines() of a lost transport writes to nothing.
    if is_stock(loop) and sys.version_info >= (3, 12):
        pytest.skip("writelines() after the end fails")
    run(main())


def test_unclosed_transport_warns(loop_factory):
    loop = loop_factory()
    ours, peer = socket.socketpair()

    async def main():
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        return transport

    with peer:
        transport = loop.run_until_complete(main())
        loop.close()
        with pytest.warns(ResourceWarning, match="unclosed transport <"):
            del transport
            gc.collect()
        # The descriptor went with it.
        assert peer.recv(1) == b""
        assert ours.fileno() == -1


def test_open_transport_is_not_collected(loop, run):
    async def main():
        ours, peer = socket.socketpair()
        data = loop.create_future()
        lost = loop.create_future()

        class Forgotten(asyncio.Protocol):
            def data_received(self, received):
                data.set_result(received)

            def connection_lost(self, exc):
                lost.set_result(exc)

        with peer:
            await loop.create_connection(Forgotten, sock=ours)
            del ours
            gc.collect()
            peer.send(b"x")
            assert await data == b"x"
            gc.collect()
        assert await lost is None
        await turns()

    run(main())


def test_closed_transport_is_freed(loop, run):
    async def main():
        async with raw_pair() as (protocol, _):
            transport = weakref.ref(protocol.transport)
            protocol.transport.close()
            await protocol.lost
            del protocol.transport
            protocol.made = protocol.loop.create_future()
            await turns()
            gc.collect()
            assert transport() is None

    run(main())


def test_no_method_raises_after_a_close_that_flushed(loop, run):
    if is_stock(loop):
        pytest.skip("abort() and write() fail then")

    async def main():
        async with raw_pair(size=8192) as (protocol, peer):
            transport = protocol.transport
            transport.write(bytes(300_000))
            transport.close()
            await in_thread(read_exactly, peer, 300_000)
            await protocol.lost
            await turns()
            transport.abort()
            transport.close()
            transport.write(b"x")
            transport.writelines([b"x"])
            transport.write_eof()
            assert transport.get_write_buffer_size() == 0
            assert transport.get_protocol() in (protocol, None)
            assert "closed" in repr(transport)

    run(main())


@pytest.mark.parametrize("kind", ["tcp", "tls", "udp", "read pipe", "write pipe"])
def test_takes_a_program_s_own_attributes(loop, run, kind):
    """Tests replace write(), libraries hang notes on a transport."""
    pairs = {
        "tcp": raw_pair,
        "tls": lambda: tls_pair(Certificates()),
        "udp": lambda: endpoint(local_addr=("127.0.0.1", 0)),
        "read pipe": read_pipe,
        "write pipe": write_pipe,
    }

    class Note:
        pass

    async def main():
        async with pairs[kind]() as made:
            protocol = made if kind == "udp" else made[0]
            transport = protocol.transport
            with pytest.raises(AttributeError, match="has no attribute 'note'"):
                _ = transport.note
            transport.note = Note()
            transport.note.transport = transport  # a cycle
            assert vars(transport)["note"] is transport.note
            calls = []
            for name in ("write", "sendto", "pause_reading"):
                if hasattr(transport, name):
                    setattr(transport, name, calls.append)
                    getattr(transport, name)(b"lost")
                    delattr(transport, name)
                    assert getattr(transport, name) != calls.append
            assert calls == [b"lost"] * len(calls) != []
            return weakref.ref(transport.note)

    note = run(main())
    gc.collect()
    assert note() is None
