"""Handles of call_soon_threadsafe(): what other threads may do while they run."""

import sys
import threading

import pytest
from conftest import TIMEOUT, turn

WAITS = sys.version_info >= (3, 14)
"""Since then cancel() and cancelled() wait for the end of the callback."""


def while_it_runs(loop, ask):
    """Run a callback; while it runs, call ask(handle) in another thread.

    Return whether the answer came before the callback's end, and the answer.
    """
    started, answered, handles, answers = threading.Event(), threading.Event(), [], []
    early = []

    def callback():
        started.set()
        # Where the other thread waits for us, it cannot have answered by now.
        early.append(answered.wait(0.2 if WAITS else TIMEOUT))

    def other():
        handles.append(loop.call_soon_threadsafe(callback))
        assert started.wait(TIMEOUT)
        answers.append(ask(handles[0]))
        answered.set()
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=other)
    thread.start()
    loop.run_forever()
    thread.join(TIMEOUT)
    return early[0], answers[0]


def test_cancel_waits_for_the_end_of_the_callback(loop):
    early, _ = while_it_runs(loop, lambda handle: handle.cancel())
    assert early is not WAITS


def test_cancelled_waits_for_the_end_of_the_callback(loop):
    early, answer = while_it_runs(loop, lambda handle: handle.cancelled())
    assert early is not WAITS
    assert answer is False


def test_the_callback_may_cancel_its_own_handle(loop):
    seen = []

    def callback():
        handle.cancel()
        seen.append(handle.cancelled())

    handle = loop.call_soon_threadsafe(callback)
    turn(loop)
    assert seen == [True]


def test_the_callback_may_cancel_its_own_handle_that_is_run_by_hand(run_script):
    source = """
    import threading

    def by_hand():
        handle = loop.call_soon_threadsafe(lambda: handle.cancel())
        handle._run()
        print(handle.cancelled())

    loop = new_event_loop()
    by_hand()
    thread = threading.Thread(target=by_hand)
    thread.start()
    thread.join()
    loop.close()
    """
    assert run_script(source).stdout.split() == ["True", "True"]


def test_cancelled_before_it_began(loop):
    seen = []
    handle = loop.call_soon_threadsafe(seen.append, 1)
    thread = threading.Thread(target=handle.cancel)
    thread.start()
    thread.join(TIMEOUT)
    turn(loop)
    assert seen == []
    assert handle.cancelled()


def test_a_callback_that_raises_lets_waiters_go(loop):
    loop.set_exception_handler(lambda loop, context: None)
    started = threading.Event()

    def callback():
        started.set()
        raise ZeroDivisionError

    def other():
        handle = loop.call_soon_threadsafe(callback)
        assert started.wait(TIMEOUT)
        handle.cancel()
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=other)
    thread.start()
    loop.run_forever()
    thread.join(TIMEOUT)
    assert not thread.is_alive()


@pytest.mark.parametrize("count", [8])
def test_many_threads_cancel(loop, count):
    """Each callback runs or is cancelled, whatever thread is first."""
    ran = []

    def other(number):
        for n in range(200):
            handle = loop.call_soon_threadsafe(ran.append, (number, n))
            if n % 2:
                handle.cancel()

    def all_of_them():
        threads = [threading.Thread(target=other, args=(n,)) for n in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=all_of_them)
    thread.start()
    loop.run_forever()
    thread.join(TIMEOUT)
    assert len(set(ran)) == len(ran)
    assert {(number, n) for number in range(count) for n in range(0, 200, 2)} <= {*ran}
