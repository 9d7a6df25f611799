"""Timers: when they fire, in which order, and what they refuse."""

import asyncio
import datetime
import decimal
import fractions
import functools
import itertools
import math
import random
import sysconfig
import threading
import time
import weakref

import pytest
from conftest import TIMEOUT, turn

RESOLUTION = time.get_clock_info("monotonic").resolution

LATE = 20.0
"""Seconds that a timer may be late on a machine that is busy with something else."""


def nothing(*args):
    pass


def run_until(loop, predicate):
    """Run turns of loop that may sleep until predicate() holds, TIMEOUT at the most."""

    async def wait():
        async with asyncio.timeout(TIMEOUT):
            while not predicate():
                await asyncio.sleep(0.001)

    loop.run_until_complete(wait())


# The clock


def test_deadlines_before_the_clock_began_are_in_order(loop):
    """The clock may have begun when the machine did, a minute ago."""
    fired = []
    deadlines = [-5, -1e6, 2, -3.5, 0, -100.25, 1, -math.inf]
    for when in deadlines:
        loop.call_at(when, fired.append, when)
    turn(loop)
    assert fired == sorted(deadlines)


def test_time_is_monotonic_time(loop):
    before = time.monotonic()
    now = loop.time()
    after = time.monotonic()
    assert before <= now <= after
    assert type(now) is float


def test_time_never_goes_back(loop):
    times = [loop.time() for _ in range(10_000)]
    assert times == sorted(times)


def test_time_has_full_resolution(loop):
    """Milliseconds would repeat: the clock moves within one."""
    times = [loop.time() for _ in range(1000)]
    assert len(set(times)) > 100


def test_time_moves_within_a_callback(loop):
    times = []

    def callback():
        times.append(loop.time())
        time.sleep(0.01)
        times.append(loop.time())

    loop.call_soon(callback)
    turn(loop)
    assert times[1] - times[0] >= 0.01


def test_time_of_a_closed_loop(loop):
    loop.close()
    assert loop.time() <= time.monotonic()


# When timers fire


def test_timers_are_never_early(loop):
    choose = random.Random(3)
    fired = []
    handles = []

    def callback(number):
        fired.append((loop.time(), handles[number].when()))

    for number in range(300):
        handles.append(loop.call_later(choose.random() * 0.1, callback, number))
    run_until(loop, lambda: len(fired) == 300)
    early = [(now, when) for now, when in fired if now + 2 * RESOLUTION < when]
    assert early == []


def test_each_timer_alone_is_never_early(loop):
    """The loop sleeps before each of them, whatever the fraction of a millisecond."""

    async def main():
        early = []
        for n in range(60):
            future = loop.create_future()
            delay = 0.0005 + n * 0.000137
            when = loop.call_later(delay, future.set_result, None).when()
            await future
            now = loop.time()
            if now + 2 * RESOLUTION < when:
                early.append((delay, when - now))
        return early

    assert loop.run_until_complete(main()) == []


def test_an_idle_loop_wakes_for_its_timer(loop):
    start = loop.time()
    loop.call_later(0.05, loop.stop)
    loop.run_forever()
    assert 0.05 <= loop.time() - start < LATE


def test_call_at(loop):
    start = loop.time()
    loop.call_at(start + 0.05, loop.stop)
    loop.run_forever()
    assert 0.05 <= loop.time() - start < LATE


@pytest.mark.parametrize("delay", [0, 0.0, -1, -1e9, -math.inf, False, 1e-12])
def test_delays_that_are_over(loop, delay):
    calls = []
    loop.call_later(delay, calls.append, 1)
    time.sleep(0.001)
    turn(loop)
    assert calls == [1]


@pytest.mark.parametrize("when", [0, -1, -1e300, -math.inf, True])
def test_deadlines_that_are_over(loop, when):
    calls = []
    loop.call_at(when, calls.append, 1)
    turn(loop)
    assert calls == [1]


