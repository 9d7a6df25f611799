"""What is a loop's own while it stands still: any thread may call it, one at a time.

Where there is a GIL, it keeps the threads apart; without one these tests find what
threads do to each other, best under ThreadSanitizer.
"""

import asyncio
import contextlib
import gc
import socket
import threading
import time

import pytest
from conftest import TIMEOUT
from iosupport import Recorder
from test_free_threading import (
    ELSEWHERE,
    FREE_THREADED,
    THREADS,
    fresh_loop,
    in_threads,
)

ROUNDS = 200

only_free_threaded = pytest.mark.skipif(
    not FREE_THREADED, reason="where there is a GIL, its holder has every loop"
)


@pytest.fixture
def standing(loop_name):
    """A loop that stands still."""
    with fresh_loop(loop_name) as loop:
        yield loop


@pytest.fixture
def crowd(loop_name):
    """crowd(work): call work(number) in many threads at once; on asyncio, where nothing
    keeps these apart, in one after the other."""

    def crowd(work):
        works = [lambda number=number: work(number) for number in range(THREADS)]
        if loop_name == "fastloop":
            in_threads(*works)
            return
        for each in works:
            in_threads(each)

    return crowd


def connected(loop, factory=Recorder):
    """A transport, its protocol, and the socket at the other end."""
    a, b = socket.socketpair()
    b.settimeout(TIMEOUT)
    transport, protocol = loop.run_until_complete(
        loop.create_connection(factory, sock=a)
    )
    return transport, protocol, b


def finish(loop, transport):
    transport.abort()
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))


def receive(sock, size):
    """Return what comes, in a list, from a thread of its own."""
    got = []

    def work():
        left = size
        while left > 0 and (data := sock.recv(65536)):
            got.append(data)
            left -= len(data)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, got


def written(number, n):
    return b"%d:%06d;" % (number, n)


def test_writes_of_many_threads(standing, crowd):
    """None is lost and none is torn."""
    loop = standing
    transport, _, peer = connected(loop)
    size = THREADS * ROUNDS * len(written(0, 0))
    with peer:
        thread, got = receive(peer, size)

        def work(number):
            for n in range(ROUNDS):
                if n % 2:
                    transport.write(written(number, n))
                else:
                    transport.writelines([written(number, n)])

        crowd(work)
        loop.run_until_complete(loop.run_in_executor(None, thread.join, TIMEOUT))
        loop.run_until_complete(loop.shutdown_default_executor())
        pieces = b"".join(got).split(b";")
        assert pieces.pop() == b""
        for number in range(THREADS):
            own = [piece for piece in pieces if piece.startswith(b"%d:" % number)]
            assert own == [written(number, n)[:-1] for n in range(ROUNDS)]
        finish(loop, transport)


def test_calls_of_many_threads(standing, crowd):
    """Whatever order they come in, the connection is whole and ends once."""
    loop = standing
    calls = [
        lambda transport: transport.write(b"x" * 100),
        lambda transport: transport.write(bytearray(b"x" * 20_000)),
        lambda transport: transport.pause_reading(),
        lambda transport: transport.resume_reading(),
        lambda transport: transport.set_write_buffer_limits(1000, 10),
        lambda transport: transport.get_write_buffer_size(),
        lambda transport: transport.get_write_buffer_limits(),
        lambda transport: transport.set_protocol(transport.get_protocol()),
        lambda transport: transport.get_extra_info("socket"),
        lambda transport: transport.get_extra_info("sockname"),
        lambda transport: transport.is_reading(),
        lambda transport: transport.is_closing(),
        lambda transport: transport._conn_lost,
        repr,
    ]

    for _ in range(20):
        transport, protocol, peer = connected(loop)
        with peer:

            def work(number, transport=transport):
                for n in range(len(calls)):
                    calls[(n + number * 3) % len(calls)](transport)

            crowd(work)
            assert not transport.is_closing()
            transport.resume_reading()
            peer.send(b"y")
            loop.run_until_complete(asyncio.sleep(0.01))
            assert bytes(protocol.data) == b"y"
            finish(loop, transport)
            assert protocol.events.count("lost") == 1


@pytest.mark.parametrize("method", ["close", "abort"])
def test_many_threads_close_one_transport(standing, crowd, method):
    loop = standing
    for _ in range(30):
        transport, protocol, peer = connected(loop)
        with peer:

            def work(number, transport=transport):
                transport.write(b"x")
                getattr(transport, method)()
                transport.write(b"y")

            crowd(work)
            assert transport.is_closing()
            finish(loop, transport)
            assert protocol.events.count("lost") == 1


