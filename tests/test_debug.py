"""Debug mode: what it checks, what it logs, what it remembers."""

import asyncio
import contextlib
import functools
import logging
import re
import socket
import sys
import threading
import time

import pytest
from conftest import turn

WRONG_THREAD = (
    r"^Non-thread-safe operation invoked on an event loop other than the current one$"
)


def nothing(*args):
    pass


def line_of(function):
    return function.__code__.co_firstlineno


@pytest.fixture
def debug_loop(loop):
    loop.set_debug(True)
    return loop


# Switching it on


def test_set_debug(loop):
    assert loop.get_debug() is False
    loop.set_debug(True)
    assert loop.get_debug() is True
    loop.set_debug(False)
    assert loop.get_debug() is False


@pytest.mark.parametrize(
    ("options", "env", "expected"),
    [
        ((), {}, False),
        (("-X", "dev"), {}, True),
        ((), {"PYTHONASYNCIODEBUG": "1"}, True),
        ((), {"PYTHONASYNCIODEBUG": ""}, False),
        ((), {"PYTHONDEVMODE": "1"}, True),
    ],
    ids=["plain", "dev", "variable", "empty-variable", "dev-variable"],
)
def test_debug_mode_from_outside(run_script, options, env, expected):
    result = run_script(
        "loop = new_event_loop(); print(loop.get_debug()); loop.close()",
        options=options,
        env=env,
    )
    assert result.stdout == f"{expected}\n"


def test_debug_mode_is_decided_when_the_loop_is_made(loop_factory, monkeypatch):
    monkeypatch.setattr(asyncio.coroutines, "_is_debug_mode", lambda: True)
    loop = loop_factory()
    assert loop.get_debug() is True
    loop.close()
    monkeypatch.setattr(asyncio.coroutines, "_is_debug_mode", lambda: False)
    loop = loop_factory()
    assert loop.get_debug() is False
    loop.close()


def test_run_passes_debug_on(loop_factory):
    for debug in (True, False, None):
        with asyncio.Runner(loop_factory=loop_factory, debug=debug) as runner:
            assert runner.get_loop().get_debug() is bool(debug)


# Slow callbacks


def slow(*args):
    time.sleep(0.02)


def slow_messages(caplog):
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING and record.name == "asyncio"
    ]


@pytest.mark.parametrize("kind", ["soon", "later", "threadsafe"])
def test_a_slow_callback_is_logged(debug_loop, caplog, kind):
    loop = debug_loop
    loop.slow_callback_duration = 0.01
    if kind == "soon":
        loop.call_soon(slow, 1, "two")
    elif kind == "later":
        loop.call_later(-1, slow, 1, "two")
    else:
        loop.call_soon_threadsafe(slow, 1, "two")
    turn(loop)
    [message] = slow_messages(caplog)
    where = re.escape(f"{__file__}:{line_of(slow)}")
    found = re.match(
        rf"Executing <\w+ (?:when=\S+ )?slow\(1, 'two'\) at {where}"
        rf" created at {re.escape(__file__)}:\d+> took (\d+\.\d\d\d) seconds$",
        message,
    )
    assert found, message
    assert 0.02 <= float(found[1]) < 60


def test_a_slow_callback_that_raises_is_logged(debug_loop, caplog):
    loop = debug_loop
    loop.slow_callback_duration = 0.01

    def slow_and_wrong():
        time.sleep(0.02)
        raise ZeroDivisionError

    loop.call_soon(slow_and_wrong)
    turn(loop)
    assert len(slow_messages(caplog)) == 1
    assert "ZeroDivisionError" in caplog.text


def test_a_slow_callback_that_cancels_itself_is_logged_by_name(debug_loop, caplog):
    loop = debug_loop
    loop.slow_callback_duration = 0.01

    def cancelling():
        handle.cancel()
        time.sleep(0.02)

    handle = loop.call_soon(cancelling)
    turn(loop)
    [message] = slow_messages(caplog)
    assert "cancelled" in message
    assert "cancelling()" in message


