"""Loops that programs change: attributes, patched methods, subclasses."""

import asyncio
import gc
import inspect
import socket
from unittest import mock

import pytest
from conftest import run_script, turn


@pytest.fixture
def loop_class(loop_factory):
    """The class of the loops that loop_factory makes."""
    loop = loop_factory()
    loop.close()
    return type(loop)


# Instances and classes that users change


def test_attributes_of_ones_own(loop):
    loop.answer = 42
    assert loop.answer == 42
    assert vars(loop)["answer"] == 42
    del loop.answer
    assert not hasattr(loop, "answer")
    loop.slow_callback_duration = 5
    assert loop.slow_callback_duration == 5


def test_call_soon_can_be_patched(loop):
    calls = []
    original = loop.call_soon

    def call_soon(callback, *args, context=None):
        calls.append(callback)
        return original(callback, *args, context=context)

    loop.call_soon = call_soon

    async def main():
        future = loop.create_future()
        future.add_done_callback(marker)
        future.set_result(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def marker(future):
        pass

    loop.run_until_complete(main())
    assert marker in calls
    assert len(calls) >= 4, "steps of tasks go through the patch as well"
    del loop.call_soon
    count = len(calls)
    loop.run_until_complete(asyncio.sleep(0))
    assert len(calls) == count


@pytest.mark.parametrize("name", ["call_soon", "time", "call_later"])
def test_a_method_cannot_be_deleted(loop, name):
    """It is the class's; only a replacement can be."""
    message = f"^'{type(loop).__name__}' object has no attribute '{name}'$"
    for _ in range(2):
        with pytest.raises(AttributeError, match=message):
            delattr(loop, name)
        with pytest.raises(AttributeError, match=message):
            delattr(loop, name)
        setattr(loop, name, print)
        assert getattr(loop, name) is print
        delattr(loop, name)
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_call_soon_patched_while_running(loop, monkeypatch):
    seen = []

    async def main():
        original = loop.call_soon
        with monkeypatch.context() as patch:
            patch.setattr(
                loop,
                "call_soon",
                lambda *args, **kwargs: seen.append(args) or original(*args, **kwargs),
            )
            await asyncio.sleep(0)
        count = len(seen)
        assert count > 0
        await asyncio.sleep(0)
        assert len(seen) == count

    loop.run_until_complete(main())


def test_call_exception_handler_can_be_patched(loop):
    contexts = []
    loop.call_exception_handler = contexts.append

    def fail():
        raise ZeroDivisionError

    loop.call_soon(fail)
    turn(loop)
    assert [type(context["exception"]) for context in contexts] == [ZeroDivisionError]


def test_getaddrinfo_can_be_patched(loop, run):
    asked = []

    async def getaddrinfo(host, port, **kwargs):
        asked.append((host, port))
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address)]

    async def main():
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        nonlocal address
        address = server.sockets[0].getsockname()
        transport, _ = await loop.create_connection(asyncio.Protocol, "a.invalid", 1)
        assert transport.get_extra_info("peername") == address
        transport.close()
        server.close()
        await asyncio.sleep(0)

    address = None
    loop.getaddrinfo = getaddrinfo
    run(main())
    assert ("a.invalid", 1) in asked


def test_methods_can_be_patched(loop, monkeypatch):
    """Whatever is assigned is what is called, and is gone when it is deleted."""
    for name in (
        "call_soon",
        "call_soon_threadsafe",
        "call_later",
        "call_at",
        "run_forever",
        "run_until_complete",
        "stop",
        "close",
        "time",
        "create_task",
        "create_future",
        "run_in_executor",
        "shutdown_asyncgens",
        "shutdown_default_executor",
        "add_reader",
        "add_signal_handler",
        "default_exception_handler",
        "is_running",
        "get_debug",
    ):
        with monkeypatch.context() as patch:
            patch.setattr(loop, name, lambda *args, name=name: (name, args))
            assert getattr(loop, name)(1) == (name, (1,))
        assert getattr(loop, name) is not None
        assert name not in vars(loop) or name == "call_soon"


def test_a_subclass_may_override_scheduling(loop_class):
    class Counting(loop_class):
        def __init__(self, name):
            super().__init__()
            self.name = name
            self.soon = 0
            self.later = []
            self.at = 0
            self.runs = 0
            self.tasks = []

        def call_soon(self, callback, *args, context=None):
            self.soon += 1
            return super().call_soon(callback, *args, context=context)

        def call_later(self, delay, callback, *args, context=None):
            self.later.append(delay)
            return super().call_later(delay, callback, *args, context=context)

        def run_forever(self):
            self.runs += 1
            super().run_forever()

        def create_task(self, coro, **kwargs):
            self.tasks.append(kwargs)
            return super().create_task(coro, **kwargs)

    loop = Counting("name")
    assert loop.name == "name"
    assert isinstance(loop, loop_class)

    async def child():
        await asyncio.sleep(0)

    async def main():
        before = loop.soon
        await asyncio.sleep(0)
        assert loop.soon == before + 1
        await asyncio.sleep(0.001)
        await loop.create_task(child(), name="child")

    loop.run_until_complete(main())
    assert loop.later == [0.001]
    assert loop.runs == 1
    assert [kwargs.get("name") for kwargs in loop.tasks] == [None, "child"]
    loop.close()


