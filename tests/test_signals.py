"""Signals: handlers of the loop, handlers of signal.signal()."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time

import pytest
from conftest import SIGNALS, TIMEOUT, turn
from iosupport import is_stock

pytestmark = pytest.mark.usefixtures("signals_restored")


def nothing(*args):
    pass


def kill(signum):
    os.kill(os.getpid(), signum)


def run_until_called(loop, calls, count=1):
    """Run loop until calls has count entries."""

    async def wait():
        async with asyncio.timeout(TIMEOUT):
            while len(calls) < count:
                await asyncio.sleep(0.001)

    loop.run_until_complete(wait())


# add_signal_handler


@pytest.mark.parametrize("signum", SIGNALS)
def test_handler(loop, signum):
    calls = []
    assert loop.add_signal_handler(signum, lambda *args: calls.append(args)) is None
    kill(signum)
    run_until_called(loop, calls)
    assert calls == [()]
    assert loop.remove_signal_handler(signum) is True


def test_arguments(loop):
    calls = []
    loop.add_signal_handler(
        signal.SIGUSR1, lambda *args: calls.append(args), 1, "two", None
    )
    kill(signal.SIGUSR1)
    run_until_called(loop, calls)
    assert calls == [(1, "two", None)]
    loop.remove_signal_handler(signal.SIGUSR1)


def test_handler_runs_in_the_loop(loop):
    seen = []

    def on_signal():
        seen.append((asyncio.get_running_loop(), threading.get_ident()))
        loop.stop()

    loop.add_signal_handler(signal.SIGUSR1, on_signal)
    loop.call_soon(kill, signal.SIGUSR1)
    loop.run_forever()
    assert seen == [(loop, threading.get_ident())]
    loop.remove_signal_handler(signal.SIGUSR1)


def test_handler_of_an_idle_loop(loop):
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    thread = threading.Timer(0.05, kill, (signal.SIGUSR1,))
    thread.start()
    loop.run_forever()
    thread.join()
    loop.remove_signal_handler(signal.SIGUSR1)


def test_handler_many_times(loop):
    calls = []

    def on_signal():
        calls.append(1)
        if len(calls) < 100:
            kill(signal.SIGUSR1)
        else:
            loop.stop()

    loop.add_signal_handler(signal.SIGUSR1, on_signal)
    kill(signal.SIGUSR1)
    loop.run_forever()
    assert len(calls) == 100
    loop.remove_signal_handler(signal.SIGUSR1)


def test_several_signals(loop):
    calls = []
    for signum in SIGNALS:
        loop.add_signal_handler(signum, calls.append, signum)
    for signum in SIGNALS:
        kill(signum)
    run_until_called(loop, calls, len(SIGNALS))
    assert sorted(calls) == sorted(SIGNALS)
    for signum in SIGNALS:
        assert loop.remove_signal_handler(signum) is True


def test_the_second_handler_replaces_the_first(loop):
    calls = []
    loop.add_signal_handler(signal.SIGUSR1, calls.append, "first")
    loop.add_signal_handler(signal.SIGUSR1, calls.append, "second")
    kill(signal.SIGUSR1)
    run_until_called(loop, calls)
    assert calls == ["second"]
    assert loop.remove_signal_handler(signal.SIGUSR1) is True
    assert loop.remove_signal_handler(signal.SIGUSR1) is False


def test_remove_restores_the_default(loop):
    assert loop.remove_signal_handler(signal.SIGUSR1) is False
    loop.add_signal_handler(signal.SIGUSR1, nothing)
    loop.add_signal_handler(signal.SIGINT, nothing)
    assert signal.getsignal(signal.SIGUSR1) not in (signal.SIG_DFL, None)
    assert loop.remove_signal_handler(signal.SIGUSR1) is True
    assert loop.remove_signal_handler(signal.SIGINT) is True
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    turn(loop)


def test_remove_within_the_handler(loop):
    results = []

    def on_signal():
        results.append(loop.remove_signal_handler(signal.SIGUSR1))
        results.append(loop.remove_signal_handler(signal.SIGUSR1))
        loop.stop()

    loop.add_signal_handler(signal.SIGUSR1, on_signal)
    kill(signal.SIGUSR1)
    loop.run_forever()
    assert results == [True, False]


def test_a_signal_between_two_runs_is_delivered_in_the_next(loop):
    calls = []
    loop.add_signal_handler(signal.SIGUSR1, calls.append, 1)
    turn(loop)
    kill(signal.SIGUSR1)
    time.sleep(0.01)
    assert calls == []
    run_until_called(loop, calls)
    assert calls == [1]
    loop.remove_signal_handler(signal.SIGUSR1)


def test_a_signal_between_two_runs_wakes_an_idle_loop(loop):
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    turn(loop)
    kill(signal.SIGUSR1)
    loop.run_forever()
    loop.remove_signal_handler(signal.SIGUSR1)


def test_a_signal_for_a_removed_handler_is_not_delivered(loop):
    calls = []
    loop.add_signal_handler(signal.SIGUSR1, calls.append, "removed")
    loop.add_signal_handler(signal.SIGUSR2, calls.append, "kept")
    kill(signal.SIGUSR1)
    loop.remove_signal_handler(signal.SIGUSR1)
    kill(signal.SIGUSR2)
    run_until_called(loop, calls)
    assert calls == ["kept"]
    loop.remove_signal_handler(signal.SIGUSR2)


def test_an_exception_in_the_handler(loop):
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))

    def fail():
        loop.call_soon(loop.stop)
        raise ZeroDivisionError

    loop.add_signal_handler(signal.SIGUSR1, fail)
    kill(signal.SIGUSR1)
    loop.run_forever()
    assert [type(context["exception"]) for context in contexts] == [ZeroDivisionError]
    assert isinstance(contexts[0]["handle"], asyncio.Handle)
    loop.remove_signal_handler(signal.SIGUSR1)


def test_a_blocking_call_in_the_main_thread_is_not_broken(loop):
    """SA_RESTART: system calls of callbacks are not made to fail by the handler."""
    r, w = os.pipe()
    calls = []
    loop.add_signal_handler(signal.SIGUSR1, calls.append, 1)

    def feed():
        time.sleep(0.02)
        kill(signal.SIGUSR1)
        time.sleep(0.02)
        os.write(w, b"x")

    thread = threading.Thread(target=feed)
    results = []
    loop.call_soon(lambda: (thread.start(), results.append(os.read(r, 1))))
    run_until_called(loop, calls)
    thread.join()
    assert results == [b"x"]
    loop.remove_signal_handler(signal.SIGUSR1)
    os.close(r)
    os.close(w)


# What add_signal_handler refuses


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
def test_signals_that_cannot_be_caught(loop, signum):
    with pytest.raises(RuntimeError, match=rf"^sig {signum} cannot be caught$"):
        loop.add_signal_handler(signum, nothing)
    assert loop.remove_signal_handler(signum) is False


@pytest.mark.parametrize("value", ["a", 1.5, None, b"x", object()])
def test_signals_of_the_wrong_type(loop, value):
    for call in (
        lambda: loop.add_signal_handler(value, nothing),
        lambda: loop.remove_signal_handler(value),
    ):
        with pytest.raises(TypeError, match=r"^sig must be an int, not "):
            call()


@pytest.mark.parametrize("value", [0, -1, 1000, signal.NSIG, 2**40, 2**100])
def test_signals_that_do_not_exist(loop, value):
    for call in (
        lambda: loop.add_signal_handler(value, nothing),
        lambda: loop.remove_signal_handler(value),
    ):
        with pytest.raises(ValueError, match=rf"^invalid signal number {value}$"):
            call()


def test_coroutines_are_no_handlers(loop):
    async def coroutine_function():
        pass

    coroutine = coroutine_function()
    for value in (coroutine, coroutine_function):
        with pytest.raises(
            TypeError, match=r"^coroutines cannot be used with add_signal_handler\(\)$"
        ):
            loop.add_signal_handler(signal.SIGUSR1, value)
    coroutine.close()


def test_not_in_another_thread(loop, loop_factory):
    """Only the main thread can catch signals."""
    errors = []

    def work():
        other = loop_factory()
        for candidate in (loop, other):
            try:
                candidate.add_signal_handler(signal.SIGUSR1, nothing)
            except RuntimeError as exc:
                errors.append(str(exc))
        other.run_until_complete(asyncio.sleep(0.001))
        other.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(errors) == 2
    for error in errors:
        assert "set_wakeup_fd only works in main thread" in error


def test_on_a_closed_loop(loop):
    loop.close()
    with pytest.raises(RuntimeError, match=r"^Event loop is closed$"):
        loop.add_signal_handler(signal.SIGUSR1, nothing)
    assert loop.remove_signal_handler(signal.SIGUSR1) is False


# Close


def test_close_removes_handlers(loop_factory):
    loop = loop_factory()
    for signum in SIGNALS:
        loop.add_signal_handler(signum, nothing)
    loop.add_signal_handler(signal.SIGINT, nothing)
    turn(loop)
    loop.close()
    for signum in SIGNALS:
        assert signal.getsignal(signum) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1


def test_a_run_leaves_the_wakeup_descriptor_alone(loop, loop_factory):
    assert signal.set_wakeup_fd(-1) == -1
    turn(loop)
    assert signal.set_wakeup_fd(-1) == -1

    def leave():
        raise SystemExit

    loop.call_soon(leave)
    with pytest.raises(SystemExit):
        loop.run_forever()
    assert signal.set_wakeup_fd(-1) == -1


def test_a_run_keeps_the_wakeup_descriptor_of_the_program(loop):
    r, w = os.pipe()
    os.set_blocking(w, False)
    os.set_blocking(r, False)
    previous = signal.set_wakeup_fd(w)
    try:
        turn(loop)
        loop.run_until_complete(asyncio.sleep(0.001))
        assert signal.set_wakeup_fd(w) == w
    finally:
        signal.set_wakeup_fd(previous)
        os.close(r)
        os.close(w)


def test_the_loop_of_another_thread_does_not_disturb(loop, loop_factory):
    """A loop that runs beside leaves signals to the loop of the main thread."""
    other = loop_factory()
    thread = threading.Thread(target=other.run_forever)
    thread.start()
    calls = []
    loop.add_signal_handler(signal.SIGUSR1, calls.append, 1)
    try:
        for count in range(1, 4):
            kill(signal.SIGUSR1)
            run_until_called(loop, calls, count)
    finally:
        other.call_soon_threadsafe(other.stop)
        thread.join()
        other.close()
    kill(signal.SIGUSR1)
    run_until_called(loop, calls, 4)
    loop.remove_signal_handler(signal.SIGUSR1)


def test_two_loops_in_turn_with_handlers(loop, loop_factory):
    """The loop that asked last gets the signal, as with asyncio."""
    other = loop_factory()
    calls = []
    loop.add_signal_handler(signal.SIGUSR1, calls.append, "loop")
    other.add_signal_handler(signal.SIGUSR2, calls.append, "other")
    kill(signal.SIGUSR2)
    run_until_called(other, calls)
    assert calls == ["other"]
    other.close()
    loop.add_signal_handler(signal.SIGUSR1, calls.append, "loop")
    kill(signal.SIGUSR1)
    run_until_called(loop, calls, 2)
    assert calls == ["other", "loop"]
    loop.remove_signal_handler(signal.SIGUSR1)


# Handlers of signal.signal()


class Left(Exception):
    pass


@contextlib.contextmanager
def signals_while_idle(loop, signum=signal.SIGUSR1):
    """Another thread sends signum while loop sleeps, or as good as: until it has ended.

    Once would do, if it never came before the loop does sleep. A handler is to ask
    whether the loop runs, for the last one may come behind the end.
    """
    ended = threading.Event()

    def send():
        while not ended.wait(0.05):
            kill(signum)

    thread = threading.Thread(target=send)
    loop.call_soon(thread.start)
    try:
        yield
    finally:
        ended.set()
        thread.join()


def leave(signum, frame):
    raise Left(signum)


@pytest.mark.parametrize("error", [Left, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_an_idle_loop(loop, error):
    def on_signal(signum, frame):
        if loop.is_running():
            raise error

    loop.set_exception_handler(
        nothing
    )  # if it hits the callback that starts the thread
    previous = signal.signal(signal.SIGUSR1, on_signal)
    try:
        with signals_while_idle(loop), pytest.raises(error):
            loop.run_forever()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert not loop.is_running()
    assert asyncio._get_running_loop() is None
    assert loop.run_until_complete(asyncio.sleep(0.001, "again")) == "again"


def test_an_exception_leaves_a_loop_that_waits_for_a_timer(loop):
    def on_signal(signum, frame):
        if loop.is_running():
            raise Left

    loop.set_exception_handler(nothing)
    previous = signal.signal(signal.SIGUSR1, on_signal)
    handle = loop.call_later(1000, nothing)
    try:
        with signals_while_idle(loop), pytest.raises(Left):
            loop.run_forever()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    handle.cancel()


def test_an_idle_loop_answers_fast(loop):
    """From the signal to the handler, in an idle loop, without a timer's help."""
    sent = []
    delays = []

    def on_signal(signum, frame):
        delays.append(time.monotonic() - sent[-1])
        raise Left

    def send():
        time.sleep(0.02)
        sent.append(time.monotonic())
        kill(signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, on_signal)
    try:
        for _ in range(5):
            thread = threading.Thread(target=send)
            with pytest.raises(Left):
                thread.start()
                loop.run_forever()
            thread.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert len(delays) == 5
    assert min(delays) < 0.05


