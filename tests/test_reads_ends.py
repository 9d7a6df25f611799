"""Reads of asyncio's StreamReader that end in another way than with what was asked for."""

import asyncio
import re

import pytest
from iosupport import fed, reset, tcp_socketpair, turns
from readsupport import METHODS, TIMEOUT, begun, call, holding, there, used

# By whoever reads


@pytest.mark.parametrize("name", METHODS)
def test_two_at_a_time(run, name):
    async def main():
        async with used() as (reader, peer):
            first = await begun(call(reader, name))
            what = "readuntil" if name == "readline" else name
            with pytest.raises(RuntimeError) as caught:
                await call(reader, name)
            assert str(caught.value) == (
                f"{what}() called while another coroutine is "
                "already waiting for incoming data"
            )
            peer.send(b"four\n")
            assert await first == b"four\n"

    run(main())


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_cancelled(run, name, late):
    """Also when the data is there already: nothing of it is lost."""

    async def main():
        async with used() as (reader, peer):
            waiting = await begun(call(reader, name))
            assert reader._waiter is not None
            if late:
                peer.send(b"four\n")
                while not reader._buffer:
                    await asyncio.sleep(0)
            waiting.cancel()
            if not late:
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                assert reader._waiter is None
                peer.send(b"four\n")
                assert await call(reader, name) == b"four\n"
                return
            try:
                assert await waiting == b"four\n"
            except asyncio.CancelledError:
                assert await call(reader, name) == b"four\n"

    run(main())


def test_timeouts(run):
    async def main():
        async with used() as (reader, peer):
            for call in (reader.read, reader.readexactly):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await call(5)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(call(5), 0.01)
            assert reader._waiter is None
            peer.send(b"12345")
            assert await asyncio.wait_for(reader.readexactly(5), TIMEOUT) == b"12345"

    run(main())


def test_closed_while_it_waits(run):
    """coroutine.close() and throw()."""

    async def main():
        async with used() as (reader, _):
            read = reader.read(10)
            assert read.send(None) is reader._waiter
            read.close()
            assert reader._waiter is None
            read = reader.read(10)
            assert read.send(None) is reader._waiter
            with pytest.raises(KeyError):
                read.throw(KeyError())
            assert reader._waiter is None

    run(main())


# By the peer


@pytest.mark.parametrize("name", METHODS)
def test_the_end_while_it_waits(run, name):
    async def main():
        async with used() as (reader, peer):
            waiting = await begun(call(reader, name))
            if name != "read":
                await there(reader, peer, b"part")
                await turns()
            peer.close()
            if name == "read":
                assert await waiting == b""
            elif name == "readline":
                assert await waiting == b"part"
            else:
                with pytest.raises(asyncio.IncompleteReadError) as caught:
                    await waiting
                assert caught.value.partial == b"part"
                assert caught.value.expected == (5 if name == "readexactly" else None)
            assert reader.at_eof()

    run(main())


@pytest.mark.parametrize("name", METHODS)
def test_a_reset(run, name):
    async def main():
        ours, peer = tcp_socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        peer.send(b"x")
        assert await reader.read(1) == b"x"
        waiting = await begun(call(reader, name))
        reset(peer)
        with pytest.raises(ConnectionResetError):
            await waiting
        with pytest.raises(ConnectionResetError):
            await call(reader, name)
        assert isinstance(reader.exception(), ConnectionResetError)
        writer.close()

    run(main())


def test_an_exception_before_the_data_is_read(run):
    """What is buffered is not given out."""

    async def main():
        async with holding(b"data\n") as (reader, _):
            reader.set_exception(ZeroDivisionError("own"))
            for read in (
                reader.read(1),
                reader.read(),
                reader.read(0),
                reader.readexactly(1),
                reader.readuntil(b"d"),
                reader.readline(),
            ):
                with pytest.raises(ZeroDivisionError, match="own"):
                    await read

    run(main())


async def outcome(read):
    """What it returns or raises, for a comparison."""
    try:
        return await read
    except BaseException as error:
        return type(error), re.sub(r"0x\w+", "", str(error)), vars(error)


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("data", [b"", b"a", b"longline\n", b"longer", b"x\n"])
@pytest.mark.parametrize(
    "call",
    [
        lambda reader: reader.read(5),
        lambda reader: reader.readexactly(5),
        lambda reader: reader.readexactly(1),
        lambda reader: reader.readuntil(b"\n"),
        lambda reader: reader.readline(),
    ],
    ids=["read", "five", "one", "until", "line"],
)
def test_an_exception_behind_the_data(run, call, data, ends):
    """Before the step that reads: as asyncio's own reader has it."""

    async def read(reader):
        waiting = await begun(call(reader))
        if data:
            reader.feed_data(data)
        if ends:
            reader.feed_eof()
        reader.set_exception(ZeroDivisionError("own"))
        if not (data or ends):
            return await outcome(waiting)
        await turns()
        if not waiting.done():  # asyncio's waits on
            waiting.cancel()
        return await outcome(waiting), bytes(reader._buffer), reader._waiter

    async def main():
        own = asyncio.StreamReader(limit=3)
        async with used(limit=3) as (reader, _):
            assert await read(reader) == await read(own)

    run(main())