@pytest.mark.parametrize("delay", [1e5, 1e9, 1e18, 1e19, 1e300, math.inf, 10**30])
def test_delays_without_end(loop, delay):
    calls = []
    handle = loop.call_later(delay, calls.append, "never")
    assert handle.when() >= delay
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert calls == []
    assert not handle.cancelled()
    handle.cancel()


@pytest.mark.parametrize("delay", [1e5, 1e9, 1e18, 1e300, math.inf])
def test_a_loop_that_sleeps_without_end_can_be_woken(loop, delay):
    loop.call_later(delay, nothing)
    timer = threading.Timer(0.05, loop.call_soon_threadsafe, (loop.stop,))
    timer.start()
    loop.run_forever()
    timer.join()


def test_fractions_are_delays(loop):
    calls = []
    half = fractions.Fraction(1, 100)
    handle = loop.call_later(half, calls.append, 1)
    assert abs(handle.when() - loop.time()) < LATE
    run_until(loop, lambda: calls == [1])


def test_call_at_keeps_the_type_of_when(loop):
    """asyncio hands back what it was given."""
    for when in (10**9, -1, 2**53 - 1, 10.0**9):
        handle = loop.call_at(when, nothing)
        for kept in (handle.when(), handle._when):
            assert (type(kept), kept) == (type(when), when)
        assert f" when={when} " in repr(handle)
        assert hash(handle) == hash(when)
        handle.cancel()
    assert type(loop.call_later(10, nothing).when()) is float


@pytest.mark.parametrize(
    "delay",
    ["1", b"1", [], object(), datetime.timedelta(1), decimal.Decimal(1)],
    ids=lambda delay: type(delay).__name__,
)
def test_delays_of_the_wrong_type(loop, delay):
    with pytest.raises(TypeError):
        loop.call_later(delay, nothing)
    turn(loop)


def test_delay_none(loop):
    with pytest.raises(TypeError, match=r"^delay must not be None$"):
        loop.call_later(None, nothing)
    with pytest.raises(TypeError, match=r"^when cannot be None$"):
        loop.call_at(None, nothing)
    turn(loop)


def test_delay_beyond_a_float(loop):
    with pytest.raises(OverflowError):
        loop.call_later(10**400, nothing)