def test_a_signal_caught_by_another_thread(loop, loop_name):
    """The kernel may choose any thread; the loop of the main thread still wakes."""
    if loop_name == "asyncio":
        pytest.skip("its poll is interrupted in its own thread only")
    previous = signal.signal(signal.SIGUSR1, leave)
    ready = threading.Event()

    def work():
        ready.wait(TIMEOUT)
        time.sleep(0.05)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    thread = threading.Thread(target=work)
    thread.start()
    loop.call_soon(ready.set)
    loop.call_later(TIMEOUT, loop.stop)
    try:
        with pytest.raises(Left):
            loop.run_forever()
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, previous)


def test_an_exception_leaves_a_busy_loop(loop):
    """Now and then it is raised within the callback instead, and reported as such."""
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))

    def again():
        loop.call_soon(again)

    def send(begun):
        begun.wait(TIMEOUT)
        time.sleep(0.01)
        kill(signal.SIGUSR1)
        time.sleep(0.05)
        loop.call_soon_threadsafe(loop.stop)

    previous = signal.signal(signal.SIGUSR1, leave)
    loop.call_soon(again)
    deadline = time.monotonic() + TIMEOUT / 2
    left = False
    try:
        while not left and time.monotonic() < deadline:
            contexts.clear()
            begun = threading.Event()
            loop.call_soon(begun.set)
            thread = threading.Thread(target=send, args=(begun,))
            thread.start()
            try:
                loop.run_forever()
            except Left:
                left = True
            thread.join()
            assert left or [type(context["exception"]) for context in contexts] == [
                Left
            ]
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert left, "it never left the loop"


