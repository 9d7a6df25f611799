"""Data on its way into asyncio's StreamReader, and who may stand in between."""

import asyncio

import pytest
from iosupport import capture, fed, pattern, turned_until, turns


def test_data_arrives(run):
    async def main():
        async with fed() as (reader, _, _, peer):
            peer.send(b"one\ntwo\nthree")
            assert await reader.readline() == b"one\n"
            assert await reader.readuntil(b"o") == b"two"
            assert await reader.readexactly(3) == b"\nth"
            waiting = asyncio.ensure_future(reader.readexactly(6))
            await turns()
            assert not waiting.done()
            peer.send(b"abc")
            assert await waiting == b"reeabc"
            peer.close()
            assert await reader.read() == b""

    run(main())


def test_large_data(run):
    data = pattern(3_000_000)

    async def main():
        loop = asyncio.get_running_loop()
        async with fed() as (reader, _, _, peer):
            sending = asyncio.ensure_future(loop.sock_sendall(peer, data))
            assert await reader.readexactly(len(data)) == data
            await sending

    run(main())


@pytest.mark.parametrize("limit", [1, 100, 5000])
def test_it_pauses_above_twice_the_limit(run, limit):
    async def main():
        async with fed(limit=limit) as (reader, _, transport, peer):
            peer.send(bytes(2 * limit))
            await turned_until(lambda: len(reader._buffer) == 2 * limit)
            assert transport.is_reading()
            assert not reader._paused
            peer.send(b"x")
            await turned_until(lambda: len(reader._buffer) == 2 * limit + 1)
            assert not transport.is_reading()
            assert reader._paused
            peer.send(b"y")
            await turns()
            assert len(reader._buffer) == 2 * limit + 1
            assert await reader.readexactly(limit) == bytes(limit)
            assert not transport.is_reading()
            assert await reader.readexactly(1) == b"\0"
            assert transport.is_reading()
            assert await reader.readexactly(limit + 1) == bytes(limit - 1) + b"xy"

    run(main())


def test_a_limit_of_another_kind(run):
    """Nobody forbids it; the reader compares with it."""

    async def main():
        async with fed() as (reader, _, transport, peer):
            for limit in (10.5, True, -1, 10**30, 100):
                reader._limit = limit
                peer.send(b"x" * 22)
                await turned_until(lambda: len(reader._buffer) == 22)
                await turns()
                assert transport.is_reading() is not (limit < 11)
                reader._limit = 2**16
                assert await reader.read(22) == b"x" * 22
                assert transport.is_reading()

    run(main())


def test_a_reader_that_gave_up(run):
    """Its data is for the next one."""

    async def main():
        async with fed() as (reader, _, _, peer):
            waiting = asyncio.ensure_future(reader.read(10))
            await turns()
            waiting.cancel()
            peer.send(b"data")
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await reader.read(10) == b"data"

    run(main())


def test_a_reader_that_is_gone(run):
    """The protocol holds it weakly, and drops what comes."""

    async def main():
        async with fed() as (reader, protocol, transport, peer):
            assert protocol._stream_reader is reader
            protocol._stream_reader_wr = None
            peer.send(b"data")
            await turns()
            assert reader._buffer == b""
            assert not transport.is_closing()

    run(main())


# Replacements


def test_a_subclass_of_the_reader(run):
    class Own(asyncio.StreamReader):
        def feed_data(self, data):
            assert type(data) is bytes
            super().feed_data(data.upper())

    async def main():
        async with fed(reader_class=Own) as (reader, _, _, peer):
            peer.send(b"data")
            assert await reader.read(10) == b"DATA"

    run(main())


