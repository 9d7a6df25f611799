"""sendfile() of transports and sock_sendfile() of sockets."""

import asyncio
import io
import os
import socket
import sys

import pytest
from iosupport import (
    BufferedRecorder,
    Recorder,
    capture,
    digest,
    in_thread,
    is_stock,
    pattern,
    raw_pair,
    read_exactly,
    reset,
    settle,
    tcp_socketpair,
    turns,
)

SIZE = 5_000_000


@pytest.fixture(scope="module")
def content():
    return pattern(SIZE)


@pytest.fixture
def file(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with open(path, "rb") as file:
        yield file


@pytest.fixture(params=["unix", "tcp"])
def pair(request):
    a, b = socket.socketpair() if request.param == "unix" else tcp_socketpair()
    a.setblocking(False)
    b.settimeout(30)
    with a, b:
        yield a, b


class Odd(io.BytesIO):
    """A file that the kernel knows nothing of."""


RANGES = [
    (0, None),
    (0, 1),
    (1000, None),
    (1000, 70_000),
    (SIZE - 5, 100),
    (0, SIZE),
    (0, SIZE + 5),
    (SIZE, None),
]


# Sockets


@pytest.mark.parametrize(("offset", "count"), RANGES)
@pytest.mark.parametrize("odd", [False, True])
def test_socket(loop, run, pair, file, content, offset, count, odd):
    a, b = pair
    expected = content[offset:] if count is None else content[offset : offset + count]
    source = Odd(content) if odd else file

    async def main():
        reading = in_thread(read_exactly, b, len(expected))
        sent = await loop.sock_sendfile(a, source, offset, count)
        assert sent == len(expected)
        assert digest(await reading) == digest(expected)
        if expected:
            assert source.tell() == offset + len(expected)
        assert loop.remove_writer(a) is False

    run(main())


def test_socket_defaults(loop, run, pair, file, content):
    a, b = pair

    async def main():
        reading = in_thread(read_exactly, b, SIZE)
        assert await loop.sock_sendfile(a, file) == SIZE
        assert digest(await reading) == digest(content)

    run(main())


def test_empty_file(loop, run, pair, tmp_path):
    a, _ = pair
    (tmp_path / "empty").write_bytes(b"")

    async def main():
        with open(tmp_path / "empty", "rb") as empty:
            assert await loop.sock_sendfile(a, empty) == 0
            assert empty.tell() == 0
        assert await loop.sock_sendfile(a, Odd()) == 0
        async with raw_pair() as (protocol, _):
            with open(tmp_path / "empty", "rb") as empty:
                assert await loop.sendfile(protocol.transport, empty) == 0
            assert await loop.sendfile(protocol.transport, Odd()) == 0
            assert protocol.transport.is_reading()

    run(main())


def test_no_fallback(loop, run, pair, file, content):
    a, b = pair

    async def main():
        with pytest.raises(asyncio.SendfileNotAvailableError):
            await loop.sock_sendfile(a, Odd(b"x"), fallback=False)
        reading = in_thread(read_exactly, b, SIZE)
        assert await loop.sock_sendfile(a, file, fallback=False) == SIZE
        assert digest(await reading) == digest(content)
        async with raw_pair() as (protocol, _):
            with pytest.raises(asyncio.SendfileNotAvailableError):
                await loop.sendfile(protocol.transport, Odd(b"x"), fallback=False)
            assert protocol.transport.is_reading()

    run(main())


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"count": 1.5}, TypeError, r"count must be a positive integer \(got 1.5\)"),
        ({"count": "1"}, TypeError, r"count must be a positive integer \(got '1'\)"),
        ({"count": 0}, ValueError, r"count must be a positive integer \(got 0\)"),
        ({"count": -1}, ValueError, r"count must be a positive integer \(got -1\)"),
        (
            {"offset": -1},
            ValueError,
            r"offset must be a non-negative integer \(got -1\)",
        ),
        (
            {"offset": "0"},
            TypeError,
            r"offset must be a non-negative integer \(got '0'\)",
        ),
    ],
)
def test_wrong_arguments(loop, run, pair, file, kwargs, error, message):
    a, _ = pair

    async def main():
        with pytest.raises(error, match=message):
            await loop.sock_sendfile(a, file, **kwargs)
        async with raw_pair() as (protocol, _):
            with pytest.raises(error, match=message):
                await loop.sendfile(protocol.transport, file, **kwargs)
            # Nothing stays as the attempt had set it.
            assert protocol.transport.is_reading()
            protocol.transport.write(b"x")

    run(main())


