"""Runs of a loop: run_forever, stop, run_until_complete, nested loops, threads."""

import asyncio
import gc
import socket
import sys
import threading
import time

import pytest
from conftest import turn


def nothing(*args):
    pass


@pytest.fixture
def nested_runs(loop_name):
    """Skip where a refused run_forever() breaks the run that it is nested in."""
    if loop_name == "asyncio" and sys.version_info[:3] == (3, 13, 0):
        pytest.skip("3.13.0 clears the running loop of the outer run")


# stop


def test_run_forever_returns_none(loop):
    loop.call_soon(loop.stop)
    assert loop.run_forever() is None


def test_stop_before_the_run_makes_one_turn(loop):
    calls = []

    def again():
        calls.append("again")
        loop.call_soon(again)

    loop.call_soon(again)
    loop.stop()
    loop.run_forever()
    assert calls == ["again"]
    loop.stop()
    loop.run_forever()
    assert calls == ["again", "again"]


def test_stop_lets_the_batch_end(loop):
    calls = []
    loop.call_soon(calls.append, 1)
    loop.call_soon(loop.stop)
    loop.call_soon(calls.append, 2)
    loop.run_forever()
    assert calls == [1, 2]


def test_what_is_scheduled_around_stop_is_kept_for_the_next_run(loop):
    calls = []

    def first():
        loop.call_soon(calls.append, "from first")
        loop.stop()
        loop.call_soon(calls.append, "after stop")

    def second():
        calls.append("second")
        loop.call_soon(calls.append, "from second")
        loop.call_later(0, calls.append, "timer")

    loop.call_soon(first)
    loop.call_soon(second)
    loop.run_forever()
    assert calls == ["second"]
    time.sleep(0.001)
    turn(loop)
    assert calls == ["second", "from first", "after stop", "from second", "timer"]


def test_stop_holds_for_one_run_only(loop):
    for _ in range(3):
        loop.stop()
    loop.run_forever()
    calls = []

    def third():
        calls.append(3)
        loop.stop()

    loop.call_soon(lambda: loop.call_soon(lambda: loop.call_soon(third)))
    loop.run_forever()
    assert calls == [3]


def test_stop_from_a_timer(loop):
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert not loop.is_running()


def test_stop_from_a_reader(loop):
    a, b = socket.socketpair()
    with a, b:
        loop.add_reader(a, loop.stop)
        b.send(b"x")
        loop.run_forever()
        loop.remove_reader(a)


def test_stop_on_a_closed_loop(loop):
    loop.close()
    assert loop.stop() is None


def test_runs_can_be_repeated(loop):
    calls = []
    for n in range(500):
        loop.call_soon(calls.append, n)
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert calls == list(range(500))


# run_until_complete


def test_result(loop):
    async def main():
        await asyncio.sleep(0)
        return 42

    assert loop.run_until_complete(main()) == 42
    assert not loop.is_running()


def test_exception(loop):
    async def main():
        await asyncio.sleep(0)
        raise ZeroDivisionError("message")

    with pytest.raises(ZeroDivisionError, match="message"):
        loop.run_until_complete(main())
    assert not loop.is_running()


def test_cancelled(loop):
    async def main():
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(main())


