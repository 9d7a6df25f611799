"""loop.metrics(): what is counted, and that it is right."""

import asyncio
import dataclasses
import itertools
import json
import os
import socket
import ssl
import threading
import time

import pytest
from authority import new_authority
from conftest import TIMEOUT, factory_of, finish, run_python

import fastloop
from fastloop.metrics import Histogram, Metrics, Traffic, _border


@pytest.fixture
def loop_name():
    """asyncio's loops have nothing of this."""
    return "fastloop"


def nothing(*_):
    pass


def test_a_new_loop_has_done_nothing(loop):
    metrics = loop.metrics()
    assert isinstance(metrics, Metrics)
    assert not metrics.running
    assert metrics.iterations == metrics.callbacks_run == metrics.busy_ns == 0
    assert metrics.utilisation == 0.0
    assert metrics.scheduling_lag == Histogram()
    assert set(metrics.traffic.values()) == {Traffic()}
    assert abs(metrics.time_ns - time.monotonic_ns()) < 60e9


def test_a_snapshot_is_a_record_that_stays(loop):
    metrics = loop.metrics()
    with pytest.raises(dataclasses.FrozenInstanceError):
        metrics.iterations = 1
    assert json.loads(json.dumps(metrics.as_dict()))["iterations"] == 0


def test_callbacks_and_the_ready_queue(loop):
    for _ in range(300):
        loop.call_soon(nothing)
    loop.call_soon(nothing).cancel()
    before = loop.metrics()
    assert before.ready_now == 301
    loop.call_soon(loop.stop)
    loop.run_forever()
    after = loop.metrics()
    assert after.iterations == 1
    assert after.callbacks_run == 301
    assert after.callbacks_cancelled == 1
    assert after.ready_now == 0
    assert after.ready_peak == 302


def test_timers(loop):
    async def main():
        handles = [loop.call_later(3600 + i, nothing) for i in range(10)]
        for handle in handles[:3]:
            handle.cancel()
        return loop.metrics()

    metrics = loop.run_until_complete(main())
    assert (metrics.timers_pending, metrics.timers_cancelled) == (7, 3)
    loop.run_until_complete(asyncio.sleep(0.01))
    metrics = loop.metrics()
    assert metrics.timers_fired == 1
    assert metrics.timers_pending == 7
    assert metrics.scheduling_lag.count >= 1


def test_lag_of_a_timer_behind_a_slow_callback(loop):
    async def main():
        timer = asyncio.create_task(asyncio.sleep(0.01))
        await asyncio.sleep(0)
        time.sleep(0.1)
        await timer

    loop.run_until_complete(main())
    lag = loop.metrics().scheduling_lag
    assert lag.max_ns >= 80_000_000
    assert lag.quantile_ns(1) >= 80_000_000


def test_a_timer_of_the_past_is_no_lag(loop):
    loop.run_until_complete(asyncio.sleep(0.001))
    loop.call_at(loop.time() - 1000, nothing)
    loop.run_until_complete(asyncio.sleep(0.001))
    assert loop.metrics().scheduling_lag.max_ns < 500e9


def test_busy_and_idle(loop):
    async def main(work, wait):
        await asyncio.sleep(wait)
        time.sleep(work)

    loop.run_until_complete(main(0.01, 0.2))
    first = loop.metrics()
    assert first.idle_ns >= 190_000_000
    assert first.busy_ns >= 10_000_000
    assert first.utilisation < 0.7
    loop.run_until_complete(main(0.2, 0.001))
    second = loop.metrics()
    assert second.utilisation > 0.6
    assert second.utilisation == pytest.approx(second.utilisation_since(first))
    assert loop.metrics().utilisation == 0.0  # nothing has happened since


def test_busy_and_idle_time_are_that_of_the_runs(loop):
    async def main():
        await asyncio.sleep(0.05)

    began = time.monotonic_ns()
    for _ in range(3):
        loop.run_until_complete(main())
    whole = time.monotonic_ns() - began
    time.sleep(0.05)
    metrics = loop.metrics()
    assert 0.8 * whole < metrics.busy_ns + metrics.idle_ns < 1.05 * whole