def test_wrong_objects(loop, run, pair, file, tmp_path):
    a, _ = pair

    async def main():
        with open(file.name, encoding="latin-1") as text:
            with pytest.raises(
                ValueError, match="file should be opened in binary mode"
            ):
                await loop.sock_sendfile(a, text)
        with socket.socket(type=socket.SOCK_DGRAM) as datagram:
            datagram.setblocking(False)
            with pytest.raises(
                ValueError, match="only SOCK_STREAM type sockets are supported"
            ):
                await loop.sock_sendfile(datagram, file)
        loop.set_debug(True)
        with socket.socket() as blocking:
            with pytest.raises(ValueError, match="the socket must be non-blocking"):
                await loop.sock_sendfile(blocking, file)

    run(main())


def test_cancelled(loop, run, pair, file, content):
    a, b = pair

    async def main():
        task = asyncio.create_task(loop.sock_sendfile(a, file))
        await settle()
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await turns()
        assert loop.remove_writer(a) is False
        a.shutdown(socket.SHUT_WR)
        received = await in_thread(read_exactly, b, SIZE)
        assert 0 < len(received) < SIZE
        assert content.startswith(received)

    run(main())


def test_peer_that_went(loop, run, pair, file):
    a, b = pair

    async def main():
        task = asyncio.create_task(loop.sock_sendfile(a, file))
        await settle()
        assert not task.done()
        b.close()
        with pytest.raises(ConnectionError):
            await task
        assert loop.remove_writer(a) is False

    run(main())


# Transports


@pytest.mark.parametrize(("offset", "count"), RANGES)
@pytest.mark.parametrize("odd", [False, True])
def test_transport(loop, run, file, content, offset, count, odd):
    expected = content[offset:] if count is None else content[offset : offset + count]
    source = Odd(content) if odd else file
    if odd and is_stock(loop) and sys.version_info >= (3, 12):
        pytest.skip("asyncio reads over what it has not sent yet")

    async def main():
        async with raw_pair() as (protocol, peer):
            reading = in_thread(read_exactly, peer, len(expected))
            assert await loop.sendfile(
                protocol.transport, source, offset, count
            ) == len(expected)
            assert digest(await reading) == digest(expected)
            if expected:
                assert source.tell() == offset + len(expected)
            assert protocol.transport.get_protocol() is protocol

    run(main())


@pytest.mark.parametrize("odd", [False, True])
def test_between_writes(loop, run, file, content, odd):
    source = Odd(content) if odd else file
    if odd and is_stock(loop) and sys.version_info >= (3, 12):
        pytest.skip("asyncio reads over what it has not sent yet")

    async def main():
        async with raw_pair() as (protocol, peer):
            before, after = pattern(700_000, 2), pattern(300_000, 3)
            protocol.transport.write(before)
            reading = in_thread(read_exactly, peer, len(before) + SIZE + len(after))
            assert await loop.sendfile(protocol.transport, source) == SIZE
            protocol.transport.write(after)
            assert digest(await reading) == digest(before + content + after)

    run(main())


@pytest.mark.parametrize("factory", [Recorder, BufferedRecorder])
@pytest.mark.parametrize("odd", [False, True])
def test_reading_goes_on_afterwards(loop, run, file, content, odd, factory):
    source = Odd(content) if odd else file

    async def main():
        async with raw_pair(factory) as (protocol, peer):
            task = asyncio.create_task(loop.sendfile(protocol.transport, source))
            await settle()
            peer.send(b"meanwhile")
            reading = in_thread(read_exactly, peer, SIZE)
            await task
            assert protocol.transport.is_reading()
            assert await protocol.received(9) == b"meanwhile"
            await reading

    run(main())


