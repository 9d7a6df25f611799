"""The reads of asyncio's StreamReader, once data has reached it."""

import asyncio
import gc
import inspect
import os
import random
import re
import subprocess
import sys
import weakref

import pytest
from conftest import run_python
from iosupport import fed, is_stock, pattern, reset, tcp_socketpair, turned_until, turns

TIMEOUT = 30


def has_own(loop):
    """Whether readers of this loop get a class of its own."""
    return getattr(sys, "_is_gil_enabled", lambda: True)() and not is_stock(loop)


async def there(reader, peer, data):
    """Send data, and wait until the reader has them."""
    length = len(reader._buffer) + len(data)
    peer.send(data)
    await turned_until(lambda: len(reader._buffer) == length)


# What it is


def test_it_is_a_stream_reader(run):
    async def main():
        async with fed() as (reader, _, _, peer):
            before = repr(reader)
            state = dict(vars(reader))
            await there(reader, peer, b"data\n")
            assert isinstance(reader, asyncio.StreamReader)
            assert type(reader).__name__ == "StreamReader"
            assert await reader.readline() == b"data\n"
            assert repr(reader) == before
            assert vars(reader) == state
            for name in ("read", "readline", "readuntil", "readexactly"):
                method = getattr(reader, name)
                original = getattr(asyncio.StreamReader, name)
                assert inspect.iscoroutinefunction(method)
                assert method.__qualname__ == original.__qualname__
                signatures = [
                    [
                        (p.name, p.default)
                        for p in inspect.signature(f).parameters.values()
                    ]
                    for f in (method, original)
                ]
                assert signatures[0] == signatures[1][1:]

    run(main())


def test_a_read_that_nobody_awaits(run):
    async def main():
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"data")
            with pytest.warns(
                RuntimeWarning, match=r"coroutine 'StreamReader.read' was never awaited"
            ):
                reader.read(10)
                gc.collect()
            assert await reader.read(10) == b"data"

    run(main())


def test_it_begins_when_it_is_awaited(run):
    """Not when it is called."""

    async def main():
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"one")
            reads = [reader.read(10), reader.readexactly(3), reader.readline()]
            assert reader._buffer == b"one"
            assert await reads[0] == b"one"
            await there(reader, peer, b"twothree\n")
            assert [await read for read in reads[1:]] == [b"two", b"three\n"]

    run(main())


def test_nothing_keeps_a_reader(run):
    async def main():
        async with fed() as (reader, protocol, _, peer):
            await there(reader, peer, b"data")
            assert await reader.read(10) == b"data"
            waiting = asyncio.ensure_future(reader.read(10))
            await turns()
            waiting.cancel()
            await asyncio.wait([waiting])
            del waiting
            gone = weakref.ref(reader)
            protocol._stream_reader_wr = None
        gc.disable()
        try:
            return gone, reader
        finally:
            gc.enable()

    gone, reader = run(main())
    gc.collect()
    gc.disable()
    try:
        del reader
        assert gone() is None
    finally:
        gc.enable()


def test_debug_mode_leaves_asyncios_own(run, loop):
    loop.set_debug(True)

    async def main():
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"data")
            assert type(reader) is asyncio.StreamReader
            assert await reader.read(10) == b"data"

    run(main())


# What is there


def test_read(run):
    async def main():
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"0123456789")
            assert await reader.read(3) == b"012"
            assert await reader.read(n=1) == b"3"
            assert await reader.read(0) == b""
            assert await reader.read(100) == b"456789"
            await there(reader, peer, b"x")
            assert await reader.read(sys.maxsize) == b"x"
            await there(reader, peer, b"y")
            assert await reader.read(10**30) == b"y"
            await there(reader, peer, b"z")
            assert await reader.read(True) == b"z"
            await there(reader, peer, b"rest")
            peer.close()
            assert await reader.read() == b"rest"
            assert await reader.read(5) == b""
            assert await reader.read() == b""
            assert reader.at_eof()

    run(main())


