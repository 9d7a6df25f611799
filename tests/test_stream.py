"""Stream transports: bytes through them, their water marks, reading control, half-close and protocols."""

import array
import contextvars
import re
import socket
import sys

import pytest
from iosupport import (
    SIZES,
    BufferedRecorder,
    Echo,
    KeepOpen,
    Recorder,
    digest,
    in_thread,
    is_stock,
    pattern,
    raw_pair,
    read_exactly,
    settle,
    tcp_pair,
    turns,
)

KINDS = {"bytes": bytes, "bytearray": bytearray, "memoryview": memoryview}


# Round trips


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(loop, run, kind, size):
    data = pattern(size)

    async def main():
        async with tcp_pair(server_factory=Echo) as (client, _):
            client.transport.write(KINDS[kind](data))
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


@pytest.mark.parametrize("typecode", "hlqd")
def test_views_of_wide_items(loop, run, typecode):
    values = array.array(typecode, range(500))

    async def main():
        async with raw_pair() as (protocol, peer):
            protocol.transport.write(memoryview(values))
            assert (
                await in_thread(read_exactly, peer, len(values.tobytes()))
                == values.tobytes()
            )

    run(main())


def test_large_views_of_wide_items(loop, run):
    if is_stock(loop):
        pytest.skip("cuts such a view by items where the kernel counted bytes")
    values = array.array("q", range(300_000))

    async def main():
        async with raw_pair() as (protocol, peer):
            protocol.transport.write(memoryview(values))
            received = await in_thread(read_exactly, peer, len(values) * 8)
            assert digest(received) == digest(values.tobytes())

    run(main())


@pytest.mark.parametrize("size", [100, 100_000, 4_000_000])
def test_buffer_changed_after_write(loop, run, size):
    if is_stock(loop) and sys.version_info >= (3, 12):
        pytest.skip("keeps a view of the caller's buffer")
    data = pattern(size)

    async def main():
        async with raw_pair(size=8192) as (protocol, peer):
            for view in (False, True):
                buffer = bytearray(data)
                protocol.transport.write(memoryview(buffer) if view else buffer)
                buffer[:] = bytes(size)
                assert digest(await in_thread(read_exactly, peer, size)) == digest(data)

    run(main())


def test_order_of_small_and_large_writes(loop, run):
    chunks = [
        pattern(size, seed)
        for seed, size in enumerate([1, 10, 200_000, 5, 17_000, 3, 1_000_000, 100] * 4)
    ]

    async def main():
        async with raw_pair() as (protocol, peer):
            for chunk in chunks:
                protocol.transport.write(chunk)
            expected = b"".join(chunks)
            assert digest(await in_thread(read_exactly, peer, len(expected))) == digest(
                expected
            )

    run(main())


def test_thousands_of_small_writes(loop, run):
    # More pieces than one system call may carry.
    chunks = [b"%d," % number for number in range(5000)]

    async def main():
        async with raw_pair() as (protocol, peer):
            for chunk in chunks:
                protocol.transport.write(chunk)
            expected = b"".join(chunks)
            assert await in_thread(read_exactly, peer, len(expected)) == expected
            protocol.transport.writelines(chunks)
            assert await in_thread(read_exactly, peer, len(expected)) == expected

    run(main())


@pytest.mark.parametrize(
    "make",
    [
        lambda parts: parts,
        tuple,
        lambda parts: (part for part in parts),
        lambda parts: [bytearray(part) for part in parts],
        lambda parts: [memoryview(part) for part in parts],
    ],
    ids=["list", "tuple", "generator", "bytearrays", "views"],
)
@pytest.mark.parametrize("size", [10, 500_000])
def test_writelines(loop, run, make, size):
    parts = [pattern(size, seed) for seed in range(5)] + [b""] + [b"end"]

    async def main():
        async with raw_pair() as (protocol, peer):
            assert protocol.transport.writelines(make(parts)) is None
            protocol.transport.write(b".")
            expected = b"".join(parts) + b"."
            assert digest(await in_thread(read_exactly, peer, len(expected))) == digest(
                expected
            )
            protocol.transport.writelines([])
            protocol.transport.writelines([b"more"])
            assert await in_thread(read_exactly, peer, 4) == b"more"

    run(main())