def test_done_future(loop):
    future = loop.create_future()
    future.set_result(1)
    assert loop.run_until_complete(future) == 1
    assert loop.run_until_complete(future) == 1
    future = loop.create_future()
    future.set_exception(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        loop.run_until_complete(future)
    future = loop.create_future()
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(future)


def test_future_done_by_a_timer(loop):
    future = loop.create_future()
    loop.call_later(0.001, future.set_result, "timer")
    assert loop.run_until_complete(future) == "timer"


def test_task(loop):
    async def main():
        return "task"

    task = loop.create_task(main())
    assert loop.run_until_complete(task) == "task"


def test_awaitable(loop):
    class Awaitable:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return "awaited"

    assert loop.run_until_complete(Awaitable()) == "awaited"


@pytest.mark.parametrize("value", [None, 42, "text", nothing, object()])
def test_what_cannot_be_awaited(loop, value):
    with pytest.raises(TypeError, match=r"(coroutine|awaitable)"):
        loop.run_until_complete(value)
    assert not loop.is_running()


def test_future_of_another_loop(loop, loop_factory):
    other = loop_factory()
    future = other.create_future()
    with pytest.raises(ValueError, match="belongs to a different loop"):
        loop.run_until_complete(future)
    other.close()


def test_stop_before_completion(loop):
    async def main():
        loop.stop()
        await asyncio.sleep(0.001)
        return "done"

    task = loop.create_task(main())
    with pytest.raises(
        RuntimeError, match=r"^Event loop stopped before Future completed\.$"
    ):
        loop.run_until_complete(task)
    assert loop.run_until_complete(task) == "done"


def test_stop_before_completion_leaves_no_callback(loop):
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match="stopped before"):
        loop.run_until_complete(future)
    loop.call_soon(future.set_result, 1)
    loop.call_later(0.01, loop.stop)
    start = loop.time()
    loop.run_forever()
    assert loop.time() - start >= 0.01, "the future of the last run stopped this one"


def test_completion_leaves_the_rest_for_the_next_run(loop):
    calls = []

    async def main():
        loop.call_soon(calls.append, "same turn as the stop")
        loop.call_soon(lambda: loop.call_soon(calls.append, "later"))
        return 1

    assert loop.run_until_complete(main()) == 1
    assert calls == ["same turn as the stop"]
    turn(loop)
    assert calls == ["same turn as the stop", "later"]


def test_the_callback_of_the_main_task_is_that_of_asyncio(loop):
    """anyio finds the root task by it."""

    async def main():
        callbacks = [
            callback for callback, context in asyncio.current_task()._callbacks
        ]
        return callbacks

    callbacks = loop.run_until_complete(main())
    assert callbacks == [asyncio.base_events._run_until_complete_cb]


def test_a_failed_coroutine_is_not_reported_again(loop, caplog):
    async def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop.run_until_complete(main())
    gc.collect()
    assert caplog.records == []


# Running


def test_is_running(loop):
    states = []
    loop.call_soon(lambda: states.append(loop.is_running()))
    turn(loop)
    assert states == [True]
    assert loop.is_running() is False


def test_the_running_loop(loop):
    seen = []

    async def main():
        seen.append(asyncio.get_running_loop())

    loop.call_soon(lambda: seen.append(asyncio.get_running_loop()))
    loop.call_later(0, lambda: seen.append(asyncio.get_event_loop()))
    loop.run_until_complete(main())
    loop.run_until_complete(asyncio.sleep(0.001))
    assert seen == [loop] * 3
    assert asyncio._get_running_loop() is None
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


@pytest.mark.usefixtures("nested_runs")
def test_nested_run_of_the_same_loop(loop):
    errors = []

    async def never():
        pytest.fail("it ran")

    async def main():
        for run in (
            loop.run_forever,
            lambda: loop.run_until_complete(loop.create_future()),
        ):
            with pytest.raises(RuntimeError) as info:
                run()
            errors.append(str(info.value))
        coroutine = never()
        with pytest.raises(RuntimeError) as info:
            loop.run_until_complete(coroutine)
        errors.append(str(info.value))
        coroutine.close()
        # Checked before the coroutine becomes a task.
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert asyncio.get_running_loop() is loop
        assert loop.is_running()
        await asyncio.sleep(0.001)
        return "done"

    assert loop.run_until_complete(main()) == "done"
    assert errors == ["This event loop is already running"] * 3