def test_readexactly(run):
    async def main():
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"0123456789")
            assert await reader.readexactly(3) == b"012"
            assert await reader.readexactly(0) == b""
            assert await reader.readexactly(n=7) == b"3456789"
            await there(reader, peer, b"rest")
            peer.close()
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await reader.readexactly(5)
            assert (caught.value.partial, caught.value.expected) == (b"rest", 5)
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await reader.readexactly(1)
            assert (caught.value.partial, caught.value.expected) == (b"", 1)

    run(main())


def test_readuntil(run):
    async def main():
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"a\nbb\nc--d-e---f\0")
            assert await reader.readuntil() == b"a\n"
            assert await reader.readuntil(b"\n") == b"bb\n"
            assert await reader.readuntil(b"--") == b"c--"
            assert await reader.readuntil(separator=b"---") == b"d-e---"
            assert await reader.readuntil(bytearray(b"f")) == b"f"
            assert await reader.readuntil(b"\0") == b"\0"
            if sys.version_info >= (3, 13):
                await there(reader, peer, b"a;b,")
                assert await reader.readuntil((b",", b";")) == b"a;"
                assert await reader.readuntil((b",", b";")) == b"b,"
            await there(reader, peer, b"rest")
            peer.close()
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await reader.readuntil(b"!")
            assert (caught.value.partial, caught.value.expected) == (b"rest", None)

    run(main())


def test_readline(run):
    async def main():
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"one\n\nthree\nfour")
            assert await reader.readline() == b"one\n"
            assert await reader.readline() == b"\n"
            assert [line async for line in until_four(reader, peer)] == [
                b"three\n",
                b"four",
            ]
            assert await reader.readline() == b""

    async def until_four(reader, peer):
        peer.close()
        async for line in reader:
            yield line

    run(main())


# What comes later


@pytest.mark.parametrize(
    ("call", "pieces", "result"),
    [
        (lambda reader: reader.read(10), [b"ab", b"cd"], b"ab"),
        (lambda reader: reader.readexactly(4), [b"a", b"b", b"c", b"d"], b"abcd"),
        (lambda reader: reader.readline(), [b"a", b"b", b"c\nd"], b"abc\n"),
        (lambda reader: reader.readuntil(b"--"), [b"a-", b"b-", b"-c"], b"a-b--"),
        (
            lambda reader: reader.readuntil(b"-=-"),
            [b"-=", b"=", b"-=-", b"c"],
            b"-==-=-",
        ),
    ],
    ids=["read", "exactly", "line", "until", "overlap"],
)
@pytest.mark.parametrize("before", [b"", b"x"])
def test_it_waits(run, call, pieces, result, before):
    async def main():
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"first")
            assert await reader.readexactly(5) == b"first"
            if before:
                await there(reader, peer, before)
                assert await reader.readexactly(len(before)) == before
            waiting = asyncio.ensure_future(call(reader))
            await turns()
            sent = b""
            for piece in pieces:
                assert not waiting.done() or sent.startswith(result)
                sent += piece
                peer.send(piece)
                left = len(result) if waiting.done() else 0
                length = len(sent) - left
                await turned_until(
                    lambda length=length: (
                        waiting.done() or len(reader._buffer) == length
                    )
                )
            peer.close()
            assert await asyncio.wait_for(waiting, TIMEOUT) == result
            assert reader._waiter is None
            assert await reader.read() == sent[len(result) :]

    run(main())


def test_all_that_comes(run):
    async def main():
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"one ")
            waiting = asyncio.ensure_future(reader.read())
            await turned_until(lambda: not reader._buffer)
            peer.send(b"two ")
            await turns()
            peer.send(b"three")
            peer.close()
            assert await waiting == b"one two three"

    run(main())


def test_a_long_line_in_small_pieces(run):
    """Each piece is searched once: not the whole line again."""
    line = pattern(60_000).replace(b"\n", b" ") + b"\n"

    async def main():
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"x")
            assert await reader.read(1) == b"x"
            waiting = asyncio.ensure_future(reader.readline())
            for start in range(0, len(line), 1000):
                await turns()
                peer.send(line[start : start + 1000])
            assert await waiting == line

    run(main())


