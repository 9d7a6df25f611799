"""Context variables: what one callback sees of another, of tasks and of threads."""

import asyncio
import contextvars
import gc
import os
import signal
import socket
import sys
import threading
import weakref

import pytest
from conftest import KINDS, in_context, schedule, turn

var = contextvars.ContextVar("var", default="default")
other = contextvars.ContextVar("other")

pytestmark = pytest.mark.usefixtures("context_untouched")


def look(seen):
    seen.append(var.get())


def nothing():
    pass


# What a callback sees


@pytest.mark.parametrize("kind", KINDS)
@in_context
def test_the_context_of_scheduling(loop, kind):
    seen = []
    for value in ("a", "b", "c"):
        var.set(value)
        schedule(loop, kind, look, seen)
    var.set("later")
    turn(loop)
    assert seen == ["a", "b", "c"]
    assert var.get() == "later"


@pytest.mark.parametrize("kind", KINDS)
@in_context
def test_an_empty_context(loop, kind):
    seen = []

    def callback():
        seen.append(dict(contextvars.copy_context()))

    contextvars.Context().run(schedule, loop, kind, callback)
    turn(loop)
    assert seen == [{}]


@pytest.mark.parametrize("kind", KINDS)
@in_context
def test_what_a_callback_sets_stays_its_own(loop, kind):
    seen = []

    def callback(number):
        seen.append(var.get())
        var.set(number)
        other.set(number)
        seen.append(var.get())

    var.set("outside")
    for number in range(4):
        schedule(loop, kind, callback, number)
    schedule(loop, kind, lambda: seen.append(other.get("unset")))
    turn(loop)
    expected = []
    for number in range(4):
        expected += ["outside", number]
    assert seen == [*expected, "unset"]
    assert var.get() == "outside"


@in_context
def test_callbacks_that_set_between_callbacks_that_do_not(loop):
    seen = []

    def look_or_set(number):
        seen.append(var.get())
        if number % 3 == 0:
            var.set(number)

    for number in range(30):
        loop.call_soon(look_or_set, number)
    turn(loop)
    assert seen == ["default"] * 30


@in_context
def test_a_nested_callback_sees_what_its_parent_set(loop):
    seen = []

    def parent():
        loop.call_soon(look, seen)
        var.set("child")
        loop.call_soon(look, seen)
        loop.call_later(-1, look, seen)
        loop.call_soon_threadsafe(look, seen)
        var.set("afterwards")

    loop.call_soon(parent)
    loop.call_soon(look, seen)
    turn(loop)
    turn(loop)
    assert sorted(seen) == ["child"] * 3 + ["default"] * 2


@in_context
def test_a_value_set_to_what_it_was(loop):
    """The same value set again is a change that must stay inside as well."""
    value = object()
    var.set(value)
    seen = []

    def callback():
        token = var.set(value)
        seen.append(token.old_value is value)
        seen.append(var.get() is value)

    for _ in range(3):
        loop.call_soon(callback)
    turn(loop)
    assert seen == [True] * 6


@in_context
def test_tokens_reset_within_the_callback(loop):
    seen = []

    def callback():
        token = var.set("inner")
        seen.append(var.get())
        var.reset(token)
        seen.append(var.get())

    loop.call_soon(callback)
    loop.call_soon(callback)
    loop.call_soon(look, seen)
    turn(loop)
    assert seen == ["inner", "default"] * 2 + ["default"]


@in_context
def test_a_token_belongs_to_the_context_of_its_callback(loop):
    tokens = []
    errors = []

    def make():
        tokens.append(var.set("inner"))

    def use():
        try:
            var.reset(tokens[0])
        except ValueError as exc:
            errors.append(str(exc))

    loop.call_soon(make)
    loop.call_soon(use)
    turn(loop)
    assert len(errors) == 1
    assert "was created in a different Context" in errors[0]
    with pytest.raises(ValueError, match="different Context"):
        var.reset(tokens[0])


@in_context
def test_a_token_belongs_to_one_of_many_callbacks(loop):
    """Whichever callbacks share a context inside, no token may tell them apart."""
    tokens = []
    failed = []

    def callback(number):
        for token in tokens:
            try:
                var.reset(token)
            except ValueError:
                failed.append(number)
        tokens.append(var.set(number))
        var.reset(tokens[-1])
        tokens[-1] = var.set(number)

    for number in range(5):
        loop.call_soon(callback, number)
    turn(loop)
    assert failed == [1, 2, 2, 3, 3, 3, 4, 4, 4, 4]


