"""Large writes that follow one another, plain and encrypted."""

import asyncio
import contextlib
import contextvars
import socket
import ssl

import pytest
from iosupport import (
    Recorder,
    digest,
    in_thread,
    is_stock,
    pattern,
    raw_pair,
    read_exactly,
    shrink,
    tcp_pair,
    turns,
)
from tlssupport import Certificates, tls_pair, tls_peer, tls_server


@pytest.fixture(scope="module")
def tls():
    return Certificates()


@pytest.fixture(params=["plain", "tls"])
def pair(request, tls):
    """Makes a connection: (the protocol that writes, the one that reads).

    The server's writes: a client has TLS sessions to read, and where it has not, abort()
    resets the connection.
    """

    @contextlib.asynccontextmanager
    async def make():
        connection = tcp_pair() if request.param == "plain" else tls_pair(tls)
        async with connection as (client, server):
            yield server, client

    return make


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("end", ["close", "abort", "wait"])
def test_whole_and_in_order(loop, run, pair, kind, end):
    """Also where the end comes in the same turn."""
    chunks = [pattern(size, size) for size in (20_000, 60_000, 30_000, 17, 20_000)]
    expected = b"".join(chunks)

    async def main():
        async with pair() as (writer, reader):
            for chunk in chunks:
                writer.transport.write(kind(chunk))
            if end != "wait":
                getattr(writer.transport, end)()
            assert digest(await reader.received(len(expected))) == digest(expected)

    run(main())


def test_write_eof_behind_them(loop, run):
    async def main():
        async with tcp_pair() as (writer, reader):
            for _ in range(5):
                writer.transport.write(bytes(30_000))
            writer.transport.write_eof()
            await reader.until(lambda: "eof" in reader.events)
            assert len(reader.data) == 150_000

    run(main())


def test_nothing_waits_where_nothing_may(loop, run):
    """The peer has it all before the turn is over."""

    async def main():
        async with raw_pair(tcp=True, size=200_000) as (writer, peer):
            writer.transport.set_write_buffer_limits(high=0)
            for _ in range(5):
                writer.transport.write(bytes(20_000))
            assert writer.events == ["made"]
            assert len(read_exactly(peer, 100_000)) == 100_000

    run(main())


def test_nothing_waits_where_nothing_may_encrypted(loop, run, tls):
    def connect(address):
        sock = tls.client.wrap_socket(
            socket.create_connection(address), server_hostname="localhost"
        )
        sock.sendall(b"?")
        return sock

    async def main():
        async with tls_server(tls) as (address, servants):
            with await in_thread(connect, address) as peer:
                (writer,) = servants
                await writer.received(1)
                writer.transport.set_write_buffer_limits(high=0)
                for _ in range(5):
                    writer.transport.write(bytes(20_000))
                assert len(read_exactly(peer, 100_000)) == 100_000

    run(main())


def test_what_the_socket_takes_does_not_count(loop, run, pair):
    """The size is asked between the writes of a row, and after it."""

    async def main():
        async with pair() as (writer, reader):
            for _ in range(5):
                writer.transport.write(bytes(20_000))
                assert writer.transport.get_write_buffer_size() == 0
            for _ in range(3):
                writer.transport.write(bytes(20_000))
            writer.transport.set_write_buffer_limits(high=1)
            writer.transport.write(b"small")
            writer.transport.set_write_buffer_limits(high=1)
            assert "pause" not in writer.events
            assert len(await reader.received(160_005)) == 160_005

    run(main())


@pytest.mark.parametrize("size", [20_000, 256 * 1024, 1_500_000])
def test_more_than_the_peer_takes(loop, run, pair, size):
    """Pauses, and goes on as the peer reads."""
    count = 24_000_000 // size
    chunks = [pattern(size, seed) for seed in range(5)]
    expected = b"".join(chunks[number % 5] for number in range(count))

    async def main():
        async with pair() as (writer, reader):
            reader.transport.pause_reading()
            for number in range(count):
                writer.transport.write(chunks[number % 5])
            await writer.until(lambda: "pause" in writer.events)
            assert writer.transport.get_write_buffer_size() > 512 * 1024
            reader.transport.resume_reading()
            assert digest(await reader.received(len(expected))) == digest(expected)
            await writer.until(lambda: "resume" in writer.events)
            assert writer.transport.get_write_buffer_size() == 0

    run(main())