# Limits


def test_a_line_above_the_limit(run):
    async def main():
        async with holding(b"12345678\n123456789\nx\n", limit=8) as (reader, peer):
            assert await reader.readline() == b"12345678\n"
            with pytest.raises(ValueError, match="chunk is longer than limit"):
                await reader.readline()
            assert await reader.readline() == b"x\n"
            await there(reader, peer, b"123456789")
            with pytest.raises(ValueError, match="chunk exceed the limit"):
                await reader.readline()
            assert reader._buffer == b""
            await there(reader, peer, b"12345678")
            waiting = await begun(reader.readline())
            assert not waiting.done()
            peer.send(b"9")
            with pytest.raises(ValueError, match="chunk exceed the limit"):
                await waiting

    run(main())


@pytest.mark.parametrize("separator", [b"-", b"--"])
def test_a_message_above_the_limit(run, separator):
    async def main():
        async with holding(b"12345678" + separator, limit=8) as (reader, peer):
            assert await reader.readuntil(separator) == b"12345678" + separator
            await there(reader, peer, b"123456789")
            size = len(reader._buffer)
            over = size + 1 - len(separator)
            if over > 8:
                with pytest.raises(asyncio.LimitOverrunError) as caught:
                    await reader.readuntil(separator)
                assert caught.value.consumed == over
                assert len(reader._buffer) == size
            await there(reader, peer, b"0" + separator)
            with pytest.raises(asyncio.LimitOverrunError) as caught:
                await reader.readuntil(separator)
            assert caught.value.consumed == 10
            assert await reader.readexactly(10) == b"1234567890"
            assert await reader.readuntil(separator) == separator

    run(main())


@pytest.mark.parametrize("name", ["read", "readexactly", "readuntil"])
def test_a_paused_transport_goes_on(run, name):
    """At the limit again; or at once, if there is a wait."""

    async def main():
        async with fed(limit=10) as (reader, _, transport, peer):
            await there(reader, peer, b"x" * 9 + b"-" + b"y" * 14)
            assert not transport.is_reading()
            if name == "read":
                assert await reader.read(10) == b"x" * 9 + b"-"
            elif name == "readexactly":
                assert await reader.readexactly(10) == b"x" * 9 + b"-"
            else:
                assert await reader.readuntil(b"-") == b"x" * 9 + b"-"
            assert reader._paused
            assert await reader.read(3) == b"yyy"
            assert reader._paused
            assert await reader.readexactly(1) == b"y"
            assert not reader._paused
            assert transport.is_reading()
            waiting = asyncio.ensure_future(reader.readexactly(50))
            for _ in range(4):
                peer.send(b"z" * 10)
                await turns(10)
            assert await waiting == b"y" * 10 + b"z" * 40

    run(main())


def test_a_limit_that_changes(run):
    async def main():
        async with holding(b"12345\n" * 4) as (reader, _):
            for limit in (5, 5.5, 10**30):
                reader._limit = limit
                assert await reader.readline() == b"12345\n"
            reader._limit = 4
            with pytest.raises(ValueError, match="longer than limit"):
                await reader.readline()

    run(main())


# Bad arguments


@pytest.mark.parametrize(
    "call",
    [
        lambda reader: reader.read("1"),
        lambda reader: reader.read(None),
        lambda reader: reader.read(1.5),
        lambda reader: reader.readexactly(-1),
        lambda reader: reader.readexactly("1"),
        lambda reader: reader.readexactly(1.5),
        lambda reader: reader.readuntil(b""),
        lambda reader: reader.readuntil("x"),
        lambda reader: reader.readuntil(1),
        lambda reader: reader.readuntil(None),
    ],
)
def test_bad_arguments(run, call):
    """They get what asyncio's own class says, and the data stays."""

    async def main():
        async with holding(b"data") as (reader, _):
            own = asyncio.StreamReader(loop=asyncio.get_running_loop())
            own.feed_data(b"data")
            expected = await outcome(call(own))
            assert expected is not None
            assert await outcome(call(reader)) == expected
            assert await reader.read(10) == b"data"

    run(main())


def test_missing_arguments(run):
    async def main():
        async with holding(b"data") as (reader, _):
            for args in ((), (1, 2)):
                with pytest.raises(TypeError, match=r"StreamReader.readexactly\(\)"):
                    await reader.readexactly(*args)
            with pytest.raises(TypeError, match=r"StreamReader.readline\(\)"):
                await reader.readline(1)

    run(main())