@in_context
def test_a_token_of_the_scheduling_context(loop):
    token = var.set("outside")
    errors = []

    def callback():
        with pytest.raises(ValueError, match="different Context") as info:
            var.reset(token)
        errors.append(info)

    loop.call_soon(callback)
    turn(loop)
    assert len(errors) == 1
    var.reset(token)
    assert var.get() == "default"


# copy_context in callbacks


@in_context
def test_a_stored_copy_keeps_its_values(loop):
    copies = []

    def first():
        copies.append(contextvars.copy_context())
        var.set("first")
        copies.append(contextvars.copy_context())

    def second():
        copies.append(contextvars.copy_context())
        var.set("second")

    loop.call_soon(first)
    loop.call_soon(second)
    loop.call_soon(look, [])
    turn(loop)
    assert [copy.get(var, "unset") for copy in copies] == ["unset", "first", "unset"]
    assert [copy.run(var.get) for copy in copies] == ["default", "first", "default"]


@in_context
def test_a_stored_copy_can_be_changed(loop):
    copies = []
    seen = []
    loop.call_soon(lambda: copies.append(contextvars.copy_context()))
    loop.call_soon(lambda: copies[0].run(var.set, "changed"))
    loop.call_soon(look, seen)
    loop.call_soon(lambda: seen.append(copies[0].run(var.get)))
    turn(loop)
    assert seen == ["default", "changed"]


@in_context
def test_a_nested_run_within_a_callback(loop):
    seen = []

    def callback():
        inner = contextvars.copy_context()
        inner.run(var.set, "inner")
        seen.append(inner.run(var.get))
        seen.append(var.get())
        inner.run(loop.call_soon, look, seen)
        loop.call_soon(look, seen)

    loop.call_soon(callback)
    turn(loop)
    turn(loop)
    assert seen == ["inner", "default", "inner", "default"]


@in_context
def test_another_loop_within_a_callback(loop, loop_factory):
    """Its callbacks run in contexts of theirs, in another thread or between runs."""
    seen = []

    def work():
        inner = loop_factory()
        var.set("thread")
        inner.call_soon(look, seen)
        inner.call_soon(var.set, "lost")
        inner.call_soon(look, seen)
        turn(inner)
        inner.close()

    def callback():
        var.set("callback")
        thread = threading.Thread(target=contextvars.copy_context().run, args=(work,))
        thread.start()
        thread.join()
        seen.append(var.get())

    loop.call_soon(callback)
    loop.call_soon(look, seen)
    turn(loop)
    assert seen == ["thread", "thread", "callback", "default"]


# context=


@pytest.mark.parametrize("kind", KINDS)
@in_context
def test_an_explicit_context(loop, kind):
    context = contextvars.Context()
    context.run(var.set, "given")
    var.set("current")
    seen = []

    def callback():
        seen.append(var.get())
        var.set("set by the callback")

    schedule(loop, kind, callback, context=context)
    schedule(loop, kind, callback, context=context)
    schedule(loop, kind, look, seen)
    turn(loop)
    assert seen == ["given", "set by the callback", "current"]
    assert context[var] == "set by the callback"


@pytest.mark.parametrize("kind", KINDS)
@in_context
def test_context_none_is_the_current_one(loop, kind):
    var.set("current")
    seen = []
    schedule(loop, kind, look, seen, context=None)
    turn(loop)
    assert seen == ["current"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_explicit_context_sees_changes_made_after_scheduling(loop, kind):
    context = contextvars.copy_context()
    seen = []
    schedule(loop, kind, look, seen, context=context)
    context.run(var.set, "changed")
    turn(loop)
    assert seen == ["changed"]


@in_context
def test_a_token_may_cross_callbacks_of_one_explicit_context(loop):
    context = contextvars.copy_context()
    tokens = []
    seen = []
    loop.call_soon(lambda: tokens.append(var.set("inner")), context=context)
    loop.call_soon(look, seen, context=context)
    loop.call_soon(lambda: var.reset(tokens.pop()), context=context)
    loop.call_soon(look, seen, context=context)
    turn(loop)
    assert seen == ["inner", "default"]


def test_a_context_that_is_entered_elsewhere(loop, caplog):
    context = contextvars.copy_context()
    calls = []
    loop.call_soon(calls.append, 1, context=context)
    context.run(turn, loop)
    assert calls == []
    [record] = caplog.records
    assert record.getMessage().startswith("Exception in callback list.append(")
    assert record.exc_info[0] is RuntimeError
    assert "cannot enter context" in str(record.exc_info[1])
    loop.call_soon(calls.append, 2, context=context)
    turn(loop)
    assert calls == [2]


def test_a_context_that_is_entered_by_the_callback_itself(loop):
    context = contextvars.copy_context()
    errors = []

    def callback():
        try:
            context.run(print)
        except RuntimeError as exc:
            errors.append(str(exc))

    loop.call_soon(callback, context=context)
    turn(loop)
    assert len(errors) == 1
    assert "is already entered" in errors[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [42, "text", object()])
def test_what_is_no_context(loop, kind, value):
    """asyncio finds out when it runs the callback; the loop lives on either way."""
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context))
    calls = []
    try:
        schedule(loop, kind, calls.append, 1, context=value)
    except TypeError:
        reports.append({"exception": AttributeError()})
    turn(loop)
    assert calls == []
    assert isinstance(reports[0]["exception"], (AttributeError, TypeError))
    loop.call_soon(calls.append, 2)
    turn(loop)
    assert calls == [2]


