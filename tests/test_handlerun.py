"""Callbacks of one batch, which a loop may run in one context: nobody can tell."""

import contextvars
import functools
import gc
import sys
import weakref

import pytest
from conftest import turn

var = contextvars.ContextVar("var", default="outside")


def inside(value="inside"):
    """Return a context in which the variable has a value."""
    context = contextvars.copy_context()
    context.run(var.set, value)
    return context


def nothing(*args):
    pass


def look(seen, *args):
    seen.append(var.get())


class Tells:
    """Notes what the variable is as the object goes."""

    def __init__(self, seen):
        self.seen = seen

    def __del__(self):
        self.seen.append(var.get())

    def method(self, *args):
        pass


def give_object(seen):
    return Tells(seen)


@pytest.fixture
def schedule(loop):
    """Schedule callbacks in a context in which the variable is set, and run them."""

    def schedule(*calls, context=None):
        context = inside() if context is None else context
        for callback, *args in calls:
            context.run(loop.call_soon, callback, *args)
        del callback, args, calls
        turn(loop)

    return schedule


def test_a_callback_goes_outside_of_its_context(schedule):
    seen = []
    schedule((nothing,), (Tells(seen).method,), (nothing,), (nothing,))
    assert seen == ["outside"]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_arguments_go_outside_of_their_context(schedule, count):
    seen = []
    schedule((nothing,), (nothing, *(Tells(seen) for _ in range(count))), (nothing,))
    assert seen == ["outside"] * count


@pytest.mark.parametrize("count", [2, 3, 4])
def test_an_argument_that_is_there_more_than_once(schedule, count):
    seen = []
    schedule((nothing,), [nothing, *[Tells(seen)] * count], (nothing,))
    assert seen == ["outside"]


def test_a_callback_that_is_its_own_argument(schedule):
    seen = []

    class Callable(Tells):
        __call__ = Tells.method

    schedule((nothing,), (lambda callback: [callback] * 3)(Callable(seen)), (nothing,))
    assert seen == ["outside"]


def test_what_a_callback_returns_goes_outside_of_its_context(schedule):
    seen = []
    schedule((nothing,), (give_object, seen), (nothing,), (give_object, seen))
    assert seen == ["outside"] * 2


def test_a_handle_goes_outside_of_its_context(loop):
    seen = []

    def schedule():
        handle = loop.call_soon(nothing)
        return weakref.ref(handle, lambda _: seen.append(var.get()))

    context = inside()
    loop.call_soon(nothing)
    references = [context.run(schedule) for _ in range(3)]
    turn(loop)
    assert seen == ["outside"] * 3
    assert [reference() for reference in references] == [None] * 3


def test_a_cancelled_handle_in_between_goes_outside(loop):
    seen = []
    context = inside()
    context.run(loop.call_soon, nothing)
    handle = context.run(loop.call_soon, nothing)
    reference = weakref.ref(handle, lambda _: seen.append(var.get()))
    handle.cancel()
    del handle
    context.run(loop.call_soon, nothing)
    turn(loop)
    assert seen == ["outside"]
    assert reference() is None


def test_an_argument_that_schedules_as_it_goes(loop, schedule):
    """What is scheduled then is not in the memory of what goes."""
    seen = []

    class Schedules:
        def __del__(self):
            handles.append(loop.call_soon(seen.append, (var.get(), Later())))

    class Later:
        pass

    handles = []
    schedule(*[(nothing, Schedules(), Schedules()) for _ in range(5)])
    turn(loop)
    assert [value for value, _ in seen] == ["outside"] * 10
    assert len({id(thing) for _, thing in seen}) == 10
    assert not any(handle.cancelled() for handle in handles)


def test_the_loop_is_outside_between_batches(loop):
    seen = []
    context = inside()
    for _ in range(3):
        context.run(loop.call_soon, lambda: seen.append(var.get()))
    context.run(loop.call_soon, loop.stop)
    loop.run_forever()
    assert seen == ["inside"] * 3
    assert var.get() == "outside"
    assert var not in contextvars.copy_context()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_exception_that_leaves_the_loop_leaves_the_context(loop, error):
    def leave():
        raise error

    context = inside()
    context.run(loop.call_soon, nothing)
    context.run(loop.call_soon, leave)
    context.run(loop.call_soon, nothing)
    with pytest.raises(error):
        loop.run_forever()
    assert var not in contextvars.copy_context()
    turn(loop)
    assert var not in contextvars.copy_context()