def test_a_slow_step_of_a_task_is_logged_with_its_name(debug_loop, caplog):
    loop = debug_loop

    async def main():
        loop.slow_callback_duration = 0.01
        await asyncio.sleep(0)
        time.sleep(0.02)
        await asyncio.sleep(0)
        loop.slow_callback_duration = 1000

    task = loop.create_task(main(), name="the-slow-one")
    loop.run_until_complete(task)
    messages = slow_messages(caplog)
    assert messages
    for message in messages:
        assert message.startswith("Executing <Task ")
        assert "name='the-slow-one'" in message
        assert "main() " in message
        assert re.search(r" took \d+\.\d\d\d seconds$", message)


def test_a_slow_reader_is_logged(debug_loop, caplog):
    loop = debug_loop
    loop.slow_callback_duration = 0.01
    a, b = socket.socketpair()
    with a, b:

        def on_readable():
            a.recv(1)
            slow()
            loop.stop()

        loop.add_reader(a, on_readable)
        b.send(b"x")
        loop.run_forever()
        loop.remove_reader(a)
    messages = slow_messages(caplog)
    assert any("on_readable()" in message for message in messages)


def test_a_fast_callback_is_not_logged(debug_loop, caplog):
    loop = debug_loop
    loop.slow_callback_duration = 1000
    loop.call_soon(slow)
    turn(loop)
    assert slow_messages(caplog) == []


def test_without_debug_mode_nothing_is_logged(loop, caplog):
    loop.slow_callback_duration = 0.001
    loop.call_soon(slow)
    turn(loop)
    assert caplog.records == []


def test_debug_mode_switched_on_in_a_run(loop, caplog):
    loop.slow_callback_duration = 0.01

    async def main():
        loop.set_debug(True)
        await asyncio.sleep(0)
        loop.call_soon(slow)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        loop.set_debug(False)
        await asyncio.sleep(0)
        loop.call_soon(slow)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    assert sum("slow()" in message for message in slow_messages(caplog)) == 1


def test_every_callback_is_slow(debug_loop, caplog):
    """0 logs all of them, the loop's own not left out."""
    loop = debug_loop
    loop.slow_callback_duration = 0
    loop.call_soon(nothing)
    turn(loop)
    assert any("nothing()" in message for message in slow_messages(caplog))
    loop.slow_callback_duration = 1000


def test_the_logger_may_be_replaced(debug_loop, monkeypatch):
    """Tests of asyncio put a logger of their own in place of its module's."""
    loop = debug_loop
    loop.slow_callback_duration = 0.01
    warned = []

    class Logger:
        def warning(self, message, *args):
            warned.append(message % args)

        def __getattr__(self, name):
            return nothing

    monkeypatch.setattr(asyncio.base_events, "logger", Logger())
    loop.call_soon(slow)
    turn(loop)
    assert len(warned) == 1
    monkeypatch.undo()


# The thread check


@pytest.mark.parametrize(
    "call",
    [
        lambda loop: loop.call_soon(nothing),
        lambda loop: loop.call_later(0, nothing),
        lambda loop: loop.call_at(0, nothing),
    ],
    ids=["call_soon", "call_later", "call_at"],
)
def test_scheduling_from_another_thread(debug_loop, call):
    loop = debug_loop
    outcomes = []

    def work():
        with pytest.raises(RuntimeError, match=WRONG_THREAD):
            call(loop)
        outcomes.append("refused")

    async def main():
        await loop.run_in_executor(None, work)

    loop.run_until_complete(main())
    assert outcomes == ["refused"]


def test_a_future_done_in_another_thread(debug_loop):
    loop = debug_loop
    outcomes = []

    def work(future):
        with pytest.raises(RuntimeError, match=WRONG_THREAD):
            future.set_result(None)
        outcomes.append("refused")

    async def main():
        future = loop.create_future()
        future.add_done_callback(nothing)
        await loop.run_in_executor(None, work, future)

    loop.run_until_complete(main())
    assert outcomes == ["refused"]


def test_a_loop_that_does_not_run_has_no_thread(debug_loop):
    calls = []
    thread = threading.Thread(target=debug_loop.call_soon, args=(calls.append, 1))
    thread.start()
    thread.join()
    turn(debug_loop)
    assert calls == [1]