def test_an_exception_raised_within_a_callback_is_reported(loop):
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))
    previous = signal.signal(signal.SIGUSR1, leave)
    try:
        loop.call_soon(signal.raise_signal, signal.SIGUSR1)
        turn(loop)
    except Left:
        contexts.append({"exception": Left()})
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert [type(context["exception"]) for context in contexts] == [Left]


def test_a_handler_that_returns_lets_the_loop_sleep_on(loop):
    called = threading.Semaphore(0)
    in_time = []
    previous = signal.signal(signal.SIGUSR1, lambda *args: called.release())

    def send():
        for _ in range(3):
            time.sleep(0.01)  # the loop is asleep by then, in all likelihood
            kill(signal.SIGUSR1)
            in_time.append(called.acquire(timeout=30))  # two at once would be one
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        loop.run_forever()
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, previous)
    assert in_time == [True] * 3


def test_a_handler_that_stops_the_loop(loop):
    """stop() from a handler: the loop ends at its next turn, even if it slept."""
    calls = []

    def on_signal(signum, frame):
        calls.append(signum)
        loop.call_soon_threadsafe(nothing)
        loop.stop()

    previous = signal.signal(signal.SIGUSR1, on_signal)
    thread = threading.Timer(0.05, kill, (signal.SIGUSR1,))
    thread.start()
    try:
        loop.run_forever()
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, previous)
    assert calls == [signal.SIGUSR1]


