"""asyncio's own streams over the transports: start_server, open_connection and their Unix twins."""

import asyncio
import contextlib
import gc
import socket
import sys

import pytest
from iosupport import (
    SIZES,
    capture,
    digest,
    in_thread,
    pattern,
    read_exactly,
    reset,
    settle,
    tcp_socketpair,
    turns,
)


@contextlib.asynccontextmanager
async def echo_server():
    tasks = set()

    async def handle(reader, writer):
        tasks.add(asyncio.current_task())
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()
        await asyncio.gather(*tasks)
    await turns()


@contextlib.asynccontextmanager
async def stream_pair(*, tcp=False, limit=2**16):
    """A reader and a writer joined to a plain blocking socket."""
    ours, peer = tcp_socketpair() if tcp else socket.socketpair()
    peer.settimeout(30)
    with peer:
        reader, writer = await asyncio.open_connection(sock=ours, limit=limit)
        try:
            yield reader, writer, peer
        finally:
            if not writer.transport.is_closing():
                writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            await turns()


@pytest.mark.parametrize("size", SIZES)
def test_echo(loop, run, size):
    data = pattern(size)

    async def main():
        async with echo_server() as address:
            reader, writer = await asyncio.open_connection(*address)

            async def send():
                writer.write(data)
                await writer.drain()
                writer.write_eof()

            sending = asyncio.create_task(send())
            assert digest(await reader.read(-1)) == digest(data)
            await sending
            assert reader.at_eof()
            writer.close()
            await writer.wait_closed()
            assert writer.is_closing()

    run(main())


def test_many_clients_of_a_line_server(loop, run):
    async def handle(reader, writer):
        async for line in reader:
            writer.write(line.upper())
        writer.close()
        await writer.wait_closed()

    async def client(address, number):
        reader, writer = await asyncio.open_connection(*address)
        for turn in range(20):
            writer.write(b"client %d line %d\n" % (number, turn))
        await writer.drain()
        writer.write_eof()
        lines = [line async for line in reader]
        writer.close()
        await writer.wait_closed()
        assert lines == [b"CLIENT %d LINE %d\n" % (number, turn) for turn in range(20)]

    async def main():
        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            address = server.sockets[0].getsockname()
            await asyncio.gather(*(client(address, number) for number in range(50)))
        await settle()

    run(main())


def test_open_connection_by_name(loop, run):
    async def main():
        async with echo_server() as address:
            reader, writer = await asyncio.open_connection(
                "localhost", address[1], family=socket.AF_INET
            )
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            writer.close()
            await writer.wait_closed()

    run(main())


@pytest.mark.parametrize(
    "form",
    [str, lambda path: path, lambda path: str(path).encode()],
    ids=["str", "path", "bytes"],
)
def test_unix_streams(loop, run, tmp_path, form):
    async def handle(reader, writer):
        writer.write(await reader.readline())
        writer.close()
        await writer.wait_closed()

    async def main():
        path = form(tmp_path / "socket")
        async with await asyncio.start_unix_server(handle, path):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"hello\n")
            assert await reader.read() == b"hello\n"
            writer.close()
            await writer.wait_closed()
        await turns()

    run(main())


# Reading


def test_read_calls(loop, run):
    async def main():
        async with stream_pair() as (reader, _, peer):
            peer.send(b"line one\nline two\r\nrest of it|and more")
            assert await reader.readline() == b"line one\n"
            assert await reader.readuntil(b"\r\n") == b"line two\r\n"
            assert await reader.readuntil(b"|") == b"rest of it|"
            assert await reader.readexactly(3) == b"and"
            assert await reader.read(100) == b" more"
            assert await reader.read(0) == b""
            assert await reader.readexactly(0) == b""
            peer.send(b"split ")
            task = asyncio.create_task(reader.readexactly(10))
            await turns()
            assert not task.done()
            peer.send(b"here!")
            assert await task == b"split here"
            assert not reader.at_eof()
            peer.shutdown(socket.SHUT_WR)
            assert await reader.read() == b"!"
            assert reader.at_eof()
            assert await reader.read() == b""
            assert await reader.readline() == b""

    run(main())


