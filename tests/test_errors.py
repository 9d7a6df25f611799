"""Exceptions: out of callbacks, into the exception handler, and out of the loop."""

import asyncio
import gc
import logging
import socket
import sys
import sysconfig
import threading
import weakref

import pytest
from conftest import turn

KINDS = ["soon", "threadsafe", "later", "at", "reader", "writer"]


def nothing(*args):
    pass


def line_of(function):
    return function.__code__.co_firstlineno


class Scheduler:
    """Has a callback called once by the loop, in the way that kind names."""

    def __init__(self, loop, kind):
        self.loop = loop
        self.kind = kind
        self.pair = socket.socketpair() if kind in ("reader", "writer") else ()

    def __call__(self, callback):
        loop = self.loop
        if self.kind == "soon":
            loop.call_soon(callback)
        elif self.kind == "threadsafe":
            loop.call_soon_threadsafe(callback)
        elif self.kind == "later":
            loop.call_later(-1, callback)
        elif self.kind == "at":
            loop.call_at(0, callback)
        elif self.kind == "reader":
            self.pair[1].send(b"x")
            loop.add_reader(self.pair[0], self.once, loop.remove_reader, callback)
        else:
            loop.add_writer(self.pair[0], self.once, loop.remove_writer, callback)

    def once(self, remove, callback):
        remove(self.pair[0])
        callback()

    def close(self):
        for sock in self.pair:
            if not self.loop.is_closed():
                self.loop.remove_reader(sock)
                self.loop.remove_writer(sock)
            sock.close()


@pytest.fixture(params=KINDS)
def schedule(request, loop):
    scheduler = Scheduler(loop, request.param)
    yield scheduler
    scheduler.close()


@pytest.fixture
def contexts(loop):
    """What reaches the exception handler of the loop."""
    seen = []
    loop.set_exception_handler(lambda loop, context: seen.append(context))
    return seen


class Odd(BaseException):
    pass


# Exceptions of callbacks


@pytest.mark.parametrize("error", [ZeroDivisionError, Odd, asyncio.CancelledError])
def test_an_exception_is_reported(loop, contexts, schedule, error):
    def fail():
        raise error("message")

    calls = []
    schedule(fail)
    loop.call_soon(calls.append, "next")
    turn(loop)
    turn(loop)
    [context] = contexts
    assert set(context) == {"message", "exception", "handle"}
    assert context["message"].startswith("Exception in callback ")
    assert type(context["exception"]) is error
    assert str(context["exception"]) == "message"
    assert isinstance(context["handle"], asyncio.Handle)
    assert calls == ["next"], "the rest of the batch ran"


def test_the_message(loop, contexts):
    def fail():
        raise ZeroDivisionError

    handle = loop.call_soon(fail)
    turn(loop)
    [context] = contexts
    name = f"{sys._getframe().f_code.co_name}.<locals>.fail()"
    where = f"{__file__}:{line_of(fail)}"
    assert context["message"] == f"Exception in callback {name} at {where}"
    assert context["handle"] is handle


def test_the_traceback(loop, contexts):
    def fail():
        raise ZeroDivisionError

    loop.call_soon(fail)
    turn(loop)
    names = []
    traceback = contexts[0]["exception"].__traceback__
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert names[-1] == "fail"


def test_an_exception_is_let_go_of(loop):
    """Nothing of a failed callback stays behind."""

    class Thing:
        pass

    refs = []

    def fail():
        thing = Thing()
        refs.append(weakref.ref(thing))
        raise ZeroDivisionError(thing)

    loop.set_exception_handler(nothing)
    loop.call_soon(fail)
    turn(loop)
    gc.collect()
    assert refs[0]() is None


def test_the_current_exception_is_none_in_callbacks(loop):
    """A callback does not see the exception during which the loop was run."""
    seen = []

    def fail():
        raise ZeroDivisionError

    loop.set_exception_handler(nothing)
    loop.call_soon(fail)
    loop.call_soon(lambda: seen.append(sys.exc_info()[1]))
    turn(loop)
    assert seen == [None]


def test_what_cannot_be_called(loop, contexts):
    loop.call_soon(42)
    loop.call_soon(None, 1)
    loop.call_soon(nothing.__name__)
    turn(loop)
    errors = [type(context["exception"]) for context in contexts]
    assert errors == [TypeError] * 3


def test_wrong_arguments_of_a_callback(loop, contexts):
    loop.call_soon(lambda: None, 1, 2)
    turn(loop)
    assert [type(context["exception"]) for context in contexts] == [TypeError]


def test_recursion_in_a_callback(loop, contexts):
    def recurse():
        recurse()

    loop.call_soon(recurse)
    turn(loop)
    assert [type(context["exception"]) for context in contexts] == [RecursionError]


