"""How connections end: close(), abort(), losses, and whatever a protocol does or raises inside its callbacks."""

import asyncio
import gc
import logging
import os
import socket
import threading
import time

import pytest
from iosupport import (
    TIMEOUT,
    BufferedRecorder,
    KeepOpen,
    Recorder,
    capture,
    digest,
    finish,
    in_thread,
    is_stock,
    open_fds,
    open_fds_at_first,
    pattern,
    raw_pair,
    read_exactly,
    reset,
    settle,
    tcp_pair,
    turns,
)

BOTH = pytest.mark.parametrize("base", [Recorder, BufferedRecorder])


# close() and abort()


@pytest.mark.parametrize("name", ["close", "abort"])
def test_loss_is_told_once_and_later(loop, run, name):
    async def main():
        async with raw_pair() as (protocol, peer):
            transport = protocol.transport
            assert transport.is_closing() is False
            assert getattr(transport, name)() is None
            assert transport.is_closing() is True
            assert transport.is_reading() is False
            assert protocol.events == ["made"]
            transport.close()
            transport.abort()
            transport.close()
            assert await protocol.lost is None
            await turns()
            assert protocol.events == ["made", "lost"]
            assert await in_thread(peer.recv, 1) == b""

    run(main())


@BOTH
def test_close_sends_what_was_written(loop, run, base):
    data = pattern(10 * 1024 * 1024)

    async def main():
        async with raw_pair(base) as (protocol, peer):
            protocol.transport.write(data)
            protocol.transport.close()
            protocol.transport.close()
            assert protocol.transport.is_closing()
            assert digest(await in_thread(read_exactly, peer, len(data) + 1)) == digest(
                data
            )
            assert await protocol.lost is None
            assert protocol.transport.get_write_buffer_size() == 0
            assert protocol.events.count("lost") == 1

    run(main())


def test_small_write_then_close(loop, run):
    async def main():
        async with raw_pair() as (protocol, peer):
            protocol.transport.write(b"last ")
            protocol.transport.write(b"words")
            protocol.transport.close()
            assert await in_thread(read_exactly, peer, 100) == b"last words"
            assert await protocol.lost is None

    run(main())


def test_write_eof_then_close(loop, run):
    async def main():
        async with raw_pair(size=8192) as (protocol, peer):
            protocol.transport.write(bytes(200_000))
            protocol.transport.write_eof()
            protocol.transport.close()
            assert len(await in_thread(read_exactly, peer, 300_000)) == 200_000
            assert await protocol.lost is None

    run(main())


def test_abort_drops_what_was_written(loop, run):
    size = 20 * 1024 * 1024

    async def main():
        async with raw_pair() as (protocol, peer):
            protocol.transport.write(bytes(size))
            assert protocol.transport.get_write_buffer_size() > 0
            protocol.transport.abort()
            assert protocol.transport.get_write_buffer_size() == 0
            assert await protocol.lost is None
            assert len(await in_thread(read_exactly, peer, size)) < size

    run(main())


def test_abort_ends_a_close_that_cannot_flush(loop, run):
    async def main():
        async with raw_pair() as (protocol, _):
            protocol.transport.write(bytes(20_000_000))
            protocol.transport.close()
            await settle()
            assert protocol.events == ["made", "pause"]
            protocol.transport.abort()
            assert await protocol.lost is None
            assert protocol.events == ["made", "pause", "lost"]

    run(main())


@BOTH
def test_nothing_is_received_after_close(loop, run, base):
    async def main():
        async with raw_pair(base) as (protocol, peer):
            protocol.transport.write(bytes(5_000_000))
            protocol.transport.close()
            peer.send(b"too late")
            await settle()
            assert protocol.data == b""
            await in_thread(read_exactly, peer, 5_000_000)
            # Unread bytes may turn the close of a Unix socket into a reset for the peer only.
            await protocol.lost
            assert protocol.data == b""

    run(main())


def test_writes_after_close_are_dropped(loop, run, caplog):
    async def main():
        async with raw_pair() as (protocol, peer):
            transport = protocol.transport
            transport.close()
            for _ in range(4):
                transport.write(b"dropped")
            assert caplog.records == []
            for _ in range(4):
                transport.write(b"dropped")
            assert [record.getMessage() for record in caplog.records][:1] == [
                "socket.send() raised exception."
            ]
            assert caplog.records[0].name == "asyncio"
            assert caplog.records[0].levelno == logging.WARNING
            await protocol.lost
            transport.write(b"dropped")
            assert await in_thread(peer.recv, 10) == b""

    with caplog.at_level(logging.WARNING, "asyncio"):
        run(main())


def test_wrong_data_after_close(loop, run):
    async def main():
        async with raw_pair() as (protocol, _):
            protocol.transport.abort()
            with pytest.raises(TypeError, match="data argument must be a bytes"):
                protocol.transport.write("text")

    run(main())


