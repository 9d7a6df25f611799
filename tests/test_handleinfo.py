"""What handles tell of themselves: attributes, order and repr(), as asyncio's own."""

import asyncio
import functools
import re
import sys

import pytest
from conftest import turn
from test_handle import KINDS, Appender, Thing, is_timer, nothing, schedule


@pytest.mark.parametrize("kind", KINDS)
def test_attributes(loop, kind):
    arg = object()
    handle = schedule(loop, kind, nothing, 1, arg)
    assert handle._callback is nothing
    assert handle._args == (1, arg)
    assert handle._args[1] is arg
    assert handle._loop is loop
    assert handle._cancelled is False
    assert handle._repr is None
    assert handle._source_traceback is None
    if is_timer(kind):
        assert handle._when == handle.when()
        assert handle._scheduled is True
    turn(loop)
    if is_timer(kind):
        assert handle._scheduled is False
    handle.cancel()
    assert handle._cancelled is True


def test_plain_handles_are_equal_by_identity(loop):
    first = loop.call_soon(nothing)
    second = loop.call_soon(nothing)
    assert first == first
    assert first != second
    assert len({first, second}) == 2
    with pytest.raises(TypeError):
        first < second  # noqa: B015
    turn(loop)


def test_when(loop):
    assert loop.call_at(1234.5, nothing).when() == 1234.5
    assert loop.call_at(loop.time() + 1e6, nothing).when() > loop.time() + 999_999
    before = loop.time()
    when = loop.call_later(10, nothing).when()
    after = loop.time()
    assert before + 10 <= when <= after + 10
    assert loop.call_later(-5, nothing).when() < after


def test_when_does_not_change(loop):
    handle = loop.call_at(17.25, nothing)
    turn(loop)
    assert handle.when() == 17.25
    handle.cancel()
    assert handle.when() == 17.25


def timer_pair(loop, first, second):
    """Two timers that are due at first and second, of the loop and of asyncio's class."""
    stock = asyncio.TimerHandle(second, nothing, (), loop)
    return loop.call_at(first, nothing), [loop.call_at(second, nothing), stock]


@pytest.mark.parametrize("stock", [False, True], ids=["own", "stock"])
def test_order_of_timers(loop, stock):
    far = loop.time() + 1000
    first, others = timer_pair(loop, far, far + 1)
    second = others[stock]
    assert first < second
    assert first <= second
    assert second > first
    assert second >= first
    assert not second < first
    assert not second <= first
    assert not first > second
    assert not first >= second
    assert first != second
    assert sorted([second, first]) == [first, second]
    first.cancel()
    second.cancel()


@pytest.mark.parametrize("stock", [False, True], ids=["own", "stock"])
def test_equal_timers(loop, stock):
    far = loop.time() + 1000
    first, others = timer_pair(loop, far, far)
    second = others[stock]
    assert first == second
    assert second == first
    assert not first != second  # noqa: SIM202
    assert not first < second
    assert not first > second
    assert first <= second
    assert first >= second
    assert second <= first
    assert second >= first
    assert hash(first) == hash(second)
    assert len({first, second}) == 1
    second.cancel()
    assert first != second
    assert not first <= second
    assert not first >= second
    first.cancel()
    assert first == second


@pytest.mark.parametrize("stock", [False, True], ids=["own", "stock"])
def test_timers_differ_by_callback_and_arguments(loop, stock):
    far = loop.time() + 1000
    first = loop.call_at(far, nothing, 1)
    for callback, args in [(nothing, (2,)), (nothing, ()), (print, (1,))]:
        if stock:
            second = asyncio.TimerHandle(far, callback, args, loop)
        else:
            second = loop.call_at(far, callback, *args)
        assert first != second
        assert not first <= second
        assert not first >= second


def test_timers_do_not_compare_with_others(loop):
    timer = loop.call_later(1000, nothing)
    soon = loop.call_soon(nothing)
    for other in (soon, 1.0, None, "x", object()):
        assert timer != other
        assert not timer == other  # noqa: SIM201
        for compare in (
            lambda a, b: a < b,
            lambda a, b: a <= b,
            lambda a, b: a > b,
            lambda a, b: a >= b,
        ):
            with pytest.raises(TypeError):
                compare(timer, other)
    turn(loop)


def test_timer_hash(loop):
    assert hash(loop.call_at(1234.5, nothing)) == hash(1234.5)
    handle = loop.call_later(1000, nothing)
    assert hash(handle) == hash(handle.when())


