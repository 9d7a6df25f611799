"""What the loop shows of its inside, under asyncio's names."""

import asyncio
import threading

from conftest import turn


def nothing(*args):
    pass


async def nothing_to_await():
    pass


def test_what_is_ready_are_handles(loop):
    """A task's first step and the callback of a future, for whoever looks."""
    future = loop.create_future()
    future.add_done_callback(print)
    future.set_result(None)
    task = loop.create_task(nothing_to_await())
    handles = list(loop._ready)
    assert len(handles) == 2
    assert all(isinstance(handle, asyncio.Handle) for handle in handles)
    assert handles[0]._callback is print
    assert handles[0]._args == (future,)
    assert "print" in repr(handles[0])
    assert handles[1]._args in ((), None)
    assert list(loop._ready) == handles, "the same ones the next time"
    handles[0].cancel()
    loop.run_until_complete(task)


def test_scheduled_timers_are_visible(loop):
    """Debuggers and test helpers walk loop._scheduled and measure loop._ready."""
    assert len(loop._ready) == 0
    soon = loop.call_soon(nothing)
    timers = {loop.call_later(1000 + n, nothing) for n in range(3)}
    assert len(loop._ready) == 1
    assert set(loop._scheduled) == timers
    assert all(isinstance(timer, asyncio.TimerHandle) for timer in loop._scheduled)
    soon.cancel()
    turn(loop)
    assert len(loop._ready) == 0


def test_state_of_a_run(loop):
    seen = []
    assert loop._thread_id is None
    loop.call_soon(lambda: seen.append(loop._thread_id))
    turn(loop)
    assert seen == [threading.get_ident()]
    assert loop._thread_id is None
    assert loop._stopping is False
    loop.stop()
    assert loop._stopping is True
    loop.run_forever()
    assert loop._stopping is False


def test_state_that_can_be_set(loop):
    loop._debug = True
    assert loop.get_debug()
    loop._debug = False
    assert not loop.get_debug()

    loop.close()
    assert loop._closed is True