@in_context
def test_a_context_in_place_of_a_context(loop):
    """asyncio calls context.run(), and that is all it asks for."""
    calls = []

    class Recording:
        def run(self, callback, *args):
            calls.append((callback, args))
            return callback(*args)

    seen = []
    loop.call_soon(look, seen, context=Recording())
    turn(loop)
    assert seen == ["default"]
    assert calls == [(look, (seen,))]


# get_context

needs_get_context = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="Handle.get_context() is new in Python 3.12"
)


@needs_get_context
@pytest.mark.parametrize("kind", KINDS)
def test_get_context_of_an_explicit_one(loop, kind):
    context = contextvars.copy_context()
    handle = schedule(loop, kind, print, context=context)
    assert handle.get_context() is context
    handle.cancel()
    assert handle.get_context() is context
    turn(loop)


@needs_get_context
@pytest.mark.parametrize("kind", KINDS)
@in_context
def test_get_context_sees_what_the_callback_set(loop, kind):
    var.set("outside")
    before = schedule(loop, kind, var.set, "inside")
    asked = before.get_context()
    untouched = schedule(loop, kind, look, [])
    after = schedule(loop, kind, var.set, "inside")
    assert isinstance(asked, contextvars.Context)
    assert asked[var] == "outside"
    turn(loop)
    assert before.get_context() is asked
    assert asked[var] == "inside"
    assert after.get_context()[var] == "inside"
    assert untouched.get_context()[var] == "outside"
    assert after.get_context() is not asked
    assert after.get_context() is after.get_context()


@needs_get_context
@in_context
def test_get_context_asked_before_is_changed_apart(loop):
    first = loop.call_soon(look, seen := [])
    second = loop.call_soon(look, seen)
    first.get_context().run(var.set, "mine")
    turn(loop)
    assert seen == ["mine", "default"]
    assert var.get() == "default"
    assert second.get_context() is not first.get_context()


@needs_get_context
@in_context
def test_get_context_within_the_callback(loop):
    seen = []

    def callback():
        context = handle.get_context()
        var.set("inside")
        seen.append(context[var])
        with pytest.raises(RuntimeError, match="already entered"):
            context.run(print)

    handle = loop.call_soon(callback)
    turn(loop)
    assert seen == ["inside"]
    assert handle.get_context()[var] == "inside"


def test_private_context(loop):
    """Debuggers read handle._context on every version."""
    context = contextvars.copy_context()
    assert loop.call_soon(repr, 1, context=context)._context is context
    handle = loop.call_soon(var.set, "inside")
    assert isinstance(handle._context, contextvars.Context)
    loop.call_soon(look, seen := [])
    turn(loop)
    assert handle._context[var] == "inside"
    assert seen == ["default"]


# Threads


@in_context
def test_call_soon_threadsafe_takes_the_context_of_its_thread(loop):
    seen = []

    def work(name):
        var.set(name)
        loop.call_soon_threadsafe(look, seen)
        loop.call_soon_threadsafe(var.set, "lost")
        loop.call_soon_threadsafe(look, seen)
        var.set("afterwards")

    var.set("loop")
    for name in ("a", "b"):
        thread = threading.Thread(target=work, args=(name,))
        thread.start()
        thread.join()
    loop.call_soon_threadsafe(look, seen)
    turn(loop)
    turn(loop)
    assert seen == ["a", "a", "b", "b", "loop"]


@in_context
def test_an_explicit_context_from_a_thread(loop):
    context = contextvars.copy_context()
    context.run(var.set, "given")
    seen = []
    thread = threading.Thread(
        target=lambda: loop.call_soon_threadsafe(look, seen, context=context)
    )
    thread.start()
    thread.join()
    turn(loop)
    turn(loop)
    assert seen == ["given"]