@pytest.mark.parametrize("name", ["read", "readexactly", "readuntil", "readline"])
def test_two_at_a_time(run, name):
    def call(reader):
        method = getattr(reader, name)
        return method(5) if name in ("read", "readexactly") else method()

    async def main():
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"x")
            assert await reader.read(1) == b"x"
            first = asyncio.ensure_future(call(reader))
            await turns()
            what = "readuntil" if name == "readline" else name
            with pytest.raises(RuntimeError) as caught:
                await call(reader)
            assert str(caught.value) == (
                f"{what}() called while another coroutine is "
                "already waiting for incoming data"
            )
            peer.send(b"four\n")
            assert await first == b"four\n"

    run(main())


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", ["read", "readexactly", "readuntil", "readline"])
def test_cancelled(run, name, late):
    """Also when the data is there already: nothing of it is lost."""

    def call(reader):
        method = getattr(reader, name)
        return method(5) if name in ("read", "readexactly") else method()

    async def main():
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"x")
            assert await reader.read(1) == b"x"
            waiting = asyncio.ensure_future(call(reader))
            await turns()
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
                assert await call(reader) == b"four\n"
                return
            try:
                assert await waiting == b"four\n"
            except asyncio.CancelledError:
                assert await call(reader) == b"four\n"

    run(main())


def test_timeouts(run):
    async def main():
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"x")
            assert await reader.read(1) == b"x"
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
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"x")
            assert await reader.read(1) == b"x"
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


@pytest.mark.parametrize("name", ["read", "readexactly", "readuntil", "readline"])
def test_the_end_while_it_waits(run, name):
    def call(reader):
        method = getattr(reader, name)
        return method(5) if name in ("read", "readexactly") else method()

    async def main():
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"x")
            assert await reader.read(1) == b"x"
            waiting = asyncio.ensure_future(call(reader))
            await turns()
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


@pytest.mark.parametrize("name", ["read", "readexactly", "readuntil", "readline"])
def test_a_reset(run, name):
    def call(reader):
        method = getattr(reader, name)
        return method(5) if name in ("read", "readexactly") else method()

    async def main():
        ours, peer = tcp_socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        peer.send(b"x")
        assert await reader.read(1) == b"x"
        waiting = asyncio.ensure_future(call(reader))
        await turns()
        reset(peer)
        with pytest.raises(ConnectionResetError):
            await waiting
        with pytest.raises(ConnectionResetError):
            await call(reader)
        assert isinstance(reader.exception(), ConnectionResetError)
        writer.close()

    run(main())


def test_an_exception_before_the_data_is_read(run):
    """What is buffered is not given out."""

    async def main():
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"data\n")
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
        waiting = asyncio.ensure_future(call(reader))
        await turns()
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
        async with fed(limit=3) as (reader, _, _, peer):
            await there(reader, peer, b"z")
            assert await reader.read(1) == b"z"
            assert await read(reader) == await read(own)

    run(main())


# Limits


def test_a_line_above_the_limit(run):
    async def main():
        async with fed(limit=8) as (reader, _, _, peer):
            await there(reader, peer, b"12345678\n123456789\nx\n")
            assert await reader.readline() == b"12345678\n"
            with pytest.raises(ValueError, match="chunk is longer than limit"):
                await reader.readline()
            assert await reader.readline() == b"x\n"
            await there(reader, peer, b"123456789")
            with pytest.raises(ValueError, match="chunk exceed the limit"):
                await reader.readline()
            assert reader._buffer == b""
            await there(reader, peer, b"12345678")
            waiting = asyncio.ensure_future(reader.readline())
            await turns()
            assert not waiting.done()
            peer.send(b"9")
            with pytest.raises(ValueError, match="chunk exceed the limit"):
                await waiting

    run(main())


