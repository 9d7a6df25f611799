"""Tasks, futures and runners on the loop."""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import functools
import gc
import sys
import threading
import weakref

import pytest
from conftest import turn

var = contextvars.ContextVar("var", default="default")


def nothing(*args):
    pass


async def answer(value=42):
    return value


async def yielding(value=42):
    await asyncio.sleep(0)
    return value


# create_task


def test_create_task(loop):
    task = loop.create_task(answer())
    assert type(task) is asyncio.Task
    assert task.get_loop() is loop
    assert not task.done()
    assert loop.run_until_complete(task) == 42


def test_name(loop):
    task = loop.create_task(answer(), name="name")
    assert task.get_name() == "name"
    unnamed = loop.create_task(answer(), name=None)
    assert unnamed.get_name().startswith("Task-")
    numbered = loop.create_task(answer(), name=17)
    assert numbered.get_name() == "17"
    loop.run_until_complete(asyncio.gather(task, unnamed, numbered))


def test_context(loop):
    context = contextvars.copy_context()
    context.run(var.set, "given")

    async def look():
        return var.get()

    task = loop.create_task(look(), context=context)
    assert loop.run_until_complete(task) == "given"
    if sys.version_info >= (3, 12):
        assert task.get_context() is context


@pytest.mark.parametrize("value", [None, 42, answer, nothing])
def test_what_is_no_coroutine(loop, value):
    with pytest.raises(TypeError, match=r"a coroutine was expected, got"):
        loop.create_task(value)


def test_unknown_keyword(loop):
    coroutine = answer()
    with pytest.raises(TypeError, match="nonsense"):
        loop.create_task(coroutine, nonsense=1)
    coroutine.close()


@pytest.mark.parametrize("keyword", ["eager_start", "loop", "nonsense"])
def test_keywords_are_those_of_this_python(loop, keyword):
    def outcome(loop):
        coroutine = answer()
        try:
            return loop.run_until_complete(
                loop.create_task(coroutine, **{keyword: True})
            )
        except TypeError as exc:
            coroutine.close()
            return str(exc)

    reference = asyncio.SelectorEventLoop()
    try:
        assert outcome(loop) == outcome(reference)
    finally:
        reference.close()


def test_coro_as_keyword(loop):
    assert loop.run_until_complete(loop.create_task(coro=answer())) == 42


def test_order_of_tasks(loop):
    calls = []

    async def note(name):
        calls.append((name, 1))
        await asyncio.sleep(0)
        calls.append((name, 2))

    async def main():
        await asyncio.gather(*(note(name) for name in "abc"))

    loop.run_until_complete(main())
    assert calls == [(name, step) for step in (1, 2) for name in "abc"]


def test_tasks_and_callbacks_share_one_order(loop):
    calls = []

    async def note(name):
        calls.append(name)

    loop.call_soon(calls.append, "a")
    tasks = [loop.create_task(note("b"))]
    loop.call_soon(calls.append, "c")
    tasks.append(loop.create_task(note("d")))
    turn(loop)
    assert calls == ["a", "b", "c", "d"]
    assert all(task.done() for task in tasks)


def test_asyncio_create_task(loop):
    async def main():
        task = asyncio.create_task(answer(), name="child")
        assert task in asyncio.all_tasks()
        assert task.get_loop() is loop
        assert task.get_name() == "child"
        return await task

    assert loop.run_until_complete(main()) == 42


