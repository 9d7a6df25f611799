"""What stream transports tell of themselves."""

import asyncio
import contextlib
import gc
import re
import socket
import subprocess
import sys
import tempfile
import weakref

import pytest
from iosupport import (
    Clients,
    Recorder,
    in_thread,
    is_stock,
    raw_pair,
    tcp_socketpair,
    turns,
)


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


def test_the_socket_object_is_interrupted(loop, run):
    """By a signal's handler, say, between two lines of the socket module."""

    class Interrupted(Exception):
        pass

    def profile(frame, event, arg):
        if event == "return" and frame.f_code is socket.socket.__init__.__code__:
            sys.setprofile(None)
            raise Interrupted

    async def main():
        clients = Clients()
        async with await loop.create_server(clients, "127.0.0.1", 0) as server:
            with socket.create_connection(server.sockets[0].getsockname()) as peer:
                (protocol,) = await clients.number(1)
                transport = protocol.transport
                outer = sys.getprofile()
                sys.setprofile(profile)
                try:
                    with contextlib.suppress(Interrupted):
                        transport.get_extra_info("socket")
                finally:
                    sys.setprofile(outer)
                with tempfile.TemporaryFile() as stranger:
                    transport.write(b"data")
                    assert await in_thread(peer.recv, 100) == b"data"
                    assert transport.get_extra_info("socket").fileno() != -1
                    transport.close()
                    await protocol.lost
                    await turns()
                    assert stranger.read() == b""
                assert await in_thread(peer.recv, 100) == b""

    run(main())


@pytest.mark.parametrize("way", ["shutdown", "dup"])
def test_the_socket_is_behind_what_was_written(loop, run, way):
    async def main():
        ours, peer = tcp_socketpair(socket.AF_INET)
        with peer:
            transport, protocol = await loop.create_connection(Recorder, sock=ours)
            sock = transport.get_extra_info("socket")
            transport.write(b"written")
            if way == "dup":
                with sock.dup() as other:
                    other.send(b" before")
                transport.close()
            else:
                sock.shutdown(socket.SHUT_WR)
            await turns()
            assert peer.recv(100) == (b"written before" if way == "dup" else b"written")
            assert peer.recv(100) == b""
            transport.close()
            await protocol.lost
            sock.fileno()
            with pytest.raises(OSError):
                sock.shutdown(socket.SHUT_WR)

    run(main())


def test_a_child_writes_behind_what_was_written(loop, run):
    async def main():
        ours, peer = tcp_socketpair(socket.AF_INET)
        with peer:
            transport, protocol = await loop.create_connection(Recorder, sock=ours)
            transport.write(b"written")
            sock = transport.get_extra_info("socket")
            subprocess.run(["echo", " before"], stdout=sock, check=True)
            transport.close()
            await protocol.lost
            received = b""
            while data := peer.recv(100):
                received += data
            assert received == b"written before\n"

    run(main())


def test_the_socket_of_a_transport_that_is_gone(loop, run):
    async def main():
        ours, peer = tcp_socketpair(socket.AF_INET)
        with peer:
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
            sock = transport.get_extra_info("socket")
            gone = weakref.ref(transport)
            transport.abort()
            await turns()
            del transport
            gc.collect()
            assert gone() is None
            with pytest.raises(OSError):
                sock.shutdown(socket.SHUT_WR)

    run(main())


def test_a_method_that_is_set_on_a_transport(run):
    async def main():
        ours, theirs = socket.socketpair()
        _, writer = await asyncio.open_connection(sock=ours)
        writer.transport.get_extra_info = lambda name, default=None: (name, default)
        assert writer.get_extra_info("peername", "none") == ("peername", "none")
        writer.close()
        theirs.close()

    run(main())
