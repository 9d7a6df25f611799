"""loop.slow_callback_hook: callbacks that take too long, named."""

import asyncio
import functools
import logging
import socket
import time

import pytest
from iosupport import Recorder, in_thread, raw_pair, read_exactly
from test_free_threading import FREE_THREADED


@pytest.fixture
def loop_name():
    """asyncio's loops have nothing of this."""
    return "fastloop"


LIMIT = 0.02


def here():
    import sys

    return f"{__file__}:{sys._getframe(1).f_lineno}"


class Told(list):
    """Records of what called block() or spin().

    On a busy machine anything else may take as long, and is named with right.
    """

    blocked = False

    def hear(self, record):
        if self.blocked or record.name == "sleep":
            Told.blocked = False
            self.append(record)


@pytest.fixture
def slow(loop):
    """What the hook was told of."""
    Told.blocked = False
    seen = Told()
    loop.slow_callback_duration = LIMIT
    loop.slow_callback_hook = seen.hear
    return seen


def block():
    time.sleep(LIMIT * 1.5)
    Told.blocked = True


def spin():
    until = time.thread_time() + LIMIT * 1.5
    while time.thread_time() < until:
        pass
    Told.blocked = True


BLOCK = f"{__file__}:{block.__code__.co_firstlineno}"


def test_a_callback(loop, slow, caplog):
    loop.call_soon(block)
    loop.call_soon(print)
    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.run_until_complete(asyncio.sleep(0))
    [record] = slow
    assert (record.kind, record.name, record.source) == ("callback", "block", BLOCK)
    assert LIMIT <= record.wall_seconds < 10
    assert record.cpu_seconds < record.wall_seconds / 2
    assert record.callback is block
    assert record.task is None
    message = f"Slow {record}"
    assert [r.getMessage() for r in caplog.records].count(message) == 1
    assert f"callback block at {BLOCK} took 0." in message


def test_processor_time(loop, slow):
    loop.call_soon(spin)
    loop.run_until_complete(asyncio.sleep(0))
    [record] = slow
    assert record.cpu_seconds >= LIMIT
    assert record.cpu_seconds <= record.wall_seconds


def test_a_partial_and_a_callable_object(loop, slow):
    class Callable:
        def __call__(self):
            block()

    loop.call_soon(functools.partial(functools.partial(block)))
    loop.call_soon(Callable())
    loop.run_until_complete(asyncio.sleep(0))
    partial, called = slow
    assert (partial.name, partial.source) == ("block", BLOCK)
    assert "Callable" in called.name
    assert called.source == f"{__file__}:{Callable.__call__.__code__.co_firstlineno}"


def test_a_task_that_goes_on(loop, slow):
    lines = []

    async def work():
        await asyncio.sleep(0)
        block()
        lines.append(here())
        await asyncio.sleep(0)  # the next line is where it waits

    async def main():
        task = asyncio.create_task(work(), name="worker")
        await task
        return task

    task = loop.run_until_complete(main())
    [record] = slow
    assert record.kind == "task"
    assert record.name.startswith("worker (")
    assert record.name.endswith("work)")
    file, _, line = lines[0].rpartition(":")
    assert record.source == f"{file}:{int(line) + 1}"
    assert record.task is task


def test_a_task_that_ends(loop, slow):
    async def main():
        block()

    loop.run_until_complete(main())
    [record] = slow
    assert record.kind == "task"
    assert record.source == f"{__file__}:{main.__code__.co_firstlineno}"


def test_a_task_deep_in_others(loop, slow):
    lines = []

    async def inner():
        block()
        lines.append(here())
        await asyncio.sleep(0.001)

    async def main():
        await inner()

    loop.run_until_complete(main())
    [record] = slow
    file, _, line = lines[0].rpartition(":")
    assert record.source == f"{file}:{int(line) + 1}"
    assert record.name.endswith("main)")


def test_a_wake_up_of_a_task(loop, slow):
    async def main():
        await asyncio.sleep(0.001)
        block()

    loop.run_until_complete(main())
    [record] = slow
    assert record.kind == "task"


def test_a_timer(loop, slow):
    loop.call_later(0.001, block)
    loop.run_until_complete(asyncio.sleep(0.005))
    [record] = slow
    assert (record.kind, record.name) == ("timer", "block")


def test_a_reader(loop, slow):
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def read():
            ours.recv(1)
            block()
            loop.stop()

        loop.add_reader(ours, read)
        theirs.send(b"x")
        loop.run_forever()
        loop.remove_reader(ours)
    [record] = slow
    assert record.name.endswith("read")
    assert record.source == f"{__file__}:{read.__code__.co_firstlineno}"


class Slow(asyncio.Protocol):
    def data_received(self, data):
        block()


class SlowBuffered(asyncio.BufferedProtocol):
    def get_buffer(self, hint):
        return bytearray(10)

    def buffer_updated(self, count):
        block()