@pytest.mark.parametrize("name", ["close", "abort"])
def test_closed_between_two_runs(loop, run, name):
    async def connect():
        ours, peer = socket.socketpair()
        return (await loop.create_connection(Recorder, sock=ours))[1], peer

    async def wait(protocol):
        return await protocol.lost

    protocol, peer = run(connect())
    with peer:
        getattr(protocol.transport, name)()
        assert protocol.events == ["made"]
        assert run(wait(protocol)) is None
        run(turns())
        assert peer.recv(1) == b""


def test_written_between_two_runs(loop, run):
    async def connect():
        ours, peer = socket.socketpair()
        return (await loop.create_connection(Recorder, sock=ours))[1], peer

    protocol, peer = run(connect())
    with peer:
        peer.settimeout(TIMEOUT)
        protocol.transport.write(b"between")
        run(turns(2))
        assert peer.recv(100) == b"between"
        run(finish(protocol))


def test_loop_closed_under_a_transport(loop_factory):
    loop = loop_factory()
    ours, peer = socket.socketpair()

    async def connect():
        return await loop.create_connection(Recorder, sock=ours)

    with peer:
        transport, protocol = loop.run_until_complete(connect())
        loop.close()
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            transport.close()
        assert transport.is_closing()
        assert protocol.events == ["made"]
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            del transport, protocol
            gc.collect()
        assert peer.recv(1) == b""


def test_resumed_after_its_loop_was_closed(loop_factory):
    loop = loop_factory()
    ours, peer = socket.socketpair()

    async def connect():
        transport, _ = await loop.create_connection(Recorder, sock=ours)
        transport.pause_reading()
        return transport

    with peer:
        transport = loop.run_until_complete(connect())
        loop.close()
        # The descriptors of the closed loop belong to this one now.
        other = loop_factory()
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            transport.resume_reading()
        other.run_until_complete(turns())
        other.close()
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            del transport
            gc.collect()


def test_finalizers_find_a_lost_transport_not_closing(loop_factory):
    """That of a StreamWriter warns then, whether it runs first or last."""
    seen = []

    class Witness:
        def __del__(self):
            seen.append(self.transport.is_closing())

    loop = loop_factory()
    ours, peer = socket.socketpair()

    async def connect():
        cycle = [Witness()]
        transport, protocol = await loop.create_connection(Recorder, sock=ours)
        protocol.cycle = cycle
        cycle.append(Witness())
        for witness in cycle:
            witness.transport = transport

    with peer:
        loop.run_until_complete(connect())
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            loop.close()
            gc.collect()
        assert seen == [False, False]


# Losses


@BOTH
def test_reset_while_reading(loop, run, base):
    contexts = capture(loop)

    async def main():
        async with raw_pair(base, tcp=True) as (protocol, peer):
            reset(peer)
            assert isinstance(await protocol.lost, ConnectionResetError)
            assert protocol.events == ["made", "lost"]
            assert protocol.transport.is_closing()

    run(main())
    assert contexts == []


def test_reset_while_writing(loop, run):
    contexts = capture(loop)

    async def main():
        async with raw_pair(tcp=True) as (protocol, peer):
            protocol.transport.pause_reading()
            protocol.transport.write(bytes(20_000_000))
            await settle()
            reset(peer)
            assert isinstance(
                await protocol.lost, (ConnectionResetError, BrokenPipeError)
            )
            assert protocol.transport.get_write_buffer_size() == 0
            assert protocol.events == ["made", "pause", "lost"]

    run(main())
    assert contexts == []


def test_reset_while_a_close_flushes(loop, run):
    contexts = capture(loop)

    async def main():
        async with raw_pair(tcp=True) as (protocol, peer):
            protocol.transport.write(bytes(20_000_000))
            protocol.transport.close()
            await settle()
            reset(peer)
            assert isinstance(
                await protocol.lost, (ConnectionResetError, BrokenPipeError)
            )
            assert protocol.events.count("lost") == 1

    run(main())
    assert contexts == []


def test_write_to_a_peer_that_closed(loop, run):
    contexts = capture(loop)

    async def main():
        async with raw_pair() as (protocol, peer):
            protocol.transport.pause_reading()
            peer.close()
            protocol.transport.write(b"to nobody")
            assert isinstance(
                await protocol.lost, (BrokenPipeError, ConnectionResetError)
            )
            assert protocol.events == ["made", "lost"]

    run(main())
    assert contexts == []


def test_peer_that_closes_at_once(loop, run):
    async def main():
        async with raw_pair() as (protocol, peer):
            peer.close()
            assert await protocol.lost is None
            assert protocol.events == ["made", "eof", "lost"]

    run(main())


