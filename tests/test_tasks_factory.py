"""Task factories and eager tasks."""

import asyncio
import contextvars
import sys

import pytest

var = contextvars.ContextVar("var", default="default")

eager = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12"
)


async def answer(value=42):
    return value


async def yielding(value=42):
    await asyncio.sleep(0)
    return value


# Task factories


class OwnTask(asyncio.Task):
    pass


def test_set_task_factory(loop):
    assert loop.get_task_factory() is None

    def factory(loop, coro, **kwargs):
        return OwnTask(coro, loop=loop, **kwargs)

    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory
    task = loop.create_task(answer(), name="name")
    assert type(task) is OwnTask
    assert task.get_name() == "name"
    assert loop.run_until_complete(task) == 42
    loop.set_task_factory(None)
    assert loop.get_task_factory() is None
    assert type(loop.create_task(answer())) is asyncio.Task
    loop.run_until_complete(asyncio.sleep(0))


def test_a_factory_that_takes_a_context(loop):
    seen = []

    def factory(loop, coro, *, context=None, **kwargs):
        seen.append((context, kwargs))
        return OwnTask(coro, loop=loop, context=context, **kwargs)

    loop.set_task_factory(factory)
    context = contextvars.copy_context()
    tasks = [
        loop.create_task(answer(), context=context),
        loop.create_task(answer()),
    ]
    assert [given for given, _ in seen] == [context, None]
    assert seen[0][0] is context
    loop.run_until_complete(asyncio.gather(*tasks))


@pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="from Python 3.13 on patch releases differ"
)
def test_a_factory_of_two_parameters(loop):
    """It is given no keyword that the caller did not give."""

    def factory(loop, coro):
        return OwnTask(coro, loop=loop)

    loop.set_task_factory(factory)
    task = loop.create_task(answer(), name="name")
    assert task.get_name() == "name"
    loop.run_until_complete(task)
    assert type(loop.create_task(answer())) is OwnTask
    coroutine = answer()
    with pytest.raises(TypeError, match="context"):
        loop.create_task(coroutine, context=contextvars.copy_context())
    coroutine.close()
    loop.run_until_complete(asyncio.sleep(0))


@pytest.mark.skipif(
    sys.version_info < (3, 14), reason="before Python 3.14 name is set on the task"
)
def test_a_factory_is_given_every_keyword(loop):
    seen = []

    def factory(loop, coro, **kwargs):
        seen.append(dict(kwargs))
        kwargs.pop("extra", None)
        return OwnTask(coro, loop=loop, **kwargs)

    loop.set_task_factory(factory)
    tasks = [
        loop.create_task(answer()),
        loop.create_task(answer(), name="name", extra=1),
        loop.create_task(answer(), context=None),
    ]
    assert seen == [{}, {"name": "name", "extra": 1}, {"context": None}]
    loop.run_until_complete(asyncio.gather(*tasks))


def test_a_factory_that_returns_a_future(loop):
    """It need not be a task; it only has to take a name."""
    names = []

    class Named(asyncio.Future):
        def set_name(self, name):
            names.append(name)

    def factory(loop, coro, **kwargs):
        coro.close()
        return Named(loop=loop)

    loop.set_task_factory(factory)
    assert type(loop.create_task(answer())) is Named
    assert type(loop.create_task(answer(), name="name")) is Named
    if sys.version_info < (3, 14):
        assert names[-1] == "name"


def test_a_factory_that_raises(loop):
    def factory(loop, coro, **kwargs):
        coro.close()
        raise ZeroDivisionError

    loop.set_task_factory(factory)
    with pytest.raises(ZeroDivisionError):
        loop.create_task(answer())
    with pytest.raises(ZeroDivisionError):
        loop.run_until_complete(answer())


@pytest.mark.parametrize("value", [42, "text", object()])
def test_what_is_no_factory(loop, value):
    with pytest.raises(TypeError, match=r"^task factory must be a callable or None$"):
        loop.set_task_factory(value)


def test_a_factory_serves_asyncio_as_well(loop):
    def factory(loop, coro, **kwargs):
        return OwnTask(coro, loop=loop, **kwargs)

    loop.set_task_factory(factory)

    async def main():
        tasks = [asyncio.create_task(answer()), asyncio.ensure_future(answer())]
        async with asyncio.TaskGroup() as group:
            tasks.append(group.create_task(answer()))
        await asyncio.gather(*tasks, answer())
        tasks.append(asyncio.current_task())
        return tasks

    for task in loop.run_until_complete(main()):
        assert type(task) is OwnTask