def test_a_subclass_of_the_protocol(run):
    class Own(asyncio.StreamReaderProtocol):
        def data_received(self, data):
            super().data_received(data.upper())

    async def main():
        async with fed(protocol_class=Own) as (reader, _, _, peer):
            peer.send(b"data")
            assert await reader.read(10) == b"DATA"

    run(main())


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("on_class", [False, True])
@pytest.mark.parametrize("name", ["feed_data", "_wakeup_waiter"])
def test_replaced_methods_of_the_reader(run, monkeypatch, name, on_class, late):
    """On the class or on the object, before the first data or behind it."""
    calls = []
    original = getattr(asyncio.StreamReader, name)

    def own(self, *args):
        calls.append(args)
        return original(self, *args)

    async def main():
        async with fed() as (reader, _, _, peer):
            if late:
                peer.send(b"early")
                assert await reader.read(10) == b"early"
            if on_class:
                monkeypatch.setattr(asyncio.StreamReader, name, own)
            else:
                setattr(reader, name, own.__get__(reader))
            waiting = asyncio.ensure_future(reader.read(10))
            await turns()
            peer.send(b"data")
            assert await waiting == b"data"
            assert calls == [(b"data",) if name == "feed_data" else ()]
            if not on_class:
                delattr(reader, name)
            monkeypatch.undo()

    run(main())


@pytest.mark.parametrize("on_class", [False, True])
def test_a_replaced_method_of_the_protocol(run, monkeypatch, on_class):
    """Before the first data; fastloop looks it up once."""
    calls = []
    original = asyncio.StreamReaderProtocol.data_received

    def own(self, data):
        calls.append(data)
        return original(self, data)

    async def main():
        async with fed() as (reader, protocol, _, peer):
            if on_class:
                monkeypatch.setattr(asyncio.StreamReaderProtocol, "data_received", own)
            else:
                protocol.data_received = own.__get__(protocol)
            peer.send(b"data")
            assert await reader.read(10) == b"data"
            assert calls == [b"data"]
            protocol.__dict__.pop("data_received", None)
            monkeypatch.undo()

    run(main())


def test_another_protocol(run):
    """And back again."""
    received = []

    class Other(asyncio.Protocol):
        def data_received(self, data):
            received.append(data)

    async def main():
        async with fed() as (reader, protocol, transport, peer):
            peer.send(b"one")
            assert await reader.read(10) == b"one"
            transport.set_protocol(Other())
            peer.send(b"two")
            await turned_until(lambda: received)
            transport.set_protocol(protocol)
            peer.send(b"three")
            assert await reader.read(10) == b"three"
            assert received == [b"two"]

    run(main())


def test_another_buffer(run):
    class Own(bytearray):
        def extend(self, data):
            super().extend(data.upper())

    async def main():
        async with fed() as (reader, _, _, peer):
            reader._buffer = Own()
            peer.send(b"data")
            assert await reader.read(10) == b"DATA"

    run(main())


# Errors


def test_data_behind_the_end(run, loop):
    """Somebody has said that there is no more."""
    contexts = capture(loop)

    async def main():
        async with fed() as (reader, _, transport, peer):
            reader.feed_eof()
            peer.send(b"data")
            await turned_until(transport.is_closing)

    run(main())
    (context,) = contexts
    assert context["message"] == "Fatal error: protocol.data_received() call failed."
    assert isinstance(context["exception"], AssertionError)


def test_a_buffer_that_is_held(run, loop):
    contexts = capture(loop)

    async def main():
        async with fed() as (reader, _, transport, peer):
            with memoryview(reader._buffer):
                peer.send(b"data")
                await turned_until(transport.is_closing)

    run(main())
    (context,) = contexts
    assert context["message"] == "Fatal error: protocol.data_received() call failed."
    assert isinstance(context["exception"], BufferError)


def test_a_transport_that_cannot_pause(run):
    """The reader forgets it, and buffers."""

    class Unable:
        def pause_reading(self):
            raise NotImplementedError

    async def main():
        async with fed(limit=1) as (reader, _, transport, peer):
            reader._transport = Unable()
            for length in (10, 20):
                peer.send(b"x" * 10)
                await turned_until(lambda length=length: len(reader._buffer) == length)
            assert reader._transport is None
            assert transport.is_reading()

    run(main())
