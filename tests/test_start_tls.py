"""start_tls of transports and streams, TLS in TLS."""

import asyncio
import socket
import ssl
import sys

import pytest
from conftest import run_python
from iosupport import (
    KeepOpen,
    Recorder,
    capture,
    digest,
    in_thread,
    is_stock,
    pattern,
    settle,
    turns,
)
from tlssupport import Buffered, Certificates, Peer, tls_pair


@pytest.fixture(scope="module")
def tls():
    return Certificates()


async def upgrade(loop, tls, client, server):
    """start_tls() at both ends of a connection."""
    client.transport, server.transport = await asyncio.gather(
        loop.start_tls(
            client.transport, client, tls.client, server_hostname="localhost"
        ),
        loop.start_tls(server.transport, server, tls.server, server_side=True),
    )


async def ask_encrypted(tls, reader, writer, hello, question):
    """Say hello in the clear, ask a question over TLS, and hear an answer to each."""
    writer.write(hello)
    assert await reader.readline() == b"OK\n"
    await writer.start_tls(tls.client, server_hostname="localhost")
    writer.write(question)
    assert await reader.readline() == question.upper()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def answer(reader, writer):
    """Answer a question, and hang up."""
    writer.write((await reader.readline()).upper())
    await writer.drain()
    writer.close()
    await writer.wait_closed()


def upgraded_answer(tls):
    """The handler of a server that begins TLS when it is asked to."""

    async def handle(reader, writer):
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"OK\n")
        await writer.start_tls(tls.server)
        await answer(reader, writer)

    return handle


@pytest.mark.parametrize("factory", [Recorder, Buffered])
def test_start_tls(loop, run, tls, factory):
    data = pattern(1_000_000)

    async def main():
        a, b = socket.socketpair()
        _, server = await loop.create_connection(factory, sock=a)
        _, client = await loop.create_connection(factory, sock=b)
        client.transport.write(b"plain question")
        await server.received(14)
        server.transport.write(b"plain answer")
        await client.received(12)
        server.data.clear()
        client.data.clear()
        await upgrade(loop, tls, client, server)
        assert client.transport.get_extra_info("ssl_object") is not None
        assert client.transport.get_extra_info("sslcontext") is tls.client
        assert client.transport.get_protocol() is client
        assert client.events.count("made") == 1
        client.transport.write(data)
        server.transport.write(data[::-1])
        assert digest(await server.received(len(data))) == digest(data)
        assert digest(await client.received(len(data))) == digest(data[::-1])
        client.transport.close()
        assert await client.lost is None
        assert await server.lost is None
        await settle()
        assert a.fileno() == b.fileno() == -1

    run(main())


def test_start_tls_of_streams(loop, run, tls):
    async def main():
        async with await asyncio.start_server(
            upgraded_answer(tls), "127.0.0.1", 0
        ) as server:
            reader, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname()
            )
            await ask_encrypted(tls, reader, writer, b"STARTTLS\n", b"secret\n")
        await settle()

    contexts = capture(loop)
    run(main())
    assert contexts == []


def test_start_tls_that_fails(loop, run, tls):
    async def main():
        a, b = socket.socketpair()
        with b:
            transport, protocol = await loop.create_connection(Recorder, sock=a)
            b.sendall(b"this is no handshake at all\r\n")
            with pytest.raises(ssl.SSLError):
                await loop.start_tls(
                    transport, protocol, tls.client, server_hostname="localhost"
                )
            assert transport.is_closing()
            await settle()
            assert a.fileno() == -1

    run(main())


def test_start_tls_cancelled(loop, run, tls):
    async def main():
        a, b = socket.socketpair()
        with b:
            transport, protocol = await loop.create_connection(Recorder, sock=a)
            task = asyncio.create_task(
                loop.start_tls(
                    transport, protocol, tls.client, server_hostname="localhost"
                )
            )
            await settle()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await settle()
            assert transport.is_closing()
            assert a.fileno() == -1

    run(main())