def test_python_tasks(loop):
    """The task class that is written in Python runs on the loop as well."""

    def factory(loop, coro, **kwargs):
        return asyncio.tasks._PyTask(coro, loop=loop, **kwargs)

    loop.set_task_factory(factory)

    async def main():
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        return await asyncio.gather(yielding(1), yielding(2))

    assert loop.run_until_complete(main()) == [1, 2]


# Eager tasks


@eager
def test_eager_tasks_run_at_once(loop):
    loop.set_task_factory(asyncio.eager_task_factory)
    calls = []

    async def child(name):
        calls.append(name)
        await asyncio.sleep(0)
        calls.append(f"{name} again")

    async def main():
        first = asyncio.create_task(child("first"))
        calls.append("main")
        second = asyncio.create_task(answer(), name="second")
        assert second.done()
        assert second.get_name() == "second"
        assert second.result() == 42
        await first

    loop.run_until_complete(main())
    assert calls == ["first", "main", "first again"]


@eager
def test_eager_tasks_raise_into_the_task(loop):
    loop.set_task_factory(asyncio.eager_task_factory)

    async def fail():
        raise ZeroDivisionError

    async def main():
        task = asyncio.create_task(fail())
        assert task.done()
        with pytest.raises(ZeroDivisionError):
            await task

    loop.run_until_complete(main())


@eager
def test_eager_tasks_have_their_context(loop):
    loop.set_task_factory(asyncio.eager_task_factory)

    async def child():
        before = var.get()
        var.set("child")
        await asyncio.sleep(0)
        return before, var.get()

    async def main():
        var.set("main")
        task = asyncio.create_task(child())
        assert var.get() == "main"
        assert await task == ("main", "child")
        context = contextvars.Context()
        given = loop.create_task(child(), context=context)
        assert await given == ("default", "child")
        assert context[var] == "child"

    loop.run_until_complete(main())


@eager
def test_eager_tasks_know_the_current_task(loop):
    loop.set_task_factory(asyncio.eager_task_factory)

    async def child():
        return asyncio.current_task()

    async def main():
        me = asyncio.current_task()
        task = asyncio.create_task(child())
        assert asyncio.current_task() is me
        assert await task is task

    loop.run_until_complete(main())


@eager
def test_eager_tasks_outside_a_run_are_not_eager(loop):
    loop.set_task_factory(asyncio.eager_task_factory)
    calls = []

    async def child():
        calls.append(1)

    task = loop.create_task(child())
    assert calls == []
    loop.run_until_complete(task)
    assert calls == [1]


@eager
def test_create_eager_task_factory(loop):
    factory = asyncio.create_eager_task_factory(OwnTask)
    loop.set_task_factory(factory)

    async def main():
        task = asyncio.create_task(answer())
        assert type(task) is OwnTask
        assert task.done()
        async with asyncio.TaskGroup() as group:
            assert group.create_task(answer()).done()

    loop.run_until_complete(main())


eager_start = pytest.mark.skipif(
    sys.version_info < (3, 14), reason="eager_start= of tasks is new in Python 3.14"
)


@eager_start
def test_eager_start_beside_other_keywords(loop):
    context = contextvars.Context()
    calls = []

    async def child():
        calls.append(asyncio.current_task().get_name())
        var.set("child")
        await asyncio.sleep(0)
        return asyncio.current_task()

    async def main():
        var.set("main")
        task = loop.create_task(
            child(), context=context, eager_start=True, name="eager"
        )
        assert calls == ["eager"]
        assert var.get() == "main"
        assert context[var] == "child"
        assert task.get_context() is context
        assert await task is task
        unset = loop.create_task(answer(), context=None, eager_start=None, name=None)
        assert not unset.done()
        assert await unset == 42

    loop.run_until_complete(main())


@eager_start
def test_eager_start(loop):
    async def main():
        eager = loop.create_task(answer(), eager_start=True)
        assert eager.done()
        lazy = loop.create_task(answer(), eager_start=False)
        assert not lazy.done()
        return await lazy

    assert loop.run_until_complete(main()) == 42
