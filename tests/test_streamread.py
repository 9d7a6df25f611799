"""How streams are read: pauses, ends, buffers of the protocol's own."""

import array
import asyncio
import contextlib
import socket

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
    settle,
    tcp_pair,
    tcp_socketpair,
)


def test_received_type(loop, run):
    seen = []

    class Types(Recorder):
        def data_received(self, data):
            seen.append(type(data))
            super().data_received(data)

    async def main():
        async with raw_pair(Types) as (protocol, peer):
            peer.send(b"x")
            await protocol.received(1)
            await in_thread(peer.sendall, bytes(1_000_000))
            await protocol.received(1_000_001)

    run(main())
    assert set(seen) == {bytes}


def test_pause_and_resume_reading(loop, run):
    async def main():
        async with raw_pair() as (protocol, peer):
            transport = protocol.transport
            assert transport.is_reading() is True
            assert transport.pause_reading() is None
            assert transport.is_reading() is False
            transport.pause_reading()
            peer.send(b"held")
            await settle()
            assert protocol.data == b""
            assert transport.resume_reading() is None
            assert transport.is_reading() is True
            transport.resume_reading()
            assert await protocol.received(4) == b"held"

    run(main())


def test_paused_from_connection_made(loop, run):
    class Paused(Recorder):
        def connection_made(self, transport):
            transport.pause_reading()
            super().connection_made(transport)

    async def main():
        async with raw_pair(Paused) as (protocol, peer):
            assert protocol.transport.is_reading() is False
            peer.send(b"held")
            await settle()
            assert protocol.data == b""
            protocol.transport.resume_reading()
            assert await protocol.received(4) == b"held"

    run(main())


@pytest.mark.parametrize("base", [Recorder, BufferedRecorder])
def test_paused_from_a_data_callback(loop, run, base):
    class OneByOne(base):
        def note(self, event):
            if event == "data":
                self.transport.pause_reading()
            super().note(event)

    async def main():
        async with raw_pair(OneByOne) as (protocol, peer):
            sent = 0
            for _ in range(5):
                peer.send(b"x" * 10)
                sent += 10
                await protocol.received(sent)
                peer.send(b"y" * 10)
                sent += 10
                await settle()
                assert len(protocol.data) == sent - 10
                protocol.transport.resume_reading()
                await protocol.received(sent)
                assert protocol.transport.is_reading() is False
                protocol.transport.resume_reading()

    run(main())


def test_eof_waits_while_reading_is_paused(loop, run):
    async def main():
        async with raw_pair() as (protocol, peer):
            protocol.transport.pause_reading()
            peer.send(b"last")
            peer.shutdown(socket.SHUT_WR)
            await settle()
            assert protocol.events == ["made"]
            protocol.transport.resume_reading()
            assert await protocol.lost is None
            assert protocol.data == b"last"
            assert protocol.events == ["made", "data", "eof", "lost"]

    run(main())


def test_paused_reader_holds_the_sender_back(loop, run):
    async def main():
        async with tcp_pair() as (client, server):
            server.transport.pause_reading()
            client.transport.write(bytes(50_000_000))
            assert client.events == ["made", "pause"]
            await asyncio.sleep(0.05)
            assert client.events == ["made", "pause"]
            server.transport.resume_reading()
            await client.until(lambda: "resume" in client.events)
            await server.received(50_000_000)

    run(main())


@pytest.mark.parametrize("start", ["stream", "buffered"])
def test_protocol_is_switched_while_data_arrives(loop, run, start):
    size = 2_000_000
    data = pattern(size)
    total = bytearray()

    class Switch:
        def note(self, event):
            super().note(event)
            if event == "data":
                total.extend(self.data)
                self.data.clear()
                other = (Stream if isinstance(self, Buffered) else Buffered)()
                other.transport = self.transport
                other.owner = self.owner
                self.transport.set_protocol(other)
                assert self.transport.get_protocol() is other
                if len(total) == size:
                    self.owner.set_result(None)

    class Stream(Switch, Recorder):
        pass

    class Buffered(Switch, BufferedRecorder):
        size = 4096

    async def main():
        finished = loop.create_future()
        ours, peer = socket.socketpair()
        with peer:
            transport, protocol = await loop.create_connection(
                Stream if start == "stream" else Buffered, sock=ours
            )
            protocol.owner = finished
            sending = in_thread(peer.sendall, data)
            await finished
            await sending
            last = Recorder()
            transport.set_protocol(last)
            transport.close()
            assert await last.lost is None

    run(main())
    assert digest(total) == digest(data)


