"""Arguments of the scheduling methods: how they may be given, and what is refused."""

import contextlib
import contextvars

import pytest
from iosupport import in_thread, raw_pair, read_all, read_exactly, write_pipe
from tlssupport import Certificates, tls_pair

CONTEXT = contextvars.copy_context()

METHODS = {
    "call_soon": (),
    "call_soon_threadsafe": (),
    "call_later": (0,),
    "call_at": (0,),
}


@pytest.fixture(params=METHODS)
def method(request, loop):
    """A method, with what comes before the callback."""
    return getattr(loop, request.param), METHODS[request.param]


@pytest.mark.parametrize("count", [0, 1, 3, 6, 7, 40])
@pytest.mark.parametrize("options", [{}, {"context": None}, {"context": CONTEXT}])
def test_arguments_arrive(loop, method, count, options):
    call, before = method
    got = []

    def callback(*args):
        got.append(args)
        if len(got) == 2:
            loop.stop()

    args = tuple(object() for _ in range(count))
    call(*before, callback, *args, **options)
    call(*before, callback, *args, **options)
    loop.run_forever()
    assert got == [args, args]


def test_names_of_the_first_ones(loop):
    """As in asyncio, what comes before ``*args`` may be given by name."""
    got = []
    loop.call_soon(callback=lambda: got.append(1))
    loop.call_later(0, callback=lambda: got.append(2))
    loop.call_later(delay=0, callback=lambda: got.append(3))
    loop.call_at(when=0, callback=lambda: got.append(4), context=CONTEXT)
    loop.call_soon_threadsafe(callback=lambda: got.append(5))
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert sorted(got) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "missing 1 required positional argument: 'callback'"),
        ((print,), {"contxt": None}, "an unexpected keyword argument 'contxt'"),
        ((print,), {"callback": print}, "multiple values for argument 'callback'"),
        ((print,), {"args": (1,)}, "an unexpected keyword argument 'args'"),
    ],
)
def test_wrong_arguments(loop, method, args, kwargs, message):
    call, before = method
    with pytest.raises(TypeError, match=message):
        call(*before, *args, **kwargs)


def test_missing_time(loop):
    for call in (loop.call_later, loop.call_at):
        with pytest.raises(TypeError, match="missing 2 required positional arguments"):
            call()


@pytest.mark.parametrize("context", [1, "context", {}])
def test_wrong_context(loop, method, context):
    """Refused at once or, as asyncio does, reported when the callback is due."""
    call, before = method
    reported = []
    loop.set_exception_handler(lambda _loop, report: reported.append(report))
    ran = []
    try:
        call(*before, ran.append, 1, context=context)
    except (TypeError, AttributeError):
        pass
    else:
        loop.call_later(0.01, loop.stop)
        try:
            loop.run_forever()
        except (TypeError, AttributeError):
            pass
        else:
            assert len(reported) == 1
    assert ran == []


def test_missing_time_before_a_named_callback(loop):
    for call, name in ((loop.call_later, "delay"), (loop.call_at, "when")):
        message = f"missing 1 required positional argument: '{name}'"
        with pytest.raises(TypeError, match=message):
            call(callback=print)


# Methods of one argument


@contextlib.asynccontextmanager
async def stream():
    async with raw_pair() as (protocol, peer):
        yield protocol, lambda: in_thread(read_exactly, peer, 3)


@contextlib.asynccontextmanager
async def pipe():
    async with write_pipe() as (protocol, file):
        yield protocol, lambda: in_thread(read_all, file, 3)


@contextlib.asynccontextmanager
async def tls():
    certificates = Certificates()
    async with tls_pair(certificates) as (client, server):
        yield client, lambda: server.received(3)


@pytest.mark.parametrize("kind", [stream, pipe, tls])
@pytest.mark.parametrize(
    ("method", "name"),
    [("write", "data"), ("writelines", "list_of_data"), ("set_protocol", "protocol")],
)
def test_one_argument(loop, run, kind, method, name):
    async def main():
        async with kind() as (protocol, received):
            call = getattr(protocol.transport, method)
            value = {"write": b"abc", "writelines": [b"a", b"bc"]}.get(method, protocol)
            call(**{name: value})
            if method == "set_protocol":
                assert protocol.transport.get_protocol() is protocol
            else:
                assert await received() == b"abc"
            with pytest.raises(TypeError, match=f"missing .* argument: '{name}'"):
                call()
            with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
                call(other=value)
            with pytest.raises(TypeError, match=f"multiple values .* '{name}'"):
                call(value, **{name: value})
            with pytest.raises(TypeError, match=r"takes .* argument.* were given"):
                call(value, value)

    run(main())