@pytest.mark.parametrize(
    "data", ["text", None, 17, [b"list"], array.array("b", [1])], ids=repr
)
def test_write_refuses_what_is_not_bytes(loop, run, data):
    async def main():
        async with raw_pair() as (protocol, peer):
            name = type(data).__name__
            with pytest.raises(
                TypeError,
                match=f"data argument must be a bytes.*, not '{re.escape(name)}'",
            ):
                protocol.transport.write(data)
            protocol.transport.write(b"still fine")
            assert await in_thread(read_exactly, peer, 10) == b"still fine"

    run(main())


@pytest.mark.parametrize("item", ["text", None, 17, [b"list"]], ids=repr)
def test_writelines_refuses_what_is_not_bytes(loop, run, item):
    if is_stock(loop) and not item and sys.version_info >= (3, 14):
        pytest.skip("newer asyncio drops what is false")

    async def main():
        async with raw_pair() as (protocol, peer):
            with pytest.raises(TypeError):
                protocol.transport.writelines([item])
            protocol.transport.write(b"still fine")
            assert await in_thread(read_exactly, peer, 10) == b"still fine"

    run(main())


def test_empty_writes(loop, run):
    async def main():
        async with raw_pair() as (protocol, peer):
            for empty in (b"", bytearray(), memoryview(b"")):
                assert protocol.transport.write(empty) is None
            assert protocol.transport.get_write_buffer_size() == 0
            protocol.transport.write(b"x")
            assert await in_thread(read_exactly, peer, 1) == b"x"

    run(main())


def test_small_writes_go_out_without_another_turn_of_the_program(loop, run):
    async def main():
        async with raw_pair() as (protocol, peer):
            protocol.transport.write(b"one")
            protocol.transport.write(b"two")
            # Nothing but the peer's answer wakes the loop now.
            reading = in_thread(read_exactly, peer, 6)
            assert await reading == b"onetwo"

    run(main())


def test_write_then_a_blocked_loop_in_another_turn(loop, run):
    """Bytes written in a turn leave by the end of that turn."""

    async def main():
        async with raw_pair() as (protocol, peer):
            protocol.transport.write(b"before")
            await turns(2)
            # The loop stands here; the bytes must be in the kernel.
            assert peer.recv(100) == b"before"

    run(main())


# Water marks


def test_default_limits(loop, run):
    async def main():
        async with raw_pair() as (protocol, _):
            assert protocol.transport.get_write_buffer_limits() == (16384, 65536)
            assert protocol.transport.get_write_buffer_size() == 0

    run(main())


@pytest.mark.parametrize(
    ("kwargs", "limits"),
    [
        ({"high": 400}, (100, 400)),
        ({"low": 100}, (100, 400)),
        ({"high": 10, "low": 10}, (10, 10)),
        ({"high": 0}, (0, 0)),
        ({"high": 1 << 40, "low": 0}, (0, 1 << 40)),
        ({}, (16384, 65536)),
        ({"high": 10.0}, (2, 10)),
        ({"high": 400, "low": 1e2}, (100, 400)),
        ({"high": float("inf"), "low": 5}, (5, ...)),
        ({"low": 1 << 70}, (..., ...)),
    ],
)
def test_set_limits(loop, run, kwargs, limits):
    async def main():
        async with raw_pair() as (protocol, _):
            protocol.transport.set_write_buffer_limits(high=1, low=1)
            assert protocol.transport.set_write_buffer_limits(**kwargs) is None
            got = protocol.transport.get_write_buffer_limits()
            for limit, number in zip(limits, got, strict=True):
                # Without a limit, or with one beyond what any machine has.
                assert number >= sys.maxsize if limit is ... else number == limit

    run(main())


@pytest.mark.parametrize(
    "kwargs",
    [
        {"high": 1, "low": 2},
        {"high": -1},
        {"low": -1},
        {"high": 5, "low": -1},
        {"high": float("nan")},
        {"high": float("inf")},  # a quarter of it is no number
    ],
)
def test_wrong_limits(loop, run, kwargs):
    async def main():
        async with raw_pair() as (protocol, _):
            with pytest.raises(
                ValueError, match=r"high \(.*\) must be >= low \(.*\) must be >= 0"
            ):
                protocol.transport.set_write_buffer_limits(**kwargs)
            assert protocol.transport.get_write_buffer_limits() == (16384, 65536)

    run(main())