def test_descriptors_are_watched_by_many_threads(standing, crowd):
    """Each its own, and all of them one."""
    loop = standing
    pairs = [socket.socketpair() for _ in range(THREADS)]
    shared = socket.socketpair()
    heard = [threading.Event() for _ in range(THREADS)]
    try:

        def work(number):
            own, common = pairs[number][0], shared[0]
            for _ in range(ROUNDS):
                loop.add_reader(own, heard[number].set)
                loop.add_writer(common, print)
                loop.remove_reader(own)
                loop.remove_writer(common)
            loop.add_reader(own, heard[number].set)

        crowd(work)
        assert not loop.remove_writer(shared[0])
        for _, other in pairs:
            other.send(b"x")
        deadline = time.monotonic() + TIMEOUT
        while not all(event.is_set() for event in heard):
            assert time.monotonic() < deadline
            loop.run_until_complete(asyncio.sleep(0.001))
        assert [loop.remove_reader(own) for own, _ in pairs] == [True] * THREADS
    finally:
        for sock in (sock for pair in (*pairs, shared) for sock in pair):
            sock.close()


def test_the_inside_is_looked_at_by_many_threads(standing, crowd):
    loop = standing

    def work(number):
        for n in range(ROUNDS):
            loop.call_soon(len, ())
            loop.call_later(1000, len, ()).cancel()
            if n % 20 == 0:
                assert len(loop._ready) > 0
                list(loop._scheduled)

    crowd(work)
    assert len(loop._ready) == THREADS * ROUNDS


def test_the_collector_takes_transports_meanwhile(loop_name):
    """Those that other threads let go, while the slots of descriptors grow."""
    if loop_name == "asyncio":
        pytest.skip("its transports are watched until they are closed")
    with fresh_loop(loop_name) as loop, contextlib.ExitStack() as stack:
        transports = []
        # The collector is to find no socket without its transport: it may take the
        # socket first, whose number would be free before the transport knows.
        socks = []
        for _ in range(20):
            transports.append(connected(loop))
            stack.enter_context(transports[-1][2])
            transports[-1][0].pause_reading()
            socks.append(transports[-1][0].get_extra_info("socket"))

        def let_go():
            while transports:
                transports.pop()
                gc.collect()

        def watch():
            for _ in range(ROUNDS):
                a, b = socket.socketpair()
                with a, b:
                    loop.add_reader(a, print)
                    loop.remove_reader(a)

        with pytest.warns(ResourceWarning):
            in_threads(let_go, watch, watch)
            gc.collect()
        assert [sock.fileno() for sock in socks] == [-1] * len(socks)


@only_free_threaded
def test_a_run_and_calls_from_elsewhere():
    """Each call is made or refused; what was written arrives."""
    with fresh_loop("fastloop") as loop:
        transport, _, peer = connected(loop)
        made = []
        over = threading.Event()

        def write():
            while not over.is_set():
                try:
                    transport.write(b"x")
                except RuntimeError as exc:
                    assert ELSEWHERE in str(exc)
                else:
                    made.append(1)

        def run():
            try:
                for _ in range(ROUNDS):
                    loop.run_until_complete(asyncio.sleep(0))
            finally:
                over.set()

        with peer:
            in_threads(run, write, write)
            transport.write(b".")
            thread, got = receive(peer, len(made) + 1)
            loop.run_until_complete(loop.run_in_executor(None, thread.join, TIMEOUT))
            loop.run_until_complete(loop.shutdown_default_executor())
            assert b"".join(got) == b"x" * len(made) + b"."
            finish(loop, transport)


class Pausing(Recorder):
    """Calls what it is given when it has to pause writing."""

    def pause_writing(self):
        super().pause_writing()
        self.when_paused()


def test_a_call_within_a_call(loop_name):
    """pause_writing() is called by write(), and may use the loop in the same thread."""
    with fresh_loop(loop_name) as loop:
        transport, protocol, peer = connected(loop, Pausing)
        a, b = socket.socketpair()
        with peer, a, b:

            def paused():
                transport.pause_reading()
                loop.add_reader(a, print)
                loop.run_until_complete(asyncio.sleep(0))
                assert loop.remove_reader(a)

            protocol.when_paused = paused
            transport.set_write_buffer_limits(0)
            transport.write(b"x" * 10_000_000)
            assert "pause" in protocol.events
            assert not loop.is_running()
            transport.resume_reading()
            finish(loop, transport)


@only_free_threaded
def test_nobody_waits_for_ever_for_a_call():
    """One that came to a callback that waits, perhaps for those who are refused."""
    with fresh_loop("fastloop") as loop:
        transport, protocol, peer = connected(loop, Pausing)
        inside, leave = threading.Event(), threading.Event()

        def paused():
            inside.set()
            assert leave.wait(TIMEOUT)

        protocol.when_paused = paused
        transport.set_write_buffer_limits(0)
        with peer:
            thread = threading.Thread(target=transport.write, args=(b"x" * 10_000_000,))
            thread.start()
            try:
                assert inside.wait(TIMEOUT)
                with pytest.raises(RuntimeError, match=ELSEWHERE):
                    transport.pause_reading()
                with pytest.raises(RuntimeError, match="already running"):
                    loop.run_forever()
                assert not loop.is_running()
                transport.close()  # is handed to the loop
                assert not transport.is_closing()
            finally:
                leave.set()
                thread.join(TIMEOUT)
            loop.run_until_complete(asyncio.sleep(0))
            assert transport.is_closing()
            finish(loop, transport)
