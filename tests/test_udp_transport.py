"""Datagram transports: flow control, their end, exceptions and what they tell."""

import asyncio
import contextlib
import contextvars
import gc
import logging
import os
import socket
import sys
import weakref

import pytest
from iosupport import (
    TIMEOUT,
    DatagramRecorder,
    capture,
    endpoint,
    finish,
    in_thread,
    is_stock,
    name_of,
    plain_udp,
    refusing_udp,
    settle,
    turns,
)

LOCAL = {"local_addr": ("127.0.0.1", 0)}


def slow_receiver(path):
    """A Unix datagram socket, whose sender has to wait instead of losing what does not fit."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.settimeout(TIMEOUT)
    sock.bind(path)
    return sock


def test_write_buffer(loop, run, tmp_path):
    path = str(tmp_path / "slow")

    async def main():
        with slow_receiver(path) as sock:
            async with endpoint(remote_addr=path, family=socket.AF_UNIX) as protocol:
                transport = protocol.transport
                assert transport.get_write_buffer_limits() == (16384, 65536)
                assert transport.get_write_buffer_size() == 0
                sent = 0
                while "pause" not in protocol.events:
                    transport.sendto(b"%5d" % sent + bytes(1000))
                    sent += 1
                    assert sent < 10_000
                assert transport.get_write_buffer_size() > 65536
                for index in range(sent):
                    assert int((await in_thread(sock.recv, 2000))[:5]) == index
                await protocol.until(lambda: "resume" in protocol.events)
                if not is_stock(loop) or sys.version_info < (
                    3,
                    13,
                ):  # whose count drifts by eight bytes a datagram
                    assert transport.get_write_buffer_size() == 0
                assert protocol.events == ["made", "pause", "resume"]

    run(main())


def test_limits(loop, run):
    async def main():
        async with endpoint(**LOCAL) as protocol:
            transport = protocol.transport
            transport.set_write_buffer_limits(high=400)
            assert transport.get_write_buffer_limits() == (100, 400)
            with pytest.raises(
                ValueError, match=r"high \(1\) must be >= low \(2\) must be >= 0"
            ):
                transport.set_write_buffer_limits(high=1, low=2)

    run(main())


def test_close_sends_what_waits(loop, run, tmp_path):
    path = str(tmp_path / "slow")

    async def main():
        with slow_receiver(path) as sock:
            async with endpoint(remote_addr=path, family=socket.AF_UNIX) as protocol:
                sent = 0
                while not protocol.transport.get_write_buffer_size() > 5000:
                    protocol.transport.sendto(b"%5d" % sent + bytes(1000))
                    sent += 1
                    if sent % 10 == 0:
                        await turns(1)
                    assert sent < 10_000
                protocol.transport.close()
                assert not protocol.lost.done()
                for index in range(sent):
                    assert int((await in_thread(sock.recv, 2000))[:5]) == index
                assert await protocol.lost is None

    run(main())


def test_abort_drops_what_waits(loop, run, tmp_path):
    path = str(tmp_path / "slow")

    async def main():
        with slow_receiver(path) as sock:
            async with endpoint(remote_addr=path, family=socket.AF_UNIX) as protocol:
                sent = 0
                while "pause" not in protocol.events:
                    protocol.transport.sendto(b"%5d" % sent + bytes(1000))
                    sent += 1
                protocol.transport.abort()
                assert await protocol.lost is None
                if not is_stock(loop):  # asyncio forgets to set it back
                    assert protocol.transport.get_write_buffer_size() == 0
                await turns()
                sock.setblocking(False)
                received = 0
                with contextlib.suppress(BlockingIOError):
                    while sock.recv(2000):
                        received += 1
                assert 0 < received < sent

    run(main())


def test_pause_reading(loop, run):
    async def main():
        async with endpoint(**LOCAL) as protocol:
            transport = protocol.transport
            with plain_udp() as sock:
                assert transport.is_reading() is True
                transport.pause_reading()
                transport.pause_reading()
                assert transport.is_reading() is False
                sock.sendto(b"held", name_of(protocol))
                await settle()
                assert protocol.datagrams == []
                transport.resume_reading()
                transport.resume_reading()
                assert await protocol.count(1) == [(b"held", sock.getsockname())]

    run(main())


def test_paused_from_inside_the_callback(loop, run):
    class OneByOne(DatagramRecorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            self.transport.pause_reading()

    async def main():
        async with endpoint(OneByOne, **LOCAL) as protocol:
            with plain_udp() as sock:
                for index in range(5):
                    sock.sendto(b"%d" % index, name_of(protocol))
                for index in range(5):
                    await protocol.count(index + 1)
                    await settle()
                    assert [data for data, _ in protocol.datagrams] == [
                        b"%d" % number for number in range(index + 1)
                    ]
                    protocol.transport.resume_reading()

    run(main())


# The end


@pytest.mark.parametrize("name", ["close", "abort"])
def test_end(loop, run, name):
    async def main():
        async with endpoint(**LOCAL) as protocol:
            transport = protocol.transport
            assert transport.is_closing() is False
            with plain_udp() as sock:
                sock.sendto(b"too late", name_of(protocol))
            assert getattr(transport, name)() is None
            assert transport.is_closing() is True
            assert transport.is_reading() is False
            transport.close()
            transport.abort()
            assert protocol.events == ["made"]
            assert await protocol.lost is None
            await turns()
            assert protocol.events == ["made", "lost"]
            assert transport.get_extra_info("socket").fileno() == -1
            assert transport.get_extra_info("sockname")[0] == "127.0.0.1"
            assert "closed" in repr(transport)

    run(main())


@pytest.mark.parametrize("name", ["close", "abort"])
def test_ended_inside_a_callback(loop, run, name):
    contexts = capture(loop)

    class Ending(DatagramRecorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            getattr(self.transport, name)()

    async def main():
        async with endpoint(Ending, **LOCAL) as protocol:
            with plain_udp() as sock:
                for _ in range(10):
                    sock.sendto(b"x", name_of(protocol))
                assert await protocol.lost is None
                await turns()
                assert protocol.events == ["made", "datagram", "lost"]

    run(main())
    assert contexts == []


def test_sendto_after_close(loop, run, caplog):
    async def main():
        with plain_udp() as peer:
            async with endpoint(remote_addr=peer.getsockname()) as protocol:
                protocol.transport.close()
                for _ in range(4):
                    protocol.transport.sendto(b"dropped")
                assert caplog.records == []
                protocol.transport.sendto(b"dropped")
                assert [record.getMessage() for record in caplog.records] == [
                    "socket.send() raised exception."
                ]
                await protocol.lost
                await turns()
                protocol.transport.sendto(b"dropped")
                peer.setblocking(False)
                with pytest.raises(BlockingIOError):
                    peer.recv(10)

    with caplog.at_level(logging.WARNING, "asyncio"):
        run(main())


def test_sendto_after_the_end_of_an_unconnected_endpoint(loop, run):
    if is_stock(loop):
        pytest.skip("fails with an AttributeError")

    async def main():
        async with endpoint(**LOCAL) as protocol:
            address = name_of(protocol)
            protocol.transport.close()
            await protocol.lost
            await turns()
            for _ in range(10):
                assert protocol.transport.sendto(b"dropped", address) is None

    run(main())


def test_unclosed_endpoint_warns(loop_factory):
    loop = loop_factory()

    async def main():
        return (
            await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
            )
        )[0]

    transport = loop.run_until_complete(main())
    loop.close()
    with pytest.warns(ResourceWarning, match="unclosed transport <"):
        del transport
        gc.collect()


# Exceptions


class Broken(DatagramRecorder):
    error = ZeroDivisionError("broken")

    def datagram_received(self, data, addr):
        super().datagram_received(data, addr)
        if data == b"break":
            raise self.error

    def error_received(self, exc):
        super().error_received(exc)
        raise self.error


def test_exception_out_of_datagram_received(loop, run):
    contexts = capture(loop)

    async def main():
        async with endpoint(Broken, **LOCAL) as protocol:
            with plain_udp() as sock:
                sock.sendto(b"break", name_of(protocol))
                sock.sendto(b"next", name_of(protocol))
                # The endpoint outlives it.
                await protocol.count(2)
                assert not protocol.transport.is_closing()

    run(main())
    assert len(contexts) == 1
    assert contexts[0]["exception"] is Broken.error


def test_exception_out_of_error_received(loop, run):
    contexts = capture(loop)

    async def main():
        with refusing_udp() as address:
            async with endpoint(Broken, remote_addr=address) as protocol:
                protocol.transport.sendto(b"x")
                await protocol.until(lambda: protocol.errors)
                await turns()
                assert not protocol.transport.is_closing()

    run(main())
    assert len(contexts) == 1
    assert contexts[0]["exception"] is Broken.error


@pytest.mark.parametrize("exc", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("when", ["datagram", "error"])
def test_exit_leaves_the_loop(loop, run, exc, when):
    contexts = capture(loop)

    class Leaving(Broken):
        pass

    Leaving.error = exc("out")

    async def create(**kwargs):
        return (await loop.create_datagram_endpoint(Leaving, **kwargs))[1]

    with plain_udp() as sock:
        if when == "datagram":
            protocol = run(create(**LOCAL))
            sock.sendto(b"break", name_of(protocol))
        else:
            with refusing_udp() as address:
                protocol = run(create(remote_addr=address))
                protocol.transport.sendto(b"x")
        timer = loop.call_later(TIMEOUT, loop.stop)
        with pytest.raises(exc, match="out"):
            loop.run_forever()
        timer.cancel()
        assert contexts == []
        assert not protocol.transport.is_closing()
        run(finish(protocol))


# What it tells


def test_kind_and_extra_info(loop, run):
    async def main():
        with plain_udp() as peer:
            async with endpoint(remote_addr=peer.getsockname()) as protocol:
                transport = protocol.transport
                if not is_stock(loop) or sys.version_info >= (3, 13):
                    assert isinstance(transport, asyncio.DatagramTransport)
                assert isinstance(transport, asyncio.BaseTransport)
                assert weakref.ref(transport)() is transport
                sock = transport.get_extra_info("socket")
                assert isinstance(sock, asyncio.trsock.TransportSocket)
                assert sock.type == socket.SOCK_DGRAM
                assert transport.get_extra_info("sockname") == sock.getsockname()
                assert transport.get_extra_info("peername") == peer.getsockname()
                assert transport.get_extra_info("nothing", 1) == 1
                assert f"fd={sock.fileno()}" in repr(transport)
                assert transport.get_protocol() is protocol
                other = DatagramRecorder()
                transport.set_protocol(other)
                assert transport.get_protocol() is other
                peer.sendto(b"x", transport.get_extra_info("sockname"))
                await other.count(1)
                transport.set_protocol(protocol)

    run(main())


def test_context_of_callbacks(loop, run):
    var = contextvars.ContextVar("var", default="unset")
    seen = []

    class Observer(DatagramRecorder):
        def note(self, event):
            seen.append((event, var.get()))
            super().note(event)

    async def main():
        var.set("creating")
        async with endpoint(Observer, **LOCAL) as protocol:
            var.set("later")
            with plain_udp() as sock:
                sock.sendto(b"x", name_of(protocol))
                await protocol.count(1)

    run(main())
    assert seen[:2] == [("made", "creating"), ("datagram", "creating")]


def test_descriptor_is_guarded(loop, run):
    async def main():
        async with endpoint(**LOCAL) as protocol:
            fd = protocol.transport.get_extra_info("socket").fileno()
            with pytest.raises(RuntimeError, match="is used by transport"):
                loop.add_reader(fd, print)

    run(main())


def test_descriptors_come_back(loop, run):
    async def main():
        async with endpoint(**LOCAL):
            pass
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            async with endpoint(**LOCAL):
                pass
        assert len(os.listdir("/proc/self/fd")) <= before

    run(main())
