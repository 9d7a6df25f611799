"""Timers: what a deadline may be given as, and what of it a handle tells."""

import contextvars
import decimal
import fractions

import pytest
from conftest import turn

HUGE = 10**400
"""A number of seconds that no float holds."""


class Seconds(float):
    """A float of the program's own."""


class Ticks(int):
    """An int of the program's own."""


def nothing(*args):
    pass


@pytest.mark.parametrize(
    "when",
    [
        10**9,
        -1,
        2**53 - 1,
        2**53 + 1,
        -(2**60),
        10.0**9,
        True,
        Seconds(10.5),
        Ticks(7),
        fractions.Fraction(1, 3),
        decimal.Decimal("0.1"),
        HUGE,
        -HUGE,
    ],
    ids=lambda when: f"{type(when).__name__}-{when!s:.12}",
)
def test_call_at_keeps_what_it_was_given(loop, when):
    handle = loop.call_at(when, nothing)
    for kept in (handle.when(), handle._when):
        assert (type(kept), kept) == (type(when), when)
    assert hash(handle) == hash(when)
    assert handle == handle
    if abs(when) < HUGE:
        assert f" when={when} " in repr(handle)
    handle.cancel()
    assert type(handle.when()) is type(when)


def test_call_at_keeps_it_in_debug_mode(loop):
    loop.set_debug(True)
    handle = loop.call_at(True, nothing)
    handle.cancel()
    assert handle.when() is True
    assert " created at " in repr(handle)


def test_deadlines_that_no_float_holds(loop):
    """An int of four hundred digits is a time: over at once, or never."""
    calls = []
    future = loop.call_at(HUGE, calls.append, "never")
    loop.call_at(-HUGE, calls.append, "at once")
    turn(loop)
    assert calls == ["at once"]
    assert future.when() == HUGE
    future.cancel()
    for delay in (HUGE, -HUGE):
        with pytest.raises(OverflowError, match=r"^int too large to convert to float$"):
            loop.call_later(delay, calls.append, "refused")


def test_a_loop_sleeps_while_such_a_deadline_waits(loop, loop_name):
    if loop_name == "asyncio":
        pytest.skip("OverflowError ends the run")
    loop.call_at(HUGE, nothing)
    loop.call_later(0.01, loop.stop)
    loop.run_forever()


@pytest.mark.parametrize(
    "when", ["1", b"1", 1j, []], ids=lambda when: type(when).__name__
)
def test_what_is_no_time_is_refused_at_once(loop, loop_name, when):
    if loop_name == "asyncio":
        pytest.skip("taken, and each run of the loop ends with TypeError")
    with pytest.raises(TypeError, match=r"^must be real number, not "):
        loop.call_at(when, nothing)
    turn(loop)


def test_call_later_is_arithmetic(loop):
    """What loop.time() + delay is, when() is."""

    class Delay(float):
        def __radd__(self, now):
            return fractions.Fraction(now) + fractions.Fraction(1, 3)

    handle = loop.call_later(Delay(1), nothing)
    assert type(handle.when()) is fractions.Fraction
    assert handle.when().denominator % 3 == 0
    for delay in (1, True, Seconds(1), fractions.Fraction(1, 3)):
        assert type(loop.call_later(delay, nothing).when()) is float


def test_call_later_by_a_clock_of_whole_numbers(loop):
    loop.time = lambda: 100
    when = loop.call_later(10, nothing).when()
    assert (type(when), when) == (int, 110)
    del loop.time


def test_cancelled_timers_are_counted_while_destructors_cancel(loop, loop_name):
    """A pass over the cancelled ends contexts, whose values may cancel others."""
    if loop_name == "asyncio":
        pytest.skip("forgets those that are cancelled in its pass")
    variable = contextvars.ContextVar("variable")

    class Canceller:
        def __init__(self, handle):
            self.handle = handle

        def __del__(self):
            self.handle.cancel()
            loop.call_at(1e8, nothing)

    def cancel():
        far.extend(loop.call_at(1e9, nothing) for _ in range(1000))
        near = []
        for number in range(100):
            context = contextvars.Context()
            context.run(variable.set, Canceller(far[number]))
            near.append(loop.call_at(1e8, nothing, context=context))
        del context
        for handle in near:
            handle.cancel()
        del handle
        near.clear()
        for handle in far[100:800]:
            handle.cancel()

    far = []
    loop.call_soon(cancel)
    turn(loop)
    assert far[0].cancelled()
    left = [handle.cancelled() for handle in loop._scheduled]
    assert left.count(True) == loop._timer_cancelled_count


def test_a_repr_that_takes_turns_while_a_timer_is_cancelled(loop, loop_name):
    """The turn finds the timer on its way out: it is counted once all the same."""
    if loop_name != "fastloop":
        pytest.skip("asyncio's loop takes no turns within a callback")

    class Turning:
        def __call__(self):
            pass

        def __repr__(self):
            if loop.is_running() and not turns:
                while loop.time() < handle.when():
                    pass
                turns.append(loop.run_once(0))
            return "Turning()"

    def cancel():
        handle.cancel()
        counts.append(loop._timer_cancelled_count)

    turns, counts = [], []
    loop.set_debug(True)
    handle = loop.call_later(0.001, Turning())
    other = loop.call_later(1000, nothing)
    loop.call_later(0, cancel)
    while not counts:
        turn(loop)
    assert turns == [None]
    assert counts == [0]
    assert loop._scheduled == [other]
    other.cancel()
