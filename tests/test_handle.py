"""Handles: what call_soon(), call_later(), call_at() and their kin return."""

import asyncio
import functools
import gc
import itertools
import random
import sys
import weakref

import pytest
from conftest import KINDS, schedule, turn


def is_timer(kind):
    return kind in ("later", "at")


class Thing:
    """Something that can be referred to weakly."""

    def method(self, *args):
        pass


def nothing(*args):
    pass


@pytest.mark.parametrize("kind", KINDS)
def test_type(loop, kind):
    handle = schedule(loop, kind, nothing)
    assert isinstance(handle, asyncio.Handle)
    assert isinstance(handle, asyncio.TimerHandle) is is_timer(kind)
    if sys.version_info >= (3, 14) and kind == "threadsafe":
        assert isinstance(handle, asyncio.events._ThreadSafeHandle)
    turn(loop)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 8, 40])
def test_arguments(loop, kind, count):
    args = tuple(object() for _ in range(count))
    seen = []

    def callback(*got):
        seen.append(got)

    schedule(loop, kind, callback, *args)
    turn(loop)
    assert seen == [args]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "make",
    [
        lambda seen: seen.append,
        lambda seen: functools.partial(seen.append),
        lambda seen: lambda value: seen.append(value),
        lambda seen: Appender(seen),
        lambda seen: Appender(seen).method,
        lambda seen: Appender(seen).static,
    ],
    ids=["builtin", "partial", "lambda", "object", "method", "stored"],
)
def test_any_callable(loop, kind, make):
    seen = []
    schedule(loop, kind, make(seen), "value")
    turn(loop)
    assert seen == ["value"]


class Appender:
    def __init__(self, seen):
        self.seen = seen
        self.static = seen.append

    def __call__(self, value):
        self.seen.append(value)

    method = __call__


def test_class_as_callback(loop):
    made = []

    class Made:
        def __init__(self, value):
            made.append(value)

    loop.call_soon(Made, 1)
    turn(loop)
    assert made == [1]


def test_keywords(loop):
    seen = []
    loop.call_soon(callback=functools.partial(seen.append, "soon"))
    loop.call_soon_threadsafe(callback=functools.partial(seen.append, "threadsafe"))
    loop.call_later(delay=0, callback=functools.partial(seen.append, "later"))
    loop.call_at(when=loop.time() - 1, callback=functools.partial(seen.append, "at"))
    loop.call_later(0, callback=functools.partial(seen.append, "mixed"))
    turn(loop)
    assert sorted(seen) == ["at", "later", "mixed", "soon", "threadsafe"]


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_keyword(loop, kind):
    with pytest.raises(TypeError, match="nonsense"):
        schedule(loop, kind, nothing, nonsense=1)
    turn(loop)


def test_missing_arguments(loop):
    for call in (
        lambda: loop.call_soon(),
        lambda: loop.call_soon(context=None),
        lambda: loop.call_soon_threadsafe(),
        lambda: loop.call_later(),
        lambda: loop.call_later(1),
        lambda: loop.call_later(callback=nothing),
        lambda: loop.call_at(),
        lambda: loop.call_at(1),
    ):
        with pytest.raises(TypeError, match=r"missing|argument"):
            call()


def test_argument_given_twice(loop):
    for call in (
        lambda: loop.call_soon(nothing, callback=nothing),
        lambda: loop.call_later(1, nothing, delay=1),
        lambda: loop.call_at(1, nothing, when=1),
    ):
        with pytest.raises(TypeError, match="multiple values"):
            call()


@pytest.mark.parametrize("kind", KINDS)
def test_cancel(loop, kind):
    calls = []
    handle = schedule(loop, kind, calls.append, 1)
    assert handle.cancelled() is False
    assert handle.cancel() is None
    assert handle.cancelled() is True
    assert handle.cancel() is None
    assert handle.cancelled() is True
    turn(loop)
    assert calls == []


@pytest.mark.parametrize("kind", KINDS)
def test_cancel_after_run(loop, kind):
    calls = []
    handle = schedule(loop, kind, calls.append, 1)
    turn(loop)
    assert calls == [1]
    assert handle.cancelled() is False
    handle.cancel()
    handle.cancel()
    assert handle.cancelled() is True
    turn(loop)
    assert calls == [1]


