"""sock_* coroutines stepped by hand: sent to, thrown into, closed, collected, named."""

import asyncio
import gc
import socket
import sys
import weakref

import pytest
from iosupport import is_stock, turns


def ended(coro, value=None):
    """Step coro to its end and return its result."""
    with pytest.raises(StopIteration) as info:
        coro.send(value)
    return info.value.value


def test_stepped_by_hand(loop, pair):
    a, b = pair
    coro = loop.sock_recv(a, 10)
    with pytest.raises(TypeError, match="can't send non-None value to a just-started"):
        coro.send(1)
    waiting = coro.send(None)
    assert asyncio.isfuture(waiting)
    b.send(b"x")
    loop.run_until_complete(waiting)
    assert ended(coro) == b"x"
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coro.send(None)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coro.throw(ValueError())
    assert coro.close() is None


def test_a_tuple_is_the_result_as_it_is(loop, udp_pair):
    a, b = udp_pair
    b.sendto(b"x", a.getsockname())
    coro = loop.sock_recvfrom(a, 10)
    assert ended(coro) == (b"x", b.getsockname())


def test_stepped_as_an_iterator(loop, pair):
    a, b = pair
    coro = loop.sock_recv(a, 10)
    steps = coro.__await__()
    waiting = next(steps)
    b.send(b"x")
    loop.run_until_complete(waiting)
    with pytest.raises(StopIteration) as info:
        next(steps)
    assert info.value.value == b"x"


def test_stepped_before_the_wait_is_over(loop, pair):
    a, _ = pair
    coro = loop.sock_recv(a, 10)
    coro.send(None)
    with pytest.raises(RuntimeError, match="await wasn't used with future"):
        coro.send(None)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coro.send(None)
    # asyncio waits for the future that it made, which nobody has.
    assert loop.remove_reader(a) is is_stock(loop)


def failing_here():
    raise ValueError("from here")


@pytest.mark.parametrize("waiting", [False, True])
@pytest.mark.parametrize(
    ("args", "text"),
    [  # not exceptions themselves, which keep the traceback of each test
        (lambda: (ValueError("thrown"),), "thrown"),
        (lambda: (ValueError,), ""),
        (lambda: (ValueError, "thrown"), "thrown"),
        (lambda: (ValueError, None, None), ""),
        (lambda: (ValueError, ValueError("thrown")), "thrown"),
        (lambda: (GeneratorExit, "thrown"), "thrown"),
    ],
)
@pytest.mark.filterwarnings("ignore:the .* signature of throw:DeprecationWarning")
def test_thrown_into(loop, pair, waiting, args, text):
    a, b = pair
    coro = loop.sock_recv(a, 10)
    if waiting:
        coro.send(None)
    with pytest.raises((ValueError, GeneratorExit)) as info:
        coro.throw(*args())
    assert str(info.value) == text
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coro.send(None)
    assert loop.remove_reader(a) is (waiting and is_stock(loop))
    b.send(b"kept")
    assert loop.run_until_complete(loop.sock_recv(a, 10)) == b"kept"


@pytest.mark.filterwarnings("ignore:the .* signature of throw:DeprecationWarning")
def test_thrown_with_a_traceback(loop, pair):
    a, _ = pair
    with pytest.raises(ValueError) as before:
        failing_here()
    coro = loop.sock_recv(a, 10)
    with pytest.raises(ValueError) as info:
        coro.throw(ValueError, None, before.tb)
    assert info.traceback[-1].name == "failing_here"


@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.filterwarnings("ignore:the .* signature of throw:DeprecationWarning")
def test_thrown_again(loop, pair, by_class):
    """Thrown as class and value, an exception begins a new traceback."""
    a, _ = pair
    with pytest.raises(ValueError) as before:
        failing_here()
    coro = loop.sock_recv(a, 10)
    with pytest.raises(ValueError) as info:
        coro.throw(*([ValueError] if by_class else []), before.value)
    assert info.value is before.value
    names = [entry.name for entry in info.traceback]
    assert ("failing_here" in names) is not by_class


@pytest.mark.filterwarnings("ignore:the .* signature of throw:DeprecationWarning")
def test_thrown_wrongly(loop, pair):
    a, b = pair
    coro = loop.sock_recv(a, 10)
    with pytest.raises(TypeError, match=r"throw expected at least 1|1 to 3 arguments"):
        coro.throw()
    with pytest.raises(TypeError, match=r"throw expected at most 3|1 to 3 arguments"):
        coro.throw(ValueError, None, None, None)
    with pytest.raises(TypeError, match="must be classes or instances deriving from"):
        coro.throw(17)
    with pytest.raises(TypeError, match="instance exception may not have a separate"):
        coro.throw(ValueError(), 1)
    with pytest.raises(TypeError, match="third argument must be a traceback object"):
        coro.throw(ValueError, None, 17)
    # None of them is a step.
    b.send(b"x")
    assert loop.run_until_complete(coro) == b"x"


