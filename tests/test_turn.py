"""The first turn of a run, and what happens between two runs."""

import asyncio
import os
import socket

import pytest
from conftest import TIMEOUT


@pytest.fixture
def pair(loop):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(TIMEOUT)
    with ours, theirs:
        yield ours, theirs


class Recorder(asyncio.Protocol):
    def __init__(self, calls):
        self.calls = calls

    def data_received(self, data):
        self.calls.append(data)


def test_the_first_step_is_ahead_of_what_the_run_reads(loop, pair):
    """It may put up what the read is for."""
    ours, theirs = pair
    calls = []
    transport, _ = loop.run_until_complete(
        loop.create_connection(lambda: Recorder(calls), sock=ours)
    )
    theirs.sendall(b"data")

    async def main():
        calls.append("step")
        while len(calls) < 2:
            await asyncio.sleep(0)
        transport.abort()

    loop.run_until_complete(main())
    assert calls == ["step", b"data"]


def test_one_turn_reads_what_is_there(loop, pair):
    ours, theirs = pair
    calls = []
    transport, _ = loop.run_until_complete(
        loop.create_connection(lambda: Recorder(calls), sock=ours)
    )
    theirs.sendall(b"data")
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert calls == [b"data"]
    transport.abort()
    loop.run_until_complete(asyncio.sleep(0))


def test_a_write_between_two_runs_leaves_at_once(loop, pair):
    ours, theirs = pair
    transport, _ = loop.run_until_complete(
        loop.create_connection(asyncio.Protocol, sock=ours)
    )
    transport.write(b"one")
    assert theirs.recv(10) == b"one"
    transport.abort()
    loop.run_until_complete(asyncio.sleep(0))


def test_a_pipe_s_write_between_two_runs_leaves_at_once(loop):
    reader, writer = os.pipe()
    try:
        transport, _ = loop.run_until_complete(
            loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(writer, "wb", 0))
        )
        transport.write(b"one")
        assert os.read(reader, 10) == b"one"
        transport.abort()
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        os.close(reader)


def test_add_callback(loop):
    """What asyncio's own code hands over is a handle of asyncio's."""
    calls = []
    kept = asyncio.Handle(calls.append, (1,), loop)
    dropped = asyncio.Handle(calls.append, (2,), loop)
    dropped.cancel()
    loop._add_callback(kept)
    loop._add_callback(dropped)
    assert list(loop._ready) == [kept]
    loop.run_until_complete(asyncio.sleep(0))
    assert calls == [1]


def test_a_transport_s_methods_can_be_replaced(loop, pair):
    ours, _theirs = pair
    transport, _ = loop.run_until_complete(
        loop.create_connection(asyncio.Protocol, sock=ours)
    )
    written = []
    transport.write = written.append
    transport.write(b"data")
    assert written == [b"data"]
    assert vars(transport)["write"] == written.append
    transport.abort()
    loop.run_until_complete(asyncio.sleep(0))
