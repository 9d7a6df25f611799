"""run_once(): turns by hand, from outside of the loop and from within its callbacks.

asyncio has no such method: these tests run on fastloop alone.
"""

import asyncio
import contextvars
import math
import os
import signal
import socket
import threading
import time

import pytest
from conftest import run_script
from iosupport import TURNS, finish_within, turns_until


@pytest.fixture
def loop_name():
    return "fastloop"


# From outside


def test_what_is_ready_runs(loop):
    seen = []

    def first():
        seen.append("first")
        loop.call_soon(seen.append, "next")
        assert asyncio.get_running_loop() is loop
        assert loop.is_running()

    loop.call_soon(first)
    loop.call_soon(seen.append, "second")
    assert loop.run_once() is None
    assert seen == ["first", "second"]
    assert not loop.is_running()
    assert asyncio._get_running_loop() is None
    loop.run_once()
    assert seen == ["first", "second", "next"]


def test_the_wait_is_bounded(loop):
    for timeout in (0.05, 0.2):
        started = time.monotonic()
        loop.run_once(timeout)
        assert time.monotonic() - started >= timeout


@pytest.mark.parametrize("timeout", [0, 0.0, -1, -math.inf, False])
def test_without_a_wait(loop, timeout):
    loop.call_later(1000, pytest.fail)
    started = time.monotonic()
    for _ in range(10):
        loop.run_once(timeout)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("timeout", [None, 1000, 1e300, math.inf])
def test_an_event_ends_the_wait(loop, timeout):
    seen = []
    timer = threading.Timer(0.02, loop.call_soon_threadsafe, (seen.append, "thread"))
    timer.start()
    turns_until_seen(loop, seen, timeout)
    timer.join()
    assert seen == ["thread"]
    loop.call_later(0.01, seen.append, "timer")
    turns_until_seen(loop, seen, timeout, 2)
    a, b = socket.socketpair()
    with a, b:
        loop.add_reader(a, lambda: seen.append(a.recv(10)))
        b.send(b"data")
        turns_until_seen(loop, seen, timeout, 3)
        loop.remove_reader(a)
    assert seen == ["thread", "timer", b"data"]


def turns_until_seen(loop, seen, timeout, count=1):
    for _ in range(TURNS):
        if len(seen) >= count:
            return
        loop.run_once(timeout)


def test_a_timer_is_on_time_behind_a_wait_that_was_longer_or_shorter(loop):
    due = []
    for timeout in (0.001, 0.5):
        when = loop.time() + 0.03
        loop.call_at(when, lambda: due.append(loop.time()))
        before = len(due)
        while len(due) == before:
            loop.run_once(timeout)
        assert when <= due[-1] < when + 0.4


def test_a_loop_with_a_clock_of_its_own(loop_factory):
    plain = loop_factory()
    plain.close()

    class Clock(type(plain)):
        def time(self):
            return super().time() * 2 + 1000

    loop = Clock()
    seen = []
    loop.call_later(1000, seen.append, "late")
    loop.call_later(0.02, seen.append, "soon")
    for _ in range(TURNS):
        if seen:
            break
        loop.run_once(0.01)
    assert seen == ["soon"]
    loop.close()


def test_stop(loop):
    seen = []
    loop.stop()
    loop.call_soon(seen.append, 1)
    loop.run_once()
    assert seen == [1]
    loop.stop()
    loop.run_once()  # does not wait
    loop.call_soon(loop.stop)
    loop.run_once()
    loop.call_soon(seen.append, 2)
    loop.run_once()
    assert seen == [1, 2]


def test_an_exception_of_a_callback_is_reported(loop):
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))
    loop.call_soon(lambda: 1 / 0)
    loop.run_once()
    assert [type(context["exception"]) for context in contexts] == [ZeroDivisionError]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_exit_leaves_it(loop, kind):
    def leave():
        raise kind

    loop.call_soon(leave)
    loop.call_soon(lambda: seen.append("rest"))
    seen = []
    with pytest.raises(kind):
        loop.run_once()
    assert not loop.is_running()
    loop.run_once()
    assert seen == ["rest"]


def test_ctrl_c_ends_the_wait(loop):
    thread = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        thread.start()
        for _ in range(TURNS):
            loop.run_once(10)
    thread.join()


def test_a_wrong_timeout(loop):
    for timeout in ("1", b"", [], object()):
        with pytest.raises(TypeError):
            loop.run_once(timeout)
    with pytest.raises(ValueError, match="NaN"):
        loop.run_once(math.nan)
    with pytest.raises(TypeError):
        loop.run_once(1, 2)
    assert not loop.is_running()
    loop.run_once(timeout=0)


def test_a_closed_loop(loop_factory):
    loop = loop_factory()
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_once()


def test_another_loop_runs_in_this_thread(loop, loop_factory):
    other = loop_factory()

    async def main():
        with pytest.raises(RuntimeError, match="another loop is running"):
            other.run_once()

    loop.run_until_complete(main())
    other.close()


