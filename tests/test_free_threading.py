"""Loops in several threads at once, and other threads at a loop that runs.

With a GIL these tests find little; without one, and best under ThreadSanitizer, what
threads share by mistake.
"""

import asyncio
import concurrent.futures
import contextlib
import gc
import socket
import subprocess
import sys
import sysconfig
import threading
import time

import pytest
from conftest import TIMEOUT, factory_of
from iosupport import Recorder
from tlssupport import Certificates

THREADS = 4
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def nothing(*args):
    pass


def in_threads(*works):
    """Run the functions in a thread each, which start together; return their results."""
    barrier = threading.Barrier(len(works))

    def started(work):
        barrier.wait(TIMEOUT)
        return work()

    with concurrent.futures.ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(started, works, timeout=TIMEOUT))


@contextlib.contextmanager
def fresh_loop(loop_name):
    loop = factory_of(loop_name)()
    try:
        yield loop
    finally:
        loop.close()


def run_in(loop_name, coro_function, *args):
    """Run a coroutine on a loop of its own in the calling thread."""
    with fresh_loop(loop_name) as loop:
        result = loop.run_until_complete(
            asyncio.wait_for(coro_function(*args), TIMEOUT)
        )
        loop.run_until_complete(loop.shutdown_default_executor())
        return result


def each_alone(loop_name, coro_function, count=THREADS):
    """Run the coroutine function in count threads, each on a loop of its own."""
    return in_threads(*[lambda: run_in(loop_name, coro_function)] * count)


@contextlib.contextmanager
def running_loop(loop_name):
    """A loop that runs in a thread of its own."""
    with fresh_loop(loop_name) as loop:
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield loop
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(TIMEOUT)
            assert not thread.is_alive()


@pytest.fixture
def running(loop_name):
    with running_loop(loop_name) as loop:
        yield loop


def there(loop, function, *args):
    """Call function(*args) in the loop's thread and return what it returned."""
    done = concurrent.futures.Future()

    def call():
        try:
            done.set_result(function(*args))
        except BaseException as exc:
            done.set_exception(exc)

    loop.call_soon_threadsafe(call)
    return done.result(TIMEOUT)


# -- a loop in each of several threads ------------------------------------------------


@pytest.mark.skipif(not FREE_THREADED, reason="this Python has a GIL in any case")
def test_the_module_needs_no_gil():
    """To import what does not say so would bring the GIL back."""
    script = "import sys, fastloop; print(sys._is_gil_enabled())"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    assert done.stdout.split() == ["False"]


def test_callbacks_and_timers(loop_name):
    async def main():
        loop = asyncio.get_running_loop()
        seen = []
        kept = [loop.call_later(1000, nothing, n) for n in range(200)]
        for handle in kept[::2]:
            handle.cancel()
        for n in range(500):
            loop.call_soon(seen.append, n)
            if n % 10 == 0:
                loop.call_later(n / 1e6, nothing, 1, 2, 3, 4, 5)
                await asyncio.sleep(0)
        await asyncio.sleep(0.002)
        for handle in kept:
            handle.cancel()
        return seen

    assert each_alone(loop_name, main) == [list(range(500))] * THREADS


def test_tasks_queues_and_events(loop_name):
    async def main():
        queue = asyncio.Queue(3)

        async def produce():
            for n in range(200):
                await queue.put(n)
            await queue.put(None)

        async def consume():
            total = 0
            while (n := await queue.get()) is not None:
                total += n
            return total

        producer = asyncio.create_task(produce())
        total, _ = await asyncio.gather(consume(), producer)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.001)
        return total

    assert each_alone(loop_name, main) == [sum(range(200))] * THREADS


async def echo_streams(**kwargs):
    servants = []

    async def serve(reader, writer):
        servants.append(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server_tls = kwargs.pop("server_tls", None)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_tls)
    async with server:
        address = server.sockets[0].getsockname()
        for size in (1, 1000, 100_000):
            reader, writer = await asyncio.open_connection(*address[:2], **kwargs)
            for _ in range(10):
                writer.write(b"x" * size)
                assert len(await reader.readexactly(size)) == size
            assert writer.get_extra_info("peername") == address
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        await asyncio.gather(*servants)
    return True