def test_delay_whose_conversion_raises(loop):
    class Awkward:
        def __radd__(self, other):
            raise ZeroDivisionError

        def __float__(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop.call_later(Awkward(), nothing)
    turn(loop)


@pytest.mark.parametrize("method", ["call_later", "call_at"])
def test_not_a_number(run_script, method):
    """asyncio fails the run; whatever a loop does, the process lives on."""
    result = run_script(
        f"""
        import math
        loop = new_event_loop()
        try:
            for number in range(3):
                loop.{method}(math.nan, print, "called")
                loop.call_later(0.01 * number, print, "other")
            loop.call_later(0.05, loop.stop)
            loop.run_forever()
        except ValueError as exc:
            print(exc)
        finally:
            loop.close()
        print("alive")
        """
    )
    assert result.stdout.endswith("alive\n")


# Order


def test_order_of_deadlines(loop):
    choose = random.Random(5)
    numbers = list(range(2000))
    choose.shuffle(numbers)
    past = loop.time() - 1000
    calls = []
    for number in numbers:
        loop.call_at(past + number / 1000, calls.append, number)
    turn(loop)
    assert calls == sorted(numbers)


def test_negative_delays_are_ordered_by_deadline(loop):
    calls = []
    for number in (1, 3, 2, 5, 4):
        loop.call_later(-number, calls.append, number)
    turn(loop)
    assert calls == [5, 4, 3, 2, 1]


def test_equal_deadlines_in_order_of_scheduling(loop, loop_name):
    if loop_name == "asyncio":
        pytest.skip("its heap keeps no order among equals")
    calls = []
    for when in (loop.time() - 1, loop.time() + 0.002):
        for number in range(500):
            loop.call_at(when, calls.append, number)
    for _ in range(250):
        loop.call_at(when, nothing).cancel()
    run_until(loop, lambda: len(calls) == 1000)
    assert calls == [*range(500), *range(500)]


def test_due_timers_run_behind_what_is_ready(loop):
    """asyncio: the turn polls, adds due timers to the ready queue and runs that."""
    calls = []

    def first():
        calls.append("first")
        loop.call_soon(calls.append, "next turn")

    loop.call_soon(first)
    loop.call_later(0, calls.append, "timer")
    loop.call_soon(calls.append, "second")
    time.sleep(0.001)
    turn(loop)
    assert calls == ["first", "second", "timer"]
    turn(loop)
    assert calls == ["first", "second", "timer", "next turn"]


@pytest.mark.parametrize("delay", [0, 1e-6, 2e-5, 5e-5, 2e-4, 2e-3])
def test_a_timer_beside_turns_that_follow_at_once(loop, delay):
    """It runs in the turn behind the first that saw it due, and not before."""
    fired, over = [], []

    def again():
        if fired:
            loop.stop()
            return
        over.append(loop.time() >= when)
        loop.call_soon(again)

    for _ in range(20):
        fired.clear()
        over.clear()
        when = loop.time() + delay
        loop.call_at(when, lambda: fired.append(loop.time()))
        loop.call_soon(again)
        loop.run_forever()
        assert fired[0] >= when
        assert sum(over) <= 2


def test_a_timer_made_by_a_callback_waits_for_the_next_turn(loop):
    calls = []

    def again():
        calls.append("again")
        loop.call_later(0, again)
        loop.call_at(loop.time() - 1, again)

    loop.call_soon(again)
    turn(loop)
    assert calls == ["again"]
    time.sleep(0.001)
    turn(loop)
    assert calls == ["again"] * 3


def test_a_timer_made_by_a_timer_waits_for_the_next_turn(loop):
    calls = []

    def first():
        calls.append("first")
        loop.call_at(loop.time() - 100, calls.append, "older")

    loop.call_at(loop.time() - 10, first)
    loop.call_at(loop.time() - 1, calls.append, "second")
    turn(loop)
    assert calls == ["first", "second"]
    turn(loop)
    assert calls == ["first", "second", "older"]


def test_a_due_timer_cancels_its_neighbour(loop):
    calls = []
    past = loop.time() - 1
    loop.call_at(past, lambda: neighbour.cancel())
    neighbour = loop.call_at(past + 0.1, calls.append, "neighbour")
    loop.call_at(past + 0.2, calls.append, "last")
    turn(loop)
    assert calls == ["last"]


def test_order_of_sleeps(loop):
    choose = random.Random(9)
    woken = []

    async def sleeper(delay):
        await asyncio.sleep(delay)
        woken.append(delay)

    async def main():
        delays = [0.002 + choose.randrange(400) / 10_000 for _ in range(300)]
        now = loop.time()
        sleepers = []
        for delay in delays:
            future = loop.create_future()
            loop.call_at(now + delay, future.set_result, delay)
            future.add_done_callback(lambda future: woken.append(future.result()))
            sleepers.append(future)
        await asyncio.gather(*sleepers)
        assert woken == sorted(delays)
        woken.clear()
        await asyncio.gather(*map(sleeper, (0.09, 0.001, 0.05)))
        assert len(woken) == 3

    loop.run_until_complete(main())


def test_sleep_zero_alternates(loop):
    calls = []

    async def worker(name):
        for n in range(3):
            calls.append((name, n))
            await asyncio.sleep(0)

    async def main():
        await asyncio.gather(worker("a"), worker("b"))

    loop.run_until_complete(main())
    assert calls == [(name, n) for n in range(3) for name in "ab"]


# Across runs and turns


def test_timers_survive_between_runs(loop):
    calls = []
    handle = loop.call_later(0.2, calls.append, 1)
    turn(loop)
    assert calls == []
    time.sleep(max(handle.when() - loop.time(), 0) + 0.01)
    assert calls == []
    turn(loop)
    assert calls == [1]


def test_stop_does_not_wait_for_timers(loop):
    handle = loop.call_later(1000, nothing)
    start = time.monotonic()
    turn(loop)
    assert time.monotonic() - start < LATE
    handle.cancel()


def test_a_cancelled_first_timer_does_not_hold_back_the_second(loop):
    loop.call_later(0.01, nothing).cancel()
    first = loop.call_later(1000, nothing)
    start = loop.time()
    loop.call_later(0.02, loop.stop)
    first.cancel()
    loop.run_forever()
    assert loop.time() - start < LATE


def test_an_earlier_timer_added_while_the_loop_sleeps(loop):
    start = loop.time()
    handle = loop.call_later(1000, nothing)
    timer = threading.Timer(
        0.02, loop.call_soon_threadsafe, (loop.call_later, 0.02, loop.stop)
    )
    timer.start()
    loop.run_forever()
    timer.join()
    assert 0.02 <= loop.time() - start < LATE
    handle.cancel()


def test_timers_are_not_held_back_by_work(loop):
    """A queue that is never empty still leaves each turn its due timers."""
    turns = 0
    fired = []

    def work():
        nonlocal turns
        turns += 1
        if len(fired) < 20:
            loop.call_soon(work)
        else:
            loop.stop()

    def tick():
        fired.append(loop.time())
        loop.call_later(0.002, tick)

    loop.call_soon(work)
    loop.call_later(0.002, tick)
    start = loop.time()
    loop.run_forever()
    assert len(fired) == 20
    assert loop.time() - start < LATE
    assert turns > 20


def test_a_timer_that_reschedules_itself(loop):
    times = []

    def tick():
        times.append(loop.time())
        if len(times) == 50:
            loop.stop()
        else:
            loop.call_later(0.001, tick)

    loop.call_soon(tick)
    loop.run_forever()
    assert all(b - a >= 0.001 - RESOLUTION for a, b in itertools.pairwise(times))


def test_close_lets_go_of_timers(loop):
    class Thing:
        pass

    thing = Thing()
    ref = weakref.ref(thing)
    calls = []
    handle = loop.call_later(0, calls.append, thing)
    loop.call_later(1000, calls.append, thing)
    del thing
    loop.close()
    assert calls == []
    assert not handle.cancelled()
    handle.cancel()
    assert handle.cancelled()
    del handle
    assert ref() is None


def test_cancel_of_many_in_every_order(loop):
    choose = random.Random(11)
    calls = []
    now = loop.time()
    handles = [loop.call_at(now - n % 97, calls.append, n) for n in range(3000)]
    choose.shuffle(handles)
    kept = handles[:500]
    for handle in handles[500:]:
        handle.cancel()
    turn(loop)
    expected = sorted(handle._args[0] for handle in kept)
    assert sorted(calls) == expected
    ages = [number % 97 for number in calls]
    assert ages == sorted(ages, reverse=True)


@pytest.mark.skipif(
    sysconfig.get_config_var("Py_GIL_DISABLED") == 1,
    reason="its allocator gives memory back when it likes",
)
@pytest.mark.parametrize("end", ["run", "cancel"])
def test_the_memory_of_very_many_is_given_back(run_script, end):
    """A few that are kept for new timers must not lie among all that others had."""
    result = run_script(
        """
        import gc, random, resource

        def resident():
            gc.collect()
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * resource.getpagesize()

        async def main():
            loop = asyncio.get_running_loop()
            draw = random.Random(1)
            count = left = 300_000
            done = loop.create_future()
            def called():
                nonlocal left
                left -= 1
                if not left:
                    done.set_result(None)
            before = resident()
            start = loop.time() + 1
            handles = [loop.call_at(start + draw.random(), called) for _ in range(count)]
            peak = resident()
            if sys.argv[1] == "run":
                handles.clear()
                await done
            else:
                for first in 0, 1:
                    for number in range(first, count, 2):
                        handles[number].cancel()
                        handles[number] = None
                handles.clear()
            await asyncio.sleep(0)
            print(peak - before, resident() - before)

        run(main())
        """,
        args=[end],
    )
    peak, after = map(int, result.stdout.split())
    assert after < peak / 2


def test_cancel_and_schedule_by_turns(loop):
    """What a server does with its time limits; the heap must not grow with it."""
    calls = []
    keeper = loop.call_later(1000, calls.append, "keeper")
    handle = loop.call_later(500, calls.append, "limit")
    dead = []
    refs = []
    for _ in range(50):
        for _ in range(100):
            handle.cancel()
            handle = loop.call_later(500, calls.append, "limit")
            refs.append(weakref.ref(handle, dead.append))
        turn(loop)
    assert len(refs) - len(dead) < 1000
    assert calls == []
    handle.cancel()
    keeper.cancel()


# Callables


@pytest.mark.parametrize("method", ["call_later", "call_at"])
def test_debug_mode_refuses_what_cannot_be_called(loop, method):
    async def coroutine_function():
        pass

    loop.set_debug(True)
    call = functools.partial(getattr(loop, method), loop.time() + 1000)
    for value in (None, 42, "text", []):
        with pytest.raises(
            TypeError, match=r"a callable object was expected by call_at\(\), got"
        ):
            call(value)
    coroutine = coroutine_function()
    for value in (coroutine, coroutine_function):
        with pytest.raises(
            TypeError, match=r"^coroutines cannot be used with call_at\(\)$"
        ):
            call(value)
    coroutine.close()


@pytest.mark.parametrize("method", ["call_later", "call_at"])
def test_without_debug_mode_the_call_fails(loop, method):
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))
    getattr(loop, method)(-1, 42)
    turn(loop)
    assert [type(context["exception"]) for context in contexts] == [TypeError]
    assert contexts[0]["message"].startswith("Exception in callback")


