"""Arguments of the scheduling methods: how they may be given, and what is refused."""

import contextvars

import pytest

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