def test_the_loop_runs_in_another_thread(loop):
    raised = []

    def work():
        try:
            loop.run_once()
        except RuntimeError as exc:
            raised.append(exc)

    async def main():
        thread = threading.Thread(target=work)
        thread.start()
        while thread.is_alive():
            await asyncio.sleep(0.001)

    loop.run_until_complete(main())
    assert "already running" in str(raised[0])


def test_programs_that_have_a_loop_of_their_own(loop, run):
    """Frames of a game, say: connections are served between them."""

    async def echo(reader, writer):
        writer.write(await reader.read(100))
        writer.close()

    async def client(address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"hello")
        data = await reader.read()
        writer.close()
        return data

    server = run(asyncio.start_server(echo, "127.0.0.1", 0))
    task = loop.create_task(client(server.sockets[0].getsockname()))
    turns_until(loop, task.done)
    assert task.result() == b"hello"
    server.close()
    run(server.wait_closed())


# From within


async def nap(value):
    await asyncio.sleep(0.001)
    return value


def test_from_a_task(loop):
    async def main():
        task = asyncio.current_task()
        assert finish_within(loop, nap(1)) == 1
        assert asyncio.current_task() is task
        assert asyncio.get_running_loop() is loop
        await asyncio.sleep(0)
        return finish_within(loop, nap(2))

    async def beside():
        for _ in range(20):
            await asyncio.sleep(0)
            assert asyncio.current_task() is side

    side = loop.create_task(beside())
    assert loop.run_until_complete(main()) == 2
    loop.run_until_complete(side)


def test_from_a_callback(loop):
    found = []

    def call():
        assert asyncio.current_task() is None
        found.append(finish_within(loop, nap(3)))

    loop.call_soon(call)
    loop.call_later(0.001, call)
    turns_until(loop, lambda: len(found) == 2)
    assert found == [3, 3]


def test_within_each_other(loop):
    async def down(depth):
        await asyncio.sleep(0)
        return finish_within(loop, down(depth - 1)) + 1 if depth else 0

    async def main():
        first = loop.create_task(down(10))
        second = loop.create_task(down(5))
        return await first, await second

    assert loop.run_until_complete(main()) == (10, 5)


def test_stop_from_within(loop):
    def call():
        loop.call_soon(loop.stop)
        loop.run_once()
        loop.run_once()  # does not wait any more
        seen.append("call")

    seen = []
    loop.call_soon(call)
    loop.run_forever()
    assert seen == ["call"]


def test_an_exit_from_within(loop):
    async def main():
        loop.call_soon(leave)
        with pytest.raises(SystemExit):
            loop.run_once()
        assert asyncio.current_task() is not None
        await asyncio.sleep(0)
        return "went on"

    def leave():
        raise SystemExit

    assert loop.run_until_complete(main()) == "went on"


def test_the_rest_of_the_batch_may_run_within(loop):
    seen = []

    def call():
        loop.run_once(0)
        seen.append("call")

    loop.call_soon(call)
    for n in range(5):
        loop.call_soon(seen.append, n)
    loop.run_once()
    assert seen == [0, 1, 2, 3, 4, "call"]


def test_contexts(loop):
    variable = contextvars.ContextVar("variable", default="outside")
    seen = []

    def inner():
        seen.append(variable.get())
        variable.set("inner")

    def outer():
        variable.set("outer")
        loop.call_soon(inner)
        loop.run_once()
        seen.append(variable.get())

    loop.call_soon(outer)
    loop.run_once()
    loop.call_soon(lambda: seen.append(variable.get()))
    loop.run_once()
    assert seen == ["outer", "outer", "outside"]


def test_endless_recursion_is_an_error(run_script):
    result = run_script(
        """
        import threading
        seen = []
        def deeper(loop):
            loop.call_soon(deeper, loop)
            loop.run_once()
        def main():
            loop = new_event_loop()
            loop.set_exception_handler(
                lambda loop, context: seen.append(type(context["exception"]))
            )
            loop.call_soon(deeper, loop)
            loop.run_once()
            loop.close()
        main()
        thread = threading.Thread(target=main)
        thread.start()
        thread.join()
        print(set(seen))
        """
    )
    assert result.stdout == "{<class 'RecursionError'>}\n"


def test_debug_mode(loop):
    """The handle that runs is the one again that took the turn."""
    loop.set_debug(True)
    loop.slow_callback_duration = 60
    seen = []

    def call():
        handle = loop._current_handle
        loop.call_soon(lambda: seen.append(loop._current_handle is not handle))
        loop.run_once()
        seen.append(loop._current_handle is handle)

    loop.call_soon(call)
    loop.run_once()
    assert seen == [True, True]
    assert loop._current_handle is None