def test_incomplete_reads(loop, run):
    async def main():
        for read in (
            lambda reader: reader.readexactly(10),
            lambda reader: reader.readuntil(b"\n"),
        ):
            async with stream_pair() as (reader, _, peer):
                task = asyncio.create_task(read(reader))
                await turns()
                peer.send(b"part")
                peer.shutdown(socket.SHUT_WR)
                with pytest.raises(asyncio.IncompleteReadError) as info:
                    await task
                assert info.value.partial == b"part"
        async with stream_pair() as (reader, _, peer):
            peer.send(b"no newline")
            peer.shutdown(socket.SHUT_WR)
            assert await reader.readline() == b"no newline"

    run(main())


def test_limits_of_lines(loop, run):
    async def main():
        async with stream_pair(limit=16) as (reader, _, peer):
            peer.send(b"x" * 100 + b"\nshort\n")
            with pytest.raises(ValueError, match="limit"):
                await reader.readline()
            assert await reader.readline() == b"short\n"
            peer.send(b"y" * 100)
            with pytest.raises(asyncio.LimitOverrunError):
                await reader.readuntil(b"\n")
            assert await reader.readexactly(100) == b"y" * 100

    run(main())


def test_concurrent_reads_are_refused(loop, run):
    async def main():
        async with stream_pair() as (reader, _, peer):
            task = asyncio.create_task(reader.read(1))
            await turns()
            with pytest.raises(
                RuntimeError,
                match="while another coroutine is already waiting for incoming data",
            ):
                await reader.read(1)
            peer.send(b"x")
            assert await task == b"x"

    run(main())


def test_cancelled_read_loses_nothing(loop, run):
    async def main():
        async with stream_pair() as (reader, _, peer):
            for _ in range(20):
                task = asyncio.create_task(reader.readexactly(4))
                await turns()
                peer.send(b"ab")
                await turns(1)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                peer.send(b"cd")
                assert await reader.readexactly(4) == b"abcd"

    run(main())


def test_unread_bytes_hold_the_peer_back(loop, run):
    async def main():
        async with stream_pair(limit=1000) as (reader, writer, peer):
            sending = in_thread(peer.sendall, bytes(10_000_000))
            while writer.transport.is_reading():
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.02)
            assert not sending.done()
            assert len(await reader.readexactly(10_000_000)) == 10_000_000
            await sending
            assert writer.transport.is_reading()

    run(main())


def test_data_before_the_reset_can_be_read(loop, run):
    async def main():
        async with stream_pair(tcp=True) as (reader, writer, peer):
            peer.send(b"first")
            assert await reader.readexactly(5) == b"first"
            task = asyncio.create_task(reader.read(10))
            await turns()
            reset(peer)
            with pytest.raises(ConnectionResetError):
                await task
            assert isinstance(reader.exception(), ConnectionResetError)
            with pytest.raises(ConnectionResetError):
                await reader.read(10)
            with pytest.raises(ConnectionResetError):
                await writer.drain()
            with pytest.raises(ConnectionResetError):
                await writer.wait_closed()

    run(main())


# Writing


def test_drain_waits_for_the_peer(loop, run):
    async def main():
        async with stream_pair() as (_, writer, peer):
            await writer.drain()
            writer.write(bytes(100 * 1024 * 1024))
            task = asyncio.create_task(writer.drain())
            await asyncio.sleep(0.05)
            assert not task.done()
            left = in_thread(read_exactly, peer, 100 * 1024 * 1024)
            await task
            assert writer.transport.get_write_buffer_size() <= 16384
            assert len(await left) == 100 * 1024 * 1024

    run(main())