def test_idle_time_goes_on_while_the_loop_waits(loop):
    """Asked by another thread."""
    seen = []

    def ask():
        before = loop.metrics().idle_ns
        while loop.metrics().idle_ns == before:
            time.sleep(0.001)  # until it waits
        seen.append(loop.metrics())
        time.sleep(0.05)
        seen.append(loop.metrics())
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=ask)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    first, last = seen
    assert last.running
    assert last.idle_ns - first.idle_ns >= (last.time_ns - first.time_ns) // 2
    assert last.iterations == first.iterations


def test_time_never_goes_back_for_other_threads(loop):
    stop = threading.Event()
    wrong = []

    def ask():
        last = loop.metrics()
        while not stop.is_set():
            now = loop.metrics()
            for name in ("iterations", "callbacks_run", "polls", "busy_ns", "idle_ns"):
                if getattr(now, name) < getattr(last, name):
                    wrong.append((name, last, now))
            last = now

    async def main():
        for _ in range(200):
            await asyncio.sleep(0.0005)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        loop.run_until_complete(main())
    finally:
        stop.set()
        thread.join()
    assert wrong == []


def test_duration_is_sampled(loop):
    async def main():
        for _ in range(5000):
            await asyncio.sleep(0)

    loop.run_until_complete(main())
    count = loop.metrics().callback_duration.count
    assert 5000 / 128 < count < 5000 / 16
    lag = loop.metrics().scheduling_lag
    assert lag.count > 20


def test_polls(loop):
    async def main():
        for _ in range(1000):
            await asyncio.sleep(0)

    loop.run_until_complete(main())
    metrics = loop.metrics()
    assert metrics.polls_skipped == metrics.iterations - metrics.polls > 0


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def until(condition):
    """Wait for what the other end does, too; who waits is bounded by run()."""
    while not condition():
        await asyncio.sleep(0.001)


async def converse(reader, writer, size):
    writer.write(bytes(size))
    assert len(await reader.readexactly(size)) == size
    writer.close()
    await writer.wait_closed()