def test_an_exception_is_handled_where_asyncio_handles_it(loop, schedule):
    where = "outside" if sys.version_info < (3, 12) else "inside"
    seen = []
    loop.set_exception_handler(
        lambda _, details: seen.append((var.get(), type(details["exception"])))
    )

    def fail():
        raise ValueError

    schedule((nothing,), (fail,), (nothing,), (fail,))
    assert seen == [(where, ValueError)] * 2


def test_contexts_that_take_turns(loop):
    """The values are those of each callback's scheduling, whoever came before."""
    seen = []
    explicit = inside("explicit")
    contexts = [inside(number) for number in range(3)]

    def look():
        seen.append(var.get())

    for _ in range(3):
        for context in contexts:
            context.run(loop.call_soon, look)
            context.run(loop.call_soon, look)
        loop.call_soon(look)
        loop.call_soon(look, context=explicit)
        explicit.run(loop.call_soon, look)
    turn(loop)
    assert seen == [0, 0, 1, 1, 2, 2, "outside", "explicit", "explicit"] * 3


def test_a_task_between_callbacks(loop):
    seen = []

    async def look():
        seen.append(var.get())
        var.set("task's")

    async def main():
        var.set("main's")
        loop.call_soon(lambda: seen.append(var.get()))
        task = loop.create_task(look())
        loop.call_soon(lambda: seen.append(var.get()))
        await task
        return var.get()

    assert loop.run_until_complete(main()) == "main's"
    assert seen == ["main's"] * 3


@pytest.mark.parametrize("keep", ["copy", "token", "nothing"])
def test_a_trace_that_a_callback_leaves(loop, keep):
    """A value, a token or a context that it keeps is not the next one's."""
    kept = []
    seen = []

    def leave_trace(number):
        seen.append(var.get())
        if keep == "copy":
            kept.append(contextvars.copy_context())
        token = var.set(number)
        if keep == "token":
            kept.append(token)

    context = inside()
    for number in range(4):
        context.run(loop.call_soon, leave_trace, number)
        context.run(loop.call_soon, nothing)
    turn(loop)
    assert seen == ["inside"] * 4
    for number, thing in enumerate(kept):
        if keep == "copy":
            assert thing[var] == "inside"
        else:
            assert thing.old_value == "inside"
            with pytest.raises(ValueError, match="different Context"):
                inside(number).run(var.reset, thing)


def test_a_value_that_is_set_and_reset(loop):
    seen = []

    def change():
        token = var.set("changed")
        var.reset(token)
        seen.append(var.get())

    context = inside()
    for _ in range(4):
        context.run(loop.call_soon, change)
    turn(loop)
    assert seen == ["inside"] * 4


def test_a_batch_within_a_callback_of_a_batch(loop, loop_factory):
    """Another loop's turn is in its own callbacks' contexts, and then in ours again."""
    seen = []

    def within():
        asyncio_running = sys.modules["asyncio"]._get_running_loop()
        sys.modules["asyncio"]._set_running_loop(None)
        try:
            inner = loop_factory()
            for number in range(2):
                inside(number).run(inner.call_soon, lambda: seen.append(var.get()))
            inner.call_soon(lambda: seen.append(var.get()))
            turn(inner)
            inner.close()
        finally:
            sys.modules["asyncio"]._set_running_loop(asyncio_running)
        seen.append(var.get())

    context = inside()
    for callback in (nothing, within, nothing, lambda: seen.append(var.get())):
        context.run(loop.call_soon, callback)
    turn(loop)
    assert seen == [0, 1, "inside", "inside", "inside"]


def test_a_kept_handle_tells_of_its_context(loop):
    handles = []
    context = inside()
    for _ in range(3):
        handles.append(context.run(loop.call_soon, nothing))
    turn(loop)
    for handle in handles:
        assert handle._context[var] == "inside"
        handle._context.run(var.set, "changed")
        assert handle._context[var] == "changed"
    seen = []
    context.run(loop.call_soon, lambda: seen.append(var.get()))
    turn(loop)
    assert seen == ["inside"]