@pytest.mark.parametrize("separator", [b"-", b"--"])
def test_a_message_above_the_limit(run, separator):
    async def main():
        async with fed(limit=8) as (reader, _, _, peer):
            await there(reader, peer, b"12345678" + separator)
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
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"12345\n" * 4)
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
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"data")
            own = asyncio.StreamReader(loop=asyncio.get_running_loop())
            own.feed_data(b"data")
            expected = await outcome(call(own))
            assert expected is not None
            assert await outcome(call(reader)) == expected
            assert await reader.read(10) == b"data"

    run(main())


def test_missing_arguments(run):
    async def main():
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"data")
            for args in ((), (1, 2)):
                with pytest.raises(TypeError, match=r"StreamReader.readexactly\(\)"):
                    await reader.readexactly(*args)
            with pytest.raises(TypeError, match=r"StreamReader.readline\(\)"):
                await reader.readline(1)

    run(main())


# Who stands in between


@pytest.mark.parametrize("on_class", [False, True])
@pytest.mark.parametrize(
    "name", ["read", "readexactly", "readuntil", "readline", "_wait_for_data"]
)
def test_replaced_methods(run, monkeypatch, name, on_class):
    calls = []
    original = getattr(asyncio.StreamReader, name)

    async def own(self, *args):
        calls.append(args)
        return await original(self, *args)

    async def main():
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"x")
            assert await reader.read(1) == b"x"
            if on_class:
                monkeypatch.setattr(asyncio.StreamReader, name, own)
            else:
                setattr(reader, name, own.__get__(reader))
            args = {"readline": (), "readuntil": (b"\n",)}.get(name, (5,))
            method = getattr(reader, "read" if name == "_wait_for_data" else name)
            waiting = asyncio.ensure_future(method(*args))
            await turns()
            peer.send(b"four\n")
            assert await waiting == b"four\n"
            assert calls == [("read",) if name == "_wait_for_data" else args]
            if not on_class:
                delattr(reader, name)
            monkeypatch.undo()
            await there(reader, peer, b"four\n")
            assert await reader.readline() == b"four\n"
            assert len(calls) == 1

    run(main())


@pytest.mark.parametrize("on_class", [False, True])
def test_readline_reads_until(run, monkeypatch, on_class):
    """By the method that the reader has."""

    async def own(self, separator):
        return b"own" + separator

    async def main():
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"line\n")
            if on_class:
                monkeypatch.setattr(asyncio.StreamReader, "readuntil", own)
            else:
                reader.readuntil = own.__get__(reader)
            assert await reader.readline() == b"own\n"

    run(main())


def test_resumes_by_the_readers_own_method(run):
    calls = []

    async def main():
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"1234")
            original = reader._maybe_resume_transport
            reader._maybe_resume_transport = lambda: calls.append(len(reader._buffer))
            assert await reader.read(1) == b"1"
            assert await reader.readexactly(2) == b"23"
            assert calls == [3, 1]
            reader._maybe_resume_transport = original
            assert await reader.read(5) == b"4"

    run(main())


def test_attributes_of_the_programs_own(run):
    async def main():
        async with fed() as (reader, _, _, peer):
            reader.name = "own"
            await there(reader, peer, b"one\ntwo\n")
            assert await reader.readline() == b"one\n"
            reader.other = 1
            assert await reader.readline() == b"two\n"
            waiting = asyncio.ensure_future(reader.readline())
            await turns()
            peer.send(b"three\n")
            assert await waiting == b"three\n"
            assert (reader.name, reader.other) == ("own", 1)

    run(main())


def test_an_attribute_in_the_place_of_another(run):
    """One of the program's own reader, and a method that it replaced."""

    async def own(self, separator):
        return b"own" + separator

    async def main():
        async with fed() as (first, _, _, peer):
            first.name = "first"
            await there(first, peer, b"x")
            assert await first.read(1) == b"x"
            async with fed() as (reader, _, _, other):
                reader.readuntil = own.__get__(reader)
                await there(reader, other, b"line\n")
                assert await reader.readline() == b"own\n"

    run(main())


def test_another_buffer(run):
    class Own(bytearray):
        pass

    async def main():
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"data")
            reader._buffer = Own(b"own\nthing")
            assert await reader.readline() == b"own\n"
            assert await reader.readexactly(2) == b"th"
            assert await reader.read(10) == b"ing"
            reader._buffer = bytearray(b"plain\n")
            assert await reader.readline() == b"plain\n"

    run(main())