@pytest.mark.parametrize("size", [20_000, 64 * 1024, 256 * 1024])
def test_pauses_within_the_turn(loop, run, pair, size):
    """No more waits than the last writes of the row."""

    async def main():
        async with pair() as (writer, reader):
            reader.transport.pause_reading()
            written = 0
            # asyncio's TLS tells of what waits in the next turn.
            while "pause" not in writer.events:
                for _ in range(1_000_000 // size):
                    writer.transport.write(bytes(size))
                    written += size
                if "pause" not in writer.events:
                    await turns(1)
                assert written < 64_000_000
            assert 0 < writer.transport.get_write_buffer_size() < 2_500_000
            reader.transport.resume_reading()
            assert len(await reader.received(written)) == written
            await writer.until(lambda: "resume" in writer.events)

    run(main())


@pytest.mark.parametrize("rest", [1, 100, 16_000])
def test_a_small_rest_counts_with_what_waits_encrypted(loop, run, tls, rest):
    """What is not encrypted yet of a large write pauses, however little it is."""
    if is_stock(loop):
        pytest.skip("what the socket did not take of a first write does not count")
    size = 256 * 1024 + rest

    async def main():
        async with tls_peer(tls, size=8192) as (protocol, peer):
            protocol.transport.set_write_buffer_limits(high=64 * 1024)
            protocol.transport.write(bytearray(size))
            assert protocol.transport.get_write_buffer_size() > 64 * 1024
            assert protocol.events[-1] == "pause"
            assert await peer.receive(size) == bytes(size)
            await protocol.until(lambda: "resume" in protocol.events)

    run(main())


class Taker(asyncio.Transport):
    """A transport that is somebody else's: a TLS server that takes whatever comes."""

    _start_tls_compatible = True

    def __init__(self, context):
        super().__init__()
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.secured = False
        self.taken = 0

    def set_protocol(self, protocol):
        self.protocol = protocol

    def get_protocol(self):
        return self.protocol

    def write(self, data):
        self.taken += len(data)
        if self.secured:
            return
        self.incoming.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
            self.secured = True
        loop = asyncio.get_running_loop()
        loop.call_soon(self.protocol.data_received, self.outgoing.read())

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass

    def is_closing(self):
        return False

    def abort(self):
        loop = asyncio.get_running_loop()
        loop.call_soon(self.protocol.connection_lost, None)


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("size", [20_000, 100_000, 1_000_000])
def test_others_have_their_turn(loop, run, tls, kind, size):
    """A peer that keeps up does not keep the loop from them."""
    if is_stock(loop):
        pytest.skip("drain() never waits")
    data = kind(size)

    async def main():
        taker = Taker(tls.server)
        protocol = Recorder()
        transport = await loop.start_tls(
            taker, protocol, tls.client, server_hostname="localhost"
        )
        protocol.connection_made(transport)
        for _ in range(3):
            before = taker.taken
            written = 0
            while protocol.events[-1] != "pause" and written < 32 << 20:
                transport.write(data)
                written += size
            assert protocol.events[-1] == "pause"
            assert written < 8 << 20
            assert taker.taken - before >= 1 << 20
            await protocol.until(lambda: protocol.events[-1] == "resume")
            assert taker.taken - before >= written
        transport.abort()
        await protocol.lost

    run(main())


@pytest.mark.parametrize("size", [20_000, 100_000, 1_000_000, 3_000_000])
def test_others_have_their_turn_beside_a_plain_one(loop, run, size):
    """However fast the peer reads."""
    if is_stock(loop):
        pytest.skip("drain() never waits")

    def read(peer):
        total = 0
        while data := peer.recv(1 << 20):
            total += len(data)
        return total

    async def main():
        async with raw_pair(tcp=True) as (writer, peer):
            reading = in_thread(read, peer)
            total = 0
            for _ in range(3):
                written = 0
                while writer.events[-1] != "pause":
                    writer.transport.write(bytes(size))
                    written += size
                    assert written < 16 << 20
                await writer.until(lambda: writer.events[-1] == "resume")
                total += written
            writer.transport.close()
            assert await reading == total

    run(main())


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_who_does_not_heed_a_pause(loop, run, pair, kind):
    """It arrives all the same."""
    count = 60

    async def main():
        async with pair() as (writer, reader):
            for _ in range(count):
                writer.transport.write(kind(500_000))
            assert len(await reader.received(count * 500_000)) == count * 500_000
            await writer.until(lambda: writer.events[-1] == "resume")
            assert writer.transport.get_write_buffer_size() == 0

    run(main())


def test_flow_control_has_a_context(loop, run):
    """They may leave at the end of the turn, where no callback of the program runs."""
    var = contextvars.ContextVar("var", default="unset")
    seen = []
    pieces = [bytes(20_000), bytes(900_000)]

    class Writing(Recorder):
        def data_received(self, data):
            for piece in pieces:
                self.transport.write(piece)

        def pause_writing(self):
            seen.append(("pause", var.get()))

        def resume_writing(self):
            seen.append(("resume", var.get()))

    async def main():
        var.set("connecting")
        async with raw_pair(Writing) as (protocol, peer):
            sock = protocol.transport.get_extra_info("socket")
            shrink(peer, sock, size=100_000)  # the first fits, the second does not
            peer.send(b"x")
            while not seen:
                await turns()
            await in_thread(read_exactly, peer, 920_000)
            while len(seen) < 2:
                await turns()

    run(main())
    assert seen == [("pause", "connecting"), ("resume", "connecting")]
