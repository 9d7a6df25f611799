"""Whatever a protocol does or raises inside the callbacks of a stream transport."""

import asyncio
import contextlib
import socket
import threading

import pytest
from iosupport import (
    TIMEOUT,
    BufferedRecorder,
    Recorder,
    acting,
    capture,
    finish,
    in_thread,
    raising,
    raw_pair,
    read_exactly,
    settle,
    turns,
)

BOTH = pytest.mark.parametrize("base", [Recorder, BufferedRecorder])


@pytest.mark.parametrize("name", ["close", "abort"])
@pytest.mark.parametrize("when", ["made", "data", "eof", "get_buffer", "lost"])
@BOTH
def test_ended_inside_a_callback(loop, run, base, when, name):
    if when == "get_buffer" and base is Recorder:
        pytest.skip("has no get_buffer()")
    contexts = capture(loop)

    async def main():
        async with raw_pair(
            acting(base, when, lambda protocol: getattr(protocol.transport, name)())
        ) as (protocol, peer):
            with contextlib.suppress(
                BrokenPipeError
            ):  # ended before it could be sent to
                peer.send(b"x")
            peer.shutdown(socket.SHUT_WR)
            assert await protocol.lost is None
            await settle()
            assert protocol.events.count("lost") == 1
            assert protocol.events[-1] == "lost"
            if when in ("made", "data", "get_buffer"):
                assert "eof" not in protocol.events
            assert await in_thread(peer.recv, 1) == b""

    run(main())
    assert contexts == []


@pytest.mark.parametrize(
    "when", ["made", "data", "eof", "get_buffer", "pause", "resume"]
)
@BOTH
def test_protocol_replaced_inside_a_callback(loop, run, base, when):
    if when == "get_buffer" and base is Recorder:
        pytest.skip("has no get_buffer()")
    contexts = capture(loop)

    async def main():
        new = BufferedRecorder() if base is Recorder else Recorder()

        def replace(protocol):
            # asyncio tells an exchanged protocol of bytes that its predecessor's buffer holds.
            target = BufferedRecorder() if when == "get_buffer" else new
            new.stand_in = target
            target.transport = protocol.transport
            protocol.transport.set_protocol(target)

        async with raw_pair(acting(base, when, replace), size=8192) as (protocol, peer):
            protocol.transport.write(bytes(300_000))
            peer.send(b"x")
            await in_thread(read_exactly, peer, 300_000)
            peer.shutdown(socket.SHUT_WR)
            while not hasattr(new, "stand_in"):
                await asyncio.sleep(0)
            await new.stand_in.lost
            assert "lost" not in protocol.events
            protocol.lost.set_result(None)
            await turns()

    run(main())
    assert contexts == []


@pytest.mark.parametrize(
    "when", ["made", "data", "eof", "get_buffer", "pause", "resume", "lost"]
)
@BOTH
def test_everything_called_inside_a_callback(loop, run, base, when):
    if when == "get_buffer" and base is Recorder:
        pytest.skip("has no get_buffer()")
    contexts = capture(loop)

    def action(protocol):
        transport = protocol.transport
        repr(transport)
        transport.pause_reading()
        transport.resume_reading()
        transport.write(b"w" * 10)
        transport.writelines([b"w" * 5, b"w" * 5])
        transport.get_write_buffer_size()
        transport.set_write_buffer_limits(high=50_000)
        transport.get_extra_info("peername")
        transport.set_protocol(protocol)
        assert transport.get_protocol() is protocol
        transport.is_closing()
        transport.can_write_eof()

    if when == "lost":

        def action(protocol):
            transport = protocol.transport
            repr(transport)
            transport.pause_reading()
            transport.resume_reading()
            transport.write(b"dropped")
            transport.write_eof()
            transport.get_write_buffer_size()
            transport.is_closing()
            transport.close()

    async def main():
        async with raw_pair(acting(base, when, action), size=8192) as (protocol, peer):
            protocol.transport.write(bytes(300_000))
            peer.send(b"x")
            size = (
                300_020
                if when in ("made", "data", "get_buffer", "pause", "resume")
                else 300_000
            )
            assert len(await in_thread(read_exactly, peer, size)) == size
            peer.shutdown(socket.SHUT_WR)
            await protocol.lost
            await turns()
            assert protocol.data == b"x"
            assert protocol.events.count("lost") == 1

    run(main())
    assert contexts == []


