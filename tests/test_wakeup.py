"""call_soon_threadsafe(): from other threads, from signal handlers, around runs."""

import asyncio
import concurrent.futures
import gc
import os
import signal
import socket
import threading
import time
import weakref

import pytest
from conftest import TIMEOUT, turn


def nothing(*args):
    pass


def in_threads(count, work):
    """Call work(number) in count threads that start together; raises what they raised."""
    barrier = threading.Barrier(count)

    def started(number):
        barrier.wait(TIMEOUT)
        return work(number)

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(started, range(count), timeout=TIMEOUT))


def test_from_the_own_thread(loop):
    calls = []
    handle = loop.call_soon_threadsafe(calls.append, 1)
    assert isinstance(handle, asyncio.Handle)
    turn(loop)
    assert calls == [1]


def test_runs_in_the_thread_of_the_loop(loop):
    idents = []

    def called():
        idents.append(threading.get_ident())
        loop.stop()

    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(called,))
    thread.start()
    loop.run_forever()
    thread.join()
    assert idents == [threading.get_ident()]


def test_wakes_an_idle_loop(loop):
    """Again and again, whether the loop is just about to sleep or has slept."""
    woken = threading.Semaphore(0)
    finished = []

    def work():
        for number in range(300):
            if number % 10 == 0:
                time.sleep(0.001)
            loop.call_soon_threadsafe(woken.release)
            if not woken.acquire(timeout=TIMEOUT):
                break
        else:
            finished.append(True)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=work)
    thread.start()
    loop.run_forever()
    thread.join()
    assert finished == [True], "a wake-up was lost"


def test_wakes_a_loop_that_waits_for_a_timer(loop):
    timer = loop.call_later(1000, nothing)
    start = time.monotonic()
    thread = threading.Timer(0.02, loop.call_soon_threadsafe, (loop.stop,))
    thread.start()
    loop.run_forever()
    thread.join()
    assert time.monotonic() - start < TIMEOUT
    timer.cancel()


def test_order_of_each_thread_is_kept(loop):
    count, each = 8, 2000
    calls = []
    waiting = count

    def finished():
        nonlocal waiting
        waiting -= 1
        if waiting == 0:
            loop.stop()

    def work(number):
        for n in range(each):
            loop.call_soon_threadsafe(calls.append, (number, n))
        loop.call_soon_threadsafe(finished)

    runner = threading.Thread(target=in_threads, args=(count, work))
    runner.start()
    loop.run_forever()
    runner.join()
    assert len(calls) == count * each
    for number in range(count):
        assert [n for owner, n in calls if owner == number] == list(range(each))


def test_threads_against_a_busy_loop(loop):
    count, each = 4, 1000
    calls = []
    own = 0

    def work(number):
        for n in range(each):
            loop.call_soon_threadsafe(calls.append, (number, n))

    def again():
        nonlocal own
        own += 1
        if len(calls) == count * each:
            loop.stop()
        else:
            loop.call_soon(again)

    loop.call_soon(again)
    runner = threading.Thread(target=in_threads, args=(count, work))
    runner.start()
    loop.run_forever()
    runner.join()
    assert sorted(calls) == [(k, n) for k in range(count) for n in range(each)]
    assert own > 0


def test_before_the_run(loop):
    calls = []

    def work(number):
        for n in range(100):
            loop.call_soon_threadsafe(calls.append, (number, n))

    in_threads(4, work)
    assert calls == []
    turn(loop)
    assert sorted(calls) == [(k, n) for k in range(4) for n in range(100)]


def test_while_the_loop_starts_and_stops(loop):
    """Nothing is lost between two runs, and no run hangs."""
    calls = []
    total = 3000

    def work():
        for n in range(total):
            loop.call_soon_threadsafe(calls.append, n)
            loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=work)
    thread.start()
    while len(calls) < total and thread.is_alive():
        loop.run_forever()
    thread.join()
    while len(calls) < total:
        turn(loop)
    assert calls == list(range(total))


def test_between_runs_it_wakes_the_next(loop):
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(loop.stop,))
    thread.start()
    thread.join()
    loop.run_forever()


def test_a_callback_schedules_threadsafe_callbacks(loop):
    """They wait for the next turn like any other."""
    calls = []

    def first():
        calls.append("first")
        loop.call_soon_threadsafe(calls.append, "third")

    loop.call_soon_threadsafe(first)
    loop.call_soon_threadsafe(calls.append, "second")
    turn(loop)
    assert calls == ["first", "second"]
    turn(loop)
    assert calls == ["first", "second", "third"]


@pytest.mark.parametrize("running", [False, True])
def test_one_order_with_call_soon_in_the_own_thread(loop, running):
    calls = []

    def schedule():
        loop.call_soon_threadsafe(calls.append, 1)
        loop.call_soon(calls.append, 2)
        loop.call_soon_threadsafe(calls.append, 3)
        loop.call_soon(calls.append, 4)

    if running:
        loop.call_soon(schedule)
        turn(loop)
        assert calls == []
    else:
        schedule()
    turn(loop)
    assert calls == [1, 2, 3, 4]