def test_a_buffer_that_is_held(run):
    """Reading cannot take out of it; what it has stays."""

    async def main():
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"data\nmore")
            with memoryview(reader._buffer):
                for read in (reader.read(2), reader.readexactly(2), reader.readline()):
                    with pytest.raises(BufferError):
                        await read
            assert await reader.read(100) == b"data\nmore"

    run(main())


def test_asyncios_methods_by_name(run):
    """Called on the class, with the reader as their first argument."""

    async def main():
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"one\ntwothree")
            assert await asyncio.StreamReader.readline(reader) == b"one\n"
            assert await asyncio.StreamReader.readexactly(reader, 3) == b"two"
            assert await asyncio.StreamReader.read(reader, 9) == b"three"

    run(main())


def test_fed_by_hand(run):
    async def main():
        async with fed() as (reader, _, _, peer):
            await there(reader, peer, b"a")
            assert await reader.read(1) == b"a"
            waiting = asyncio.ensure_future(reader.readline())
            await turns()
            reader.feed_data(b"by ")
            await turns()
            reader.feed_data(b"hand\n")
            assert await waiting == b"by hand\n"
            waiting = asyncio.ensure_future(reader.readexactly(5))
            await turns()
            reader.feed_eof()
            with pytest.raises(asyncio.IncompleteReadError):
                await waiting

    run(main())


def test_without_asyncios_attributes(run):
    """A reader that lost one fails as asyncio's does."""

    async def main():
        for name in ("_buffer", "_eof", "_exception", "_limit", "_loop", "_waiter"):
            async with fed() as (reader, _, transport, peer):
                await there(reader, peer, b"xy")
                assert await reader.read(1) == b"x"
                kept = vars(reader).pop(name)
                with pytest.raises(AttributeError, match=name):
                    await reader.readuntil(b"\n")
                setattr(reader, name, kept)
                reader._waiter = None
                transport.abort()
                await turns()

    run(main())


# As a whole


@pytest.mark.parametrize("seed", range(10))
def test_like_a_model(run, seed):
    """Random reads of random pieces give what the bytes say."""
    rnd = random.Random(seed)
    data = bytes(rnd.choices(b"ab\n-", k=20_000))

    async def sender(peer):
        loop = asyncio.get_running_loop()
        at = 0
        while at < len(data):
            size = rnd.choice([1, 3, 100, 2000])
            await loop.sock_sendall(peer, data[at : at + size])
            at += size
            if rnd.random() < 0.5:
                await asyncio.sleep(0)
        peer.close()

    async def main():
        async with fed(limit=rnd.choice([64, 1000, 2**16])) as (reader, _, _, peer):
            sending = asyncio.ensure_future(sender(peer))
            left = data
            while left:
                kind = rnd.randrange(4)
                if kind == 0:
                    count = rnd.choice([1, 50, 5000])
                    got = await reader.read(count)
                    assert 0 < len(got) <= count
                elif kind == 1:
                    count = min(rnd.choice([1, 50, 5000]), len(left))
                    got = await reader.readexactly(count)
                    assert len(got) == count
                else:
                    separator = (
                        b"\n" if kind == 2 else rnd.choice([b"-", b"a\n", b"-b-"])
                    )
                    try:
                        got = await reader.readuntil(separator)
                        at = left.find(separator)
                        assert len(got) == at + len(separator)
                    except asyncio.LimitOverrunError as error:
                        assert error.consumed >= 64
                        got = await reader.readexactly(error.consumed)
                    except asyncio.IncompleteReadError as error:
                        got = error.partial
                        assert len(got) == len(left)
                        assert separator not in left
                assert left.startswith(got)
                left = left[len(got) :]
            assert await reader.read() == b""
            await sending

    run(main())