def test_one_connection_ends_another_that_is_ready(loop, run):
    async def main():
        async with (
            raw_pair() as (first, first_peer),
            raw_pair() as (second, second_peer),
        ):
            first.other, second.other = second, first
            for protocol in (first, second):

                def note(event, protocol=protocol, note=protocol.note):
                    note(event)
                    if event == "data":
                        protocol.other.transport.abort()

                protocol.note = note
            first_peer.send(b"x")
            second_peer.send(b"x")
            await asyncio.wait(
                [first.lost, second.lost], return_when=asyncio.FIRST_COMPLETED
            )
            await settle()
            assert first.events.count("data") + second.events.count("data") == 1
            assert first.events.count("lost") + second.events.count("lost") == 1

    run(main())


def test_loop_stopped_inside_data_received(loop, run):
    async def connect():
        ours, peer = socket.socketpair()
        stopping = acting(Recorder, "data", lambda protocol: loop.stop(), times=3)
        return (await loop.create_connection(stopping, sock=ours))[1], peer

    protocol, peer = run(connect())
    with peer:
        for turn in range(3):
            peer.send(b"x")
            loop.run_forever()
            assert len(protocol.data) == turn + 1
        run(finish(protocol))


# Exceptions out of callbacks


@pytest.mark.parametrize(
    "buffer", [b"", bytearray(), b"read only", "text", None, 5], ids=repr
)
def test_wrong_buffers(loop, run, buffer):
    contexts = capture(loop)

    class Wrong(BufferedRecorder):
        def get_buffer(self, sizehint):
            return buffer

    async def main():
        async with raw_pair(Wrong) as (protocol, peer):
            peer.send(b"x")
            exc = await protocol.lost
            assert len(contexts) == 1
            assert contexts[0]["exception"] is exc
            assert contexts[0]["transport"] is protocol.transport
            assert contexts[0]["protocol"] is protocol
            if buffer in (b"", bytearray()) and isinstance(buffer, (bytes, bytearray)):
                assert isinstance(exc, RuntimeError)
                assert str(exc) == "get_buffer() returned an empty buffer"
                assert (
                    contexts[0]["message"]
                    == "Fatal error: protocol.get_buffer() call failed."
                )
            else:
                assert isinstance(exc, (TypeError, BufferError))

    run(main())