class SlowDatagrams(asyncio.DatagramProtocol):
    def datagram_received(self, data, addr):
        block()


async def settle(slow):
    for _ in range(1000):
        if slow:
            break
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("cls", [Slow, SlowBuffered])
def test_a_protocol(loop, slow, run, cls):
    async def main():
        server = await loop.create_server(cls, "127.0.0.1", 0)
        transport, _ = await loop.create_connection(
            asyncio.Protocol, *server.sockets[0].getsockname()
        )
        transport.write(b"x")
        await settle(slow)
        transport.close()
        server.close()
        await asyncio.sleep(0.01)

    run(main())
    [record] = slow
    method = "data_received" if cls is Slow else "buffer_updated"
    assert (record.kind, record.name) == ("protocol", f"{cls.__name__}.{method}")
    assert record.source == f"{__file__}:{getattr(cls, method).__code__.co_firstlineno}"


def test_a_datagram_protocol(loop, slow, run):
    async def main():
        transport, _ = await loop.create_datagram_endpoint(
            SlowDatagrams, local_addr=("127.0.0.1", 0)
        )
        transport.sendto(b"x", transport.get_extra_info("sockname"))
        await settle(slow)
        transport.close()
        await asyncio.sleep(0)

    run(main())
    [record] = slow
    assert record.name == "SlowDatagrams.datagram_received"


def test_a_protocol_s_other_methods(loop, slow, run):
    class Made(asyncio.Protocol):
        def connection_made(self, transport):
            block()

    async def main():
        ours, theirs = socket.socketpair()
        with theirs:
            transport, _ = await loop.create_connection(Made, sock=ours)
            transport.close()
            await asyncio.sleep(0)

    run(main())
    [record] = slow
    assert record.kind == "protocol"
    assert record.name.endswith("Made.connection_made")


def test_a_factory(loop, slow, run):
    def factory():
        block()
        return asyncio.Protocol()

    async def main():
        server = await loop.create_server(factory, "127.0.0.1", 0)
        transport, _ = await loop.create_connection(
            asyncio.Protocol, *server.sockets[0].getsockname()
        )
        await settle(slow)
        transport.close()
        server.close()
        await asyncio.sleep(0.01)

    run(main())
    [record] = slow
    assert record.kind == "server"
    assert record.name.startswith("accept, with ")
    assert record.name.endswith("factory")


def test_fast_ones_are_not_named(loop):
    slow = []
    loop.slow_callback_duration = 10
    loop.slow_callback_hook = slow.append
    for _ in range(100):
        loop.call_soon(int)
    loop.run_until_complete(asyncio.sleep(0.001))
    assert slow == []


def test_each_callback_is_timed(loop, slow):
    before = loop.metrics().callback_duration.count
    for _ in range(100):
        loop.call_soon(int)
    loop.run_until_complete(asyncio.sleep(0))
    assert loop.metrics().callback_duration.count - before >= 100


def test_the_limit_is_that_of_the_moment(loop, slow):
    loop.slow_callback_duration = 100
    loop.call_soon(block)
    loop.run_until_complete(asyncio.sleep(0))
    assert slow == []
    loop.slow_callback_duration = LIMIT
    loop.call_soon(block)
    loop.run_until_complete(asyncio.sleep(0))
    assert len(slow) == 1


def test_off_by_default_and_again(loop, slow, caplog):
    loop.slow_callback_hook = None
    assert loop.slow_callback_hook is None
    loop.call_soon(block)
    loop.run_until_complete(asyncio.sleep(0))
    assert slow == []
    assert caplog.records == []


def test_switched_on_in_the_middle_of_a_batch(loop):
    seen = []

    def switch():
        loop.slow_callback_duration = LIMIT
        loop.slow_callback_hook = seen.append

    loop.call_soon(switch)
    loop.run_until_complete(asyncio.sleep(0))
    loop.call_soon(block)
    loop.run_until_complete(asyncio.sleep(0))
    assert [record.name for record in seen].count("block") == 1


def test_only_what_can_be_called(loop):
    with pytest.raises(TypeError, match="callable"):
        loop.slow_callback_hook = 1
    del loop.slow_callback_hook
    assert loop.slow_callback_hook is None


def test_what_the_hook_raises_is_reported(loop):
    contexts = []

    def hook(record):
        if record.name == "block":
            raise ZeroDivisionError

    loop.slow_callback_duration = LIMIT
    loop.slow_callback_hook = hook
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    loop.call_soon(block)
    loop.run_until_complete(asyncio.sleep(0))
    [context] = contexts
    assert context["message"] == "Exception in slow_callback_hook"
    assert isinstance(context["exception"], ZeroDivisionError)


def test_the_hook_may_leave_the_loop(loop):
    def hook(record):
        raise KeyboardInterrupt

    loop.slow_callback_duration = LIMIT
    loop.slow_callback_hook = hook
    loop.call_soon(block)
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(asyncio.sleep(0.01))
    loop.slow_callback_hook = None