# Clocks of one's own


def test_a_clock_on_the_instance(loop):
    """Tests of programs put a clock of theirs on the loop."""
    now = [100.0]
    calls = []
    loop.time = lambda: now[0]
    handle = loop.call_later(10, calls.append, "later")
    loop.call_at(105, calls.append, "at")
    assert handle.when() == 110
    turn(loop)
    assert calls == []
    now[0] = 106.0
    turn(loop)
    assert calls == ["at"]
    now[0] = 111.0
    turn(loop)
    assert calls == ["at", "later"]
    del loop.time


def test_a_clock_of_a_subclass(loop_factory):
    probe = loop_factory()
    probe.close()

    class Shifted(type(probe)):
        now = 100.0

        def time(self):
            return self.now

    loop = Shifted()
    calls = []
    handle = loop.call_later(10, calls.append, "later")
    loop.call_at(105, calls.append, "at")
    assert handle.when() == 110
    turn(loop)
    assert calls == []
    loop.now = 106.0
    turn(loop)
    assert calls == ["at"]
    loop.now = 111.0
    turn(loop)
    assert calls == ["at", "later"]
    loop.close()


def test_a_clock_that_runs_ahead_of_time(loop_factory):
    """A loop for tests that skips what it would sleep."""
    probe = loop_factory()
    probe.close()

    class Skipping(type(probe)):
        skipped = 0.0

        def time(self):
            return super().time() + self.skipped

        def skip(self, seconds):
            self.skipped += seconds

    loop = Skipping()

    async def main():
        start = loop.time()
        loop.call_soon(loop.skip, 3600)
        await asyncio.sleep(3600)
        return loop.time() - start

    started = time.monotonic()
    assert loop.run_until_complete(main()) >= 3600
    assert time.monotonic() - started < LATE
    loop.close()


# Time limits


def test_timeout(loop, run):
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await loop.create_future()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.create_future(), 0.01)
        async with asyncio.timeout(1000) as limit:
            limit.reschedule(loop.time() + 2000)
        assert not limit.expired()
        return "done"

    assert run(main()) == "done"
    assert all(handle.cancelled() for handle in loop._scheduled)