def test_exception_out_of_connection_made(loop, run):
    contexts = capture(loop)
    exc = ZeroDivisionError("made")

    class Broken(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise exc

    async def main():
        async with raw_pair(Broken) as (protocol, peer):
            await turns()
            assert len(contexts) == 1
            assert contexts[0]["exception"] is exc
            assert contexts[0]["message"].startswith("Exception in callback ")
            # The connection is open all the same.
            peer.send(b"x")
            await protocol.received(1)

    run(main())
    assert len(contexts) == 1


@pytest.mark.parametrize("how", ["close", "abort", "flush", "peer"])
def test_exception_out_of_connection_lost(loop, run, how):
    contexts = capture(loop)
    exc = ZeroDivisionError("lost")

    async def main():
        async with raw_pair(raising(Recorder, "lost", exc)) as (protocol, peer):
            transport = protocol.transport
            if how == "flush":
                transport.write(bytes(5_000_000))
                transport.close()
                await in_thread(read_exactly, peer, 5_000_000)
            elif how == "peer":
                peer.shutdown(socket.SHUT_WR)
            else:
                getattr(transport, how)()
            await protocol.until(lambda: "lost" in protocol.events)
            protocol.lost.set_result(None)
            await turns()
            assert len(contexts) == 1
            assert contexts[0]["exception"] is exc
            assert contexts[0]["message"].startswith("Exception in callback ")
            # The descriptor is closed all the same.
            assert transport.get_extra_info("socket").fileno() == -1
            assert await in_thread(peer.recv, 1) == b""

    run(main())


@pytest.mark.parametrize("exc", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize(
    ("base", "when"),
    [
        (Recorder, "made"),
        (Recorder, "data"),
        (Recorder, "eof"),
        (Recorder, "resume"),
        (Recorder, "lost"),
        (BufferedRecorder, "get_buffer"),
        (BufferedRecorder, "data"),
        (BufferedRecorder, "eof"),
    ],
)
def test_exit_leaves_the_loop(loop, run, base, when, exc):
    contexts = capture(loop)
    ours, peer = socket.socketpair()
    protocols = []
    readers = []

    def factory():
        protocols.append(raising(base, when, exc("out"))())
        return protocols[0]

    async def main():
        await loop.create_connection(factory, sock=ours)
        protocols[0].transport.write(bytes(3_000_000))
        readers.append(threading.Thread(target=read_exactly, args=(peer, 3_000_000)))
        readers[0].start()
        peer.send(b"x")
        await protocols[0].until(lambda: "resume" in protocols[0].events)
        peer.shutdown(socket.SHUT_WR)
        await protocols[0].lost

    with peer:
        peer.settimeout(TIMEOUT)
        task = loop.create_task(main())
        with pytest.raises(exc, match="out"):
            loop.run_until_complete(asyncio.wait_for(task, TIMEOUT))
        assert contexts == []
        # The loop and the connection are usable afterwards.
        protocols[0].left = 0
        run(turns())
        if protocols[0].transport is not None and "lost" not in protocols[0].events:
            run(finish(protocols[0]))
        run(turns())
        for reader in readers:
            reader.join(TIMEOUT)
        assert ours.fileno() == -1


@pytest.mark.parametrize("exc", [asyncio.CancelledError, GeneratorExit])
def test_other_base_exceptions_are_reported(loop, run, exc):
    contexts = capture(loop)

    async def main():
        async with raw_pair(raising(Recorder, "data", exc())) as (protocol, peer):
            peer.send(b"x")
            assert isinstance(await protocol.lost, exc)

    run(main())
    assert [type(context["exception"]) for context in contexts] == [exc]


@pytest.mark.parametrize("when", ["eof_received", "connection_lost"])
def test_protocol_replaced_inside_a_method_of_c(run_script, when):
    """Which has no frame that would hold its self."""
    result = run_script(
        f"""
        import socket, weakref

        class Item:
            def replace(self, other):
                transport.set_protocol(asyncio.Protocol())
                print("alive" if protocol() is not None else "freed under its own method")
                return True

            __lt__ = __eq__ = replace

        class Protocol(list):
            def connection_made(self, made):
                global transport, protocol
                transport, protocol = made, weakref.ref(self)

            def connection_lost(self, exc):
                pass

            eof_received = list.sort if {when!r} == "eof_received" else lambda self: None
            if {when!r} == "connection_lost":
                connection_lost = list.remove

        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = socket.socketpair()
            await loop.create_connection(lambda: Protocol([Item(), Item()]), sock=ours)
            peer.close()
            while transport._sock is not None and transport._sock.fileno() >= 0:
                await asyncio.sleep(0.001)

        run(main())
        """
    )
    assert result.stdout == "alive\n"
    assert result.stderr == ""


# Protocols that lack methods


def test_protocol_without_methods(loop, run):
    contexts = capture(loop)

    class Bare:
        def __init__(self):
            self.lost = loop.create_future()

        def connection_made(self, transport):
            self.transport = transport

        def connection_lost(self, exc):
            self.lost.set_result(exc)

    async def main():
        async with raw_pair(Bare) as (protocol, peer):
            peer.send(b"x")
            assert isinstance(await protocol.lost, AttributeError)

    run(main())
    assert len(contexts) == 1
    assert (
        contexts[0]["message"] == "Fatal error: protocol.data_received() call failed."
    )


def test_methods_set_on_the_instance(loop, run):
    async def main():
        async with raw_pair() as (protocol, peer):
            seen = loop.create_future()
            peer.send(b"1")
            await protocol.received(1)
            replacement = Recorder()
            replacement.data_received = seen.set_result
            protocol.transport.set_protocol(replacement)
            peer.send(b"2")
            assert await seen == b"2"
            protocol.transport.set_protocol(protocol)

    run(main())
