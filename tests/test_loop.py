"""The loop itself: what a new one is, and the order of its callbacks."""

import asyncio
import contextvars
import gc
import random
import socket
import weakref

import pytest
from conftest import turn

# A new loop


def test_a_new_loop(loop):
    assert isinstance(loop, asyncio.AbstractEventLoop)
    assert isinstance(loop, asyncio.BaseEventLoop)
    assert loop.is_running() is False
    assert loop.is_closed() is False
    assert loop.get_debug() is False
    assert loop.get_exception_handler() is None
    assert loop.get_task_factory() is None
    assert loop.slow_callback_duration == 0.1
    assert loop._default_executor is None


def test_repr(loop_factory):
    loop = loop_factory()
    name = type(loop).__name__
    assert repr(loop) == f"<{name} running=False closed=False debug=False>"
    loop.set_debug(True)
    assert repr(loop) == f"<{name} running=False closed=False debug=True>"
    texts = []
    loop.call_soon(lambda: texts.append(repr(loop)))
    turn(loop)
    assert texts == [f"<{name} running=True closed=False debug=True>"]
    loop.set_debug(False)
    loop.close()
    assert repr(loop) == f"<{name} running=False closed=True debug=False>"


def test_loops_are_hashable_and_differ(loop, loop_factory):
    other = loop_factory()
    assert loop == loop
    assert loop != other
    assert len({loop, other, loop}) == 2
    other.close()


@pytest.mark.parametrize("how", ["idle", "connections", "timers left"])
def test_closed_loop_goes_with_its_last_user(loop_factory, how):
    """Without help from the collector: the loop and what it leads to are in no cycle."""

    async def main():
        loop = asyncio.get_running_loop()
        if how == "connections":
            a, b = socket.socketpair()
            transport = (await loop.create_connection(asyncio.Protocol, sock=a))[0]
            b.close()
            transport.close()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        elif how == "timers left":
            loop.call_later(3600, loop.stop)
            loop.call_soon(loop.stop)

    loop = loop_factory()
    gc.collect()
    gc.disable()
    try:
        loop.run_until_complete(main())
        loop.close()
        loop.create_future()
        ref = weakref.ref(loop)
        del loop
        assert ref() is None
    finally:
        gc.enable()


def test_weak_references(loop_factory):
    loop = loop_factory()
    ref = weakref.ref(loop)
    assert ref() is loop
    loop.close()
    del loop
    gc.collect()
    assert ref() is None


def test_create_future(loop):
    future = loop.create_future()
    assert type(future) is asyncio.Future
    assert future.get_loop() is loop
    assert not future.done()


def test_every_public_method_of_asyncio_is_there(loop):
    """And each is a coroutine function where asyncio's own is."""
    for name in dir(asyncio.AbstractEventLoop):
        if name.startswith("_"):
            continue
        method = getattr(loop, name)
        assert callable(method), name


# Order


def test_call_soon_is_first_in_first_out(loop):
    calls = []
    for n in range(1000):
        loop.call_soon(calls.append, n)
    turn(loop)
    assert calls == list(range(1000))


def test_many_callbacks(loop):
    """More than any first size of a queue, while it is being emptied."""
    calls = []

    def more(n):
        calls.append(n)
        if n < 20_000:
            loop.call_soon(more, 2 * n)
            loop.call_soon(more, 2 * n + 1)

    loop.call_soon(more, 1)
    while len(calls) < 39_999:
        turn(loop)
    assert calls == list(range(1, 40_000))


def test_a_callback_made_by_a_callback_waits_for_the_next_turn(loop):
    calls = []

    def first():
        calls.append("first")
        loop.call_soon(calls.append, "third")

    loop.call_soon(first)
    loop.call_soon(calls.append, "second")
    turn(loop)
    assert calls == ["first", "second"]
    turn(loop)
    assert calls == ["first", "second", "third"]


def test_call_soon_and_threadsafe_share_one_order(loop):
    calls = []
    for n in range(0, 100, 2):
        loop.call_soon(calls.append, n)
        loop.call_soon_threadsafe(calls.append, n + 1)
    turn(loop)
    while len(calls) < 100:
        turn(loop)
    assert [n for n in calls if n % 2 == 0] == list(range(0, 100, 2))
    assert [n for n in calls if n % 2] == list(range(1, 100, 2))


class Program:
    """A program of random choices that notes what runs, in which order and context.

    It schedules in every way, cancels, stops, sets a context variable, raises and leaves
    the loop. The choices depend on the order of callbacks, so any difference between two
    loops grows.
    """

    var = contextvars.ContextVar("program", default=None)

    def __init__(self, loop, seed):
        self.loop = loop
        self.choose = random.Random(seed)
        self.log = []
        self.handles = []
        self.contexts = [contextvars.copy_context() for _ in range(3)]
        self.made = 0
        # Deadlines that are over, none twice: equal ones have no order in asyncio.
        self.deadlines = [n - 1e6 for n in range(5000)]
        self.choose.shuffle(self.deadlines)
        loop.set_exception_handler(self.report)

    def report(self, loop, context):
        self.log.append(("reported", str(context["exception"])))

    def run(self):
        for _ in range(20):
            self.schedule()
        for turns in range(400):
            try:
                turn(self.loop)
            except (KeyboardInterrupt, SystemExit) as exc:
                self.log.append(("left", turns, str(exc)))
            self.log.append(("turn", turns))
        return self.log

    def schedule(self):
        if self.made >= 4000:
            return
        self.made += 1
        number = self.made
        loop, choice = self.loop, self.choose.random()
        context = self.choose.choice([None, None, None, *self.contexts])
        if choice < 0.5:
            handle = loop.call_soon(self.step, number, context=context)
        elif choice < 0.6:
            handle = loop.call_soon_threadsafe(self.step, number, context=context)
        else:
            when = self.deadlines.pop()
            handle = loop.call_at(when, self.step, number, context=context)
        self.handles.append(handle)
        del self.handles[:-50]

    def step(self, number):
        choose = self.choose
        self.log.append((number, self.var.get()))
        for _ in range(choose.choice([0, 0, 1, 1, 1, 2, 2])):
            self.schedule()
        choice = choose.random()
        if choice < 0.2:
            self.var.set(number)
            self.schedule()
        elif choice < 0.4:
            choose.choice(self.handles).cancel()
        elif choice < 0.45:
            self.loop.stop()
        elif choice < 0.5:
            raise ValueError(number)
        elif choice < 0.52:
            raise choose.choice([KeyboardInterrupt, SystemExit])(number)
        elif choice < 0.6:
            token = self.var.set("token")
            self.schedule()
            self.var.reset(token)
        elif choice < 0.65:
            contextvars.copy_context().run(self.schedule)
        elif choice < 0.7:
            self.contexts[choose.randrange(3)] = contextvars.copy_context()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("debug", [False, True])
def test_a_random_program_runs_as_on_asyncio(loop, seed, debug):
    def run(loop):
        loop.set_debug(debug)
        loop.slow_callback_duration = 1000
        return contextvars.Context().run(Program(loop, seed).run)

    reference = asyncio.SelectorEventLoop()
    expected = run(reference)
    reference.close()
    assert len(expected) > 1000
    assert run(loop) == expected