def test_current_task(loop):
    async def main():
        seen = []
        loop.call_soon(lambda: seen.append(asyncio.current_task()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert seen == [None]
        assert asyncio.current_task() is task
        assert asyncio.current_task(loop) is task
        return asyncio.all_tasks()

    task = loop.create_task(main())
    assert loop.run_until_complete(task) == {task}
    assert asyncio.all_tasks(loop) == set()


def test_the_task_class_may_be_replaced(loop, monkeypatch):
    """Tracers swap asyncio.tasks.Task; it is looked up when a task is made."""

    class Traced(asyncio.Task):
        pass

    monkeypatch.setattr(asyncio.tasks, "Task", Traced)
    task = loop.create_task(answer())
    monkeypatch.undo()
    assert type(task) is Traced
    assert type(loop.create_task(answer())) is asyncio.Task
    loop.run_until_complete(asyncio.sleep(0))
    assert task.result() == 42


def test_the_future_class_may_be_replaced(loop, monkeypatch):
    class Traced(asyncio.Future):
        pass

    monkeypatch.setattr(asyncio.futures, "Future", Traced)
    future = loop.create_future()
    monkeypatch.undo()
    assert type(future) is Traced
    assert type(loop.create_future()) is asyncio.Future


# Futures


def test_future_callbacks_run_in_order(loop):
    calls = []
    future = loop.create_future()
    for number in range(10):
        future.add_done_callback(lambda future, number=number: calls.append(number))
    loop.call_soon(calls.append, "before")
    future.set_result(None)
    loop.call_soon(calls.append, "after")
    assert calls == []
    turn(loop)
    assert calls == ["before", *range(10), "after"]


def test_callback_of_a_done_future(loop):
    future = loop.create_future()
    future.set_result(1)
    calls = []
    future.add_done_callback(calls.append)
    assert calls == []
    turn(loop)
    assert calls == [future]


def test_removed_callback(loop):
    future = loop.create_future()
    calls = []
    future.add_done_callback(calls.append)
    assert future.remove_done_callback(calls.append) == 1
    future.set_result(1)
    turn(loop)
    assert calls == []


def test_python_futures(loop):
    """The future class that is written in Python runs on the loop as well."""

    async def main():
        future = asyncio.futures._PyFuture(loop=loop)
        loop.call_soon(future.set_result, 1)
        assert await future == 1

    loop.run_until_complete(main())


def test_awaiting_a_future_of_another_loop(loop, loop_factory):
    other = loop_factory()

    async def main():
        with pytest.raises(RuntimeError, match="attached to a different loop"):
            await other.create_future()

    loop.run_until_complete(main())
    other.close()


def test_wrap_future(loop):
    source = concurrent.futures.Future()
    future = asyncio.wrap_future(source, loop=loop)
    threading.Timer(0.01, source.set_result, (1,)).start()
    assert loop.run_until_complete(future) == 1


# Cancellation, groups, gather, time limits


def test_cancel_a_sleeping_task(loop):
    async def main():
        task = asyncio.create_task(asyncio.sleep(1000))
        await asyncio.sleep(0)
        task.cancel("message")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    loop.run_until_complete(main())
    assert all(handle.cancelled() for handle in loop._scheduled)


def test_cancel_before_the_first_step(loop):
    calls = []

    async def child():
        calls.append(1)

    async def main():
        task = asyncio.create_task(child())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    loop.run_until_complete(main())
    assert calls == []


def test_steps_until_a_cancelled_task_is_done(loop):
    """As many turns as with asyncio: programs count on it more than they know."""

    async def child():
        try:
            await loop.create_future()
        finally:
            await asyncio.sleep(0)

    task = loop.create_task(child())
    turn(loop)
    task.cancel()
    turns = 0
    while not task.done():
        turn(loop)
        turns += 1
    assert turns == 2
    assert task.cancelled()


def test_turns_of_a_chain_of_awaits(loop):
    """Waking a task that waits for a task takes one turn, no more and no less."""
    turns = []
    count = 0

    def tick():
        nonlocal count
        count += 1
        loop.call_soon(tick)

    async def inner():
        await asyncio.sleep(0)
        turns.append(count)

    async def outer():
        await asyncio.create_task(inner())
        turns.append(count)

    task = loop.create_task(outer())
    loop.call_soon(tick)
    while not task.done():
        turn(loop)
    assert turns == [2, 3]


def test_gather(loop):
    async def fail():
        await asyncio.sleep(0)
        raise ZeroDivisionError

    async def main():
        results = await asyncio.gather(*(yielding(n) for n in range(100)))
        assert results == list(range(100))
        with pytest.raises(ZeroDivisionError):
            await asyncio.gather(yielding(), fail())
        first, second = await asyncio.gather(yielding(), fail(), return_exceptions=True)
        assert first == 42
        assert isinstance(second, ZeroDivisionError)

    loop.run_until_complete(main())


def test_gather_outside_a_run(loop):
    tasks = [loop.create_task(answer(n)) for n in range(3)]

    async def main():
        return await asyncio.gather(*tasks)

    assert loop.run_until_complete(main()) == [0, 1, 2]


def test_task_group(loop):
    async def fail():
        await asyncio.sleep(0)
        raise ZeroDivisionError

    async def main():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(yielding(n)) for n in range(10)]
        assert [task.result() for task in tasks] == list(range(10))
        with pytest.raises(ExceptionGroup) as info:
            async with asyncio.TaskGroup() as group:
                sleeper = group.create_task(asyncio.sleep(1000))
                group.create_task(fail())
        assert info.group_contains(ZeroDivisionError)
        assert sleeper.cancelled()

    loop.run_until_complete(main())


def test_wait_for(loop):
    async def main():
        assert await asyncio.wait_for(yielding(), 1000) == 42
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(1000), 0.001)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(1000), 0)

    loop.run_until_complete(main())


