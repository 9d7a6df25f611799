"""The end of a loop: close, and what the garbage collector makes of it."""

import asyncio
import gc
import logging
import os
import socket
import weakref

import pytest
from conftest import turn

CLOSED = r"^Event loop is closed$"


def nothing(*args):
    pass


# close


def test_close(loop):
    assert loop.close() is None
    assert loop.is_closed() is True
    assert loop.is_running() is False
    assert loop.close() is None
    assert loop.is_closed() is True


def test_close_while_running(loop):
    async def main():
        with pytest.raises(RuntimeError, match=r"^Cannot close a running event loop$"):
            loop.close()
        assert not loop.is_closed()
        await asyncio.sleep(0.001)
        return "still running"

    assert loop.run_until_complete(main()) == "still running"


def test_closed_loop_refuses(loop):
    a, b = socket.socketpair()
    loop.close()

    async def main():
        pass

    with a, b:
        for call in (
            lambda: loop.call_soon(nothing),
            lambda: loop.call_soon_threadsafe(nothing),
            lambda: loop.call_later(1, nothing),
            lambda: loop.call_at(1, nothing),
            lambda: loop.run_forever(),
            lambda: loop.run_until_complete(loop.create_future()),
            lambda: loop.run_in_executor(None, nothing),
            lambda: loop.add_reader(a, nothing),
            lambda: loop.add_writer(a, nothing),
        ):
            with pytest.raises(RuntimeError, match=CLOSED):
                call()
    for call in (loop.create_task, loop.run_until_complete):
        coroutine = main()
        with pytest.raises(RuntimeError, match=CLOSED):
            call(coroutine)
        coroutine.close()


def test_closed_loop_still_answers(loop, caplog):
    a, b = socket.socketpair()
    loop.close()
    with a, b:
        assert loop.remove_reader(a) is False
        assert loop.remove_writer(a) is False
    assert loop.create_future().get_loop() is loop
    loop.set_debug(True)
    assert loop.get_debug() is True
    loop.set_debug(False)
    loop.set_exception_handler(None)
    loop.set_task_factory(None)
    loop.call_exception_handler({"message": "late news"})
    assert [record.getMessage() for record in caplog.records] == ["late news"]


def test_closed_loop_of_a_coroutine(loop):
    """A future of a closed loop: its callbacks cannot be scheduled."""
    future = loop.create_future()
    future.add_done_callback(nothing)
    loop.close()
    with pytest.raises(RuntimeError, match=CLOSED):
        future.set_result(None)


def test_close_drops_callbacks(loop_factory):
    class Thing:
        pass

    loop = loop_factory()
    thing = Thing()
    ref = weakref.ref(thing)
    calls = []
    loop.call_soon(calls.append, thing)
    loop.call_soon_threadsafe(calls.append, thing)
    loop.call_later(0, calls.append, thing)
    del thing
    loop.close()
    assert calls == []
    gc.collect()
    assert ref() is None


def test_close_with_finalizers_that_use_the_loop(run_script):
    """What is dropped by close() may reach for the loop; it finds it closed."""
    result = run_script(
        """
        class Last:
            def __init__(self, loop):
                self.loop = loop
            def __del__(self):
                for call in (
                    lambda: self.loop.close(),
                    lambda: self.loop.call_soon(print, "soon"),
                    lambda: self.loop.call_later(0, print, "later"),
                    lambda: self.loop.call_soon_threadsafe(print, "threadsafe"),
                    lambda: self.loop.run_forever(),
                    lambda: self.loop.stop(),
                    lambda: repr(self.loop),
                ):
                    try:
                        call()
                    except RuntimeError as exc:
                        print(exc)

        for method in ("call_soon", "call_soon_threadsafe", "call_later"):
            loop = new_event_loop()
            args = (1000,) if method == "call_later" else ()
            for n in range(3):
                getattr(loop, method)(*args, print, Last(loop))
            loop.close()
            print(loop.is_closed())
            del loop
        import gc
        gc.collect()
        print("alive")
        """
    )
    lines = result.stdout.splitlines()
    assert lines[-1] == "alive"
    assert lines.count("True") == 3
    assert lines.count("Event loop is closed") == 9 * 4
    assert set(lines) == {"alive", "True", "Event loop is closed"}


def test_close_frees_descriptors(loop_factory):
    loop_factory().close()
    gc.collect()  # what others left is not to be closed meanwhile
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        loop = loop_factory()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    assert len(os.listdir("/proc/self/fd")) == before


# Garbage