@pytest.mark.parametrize("kind", KINDS)
def test_cancel_within_own_callback(loop, kind):
    states = []

    def callback(first, second):
        states.append(handle.cancelled())
        handle.cancel()
        states.append(handle.cancelled())
        states.append((first, second))

    handle = schedule(loop, kind, callback, "first", "second")
    turn(loop)
    turn(loop)
    assert states == [False, True, ("first", "second")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("debug", [False, True])
def test_cancel_within_a_callback_that_raises(loop, kind, debug):
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))
    loop.set_debug(debug)

    def callback():
        handle.cancel()
        raise ZeroDivisionError

    handle = schedule(loop, kind, callback)
    turn(loop)
    assert [type(context["exception"]) for context in contexts] == [ZeroDivisionError]
    assert contexts[0]["handle"] is handle
    handle = None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("debug", [False, True])
def test_run_by_hand_once_cancelled(loop, kind, debug):
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))
    loop.set_debug(debug)
    handle = schedule(loop, kind, nothing, 1)
    handle.cancel()
    assert handle._run() is None
    if sys.version_info >= (3, 14) and kind == "threadsafe":
        assert contexts == []
        return
    (context,) = contexts
    assert context["message"] == "Exception in callback None()"
    assert context["handle"] is handle
    assert ("source_traceback" in context) is debug
    assert type(context["exception"]) is TypeError
    assert str(context["exception"]) == (
        "Value after * must be an iterable, not NoneType"
    )
    handle = None


@pytest.mark.parametrize("kind", KINDS)
def test_cancel_by_an_earlier_callback_of_the_batch(loop, kind):
    calls = []
    loop.call_soon(lambda: handle.cancel())
    handle = schedule(loop, kind, calls.append, 1)
    turn(loop)
    turn(loop)
    assert calls == []
    assert handle.cancelled()


@pytest.mark.parametrize("kind", KINDS)
def test_cancel_lets_go_of_callback_and_arguments(loop, kind):
    owner, arg = Thing(), Thing()
    refs = [weakref.ref(owner), weakref.ref(arg)]
    handle = schedule(loop, kind, owner.method, arg)
    del owner, arg
    gc.collect()
    assert None not in [ref() for ref in refs]
    handle.cancel()
    assert [ref() for ref in refs] == [None, None]
    assert handle._callback is None
    assert handle._args is None
    turn(loop)


@pytest.mark.parametrize("kind", KINDS)
def test_run_lets_go_of_callback_and_arguments(loop, kind):
    owner, arg = Thing(), Thing()
    refs = [weakref.ref(owner), weakref.ref(arg)]
    ref = weakref.ref(schedule(loop, kind, owner.method, arg))
    del owner, arg
    assert ref() is not None
    turn(loop)
    assert ref() is None
    assert [ref() for ref in refs] == [None, None]


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_are_let_go_of_before_the_next_callback(loop, kind):
    arg = Thing()
    ref = weakref.ref(arg)
    seen = []
    schedule(loop, kind, nothing, arg)
    del arg
    if is_timer(kind):
        # By when, with a later one of a cousin's kind.
        loop.call_at(loop.time(), lambda: seen.append(ref()))
    else:
        schedule(loop, kind, lambda: seen.append(ref()))
    turn(loop)
    assert seen == [None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize("way", ["run", "cancel"])
def test_the_order_in_which_a_call_is_let_go_of(loop, kind, count, way):
    gone = []

    class Named:
        def __init__(self, name):
            self.name = name

        def __call__(self, *args):
            pass

        def __del__(self):
            gone.append(self.name)

    handle = schedule(loop, kind, Named("callback"), *map(Named, range(count)))
    if way == "cancel":
        handle.cancel()
    handle = None
    turn(loop)
    arguments = list(reversed(range(count)))
    if way == "cancel":
        assert gone == ["callback", *arguments]
    else:
        assert gone == [*arguments, "callback"]


@pytest.mark.parametrize("kind", KINDS)
def test_finalizer_of_an_argument_may_use_the_loop(loop, kind):
    calls = []

    class Last:
        def __del__(self):
            calls.append("deleted")
            loop.call_soon(calls.append, "soon")
            loop.call_later(0, calls.append, "later")
            kept.cancel()

    kept = loop.call_later(0.0001, calls.append, "kept")
    schedule(loop, kind, nothing, Last())
    turn(loop)
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert calls == ["deleted", "soon", "later"]


@pytest.mark.parametrize("kind", KINDS)
def test_cancel_whose_finalizer_uses_the_handle(loop, kind):
    states = []

    class Last:
        def __del__(self):
            handle.cancel()
            states.append((handle.cancelled(), repr(handle)))

    handle = schedule(loop, kind, nothing, Last())
    handle.cancel()
    assert len(states) == 1
    assert states[0][0] is True
    turn(loop)


@pytest.mark.parametrize("kind", KINDS)
def test_private_run(loop, kind):
    calls = []
    handle = schedule(loop, kind, calls.append, 1)
    assert handle._run() is None
    assert calls == [1]
    turn(loop)
    assert calls == [1, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_private_run_reports_exceptions(loop, kind):
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))

    def callback():
        raise ZeroDivisionError

    handle = schedule(loop, kind, callback)
    handle._run()
    assert contexts[0]["handle"] is handle
    handle.cancel()
    turn(loop)
    assert len(contexts) == 1


