"""Context variables of tasks, futures and the exception handler."""

import asyncio
import contextvars
import sys

import pytest
from conftest import in_context, turn

var = contextvars.ContextVar("var", default="default")

pytestmark = pytest.mark.usefixtures("context_untouched")


def look(seen):
    seen.append(var.get())


# Tasks


@in_context
def test_tasks_have_contexts_of_their_own(loop):
    seen = []

    async def worker(name):
        seen.append(var.get())
        var.set(name)
        await asyncio.sleep(0)
        seen.append(var.get())
        await asyncio.sleep(0.001)
        assert var.get() == name

    async def main():
        var.set("main")
        await asyncio.gather(*(worker(name) for name in "abc"))
        assert var.get() == "main"

    loop.run_until_complete(main())
    assert seen == ["main"] * 3 + ["a", "b", "c"]
    assert var.get() == "default"


@in_context
def test_tasks_between_callbacks(loop):
    seen = []

    async def worker():
        for number in range(5):
            assert var.get() == (number - 1 if number else "default")
            var.set(number)
            loop.call_soon(look, seen)
            await asyncio.sleep(0)

    def callback():
        assert var.get() == "default"
        var.set("callback")

    async def main():
        tasks = [asyncio.create_task(worker()) for _ in range(3)]
        for _ in range(5):
            loop.call_soon(callback)
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)

    loop.run_until_complete(main())
    assert seen == [number for number in range(5) for _ in range(3)]


@in_context
def test_a_task_in_an_explicit_context(loop):
    context = contextvars.copy_context()
    context.run(var.set, "given")

    async def worker():
        before = var.get()
        var.set("changed")
        await asyncio.sleep(0)
        return before

    async def main():
        assert await loop.create_task(worker(), context=context) == "given"
        assert var.get() == "default"

    loop.run_until_complete(main())
    assert context[var] == "changed"


@in_context
def test_a_task_created_in_a_callback(loop):
    seen = []

    async def worker():
        seen.append(var.get())
        var.set("worker")
        await asyncio.sleep(0)
        seen.append(var.get())

    def callback():
        var.set("callback")
        tasks.append(loop.create_task(worker()))
        var.set("after")

    tasks = []
    loop.call_soon(callback)
    loop.call_soon(look, seen)
    turn(loop)
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=False))
    assert seen == ["default", "callback", "worker"]


@in_context
def test_done_callbacks_of_futures(loop):
    seen = []
    future = loop.create_future()
    var.set("adding")
    future.add_done_callback(lambda future: seen.append(var.get()))
    context = contextvars.Context()
    context.run(var.set, "given")
    future.add_done_callback(lambda future: seen.append(var.get()), context=context)
    var.set("setting")
    future.set_result(None)
    turn(loop)
    assert seen == ["adding", "given"]


@in_context
def test_the_main_task_of_a_run(loop):
    var.set("outside")

    async def main():
        before = var.get()
        var.set("inside")
        await asyncio.sleep(0)
        return before

    assert loop.run_until_complete(main()) == "outside"
    assert var.get() == "outside"


@in_context
def test_the_exception_handler_sees_the_context(loop):
    """From 3.12 on it runs in the context of the handle, before that in the loop's."""
    seen = []
    loop.set_exception_handler(lambda loop, context: seen.append(var.get()))

    def fail():
        var.set("inside")
        raise ZeroDivisionError

    loop.call_soon(fail)
    turn(loop)
    assert seen == ["inside" if sys.version_info >= (3, 12) else "default"]
