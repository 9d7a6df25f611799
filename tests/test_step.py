"""What futures and tasks schedule: steps, wake-ups and done callbacks, seen from outside."""

import asyncio
import contextvars
import gc
import weakref

import pytest
from conftest import turn

var = contextvars.ContextVar("var", default="default")


async def nothing():
    pass


def reports(loop):
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))
    return contexts


def test_a_step_can_be_cancelled_by_its_handle(loop):
    task = loop.create_task(nothing())
    (handle,) = loop._ready
    handle.cancel()
    turn(loop)
    assert not task.done()
    task.cancel()
    turn(loop)
    turn(loop)
    if not task.done():  # the step that was cancelled was to come first
        task._coro.close()
        task._log_destroy_pending = False


def test_order(loop):
    """Steps, wake-ups and plain callbacks are one queue."""
    order = []

    async def step(name):
        order.append(name)

    def done(future):
        order.append("future")

    future = loop.create_future()
    future.add_done_callback(done)
    loop.call_soon(order.append, "first")
    one = loop.create_task(step("one"))
    future.set_result(None)
    loop.call_soon(order.append, "between")
    two = loop.create_task(step("two"))
    loop.call_soon_threadsafe(order.append, "last")
    loop.run_until_complete(asyncio.gather(one, two))
    assert order == ["first", "one", "future", "between", "two", "last"]


def test_an_exception_of_a_done_callback(loop):
    contexts = reports(loop)

    def fail(future):
        raise ZeroDivisionError("message")

    future = loop.create_future()
    future.add_done_callback(fail)
    future.set_result("result")
    turn(loop)
    (context,) = contexts
    assert context["message"].startswith("Exception in callback ")
    assert "fail(" in context["message"]
    assert isinstance(context["exception"], ZeroDivisionError)
    assert isinstance(context["handle"], asyncio.Handle)
    assert context["handle"]._callback is fail
    assert "source_traceback" not in context


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_task_that_leaves_the_loop(loop, error):
    """What was behind it is kept for the next run."""
    seen = []

    async def leave():
        raise error("message")

    async def follow():
        seen.append("task")

    task = loop.create_task(leave())
    follower = loop.create_task(follow())
    loop.call_soon(seen.append, "callback")
    with pytest.raises(error, match="message"):
        loop.run_forever()
    assert seen == []
    turn(loop)
    assert seen == ["task", "callback"]
    assert follower.done()
    assert isinstance(task.exception(), error)


def test_the_context_of_a_done_callback(loop):
    context = contextvars.copy_context()
    context.run(var.set, "given")
    seen = []

    def look(future):
        seen.append(var.get())
        var.set("set")

    future = loop.create_future()
    future.add_done_callback(look, context=context)
    future.add_done_callback(look)
    future.set_result(None)
    turn(loop)
    assert seen == ["given", "default"]
    assert context[var] == "set"
    assert var.get() == "default"


def test_a_context_that_is_entered_already(loop, caplog):
    context = contextvars.copy_context()
    future = loop.create_future()
    future.add_done_callback(print, context=context)
    future.set_result(None)
    context.run(turn, loop)
    (record,) = caplog.records
    assert record.getMessage().startswith("Exception in callback print(")
    assert record.exc_info[0] is RuntimeError
    assert "is already entered" in str(record.exc_info[1])


def test_debug_mode_in_between(loop, caplog):
    """What was scheduled without it is reported with it."""
    loop.slow_callback_duration = 0
    task = loop.create_task(nothing())
    loop.set_debug(True)
    with caplog.at_level("WARNING", "asyncio"):
        loop.run_until_complete(task)
    assert any("nothing" in record.getMessage() for record in caplog.records)
    loop.set_debug(False)


def test_a_call_soon_of_ones_own(loop):
    """Replaced on the loop, it sees every step and may keep the handle."""
    original = loop.call_soon
    calls = []

    def call_soon(callback, *args, context=None):
        handle = original(callback, *args, context=context)
        calls.append((callback, handle))
        return handle

    async def main():
        await asyncio.sleep(0)

    loop.call_soon = call_soon
    task = loop.create_task(main())
    for _ in range(3):
        turn(loop)
    del loop.call_soon
    assert task.done()
    assert len(calls) >= 2
    assert all(isinstance(handle, asyncio.Handle) for _, handle in calls)


