"""connect_read_pipe and connect_write_pipe: pipes, sockets, terminals and what is neither."""

import array
import asyncio
import logging
import os

import pytest
from iosupport import (
    SIZES,
    TIMEOUT,
    Recorder,
    capture,
    digest,
    finish_pipe,
    in_thread,
    pattern,
    read_all,
    read_pipe,
    settle,
    turns,
    write_pipe,
)

# Reading


def test_read(loop, run):
    async def main():
        async with read_pipe() as (protocol, other):
            assert protocol.transport.is_reading() is True
            other.write(b"hello")
            assert await protocol.received(5) == b"hello"
            other.write(b" again")
            assert await protocol.received(11) == b"hello again"
            other.close()
            assert await protocol.lost is None
            assert protocol.events[-2:] == ["eof", "lost"]
            assert protocol.transport.is_closing() is True
            await turns(2)
            assert protocol.transport.get_extra_info("pipe").closed

    run(main())


def test_eof_without_data(loop, run):
    async def main():
        async with read_pipe() as (protocol, other):
            other.close()
            assert await protocol.lost is None
            assert protocol.events == ["made", "eof", "lost"]

    run(main())


def test_pause_and_resume_reading(loop, run):
    async def main():
        async with read_pipe() as (protocol, other):
            transport = protocol.transport
            transport.pause_reading()
            transport.pause_reading()
            assert transport.is_reading() is False
            other.write(b"held")
            await settle()
            assert protocol.data == b""
            transport.resume_reading()
            transport.resume_reading()
            assert transport.is_reading() is True
            assert await protocol.received(4) == b"held"

    run(main())


def test_close_of_a_read_pipe(loop, run):
    async def main():
        async with read_pipe() as (protocol, other):
            other.write(b"too late")
            protocol.transport.close()
            protocol.transport.close()
            assert protocol.events == ["made"]
            assert await protocol.lost is None
            await turns(2)
            assert protocol.events == ["made", "lost"]
            with pytest.raises(BrokenPipeError):
                other.write(b"x")

    run(main())


def test_closed_inside_data_received(loop, run):
    class Closing(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.close()

    async def main():
        async with read_pipe(Closing) as (protocol, other):
            other.write(b"x")
            assert await protocol.lost is None
            assert protocol.events == ["made", "data", "lost"]

    run(main())


# Writing


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


# Exceptions


class Broken(Recorder):
    error = ZeroDivisionError("broken")
    when = "data"

    def note(self, event):
        super().note(event)
        if event == self.when:
            raise self.error


@pytest.mark.parametrize("when", ["data", "eof"])
def test_exceptions_of_a_reader(loop, run, when):
    contexts = capture(loop)

    class Raising(Broken):
        pass

    Raising.when = when

    async def main():
        async with read_pipe(Raising) as (protocol, other):
            other.write(b"x")
            await protocol.received(1)
            other.close()
            await protocol.lost

    run(main())
    assert len(contexts) == 1
    assert contexts[0]["exception"] is Raising.error


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


@pytest.mark.parametrize("exc", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("when", ["made", "data", "eof", "lost"])
def test_exit_leaves_the_loop(loop, run, exc, when):
    class Leaving(Broken):
        pass

    Leaving.error = exc("out")
    Leaving.when = when
    protocols = []

    def factory():
        protocols.append(Leaving())
        return protocols[0]

    r, w = os.pipe()
    with os.fdopen(w, "wb", 0) as other:
        other.write(b"x")

        async def main():
            await loop.connect_read_pipe(factory, os.fdopen(r, "rb", 0))
            await protocols[0].received(1)
            other.close()
            await asyncio.wait_for(protocols[0].lost, TIMEOUT)

        with pytest.raises(exc, match="out"):
            loop.run_until_complete(main())
        Leaving.when = None

        async def rest():
            await turns()
            if "lost" not in protocols[0].events:
                await finish_pipe(protocols[0])
            await turns()

        run(rest())