def test_tcp_traffic_and_servers(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        metrics = loop.metrics()
        assert metrics.servers_open == 1
        streams = await asyncio.open_connection(*server.sockets[0].getsockname())
        await converse(*streams, 5000)
        await until(lambda: loop.metrics().transports_open == 0)
        server.close()
        await server.wait_closed()
        return loop.metrics()

    metrics = run(main())
    traffic = metrics.traffic["tcp"]
    assert traffic.bytes_in == traffic.bytes_out == 10000
    assert traffic.opened == 2
    assert traffic.reads >= 2
    assert traffic.writes >= 2
    assert metrics.transports_open == 0
    assert metrics.accepts == 1
    assert metrics.servers_open == 0
    assert metrics.bytes_in == metrics.bytes_out == 10000


def test_a_closed_loop_serves_nobody():
    loop = factory_of("fastloop")()
    server = loop.run_until_complete(loop.create_server(Echo, "127.0.0.1", 0))
    assert loop.metrics().servers_open == 1
    server.close()
    finish(loop)
    assert loop.metrics().servers_open == 0


def test_a_failing_factory_is_a_failure_to_accept(loop, run):
    def factory():
        raise ZeroDivisionError

    async def main():
        loop.set_exception_handler(nothing)
        server = await loop.create_server(factory, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return loop.metrics()

    metrics = run(main())
    assert (metrics.accepts, metrics.accept_failures) == (1, 1)


def test_unix_and_pipes(loop, run, tmp_path):
    async def main():
        path = str(tmp_path / "socket")
        server = await loop.create_unix_server(Echo, path)
        await converse(*await asyncio.open_unix_connection(path), 300)
        server.close()
        await server.wait_closed()
        ends = os.pipe()
        got = asyncio.StreamReader()
        read, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(got), os.fdopen(ends[0], "rb", 0)
        )
        write, _ = await loop.connect_write_pipe(
            asyncio.BaseProtocol, os.fdopen(ends[1], "wb", 0)
        )
        write.write(b"12345")
        assert await got.readexactly(5) == b"12345"
        assert loop.metrics().traffic["pipe"].open == 2
        write.close()
        await got.read()
        read.close()
        await asyncio.sleep(0.01)
        return loop.metrics()

    metrics = run(main())
    assert metrics.traffic["unix"].bytes_in == metrics.traffic["unix"].bytes_out == 600
    pipe = metrics.traffic["pipe"]
    assert pipe.bytes_in == pipe.bytes_out == 5
    assert (pipe.opened, pipe.open) == (2, 0)


def test_sock_methods(loop, run):
    async def main():
        with contextlib_pair() as (ours, theirs):
            await loop.sock_sendall(ours, b"abc")
            assert await loop.sock_recv(theirs, 10) == b"abc"
            await loop.sock_sendall(theirs, b"defg")
            assert await loop.sock_recv_into(ours, bytearray(10)) == 4
        return loop.metrics().traffic["sock"]

    traffic = run(main())
    assert (traffic.bytes_out, traffic.writes) == (7, 2)
    assert (traffic.bytes_in, traffic.reads) == (7, 2)


class contextlib_pair:
    def __enter__(self):
        self.pair = socket.socketpair()
        for sock in self.pair:
            sock.setblocking(False)
        return self.pair

    def __exit__(self, *_):
        for sock in self.pair:
            sock.close()


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, expected):
        self.left = expected
        self.done = asyncio.get_running_loop().create_future()

    def datagram_received(self, data, addr):
        self.left -= 1
        if self.left == 0:
            self.done.set_result(None)


def test_datagrams(loop, run):
    async def main():
        receiver, protocol = await loop.create_datagram_endpoint(
            lambda: Datagrams(10), local_addr=("127.0.0.1", 0)
        )
        sender, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        address = receiver.get_extra_info("sockname")
        for _ in range(10):
            sender.sendto(b"1234567", address)
        await protocol.done
        sender.close()
        receiver.close()
        await asyncio.sleep(0.01)
        return loop.metrics()

    traffic = run(main()).traffic["udp"]
    assert (traffic.reads, traffic.writes) == (10, 10)
    assert (traffic.bytes_in, traffic.bytes_out) == (70, 70)
    assert traffic.open == 0


def test_dropped_datagrams(loop, run):
    async def main():
        receiver, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        sock = receiver.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        receiver.pause_reading()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(200):
                sender.sendto(bytes(1000), receiver.get_extra_info("sockname"))
        while_open = loop.metrics().udp_dropped
        receiver.close()
        await asyncio.sleep(0.01)
        return while_open, loop.metrics().udp_dropped

    while_open, after = run(main())
    assert while_open == after > 100


def test_the_executor(loop, run):
    gate = threading.Event()

    async def main():
        first = asyncio.to_thread(gate.wait, TIMEOUT)
        jobs = [asyncio.create_task(first)]
        jobs += [asyncio.create_task(asyncio.to_thread(nothing)) for _ in range(9)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*jobs)
        return loop.metrics()

    metrics = run(main())
    assert 1 <= metrics.executor_threads <= 10
    assert metrics.executor_queue == 0
    if metrics.executor_jobs:  # else, without a GIL, it is Python's own
        assert metrics.executor_jobs == 10
        assert metrics.executor_wait.count == 10


def test_the_executor_s_queue(loop, run):
    import concurrent.futures

    gate = threading.Event()

    async def main():
        loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(1))
        jobs = [asyncio.create_task(asyncio.to_thread(gate.wait)) for _ in range(4)]
        await asyncio.sleep(0)
        await until(lambda: loop.metrics().executor_queue <= 3)
        metrics = loop.metrics()
        gate.set()
        await asyncio.gather(*jobs)
        return metrics

    metrics = run(main())
    assert (metrics.executor_queue, metrics.executor_threads) == (3, 1)


