"""After the peer went, or after the end: no method raises, every getter answers."""

import asyncio
import contextlib
import os
import socket
import time

import pytest
from iosupport import (
    Recorder,
    capture,
    endpoint,
    finish_pipe,
    is_stock,
    plain_udp,
    raw_pair,
    read_pipe,
    reset,
    settle,
    tcp_pair,
    turns,
    write_pipe,
)

INFO = ["socket", "peername", "sockname", "pipe", "sslcontext", "no such name"]

COMMON = {
    "get_protocol": lambda t: t.get_protocol(),
    "set_protocol": lambda t: t.set_protocol(t.get_protocol()),
    "get_extra_info": lambda t: [t.get_extra_info(name) for name in INFO],
    "is_closing": lambda t: t.is_closing(),
    "close": lambda t: t.close(),
    "repr": repr,
}
READING = {
    "pause_reading": lambda t: t.pause_reading(),
    "resume_reading": lambda t: t.resume_reading(),
    "is_reading": lambda t: t.is_reading(),
}
FLOW = {
    "abort": lambda t: t.abort(),
    "set_write_buffer_limits": lambda t: t.set_write_buffer_limits(high=10),
    "get_write_buffer_limits": lambda t: t.get_write_buffer_limits(),
    "get_write_buffer_size": lambda t: t.get_write_buffer_size(),
}
WRITING = {
    "write": lambda t: t.write(b"x"),
    "write nothing": lambda t: t.write(b""),
    "write much": lambda t: t.write(bytes(300_000)),
    "write a copy of much": lambda t: t.write(bytearray(300_000)),
    "writelines": lambda t: t.writelines([b"x", bytearray(b"y")]),
    "can_write_eof": lambda t: t.can_write_eof(),
}
# Behind the others: after it, write() refuses, lost connection or not.
EOF = {"write_eof": lambda t: t.write_eof()}
STREAM = {**COMMON, **READING, **FLOW, **WRITING, **EOF}


async def peer_closed(protocol, peer):
    peer.close()
    await protocol.lost


async def peer_reset(protocol, peer):
    reset(peer)
    await protocol.lost


async def peer_reset_unseen(protocol, peer):
    reset(peer)


async def peer_reset_seen_by_write(protocol, peer):
    reset(peer)
    for _ in range(3):
        protocol.transport.write(bytes(50_000))


async def closed(protocol, peer):
    protocol.transport.close()


async def closed_and_lost(protocol, peer):
    protocol.transport.close()
    await protocol.lost
    await turns()


async def aborted(protocol, peer):
    protocol.transport.abort()


async def aborted_and_lost(protocol, peer):
    protocol.transport.abort()
    await protocol.lost
    await turns()


async def closed_with_much_to_send(protocol, peer):
    protocol.transport.write(bytes(5_000_000))
    protocol.transport.close()


async def aborted_with_much_to_send(protocol, peer):
    protocol.transport.write(bytes(5_000_000))
    protocol.transport.abort()


WAYS = [
    peer_closed,
    peer_reset,
    peer_reset_unseen,
    peer_reset_seen_by_write,
    closed,
    closed_and_lost,
    aborted,
    aborted_and_lost,
    closed_with_much_to_send,
    aborted_with_much_to_send,
]


def name(way):
    return way.__name__


def call_all(loop, transport, methods, first):
    """Call one method, then all of them; returns what raised."""
    raised = []
    for method in [first, *methods]:
        try:
            methods[method](transport)
        except (AttributeError, TypeError) as exc:
            # asyncio's abort() and writes look at what the end has set to None.
            if not is_stock(loop):
                raised.append((method, exc))
        except Exception as exc:
            raised.append((method, exc))
    return raised


@pytest.mark.parametrize("first", list(STREAM))
@pytest.mark.parametrize("way", WAYS, ids=name)
@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_stream(loop, run, way, first, tcp):
    contexts = capture(loop)
    if first == "write_eof":
        methods = {**COMMON, **READING, **FLOW, **EOF}
    else:
        methods = STREAM

    async def main():
        async with raw_pair(tcp=tcp) as (protocol, peer):
            await way(protocol, peer)
            raised = call_all(loop, protocol.transport, methods, first)
            if is_stock(loop) and way is peer_reset_unseen:
                # asyncio's write_eof() tells of the reset itself.
                raised = [pair for pair in raised if pair[0] != "write_eof"]
            assert raised == []
            if not protocol.lost.done():
                protocol.transport.abort()
            await protocol.lost
        assert protocol.events.count("lost") == 1

    run(main())
    if not is_stock(loop):
        assert contexts == []


def test_write_eof_after_an_unseen_reset_loses_no_data_of_the_peer(loop, run):
    if is_stock(loop):
        pytest.skip("its write_eof() may raise")

    async def main():
        async with raw_pair(tcp=True) as (protocol, peer):
            peer.send(b"last words")
            peer.shutdown(socket.SHUT_WR)
            time.sleep(0.002)
            protocol.transport.write_eof()
            assert await protocol.received(10) == b"last words"

    run(main())