@pytest.mark.parametrize("odd", [False, True])
def test_paused_reading_stays_paused(loop, run, file, content, odd):
    source = Odd(content) if odd else file

    async def main():
        async with raw_pair() as (protocol, peer):
            protocol.transport.pause_reading()
            reading = in_thread(read_exactly, peer, SIZE)
            await loop.sendfile(protocol.transport, source)
            assert not protocol.transport.is_reading()
            await reading

    run(main())


@pytest.mark.parametrize("name", ["close", "abort"])
def test_closing_transport(loop, run, file, name):
    async def main():
        async with raw_pair() as (protocol, _):
            getattr(protocol.transport, name)()
            with pytest.raises(RuntimeError, match="Transport is closing"):
                await loop.sendfile(protocol.transport, file)

    run(main())


def test_transport_of_another_kind(loop, run, file):
    async def main():
        r, w = os.pipe()
        with os.fdopen(r, "rb", 0):
            transport, protocol = await loop.connect_write_pipe(
                Recorder, os.fdopen(w, "wb", 0)
            )
            with pytest.raises(
                RuntimeError, match="sendfile is not supported for transport"
            ):
                await loop.sendfile(transport, file)
            transport.close()
            await protocol.lost
            await turns(2)

    run(main())


@pytest.mark.parametrize("odd", [False, True])
def test_transport_lost_meanwhile(loop, run, file, content, odd):
    capture(loop)
    source = Odd(content) if odd else file

    async def main():
        async with raw_pair(tcp=True) as (protocol, peer):
            task = asyncio.create_task(loop.sendfile(protocol.transport, source))
            await asyncio.sleep(0.05)
            assert not task.done()
            reset(peer)
            with pytest.raises(ConnectionError):
                await task

    run(main())


@pytest.mark.parametrize("after", range(8))
def test_aborted_as_the_last_bytes_leave(loop, run, file, after):
    # The event that ends the sendfile() and the end of the transport are of one turn.
    if is_stock(loop):
        pytest.skip("asyncio reports InvalidStateError")
    errors = capture(loop)

    async def main():
        async with raw_pair() as (protocol, _):
            task = asyncio.create_task(loop.sendfile(protocol.transport, file, 0, 1))
            await turns(after)
            protocol.transport.abort()
            await asyncio.wait([task], timeout=10)
            assert task.done()
            assert task.exception() or task.result() == 1

    run(main())
    assert not errors


def test_cancelled_sendfile_of_a_transport(loop, run, file, content):
    async def main():
        async with raw_pair() as (protocol, peer):
            task = asyncio.create_task(loop.sendfile(protocol.transport, file))
            await settle()
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await turns()
            # The transport is usable.
            assert protocol.transport.is_reading()
            protocol.transport.write(b"afterwards")
            protocol.transport.close()
            received = await in_thread(read_exactly, peer, SIZE + 10)
            assert received.endswith(b"afterwards")
            assert content.startswith(received[:-10])
            assert len(received) < SIZE

    run(main())


def test_two_at_once(loop, run, file, content):
    async def main():
        async with raw_pair() as (protocol, peer):
            protocol.transport.write(bytes(1_000_000))
            first = asyncio.create_task(loop.sendfile(protocol.transport, file))
            await turns()
            error, message = RuntimeError, "Empty waiter is already set"
            if is_stock(loop):
                error, message = KeyError, None
            with pytest.raises(error, match=message):
                await loop.sendfile(protocol.transport, file)
            received = await in_thread(read_exactly, peer, 1_000_000 + SIZE)
            assert await first == SIZE
            assert digest(received[1_000_000:]) == digest(content)

    run(main())