def test_streams_of_a_server(run):
    """Both ends, by the names that asyncio gives them."""

    async def serve(reader, writer):
        async for line in reader:
            writer.write(line.upper())
            await writer.drain()
        writer.close()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname()
            )
            for text in (b"one\n", b"two\n", b"three\n"):
                writer.write(text)
                assert await reader.readline() == text.upper()
            writer.write(b"a\nb\nc\n")
            assert await reader.readexactly(6) == b"A\nB\nC\n"
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    run(main())


WRITES = """
import os, sys
os.write(1, b"one\\ntwo\\nthree")
os.write(2, b"err\\n")
sys.stdin.read()
os.write(1, b"four\\n")
"""


def test_the_output_of_a_child(run, loop):
    async def main():
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", WRITES),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for reader in (child.stdout, child.stderr):
            assert (type(reader) is not asyncio.StreamReader) is has_own(loop)
        assert await child.stdout.readline() == b"one\n"
        assert await child.stdout.readuntil(b"o") == b"two"
        assert await child.stderr.read(100) == b"err\n"
        assert await child.stdout.readexactly(6) == b"\nthree"
        out, err = await child.communicate(b"")
        assert (out, err, child.returncode) == (b"four\n", b"", 0)

    run(main())


def test_a_childs_long_output_by_lines(run):
    """Its transport pauses and goes on."""
    count = 50_000
    code = f"for i in range({count}): print(i)"

    async def main():
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code), stdout=subprocess.PIPE, limit=1000
        )
        lines = [line async for line in child.stdout]
        assert lines == [b"%d\n" % i for i in range(count)]
        assert await child.wait() == 0

    run(main())


def test_a_pipe(run, loop):
    async def main():
        ours, theirs = os.pipe()
        reader = asyncio.StreamReader()
        with open(ours, "rb") as end:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), end
            )
            assert (type(reader) is not asyncio.StreamReader) is has_own(loop)
            os.write(theirs, b"one\ntwo")
            assert await reader.readline() == b"one\n"
            waiting = asyncio.ensure_future(reader.readexactly(5))
            await turns()
            os.write(theirs, b"th")
            assert await waiting == b"twoth"
            os.close(theirs)
            assert await reader.read() == b""
            transport.close()
            await turns()

    run(main())


@pytest.mark.parametrize("debug", [False, True])
def test_a_subclass_and_a_protocol_of_the_programs_own(run, loop, debug):
    """On a pipe; they stay what they are."""

    class Reader(asyncio.StreamReader):
        pass

    class Protocol(asyncio.StreamReaderProtocol):
        pass

    loop.set_debug(debug)

    async def one(reader, protocol):
        before = type(reader)
        ours, theirs = os.pipe()
        with open(ours, "rb") as end:
            transport, _ = await loop.connect_read_pipe(lambda: protocol, end)
            assert type(reader) is before
            os.write(theirs, b"one\n")
            os.close(theirs)
            assert await reader.readline() == b"one\n"
            transport.close()
            await turns()

    async def main():
        own, plain = Reader(), asyncio.StreamReader()
        await one(own, asyncio.StreamReaderProtocol(own))
        await one(plain, Protocol(plain))

    run(main())


BEFORE_THE_IMPORT = """
import asyncio, socket

calls = []
original = asyncio.StreamReader.readline

async def own(self):
    calls.append(1)
    return await original(self)

asyncio.StreamReader.readline = own
import fastloop

async def main():
    ours, peer = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    for _ in range(3):
        peer.send(b"line\\n")
        assert await reader.readline() == b"line\\n"
    assert len(calls) == 3
    writer.close()
    peer.close()

fastloop.run(main())
print("done")
"""


def test_methods_that_were_replaced_before_the_import():
    """By something that traces, say: they are called."""
    assert run_python("-c", BEFORE_THE_IMPORT).stdout == "done\n"


def test_only_fastloop_gives_the_class(run, loop):
    async def main():
        async with fed() as (reader, _, _, peer):
            assert type(reader) is asyncio.StreamReader
            await there(reader, peer, b"x")
            assert (type(reader) is not asyncio.StreamReader) is has_own(loop)
            assert await reader.read(1) == b"x"

    run(main())