# Descriptors and signals


@in_context
def test_a_reader_runs_in_the_context_of_add_reader(loop):
    a, b = socket.socketpair()
    with a, b:
        seen = []

        def on_readable():
            a.recv(1)
            seen.append(var.get())
            var.set("changed")
            if len(seen) == 2:
                loop.stop()
            else:
                b.send(b"x")

        var.set("added")
        loop.add_reader(a, on_readable)
        var.set("running")
        b.send(b"x")
        loop.run_forever()
        loop.remove_reader(a)
        # One handle, one context: what the first call set, the second finds.
        assert seen == ["added", "changed"]


@in_context
def test_a_signal_handler_runs_in_the_context_of_add_signal_handler(loop):
    seen = []

    def on_signal():
        seen.append(var.get())
        var.set("changed")
        if len(seen) == 2:
            loop.stop()
        else:
            os.kill(os.getpid(), signal.SIGUSR1)

    var.set("added")
    loop.add_signal_handler(signal.SIGUSR1, on_signal)
    var.set("running")
    os.kill(os.getpid(), signal.SIGUSR1)
    loop.run_forever()
    loop.remove_signal_handler(signal.SIGUSR1)
    assert seen == ["added", "changed"]


@in_context
def test_many_variables(loop):
    """A mapping of more than one level, changed by some callbacks and not by others."""
    variables = [contextvars.ContextVar(f"v{n}", default=None) for n in range(200)]
    for n, variable in enumerate(variables):
        variable.set(n)
    seen = []

    def callback(k):
        if k % 2:
            for variable in variables[::7]:
                variable.set("changed")
        seen.append([variable.get() for variable in variables])

    for k in range(10):
        loop.call_soon(callback, k)
    turn(loop)
    plain = list(range(200))
    changed = ["changed" if n % 7 == 0 else n for n in range(200)]
    assert seen == [plain, changed] * 5
    assert [variable.get() for variable in variables] == plain


@in_context
def test_values_are_let_go_of_with_the_callback(loop):
    class Thing:
        pass

    refs = []

    def callback():
        thing = Thing()
        refs.append(weakref.ref(thing))
        var.set(thing)

    for _ in range(5):
        loop.call_soon(callback)
    turn(loop)
    turn(loop)
    gc.collect()
    assert [ref() for ref in refs] == [None] * 5


def schedule_with_a_value(loop, *on_end):
    """Have a callback that does nothing wait, and alone lead to the variable's value."""

    def within():
        value = Value()
        var.set(value)
        loop.call_soon(nothing)
        return weakref.ref(value, *on_end)

    class Value:
        pass

    return contextvars.copy_context().run(within)


def test_the_last_callback_s_values_are_let_go_of_when_the_run_ends(loop):
    async def within():
        return schedule_with_a_value(loop)

    ref = schedule_with_a_value(loop)
    assert ref() is not None
    turn(loop)
    assert ref() is None
    ref = loop.run_until_complete(within())
    loop.run_until_complete(asyncio.sleep(0))
    assert ref() is None


def test_the_last_callback_s_values_are_let_go_of_when_the_loop_rests(loop):
    late = []
    own = contextvars.Context()
    timer = loop.call_later(30, lambda: (late.append(1), loop.stop()), context=own)
    ref = schedule_with_a_value(loop, lambda _: loop.stop())
    loop.run_forever()
    assert ref() is None
    assert late == []
    timer.cancel()


@in_context
def test_a_cancelled_callback_lets_go_of_nothing_it_shares(loop):
    var.set("shared")
    seen = []
    handles = [loop.call_soon(look, seen) for _ in range(6)]
    for handle in handles[::2]:
        handle.cancel()
    del handle, handles
    turn(loop)
    assert seen == ["shared"] * 3


def test_a_value_that_goes_cancels_the_callback_whose_turn_it_is(run_script):
    """fastloop lets go of the context of the callback before when the next begins."""
    result = run_script(
        """
        import contextvars
        var = contextvars.ContextVar("var")
        handles = []
        ran = []

        class Last:
            def __del__(self):
                for handle in handles:
                    handle.cancel()

        def turn():
            loop.call_soon(loop.stop, context=contextvars.Context())
            loop.run_forever()

        loop = new_event_loop()
        var.set(Last())
        loop.call_soon(ran.append, 1)
        turn()
        var.set(None)
        handles.append(loop.call_soon(ran.append, 2))
        turn()
        print(ran, handles[0].cancelled())
        loop.close()
        """
    )
    assert result.stdout in ("[1] True\n", "[1, 2] False\n")