def test_without_debug_mode_threads_are_not_checked(loop):
    async def main():
        await loop.run_in_executor(None, loop.call_later, 1000, nothing)

    loop.run_until_complete(main())


# The callback check


@pytest.mark.parametrize(
    "method", ["call_soon", "call_soon_threadsafe", "run_in_executor"]
)
def test_what_cannot_be_called(debug_loop, method):
    loop = debug_loop
    call = getattr(loop, method)
    if method == "run_in_executor":
        call = functools.partial(call, None)

    async def coroutine_function():
        pass

    for value in (None, 42, "text"):
        with pytest.raises(TypeError) as info:
            call(value)
        expected = f"a callable object was expected by {method}(), got {value!r}"
        assert str(info.value) == expected
    coroutine = coroutine_function()
    for value in (coroutine, coroutine_function):
        with pytest.raises(TypeError) as info:
            call(value)
        assert str(info.value) == f"coroutines cannot be used with {method}()"
    coroutine.close()


def test_without_debug_mode_callbacks_are_not_checked(loop):
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))

    async def coroutine_function():
        pass

    loop.call_soon(None)
    loop.call_soon("text")
    with pytest.warns(RuntimeWarning, match="was never awaited"):
        loop.call_soon(coroutine_function)
        turn(loop)
    assert [type(context["exception"]) for context in contexts] == [TypeError] * 2


# Tracebacks of origins


@pytest.mark.parametrize(
    "call",
    [
        lambda loop: loop.call_soon(nothing),
        lambda loop: loop.call_soon_threadsafe(nothing),
        lambda loop: loop.call_later(-1, nothing),
        lambda loop: loop.call_at(0, nothing),
    ],
    ids=["call_soon", "call_soon_threadsafe", "call_later", "call_at"],
)
def test_source_traceback_of_handles(debug_loop, call):
    """It ends with the caller's frame, not with one of the loop's."""
    handle = call(debug_loop)
    frame = handle._source_traceback[-1]
    assert frame.filename == __file__
    assert frame.name == "<lambda>"
    assert handle._source_traceback[-2].name == "test_source_traceback_of_handles"
    assert f"created at {__file__}:{frame.lineno}>" in repr(handle)
    turn(debug_loop)


def test_source_traceback_of_tasks_and_futures(debug_loop):
    loop = debug_loop

    async def main():
        pass

    task = loop.create_task(main())
    assert task._source_traceback[-1].filename == __file__
    assert task._source_traceback[-1].name == sys._getframe().f_code.co_name
    assert f"created at {__file__}:" in repr(task)
    loop.run_until_complete(task)
    future = loop.create_future()
    names = [frame.name for frame in future._source_traceback[-2:]]
    assert sys._getframe().f_code.co_name in names


def test_source_traceback_reaches_the_exception_handler(debug_loop, caplog):
    loop = debug_loop
    contexts = []

    def handler(loop, context):
        contexts.append(context)
        loop.default_exception_handler(context)

    loop.set_exception_handler(handler)

    def fail():
        raise ZeroDivisionError

    def schedule():
        loop.call_soon(fail)

    schedule()
    turn(loop)
    [context] = contexts
    assert context["source_traceback"][-1].name == "schedule"
    text = caplog.text
    assert "Object created at (most recent call last):" in text
    assert "loop.call_soon(fail)" in text


def test_source_traceback_is_none_otherwise(loop):
    handle = loop.call_soon(nothing)
    assert handle._source_traceback is None
    turn(loop)


def test_the_handle_behind_an_error_is_told(debug_loop, caplog):
    """call_exception_handler() in a callback: the log says who scheduled that."""
    loop = debug_loop

    def report():
        loop.call_exception_handler({"message": "something went wrong"})

    def schedule():
        loop.call_soon(report)

    schedule()
    turn(loop)
    assert "something went wrong" in caplog.text
    assert "Handle created at (most recent call last):" in caplog.text
    assert "loop.call_soon(report)" in caplog.text


def test_current_handle(debug_loop):
    loop = debug_loop
    seen = []
    handle = loop.call_soon(lambda: seen.append(loop._current_handle))
    turn(loop)
    assert seen == [handle]
    assert loop._current_handle is None