def test_several_drains_wait_together(loop, run):
    async def main():
        async with stream_pair() as (_, writer, peer):
            writer.write(bytes(5_000_000))
            tasks = [asyncio.create_task(writer.drain()) for _ in range(5)]
            await turns()
            assert not any(task.done() for task in tasks)
            await in_thread(read_exactly, peer, 5_000_000)
            await asyncio.gather(*tasks)

    run(main())


def test_drain_after_the_loss(loop, run):
    async def main():
        async with stream_pair(tcp=True) as (_reader, writer, peer):
            writer.write(bytes(20_000_000))
            task = asyncio.create_task(writer.drain())
            await settle()
            assert not task.done()
            reset(peer)
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                await task
            writer.write(b"dropped")
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                await writer.drain()

    run(main())


def test_drain_after_close(loop, run):
    async def main():
        async with stream_pair() as (_, writer, _):
            writer.close()
            await writer.wait_closed()
            with pytest.raises(ConnectionResetError, match="Connection lost"):
                await writer.drain()
            writer.write(b"dropped")
            writer.close()

    run(main())


def test_write_eof_and_answer(loop, run):
    async def main():
        async with stream_pair() as (reader, writer, peer):
            assert writer.can_write_eof()
            writer.writelines([b"request", b" in ", b"parts"])
            writer.write_eof()
            assert await in_thread(read_exactly, peer, 1000) == b"request in parts"
            peer.send(b"answer")
            peer.shutdown(socket.SHUT_WR)
            assert await reader.read() == b"answer"
            # The end of the peer's data closes nothing.
            assert not writer.is_closing()

    run(main())


def test_half_closed_by_the_peer(loop, run):
    async def main():
        async with stream_pair() as (reader, writer, peer):
            peer.shutdown(socket.SHUT_WR)
            assert await reader.read() == b""
            data = pattern(2_000_000)
            writer.write(data)
            reading = in_thread(read_exactly, peer, len(data))
            await writer.drain()
            assert digest(await reading) == digest(data)

    run(main())


def test_close_flushes(loop, run):
    async def main():
        async with stream_pair() as (_, writer, peer):
            data = pattern(3_000_000)
            writer.write(data)
            writer.close()
            reading = in_thread(read_exactly, peer, len(data) + 1)
            await writer.wait_closed()
            assert digest(await reading) == digest(data)

    run(main())


def test_extra_info(loop, run):
    async def main():
        async with stream_pair(tcp=True) as (_, writer, peer):
            assert writer.get_extra_info("peername") == peer.getsockname()
            assert writer.get_extra_info("sockname") == peer.getpeername()
            assert writer.get_extra_info("nothing", 3) == 3
            assert "StreamWriter" in repr(writer)

    run(main())


# Servers


def test_plain_function_as_callback(loop, run):
    async def main():
        seen = loop.create_future()

        def connected(reader, writer):
            writer.write(b"hi")
            writer.close()
            seen.set_result(writer)

        async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname()
            )
            assert await reader.read() == b"hi"
            await (await seen).wait_closed()
            writer.close()
            await writer.wait_closed()

    run(main())


def test_exception_of_a_handler_is_reported(loop, run):
    contexts = capture(loop)

    async def handle(reader, writer):
        raise ZeroDivisionError

    async def main():
        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname()
            )
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
            await turns()

    run(main())
    assert len(contexts) == 1
    assert contexts[0]["message"] == "Unhandled exception in client_connected_cb"
    assert isinstance(contexts[0]["exception"], ZeroDivisionError)
    assert isinstance(contexts[0]["transport"], asyncio.Transport)


def test_callback_that_raises(loop, run):
    contexts = capture(loop)

    async def main():
        writers = []

        def connected(reader, writer):
            writers.append(writer)
            raise ZeroDivisionError

        async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            while not contexts:
                await asyncio.sleep(0)
            writer.close()
            await writer.wait_closed()
            writers[0].transport.abort()
            await turns()

    run(main())
    assert isinstance(contexts[0]["exception"], ZeroDivisionError)


# The shortcuts of a loop that feeds readers itself must honour what a program replaced