def test_a_call_soon_of_a_subclass(loop_factory):
    model = loop_factory()
    model.close()
    handles = []

    class Own(type(model)):
        def call_soon(self, callback, *args, context=None):
            handles.append(super().call_soon(callback, *args, context=context))
            return handles[-1]

    loop = Own()
    try:
        loop.run_until_complete(nothing())
    finally:
        loop.close()
    assert handles
    assert all(isinstance(handle, asyncio.Handle) for handle in handles)


def test_names_of_arguments_are_no_secret_sign(loop):
    """call_soon(callback, context=...) returns a handle to everybody else."""
    context = contextvars.copy_context()
    seen = []
    names = {"con" + "text": context}
    handles = [
        loop.call_soon(seen.append, 1, context=context),
        loop.call_soon(seen.append, 2, **names),
        loop.call_soon(lambda: seen.append(3), **names),
    ]
    assert all(isinstance(handle, asyncio.Handle) for handle in handles)
    handles[1].cancel()
    turn(loop)
    assert seen == [1, 3]


def test_close_lets_go_of_what_is_scheduled(loop_factory):
    class Thing:
        pass

    thing = Thing()
    reference = weakref.ref(thing)
    loop = loop_factory()
    future = loop.create_future()
    future.add_done_callback(lambda future, thing=thing: None)
    future.set_result(None)
    del future, thing
    assert reference() is not None
    loop.close()
    gc.collect()
    assert reference() is None


def test_a_loop_with_steps_is_collected(loop_factory):
    loop = loop_factory()
    future = loop.create_future()
    future.add_done_callback(lambda future, loop=loop: None)
    future.set_result(None)
    reference = weakref.ref(loop)
    loop.close()
    del loop, future
    gc.collect()
    assert reference() is None


def test_many_steps(loop):
    """More than there are spare records, again and again."""
    count = 0

    def done(future):
        nonlocal count
        count += 1

    for _ in range(2):
        futures = [loop.create_future() for _ in range(10_000)]
        for future in futures:
            future.add_done_callback(done)
            future.set_result(None)
        turn(loop)
    assert count == 20_000


# create_task and create_future


def test_keywords_that_say_nothing(loop):
    tasks = [
        loop.create_task(nothing(), name=None),
        loop.create_task(nothing(), context=None),
        loop.create_task(nothing(), name=None, context=None),
    ]
    assert all(task.get_name().startswith("Task-") for task in tasks)
    loop.run_until_complete(asyncio.gather(*tasks))


def test_unknown_keywords_that_say_nothing(loop):
    coro = nothing()
    with pytest.raises(TypeError):
        loop.create_task(coro, colour=None)
    with pytest.raises(TypeError):
        loop.create_task(coro, loop=None)
    coro.close()


@pytest.mark.parametrize("name", ["Task", "Future"])
def test_replaced_classes(loop, monkeypatch, name):
    class Own(getattr(asyncio, name)):
        def __init__(self, *args, loop, **kwargs):
            super().__init__(*args, loop=loop, **kwargs)
            self.kwargs = kwargs

    module = asyncio.tasks if name == "Task" else asyncio.futures
    monkeypatch.setattr(module, name, Own)
    if name == "Task":
        task = loop.create_task(nothing(), name="name")
        assert type(task) is Own
        assert task.kwargs["name"] == "name"
        loop.run_until_complete(task)
    else:
        assert type(loop.create_future()) is Own


def test_a_future_belongs_to_its_loop(loop, loop_factory):
    other = loop_factory()
    for each in (loop, other, loop):
        assert each.create_future().get_loop() is each
        coro = nothing()
        assert each.create_task(coro).get_loop() is each
        each.run_until_complete(nothing())
    other.close()