def test_wait(loop):
    async def main():
        tasks = [asyncio.create_task(yielding(n)) for n in range(3)]
        sleeper = asyncio.create_task(asyncio.sleep(1000))
        done, pending = await asyncio.wait(
            [*tasks, sleeper], return_when=asyncio.FIRST_COMPLETED
        )
        assert done <= set(tasks)
        await asyncio.gather(*tasks)
        done, pending = await asyncio.wait([*tasks, sleeper], timeout=0.01)
        assert done == set(tasks)
        assert pending == {sleeper}
        sleeper.cancel()

    loop.run_until_complete(main())


def test_timeouts_nest(loop):
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                async with asyncio.timeout(1000):
                    await asyncio.sleep(1000)
        async with asyncio.timeout(1000):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.005):
                    await asyncio.sleep(1000)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout_at(loop.time() - 1):
                await asyncio.sleep(1000)

    loop.run_until_complete(main())


def test_shield(loop):
    async def main():
        inner = asyncio.create_task(yielding())
        outer = asyncio.shield(inner)
        outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer
        return await inner

    assert loop.run_until_complete(main()) == 42


def test_locks_and_queues(loop):
    async def main():
        lock, event = asyncio.Lock(), asyncio.Event()
        queue, order = asyncio.Queue(2), []

        async def locked(name):
            async with lock:
                order.append(name)
                await asyncio.sleep(0)

        async def produce():
            for number in range(100):
                await queue.put(number)
            event.set()

        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(locked(name))
            group.create_task(produce())
            got = [await queue.get() for _ in range(100)]
            await event.wait()
        assert order == ["a", "b", "c"]
        assert got == list(range(100))

    loop.run_until_complete(main())


def test_many_tasks(loop):
    async def main():
        return sum(await asyncio.gather(*(yielding(1) for _ in range(10_000))))

    assert loop.run_until_complete(main()) == 10_000


def test_a_finished_task_is_let_go_of(loop):
    async def main():
        task = asyncio.create_task(yielding())
        ref = weakref.ref(task)
        await task
        del task
        gc.collect()
        await asyncio.sleep(0)
        gc.collect()
        return ref

    assert loop.run_until_complete(main())() is None


# Runners


def test_runner(loop_factory):
    async def main():
        await asyncio.sleep(0)
        return asyncio.get_running_loop()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        loop = runner.run(main())
        assert loop is runner.get_loop()
        assert runner.run(main()) is loop
    assert loop.is_closed()


def test_runner_in_a_thread(loop_factory):
    results = []

    def work():
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            results.append(runner.run(yielding()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [42]


def test_async_context_managers_and_partials(loop):
    """Plain programs, as users write them."""
    log = []

    @contextlib.asynccontextmanager
    async def managed(name):
        log.append(f"enter {name}")
        await asyncio.sleep(0)
        try:
            yield name
        finally:
            await asyncio.sleep(0)
            log.append(f"exit {name}")

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            for name in "ab":
                await stack.enter_async_context(managed(name))
            done = loop.create_future()
            loop.call_later(0.001, functools.partial(done.set_result, "done"))
            return await done

    assert loop.run_until_complete(main()) == "done"
    assert log == ["enter a", "enter b", "exit b", "exit a"]