def test_streams(loop_name):
    assert each_alone(loop_name, echo_streams) == [True] * THREADS


def test_tls(loop_name):
    """The threads share the contexts."""
    tls = Certificates()

    async def main():
        return await echo_streams(
            server_tls=tls.server, ssl=tls.client, server_hostname="localhost"
        )

    assert each_alone(loop_name, main, 2) == [True] * 2


def test_datagrams(loop_name):
    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport = transport

        def datagram_received(self, data, addr):
            self.transport.sendto(data, addr)

    class Count(asyncio.DatagramProtocol):
        def __init__(self):
            self.got = asyncio.Queue()

        def datagram_received(self, data, addr):
            self.got.put_nowait(data)

    async def main():
        loop = asyncio.get_running_loop()
        server, _ = await loop.create_datagram_endpoint(
            Echo, local_addr=("127.0.0.1", 0)
        )
        client, protocol = await loop.create_datagram_endpoint(
            Count, remote_addr=server.get_extra_info("sockname")
        )
        for n in range(50):
            for _ in range(4):
                client.sendto(b"%d" % n)
            for _ in range(4):
                assert await protocol.got.get() == b"%d" % n
        client.close()
        server.close()
        await asyncio.sleep(0)
        return True

    assert each_alone(loop_name, main) == [True] * THREADS


def test_sockets_and_readers(loop_name):
    async def main():
        loop = asyncio.get_running_loop()
        a, b = socket.socketpair()
        with a, b:
            a.setblocking(False)
            b.setblocking(False)
            for _ in range(50):
                receive = asyncio.ensure_future(loop.sock_recv(b, 100))
                await asyncio.sleep(0)
                await loop.sock_sendall(a, b"x" * 100)
                assert await receive == b"x" * 100
            ready = asyncio.Event()
            loop.add_reader(b, ready.set)
            a.send(b"y")
            await ready.wait()
            assert loop.remove_reader(b)
        return True

    assert each_alone(loop_name, main) == [True] * THREADS


def test_executors(loop_name):
    async def main():
        loop = asyncio.get_running_loop()
        idents = await asyncio.gather(
            *[asyncio.to_thread(threading.get_ident) for _ in range(30)],
            *[loop.run_in_executor(None, threading.get_ident) for _ in range(30)],
        )
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, divmod, 1, 0)
        return threading.get_ident() not in idents

    assert each_alone(loop_name, main) == [True] * THREADS


def test_loops_come_and_go(loop_name):
    def work():
        for number in range(40):
            with fresh_loop(loop_name) as loop:
                loop.call_soon(nothing, number)
                loop.call_later(1000, nothing)
                if number % 2:
                    loop.run_until_complete(asyncio.sleep(0))
        return True

    assert all(in_threads(*[work] * THREADS))


def test_the_collector_meanwhile(loop_name):
    """What loops lead to is looked at, and their garbage taken, by another thread."""
    stop = threading.Event()

    def collect():
        while not stop.is_set():
            gc.collect()
            time.sleep(0.001)

    class Cycle:
        def __init__(self, handle):
            self.self = self
            self.handle = handle

    async def main():
        loop = asyncio.get_running_loop()
        for n in range(300):
            Cycle(loop.call_soon(nothing, n))
            Cycle(loop.call_later(1000, nothing, n)).handle.cancel()
            Cycle(loop.create_task(asyncio.sleep(0)))
            if n % 20 == 0:
                await asyncio.sleep(0)
        await echo_streams()
        return True

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        assert each_alone(loop_name, main, 2) == [True] * 2
    finally:
        stop.set()
        collector.join()


# -- other threads at a loop that runs ------------------------------------------------


def test_callbacks_of_many_threads_come_in_order(running):
    seen = [[] for _ in range(THREADS)]

    def work(number):
        handles = [
            running.call_soon_threadsafe(seen[number].append, n) for n in range(500)
        ]
        return len(handles)

    in_threads(*[lambda number=number: work(number) for number in range(THREADS)])
    there(running, nothing)
    assert seen == [list(range(500))] * THREADS