def test_a_callback_that_raises_is_reported_as_ever(loop, slow):
    contexts = []

    def fail():
        block()
        raise ZeroDivisionError

    loop.set_exception_handler(lambda _, context: contexts.append(context))
    loop.call_soon(fail)
    loop.run_until_complete(asyncio.sleep(0))
    assert len(contexts) == 1
    assert len(slow) == 1


def test_debug_mode_has_its_own_words(loop, slow, caplog):
    loop.set_debug(True)
    loop.call_soon(block)
    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.run_until_complete(asyncio.sleep(0))
    assert [record.name for record in slow] == ["block"]
    messages = [r.getMessage() for r in caplog.records if "took" in r.getMessage()]
    words = [message.startswith("Executing <Handle block()") for message in messages]
    assert words.count(True) == 1


def test_a_hook_that_leads_back_to_the_loop_is_collected(loop_factory):
    import gc
    import weakref

    loop = loop_factory()
    loop.slow_callback_hook = functools.partial(print, loop)
    loop.close()
    reference = weakref.ref(loop)
    del loop
    gc.collect()
    assert reference() is None


def test_a_hook_that_is_taken_off_at_the_log_message(loop, slow):
    class TakeOff(logging.Handler):
        def emit(self, record):
            loop.slow_callback_hook = None

    handler = TakeOff()
    logger = logging.getLogger("asyncio")
    logger.addHandler(handler)
    try:
        loop.call_soon(block)
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        logger.removeHandler(handler)
    assert loop.slow_callback_hook is None
    assert slow == []


def wrapped(function):
    @functools.wraps(function)
    def call(*args):
        return function(*args)

    return call


def wrapped_again(function, times):
    for _ in range(times):
        function = wrapped(function)
    return function


class Made:
    def __init__(self):
        block()


@pytest.mark.parametrize(
    ("callback", "name", "source"),
    [
        (wrapped(block), "block", BLOCK),
        # Only so many wrappers are looked at.
        (wrapped_again(block, 20), "block", None),
        (Made, "Made", f"{__file__}:{Made.__init__.__code__.co_firstlineno}"),
        (functools.partial(time.sleep, LIMIT * 1.5), "sleep", ""),
    ],
    ids=["wrapped", "wrapped too often", "a class", "builtin"],
)
def test_names_of_what_is_called(loop, slow, callback, name, source):
    loop.call_soon(callback)
    loop.run_until_complete(asyncio.sleep(0))
    [record] = slow
    assert record.name == name
    if source is not None:
        assert record.source == source


def test_a_task_very_deep_in_others(loop, slow):
    async def deep(n):
        if n > 0:
            return await deep(n - 1)
        await asyncio.sleep(0)
        block()
        await asyncio.sleep(0)

    loop.run_until_complete(deep(20))
    [record] = slow
    assert record.kind == "task"
    line = deep.__code__.co_firstlineno + 2
    assert record.source == f"{__file__}:{line}"


def test_a_slow_resume_writing(loop, slow, run):
    class Resumed(Recorder):
        def resume_writing(self):
            block()
            super().resume_writing()

    async def main():
        async with raw_pair(Resumed) as (protocol, peer):
            size = 5_000_000
            protocol.transport.write(bytes(size))
            await in_thread(read_exactly, peer, size)
            await protocol.until(lambda: "resume" in protocol.events)

    run(main())
    # What brought the bytes to the peer may have been slow, too, on a busy machine.
    [record] = [each for each in slow if each.name.endswith("Resumed.resume_writing")]
    assert record.kind == "protocol"


@pytest.mark.skipif(FREE_THREADED, reason="the executor is asyncio's without a GIL")
def test_a_job_of_the_executor(loop, slow):
    class Slow(asyncio.Future):
        def set_result(self, result):
            block()
            super().set_result(result)

    loop.create_future = lambda: Slow(loop=loop)
    assert loop.run_until_complete(loop.run_in_executor(None, int)) == 0
    del loop.create_future
    assert [record.kind for record in slow] == ["executor"]


def test_what_wakes_an_operation_on_a_socket(loop, slow):
    """No callback of the program's: the record says what the loop itself did."""
    loop.slow_callback_duration = 0
    slow = []
    loop.slow_callback_hook = slow.append
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        loop.call_later(0.01, theirs.send, b"x")
        assert loop.run_until_complete(loop.sock_recv(ours, 10)) == b"x"
    [record] = [record for record in slow if record.kind == "reader"]
    assert (record.name, record.source, record.callback) == ("Reader", "", None)


@pytest.mark.parametrize(
    ("duration", "named"),
    [(0, True), (-1, True), (float("nan"), False), (float("inf"), False)],
)
def test_limits_that_are_no_time(loop, slow, duration, named):
    loop.slow_callback_duration = duration
    loop.call_soon(block)
    loop.run_until_complete(asyncio.sleep(0))
    assert [record.name for record in slow] == ["block"] * named
