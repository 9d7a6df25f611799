"""Readers of asyncio's that a program has changed, and who stands between them and C."""

import asyncio
import os

import pytest
from conftest import run_python
from iosupport import fed, turns
from readsupport import begun, holding, there, used

# Methods


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
        async with used() as (reader, peer):
            if on_class:
                monkeypatch.setattr(asyncio.StreamReader, name, own)
            else:
                setattr(reader, name, own.__get__(reader))
            args = {"readline": (), "readuntil": (b"\n",)}.get(name, (5,))
            method = getattr(reader, "read" if name == "_wait_for_data" else name)
            waiting = await begun(method(*args))
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
        async with holding(b"line\n") as (reader, _):
            if on_class:
                monkeypatch.setattr(asyncio.StreamReader, "readuntil", own)
            else:
                reader.readuntil = own.__get__(reader)
            assert await reader.readline() == b"own\n"

    run(main())


def test_resumes_by_the_readers_own_method(run):
    calls = []

    async def main():
        async with holding(b"1234") as (reader, _):
            original = reader._maybe_resume_transport
            reader._maybe_resume_transport = lambda: calls.append(len(reader._buffer))
            assert await reader.read(1) == b"1"
            assert await reader.readexactly(2) == b"23"
            assert calls == [3, 1]
            reader._maybe_resume_transport = original
            assert await reader.read(5) == b"4"

    run(main())


def test_asyncios_methods_by_name(run):
    """Called on the class, with the reader as their first argument."""

    async def main():
        async with holding(b"one\ntwothree") as (reader, _):
            assert await asyncio.StreamReader.readline(reader) == b"one\n"
            assert await asyncio.StreamReader.readexactly(reader, 3) == b"two"
            assert await asyncio.StreamReader.read(reader, 9) == b"three"

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


# Attributes


def test_attributes_of_the_programs_own(run):
    async def main():
        async with fed() as (reader, _, _, peer):
            reader.name = "own"
            await there(reader, peer, b"one\ntwo\n")
            assert await reader.readline() == b"one\n"
            reader.other = 1
            assert await reader.readline() == b"two\n"
            waiting = await begun(reader.readline())
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
        async with holding(b"data") as (reader, _):
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
        async with holding(b"data\nmore") as (reader, _):
            with memoryview(reader._buffer):
                for read in (reader.read(2), reader.readexactly(2), reader.readline()):
                    with pytest.raises(BufferError):
                        await read
            assert await reader.read(100) == b"data\nmore"

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


# Classes


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