def test_timer_comparison_may_raise(loop):
    class Awkward:
        def __eq__(self, other):
            raise ZeroDivisionError

    far = loop.time() + 1000
    first = loop.call_at(far, nothing, Awkward())
    second = loop.call_at(far, nothing, Awkward())
    with pytest.raises(ZeroDivisionError):
        first == second  # noqa: B015


def place_of(function):
    code = function.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


@pytest.mark.parametrize("kind", KINDS)
def test_repr(loop, kind):
    handle = schedule(loop, kind, nothing)
    name = handle.__class__.__name__
    if sys.version_info < (3, 14):
        assert name == ("TimerHandle" if is_timer(kind) else "Handle")
    when = f" when={handle.when()}" if is_timer(kind) else ""
    source = f"nothing() at {place_of(nothing)}"
    assert repr(handle) == f"<{name}{when} {source}>"
    turn(loop)
    assert repr(handle) == f"<{name}{when} {source}>"
    handle.cancel()
    assert repr(handle) == f"<{name} cancelled{when}>"


@pytest.mark.parametrize("kind", KINDS)
def test_repr_in_debug_mode(loop, kind):
    loop.set_debug(True)
    handle = schedule(loop, kind, nothing, 1, "two")
    line = sys._getframe().f_lineno - 1
    name = handle.__class__.__name__
    when = f" when={handle.when()}" if is_timer(kind) else ""
    source = f"nothing(1, 'two') at {place_of(nothing)}"
    code = schedule.__code__
    created = f"<{name}{when} {source} created at {code.co_filename}:"
    text = repr(handle)
    assert text.startswith(created)
    lines = {number for *_, number in code.co_lines()}
    assert int(text.removeprefix(created).rstrip(">")) in lines
    assert handle._source_traceback[-2].lineno == line
    handle.cancel()
    cancelled = text.replace(f"<{name}", f"<{name} cancelled")
    assert repr(handle) == cancelled
    assert handle._callback is None
    assert handle._args is None
    turn(loop)
    assert repr(handle) == cancelled


def reference_reprs(handle, loop):
    """What asyncio's own class says about the same callback."""
    stock = asyncio.Handle(handle._callback, handle._args, loop)
    text = repr(stock).replace("<Handle", f"<{type(handle).__name__}")
    return re.sub(r"created at .*>", "", text)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(
    ("callback", "args"),
    [
        (nothing, (1, "two", [3] * 100)),
        (functools.partial(nothing, 1), (2,)),
        (functools.partial(functools.partial(nothing, 1), 2), (3,)),
        (functools.partial(print, sep="-"), ()),
        (print, ("x" * 1000,)),
        ([].append, (1,)),
        (Thing().method, ()),
        (Thing, ()),
        (Appender([]), (1,)),
        (lambda: None, ()),
        (functools.lru_cache(nothing), ()),
    ],
    ids=[
        "function",
        "partial",
        "nested-partial",
        "partial-keyword",
        "builtin",
        "builtin-method",
        "method",
        "class",
        "object",
        "lambda",
        "wrapped",
    ],
)
def test_repr_is_the_reference(loop, callback, args, debug):
    loop.set_debug(debug)
    handle = loop.call_soon(callback, *args)
    text = re.sub(r"created at .*>", "", repr(handle))
    assert text == reference_reprs(handle, loop)
    handle.cancel()
    turn(loop)


def test_repr_of_an_argument_may_raise(loop):
    class Awkward:
        def __repr__(self):
            raise ZeroDivisionError

    loop.set_debug(True)
    handle = loop.call_soon(nothing, Awkward())
    assert "Awkward" in repr(handle)  # reprlib's way out
    handle.cancel()
    turn(loop)


def test_repr_of_a_callback_may_raise(loop):
    class Awkward:
        def __call__(self):
            pass

        def __repr__(self):
            raise ZeroDivisionError

    handle = loop.call_soon(Awkward())
    with pytest.raises(ZeroDivisionError):
        repr(handle)
    handle.cancel()
    assert repr(handle) == "<Handle cancelled>"
    turn(loop)


def test_debug_repr_outlives_debug_mode(loop):
    loop.set_debug(True)
    handle = loop.call_soon(nothing, 1)
    handle.cancel()
    text = repr(handle)
    loop.set_debug(False)
    assert repr(handle) == text
    assert "nothing(1)" in text
    turn(loop)