def test_behind_what_the_loop_has_scheduled_already(loop):
    """What a thread sends while a callback waits for it joins the queue then."""
    calls = []

    def first():
        loop.call_soon(calls.append, "before")
        thread = threading.Thread(
            target=loop.call_soon_threadsafe, args=(calls.append, "thread")
        )
        thread.start()
        thread.join()

    loop.call_soon(first)
    turn(loop)
    turn(loop)
    assert calls == ["before", "thread"]


def test_cancel_before_it_runs(loop):
    calls = []
    handles = []

    def work(number):
        for n in range(100):
            handle = loop.call_soon_threadsafe(calls.append, n)
            if n % 2:
                handle.cancel()
            handles.append(handle)

    in_threads(2, work)
    turn(loop)
    assert sorted(calls) == sorted([*range(0, 100, 2)] * 2)
    assert sum(handle.cancelled() for handle in handles) == 100


def test_cancel_from_another_thread_while_the_loop_runs(loop):
    """Each handle either ran or was cancelled first; nothing breaks in between."""
    ran = []
    late = []

    def work(number):
        for n in range(500):
            handle = loop.call_soon_threadsafe(ran.append, (number, n))
            if n % 3 == 0:
                handle.cancel()
                late.append((number, n))

    def run():
        in_threads(4, work)
        loop.call_soon_threadsafe(loop.stop)

    runner = threading.Thread(target=run)
    runner.start()
    loop.run_forever()
    runner.join()
    expected = {(k, n) for k in range(4) for n in range(500)}
    assert len(ran) == len(set(ran))
    assert expected - set(late) <= set(ran) <= expected


def test_on_a_closed_loop(loop):
    loop.close()
    errors = []

    def work(number):
        try:
            loop.call_soon_threadsafe(nothing)
        except RuntimeError as exc:
            errors.append(str(exc))

    in_threads(4, work)
    assert errors == ["Event loop is closed"] * 4


def test_while_the_loop_is_closed(loop_factory):
    """Calls either are accepted or say that the loop is closed."""
    for _ in range(20):
        loop = loop_factory()
        outcomes = []
        started = threading.Event()

        def work(loop=loop, outcomes=outcomes, started=started):
            for n in range(100_000):
                try:
                    loop.call_soon_threadsafe(nothing, n)
                except RuntimeError as exc:
                    outcomes.append(str(exc))
                    return
                started.set()

        thread = threading.Thread(target=work)
        thread.start()
        started.wait(TIMEOUT)
        turn(loop)
        loop.close()
        thread.join()
        assert outcomes in ([], ["Event loop is closed"])


def test_close_lets_go_of_what_waits(loop_factory):
    class Thing:
        pass

    loop = loop_factory()
    refs = []

    def work(number):
        thing = Thing()
        refs.append(weakref.ref(thing))
        loop.call_soon_threadsafe(nothing, thing)

    in_threads(4, work)
    assert None not in [ref() for ref in refs]
    loop.close()
    gc.collect()
    assert [ref() for ref in refs] == [None] * 4


def test_from_a_signal_handler(loop):
    """A handler of signal.signal may interrupt the loop anywhere."""
    calls = []

    def on_signal(signum, frame):
        loop.call_soon_threadsafe(calls.append, signum)

    def again():
        if len(calls) == 20:
            loop.stop()
        else:
            os.kill(os.getpid(), signal.SIGUSR1)
            loop.call_soon(again)

    previous = signal.signal(signal.SIGUSR1, on_signal)
    try:
        loop.call_soon(again)
        loop.run_forever()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert set(calls) == {signal.SIGUSR1}


def test_from_a_signal_handler_while_idle(loop):
    """It wakes the loop that the signal has interrupted."""

    def on_signal(signum, frame):
        loop.call_soon_threadsafe(loop.stop)

    previous = signal.signal(signal.SIGUSR1, on_signal)
    thread = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    try:
        thread.start()
        start = time.monotonic()
        loop.run_forever()
        assert time.monotonic() - start < TIMEOUT
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, previous)


def test_run_coroutine_threadsafe(loop):
    async def add(a, b):
        await asyncio.sleep(0)
        return a + b

    async def fail():
        raise ZeroDivisionError

    results = []

    def work(number):
        future = asyncio.run_coroutine_threadsafe(add(number, 1), loop)
        results.append(future.result(TIMEOUT))
        future = asyncio.run_coroutine_threadsafe(fail(), loop)
        with pytest.raises(ZeroDivisionError):
            future.result(TIMEOUT)

    def run():
        try:
            in_threads(8, work)
        finally:
            loop.call_soon_threadsafe(loop.stop)

    runner = threading.Thread(target=run)
    runner.start()
    loop.run_forever()
    runner.join()
    assert sorted(results) == list(range(1, 9))


