"""Exceptions out of every callback of every room: who hears of them, and who goes on."""

import asyncio
import contextlib
import os
import signal
import socket
import threading

import pytest
from iosupport import (
    BufferedRecorder,
    DatagramRecorder,
    Recorder,
    capture,
    endpoint,
    is_stock,
    plain_udp,
    raw_pair,
    read_pipe,
    settle,
    turns,
    write_pipe,
)


class Odd(BaseException):
    """Neither an Exception nor one of those that leave."""


def raising(base, method, error, state):
    """base, whose method raises error after its work, once."""
    original = getattr(base, method)

    def broken(self, *args):
        result = original(self, *args)
        if not state:
            state.append(self)
            raise error
        return result

    return type("Raising", (base,), {method: broken})


async def use_stream(protocol, peer):
    protocol.transport.write(bytes(5_000_000))
    peer.setblocking(False)
    for _ in range(2000):
        with contextlib.suppress(OSError):
            while peer.recv(1 << 20):
                pass
        await asyncio.sleep(0)
        if "resume" in protocol.events or "lost" in protocol.events:
            break
    with contextlib.suppress(OSError):
        peer.send(b"data")
    await settle()
    with contextlib.suppress(OSError):
        peer.shutdown(socket.SHUT_WR)
    await settle()


async def use_reader(protocol, other):
    with contextlib.suppress(OSError):
        other.write(b"data")
    await settle()
    other.close()
    await settle()


async def use_writer(protocol, other):
    protocol.transport.write(bytes(500_000))
    os.set_blocking(other.fileno(), False)
    for _ in range(2000):
        with contextlib.suppress(OSError):
            while os.read(other.fileno(), 1 << 20):
                pass
        await asyncio.sleep(0)
        if "resume" in protocol.events or "lost" in protocol.events:
            break
    other.close()
    await settle()


@contextlib.asynccontextmanager
async def udp_pair(factory):
    with plain_udp() as peer:
        async with endpoint(factory, remote_addr=peer.getsockname()) as protocol:
            yield protocol, peer


async def use_endpoint(protocol, peer):
    peer.sendto(b"data", protocol.transport.get_extra_info("sockname"))
    await settle()
    peer.close()
    for _ in range(2):  # the second hears that nobody is there
        protocol.transport.sendto(b"x")
        await settle()


KINDS = {
    "stream": (Recorder, lambda factory: raw_pair(factory, tcp=True), use_stream),
    "buffered": (
        BufferedRecorder,
        lambda factory: raw_pair(factory, tcp=True),
        use_stream,
    ),
    "reader": (Recorder, read_pipe, use_reader),
    "writer": (Recorder, write_pipe, use_writer),
    "datagrams": (DatagramRecorder, udp_pair, use_endpoint),
}

CALLBACK = {"message", "exception", "handle"}
FLOW = {"message", "exception", "transport", "protocol"}
PLACES = {
    ("stream", "connection_made"): ("Exception in callback ", CALLBACK),
    ("stream", "data_received"): (
        "Fatal error: protocol.data_received() call failed.",
        FLOW,
    ),
    ("stream", "eof_received"): (
        "Fatal error: protocol.eof_received() call failed.",
        FLOW,
    ),
    ("stream", "pause_writing"): ("protocol.pause_writing() failed", FLOW),
    ("stream", "resume_writing"): ("protocol.resume_writing() failed", FLOW),
    ("stream", "connection_lost"): ("Exception in callback ", CALLBACK),
    ("buffered", "get_buffer"): (
        "Fatal error: protocol.get_buffer() call failed.",
        FLOW,
    ),
    ("buffered", "buffer_updated"): (
        "Fatal error: protocol.buffer_updated() call failed.",
        FLOW,
    ),
    ("reader", "connection_made"): ("Exception in callback ", CALLBACK),
    ("reader", "data_received"): ("Exception in callback ", CALLBACK),
    ("reader", "eof_received"): ("Exception in callback ", CALLBACK),
    ("reader", "connection_lost"): ("Exception in callback ", CALLBACK),
    ("writer", "connection_made"): ("Exception in callback ", CALLBACK),
    ("writer", "pause_writing"): ("protocol.pause_writing() failed", FLOW),
    ("writer", "resume_writing"): ("protocol.resume_writing() failed", FLOW),
    ("writer", "connection_lost"): ("Exception in callback ", CALLBACK),
    ("datagrams", "connection_made"): ("Exception in callback ", CALLBACK),
    ("datagrams", "datagram_received"): ("Exception in callback ", CALLBACK),
    ("datagrams", "connection_lost"): ("Exception in callback ", CALLBACK),
}