def test_loss_is_told_to_the_protocol_of_that_moment(loop, run):
    async def main():
        async with raw_pair() as (first, _):
            second = Recorder()
            first.transport.close()
            first.transport.set_protocol(second)
            assert await second.lost is None
            assert first.events == ["made"]
            first.lost.set_result(None)

    run(main())


# Idleness

QUIET = {
    "reading paused, peer reset": lambda transport, peer: (
        transport.pause_reading(),
        reset(peer),
    ),
    "reading paused, peer closed": lambda transport, peer: (
        transport.pause_reading(),
        peer.close(),
    ),
    "kept open, peer closed": lambda transport, peer: peer.close(),
    "kept open, both ways shut": lambda transport, peer: (
        peer.shutdown(socket.SHUT_WR),
        transport.write_eof(),
    ),
    "peer does not read": lambda transport, peer: transport.write(bytes(20_000_000)),
    "close cannot flush": lambda transport, peer: (
        transport.write(bytes(20_000_000)),
        transport.close(),
        peer.send(b"unread"),
        peer.shutdown(socket.SHUT_WR),
    ),
}


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
@pytest.mark.parametrize("case", QUIET)
def test_connection_that_can_do_nothing_costs_nothing(loop, run, case, tcp):
    if not tcp and "reset" in case:
        pytest.skip("Unix sockets know no reset")

    async def main():
        async with raw_pair(KeepOpen, tcp=tcp) as (protocol, peer):
            QUIET[case](protocol.transport, peer)
            await settle()
            started = time.process_time()
            await asyncio.sleep(0.2)
            # A loop that polls in vain would use all of it.
            assert time.process_time() - started < 0.1
            assert "lost" not in protocol.events

    run(main())


# Descriptors


def test_no_foreign_descriptor_is_touched(loop, run, tmp_path):
    """While connections come and go, another thread's descriptors keep their bytes."""
    failures = []
    stop = threading.Event()

    def bystander():
        number = 0
        try:
            while not stop.is_set():
                number += 1
                token = b"%d" % number
                r, w = os.pipe()
                os.write(w, token)
                file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
                os.write(file, token)
                assert os.read(r, 100) == token
                os.close(w)
                assert os.read(r, 100) == b""
                assert os.pread(file, 100, 0) == token
                os.close(r)
                os.close(file)
        except BaseException as exc:
            failures.append(exc)

    class Echo(Recorder):
        def data_received(self, data):
            self.transport.write(data)
            if len(data) % 2:
                self.transport.close()

    async def visit(address, number):
        transport, protocol = await loop.create_connection(Recorder, *address)
        if number % 5 == 4:
            transport.abort()
        else:
            transport.write(b"x" * (number % 7 + 1))
            await protocol.received(number % 7 + 1)
            transport.close()
        await protocol.lost

    async def main():
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
            address = server.sockets[0].getsockname()
            for start in range(0, 400, 10):
                await asyncio.gather(
                    *(visit(address, start + index) for index in range(10))
                )
            await settle()

    thread = threading.Thread(target=bystander)
    thread.start()
    try:
        run(main())
    finally:
        stop.set()
        thread.join()
    assert failures == []


def test_descriptors_come_back(loop, run):
    async def main():
        async def visit():
            async with tcp_pair() as (client, server):
                client.transport.write(b"x")
                await server.received(1)

        await visit()
        before = open_fds_at_first()
        for _ in range(20):
            await visit()
        assert open_fds() <= before

    run(main())


def test_descriptor_closed_under_a_transport(run_script):
    """The process lives on, and the protocol is told."""
    result = run_script(
        """
        import os, socket
        async def main():
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda loop, context: None)
            lost = loop.create_future()
            class Protocol(asyncio.Protocol):
                def connection_lost(self, exc):
                    lost.set_result(exc)
            ours, peer = socket.socketpair()
            transport, _ = await loop.create_connection(Protocol, sock=ours)
            os.close(transport.get_extra_info("socket").fileno())
            await asyncio.sleep(0.01)
            transport.write(b"x" * 100)
            await asyncio.sleep(0.01)
            transport.abort()
            await asyncio.wait_for(lost, 30)
            await asyncio.sleep(0.01)
            ours.detach()
            peer.close()
            print("alive")
        run(main())
        """
    )
    assert result.stdout.strip() == "alive"


def test_buffer_of_a_lost_connection_is_freed(loop, run):
    if is_stock(loop):
        pytest.skip("its newer versions keep views")

    async def main():
        async with raw_pair() as (protocol, _):
            data = bytearray(5_000_000)
            protocol.transport.write(data)
            protocol.transport.abort()
            await protocol.lost
            # Nothing exports the buffer any more.
            data.clear()

    run(main())