def test_drain_after_the_loss_raises(loop, run):
    async def main():
        ours, peer = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        peer.close()
        assert await reader.read() == b""
        writer.transport.abort()
        await turns()
        writer.write(b"x")
        with pytest.raises(ConnectionResetError):
            await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    run(main())


def test_names_are_kept(loop, run):
    async def main():
        async with tcp_pair() as (client, server):
            known = [
                (protocol, key, protocol.transport.get_extra_info(key))
                for protocol in (client, server)
                for key in ("peername", "sockname")
            ]
            client.transport.abort()
            await client.lost
            await server.lost
            await turns()
            for protocol, key, value in known:
                assert protocol.transport.get_extra_info(key) == value
                assert value is not None
            for protocol in (client, server):
                sock = protocol.transport.get_extra_info("socket")
                assert sock.fileno() == -1
                assert protocol.transport.get_protocol() in (protocol, None)
            assert client.transport.get_extra_info("sockname") == (
                server.transport.get_extra_info("peername")
            )

    run(main())


def test_names_that_nobody_asked_for_before_the_end(loop, run):
    async def main():
        async with tcp_pair() as (client, server):
            reset(socket.socket(fileno=os.dup(client.transport._sock_fd)))
            client.transport.abort()
            await client.lost
            await server.lost
            await turns()
            names = [
                protocol.transport.get_extra_info(key)
                for protocol in (client, server)
                for key in ("sockname", "peername")
            ]
            assert None not in names
            assert names[0] == names[3]
            assert names[1] == names[2]

    run(main())


# Pipes and datagrams


async def pipe_closed(protocol, other):
    protocol.transport.close()


async def pipe_closed_and_lost(protocol, other):
    protocol.transport.close()
    await protocol.lost
    await turns()


async def other_end_closed(protocol, other):
    other.close()


async def other_end_closed_and_seen(protocol, other):
    other.close()
    await protocol.lost
    await turns()


PIPE_WAYS = [
    pipe_closed,
    pipe_closed_and_lost,
    other_end_closed,
    other_end_closed_and_seen,
]


@contextlib.asynccontextmanager
async def terminal(connect, mode, other_mode):
    ours, theirs = os.openpty()
    file = os.fdopen(theirs, mode, 0)
    protocol = (await connect(Recorder, file))[1]
    with os.fdopen(ours, other_mode, 0) as other:
        yield protocol, other
        await finish_pipe(protocol)


@pytest.mark.parametrize("first", [*COMMON, *READING])
@pytest.mark.parametrize("way", PIPE_WAYS, ids=name)
@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_read_pipe(loop, run, way, first, kind):
    contexts = capture(loop)

    async def main():
        if kind == "pipe":
            pair = read_pipe()
        else:
            pair = terminal(loop.connect_read_pipe, "rb", "wb")
        async with pair as (protocol, other):
            await way(protocol, other)
            methods = {**COMMON, **READING}
            assert call_all(loop, protocol.transport, methods, first) == []
            await protocol.lost

    run(main())
    assert contexts == []


@pytest.mark.parametrize("first", [*COMMON, *FLOW, *WRITING, *EOF])
@pytest.mark.parametrize("way", PIPE_WAYS, ids=name)
@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_write_pipe(loop, run, way, first, kind):
    contexts = capture(loop)
    if kind == "terminal" and way is other_end_closed_and_seen:
        way = pipe_closed_and_lost  # a terminal does not tell its writers

    async def main():
        if kind == "pipe":
            pair = write_pipe()
        else:
            pair = terminal(loop.connect_write_pipe, "wb", "rb")
        async with pair as (protocol, other):
            await way(protocol, other)
            methods = {**COMMON, **FLOW, **WRITING, **EOF}
            assert call_all(loop, protocol.transport, methods, first) == []
            await protocol.lost

    run(main())
    if not is_stock(loop):
        assert contexts == []


@pytest.mark.parametrize("first", [*COMMON, *FLOW, "sendto", "sendto nothing"])
@pytest.mark.parametrize(
    "way", [closed, closed_and_lost, aborted, aborted_and_lost], ids=name
)
@pytest.mark.parametrize("connected", [True, False])
def test_endpoint(loop, run, way, first, connected):
    contexts = capture(loop)

    async def main():
        with plain_udp() as peer:
            if connected:
                kwargs = {"remote_addr": peer.getsockname()}
            else:
                kwargs = {"local_addr": ("127.0.0.1", 0)}
            methods = {
                **COMMON,
                **FLOW,
                "sendto": lambda t: t.sendto(b"x", peer.getsockname()),
                "sendto nothing": lambda t: t.sendto(b"", peer.getsockname()),
            }
            async with endpoint(**kwargs) as protocol:
                await way(protocol, peer)
                assert call_all(loop, protocol.transport, methods, first) == []
                await protocol.lost
                await settle()

    run(main())
    if not is_stock(loop):
        assert contexts == []
