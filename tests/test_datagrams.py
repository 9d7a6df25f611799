"""Datagrams as they arrive."""

import contextlib
import sys

import pytest
from iosupport import (
    DatagramRecorder,
    endpoint,
    name_of,
    pattern,
    plain_udp,
    turns,
)

LOCAL = {"local_addr": ("127.0.0.1", 0)}


@pytest.mark.parametrize("size", [1, 100, 1500, 9000, 65507])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_sizes(loop, run, kind, size):
    data = pattern(size)

    async def main():
        async with endpoint(**LOCAL) as a, endpoint(**LOCAL) as b:
            a.transport.sendto(kind(data), name_of(b))
            assert await b.count(1) == [(data, name_of(a))]

    run(main())


def test_empty_datagram(loop, run):
    async def main():
        async with endpoint(**LOCAL) as protocol:
            with plain_udp() as sock:
                sock.sendto(b"", name_of(protocol))
                assert await protocol.count(1) == [(b"", sock.getsockname())]
                protocol.transport.sendto(b"", sock.getsockname())
                protocol.transport.sendto(b"end", sock.getsockname())
                await turns(2)
                if sys.version_info >= (3, 13):
                    assert sock.recv(10) == b""
                # Older versions send none.
                assert sock.recv(10) == b"end"

    run(main())


def test_bursts_keep_order_and_borders(loop, run):
    async def main():
        async with endpoint(**LOCAL) as a, endpoint(**LOCAL) as b:
            total = 0
            for burst in range(20):
                for index in range(64):
                    a.transport.sendto(b"%d/%d" % (burst, index), name_of(b))
                total += 64
                await b.count(total)
            assert [data for data, _ in b.datagrams] == [
                b"%d/%d" % (n, i) for n in range(20) for i in range(64)
            ]
            assert {address for _, address in b.datagrams} == {name_of(a)}

    run(main())


def test_ping_pong_from_inside_the_callback(loop, run):
    class Pong(DatagramRecorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if int(data) < 200:
                self.transport.sendto(b"%d" % (int(data) + 1), addr)

    async def main():
        async with endpoint(Pong, **LOCAL) as a, endpoint(Pong, **LOCAL) as b:
            a.transport.sendto(b"0", name_of(b))
            await b.until(lambda: b.datagrams and int(b.datagrams[-1][0]) >= 200)
            assert [int(data) for data, _ in b.datagrams] == list(range(0, 201, 2))
            assert [int(data) for data, _ in a.datagrams] == list(range(1, 200, 2))

    run(main())


def test_many_peers(loop, run):
    async def main():
        async with endpoint(**LOCAL) as server:
            with contextlib.ExitStack() as stack:
                socks = [stack.enter_context(plain_udp()) for _ in range(30)]
                for index, sock in enumerate(socks):
                    sock.sendto(b"%d" % index, name_of(server))
                await server.count(30)
                assert sorted(server.datagrams) == sorted(
                    (b"%d" % index, sock.getsockname())
                    for index, sock in enumerate(socks)
                )
                for data, address in server.datagrams:
                    server.transport.sendto(data * 2, address)
                await turns(2)
                for index, sock in enumerate(socks):
                    assert sock.recv(100) == b"%d" % index * 2

    run(main())


def test_connected_endpoint_hears_only_its_peer(loop, run):
    async def main():
        with plain_udp() as peer, plain_udp() as stranger:
            async with endpoint(remote_addr=peer.getsockname()) as protocol:
                address = name_of(protocol)
                stranger.sendto(b"stranger", address)
                peer.sendto(b"peer", address)
                assert await protocol.count(1) == [(b"peer", peer.getsockname())]

    run(main())