def test_tls(loop, run):
    authority = new_authority()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)

    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_context)
        address = server.sockets[0].getsockname()
        streams = await asyncio.open_connection(
            *address, ssl=client_context, server_hostname="localhost"
        )
        assert loop.metrics().traffic["tls"].open == 2
        await converse(*streams, 400)
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection(
                *address, ssl=client_context, server_hostname="elsewhere"
            )
        server.close()
        await until(lambda: loop.metrics().traffic["tls"].open == 0)
        await until(lambda: loop.metrics().tls_handshake_failures)
        return loop.metrics()

    metrics = run(main())
    assert metrics.tls_handshakes >= 2
    assert metrics.tls_handshake_failures >= 1
    tls = metrics.traffic["tls"]
    assert tls.bytes_in == tls.bytes_out == 800
    assert tls.open == 0
    assert metrics.bytes_in > 800  # of TCP


def test_metrics_after_close(loop_factory):
    loop = loop_factory()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert loop.metrics().iterations > 0


def test_nested_turns(loop):
    def nest():
        loop.call_soon(nothing)
        loop.run_once(0)

    for _ in range(20):
        for _ in range(15):
            loop.call_soon(nest)
        loop.run_until_complete(asyncio.sleep(0.001))
    metrics = loop.metrics()
    assert metrics.callbacks_run >= 600
    assert metrics.running is False


def test_errors_that_leave_the_loop_do_not_lose_count(loop):
    def leave():
        raise KeyboardInterrupt

    for _ in range(100):
        loop.call_soon(nothing)
        loop.call_soon(leave)
    for _ in range(100):
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
    metrics = loop.metrics()
    assert 100 <= metrics.callbacks_run <= 200
    assert metrics.ready_now == 0


# -- the records ---------------------------------------------------------------------


def test_quantiles():
    histogram = Histogram(100, 5050, 100, tuple((n, 1) for n in range(1, 101)))
    assert histogram.p50_ns == 50
    assert histogram.p90_ns == 90
    assert histogram.p99_ns == 99
    assert histogram.p999_ns == 100
    assert histogram.quantile_ns(0) == 1
    assert histogram.mean_ns == 50.5
    assert Histogram().p99_ns == 0
    assert Histogram().mean_ns == 0
    with pytest.raises(ValueError):
        histogram.quantile_ns(99)


def test_a_histogram_since_another():
    old = Histogram(3, 30, 20, ((7, 2), (20, 1)))
    new = Histogram(6, 95, 60, ((7, 3), (20, 1), (63, 2)))
    assert new.since(old) == Histogram(3, 65, 60, ((7, 1), (63, 2)))
    assert old.since(old) == Histogram()


def test_borders_are_an_eighth_apart():
    borders = [_border(bucket) for bucket in range(312)]
    assert borders == sorted(set(borders))
    for below, border in itertools.pairwise(borders[8:]):
        assert border / (below + 1) <= 1.126
    assert {2**power - 1 for power in range(3, 41)} <= set(borders)


def test_import_is_cheap():
    """What a program does not use, it does not import."""
    code = """if True:
        import sys, asyncio
        import fastloop
        fastloop.run(asyncio.sleep(0))
        found = {name for name in sys.modules if name.startswith("fastloop.")}
        print(sorted(found & {"fastloop.metrics", "fastloop._slow", "fastloop._export",
                              "fastloop._watchdog", "fastloop._otel", "fastloop._top"}))
        print(fastloop.metrics.Metrics.__name__)
    """
    assert run_python("-c", code).stdout == "[]\nMetrics\n"


def test_the_module_is_an_attribute():
    assert fastloop.metrics.Histogram is Histogram
    assert "metrics" in dir(fastloop)