# Exceptions that leave the loop


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_it_leaves_at_once_and_keeps_the_rest(loop, contexts, schedule, error):
    calls = []

    def leave():
        loop.call_soon(calls.append, "scheduled by it")
        raise error("message")

    schedule(leave)
    with pytest.raises(error) as info:
        loop.run_forever()
    assert str(info.value) == "message"
    assert contexts == []
    assert calls == []
    assert loop.is_running() is False
    assert asyncio._get_running_loop() is None
    turn(loop)
    assert calls == ["scheduled by it"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_the_rest_of_the_batch_is_kept(loop, error):
    calls = []

    def leave():
        calls.append("leave")
        raise error

    loop.call_soon(calls.append, "before")
    loop.call_soon(leave)
    loop.call_soon(calls.append, "after")
    loop.call_soon(leave)
    loop.call_soon(calls.append, "last")
    loop.call_later(-1, calls.append, "timer")
    with pytest.raises(error):
        loop.run_forever()
    assert calls == ["before", "leave"]
    with pytest.raises(error):
        loop.run_forever()
    assert calls == ["before", "leave", "after", "leave"]
    turn(loop)
    assert calls == ["before", "leave", "after", "leave", "last", "timer"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_subclasses_leave_as_well(loop, contexts, error):
    class Sub(error):
        pass

    def leave():
        raise Sub

    loop.call_soon(leave)
    with pytest.raises(Sub):
        loop.run_forever()
    assert contexts == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_out_of_a_task(loop, error):
    calls = []

    async def main():
        loop.call_soon(calls.append, "kept")
        await asyncio.sleep(0)
        raise error("message")

    with pytest.raises(error, match="message"):
        loop.run_until_complete(main())
    assert calls == ["kept"]
    assert not loop.is_running()
    loop.run_until_complete(asyncio.sleep(0))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_out_of_another_task(loop, error):
    async def leave():
        raise error

    async def main():
        await asyncio.gather(leave(), asyncio.sleep(0.001))

    task = loop.create_task(main())
    with pytest.raises(error):
        loop.run_until_complete(task)
    assert not loop.is_running()
    with pytest.raises(error):
        loop.run_until_complete(task)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("stopped", [False, True])
def test_stop_is_forgotten_when_it_leaves(loop, error, stopped):
    calls = []

    def leave():
        if stopped:
            loop.stop()
        raise error

    def second():
        calls.append("second")
        loop.call_soon(third)

    def third():
        calls.append("third")
        loop.stop()

    loop.call_soon(leave)
    loop.call_soon(second)
    with pytest.raises(error):
        loop.run_forever()
    loop.run_forever()
    assert calls == ["second", "third"]


def test_exit_status_of_sys_exit(run_script):
    result = run_script(
        """
        async def main():
            asyncio.get_running_loop().call_later(0.01, sys.exit, 7)
            await asyncio.sleep(1000)
        run(main())
        """,
        returncode=7,
    )
    assert result.stderr == ""


def test_out_of_a_done_callback(loop):
    def leave(future):
        raise SystemExit(3)

    future = loop.create_future()
    future.add_done_callback(leave)
    future.set_result(None)
    with pytest.raises(SystemExit) as info:
        loop.run_forever()
    assert info.value.code == 3


# The exception handler


def test_set_exception_handler(loop):
    assert loop.get_exception_handler() is None
    loop.set_exception_handler(nothing)
    assert loop.get_exception_handler() is nothing
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None


@pytest.mark.parametrize("value", [42, "text", [], object()])
def test_what_is_no_exception_handler(loop, value):
    with pytest.raises(TypeError, match=r"A callable object or None is expected, got"):
        loop.set_exception_handler(value)


def test_the_handler_is_called_with_loop_and_context(loop):
    seen = []
    loop.set_exception_handler(lambda *args: seen.append(args))
    context = {"message": "hello", "extra": 1}
    assert loop.call_exception_handler(context) is None
    assert seen == [(loop, context)]
    assert seen[0][1] is context


def test_the_default_handler_logs(loop, caplog):
    def fail():
        raise ZeroDivisionError("by nothing")

    loop.call_soon(fail)
    turn(loop)
    [record] = caplog.records
    assert record.name == "asyncio"
    assert record.levelno == logging.ERROR
    first, *rest = record.getMessage().splitlines()
    assert first.startswith("Exception in callback ")
    assert "fail()" in first
    assert len(rest) == 1
    assert rest[0].startswith("handle: <Handle ")
    assert record.exc_info[0] is ZeroDivisionError
    assert "ZeroDivisionError: by nothing" in caplog.text


def test_the_default_handler_logs_every_key(loop, caplog):
    loop.call_exception_handler({"message": "news", "b": 2, "a": "one"})
    assert caplog.records[0].getMessage() == "news\na: 'one'\nb: 2"
    assert not caplog.records[0].exc_info
    loop.default_exception_handler({})
    assert caplog.records[1].getMessage() == "Unhandled exception in event loop"


def test_a_handler_that_raises(loop, caplog):
    def broken(loop, context):
        raise ValueError("broken handler")

    def fail():
        raise ZeroDivisionError

    calls = []
    loop.set_exception_handler(broken)
    loop.call_soon(fail)
    loop.call_soon(calls.append, "next")
    turn(loop)
    [record] = caplog.records
    text = record.getMessage()
    assert text.startswith("Unhandled error in exception handler\ncontext: {")
    assert "ZeroDivisionError" in text
    assert record.exc_info[0] is ValueError
    assert calls == ["next"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_handler_that_leaves_the_loop(loop, error):
    def leaving(loop, context):
        raise error("from the handler")

    def fail():
        raise ZeroDivisionError

    calls = []
    loop.set_exception_handler(leaving)
    loop.call_soon(fail)
    loop.call_soon(calls.append, "kept")
    with pytest.raises(error, match="from the handler"):
        loop.run_forever()
    assert calls == []
    turn(loop)
    assert calls == ["kept"]


def test_the_handler_handles_the_exception(loop, schedule):
    """logging.exception() and its like ask for it."""
    seen = []
    loop.set_exception_handler(lambda loop, context: seen.append(sys.exc_info()[1]))
    error = ZeroDivisionError("seen")

    def fail():
        raise error

    try:
        raise KeyError
    except KeyError as outer:
        schedule(fail)
        turn(loop)
        assert sys.exc_info()[1] is outer
    assert seen == [error]


def test_a_protocol_s_exception_is_handled(loop):
    seen = []
    loop.set_exception_handler(lambda loop, context: seen.append(sys.exc_info()[1]))
    a, b = socket.socketpair()

    class Failing(asyncio.Protocol):
        def connection_made(self, transport):
            raise KeyError

        def data_received(self, data):
            raise ZeroDivisionError

        def connection_lost(self, exc):
            lost.set_result(None)
            raise IndexError

    async def main():
        await loop.create_connection(Failing, sock=a)
        b.send(b"x")
        await lost
        await asyncio.sleep(0)

    with b:
        lost = loop.create_future()
        loop.run_until_complete(main())
    assert [type(exc) for exc in seen] == [KeyError, ZeroDivisionError, IndexError]


def test_what_is_handled_outside_stays_outside(loop):
    """A task whose call is reported keeps nothing of the loop's caller."""
    reported = []
    seen = []
    loop.set_exception_handler(lambda loop, context: reported.append(context))
    a, b = socket.socketpair()

    class Failing(asyncio.Protocol):
        def pause_writing(self):
            raise ZeroDivisionError

    async def main(go_on):
        transport, _ = await loop.create_connection(Failing, sock=a)
        transport.set_write_buffer_limits(0)
        transport.write(bytes(1 << 24))
        seen.append(sys.exc_info()[1])
        await go_on
        seen.append(sys.exc_info()[1])
        transport.abort()
        await asyncio.sleep(0)

    with b:
        go_on = loop.create_future()
        task = loop.create_task(main(go_on))
        try:
            raise KeyError
        except KeyError as outer:
            while not reported:
                turn(loop)
            handled = outer
        go_on.set_result(None)
        loop.run_until_complete(task)
    assert seen == [handled, None]


def test_what_a_handler_leaves_with_has_a_context(loop):
    error = ZeroDivisionError()

    def fail():
        raise error

    def leave(loop, context):
        raise SystemExit

    loop.set_exception_handler(leave)
    loop.call_soon(fail)
    with pytest.raises(SystemExit) as caught:
        turn(loop)
    assert caught.value.__context__ is error


def test_a_handler_that_defers_to_the_default(loop, caplog):
    def deferring(loop, context):
        context["note"] = "seen"
        loop.default_exception_handler(context)

    def fail():
        raise ZeroDivisionError

    loop.set_exception_handler(deferring)
    loop.call_soon(fail)
    turn(loop)
    assert "note: 'seen'" in caplog.text


def test_a_handler_that_stops_the_loop(loop):
    def stopping(loop, context):
        loop.stop()

    def fail():
        raise ZeroDivisionError

    loop.set_exception_handler(stopping)
    loop.call_soon(fail)
    loop.run_forever()


def test_a_handler_that_changes_the_handler(loop, contexts):
    def changing(loop, context):
        loop.set_exception_handler(lambda loop, context: contexts.append(context))

    def fail():
        raise ZeroDivisionError

    loop.set_exception_handler(changing)
    loop.call_soon(fail)
    loop.call_soon(fail)
    turn(loop)
    assert len(contexts) == 1


def test_a_default_handler_that_raises(loop, caplog):
    def broken(context):
        raise ValueError("broken default")

    def fail():
        raise ZeroDivisionError

    loop.default_exception_handler = broken
    loop.call_soon(fail)
    turn(loop)
    assert caplog.records[0].getMessage() == "Exception in default exception handler"
    assert caplog.records[0].exc_info[0] is ValueError


def test_both_handlers_raise(loop, caplog):
    def broken(*args):
        raise ValueError("broken")

    def fail():
        raise ZeroDivisionError

    loop.default_exception_handler = broken
    loop.set_exception_handler(broken)
    loop.call_soon(fail)
    turn(loop)
    assert caplog.records[0].getMessage() == (
        "Exception in default exception handler while handling an unexpected error "
        "in custom exception handler"
    )


def test_the_logger_may_be_replaced(loop, monkeypatch):
    errors = []

    class Logger:
        def error(self, message, *args, **kwargs):
            errors.append(message)

        def __getattr__(self, name):
            return nothing

    def fail():
        raise ZeroDivisionError

    monkeypatch.setattr(asyncio.base_events, "logger", Logger())
    loop.call_soon(fail)
    turn(loop)
    monkeypatch.undo()
    assert len(errors) == 1
    assert errors[0].startswith("Exception in callback")


def test_a_handler_in_another_thread_of_a_loop(loop_factory):
    """Each loop reports to its own handler."""
    seen = []

    def fail():
        raise ZeroDivisionError

    def work(name):
        loop = loop_factory()
        loop.set_exception_handler(lambda loop, context: seen.append(name))
        loop.call_soon(fail)
        turn(loop)
        loop.close()

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == ["a", "b", "c"]


# Futures and tasks


def test_an_exception_never_retrieved(loop, contexts):
    future = loop.create_future()
    future.set_exception(ZeroDivisionError())
    del future
    gc.collect()
    [context] = contexts
    assert context["message"] == "Future exception was never retrieved"
    assert isinstance(context["exception"], ZeroDivisionError)
    assert context["future"].done()


def test_a_task_exception_never_retrieved(loop, contexts):
    async def fail():
        raise ZeroDivisionError

    async def main():
        asyncio.create_task(fail(), name="failing")  # noqa: RUF006
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    gc.collect()
    [context] = contexts
    assert context["message"] == "Task exception was never retrieved"
    assert context["future"].get_name() == "failing"


def test_a_task_destroyed_while_pending(loop, contexts):
    async def wait(future):
        await future

    async def main():
        task = asyncio.create_task(wait(loop.create_future()))
        await asyncio.sleep(0)
        del task
        gc.collect()

    loop.run_until_complete(main())
    gc.collect()
    [context] = contexts
    assert context["message"] == "Task was destroyed but it is pending!"


def test_an_exception_in_a_done_callback(loop, contexts):
    calls = []

    def fail(future):
        raise ZeroDivisionError

    future = loop.create_future()
    future.add_done_callback(fail)
    future.add_done_callback(lambda future: calls.append("second"))
    future.set_result(1)
    turn(loop)
    [context] = contexts
    assert isinstance(context["exception"], ZeroDivisionError)
    assert calls == ["second"]


# Memory


def test_allocation_failures_do_not_crash(run_script):
    """Each of the first allocations of a small program fails in turn."""
    pytest.importorskip("_testcapi")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("set_nomemory() is not for a Python without a GIL")
    result = run_script(
        """
        import contextlib, gc, warnings
        import _testcapi
        warnings.simplefilter("ignore")
        sys.unraisablehook = lambda args: None

        def nothing(*args):
            pass

        def program(loop):
            loop.call_soon(nothing, 1, 2, 3, 4, 5)
            loop.call_later(0, nothing).cancel()
            loop.call_later(0, nothing, 1)
            loop.call_soon_threadsafe(nothing)
            loop.create_future().add_done_callback(nothing)
            loop.stop()
            loop.run_forever()

        failed = 0
        gc.disable()
        for number in range(150):
            loop = new_event_loop()
            loop.set_exception_handler(nothing)
            program(loop)
            _testcapi.set_nomemory(number, number + 1)
            try:
                program(loop)
            except MemoryError:
                failed += 1
            finally:
                _testcapi.remove_mem_hooks()
            # Python's own clean-up may have been what failed.
            asyncio._set_running_loop(None)
            with contextlib.suppress(RuntimeError):
                program(loop)
                loop.close()
            del loop
            gc.collect()
        print("failed" if failed else "no allocation failed")
        """
    )
    assert result.stdout == "failed\n"