def test_order_while_the_loop_stands_still(loop_name):
    with fresh_loop(loop_name) as loop:
        calls = []
        loop.call_soon(calls.append, 1)
        loop.call_soon_threadsafe(calls.append, 2)
        thread = threading.Thread(
            target=loop.call_soon_threadsafe, args=(calls.append, 3)
        )
        thread.start()
        thread.join()
        loop.call_soon(calls.append, 4)
        loop.call_soon_threadsafe(calls.append, 5)
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert calls == [1, 2, 3, 4, 5]


def test_order_on_the_own_thread(running):
    def work():
        calls = []
        for n in range(50):
            (running.call_soon, running.call_soon_threadsafe)[n % 2](calls.append, n)
        return calls

    calls = there(running, work)
    there(running, nothing)
    assert calls == list(range(50))


def test_coroutines_of_many_threads(running):
    async def answer(n):
        await asyncio.sleep(0)
        return n

    def work():
        futures = [
            asyncio.run_coroutine_threadsafe(answer(n), running) for n in range(50)
        ]
        return [future.result(TIMEOUT) for future in futures]

    assert in_threads(*[work] * THREADS) == [list(range(50))] * THREADS


def test_cancel_against_the_run(running):
    """Each callback runs or was cancelled before; nobody is called with less."""
    wrong = []

    def called(*args):
        if len(args) != number_of_args:
            wrong.append(args)

    number_of_args = 5

    def work():
        for _ in range(300):
            handle = running.call_soon_threadsafe(called, 1, 2, 3, 4, 5)
            handle.cancel()
            assert handle.cancelled()
            repr(handle)

    in_threads(*[work] * THREADS)
    there(running, nothing)
    assert not wrong


def test_one_handle_is_cancelled_by_many_threads(running):
    ran = []
    for _ in range(50):
        handles = []
        gate = threading.Event()
        running.call_soon_threadsafe(gate.wait, TIMEOUT)
        handles = [
            running.call_soon_threadsafe(ran.append, object()) for _ in range(10)
        ]

        def work(handles=handles):
            for handle in handles:
                handle.cancel()

        in_threads(*[work] * THREADS)
        gate.set()
    there(running, nothing)
    assert not ran


def test_timers_are_cancelled_from_elsewhere(running):
    """asyncio does not promise that this works; that it does no harm, we do."""
    ran = []

    def schedule():
        later = [running.call_later(1000, ran.append, n) for n in range(300)]
        soon = [running.call_later(0.001, ran.append, n) for n in range(300)]
        return later + soon

    for _ in range(5):
        handles = there(running, schedule)

        def cancel(handles=handles):
            for handle in handles:
                handle.cancel()

        in_threads(cancel, cancel, lambda handles=handles: list(map(repr, handles)))
        assert all(handle.cancelled() for handle in handles)
    there(running, nothing)
    assert len(ran) <= 1500


def test_what_may_be_asked_from_elsewhere(running):
    def work():
        for _ in range(200):
            assert running.is_running()
            assert not running.is_closed()
            assert running.get_debug() is False
            assert running.time() > 0
            assert "running=True" in repr(running)
            assert running.get_task_factory() is None

    def own():
        for _ in range(100):
            there(running, nothing)

    in_threads(work, work, own)


def test_stop_from_elsewhere(loop_name):
    with fresh_loop(loop_name) as loop:
        for _ in range(50):
            thread = threading.Thread(
                target=loop.call_soon_threadsafe, args=(loop.stop,)
            )
            thread.start()
            loop.run_forever()
            thread.join()
            assert not loop.is_running()


def test_calls_race_with_close(loop_name):
    """They are queued or refused, and nothing else."""
    for _ in range(20):
        loop = factory_of(loop_name)()
        refused = []

        def work(loop=loop, refused=refused):
            try:
                while True:
                    loop.call_soon_threadsafe(nothing)
            except RuntimeError as exc:
                refused.append(str(exc))

        def close(loop=loop):
            loop.run_until_complete(asyncio.sleep(0.001))
            loop.close()

        in_threads(work, work, close)
        assert refused == ["Event loop is closed"] * 2