@pytest.mark.usefixtures("nested_runs")
def test_nested_run_of_another_loop(loop, loop_factory):
    other = loop_factory()
    message = r"^Cannot run the event loop while another loop is running$"

    async def never():
        pytest.fail("it ran")

    async def main():
        coroutine = never()
        with pytest.raises(RuntimeError, match=message):
            other.run_until_complete(coroutine)
        coroutine.close()
        with pytest.raises(RuntimeError, match=message):
            other.run_forever()
        assert asyncio.get_running_loop() is loop
        assert not other.is_running()
        await asyncio.sleep(0.001)
        return "done"

    assert loop.run_until_complete(main()) == "done"
    other.run_until_complete(asyncio.sleep(0))
    other.close()


def test_nested_run_of_a_stock_loop(loop):
    """The two kinds know of each other."""
    other = asyncio.SelectorEventLoop()

    async def inner(outside):
        coroutine = asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another loop is running"):
            outside.run_until_complete(coroutine)
        coroutine.close()

    loop.run_until_complete(inner(other))
    other.run_until_complete(inner(loop))
    other.close()


def test_two_loops_in_turn(loop, loop_factory):
    other = loop_factory()
    calls = []
    for n in range(5):
        loop.call_soon(calls.append, ("loop", n))
        other.call_soon(calls.append, ("other", n))
        turn(loop)
        turn(other)
    assert calls == [(name, n) for n in range(5) for name in ("loop", "other")]
    other.close()


def test_loops_in_threads(loop_factory):
    results = []

    def work(number):
        loop = loop_factory()

        async def main():
            assert asyncio.get_running_loop() is loop
            for _ in range(100):
                await asyncio.sleep(0)
            await asyncio.sleep(0.005)
            return number

        try:
            results.append(loop.run_until_complete(main()))
        finally:
            loop.close()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(8))


def test_made_run_and_closed_in_three_threads(loop_factory):
    box = {}
    calls = []

    def make():
        box["loop"] = loop_factory()
        box["loop"].call_soon(calls.append, "made")

    def run():
        box["loop"].call_soon(calls.append, "run")
        box["loop"].run_until_complete(asyncio.sleep(0.001))

    def close():
        box["loop"].close()

    for step in (make, run, close):
        thread = threading.Thread(target=step)
        thread.start()
        thread.join()
    assert calls == ["made", "run"]
    assert box["loop"].is_closed()


def test_seen_from_another_thread(loop):
    states = []

    def look():
        states.append((loop.is_running(), loop.is_closed(), loop.get_debug()))
        states.append(repr(loop))

    async def main():
        await loop.run_in_executor(None, look)

    loop.run_until_complete(main())
    name = type(loop).__name__
    assert states == [
        (True, False, False),
        f"<{name} running=True closed=False debug=False>",
    ]


@pytest.mark.usefixtures("nested_runs")
def test_run_of_a_loop_that_runs_in_another_thread(loop):
    errors = []

    def second():
        for run in (loop.run_forever, lambda: loop.run_until_complete(future)):
            try:
                run()
            except RuntimeError as exc:
                errors.append(str(exc))
        try:
            loop.close()
        except RuntimeError as exc:
            errors.append(str(exc))

    async def main():
        await loop.run_in_executor(None, second)

    future = loop.create_future()
    loop.run_until_complete(main())
    assert errors == [
        "This event loop is already running",
        "This event loop is already running",
        "Cannot close a running event loop",
    ]


def test_asyncgen_hooks_are_restored(loop):
    first, last = object(), object()
    saved = sys.get_asyncgen_hooks()
    hooks = (lambda gen: first, lambda gen: last)
    inside = []
    try:
        sys.set_asyncgen_hooks(*hooks)
        loop.call_soon(lambda: inside.append(sys.get_asyncgen_hooks()))
        turn(loop)
        assert tuple(sys.get_asyncgen_hooks()) == hooks
        assert tuple(inside[0]) != hooks

        def leave():
            raise SystemExit

        loop.call_soon(leave)
        with pytest.raises(SystemExit):
            loop.run_forever()
        assert tuple(sys.get_asyncgen_hooks()) == hooks
    finally:
        sys.set_asyncgen_hooks(*saved)