def test_wrong_arguments_of_start_tls(loop, run, tls):
    async def main():
        a, b = socket.socketpair()
        with b:
            transport, protocol = await loop.create_connection(Recorder, sock=a)
            with pytest.raises(
                TypeError,
                match=r"sslcontext is expected to be an instance of ssl\.SSLContext",
            ):
                await loop.start_tls(transport, protocol, None)
            with pytest.raises(TypeError, match="is not supported by start_tls"):
                await loop.start_tls(asyncio.Transport(), protocol, tls.client)
            assert transport.is_reading()
            transport.close()
            await protocol.lost
            await turns()

    run(main())


def test_tls_in_tls(loop, run, tls):
    data = pattern(300_000)

    async def main():
        async with tls_pair(tls) as (client, server):
            await upgrade(loop, tls, client, server)
            client.transport.write(data)
            assert digest(await server.received(len(data))) == digest(data)
            server.transport.write(data)
            assert digest(await client.received(len(data))) == digest(data)
            client.transport.close()
            await client.lost
            await server.lost

    run(main())


def test_streams_through_a_proxy(loop, run, tls):
    """TLS to the proxy, CONNECT, and TLS to the server behind it."""

    async def pump(reader, writer):
        while data := await reader.read(10_000):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def main():
        async with await asyncio.start_server(
            answer, "127.0.0.1", 0, ssl=tls.server
        ) as server:

            async def proxy(reader, writer):
                assert await reader.readline() == b"CONNECT\n"
                inner = await asyncio.open_connection(*server.sockets[0].getsockname())
                writer.write(b"OK\n")
                await asyncio.gather(pump(reader, inner[1]), pump(inner[0], writer))

            async with await asyncio.start_server(
                proxy, "127.0.0.1", 0, ssl=tls.server
            ) as outer:
                reader, writer = await asyncio.open_connection(
                    *outer.sockets[0].getsockname(),
                    ssl=tls.client,
                    server_hostname="localhost",
                )
                await ask_encrypted(tls, reader, writer, b"CONNECT\n", b"both\n")
                await settle()
        await settle()

    contexts = capture(loop)
    run(main())
    assert contexts == []


def test_what_can_be_upgraded(loop, run, tls):
    async def main():
        async with tls_pair(tls) as (client, _):
            assert client.transport._start_tls_compatible is True
            below = client.transport._ssl_protocol._transport
            assert below._start_tls_compatible is True

    run(main())


# The handshake has begun before start_tls() has


def test_hello_in_the_reader(loop, run, tls):
    """The ClientHello comes in one segment with the command before it."""
    if is_stock(loop) and sys.version_info < (3, 14):
        pytest.skip("asyncio waits in vain")

    async def handle(reader, writer):
        assert await reader.readline() == b"STARTTLS\n"
        await asyncio.sleep(0.01)  # all of it is in the reader
        await writer.start_tls(tls.server)
        await answer(reader, writer)

    async def main():
        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            sock = socket.create_connection(server.sockets[0].getsockname())
            peer = Peer(tls.client, hostname="localhost")
            peer.theirs.close()
            peer.sock.close()
            peer.sock = sock
            sock.setblocking(False)
            with sock:
                with pytest.raises(ssl.SSLWantReadError):
                    peer.tls.do_handshake()
                await peer.send(b"STARTTLS\n" + peer.outgoing.read())
                await peer.handshake()
                await peer.send(peer.encrypt(b"secret\n"))
                assert await peer.receive(7) == b"SECRET\n"
                assert await peer.receive(1) == b""
                await peer.send(peer.goodbye())
        await settle()

    contexts = capture(loop)
    run(main())
    assert contexts == []


def test_more_than_the_reader_takes_behind_the_handshake(loop, run, tls):
    if is_stock(loop) and hasattr(asyncio.StreamReader, "_replace_transport"):
        pytest.skip("asyncio pauses the transport below, and never resumes it")
    size = 50_000
    ended = loop.create_future()

    async def serve(reader, writer):
        await writer.start_tls(tls.server)
        ended.set_result(await reader.readexactly(size))
        writer.close()

    def client(sock):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        engine = tls.client.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            engine.do_handshake()
        sock.sendall(outgoing.read())
        while True:
            incoming.write(sock.recv(100_000))
            try:
                engine.do_handshake()
            except ssl.SSLWantReadError:
                continue
            break
        data = memoryview(pattern(size))
        while data:
            data = data[engine.write(data[:16384]) :]
        sock.sendall(outgoing.read())

    async def main():
        a, b = socket.socketpair()
        with b:
            reader = asyncio.StreamReader(1000)
            await loop.connect_accepted_socket(
                lambda: asyncio.StreamReaderProtocol(reader, serve), a
            )
            await in_thread(client, b)
            assert digest(await ended) == digest(pattern(size))

    run(main())