def test_large_write_pauses_at_once(loop, run):
    size = 100 * 1024 * 1024

    async def main():
        async with raw_pair() as (protocol, _):
            protocol.transport.write(bytes(size))
            assert protocol.events == ["made", "pause"]
            assert size // 2 < protocol.transport.get_write_buffer_size() <= size

    run(main())


def test_pause_and_resume(loop, run):
    async def main():
        async with raw_pair(size=8192) as (protocol, peer):
            transport = protocol.transport
            for _ in range(3):
                protocol.events.clear()
                transport.write(bytes(300_000))
                transport.write(bytes(300_000))
                assert protocol.events == ["pause"]
                assert transport.get_write_buffer_size() > 65536
                reading = in_thread(read_exactly, peer, 600_000)
                await protocol.until(lambda: "resume" in protocol.events)
                assert transport.get_write_buffer_size() <= 16384
                assert len(await reading) == 600_000
                assert protocol.events == ["pause", "resume"]
                assert transport.get_write_buffer_size() == 0

    run(main())


def test_many_small_writes_count_at_once(loop, run):
    async def main():
        async with raw_pair(size=8192) as (protocol, peer):
            written = 0
            while "pause" not in protocol.events:
                protocol.transport.write(bytes(1000))
                written += 1000
                assert written < 1_000_000
            assert protocol.transport.get_write_buffer_size() > 65536
            assert len(await in_thread(read_exactly, peer, written)) == written
            await protocol.until(lambda: "resume" in protocol.events)

    run(main())


def test_size_counts_what_the_kernel_has_not_taken(loop, run):
    async def main():
        async with raw_pair(size=8192) as (protocol, peer):
            transport = protocol.transport
            transport.set_write_buffer_limits(high=10_000_000)
            transport.write(bytes(1_000_000))
            await turns()
            queued = transport.get_write_buffer_size()
            assert 0 < queued < 1_000_000
            transport.write(bytes(500))
            transport.write(bytearray(30_000))
            assert transport.get_write_buffer_size() == queued + 30_500
            assert protocol.events == ["made"]
            # Lower limits hold for what is queued already.
            transport.set_write_buffer_limits(high=0)
            assert protocol.events == ["made", "pause"]
            await in_thread(read_exactly, peer, 1_030_500)
            await protocol.until(lambda: "resume" in protocol.events)
            assert transport.get_write_buffer_size() == 0

    run(main())


def test_writes_from_resume_writing(loop, run):
    count = 40

    class Pump(Recorder):
        left = count
        paused = False

        def pump(self):
            while self.left and not self.paused:
                self.left -= 1
                self.transport.write(bytes(100_000))

        def pause_writing(self):
            super().pause_writing()
            assert not self.paused
            self.paused = True

        def resume_writing(self):
            super().resume_writing()
            assert self.paused
            self.paused = False
            self.pump()

    async def main():
        async with raw_pair(Pump) as (protocol, peer):
            protocol.pump()
            assert protocol.left > 0
            total = 100_000 * count
            assert len(await in_thread(read_exactly, peer, total)) == total
            assert protocol.events.count("resume") >= 1

    run(main())


# Half-close


def test_write_eof(loop, run):
    async def main():
        async with raw_pair() as (protocol, peer):
            transport = protocol.transport
            assert transport.can_write_eof() is True
            transport.write(b"last")
            assert transport.write_eof() is None
            transport.write_eof()
            for write in (transport.write, lambda data: transport.writelines([data])):
                with pytest.raises(
                    RuntimeError,
                    match=r"Cannot call write(lines)?\(\) after write_eof\(\)",
                ):
                    write(b"more")
            assert await in_thread(read_exactly, peer, 100) == b"last"
            # The other way is still open.
            peer.send(b"answer")
            assert await protocol.received(6) == b"answer"
            assert not transport.is_closing()

    run(main())


def test_write_eof_waits_for_the_buffer(loop, run):
    data = pattern(3_000_000)

    async def main():
        async with raw_pair(size=8192) as (protocol, peer):
            protocol.transport.write(data)
            protocol.transport.write_eof()
            assert digest(await in_thread(read_exactly, peer, len(data) + 1)) == digest(
                data
            )

    run(main())


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
