"""Pipes that are read."""

import pytest
from iosupport import (
    Broken,
    Recorder,
    capture,
    read_pipe,
    reset,
    settle,
    tcp_socketpair,
    turns,
)


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


def test_a_socket_that_is_reset(loop, run):
    """Sockets are read as pipes are; of what ends them only a hang-up is no news."""
    contexts = capture(loop)

    async def main():
        ours, theirs = tcp_socketpair()
        _, protocol = await loop.connect_read_pipe(Recorder, ours)
        reset(theirs)
        assert isinstance(await protocol.lost, ConnectionResetError)
        await turns(2)

    run(main())
    [context] = contexts
    assert context["message"] == "Fatal read error on pipe transport"
    assert isinstance(context["exception"], ConnectionResetError)
    contexts.clear()
    del context