def test_closed_while_waiting(loop, pair):
    a, b = pair
    coro = loop.sock_recv(a, 10)
    coro.send(None)
    assert coro.close() is None
    assert coro.close() is None
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coro.send(None)
    assert loop.remove_reader(a) is is_stock(loop)
    b.send(b"kept")
    assert loop.run_until_complete(loop.sock_recv(a, 10)) == b"kept"


def test_collected_while_waiting(loop, pair):
    a, b = pair
    coro = loop.sock_recv(a, 10)
    coro.send(None)
    del coro
    gc.collect()
    assert loop.remove_reader(a) is is_stock(loop)
    b.send(b"kept")
    assert loop.run_until_complete(loop.sock_recv(a, 10)) == b"kept"


def test_collected_in_a_cycle(loop, pair):
    a, _ = pair

    class Buffer(bytearray):
        pass

    buffer = Buffer(10)
    buffer.coro = loop.sock_recv_into(a, buffer)
    buffer.coro.send(None)
    gone = weakref.ref(buffer.coro)
    del buffer
    gc.collect()
    # asyncio's reader, which refers to the buffer, is still there.
    assert (gone() is None) is not is_stock(loop)
    assert loop.remove_reader(a) is is_stock(loop)


def test_never_awaited(loop, pair):
    a, b = pair
    b.send(b"kept")
    with pytest.warns(RuntimeWarning, match=r"sock_recv' was never awaited"):
        loop.sock_recv(a, 10)
        gc.collect()
    assert loop.run_until_complete(loop.sock_recv(a, 10)) == b"kept"


def test_awaited_twice(loop, run, pair):
    a, b = pair

    async def main():
        coro = loop.sock_recv(a, 10)
        task = asyncio.create_task(coro)
        await turns()
        with pytest.raises(RuntimeError, match="coroutine is being awaited already"):
            await coro
        b.send(b"x")
        assert await task == b"x"
        with pytest.raises(
            RuntimeError, match="cannot reuse already awaited coroutine"
        ):
            await coro

    run(main())


class Socket(socket.socket):
    """Calls its hook before it receives."""

    def recv(self, n):
        self.hook()
        return super().recv(n)


@pytest.fixture
def hooked():
    a, b = socket.socketpair()
    with a, b, Socket(fileno=a.detach()) as sock:
        sock.setblocking(False)
        yield sock, b


def test_touched_while_it_runs(loop, run, hooked):
    sock, peer = hooked
    seen = []

    def hook():
        seen.append(coro.cr_running)
        for touch in (
            lambda: coro.send(None),
            lambda: coro.throw(ValueError()),
            coro.close,
        ):
            with pytest.raises(ValueError, match="coroutine already executing"):
                touch()

    sock.hook = hook
    peer.send(b"x")
    coro = loop.sock_recv(sock, 10)
    assert coro.cr_running is False
    assert run(coro) == b"x"
    assert coro.cr_running is False
    assert seen == [True]


def test_stop_iteration_of_a_socket_is_no_result(loop, run, hooked):
    sock, _ = hooked
    error = StopIteration("no result")

    def hook():
        raise error

    sock.hook = hook
    with pytest.raises(RuntimeError, match="coroutine raised StopIteration") as info:
        run(loop.sock_recv(sock, 10))
    assert info.value.__cause__ is error


def test_names_and_repr(loop, pair):
    coro = loop.sock_recv(pair[0], 10)
    assert coro.__name__ == "sock_recv"
    assert coro.__qualname__.endswith(".sock_recv")
    assert repr(coro).startswith(f"<coroutine object {coro.__qualname__} at 0x")
    coro.close()


@pytest.mark.parametrize("depth", [1, 2, 1000])
def test_origin_in_debug_mode(loop, run, pair, depth):
    def make():
        return loop.sock_recv(pair[0], 10)

    async def main():
        before = sys.get_coroutine_origin_tracking_depth()
        sys.set_coroutine_origin_tracking_depth(depth)
        try:
            return make()
        finally:
            sys.set_coroutine_origin_tracking_depth(before)

    loop.set_debug(True)
    coro = run(main())
    origin = coro.cr_origin
    coro.close()
    assert [entry[2] for entry in origin[:2]] == ["make", "main"][:depth]
    assert {entry[0] for entry in origin[:2]} == {__file__}
    assert len(origin) == depth or 2 < len(origin) < depth