def test_a_callback_that_cancels_its_handle(loop):
    seen = []
    context = inside()
    handles = []

    def cancel(thing):
        handles.pop(0).cancel()
        seen.append(var.get())

    for _ in range(3):
        handles.append(context.run(loop.call_soon, cancel, object()))
        context.run(loop.call_soon, nothing)
    turn(loop)
    assert seen == ["inside"] * 3
    assert handles == []


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["shared", "own"])
@pytest.mark.parametrize("how", ["returns", "raises"])
def test_arguments_of_a_handle_that_its_callback_cancels(loop, count, kind, how):
    """They go when the call is over, outside of the callback's context."""
    seen = []
    loop.set_exception_handler(lambda loop, details: details.clear())

    class Numbered:
        def __init__(self, number):
            self.number = number

        def __del__(self):
            seen.append((self.number, var.get()))

    def cancel(*args):
        handle.cancel()
        seen.append("cancelled")
        del args
        if how == "raises":
            raise ValueError

    arguments = [Numbered(number) for number in range(count)]
    keywords = {} if kind == "shared" else {"context": inside()}
    handle = inside().run(loop.call_soon, cancel, *arguments, **keywords)
    loop.call_soon(nothing)
    del arguments
    turn(loop)
    assert handle.cancelled()
    gone = [(number, "outside") for number in reversed(range(count))]
    assert seen == ["cancelled", *gone]


def test_a_callback_that_cancels_those_behind_it(loop):
    seen = []
    context = inside()
    handles = []

    def cancel():
        for handle in handles[1::2]:
            handle.cancel()

    context.run(loop.call_soon, cancel)
    for number in range(6):
        argument = Tells(seen) if number % 2 else None
        handles.append(context.run(loop.call_soon, look, seen, argument))
    argument = None
    turn(loop)
    assert seen == ["inside"] * 6
    assert [handle.cancelled() for handle in handles] == [False, True] * 3


def test_stop_in_the_middle_of_a_batch(loop):
    """The rest of the batch runs, and what it schedules waits for the next run."""
    seen = []
    context = inside()

    def again():
        seen.append(var.get())
        loop.call_soon(look, seen)

    for callback in (again, loop.stop, again):
        context.run(loop.call_soon, callback)
    loop.run_forever()
    assert seen == ["inside"] * 2
    assert var not in contextvars.copy_context()
    turn(loop)
    assert seen == ["inside"] * 4


def test_an_exception_handler_that_raises_in_a_batch(loop, caplog):
    seen = []
    context = inside()

    def handler(loop, details):
        raise RuntimeError

    def fail():
        seen.append(var.get())
        raise ValueError

    loop.set_exception_handler(handler)
    for callback in (fail, nothing, fail):
        context.run(loop.call_soon, callback)
    context.run(loop.call_soon, look, seen)
    turn(loop)
    assert seen == ["inside"] * 3
    assert len(caplog.records) == 2
    assert var not in contextvars.copy_context()


def test_timers_and_readers_in_a_batch(loop):
    seen = []
    context = inside()
    for delay in (-3, -2, -1):
        context.run(loop.call_later, delay, lambda: seen.append(var.get()))
    context.run(loop.call_soon, lambda: seen.append(var.get()))
    loop.call_soon(lambda: seen.append(var.get()))
    turn(loop)
    turn(loop)
    assert sorted(seen) == ["inside"] * 4 + ["outside"]


@pytest.mark.parametrize(
    "callback",
    [
        nothing,
        Tells([]).method,
        functools.partial(nothing, 1),
        [].append,
        type("Callable", (), {"__call__": nothing})(),
    ],
    ids=["function", "method", "partial", "builtin", "instance"],
)
def test_nothing_is_left_of_a_batch(loop, callback):
    """Neither references nor handles: whatever the callback is, and is given."""
    argument = object()
    before = sys.getrefcount(callback), sys.getrefcount(argument)
    for _ in range(3):
        for _ in range(2000):
            loop.call_soon(callback, argument)
        turn(loop)
    if isinstance(getattr(callback, "__self__", None), list):
        callback.__self__.clear()
    gc.collect()
    assert (sys.getrefcount(callback), sys.getrefcount(argument)) == before
