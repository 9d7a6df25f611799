"""Timers: none early, none late for want of a wake-up, none with a busy wait."""

import random
import resource
import socket
import statistics
import time

import pytest
from iosupport import is_stock


def fires(loop, delays):
    """Run timers of these delays, each from the end of the one before: [lateness]."""

    async def main():
        late = []
        for delay in delays:
            future = loop.create_future()
            when = loop.call_later(delay, future.set_result, None).when()
            await future
            late.append(loop.time() - when)
        return late

    return loop.run_until_complete(main())


@pytest.mark.parametrize("seed", range(4))
def test_none_of_many_is_early(loop, seed):
    if is_stock(loop):
        pytest.skip("may be early by the clock's resolution")
    choose = random.Random(seed)
    count = 2500
    early = []
    fired = 0

    def callback(number):
        nonlocal fired
        fired += 1
        if loop.time() < handles[number].when():
            early.append(number)
        if fired == count:
            loop.stop()

    handles = [
        loop.call_later(choose.random() * 0.4, callback, number)
        for number in range(count)
    ]
    loop.run_forever()
    assert fired == count
    assert early == []


def test_none_of_a_row_is_early(loop):
    if is_stock(loop):
        pytest.skip("may be early by the clock's resolution")
    choose = random.Random(5)
    assert min(fires(loop, [choose.uniform(0, 0.003) for _ in range(300)])) >= 0


def test_short_sleeps_end_soon(loop):
    choose = random.Random(6)
    late = fires(loop, [choose.uniform(0.001, 0.005) for _ in range(100)])
    # Mostly below 0.1 ms; a busy machine may take its time, but not each time.
    assert statistics.quantiles(late)[0] < 0.005


@pytest.mark.skipif(not hasattr(resource, "RUSAGE_THREAD"), reason="is Linux's")
def test_a_timer_costs_no_more_than_two_wake_ups(loop):
    count = 100
    fires(loop, [0.001])
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    started = time.thread_time()
    fires(loop, [0.003 + n * 0.00001 for n in range(count)])
    waits = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before
    assert count * 0.9 <= waits <= count * 2
    # Polling out the last millisecond of each would take a whole one.
    assert time.thread_time() - started < 0.0007 * count


@pytest.mark.skipif(not hasattr(resource, "RUSAGE_THREAD"), reason="is Linux's")
def test_a_crowd_shares_wake_ups(loop):
    count = 2000
    late = []

    def callback(when):
        late.append(loop.time() - when)

    start = loop.time() + 0.01
    for number in range(count):
        when = start + 0.0001 * number
        loop.call_at(when, callback, when)
    loop.call_at(start + 0.0001 * count, loop.stop)
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    loop.run_forever()
    waits = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before
    assert len(late) == count
    assert waits < count / 5
    # A millisecond at most, but for a busy machine.
    assert statistics.median(late) < 0.005


def test_io_comes_beside_the_timers_of_a_crowd(loop):
    order = []
    reading, writing = socket.socketpair()

    def tell(what):
        order.append(what)
        if len(order) == 201:
            loop.stop()

    with reading, writing:
        reading.setblocking(False)
        loop.add_reader(reading, lambda: tell(reading.recv(1)))
        for number in range(200):
            loop.call_later(0.0001 * number, tell, number)
        loop.call_later(0.01, writing.send, b"x")
        loop.run_forever()
        loop.remove_reader(reading)
    order.remove(b"x")
    assert order == list(range(200))


def test_equal_deadlines_of_many_in_order(loop):
    if is_stock(loop):
        pytest.skip("its heap compares deadlines only")
    when = loop.time() + 0.02
    order = []
    for number in range(1000):
        loop.call_at(when, order.append, number)
    loop.call_at(when, loop.stop)
    loop.run_forever()
    assert order == list(range(1000))