@pytest.mark.parametrize(
    "make",
    [
        lambda: bytearray(7),
        lambda: memoryview(bytearray(100))[3:50],
        lambda: array.array("b", bytes(5)),
    ],
    ids=["bytearray", "view", "array"],
)
def test_get_buffer_may_return_any_buffer(loop, run, make):
    hints = []

    class Parts(BufferedRecorder):
        def get_buffer(self, sizehint):
            hints.append(sizehint)
            self.buffer = make()
            return self.buffer

    data = pattern(2000)

    async def main():
        async with raw_pair(Parts) as (protocol, peer):
            peer.sendall(data)
            assert await protocol.received(len(data)) == data

    run(main())
    assert set(hints) == {-1}


@pytest.mark.parametrize("name", ["data_received", "get_buffer", "buffer_updated"])
def test_protocol_is_switched_while_its_method_is_looked_up(loop, run, name):
    if name == "get_buffer" and is_stock(loop):
        pytest.skip("reads into the buffer of the one, and tells the other")
    base = Recorder if name == "data_received" else BufferedRecorder
    method = getattr(base, name)

    class Switching(base):
        def switch(self):
            self.transport.set_protocol(second)
            return method.__get__(self)

    setattr(Switching, name, property(Switching.switch))

    async def main():
        nonlocal second
        async with raw_pair(Switching) as (first, peer):
            second = base()
            second.transport = first.transport
            peer.send(b"1")
            await settle()
            peer.send(b"2")
            await second.received(1)
            await settle()
            peer.send(b"3")
            await second.received(len(second.data) + 1)
            assert first.data + second.data == b"123"
            assert first.data in (b"", b"1")
            first.transport.set_protocol(first)

    second = None
    run(main())


# Much that comes at once is read in several pieces a turn.


FLOOD = pattern(8_000_000)


@contextlib.asynccontextmanager
async def flooded(factory):
    """A transport to which FLOOD comes."""
    async with raw_pair(factory, tcp=True) as (protocol, peer):
        sending = in_thread(peer.sendall, FLOOD)
        try:
            yield protocol
        finally:
            protocol.transport.abort()
            with contextlib.suppress(OSError):
                await sending


@pytest.mark.parametrize("base", [Recorder, BufferedRecorder])
def test_paused_in_a_flood(loop, run, base):
    """Nothing comes behind pause_reading(), wherever in the flood it is called."""

    class Pausing(base):
        size = 256 * 1024

        def note(self, event):
            if event == "data":
                assert self.transport.is_reading()
                if len(self.events) % 7 == 3:
                    self.transport.pause_reading()
                    self.loop.call_soon(self.transport.resume_reading)
            super().note(event)

    async def main():
        async with flooded(Pausing) as protocol:
            assert digest(await protocol.received(len(FLOOD))) == digest(FLOOD)

    run(main())


def test_another_protocol_in_a_flood(loop, run):
    """Each gets what comes behind its set_protocol(), and nothing is lost between them."""

    async def main():
        protocols = []
        got = bytearray()

        class Passing(Recorder):
            def data_received(self, data):
                assert self is protocols[-1]
                got.extend(data)
                if len(self.events) == 5:
                    protocols.append(Passing())
                    protocols[-1].transport = self.transport
                    self.transport.set_protocol(protocols[-1])
                self.note("data")
                if len(got) == len(FLOOD):
                    done.set_result(None)

        def first():
            protocols.append(Passing())
            return protocols[0]

        done = loop.create_future()
        async with flooded(first) as protocol:
            await done
            assert digest(got) == digest(FLOOD)
            assert len(protocols) > 5
            protocol.transport.set_protocol(protocol)

    run(main())


@pytest.mark.parametrize("how", ["abort", "close", "raise"])
def test_the_end_in_a_flood(loop, run, how):
    contexts = capture(loop)

    class Ending(Recorder):
        def data_received(self, data):
            assert "end" not in self.events
            super().data_received(data)
            if len(self.events) == 12:
                self.events.append("end")
                if how == "raise":
                    raise ZeroDivisionError
                getattr(self.transport, how)()

    async def main():
        async with flooded(Ending) as protocol:
            exc = await protocol.lost
            assert type(exc) is (ZeroDivisionError if how == "raise" else type(None))
            assert protocol.events[-2:] == ["end", "lost"]

    run(main())
    assert len(contexts) == (how == "raise")


def test_others_are_served_in_a_flood(loop, run):
    """A flood leaves every turn to the others, too."""

    async def main():
        async with flooded(Recorder) as protocol, raw_pair(tcp=True) as (other, peer):
            for number in range(20):
                peer.send(b"x")
                await other.received(number + 1)
            await protocol.received(len(FLOOD))

    run(main())


def test_streams_in_a_flood(loop, run):
    """The reader's limit holds the flood back, and all of it comes through."""

    async def main():
        ours, peer = tcp_socketpair()
        with peer:
            reader, writer = await asyncio.open_connection(sock=ours)
            sending = in_thread(peer.sendall, FLOOD)
            got = bytearray()
            while len(got) < len(FLOOD):
                got += await reader.read(1 << 20)
            assert digest(got) == digest(FLOOD)
            await sending
            writer.close()
            await writer.wait_closed()

    run(main())