def test_subclass_of_the_reader(loop, run):
    fed = []

    class Reader(asyncio.StreamReader):
        def feed_data(self, data):
            fed.append(bytes(data))
            super().feed_data(data.upper())

        def feed_eof(self):
            fed.append("eof")
            super().feed_eof()

    async def main():
        ours, peer = socket.socketpair()
        with peer:
            reader = Reader()
            protocol = asyncio.StreamReaderProtocol(reader)
            transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
            peer.send(b"abc")
            assert await reader.readexactly(3) == b"ABC"
            peer.shutdown(socket.SHUT_WR)
            assert await reader.read() == b""
            transport.close()
            await settle()

    run(main())
    assert fed[:2] == [b"abc", "eof"]


def test_subclass_of_the_protocol(loop, run):
    seen = []

    class Protocol(asyncio.StreamReaderProtocol):
        def data_received(self, data):
            seen.append(data)
            super().data_received(data[::-1])

    async def main():
        ours, peer = socket.socketpair()
        with peer:
            reader = asyncio.StreamReader()
            protocol = Protocol(reader)
            transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
            peer.send(b"abc")
            assert await reader.readexactly(3) == b"cba"
            transport.close()
            await settle()

    run(main())
    assert seen == [b"abc"]


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (asyncio.StreamReader, "feed_data"),
        (asyncio.StreamReaderProtocol, "data_received"),
    ],
    ids=["feed_data", "data_received"],
)
def test_patched_class(loop, run, monkeypatch, owner, name):
    seen = []
    real = getattr(owner, name)

    def patched(self, data):
        seen.append(bytes(data))
        return real(self, data)

    monkeypatch.setattr(owner, name, patched)

    async def main():
        async with stream_pair() as (reader, _, peer):
            peer.send(b"abc")
            assert await reader.readexactly(3) == b"abc"

    run(main())
    assert seen == [b"abc"]


@pytest.mark.parametrize("when", ["before data", "after data"])
def test_patched_reader_instance(loop, run, when):
    seen = []

    async def main():
        async with stream_pair() as (reader, _, peer):
            if when == "after data":
                peer.send(b"1")
                assert await reader.readexactly(1) == b"1"
            real = reader.feed_data

            def feed_data(data):
                seen.append(bytes(data))
                real(data)

            reader.feed_data = feed_data
            peer.send(b"abc")
            assert await reader.readexactly(3) == b"abc"
            del reader.feed_data

    run(main())
    assert seen == [b"abc"]


def test_reader_that_is_used_by_hand_too(loop, run):
    async def main():
        async with stream_pair() as (reader, _, peer):
            reader.feed_data(b"by hand ")
            peer.send(b"by wire")
            assert await reader.readexactly(15) == b"by hand by wire"
            error = ZeroDivisionError("of the program")
            task = asyncio.create_task(reader.read(1))
            await turns()
            reader.set_exception(error)
            with pytest.raises(ZeroDivisionError):
                await task
            with pytest.raises(ZeroDivisionError):
                await reader.read(1)

    run(main())


def test_reader_that_was_dropped(loop, run):
    async def main():
        ours, peer = socket.socketpair()
        with peer:
            reader, writer = await asyncio.open_connection(sock=ours)
            # The writer refers to the reader only for drain().
            writer._reader = None
            del reader
            gc.collect()
            peer.send(b"ignored")
            await settle()
            writer.write(b"still works")
            assert await in_thread(read_exactly, peer, 11) == b"still works"
            writer.close()
            await writer.wait_closed()

    contexts = capture(loop)
    run(main())
    assert [context for context in contexts if "exception" in context] == []


def test_unclosed_writer_warns(loop, run):
    if sys.version_info < (3, 13):
        pytest.skip("writers warn from 3.13 on")

    async def main():
        ours, peer = socket.socketpair()
        with peer:
            reader, writer = await asyncio.open_connection(sock=ours)
            with pytest.warns(ResourceWarning, match="unclosed <StreamWriter"):
                del reader, writer
                gc.collect()
        await settle()

    run(main())