def test_a_timer_whose_event_the_turn_outside_has_taken(loop):
    """Its batch has a reader's event and the timer's; turns within set the timer anew."""
    a, b = socket.socketpair()
    seen = []

    class Protocol(asyncio.Protocol):
        def data_received(self, data):
            loop.call_later(0.01, seen.append, "new")
            turns_until(loop, lambda: "new" in seen)

    async def main():
        transport, _ = await loop.create_connection(Protocol, sock=a)
        loop.call_later(0.02, seen.append, "old")
        b.send(b"data")
        time.sleep(0.05)
        while len(seen) < 2:
            await asyncio.sleep(0.001)
        transport.close()

    loop.run_until_complete(asyncio.wait_for(main(), 30))
    b.close()
    assert sorted(seen) == ["new", "old"]


def test_what_the_turn_outside_has_found_to_read(loop):
    a, b = socket.socketpair()
    seen = []

    class Protocol(asyncio.Protocol):
        def data_received(self, data):
            seen.append(data)

    def call():
        assert seen == []
        loop.run_once(0)
        assert seen == [b"data"]
        b.send(b"more")
        turns_until(loop, lambda: len(seen) == 2)

    transport, _ = loop.run_until_complete(loop.create_connection(Protocol, sock=a))
    b.send(b"data")
    loop.call_soon(call)
    loop.run_once()
    assert seen == [b"data", b"more"]
    transport.abort()
    loop.run_once()
    b.close()


def test_jobs_and_children_from_within(loop, run):
    async def main():
        assert finish_within(loop, asyncio.to_thread(pow, 3, 2)) == 9
        process = finish_within(
            loop, asyncio.create_subprocess_exec("true", stdin=asyncio.subprocess.PIPE)
        )
        assert finish_within(loop, process.wait()) == 0

    run(main())


def test_signal_handlers_take_turns(loop, run):
    seen = []

    def on_signal():
        loop.call_soon(seen.append, "within")
        loop.run_once()
        seen.append("signal")

    async def main():
        loop.add_signal_handler(signal.SIGUSR1, on_signal)
        os.kill(os.getpid(), signal.SIGUSR1)
        async with asyncio.timeout(30):
            while len(seen) < 2:
                await asyncio.sleep(0.001)
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())
    assert seen == ["within", "signal"]


def test_a_finalizer_takes_a_turn(run_script):
    result = run_script(
        """
        class Last:
            def __del__(self):
                loop.run_once(0)
        loop = new_event_loop()
        for n in range(10):
            loop.call_soon(id, loop)
            loop.call_soon(id, Last())
            loop.call_later(0, id, Last())
            loop.call_soon_threadsafe(id, Last())
        loop.run_until_complete(asyncio.sleep(0.01))
        for n in range(10):
            loop.call_soon(id, Last()).cancel()
            loop.call_later(1000, id, Last()).cancel()
        loop.run_once(0)
        loop.call_soon(id, Last())
        loop.close()
        print("done")
        """
    )
    assert result.stdout.endswith("done\n")


def test_a_value_that_goes_takes_a_turn_between_two_contexts():
    result = run_script(
        """
        import contextvars
        var = contextvars.ContextVar("var")
        seen = []

        def elsewhere(value):
            context = contextvars.Context()
            context.run(var.set, value)
            context.run(loop.call_soon, id, 0)

        class Last:
            def __del__(self):
                elsewhere("another's")
                loop.run_once(0)
                seen.append(dict(handle._context))

        def callback():
            elsewhere(Last())
            loop.run_once(0)
            loop.call_soon(loop.stop)

        loop = new_event_loop()
        handle = loop.call_soon(callback)
        loop.run_forever()
        loop.close()
        print(seen)
        """,
        "fastloop",
    )
    assert result.stdout == "[{}]\n"


def test_an_exit_of_a_turn_between_timers_and_events():
    """What is scheduled meanwhile is for the next turn."""
    result = run_script(
        """
        import contextvars, os, socket, time
        var = contextvars.ContextVar("var")
        turns = []

        class Last:
            def __del__(self):
                try:
                    loop.run_once(0)
                except SystemExit:
                    print("exit")

        def again():
            turns.append(1)
            if len(turns) == 5:
                loop.stop()
            if len(turns) > 100:
                os._exit(1)
            loop.call_soon(again)

        def first():
            context = contextvars.Context()
            context.run(var.set, Last())
            timer = context.run(loop.call_later, 0.001, id, 0)
            loop.call_later(0.002, id, 0)
            timer.cancel()
            loop.call_soon(id, 0)
            loop.call_soon(sys.exit)
            loop.call_soon(again)
            b.send(b"x")
            time.sleep(0.01)

        a, b = socket.socketpair()
        loop = new_event_loop()
        loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=a))
        loop.call_soon(first)
        loop.run_forever()
        print(len(turns))
        """,
        "fastloop",
    )
    assert result.stdout == "exit\n5\n"


def test_nest_asyncio_s_patch_fails_clearly():
    """It replaces run_until_complete() and waits on loop._selector, which is not ours."""
    result = run_script(
        """
        loop = new_event_loop()
        try:
            loop._selector
        except AttributeError as exc:
            print(exc)
        loop.close()
        """,
        "fastloop",
    )
    assert "run_once()" in result.stdout