def test_a_subclass_may_override_the_exception_handlers(loop_class):
    class Own(loop_class):
        def __init__(self):
            super().__init__()
            self.contexts = []
            self.defaults = []

        def call_exception_handler(self, context):
            self.contexts.append(context)
            super().call_exception_handler(context)

        def default_exception_handler(self, context):
            self.defaults.append(context)

    loop = Own()

    def fail():
        raise ZeroDivisionError

    loop.call_soon(fail)
    turn(loop)
    assert len(loop.contexts) == 1
    assert loop.defaults == loop.contexts
    loop.close()


def test_a_subclass_may_override_close_and_stop(loop_class):
    calls = []

    class Own(loop_class):
        def close(self):
            calls.append("close")
            super().close()

        def stop(self):
            calls.append("stop")
            super().stop()

    loop = Own()
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert calls == ["stop", "close"]
    loop = Own()
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        del loop
        gc.collect()
    assert calls == ["stop", "close", "close"]


def test_misused_classes_do_not_crash(run_script):
    """A loop without __init__, one with two, and a subclass that forgets it."""
    result = run_script(
        """
        import inspect, gc, warnings
        warnings.simplefilter("ignore")
        sys.unraisablehook = lambda args: None
        kind = type(new_event_loop())

        class Forgetful(kind):
            def __init__(self):
                pass

        def use(loop):
            for name in sorted(dir(kind)):
                if name.startswith("__") or name in ("run_forever", "shutdown"):
                    continue
                method = getattr(loop, name, None)
                if not callable(method):
                    continue
                for args in ((), (print,), (0, print), (print, 0, 0)):
                    try:
                        result = method(*args)
                    except Exception:
                        continue
                    if inspect.iscoroutine(result):
                        result.close()
            try:
                repr(loop)
            except Exception:
                pass

        for make in (lambda: kind.__new__(kind), Forgetful):
            try:
                loop = make()
            except Exception:
                continue
            use(loop)
            del loop
            gc.collect()
        loop = new_event_loop()
        loop.call_soon(print, "called")
        try:
            loop.__init__()
        except Exception:
            pass
        loop.close()
        loop.__init__()
        loop.close()
        del loop
        gc.collect()
        print("alive")
        """
    )
    assert result.stdout.endswith("alive\n")


@pytest.mark.parametrize("name", ["call_soon", "call_later", "call_at", "time"])
def test_signatures(loop, name):
    bound = inspect.signature(getattr(loop, name))
    unbound = inspect.signature(getattr(type(loop), name))
    assert list(unbound.parameters) == ["self", *bound.parameters]
    assert callable(getattr(mock.create_autospec(type(loop)), name))


def test_wrong_arguments_of_plain_methods(loop):
    for call in (
        lambda: loop.stop(1),
        lambda: loop.close(1),
        lambda: loop.run_forever(1),
        lambda: loop.run_until_complete(),
        lambda: loop.is_running(1),
        lambda: loop.time(1),
        lambda: loop.create_future(1),
        lambda: loop.set_debug(),
        lambda: loop.create_task(),
        lambda: loop.set_exception_handler(),
    ):
        with pytest.raises(TypeError):
            call()


def test_a_method_borrowed_by_something_else():
    """It is no loop, and has no room for what stands in for the method."""
    result = run_script(
        """
        loop = new_event_loop()
        Loop = type(loop)

        class Other:
            call_soon = Loop.call_soon
            time = Loop.time

        def set_one():
            Other().time = 3

        for call in (
            lambda: Other().call_soon,
            lambda: Other().time,
            set_one,
            lambda: Loop.call_soon.__get__(3, int),
            lambda: Loop.call_soon.__set__(3, print),
            lambda: Loop.call_soon.__delete__(3),
        ):
            try:
                call()
            except TypeError as exc:
                print(exc)

        class Derived(Loop):
            pass

        for made in (Derived(), type("Further", (Derived,), {})()):
            made.call_soon(made.stop)
            made.run_forever()
            made.close()
        loop.close()
        """,
        "fastloop",
    )
    doesnt = (
        "descriptor '{}' for 'fastloop.Loop' objects doesn't apply to a '{}' object"
    )
    assert result.stdout.splitlines() == [
        doesnt.format("call_soon", "Other"),
        doesnt.format("time", "Other"),
        doesnt.format("time", "Other"),
        *[doesnt.format("call_soon", "int")] * 3,
    ]