def test_weak_references(loop):
    handles = [schedule(loop, kind, nothing) for kind in KINDS]
    dead = []
    refs = [weakref.ref(handle, dead.append) for handle in handles]
    assert [ref() for ref in refs] == handles
    table = weakref.WeakValueDictionary(enumerate(handles))
    assert len(table) == 4
    turn(loop)
    assert [ref() for ref in refs] == handles
    del handles
    gc.collect()
    assert [ref() for ref in refs] == [None] * 4
    assert len(dead) == 4
    assert len(table) == 0


def test_a_reused_handle_has_no_old_weak_references(loop):
    """Memory of a handle may be used again; its weak references may not."""
    for _ in range(300):
        handle = loop.call_soon(nothing)
        refs = [weakref.ref(handle), weakref.ref(handle, lambda ref: None)]
        assert weakref.getweakrefcount(handle) == 2
        turn(loop)
        del handle
        assert [ref() for ref in refs] == [None, None]
        fresh = loop.call_soon(nothing)
        assert weakref.getweakrefcount(fresh) == 0
        turn(loop)


def test_a_reused_handle_has_no_old_state(loop):
    calls = []
    for number in range(300):
        cancelled = loop.call_soon(calls.append, "never")
        cancelled.cancel()
        del cancelled
        turn(loop)
        handle = loop.call_soon(calls.append, number)
        assert handle.cancelled() is False
        assert handle._args == (number,)
        turn(loop)
    assert calls == list(range(300))


def test_handle_in_a_cycle_is_collected(loop):
    thing = Thing()
    thing.handle = loop.call_later(1000, nothing, thing)
    ref = weakref.ref(thing)
    del thing
    gc.collect()
    assert ref() is not None, "the loop keeps what it has scheduled"
    ref().handle.cancel()
    gc.collect()
    assert ref() is None


# Timers


def test_many_cancelled_timers_are_let_go_of(loop):
    calls = []
    now = loop.time()
    handles = [loop.call_at(now + 1000 + n, nothing) for n in range(2000)]
    due = [loop.call_at(now + n / 1e6, calls.append, n) for n in range(200)]
    refs = [weakref.ref(handle) for handle in handles]
    for handle in handles[:1900]:
        handle.cancel()
    del handles, handle
    turn(loop)
    turn(loop)
    alive = [ref for ref in refs if ref() is not None]
    assert len(alive) < 500, "cancelled timers pile up"
    assert sum(not ref().cancelled() for ref in alive) == 100
    loop.call_at(due[-1].when() + 0.001, loop.stop)
    loop.run_forever()
    assert calls == list(range(200))


@pytest.mark.skipif(
    not hasattr(sys, "gettotalrefcount"), reason="this Python counts no references"
)
def test_the_sum_of_references_is_that_of_before(loop):
    """What many handles leave to their successors is not counted twice."""

    def sums():
        for _ in range(6):
            handles = [loop.call_later(1000, nothing) for _ in range(5000)]
            for handle in handles:
                handle.cancel()
            del handles, handle
            turn(loop)
            yield sys.gettotalrefcount()

    totals = list(sums())
    assert min(b - a for a, b in itertools.pairwise(totals)) < 1000, totals


def test_timers_cancelled_at_random_leave_the_rest_in_order(loop):
    choose = random.Random(7)
    now = loop.time()
    calls = []
    timers = {}
    for _ in range(5000):
        number = choose.randrange(1 << 30)
        timers[number] = loop.call_at(now - 10 + number / 1e9, calls.append, number)
        if choose.random() < 0.7:
            timers.pop(choose.choice(list(timers)[-5:])).cancel()
    turn(loop)
    while len(calls) < len(timers):
        turn(loop)
    assert calls == sorted(timers)


def test_cancel_where_the_repr_raises(loop):
    """In debug mode it is asked for; the handle is cancelled all the same."""
    ran = []

    class Callback:
        def __repr__(self):
            raise ZeroDivisionError

        def __call__(self):
            ran.append(self)

    loop.set_debug(True)
    for handle in (
        loop.call_soon(Callback()),
        loop.call_soon_threadsafe(Callback()),
        loop.call_later(0, Callback()),
    ):
        with pytest.raises(ZeroDivisionError):
            handle.cancel()
        assert handle.cancelled()
    turn(loop)
    turn(loop)
    assert ran == []