def test_start_tls_over_unix_sockets(loop, run, tls, tmp_path):
    async def main():
        path = str(tmp_path / "socket")
        async with await asyncio.start_unix_server(upgraded_answer(tls), path):
            reader, writer = await asyncio.open_unix_connection(path)
            await ask_encrypted(tls, reader, writer, b"STARTTLS\n", b"secret\n")
        await settle()

    contexts = capture(loop)
    run(main())
    assert contexts == []


@pytest.mark.parametrize("turn", range(1, 13))
def test_start_tls_cancelled_at_any_turn(loop, run, tls, turn):
    async def main():
        a, b = socket.socketpair()
        transport_a, server = await loop.create_connection(Recorder, sock=a)
        transport_b, client = await loop.create_connection(Recorder, sock=b)
        tasks = [
            asyncio.create_task(
                loop.start_tls(transport_a, server, tls.server, server_side=True)
            ),
            asyncio.create_task(
                loop.start_tls(
                    transport_b, client, tls.client, server_hostname="localhost"
                )
            ),
        ]
        await turns(turn)
        tasks[turn % 2].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, asyncio.Transport):
                result.abort()
        transport_a.close()
        transport_b.close()
        await settle()
        await settle()
        assert a.fileno() == b.fileno() == -1

    contexts = capture(loop)
    run(main())
    assert contexts == []


class Foreign(asyncio.Transport):
    """A transport that is somebody else's: it hands everything through to another."""

    _start_tls_compatible = True

    def __init__(self, below):
        super().__init__()
        self.below = below
        self.protocol = None

    def __getattr__(self, name):
        return getattr(self.below, name)

    def set_protocol(self, protocol):
        self.protocol = protocol
        self.below.set_protocol(Relay(self, protocol))

    def get_protocol(self):
        return self.protocol

    def get_extra_info(self, name, default=None):
        return self.below.get_extra_info(name, default)


for _name in [
    "write",
    "close",
    "abort",
    "pause_reading",
    "resume_reading",
    "is_closing",
    "get_write_buffer_size",
]:

    def _forward(self, *args, _name=_name):
        return getattr(self.below, _name)(*args)

    setattr(Foreign, _name, _forward)


class Relay(asyncio.BufferedProtocol):
    """Calls the protocol of a Foreign, by whichever interface that has."""

    def __init__(self, transport, protocol):
        self.transport, self.protocol = transport, protocol
        self.buffer = bytearray(1000)

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, nbytes):
        data = bytes(self.buffer[:nbytes])
        if isinstance(self.protocol, asyncio.BufferedProtocol):
            while data:
                room = self.protocol.get_buffer(len(data))
                count = min(len(room), len(data))
                room[:count] = data[:count]
                self.protocol.buffer_updated(count)
                data = data[count:]
        else:
            self.protocol.data_received(data)

    def __getattr__(self, name):
        return getattr(self.protocol, name)

    def eof_received(self):
        return self.protocol.eof_received()

    def connection_lost(self, exc):
        self.protocol.connection_lost(exc)

    def pause_writing(self):
        self.protocol.pause_writing()

    def resume_writing(self):
        self.protocol.resume_writing()


@pytest.mark.parametrize("factory", [Recorder, Buffered])
def test_start_tls_over_a_transport_of_somebody_else(loop, run, tls, factory):
    data = pattern(1_000_000)

    async def main():
        a, b = socket.socketpair()
        _, server = await loop.create_connection(factory, sock=a)
        _, client = await loop.create_connection(factory, sock=b)
        for end in (client, server):
            end.transport = Foreign(end.transport)
        await upgrade(loop, tls, client, server)
        client.transport.write(data)
        server.transport.write(data[::-1])
        assert digest(await server.received(len(data))) == digest(data)
        assert digest(await client.received(len(data))) == digest(data[::-1])
        assert client.transport.get_extra_info("socket").fileno() == b.fileno()
        client.transport.write(b"last words")
        client.transport.close()
        assert await client.lost is None
        assert await server.lost is None
        assert server.data[-10:] == b"last words"
        await settle()
        assert a.fileno() == b.fileno() == -1

    contexts = capture(loop)
    run(main())
    assert contexts == []


