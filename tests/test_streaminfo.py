"""What stream transports tell of themselves."""

import asyncio
import re
import socket
import sys

import pytest
from iosupport import (
    Recorder,
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
