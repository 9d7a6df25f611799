"""The wake-up descriptor of signals, where others set it while a loop runs."""

import asyncio
import os
import signal
import socket

import pytest
from conftest import TIMEOUT
from iosupport import is_stock


class Left(Exception):
    pass


def leave(signum, frame):
    raise Left(signum)


@pytest.fixture(autouse=True)
def restored():
    """Each test leaves handlers and the wake-up descriptor as it found them."""
    signals = [signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2]
    before = [(signum, signal.getsignal(signum)) for signum in signals]
    fd = signal.set_wakeup_fd(-1)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    for signum, handler in before:
        signal.signal(signum, handler)
    signal.set_wakeup_fd(fd)


@pytest.fixture
def pair():
    """Two connected sockets that do not block."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


def run_until_left(loop):
    """Run an idle loop until the handler of a signal raises; from 0.05 s on."""
    signal.signal(signal.SIGALRM, leave)
    loop.call_soon(signal.setitimer, signal.ITIMER_REAL, 0.05, 0.05)
    end = loop.call_later(TIMEOUT, loop.stop)
    try:
        with pytest.raises(Left):
            loop.run_forever()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    end.cancel()


def test_an_exception_leaves_a_loop_without_it(loop):
    """A callback has taken it: the signal itself ends the wait."""
    loop.call_soon(signal.set_wakeup_fd, -1)
    started = loop.time()
    run_until_left(loop)
    assert loop.time() - started < TIMEOUT / 2


def test_a_handler_that_returns_lets_the_loop_sleep_on(loop):
    calls = []
    signal.signal(signal.SIGALRM, lambda *args: calls.append(args))
    loop.call_soon(signal.set_wakeup_fd, -1)
    loop.call_soon(signal.setitimer, signal.ITIMER_REAL, 0.01, 0.01)
    assert loop.run_until_complete(asyncio.sleep(0.2, "slept")) == "slept"
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert len(calls) > 3


def test_an_exception_leaves_a_loop_beside_one_that_was_closed(loop, loop_factory):
    """close() of a loop that had handlers takes the descriptor down."""
    other = loop_factory()
    other.add_signal_handler(signal.SIGUSR1, print)
    loop.call_soon(other.close)
    started = loop.time()
    run_until_left(loop)
    assert loop.time() - started < TIMEOUT / 2


def test_handlers_outlive_those_of_another_loop(loop, loop_factory):
    if is_stock(loop):
        pytest.skip("the other one's end takes the descriptor down for all")
    other = loop_factory()
    other.add_signal_handler(signal.SIGUSR1, print)

    async def main():
        came = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR2, came.set)
        other.close()
        signal.raise_signal(signal.SIGUSR2)
        async with asyncio.timeout(TIMEOUT):
            await came.wait()
        loop.remove_signal_handler(signal.SIGUSR2)

    loop.run_until_complete(main())
    assert signal.set_wakeup_fd(-1) == -1


def test_one_that_a_callback_has_set_stays(loop, pair):
    ours, _ = pair
    loop.call_soon(signal.set_wakeup_fd, ours.fileno())
    loop.run_until_complete(asyncio.sleep(0.001))
    assert signal.set_wakeup_fd(-1) == ours.fileno()


def test_one_that_was_closed_is_not_written_to(loop, pair):
    """Its number is another file's by now."""
    ours, theirs = pair
    before = socket.socket()
    before.setblocking(False)
    fd = before.fileno()
    signal.set_wakeup_fd(fd)

    async def main():
        came = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, came.set)
        os.dup2(ours.fileno(), fd, inheritable=False)
        signal.raise_signal(signal.SIGUSR1)
        async with asyncio.timeout(TIMEOUT):
            await came.wait()
        loop.remove_signal_handler(signal.SIGUSR1)

    try:
        loop.run_until_complete(main())
        assert signal.set_wakeup_fd(-1) == -1
        with pytest.raises(BlockingIOError):
            theirs.recv(10)
    finally:
        before.close()
