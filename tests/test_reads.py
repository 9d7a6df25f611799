"""The reads of asyncio's StreamReader, once data has reached it."""

import asyncio
import gc
import inspect
import os
import random
import subprocess
import sys
import weakref

import pytest
from iosupport import fed, pattern, turned_until, turns
from readsupport import TIMEOUT, begun, has_own, holding, there, used

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
        async with holding(b"data") as (reader, _):
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
        async with holding(b"one") as (reader, peer):
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
            waiting = await begun(reader.read(10))
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
        async with holding(b"data") as (reader, _):
            assert type(reader) is asyncio.StreamReader
            assert await reader.read(10) == b"data"

    run(main())


def test_only_fastloop_gives_the_class(run, loop):
    async def main():
        async with fed() as (reader, _, _, peer):
            assert type(reader) is asyncio.StreamReader
            await there(reader, peer, b"x")
            assert (type(reader) is not asyncio.StreamReader) is has_own(loop)
            assert await reader.read(1) == b"x"

    run(main())


# What is there


def test_read(run):
    async def main():
        async with holding(b"0123456789") as (reader, peer):
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
        async with holding(b"0123456789") as (reader, peer):
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
        async with holding(b"a\nbb\nc--d-e---f\0") as (reader, peer):
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
        async with holding(b"one\n\nthree\nfour") as (reader, peer):
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
        async with holding(b"first") as (reader, peer):
            assert await reader.readexactly(5) == b"first"
            if before:
                await there(reader, peer, before)
                assert await reader.readexactly(len(before)) == before
            waiting = await begun(call(reader))
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
        async with holding(b"one ") as (reader, peer):
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
        async with used() as (reader, peer):
            waiting = asyncio.ensure_future(reader.readline())
            for start in range(0, len(line), 1000):
                await turns()
                peer.send(line[start : start + 1000])
            assert await waiting == line

    run(main())


def test_fed_by_hand(run):
    async def main():
        async with used() as (reader, _):
            waiting = await begun(reader.readline())
            reader.feed_data(b"by ")
            await turns()
            reader.feed_data(b"hand\n")
            assert await waiting == b"by hand\n"
            waiting = await begun(reader.readexactly(5))
            reader.feed_eof()
            with pytest.raises(asyncio.IncompleteReadError):
                await waiting

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


# Pipes


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
            waiting = await begun(reader.readexactly(5))
            os.write(theirs, b"th")
            assert await waiting == b"twoth"
            os.close(theirs)
            assert await reader.read() == b""
            transport.close()
            await turns()

    run(main())
