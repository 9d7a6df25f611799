"""What a program writes to a stream transport: kinds of data, order, when it leaves, the end."""

import array
import re
import sys

import pytest
from iosupport import (
    digest,
    in_thread,
    is_stock,
    pattern,
    raw_pair,
    read_exactly,
    turns,
)


@pytest.mark.parametrize("typecode", "hlqd")
def test_views_of_wide_items(loop, run, typecode):
    values = array.array(typecode, range(500))

    async def main():
        async with raw_pair() as (protocol, peer):
            protocol.transport.write(memoryview(values))
            assert (
                await in_thread(read_exactly, peer, len(values.tobytes()))
                == values.tobytes()
            )

    run(main())


def test_large_views_of_wide_items(loop, run):
    if is_stock(loop):
        pytest.skip("cuts such a view by items where the kernel counted bytes")
    values = array.array("q", range(300_000))

    async def main():
        async with raw_pair() as (protocol, peer):
            protocol.transport.write(memoryview(values))
            received = await in_thread(read_exactly, peer, len(values) * 8)
            assert digest(received) == digest(values.tobytes())

    run(main())


@pytest.mark.parametrize("size", [100, 100_000, 4_000_000])
def test_buffer_changed_after_write(loop, run, size):
    if is_stock(loop) and sys.version_info >= (3, 12):
        pytest.skip("keeps a view of the caller's buffer")
    data = pattern(size)

    async def main():
        async with raw_pair(size=8192) as (protocol, peer):
            for view in (False, True):
                buffer = bytearray(data)
                protocol.transport.write(memoryview(buffer) if view else buffer)
                buffer[:] = bytes(size)
                assert digest(await in_thread(read_exactly, peer, size)) == digest(data)

    run(main())


def test_order_of_small_and_large_writes(loop, run):
    chunks = [
        pattern(size, seed)
        for seed, size in enumerate([1, 10, 200_000, 5, 17_000, 3, 1_000_000, 100] * 4)
    ]

    async def main():
        async with raw_pair() as (protocol, peer):
            for chunk in chunks:
                protocol.transport.write(chunk)
            expected = b"".join(chunks)
            assert digest(await in_thread(read_exactly, peer, len(expected))) == digest(
                expected
            )

    run(main())


def test_thousands_of_small_writes(loop, run):
    # More pieces than one system call may carry.
    chunks = [b"%d," % number for number in range(5000)]

    async def main():
        async with raw_pair() as (protocol, peer):
            for chunk in chunks:
                protocol.transport.write(chunk)
            expected = b"".join(chunks)
            assert await in_thread(read_exactly, peer, len(expected)) == expected
            protocol.transport.writelines(chunks)
            assert await in_thread(read_exactly, peer, len(expected)) == expected

    run(main())


@pytest.mark.parametrize(
    "make",
    [
        lambda parts: parts,
        tuple,
        lambda parts: (part for part in parts),
        lambda parts: [bytearray(part) for part in parts],
        lambda parts: [memoryview(part) for part in parts],
    ],
    ids=["list", "tuple", "generator", "bytearrays", "views"],
)
@pytest.mark.parametrize("size", [10, 500_000])
def test_writelines(loop, run, make, size):
    parts = [pattern(size, seed) for seed in range(5)] + [b""] + [b"end"]

    async def main():
        async with raw_pair() as (protocol, peer):
            assert protocol.transport.writelines(make(parts)) is None
            protocol.transport.write(b".")
            expected = b"".join(parts) + b"."
            assert digest(await in_thread(read_exactly, peer, len(expected))) == digest(
                expected
            )
            protocol.transport.writelines([])
            protocol.transport.writelines([b"more"])
            assert await in_thread(read_exactly, peer, 4) == b"more"

    run(main())


@pytest.mark.parametrize(
    "data", ["text", None, 17, [b"list"], array.array("b", [1])], ids=repr
)
def test_write_refuses_what_is_not_bytes(loop, run, data):
    async def main():
        async with raw_pair() as (protocol, peer):
            name = type(data).__name__
            with pytest.raises(
                TypeError,
                match=f"data argument must be a bytes.*, not '{re.escape(name)}'",
            ):
                protocol.transport.write(data)
            protocol.transport.write(b"still fine")
            assert await in_thread(read_exactly, peer, 10) == b"still fine"

    run(main())