def test_a_loop_that_was_not_closed_warns(loop_factory):
    loop = loop_factory()
    text = repr(loop)
    with pytest.warns(ResourceWarning) as caught:
        del loop
        gc.collect()
    messages = [str(warning.message) for warning in caught]
    assert messages == [f"unclosed event loop {text}"]


def test_a_loop_that_was_not_closed_frees_descriptors(loop_factory):
    loop_factory().close()
    gc.collect()  # what others left is not to be closed meanwhile
    before = len(os.listdir("/proc/self/fd"))
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        for _ in range(5):
            loop = loop_factory()
            loop.call_soon(nothing)
            del loop
            gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("debug", [True, False])
def test_cycles_of_loop_and_callbacks_are_collected(loop_factory, closed, debug):
    class Thing:
        pass

    loop = loop_factory()
    loop.set_debug(debug)
    thing = Thing()
    thing.loop = loop
    thing.soon = loop.call_soon(nothing, thing)
    thing.later = loop.call_later(1000, nothing, thing)
    thing.threadsafe = loop.call_soon_threadsafe(nothing, thing)
    thing.future = loop.create_future()
    thing.future.add_done_callback(lambda future: thing)
    loop.thing = thing
    loop.set_exception_handler(lambda *args, loop=loop: None)
    loop.set_task_factory(lambda *args, loop=loop: None)
    refs = [weakref.ref(loop), weakref.ref(thing)]
    if closed:
        loop.close()
        del loop, thing
        gc.collect()
    else:
        with pytest.warns(ResourceWarning, match="unclosed event loop"):
            del loop, thing
            gc.collect()
        gc.collect()  # the warning had the loop as its source
    assert [ref() for ref in refs] == [None, None]


def test_a_suspended_task_of_a_closed_loop_is_collected(loop_factory, caplog):
    loop = loop_factory()

    async def main(future):
        await future

    task = loop.create_task(main(loop.create_future()))
    turn(loop)
    loop.close()
    refs = [weakref.ref(loop), weakref.ref(task)]
    with caplog.at_level(logging.ERROR, "asyncio"):
        del loop, task
        gc.collect()
    assert [ref() for ref in refs] == [None, None]
    assert "Task was destroyed but it is pending" in caplog.text


def test_close_sends_what_an_exit_has_left(run_script):
    """Each end of the loop may be cut short by another exit."""
    result = run_script(
        """
        import contextlib, socket

        class Exits(asyncio.DatagramProtocol):
            def error_received(self, exc):
                raise SystemExit

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            nobody = sock.getsockname()
        a, b = socket.socketpair()
        b.setblocking(False)
        endpoints = []

        async def main():
            for _ in range(5):
                transport, _ = await loop.create_datagram_endpoint(
                    Exits, remote_addr=nobody
                )
                endpoints.append(transport)
            return await loop.create_connection(asyncio.Protocol, sock=a)

        def write():
            for endpoint in endpoints:
                with contextlib.suppress(SystemExit):  # asyncio's sends at once
                    for _ in range(3):
                        endpoint.sendto(b"x")
            transport.write(b"sent")
            loop.stop()

        loop = new_event_loop()
        transport, _ = loop.run_until_complete(main())
        loop.call_soon(write)
        with contextlib.suppress(SystemExit):
            loop.run_forever()
        with contextlib.suppress(SystemExit):
            loop.close()
        print(loop.is_closed(), b.recv(100))
        """
    )
    assert result.stdout == "True b'sent'\n"


# what the garbage collector makes of handles


def test_a_handle_outlives_its_loop_s_last_user(run_script):
    result = run_script(
        """
        import gc

        def handles():
            def callback():
                return len("abc")
            def later():
                return len("later")
            loop = new_event_loop()
            yield loop.call_soon(callback)
            yield loop.call_later(1000, later)
            yield loop.call_soon_threadsafe(lambda: len("threadsafe"))

        held = list(handles())
        gc.collect()
        print(*[handle._callback() for handle in held])
        """,
        options=("-W", "error"),
    )
    assert result.stdout == "3 5 10\n"


def test_a_loop_that_has_a_handle_twice_is_collected(run_script):
    result = run_script(
        """
        import gc, weakref

        def main():
            def callback():
                return len("abc")
            loop = new_event_loop()
            ref = weakref.ref(loop)
            loop._add_callback(loop.call_soon(callback))
            del loop
            gc.collect()
            return callback(), ref()

        print(main())
        """
    )
    assert result.stdout == "(3, None)\n"