def visit(loop, kind, method, error):
    """A coroutine that uses a connection whose method raises; and who raised."""
    base, pair, use = KINDS[kind]
    state = []

    async def main():
        async with pair(raising(base, method, error, state)) as (protocol, other):
            await use(protocol, other)

    return main(), state


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("error", [ZeroDivisionError, Odd, asyncio.CancelledError])
@pytest.mark.parametrize("place", PLACES, ids="-".join)
def test_reported(loop, run, place, error, debug):
    contexts = capture(loop)
    loop.set_debug(debug)
    loop.slow_callback_duration = 60
    message, keys = PLACES[place]
    coro, state = visit(loop, *place, error("out"))
    with contextlib.suppress(OSError):
        run(coro)
    assert len(state) == 1
    seen = [context for context in contexts if type(context["exception"]) is error]
    assert len(seen) == 1
    context = seen[0]
    assert context["message"].startswith(message)
    assert set(context) - {"source_traceback"} == keys
    assert ("source_traceback" in context) == (debug and "handle" in context)
    assert contexts == seen
    if "transport" in context:
        assert context["protocol"] is state[0]
        assert context["transport"] is state[0].transport
    contexts.clear()
    state.clear()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("place", PLACES, ids="-".join)
def test_exit_leaves_the_loop(loop, run, place, error):
    contexts = capture(loop)
    coro, state = visit(loop, *place, error("out"))
    task = loop.create_task(coro)
    with pytest.raises(error, match="out"):
        loop.run_until_complete(task)
    assert len(state) == 1
    if not is_stock(loop):
        assert contexts == []  # asyncio's transports may be in a state of their own
    # The loop goes on, and so does the task, unless it left by way of write().
    if not task.done():
        with contextlib.suppress(OSError, asyncio.CancelledError):
            run(asyncio.wait_for(task, 30))
    if "lost" not in state[0].events:
        transport = state[0].transport
        getattr(transport, "abort", transport.close)()
    run(settle())
    contexts.clear()


# What is no protocol


def exit_from_call_soon(loop, leave):
    loop.call_soon(leave)


def exit_from_a_timer(loop, leave):
    loop.call_later(0.001, leave)


def exit_from_a_thread(loop, leave):
    threading.Thread(target=loop.call_soon_threadsafe, args=(leave,)).start()


def exit_from_a_signal_handler(loop, leave):
    def on_signal():
        loop.remove_signal_handler(signal.SIGUSR1)
        leave()

    loop.add_signal_handler(signal.SIGUSR1, on_signal)
    os.kill(os.getpid(), signal.SIGUSR1)


def exit_from_a_job_s_callback(loop, leave):
    loop.run_in_executor(None, int).add_done_callback(lambda future: leave())


def exit_from_a_future_s_callback(loop, leave):
    future = loop.create_future()
    future.add_done_callback(lambda future: leave())
    future.set_result(None)


def exit_from_a_handler_of_exceptions(loop, leave):
    def handler(loop, context):
        loop.set_exception_handler(None)
        leave()

    loop.set_exception_handler(handler)
    loop.call_soon(lambda: 1 / 0)


def exit_from_a_reader(loop, leave):
    ours, peer = socket.socketpair()

    def readable():
        loop.remove_reader(ours)
        ours.close()
        peer.close()
        leave()

    loop.add_reader(ours, readable)
    peer.send(b"x")


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize(
    "place",
    [
        exit_from_call_soon,
        exit_from_a_timer,
        exit_from_a_thread,
        exit_from_a_signal_handler,
        exit_from_a_job_s_callback,
        exit_from_a_future_s_callback,
        exit_from_a_handler_of_exceptions,
        exit_from_a_reader,
    ],
    ids=lambda place: place.__name__,
)
def test_exit_from_other_callbacks(loop, run, place, error):
    def leave():
        raise error("out")

    place(loop, leave)
    with pytest.raises(error, match="out"):
        run(asyncio.sleep(30))
    run(turns())


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_exit_from_the_callback_of_a_stream_server(loop, run, error):
    async def serve(reader, writer):
        writer.close()
        raise error("out")

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname()
            )
            await reader.read()
            writer.close()
            await writer.wait_closed()

    contexts = capture(loop)
    task = loop.create_task(main())
    with pytest.raises(error, match="out"):
        loop.run_until_complete(task)
    run(asyncio.wait_for(task, 30))
    run(settle())
    contexts.clear()
