"""What goes wrong on a transport, and who is told of it."""

import socket

import pytest
from iosupport import BufferedRecorder, Recorder, capture, raising, raw_pair, turns


@pytest.mark.parametrize(
    ("base", "when", "message"),
    [
        (Recorder, "data", "Fatal error: protocol.data_received() call failed."),
        (Recorder, "eof", "Fatal error: protocol.eof_received() call failed."),
        (
            BufferedRecorder,
            "data",
            "Fatal error: protocol.buffer_updated() call failed.",
        ),
        (
            BufferedRecorder,
            "get_buffer",
            "Fatal error: protocol.get_buffer() call failed.",
        ),
        (BufferedRecorder, "eof", "Fatal error: protocol.eof_received() call failed."),
    ],
)
def test_exception_ends_the_connection(loop, run, base, when, message):
    contexts = capture(loop)
    exc = ZeroDivisionError(when)

    async def main():
        async with raw_pair(raising(base, when, exc)) as (protocol, peer):
            transport = protocol.transport
            transport.write(b"written before")
            peer.send(b"x")
            peer.shutdown(socket.SHUT_WR)
            assert await protocol.lost is exc
            await turns()
            assert protocol.events.count("lost") == 1
            assert contexts == [
                {
                    "message": message,
                    "exception": exc,
                    "transport": transport,
                    "protocol": protocol,
                }
            ]

    run(main())


@pytest.mark.parametrize(
    ("base", "when"),
    [
        (Recorder, "data"),
        (Recorder, "eof"),
        (BufferedRecorder, "data"),
        (BufferedRecorder, "get_buffer"),
    ],
)
def test_oserror_ends_the_connection_quietly(loop, run, base, when):
    contexts = capture(loop)
    exc = OSError(17, "of the protocol's own")

    async def main():
        async with raw_pair(raising(base, when, exc)) as (protocol, peer):
            peer.send(b"x")
            peer.shutdown(socket.SHUT_WR)
            assert await protocol.lost is exc

    run(main())
    assert contexts == []


def test_what_is_no_exception_is_reported(run_script):
    """As the context of what its handler raises it would end the process."""
    run_script(
        """
        import socket
        loop = new_event_loop()
        ours, theirs = socket.socketpair()
        transport, _ = loop.run_until_complete(
            loop.create_connection(asyncio.Protocol, sock=ours)
        )
        def handler(loop, context):
            raise ValueError
        loop.set_exception_handler(handler)
        for wrong in "text", 5, ValueError:
            transport._fatal_error(wrong)
        loop.run_until_complete(asyncio.sleep(0))
        theirs.close()
        loop.close()
        """
    )
