"""When writes leave, in how many pieces, and what of them is copied."""

import random
import select
import socket
import struct
import sys

import pytest
from iosupport import (
    fill,
    in_thread,
    is_stock,
    raw_pair,
    read_exactly,
    settle,
    turns,
)

SMALL = 16 * 1024
"""fastloop sends at once from this size on."""


def segments(sock):
    """How many TCP segments with data a socket has received; None if nobody knows."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return struct.unpack_from("I", info, 152)[0] if len(info) >= 156 else None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="is Linux's")
def test_small_writes_of_a_turn_leave_together(loop, run):
    if is_stock(loop):
        pytest.skip("sends each at once")

    async def main():
        async with raw_pair(tcp=True) as (protocol, peer):
            if segments(peer) is None:
                pytest.skip("an old kernel")
            for round_ in range(1, 4):
                for _ in range(4):
                    protocol.transport.write(b"x" * 256)
                protocol.transport.writelines([b"y" * 100] * 10)
                await settle()
                assert segments(peer) == round_
                assert len(peer.recv(10_000)) == 4 * 256 + 1000

    run(main())


def peek(sock):
    """How many bytes wait in a socket."""
    if not select.select([sock], [], [], 0)[0]:
        return 0
    return len(sock.recv(1 << 20, socket.MSG_PEEK))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_when_a_write_leaves(loop, run, kind):
    async def main():
        async with raw_pair() as (protocol, peer):
            transport = protocol.transport
            small, large = (
                kind(b"s" * (SMALL - 1)),
                kind(b"l" * SMALL),
            )
            transport.write(small)
            assert peek(peer) == (len(small) if is_stock(loop) else 0)
            await turns(1)
            assert peek(peer) == len(small)
            peer.recv(1 << 20)
            transport.write(large)
            assert peek(peer) == len(large)
            peer.recv(1 << 20)
            # What follows it in its turn may wait for more, by the MiB.
            transport.write(large)
            transport.write(large)
            await turns(1)
            assert peek(peer) == 2 * len(large)
            peer.recv(1 << 20)
            # Many small ones are large together.
            for _ in range(16):
                transport.write(kind(b"m" * 1024))
            assert peek(peer) == SMALL

    run(main())


@pytest.mark.parametrize("method", ["close", "abort", "write_eof", "size"])
def test_what_sends_small_writes_early(loop, run, method):
    async def main():
        async with raw_pair() as (protocol, peer):
            transport = protocol.transport
            transport.write(b"early")
            if method == "size":
                assert transport.get_write_buffer_size() == 0
            else:
                getattr(transport, method)()
            assert peer.recv(100) == b"early"

    run(main())


def test_bytes_are_not_copied(loop, run):
    if is_stock(loop) and sys.version_info < (3, 12):
        pytest.skip("keeps a bytearray")

    async def main():
        async with raw_pair() as (protocol, peer):
            fill(protocol.transport.get_extra_info("socket")._sock)
            data = bytes(1_000_000)
            before = sys.getrefcount(data)
            protocol.transport.write(data)
            assert sys.getrefcount(data) > before  # kept, not copied
            assert protocol.transport.get_write_buffer_size() == len(data)
            protocol.transport.abort()
            await protocol.lost
            await turns()
            assert sys.getrefcount(data) == before
            peer.close()

    run(main())


def test_a_buffer_may_be_resized_after_write(loop, run):
    """What is kept is a copy: the caller's buffer is not locked."""
    if is_stock(loop) and sys.version_info >= (3, 12):
        pytest.skip("asyncio keeps the buffer itself")

    async def main():
        async with raw_pair() as (protocol, peer):
            fill(protocol.transport.get_extra_info("socket")._sock)
            data = bytearray(b"x" * 300_000)
            protocol.transport.write(data)
            data.clear()
            data += b"y" * 10
            assert protocol.transport.get_write_buffer_size() == 300_000
            protocol.transport.abort()
            peer.close()

    run(main())


def test_small_writes_in_great_number_share_a_system_call(loop, run):
    if is_stock(loop):
        pytest.skip("sends each at once")

    async def main():
        async with raw_pair(tcp=True) as (protocol, peer):
            transport = protocol.transport
            data = bytes(range(256)) * 60
            before = loop.metrics().traffic["tcp"].writes
            for at in range(len(data)):
                transport.write(data[at : at + 1])
            await turns(1)
            assert loop.metrics().traffic["tcp"].writes == before + 1
            assert read_exactly(peer, len(data)) == data

    run(main())


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("most", [3, 600, 20_000])
def test_many_writes_that_wait_leave_in_their_order(loop, run, kind, most):
    """Small ones share memory behind the first few, beside large ones that do not."""
    draw = random.Random(most)

    async def main():
        async with raw_pair() as (protocol, peer):
            transport = protocol.transport
            written = fill(transport.get_extra_info("socket")._sock)
            expected = bytearray(b"x" * written)
            for _ in range(20):
                for _ in range(200):
                    part = draw.randbytes(draw.randrange(1, most))
                    transport.write(kind(part))
                    expected += part
                await turns(2)
                # A part of what waits, ending anywhere.
                count = draw.randrange(min(len(expected), 40_000))
                got = await in_thread(read_exactly, peer, count)
                assert got == expected[:count]
                del expected[:count]
                await turns(2)
            rest = await in_thread(read_exactly, peer, len(expected))
            assert rest == expected
            assert transport.get_write_buffer_size() == 0

    run(main())
