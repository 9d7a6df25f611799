"""Stream transports: bytes through them, half-close and protocols."""

import contextvars
import socket

import pytest
from iosupport import (
    SIZES,
    BufferedRecorder,
    Echo,
    KeepOpen,
    Recorder,
    digest,
    in_thread,
    pattern,
    raw_pair,
    read_exactly,
    settle,
    tcp_pair,
    turns,
)

# Round trips


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_round_trip(loop, run, kind, size):
    data = pattern(size)

    async def main():
        async with tcp_pair(server_factory=Echo) as (client, _):
            client.transport.write(kind(data))
            client.transport.write(b"!")
            assert digest(await client.received(size + 1)) == digest(data + b"!")

    run(main())


@pytest.mark.parametrize("size", SIZES)
def test_round_trip_buffered(loop, run, size):
    data = pattern(size)

    async def main():
        async with tcp_pair(BufferedRecorder, Echo) as (client, _):
            client.transport.write(data)
            client.transport.write(b"!")
            assert digest(await client.received(size + 1)) == digest(data + b"!")

    run(main())


@pytest.mark.parametrize("factory", [Recorder, BufferedRecorder])
def test_round_trip_over_a_unix_socket(loop, run, tmp_path, factory):
    data = pattern(1_000_000)

    async def main():
        path = str(tmp_path / "socket")
        server = await loop.create_unix_server(Echo, path)
        async with server:
            transport, client = await loop.create_unix_connection(factory, path)
            transport.write(data)
            assert digest(await client.received(len(data))) == digest(data)
            transport.close()
            assert await client.lost is None
            await turns()

    run(main())


# Half-close


@pytest.mark.parametrize("factory", [Recorder, BufferedRecorder])
def test_eof_closes_unless_the_protocol_objects(loop, run, factory):
    async def main():
        async with raw_pair(factory) as (protocol, peer):
            peer.send(b"last words")
            peer.shutdown(socket.SHUT_WR)
            assert await protocol.lost is None
            assert protocol.data == b"last words"
            assert protocol.events == ["made", "data", "eof", "lost"]
            assert protocol.transport.is_closing()
            assert await in_thread(peer.recv, 1) == b""

    run(main())


@pytest.mark.parametrize("buffered", [False, True])
def test_eof_received_may_keep_the_writing_side(loop, run, buffered):
    class KeepBuffered(BufferedRecorder):
        keep_open = True

    async def main():
        async with raw_pair(KeepBuffered if buffered else KeepOpen) as (protocol, peer):
            peer.shutdown(socket.SHUT_WR)
            await protocol.until(lambda: "eof" in protocol.events)
            await settle()
            assert protocol.events == ["made", "eof"]
            assert not protocol.transport.is_closing()
            data = pattern(1_000_000)
            protocol.transport.write(data)
            protocol.transport.close()
            assert digest(await in_thread(read_exactly, peer, len(data) + 1)) == digest(
                data
            )
            assert await protocol.lost is None

    run(main())


def test_the_end_is_told_again_to_who_resumes(loop, run):
    async def main():
        async with raw_pair(KeepOpen) as (protocol, peer):
            peer.shutdown(socket.SHUT_WR)
            await protocol.until(lambda: "eof" in protocol.events)
            transport = protocol.transport
            transport.resume_reading()
            await settle()
            transport.pause_reading()
            await settle()
            assert protocol.events == ["made", "eof"]
            protocol.keep_open = False
            transport.resume_reading()
            assert await protocol.lost is None
            assert protocol.events == ["made", "eof", "eof", "lost"]

    run(main())


def test_both_ways_half_closed(loop, run):
    async def main():
        async with tcp_pair(KeepOpen, KeepOpen) as (client, server):
            client.transport.write(b"request")
            client.transport.write_eof()
            await server.until(lambda: "eof" in server.events)
            assert server.data == b"request"
            server.transport.write(b"reply")
            server.transport.write_eof()
            await client.until(lambda: "eof" in client.events)
            assert client.data == b"reply"
            assert not client.transport.is_closing()
            client.transport.close()
            server.transport.close()
            assert await client.lost is None
            assert await server.lost is None

    run(main())


# Protocols


def test_set_and_get_protocol(loop, run):
    async def main():
        async with raw_pair() as (first, peer):
            second = Recorder()
            assert first.transport.get_protocol() is first
            assert first.transport.set_protocol(second) is None
            assert first.transport.get_protocol() is second
            peer.send(b"x")
            await second.received(1)
            assert first.data == b""
            first.transport.set_protocol(first)

    run(main())


def test_callbacks_run_in_the_context_of_the_connection(loop, run):
    var = contextvars.ContextVar("var", default="unset")
    seen = {}

    class Observer(Recorder):
        def note(self, event):
            seen.setdefault(event, var.get())
            super().note(event)

    async def main():
        var.set("connecting")
        ours, peer = socket.socketpair()
        with peer:
            _transport, protocol = await loop.create_connection(Observer, sock=ours)
            var.set("later")
            peer.send(b"x")
            await protocol.received(1)
            peer.shutdown(socket.SHUT_WR)
            await protocol.until(lambda: "eof" in protocol.events)
            await protocol.lost
            assert var.get() == "later"

    run(main())
    assert seen == dict.fromkeys(["made", "data", "eof", "lost"], "connecting")