# Coroutine origins


def test_coroutine_origins_are_tracked(debug_loop):
    loop = debug_loop
    depth = sys.get_coroutine_origin_tracking_depth()
    depths = []

    async def child():
        pass

    async def main():
        depths.append(sys.get_coroutine_origin_tracking_depth())
        coroutine = child()
        origin = coroutine.cr_origin
        await coroutine
        return origin

    origin = loop.run_until_complete(main())
    assert depths == [asyncio.constants.DEBUG_STACK_DEPTH]
    assert origin[0][0] == __file__
    assert origin[0][2] == "main"
    assert sys.get_coroutine_origin_tracking_depth() == depth


def test_coroutine_origins_are_not_tracked_otherwise(loop):
    async def main():
        return sys.get_coroutine_origin_tracking_depth()

    assert loop.run_until_complete(main()) == sys.get_coroutine_origin_tracking_depth()


def test_the_depth_of_the_program_is_restored(debug_loop):
    loop = debug_loop
    sys.set_coroutine_origin_tracking_depth(3)
    try:
        turn(loop)
        assert sys.get_coroutine_origin_tracking_depth() == 3

        def leave():
            raise SystemExit

        loop.call_soon(leave)
        with pytest.raises(SystemExit):
            loop.run_forever()
        assert sys.get_coroutine_origin_tracking_depth() == 3
    finally:
        sys.set_coroutine_origin_tracking_depth(0)


def test_origin_tracking_follows_debug_mode_in_a_run(loop):
    async def main():
        depths = []
        for debug in (True, False, True):
            loop.set_debug(debug)
            await asyncio.sleep(0.001)
            depths.append(sys.get_coroutine_origin_tracking_depth())
        return depths

    assert loop.run_until_complete(main()) == [10, 0, 10]
    assert sys.get_coroutine_origin_tracking_depth() == 0


def test_a_coroutine_never_awaited_tells_its_origin(run_script):
    result = run_script(
        """
        import gc, warnings
        warnings.simplefilter("always")
        async def child():
            pass
        async def main():
            child()
        run(main(), debug=True)
        """
    )
    assert "coroutine 'child' was never awaited" in result.stderr
    assert "Coroutine created at (most recent call last)" in result.stderr


# Log messages


def test_close_is_logged(loop_factory, caplog):
    caplog.set_level(logging.DEBUG, "asyncio")
    loop = loop_factory()
    loop.set_debug(True)
    text = repr(loop)
    loop.close()
    assert f"Close {text}" in caplog.text


def test_getaddrinfo_is_logged(debug_loop, run, caplog):
    caplog.set_level(logging.DEBUG, "asyncio")

    async def main():
        await debug_loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)

    run(main())
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert "Get address info localhost:80" in text
    assert re.search(
        r"Getting address info localhost:80.* took \d+\.\d{3}ms: \[", text
    ), text


# Debug mode must not break what works without it


def test_programs_run_in_debug_mode(debug_loop, run):
    loop = debug_loop

    async def producer(queue):
        for number in range(50):
            await queue.put(number)
            if number % 10 == 0:
                await asyncio.sleep(0.001)
        await queue.put(None)

    async def main():
        queue = asyncio.Queue(3)
        task = asyncio.create_task(producer(queue))
        got = []
        while (number := await queue.get()) is not None:
            got.append(number)
        await task
        assert await asyncio.to_thread(sum, got) == sum(range(50))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await loop.create_future()
        return got

    assert run(main()) == list(range(50))


def test_switching_debug_mode_from_callbacks(loop):
    """On and off within one batch, with handles made in either mode."""
    calls = []
    handles = []
    for number in range(20):
        loop.call_soon(loop.set_debug, number % 2 == 0)
        handles.append(loop.call_soon(calls.append, number))
        loop.set_debug(number % 3 == 0)
    handles[3].cancel()
    turn(loop)
    loop.set_debug(False)
    turn(loop)
    turn(loop)
    assert calls == [number for number in range(20) if number != 3]
    assert [handle._source_traceback is not None for handle in handles] == [
        number > 0 and (number - 1) % 3 == 0 for number in range(20)
    ]
