"""Pipes that are written."""

import array
import logging
import os

import pytest
from iosupport import (
    SIZES,
    Broken,
    Recorder,
    capture,
    digest,
    in_thread,
    pattern,
    read_all,
    turns,
    write_pipe,
)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_through_both_ends(loop, run, kind, size):
    data = pattern(size)

    async def main():
        r, w = os.pipe()
        _, reader = await loop.connect_read_pipe(Recorder, os.fdopen(r, "rb", 0))
        _, writer = await loop.connect_write_pipe(Recorder, os.fdopen(w, "wb", 0))
        writer.transport.write(kind(data))
        writer.transport.close()
        assert await reader.lost is None
        assert digest(reader.data) == digest(data)
        assert await writer.lost is None
        await turns(2)

    run(main())


def test_order_of_writes(loop, run):
    chunks = [
        pattern(size, seed)
        for seed, size in enumerate([1, 100_000, 3, 17_000, 200_000, 5] * 3)
    ]

    async def main():
        async with write_pipe() as (protocol, other):
            expected = b"".join(chunks)
            for chunk in chunks[:9]:
                protocol.transport.write(chunk)
            protocol.transport.writelines(chunks[9:])
            assert digest(await in_thread(read_all, other, len(expected))) == digest(
                expected
            )

    run(main())


def test_views_of_wide_items(loop, run):
    values = array.array("q", range(1000))

    async def main():
        async with write_pipe() as (protocol, other):
            protocol.transport.write(memoryview(values).cast("B"))
            assert await in_thread(read_all, other, 8000) == values.tobytes()

    run(main())


def test_buffer_changed_after_write(loop, run):
    async def main():
        async with write_pipe() as (protocol, other):
            for size in (100, 500_000):
                buffer = bytearray(b"a" * size)
                protocol.transport.write(buffer)
                buffer[:] = b"b" * size
                assert await in_thread(read_all, other, size) == b"a" * size

    run(main())


@pytest.mark.parametrize("data", ["text", None, 17])
def test_wrong_data(loop, run, data):
    async def main():
        async with write_pipe() as (protocol, other):
            with pytest.raises((TypeError, AssertionError)):
                protocol.transport.write(data)
            protocol.transport.write(b"fine")
            assert await in_thread(read_all, other, 4) == b"fine"

    run(main())


def test_water_marks(loop, run):
    async def main():
        async with write_pipe() as (protocol, other):
            transport = protocol.transport
            assert transport.get_write_buffer_limits() == (16384, 65536)
            transport.write(bytes(1_000_000))
            assert protocol.events == ["made", "pause"]
            assert 65536 < transport.get_write_buffer_size() <= 1_000_000
            assert len(await in_thread(read_all, other, 1_000_000)) == 1_000_000
            await protocol.until(lambda: "resume" in protocol.events)
            assert transport.get_write_buffer_size() == 0
            transport.set_write_buffer_limits(high=400)
            assert transport.get_write_buffer_limits() == (100, 400)
            with pytest.raises(
                ValueError, match=r"high \(1\) must be >= low \(2\) must be >= 0"
            ):
                transport.set_write_buffer_limits(high=1, low=2)

    run(main())


@pytest.mark.parametrize("name", ["close", "write_eof"])
def test_end_sends_what_was_written(loop, run, name):
    data = pattern(1_000_000)

    async def main():
        async with write_pipe() as (protocol, other):
            assert protocol.transport.can_write_eof() is True
            protocol.transport.write(data)
            getattr(protocol.transport, name)()
            getattr(protocol.transport, name)()
            assert protocol.transport.is_closing()
            protocol.transport.write(b"dropped")
            assert digest(await in_thread(read_all, other, len(data) + 1)) == digest(
                data
            )
            assert await protocol.lost is None
            assert protocol.events.count("lost") == 1

    run(main())


def test_abort(loop, run):
    async def main():
        async with write_pipe() as (protocol, other):
            protocol.transport.write(bytes(5_000_000))
            protocol.transport.abort()
            assert protocol.transport.is_closing()
            assert await protocol.lost is None
            assert protocol.transport.get_write_buffer_size() == 0
            assert len(await in_thread(read_all, other, 5_000_000)) < 5_000_000

    run(main())


def test_reader_that_went(loop, run):
    contexts = capture(loop)

    async def main():
        async with write_pipe() as (protocol, other):
            other.close()
            # Noticed without a write.
            assert await protocol.lost is None
            assert protocol.events == ["made", "lost"]

    run(main())
    assert contexts == []


def test_write_to_a_reader_that_went(loop, run):
    contexts = capture(loop)

    async def main():
        async with write_pipe() as (protocol, other):
            other.close()
            protocol.transport.write(b"x")
            assert isinstance(await protocol.lost, BrokenPipeError)

    run(main())
    assert contexts == []


def test_reader_that_went_with_bytes_waiting(loop, run):
    contexts = capture(loop)

    async def main():
        async with write_pipe() as (protocol, other):
            protocol.transport.write(bytes(1_000_000))
            await turns()
            other.close()
            assert isinstance(await protocol.lost, BrokenPipeError)

    run(main())
    assert contexts == []


def test_writes_after_the_end(loop, run, caplog):
    async def main():
        async with write_pipe() as (protocol, _):
            protocol.transport.close()
            for _ in range(4):
                protocol.transport.write(b"dropped")
            assert caplog.records == []
            for _ in range(6):
                protocol.transport.write(b"dropped")
            messages = {record.getMessage() for record in caplog.records}
            assert messages == {
                "pipe closed by peer or os.write(pipe, data) raised exception."
            }
            await protocol.lost
            await turns(2)
            protocol.transport.write(b"dropped")
            protocol.transport.close()

    with caplog.at_level(logging.WARNING, "asyncio"):
        run(main())


@pytest.mark.parametrize("when", ["pause", "resume"])
def test_exceptions_of_a_writer(loop, run, when):
    contexts = capture(loop)

    class Raising(Broken):
        pass

    Raising.when = when

    async def main():
        async with write_pipe(Raising) as (protocol, other):
            protocol.transport.write(bytes(500_000))
            await in_thread(read_all, other, 500_000)
            await protocol.until(lambda: "resume" in protocol.events)
            assert contexts == [
                {
                    "message": f"protocol.{when}_writing() failed",
                    "exception": Raising.error,
                    "transport": protocol.transport,
                    "protocol": protocol,
                }
            ]

    run(main())