def test_run_coroutine_threadsafe_cancelled(loop):
    cancelled = []

    async def wait():
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            cancelled.append(True)
            loop.call_soon(loop.stop)
            raise

    def work():
        future = asyncio.run_coroutine_threadsafe(wait(), loop)
        with pytest.raises(concurrent.futures.TimeoutError):
            future.result(0.02)
        future.cancel()

    thread = threading.Thread(target=work)
    thread.start()
    loop.run_forever()
    thread.join()
    assert cancelled == [True]


def test_ping_pong_of_two_loops(loop_factory):
    """Two idle loops wake each other many times."""
    first, second = loop_factory(), loop_factory()
    count = 0

    def ping():
        second.call_soon_threadsafe(pong)

    def pong():
        nonlocal count
        count += 1
        if count == 500:
            first.call_soon_threadsafe(first.stop)
            second.stop()
        else:
            first.call_soon_threadsafe(ping)

    thread = threading.Thread(target=second.run_forever)
    first.call_soon(ping)
    thread.start()
    first.run_forever()
    thread.join()
    first.close()
    second.close()
    assert count == 500


def test_wakes_without_reason_are_not_needed(loop):
    """Ten thousand calls in one go leave one batch in order."""
    calls = []

    def work():
        for n in range(10_000):
            loop.call_soon_threadsafe(calls.append, n)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=work)
    thread.start()
    loop.run_forever()
    thread.join()
    assert calls == list(range(10_000))


def test_a_flooding_thread_does_not_starve_timers(loop):
    """Turns must not grow without bound where a thread sends faster than they run."""
    event = threading.Event()
    running = True
    delays = []

    def work():
        while running:
            loop.call_soon_threadsafe(event.set)

    def tick():
        delays.append(loop.time() - timer.when())
        if len(delays) < 6 and sum(delays) < 5:
            schedule()
        else:
            loop.stop()

    def schedule():
        nonlocal timer
        timer = loop.call_later(0.005, tick)

    timer = None
    schedule()
    thread = threading.Thread(target=work)
    thread.start()
    loop.run_forever()
    running = False
    thread.join()
    assert sum(delays) < 5


def test_debug_mode_checks_the_callback(loop):
    async def coroutine_function():
        pass

    loop.set_debug(True)
    with pytest.raises(
        TypeError, match=r"expected by call_soon_threadsafe\(\), got None"
    ):
        loop.call_soon_threadsafe(None)
    with pytest.raises(
        TypeError, match=r"^coroutines cannot be used with call_soon_threadsafe\(\)$"
    ):
        loop.call_soon_threadsafe(coroutine_function)


def test_debug_mode_allows_other_threads(loop):
    loop.set_debug(True)
    calls = []

    async def main():
        def work():
            loop.call_soon_threadsafe(calls.append, 1)

        await loop.run_in_executor(None, work)
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    assert calls == [1]


def test_an_exception_in_the_callback(loop):
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))

    def fail():
        raise ZeroDivisionError

    def work():
        handles.append(loop.call_soon_threadsafe(fail))
        loop.call_soon_threadsafe(loop.stop)

    handles = []
    thread = threading.Thread(target=work)
    thread.start()
    loop.run_forever()
    thread.join()
    assert [context["handle"] for context in contexts] == handles
    assert isinstance(contexts[0]["exception"], ZeroDivisionError)


def test_the_last_reference_is_dropped_by_the_loop(loop):
    """Arguments die in the loop's thread, not in the thread that sent them."""
    idents = []

    class Thing:
        def __del__(self):
            idents.append(threading.get_ident())

    def work():
        loop.call_soon_threadsafe(nothing, Thing())
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    loop.run_forever()
    assert idents == [threading.get_ident()]


def test_what_a_thread_handed_over_comes_before_what_the_loop_makes_ready_then(loop):
    seen = []

    def hand_over(*numbers):
        def send():
            for number in numbers:
                loop.call_soon_threadsafe(seen.append, number)

        thread = threading.Thread(target=send)
        thread.start()
        thread.join()

    def callback():
        loop.call_soon(seen.append, 1)
        hand_over(2, 3)
        loop.call_soon(seen.append, 4)
        hand_over(5)
        loop.call_soon_threadsafe(seen.append, 6)
        loop.create_task(step())
        hand_over(8)
        loop.call_soon(loop.stop)

    async def step():
        seen.append(7)

    loop.call_soon(callback)
    loop.run_forever()
    assert seen == [1, 2, 3, 4, 5, 6, 7, 8]


def test_what_a_thread_handed_over_comes_before_what_it_makes_readable_then(loop):
    rounds = 50
    seen = []
    ours, theirs = socket.socketpair()
    answered = threading.Event()

    def send():
        for number in range(rounds):
            loop.call_soon_threadsafe(seen.append, number)
            theirs.send(b"x")
            answered.wait(TIMEOUT)
            answered.clear()
        loop.call_soon_threadsafe(loop.stop)

    def readable():
        ours.recv(1)
        seen.append("read")
        answered.set()

    with ours, theirs:
        loop.add_reader(ours, readable)
        thread = threading.Thread(target=send)
        thread.start()
        loop.run_forever()
        thread.join()
        loop.remove_reader(ours)
    assert seen == [thing for number in range(rounds) for thing in (number, "read")]
