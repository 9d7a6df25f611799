"""Transports whose callbacks take turns by run_once(): all bytes arrive, in order."""

import asyncio
import contextlib
import errno
import gc
import hashlib
import os
import socket

import pytest
import tlssupport
from iosupport import TURNS, finish_within, turns_until


@pytest.fixture
def loop_name():
    return "fastloop"


class Within:
    """A protocol that takes turns of the loop in every one of its callbacks."""

    def __init__(self, loop):
        self.loop = loop
        self.depth = 0
        self.received = bytearray()
        self.calls = set()
        self.transport = None
        self.lost = loop.create_future()

    def turn(self, name):
        self.calls.add(name)
        if self.depth < 5:
            self.depth += 1
            for _ in range(3):
                self.loop.run_once(0)
            self.depth -= 1

    def connection_made(self, transport):
        self.transport = transport
        self.turn("made")

    def data_received(self, data):
        self.received += data
        self.turn("data")
        self.answer(data)

    def eof_received(self):
        self.turn("eof")

    def pause_writing(self):
        self.turn("pause")

    def resume_writing(self):
        self.turn("resume")

    def connection_lost(self, exc):
        self.turn("lost")
        if not self.lost.done():
            self.lost.set_result(exc)

    def answer(self, data):
        pass


class Echo(Within):
    def answer(self, data):
        self.transport.write(data)


class BufferedEcho(Echo):
    def __init__(self, loop):
        super().__init__(loop)
        self.buffer = bytearray(1000)

    def get_buffer(self, sizehint):
        self.turn("get_buffer")
        return self.buffer

    def buffer_updated(self, count):
        self.data_received(bytes(self.buffer[:count]))


class PlainEcho(Echo, asyncio.Protocol):
    pass


class BufferedProtocolEcho(BufferedEcho, asyncio.BufferedProtocol):
    pass


@pytest.mark.parametrize("kind", [PlainEcho, BufferedProtocolEcho])
@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
def test_protocols_that_take_turns(loop, run, kind, secure):
    """Whatever callback takes turns, each connection has all of its bytes."""
    made = []
    certificates = tlssupport.Certificates() if secure else None

    def factory():
        loop.run_once(0)
        made.append(kind(loop))
        return made[-1]

    async def client(address, number):
        protocol = Client(loop)
        transport, _ = await loop.create_connection(
            lambda: protocol,
            *address,
            ssl=certificates.client if secure else None,
            server_hostname="localhost" if secure else None,
        )
        transport.set_write_buffer_limits(1000)
        expected = bytearray()
        for size in (1, 10, 1000, 20_000, 300_000):
            data = bytes([number, size % 251]) * size
            expected += data
            transport.write(data)
            await asyncio.sleep(0)
        async with asyncio.timeout(30):
            while len(protocol.received) < len(expected):
                await asyncio.sleep(0.001)
        transport.close()
        await protocol.lost
        return sorted(protocol.received) == sorted(expected)

    class Client(Within, asyncio.Protocol):
        pass

    async def main():
        server = await loop.create_server(
            factory, "127.0.0.1", 0, ssl=certificates.server if secure else None
        )
        address = server.sockets[0].getsockname()
        assert all(
            await asyncio.gather(*(client(address, number) for number in range(5)))
        )
        for protocol in made:
            protocol.transport.abort()
            await protocol.lost
        server.close()
        await server.wait_closed()

    run(main())
    assert {"made", "data", "lost"} <= set().union(*(each.calls for each in made))


def test_datagrams_and_pipes_that_take_turns(loop, run):
    class Datagrams(Within, asyncio.DatagramProtocol):
        def datagram_received(self, data, address):
            self.received += data
            self.turn("datagram")
            if self.echoes:
                self.transport.sendto(data, address)

    async def main():
        one, two = Datagrams(loop), Datagrams(loop)
        one.echoes, two.echoes = True, False
        await loop.create_datagram_endpoint(lambda: one, ("127.0.0.1", 0))
        await loop.create_datagram_endpoint(
            lambda: two, remote_addr=one.transport.get_extra_info("sockname")
        )
        for n in range(50):
            two.transport.sendto(bytes([n]))
        async with asyncio.timeout(30):
            while len(two.received) < 50:
                await asyncio.sleep(0.001)
        assert sorted(two.received) == list(range(50))
        reading, writing = os.pipe()
        source, target = (
            type("Pipe", (Within, asyncio.Protocol), {})(loop) for _ in "ab"
        )
        await loop.connect_read_pipe(lambda: source, os.fdopen(reading, "rb", 0))
        await loop.connect_write_pipe(lambda: target, os.fdopen(writing, "wb", 0))
        for n in range(50):
            target.transport.write(bytes([n]) * 5000)
        target.transport.close()
        async with asyncio.timeout(30):
            await source.lost
            await target.lost
        assert len(source.received) == 250_000
        one.transport.close()
        two.transport.close()
        await one.lost
        await two.lost

    run(main())