def test_start_tls_of_a_lost_transport(loop, run, tls):
    if is_stock(loop):
        pytest.skip("asyncio waits for ssl_handshake_timeout")

    async def main():
        a, b = socket.socketpair()
        with b:
            transport, protocol = await loop.create_connection(Recorder, sock=a)
            transport.close()
            await protocol.lost
            await turns()
            with pytest.raises(ConnectionResetError):
                await loop.start_tls(
                    transport, protocol, tls.client, server_hostname="localhost"
                )

    run(main())


@pytest.mark.parametrize("server_side", [False, True])
def test_start_tls_behind_the_end_of_the_peer(loop, run, tls, server_side):
    async def main():
        a, b = socket.socketpair()
        with b:
            transport, protocol = await loop.create_connection(KeepOpen, sock=a)
            b.shutdown(socket.SHUT_WR)
            await protocol.until(lambda: "eof" in protocol.events)
            with pytest.raises(ConnectionResetError):
                await loop.start_tls(
                    transport,
                    protocol,
                    tls.server if server_side else tls.client,
                    server_side=server_side,
                    server_hostname=None if server_side else "localhost",
                )
            assert transport.is_closing()

    run(main())


def test_closed_before_it_begins(loop, run, tls):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            transport, _ = await loop.create_connection(
                asyncio.Protocol, *listener.getsockname()
            )
            transport.close()
            upgraded = await loop.start_tls(
                transport, asyncio.Protocol(), tls.client, server_hostname="localhost"
            )
            assert upgraded is None

    run(main())


@pytest.mark.parametrize("which", ["inner", "outer"])
def test_tls_in_tls_ends_without_a_warning(loop, run, tls, caplog, which):
    async def main():
        async with tls_pair(tls) as (client, server):
            outer = client.transport, server.transport
            await upgrade(loop, tls, client, server)
            (client.transport if which == "inner" else outer[0]).close()
            await client.lost
            await server.lost

    run(main())
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.parametrize("end", ["abort", "reset"])
def test_tls_in_tls_that_ends_at_once(loop, run, tls, end):
    async def main():
        async with tls_pair(tls) as (client, server):
            outer = client.transport, server.transport
            await upgrade(loop, tls, client, server)
            (client.transport if end == "abort" else outer[0]).abort()
            assert await client.lost is None
            await server.lost
            assert client.transport.is_closing()

    capture(loop)
    run(main())


def test_abort_over_a_transport_of_somebody_else(loop, run, tls):
    async def main():
        a, b = socket.socketpair()
        _, server = await loop.create_connection(Recorder, sock=a)
        _, client = await loop.create_connection(Recorder, sock=b)
        for end in (client, server):
            end.transport = Foreign(end.transport)
        await upgrade(loop, tls, client, server)
        client.transport.abort()
        assert await client.lost is None
        await server.lost
        await settle()
        assert b.fileno() == -1

    capture(loop)
    run(main())


def test_the_socket_below_is_shut_down_behind_what_was_written(loop, run, tls):
    async def main():
        async with tls_pair(tls) as (client, server):
            sock = client.transport.get_extra_info("socket")
            client.transport.write(b"last words")
            sock.shutdown(socket.SHUT_WR)
            assert await server.received(10) == b"last words"

    run(main())


WITHOUT_SSL = """
import sys
sys.modules["ssl"] = sys.modules["_ssl"] = None
import asyncio, socket
async def main():
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with theirs:
        transport, protocol = await loop.create_connection(asyncio.Protocol, sock=ours)
        try:
            await loop.start_tls(transport, protocol, None)
        except RuntimeError as exc:
            print(exc)
        transport.close()
        await asyncio.sleep(0)
"""


def test_a_python_without_ssl(loop_name):
    factory = "asyncio.SelectorEventLoop"
    if loop_name == "fastloop":
        factory = "__import__('fastloop').new_event_loop"
    source = f"{WITHOUT_SSL}\nasyncio.Runner(loop_factory={factory}).run(main())\n"
    done = run_python("-c", source)
    assert done.stdout == "Python ssl module is not available\n"