def test_handlers_of_both_kinds(loop):
    calls = []
    previous = signal.signal(signal.SIGUSR1, lambda *args: calls.append("signal"))
    loop.add_signal_handler(signal.SIGUSR2, calls.append, "loop")
    try:
        kill(signal.SIGUSR1)
        kill(signal.SIGUSR2)
        run_until_called(loop, calls, 2)
    finally:
        loop.remove_signal_handler(signal.SIGUSR2)
        signal.signal(signal.SIGUSR1, previous)
    assert sorted(calls) == ["loop", "signal"]


def test_whoever_had_the_wake_up_descriptor_hears_of_signals_too(loop, run):
    if is_stock(loop):
        pytest.skip("takes it, and does not give it back")
    ours, theirs = socket.socketpair()

    async def main():
        came = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, came.set)
        signal.raise_signal(signal.SIGUSR1)
        await came.wait()
        loop.remove_signal_handler(signal.SIGUSR1)

    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        before = signal.set_wakeup_fd(ours.fileno())
        try:
            run(main())
        finally:
            assert signal.set_wakeup_fd(before) == ours.fileno()
        assert theirs.recv(10) == bytes([signal.SIGUSR1])


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="asyncio drops it in every child since 3.12"
)
def test_a_forked_child_keeps_the_wake_up_descriptor_of_the_program(run_script):
    done = run_script(
        """
        import os, signal, socket
        loop = new_event_loop()
        loop.run_until_complete(asyncio.sleep(0))
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        signal.set_wakeup_fd(ours.fileno())
        pid = os.fork()
        if pid == 0:
            print(signal.set_wakeup_fd(-1) == ours.fileno())
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        loop.close()
        """
    )
    assert done.stdout == "True\n"