def test_what_others_wrote_leaves_within_the_end_of_a_turn(loop, run):
    """The outer turn is sending when it calls error_received()."""
    received = []

    class Datagrams(asyncio.DatagramProtocol):
        def error_received(self, exc):
            turns_until(loop, lambda: received)
            received.append(exc.errno)

    class Peer(asyncio.Protocol):
        def data_received(self, data):
            received.append(data)

    async def main():
        ours, theirs = socket.socketpair()
        datagrams, _ = await loop.create_datagram_endpoint(Datagrams, ("127.0.0.1", 0))
        stream, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        peer, _ = await loop.create_connection(Peer, sock=theirs)
        name = datagrams.get_extra_info("sockname")
        datagrams.sendto(b"at once", name)
        datagrams.sendto(bytes(65508), name)  # a byte too much
        stream.write(b"data")
        async with asyncio.timeout(30):
            while len(received) < 2:
                await asyncio.sleep(0)
        for transport in (datagrams, stream, peer):
            transport.abort()

    run(main())
    assert received == [b"data", errno.EMSGSIZE]


def test_data_that_comes_as_the_old_method_goes(loop, run):
    """What is read in the middle of set_protocol() is for the new protocol."""
    received = []

    class Method:
        def __call__(self, data):
            received.append(("old", data))

        def __del__(self):
            if received == [("old", b"1")]:
                theirs.send(b"2")
                turns_until(loop, lambda: len(received) == 2)

    class Old(asyncio.Protocol):
        @property
        def data_received(self):
            return Method()

    class New(asyncio.BufferedProtocol):
        def get_buffer(self, sizehint):
            self.buffer = bytearray(10)
            return self.buffer

        def buffer_updated(self, count):
            received.append(("new", bytes(self.buffer[:count])))

    async def until(count):
        async with asyncio.timeout(30):
            while len(received) < count:
                await asyncio.sleep(0)

    async def main():
        nonlocal theirs
        ours, theirs = socket.socketpair()
        with theirs:
            transport, _ = await loop.create_connection(Old, sock=ours)
            theirs.send(b"1")
            await until(1)
            transport.set_protocol(New())
            await until(2)
            theirs.send(b"3")
            await until(3)
            transport.abort()

    theirs = None
    run(main())
    assert received == [("old", b"1"), ("new", b"2"), ("new", b"3")]


def test_sockets_and_readers_that_take_turns(loop, run):
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    seen = []

    def on_readable():
        with contextlib.suppress(BlockingIOError):
            seen.append(a.recv(1))
        loop.run_once(0)

    async def main():
        loop.add_reader(a, on_readable)
        await loop.sock_sendall(b, b"x" * 20)
        async with asyncio.timeout(30):
            while len(seen) < 20:
                await asyncio.sleep(0.001)
        loop.remove_reader(a)
        assert finish_within(loop, echo()) == b"data"

    async def echo():
        await loop.sock_sendall(a, b"data")
        return await loop.sock_recv(b, 100)

    run(main())
    a.close()
    b.close()


@pytest.mark.parametrize("when", ["handshake", "data"])
def test_turns_while_openssl_is_at_work(loop, run, when):
    """What comes meanwhile stays behind what OpenSSL has, and is not forgotten."""
    certificates = tlssupport.Certificates()
    context = certificates.client
    data = os.urandom(1_000_000)
    within = []
    received = bytearray()

    def turns(*args):
        if not within and (when == "handshake" or client.transport is not None):
            within.append(True)
            for _ in range(3):
                loop.run_once(0.001)
            within.pop()

    class Client(asyncio.Protocol):
        transport = None

        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            received.extend(data)

    class Server(asyncio.Protocol):
        def connection_made(self, transport):
            transport.write(data)

    client = Client()
    context._msg_callback = turns

    async def main():
        server = await loop.create_server(
            Server, "127.0.0.1", 0, ssl=certificates.server
        )
        async with asyncio.timeout(30):
            await loop.create_connection(
                lambda: client,
                *server.sockets[0].getsockname(),
                ssl=context,
                server_hostname="localhost",
            )
            while len(received) < len(data) and not client.transport.is_closing():
                await asyncio.sleep(0.001)
        client.transport.abort()
        server.close()
        await server.wait_closed()

    run(main())
    assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()


def test_turns_while_datagrams_come_in(loop, run):
    """Python 3.11 may collect garbage as it makes the tuple of an address."""
    numbers = {}
    received = []
    found = 0
    on = False

    class Receiver(asyncio.DatagramProtocol):
        def datagram_received(self, data, address):
            received.append((data, address))

    def collecting(phase, info):
        nonlocal found, on
        found += 1
        if on and phase == "start" and found > at:
            on = False
            for _ in range(4):
                loop.run_once(0)

    async def main():
        nonlocal at, found, on
        transport, _ = await loop.create_datagram_endpoint(Receiver, ("127.0.0.1", 0))
        address = transport.get_extra_info("sockname")
        spare = [(n, n) for n in range(5000)]  # no tuple is ready to be used again
        threshold = gc.get_threshold()
        gc.callbacks.append(collecting)
        try:
            for first in range(0, 60, 2):
                at = first
                socks = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(80)]
                for number, sock in enumerate(socks):
                    sock.bind(("127.0.0.1", 0))
                    numbers[sock.getsockname()] = b"%d" % number * 9
                    sock.sendto(b"%d" % number * 9, address)
                before, found, on = len(received), 0, True
                gc.set_threshold(1)
                for _ in range(TURNS):
                    await asyncio.sleep(0)
                    if len(received) == before + 80:
                        break
                gc.set_threshold(*threshold)
                assert [numbers[sender] for _, sender in received[before:]] == [
                    data for data, _ in received[before:]
                ]
                assert len(received) == before + 80
                for sock in socks:
                    sock.close()
        finally:
            gc.set_threshold(*threshold)
            gc.callbacks.remove(collecting)
        transport.abort()
        del spare

    at = 0
    run(main())
