"""Flow control: water marks, pause_writing() and resume_writing(), writes that go nowhere."""

import asyncio
import socket
import sys

import pytest
from iosupport import (
    Recorder,
    acting,
    capture,
    fill,
    in_thread,
    is_stock,
    raising,
    raw_pair,
    read_exactly,
    settle,
    turns,
)


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
        ({"high": sys.maxsize, "low": 0}, (0, sys.maxsize)),
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


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_writes_from_pause_writing(loop, run, kind):
    """They come behind the write that pauses, also where others waited before that."""
    # The second waits for what may follow, and the socket does not take it whole.
    pieces = [bytes(16384), b"2" * 900_000, kind(b"3" * 20_000), b"last"]

    class Answering(Recorder):
        written = 0

        def write_all(self):
            for piece in pieces:
                self.written += len(piece)
                self.transport.write(piece)

        def pause_writing(self):
            super().pause_writing()
            self.paused_at = self.written
            self.transport.write(b"paused")

    async def main():
        async with raw_pair(Answering) as (protocol, peer):
            protocol.write_all()
            got = await in_thread(read_exactly, peer, protocol.written + 6)
            before, _, after = got.partition(b"paused")
            assert len(before) == protocol.paused_at
            assert before + after == b"".join(pieces)

    run(main())


def test_water_marks_count_what_was_written_in_the_same_turn(loop, run):
    class Counting(Recorder):
        def pause_writing(self):
            super().pause_writing()
            self.paused_at = self.transport.get_write_buffer_size()

    async def main():
        async with raw_pair(Counting) as (protocol, peer):
            fill(protocol.transport.get_extra_info("socket")._sock)
            protocol.transport.set_write_buffer_limits(high=1000)
            for number in range(1, 11):
                protocol.transport.write(b"x" * 100)
                assert "pause" not in protocol.events, number
            protocol.transport.write(b"x")
            await turns(2)
            assert protocol.events.count("pause") == 1
            assert protocol.paused_at == 1001
            peer.close()
            protocol.transport.abort()

    run(main())


def test_drain_blocks_until_a_large_write_is_read(loop, run):
    size = 100 * 1024 * 1024

    async def main():
        ours, peer = socket.socketpair()
        peer.setblocking(False)
        _, writer = await asyncio.open_connection(sock=ours)
        with peer:
            writer.write(bytes(size))
            drain = asyncio.ensure_future(writer.drain())
            await settle()
            assert not drain.done()
            received = 0
            while received < size:
                received += len(await loop.sock_recv(peer, 1 << 20))
            await drain
            assert writer.transport.get_write_buffer_size() == 0
            writer.close()
            await writer.wait_closed()

    run(main())


def test_writes_after_a_loss_are_dropped_with_one_warning_after_five(loop, run, caplog):
    async def main():
        async with raw_pair(tcp=True) as (protocol, _):
            protocol.transport.abort()
            for _ in range(5):
                protocol.transport.write(b"x")
            assert caplog.messages in (
                [],  # abort() counts as one
                ["socket.send() raised exception."],
            )
            protocol.transport.write(b"x")
            assert "socket.send() raised exception." in caplog.messages
            assert protocol.transport.get_write_buffer_size() == 0

    run(main())


@pytest.mark.parametrize("name", ["close", "abort"])
@pytest.mark.parametrize("when", ["pause", "resume"])
def test_ended_inside_flow_control(loop, run, when, name):
    if when == "resume" and is_stock(loop):
        pytest.skip("tells the loss twice if nothing is left to send")
    contexts = capture(loop)

    async def main():
        factory = acting(
            Recorder, when, lambda protocol: getattr(protocol.transport, name)()
        )
        async with raw_pair(factory, size=8192) as (protocol, peer):
            protocol.transport.write(bytes(3_000_000))
            received = await in_thread(read_exactly, peer, 3_000_001)
            assert await protocol.lost is None
            await settle()
            assert protocol.events.count("lost") == 1
            if name == "close":
                assert len(received) == 3_000_000

    run(main())
    assert contexts == []


@pytest.mark.parametrize("when", ["pause", "resume"])
def test_exception_out_of_flow_control_is_only_reported(loop, run, when):
    contexts = capture(loop)
    exc = ZeroDivisionError(when)

    async def main():
        async with raw_pair(raising(Recorder, when, exc), size=8192) as (
            protocol,
            peer,
        ):
            protocol.transport.write(bytes(1_000_000))
            assert len(await in_thread(read_exactly, peer, 1_000_000)) == 1_000_000
            await protocol.until(lambda: "resume" in protocol.events)
            assert protocol.events == ["made", "pause", "resume"]
            name = f"protocol.{when}_writing() failed"
            assert contexts == [
                {
                    "message": name,
                    "exception": exc,
                    "transport": protocol.transport,
                    "protocol": protocol,
                }
            ]
            assert not protocol.transport.is_closing()

    run(main())


@pytest.mark.parametrize("exc", [SystemExit, KeyboardInterrupt])
def test_exit_out_of_pause_writing(loop, run, exc):
    async def main():
        async with raw_pair(raising(Recorder, "pause", exc("out"))) as (protocol, _):
            with pytest.raises(exc, match="out"):
                protocol.transport.write(bytes(5_000_000))
            assert not protocol.transport.is_closing()

    run(main())