def test_two_threads_cannot_run_one_loop(loop_name):
    if loop_name == "asyncio":
        pytest.skip("both may find that nobody runs it")
    for _ in range(20):
        with fresh_loop(loop_name) as loop:
            refused = threading.Semaphore(0)

            def work(loop=loop, refused=refused):
                try:
                    loop.run_forever()
                except RuntimeError as exc:
                    refused.release()
                    return str(exc)

            def end(loop=loop, refused=refused):
                assert refused.acquire(timeout=TIMEOUT)
                assert refused.acquire(timeout=TIMEOUT)
                loop.call_soon_threadsafe(loop.stop)

            results = in_threads(work, work, work, end)
            assert results.count("This event loop is already running") == 2
            assert not loop.is_running()


# -- what only the loop's own thread may do -------------------------------------------

ELSEWHERE = "Non-thread-safe operation invoked on an event loop other than the current"


def connected(loop):
    """A transport of the running loop and the socket at its other end."""
    a, b = socket.socketpair()
    connect = loop.create_connection(Recorder, sock=a)
    transport, protocol = asyncio.run_coroutine_threadsafe(connect, loop).result(
        TIMEOUT
    )
    return transport, protocol, b


only_free_threaded = pytest.mark.skipif(
    not FREE_THREADED, reason="where the GIL keeps threads apart, asyncio's way is ours"
)


@only_free_threaded
@pytest.mark.parametrize(
    "call",
    [
        lambda transport: transport.write(b"x"),
        lambda transport: transport.writelines([b"x"]),
        lambda transport: transport.write_eof(),
        lambda transport: transport.pause_reading(),
        lambda transport: transport.resume_reading(),
        lambda transport: transport.set_protocol(asyncio.Protocol()),
        lambda transport: transport.set_write_buffer_limits(1),
        lambda transport: transport.get_write_buffer_size(),
    ],
)
def test_transports_are_their_threads_own(call):
    with running_loop("fastloop") as loop:
        transport, _, peer = connected(loop)
        with peer:
            with pytest.raises(RuntimeError, match=ELSEWHERE):
                call(transport)
            there(loop, transport.abort)


@only_free_threaded
def test_descriptors_are_watched_by_their_thread():
    with running_loop("fastloop") as loop, socket.socket() as sock:
        with pytest.raises(RuntimeError, match=ELSEWHERE):
            loop.add_reader(sock, nothing)
        with pytest.raises(RuntimeError, match=ELSEWHERE):
            loop.remove_writer(sock)


@pytest.mark.parametrize("method", ["close", "abort"])
def test_a_transport_may_be_closed_from_elsewhere(running, method):
    for _ in range(10):
        transport, protocol, peer = connected(running)
        with peer:
            assert not transport.is_closing()
            assert transport.get_protocol() is protocol
            assert transport.get_extra_info("peername") is not None
            getattr(transport, method)()
            # asyncio's loop does not wake up for that by itself.
            there(running, nothing)
            peer.settimeout(TIMEOUT)
            assert peer.recv(1) == b""


def test_the_collector_takes_a_transport(running):
    """Its last thread is not the loop's own."""

    def forget():
        transport, _, peer = connected(running)
        there(running, transport.pause_reading)
        there(running, nothing)  # the callback before it has gone, and its arguments
        cycle = [transport]
        cycle.append(cycle)
        return peer

    with pytest.warns(ResourceWarning):
        for _ in range(10):
            with forget() as peer:
                gc.collect()
                peer.settimeout(TIMEOUT)
                assert peer.recv(1) == b""
                there(running, gc.collect)


def test_sloppy_calls_do_no_harm(running, loop_name):
    """call_soon() and call_later() from elsewhere: late perhaps, but whole."""
    if loop_name == "asyncio" and FREE_THREADED:
        pytest.skip("its heap of timers is everybody's")
    seen = []

    def work():
        for n in range(300):
            running.call_soon(seen.append, n)
            running.call_later(0.0001, seen.append, n)
            running.call_later(1000, seen.append, n).cancel()

    def own():
        for _ in range(300):
            there(running, running.call_later, 0.0001, nothing)

    in_threads(work, work, own)
    deadline = time.monotonic() + TIMEOUT
    while len(seen) < 1200 and time.monotonic() < deadline:
        there(running, nothing)
    assert sorted(seen) == sorted(list(range(300)) * 4)