@pytest.mark.parametrize("item", ["text", None, 17, [b"list"]], ids=repr)
def test_writelines_refuses_what_is_not_bytes(loop, run, item):
    if is_stock(loop) and not item and sys.version_info >= (3, 14):
        pytest.skip("newer asyncio drops what is false")

    async def main():
        async with raw_pair() as (protocol, peer):
            with pytest.raises(TypeError) as info:
                protocol.transport.writelines([item])
            name = type(item).__name__
            assert str(info.value) == (
                f"sequence item 0: expected a bytes-like object, {name} found"
                if sys.version_info < (3, 12)
                else f"memoryview: a bytes-like object is required, not '{name}'"
            )
            protocol.transport.write(b"still fine")
            assert await in_thread(read_exactly, peer, 10) == b"still fine"

    run(main())


def test_empty_writes(loop, run):
    async def main():
        async with raw_pair() as (protocol, peer):
            for empty in (b"", bytearray(), memoryview(b"")):
                assert protocol.transport.write(empty) is None
            assert protocol.transport.get_write_buffer_size() == 0
            protocol.transport.write(b"x")
            assert await in_thread(read_exactly, peer, 1) == b"x"

    run(main())


def test_small_writes_go_out_without_another_turn_of_the_program(loop, run):
    async def main():
        async with raw_pair() as (protocol, peer):
            protocol.transport.write(b"one")
            protocol.transport.write(b"two")
            # Nothing but the peer's answer wakes the loop now.
            reading = in_thread(read_exactly, peer, 6)
            assert await reading == b"onetwo"

    run(main())


def test_write_then_a_blocked_loop_in_another_turn(loop, run):
    """Bytes written in a turn leave by the end of that turn."""

    async def main():
        async with raw_pair() as (protocol, peer):
            protocol.transport.write(b"before")
            await turns(2)
            # The loop stands here; the bytes must be in the kernel.
            assert peer.recv(100) == b"before"

    run(main())


def test_write_eof(loop, run):
    async def main():
        async with raw_pair() as (protocol, peer):
            transport = protocol.transport
            assert transport.can_write_eof() is True
            transport.write(b"last")
            assert transport.write_eof() is None
            transport.write_eof()
            for write in (transport.write, lambda data: transport.writelines([data])):
                with pytest.raises(
                    RuntimeError,
                    match=r"Cannot call write(lines)?\(\) after write_eof\(\)",
                ):
                    write(b"more")
            assert await in_thread(read_exactly, peer, 100) == b"last"
            # The other way is still open.
            peer.send(b"answer")
            assert await protocol.received(6) == b"answer"
            assert not transport.is_closing()

    run(main())


def test_write_eof_waits_for_the_buffer(loop, run):
    data = pattern(3_000_000)

    async def main():
        async with raw_pair(size=8192) as (protocol, peer):
            protocol.transport.write(data)
            protocol.transport.write_eof()
            assert digest(await in_thread(read_exactly, peer, len(data) + 1)) == digest(
                data
            )

    run(main())


def test_write_eof_behind_what_waits_where_the_peer_is_gone(loop, run):
    """It tries nothing itself, so what is told is what reading finds."""

    async def main():
        async with raw_pair() as (protocol, peer):
            protocol.transport.write(bytes(3_000_000))
            peer.close()
            protocol.transport.write_eof()
            assert isinstance(await protocol.lost, ConnectionResetError)

    run(main())


@pytest.mark.parametrize("behind", ["the turn", "get_write_buffer_size"])
def test_a_full_socket_is_not_asked_again(loop, run, behind):
    """What is told of a peer that is gone is what reading finds."""

    async def main():
        async with raw_pair() as (protocol, peer):
            protocol.transport.write(b"small")
            protocol.transport.write(bytes(3_000_000))
            peer.close()
            if behind != "the turn":
                protocol.transport.get_write_buffer_size()
            assert isinstance(await protocol.lost, ConnectionResetError)

    run(main())


def test_writelines_of_what_ends_the_stream(loop, run):
    """Up to Python 3.11, writelines() is a write() of all of them."""

    async def main():
        async with raw_pair() as (protocol, peer):
            transport = protocol.transport

            def lines():
                yield b"1"
                transport.write_eof()
                yield b"2"

            if sys.version_info >= (3, 12):
                transport.write_eof()
                with pytest.raises(RuntimeError, match=r"writelines\(\) after"):
                    transport.writelines([1])
                return
            with pytest.raises(RuntimeError, match=r"write\(\) after write_eof"):
                transport.writelines(lines())
            with pytest.raises(TypeError, match="bytes-like object, int found"):
                transport.writelines([1])
            assert await in_thread(peer.recv, 10) == b""

    run(main())
