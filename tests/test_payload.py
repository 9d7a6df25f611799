"""What write() and writelines() take, and that it leaves as it was: sockets, TLS, pipes."""

import array
import contextlib
import sys

import pytest
from iosupport import (
    in_thread,
    is_stock,
    pattern,
    raw_pair,
    read_all,
    read_exactly,
    write_pipe,
)
from tlssupport import Certificates, tls_pair

# More than waits for the end of the turn, and less than any of them takes at once.
SIZES = [3, 40_000]


@pytest.fixture(scope="module")
def tls():
    return Certificates()


@pytest.fixture(params=["socket", "tls", "pipe"])
def writer(request, tls):
    """A context of a transport to write to, and a coroutine that reads so many bytes."""

    @contextlib.asynccontextmanager
    async def opened():
        if request.param == "tls":
            async with tls_pair(tls) as (client, server):
                yield client.transport, server.received
        elif request.param == "pipe":
            async with write_pipe() as (protocol, file):
                yield protocol.transport, lambda size: in_thread(read_all, file, size)
        else:
            async with raw_pair() as (protocol, peer):
                yield (
                    protocol.transport,
                    lambda size: in_thread(read_exactly, peer, size),
                )

    opened.kind = request.param
    return opened


@pytest.mark.parametrize("size", SIZES)
def test_a_view_with_gaps(loop, run, writer, size):
    if is_stock(loop):
        pytest.skip("hands it on to who wants bytes in a row")
    data = pattern(2 * size)

    async def main():
        async with writer() as (transport, read):
            transport.write(memoryview(data)[::2])
            assert await read(size) == data[::2]

    run(main())


@pytest.mark.parametrize("kind", [bytearray, memoryview])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_changed_behind_the_write(loop, run, writer, kind, size):
    if is_stock(loop) and (writer.kind == "tls" or sys.version_info >= (3, 12)):
        pytest.skip("keeps what it was given, not a copy")
    data = pattern(size)
    buffer = bytearray(data)

    async def main():
        async with writer() as (transport, read):
            transport.write(buffer if kind is bytearray else memoryview(buffer))
            buffer[:] = bytes(size)
            assert await read(size) == data

    run(main())


def test_bytes_of_another_class(run, writer):
    class Own(bytes):
        pass

    async def main():
        async with writer() as (transport, read):
            transport.write(Own(b"one"))
            transport.writelines([Own(b"two"), b"three"])
            assert await read(11) == b"onetwothree"

    run(main())


def test_wide_items(run, writer):
    values = array.array("q", range(10))

    async def main():
        async with writer() as (transport, read):
            transport.writelines([memoryview(values).cast("B"), memoryview(b"end")])
            assert await read(83) == values.tobytes() + b"end"

    run(main())


def test_all_lines_or_none(loop, run, writer):
    if is_stock(loop) and writer.kind == "tls":
        pytest.skip("takes them all, and the connection ends")

    async def main():
        async with writer() as (transport, read):
            with pytest.raises((TypeError, AssertionError)):
                transport.writelines([b"lost", bytearray(b"lost"), "text"])
            if is_stock(loop) and transport.get_write_buffer_size():
                transport.abort()
                pytest.skip("newer asyncio keeps the lines before, and sends nothing")
            transport.write(b"whole")
            assert await read(5) == b"whole"

    run(main())
