"""Work without end starves nothing, and an idle loop sleeps."""

import asyncio
import os
import signal
import socket
import sys
import threading
import time

from conftest import TIMEOUT, turn

# Fairness


def busy_until(loop, done, limit=TIMEOUT):
    """Run loop with a callback that always schedules itself until done() holds."""
    start = time.monotonic()
    turns = 0

    def again():
        nonlocal turns
        turns += 1
        if done() or time.monotonic() - start > limit:
            loop.stop()
        else:
            loop.call_soon(again)

    loop.call_soon(again)
    loop.run_forever()
    assert done(), "starved"
    return turns


def test_work_does_not_starve_timers(loop):
    calls = []
    loop.call_later(0.01, calls.append, 1)
    assert busy_until(loop, lambda: calls) > 1


def test_work_does_not_starve_readers(loop):
    a, b = socket.socketpair()
    with a, b:
        received = []

        def echo():
            received.append(a.recv(1))
            if len(received) < 50:
                b.send(b"x")

        loop.add_reader(a, echo)
        b.send(b"x")
        busy_until(loop, lambda: len(received) == 50)
        loop.remove_reader(a)


def test_work_does_not_starve_writers(loop):
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        calls = []
        loop.add_writer(a, calls.append, 1)
        busy_until(loop, lambda: len(calls) > 3)
        loop.remove_writer(a)


def test_work_does_not_starve_threads(loop):
    """Another Python thread gets on while the loop never sleeps."""
    counter = 0
    running = True

    def count():
        nonlocal counter
        while running:
            counter += 1

    thread = threading.Thread(target=count)
    thread.start()
    try:
        busy_until(loop, lambda: counter > 1000)
    finally:
        running = False
        thread.join()


def test_work_does_not_starve_call_soon_threadsafe(loop):
    calls = []
    thread = threading.Thread(
        target=lambda: [loop.call_soon_threadsafe(calls.append, n) for n in range(100)]
    )
    thread.start()
    busy_until(loop, lambda: len(calls) == 100)
    thread.join()
    assert calls == list(range(100))


def test_work_does_not_starve_signals(loop):
    calls = []
    loop.add_signal_handler(signal.SIGUSR1, calls.append, 1)
    try:
        loop.call_later(0.005, os.kill, os.getpid(), signal.SIGUSR1)
        busy_until(loop, lambda: calls)
    finally:
        loop.remove_signal_handler(signal.SIGUSR1)


def test_work_does_not_starve_executor_jobs(loop):
    done = []
    future = loop.run_in_executor(None, time.sleep, 0.01)
    future.add_done_callback(done.append)
    busy_until(loop, lambda: done)
    assert future.result() is None


def test_a_task_switching_without_end_does_not_starve(loop, run):
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        b.setblocking(False)

        async def spin():
            while True:
                await asyncio.sleep(0)

        async def main():
            spinner = asyncio.create_task(spin())
            for n in range(20):
                await loop.sock_sendall(a, bytes([n]))
                assert await loop.sock_recv(b, 10) == bytes([n])
            await asyncio.sleep(0.01)
            assert await asyncio.to_thread(lambda: "thread") == "thread"
            spinner.cancel()

        run(main())


def test_an_idle_loop_sleeps(loop):
    """No polling: next to no CPU time goes by while the loop waits."""
    loop.call_later(0.5, loop.stop)
    before = time.process_time()
    loop.run_forever()
    assert time.process_time() - before < 0.25


def test_getrefcount_of_callbacks(loop):
    """Scheduling, running and cancelling leave no reference behind."""

    def callback(*args):
        pass

    arg = object()

    def cycle():
        for _ in range(50):
            loop.call_soon(callback, arg)
            loop.call_soon(callback, arg, arg, arg, arg, arg)
            loop.call_soon(callback, arg).cancel()
            loop.call_soon_threadsafe(callback, arg)
            loop.call_later(0, callback, arg)
            loop.call_later(1000, callback, arg).cancel()
        time.sleep(0.0001)
        turn(loop)
        turn(loop)

    cycle()
    before = sys.getrefcount(callback), sys.getrefcount(arg)
    for _ in range(5):
        cycle()
    assert (sys.getrefcount(callback), sys.getrefcount(arg)) == before
