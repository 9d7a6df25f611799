"""run_in_executor(), asyncio.to_thread() and the default executor."""

import asyncio
import concurrent.futures
import contextvars
import gc
import multiprocessing
import sys
import threading
import time
import weakref

import pytest
from conftest import TIMEOUT, turn

var = contextvars.ContextVar("var", default="default")


def nothing(*args):
    pass


def fail(error):
    raise error


def identity(*args):
    return args


# Jobs


def test_result(loop):
    future = loop.run_in_executor(None, identity, 1, "two", None)
    assert asyncio.isfuture(future)
    assert future.get_loop() is loop
    assert loop.run_until_complete(future) == (1, "two", None)


def test_it_is_no_coroutine_function(loop):
    """The job starts at once, whether or not somebody awaits the future."""
    started = threading.Event()
    future = loop.run_in_executor(None, started.set)
    assert started.wait(TIMEOUT)
    loop.run_until_complete(future)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyError, Exception])
def test_exception(loop, error):
    with pytest.raises(error, match="message"):
        loop.run_until_complete(loop.run_in_executor(None, fail, error("message")))


def test_traceback(loop):
    with pytest.raises(ZeroDivisionError) as info:
        loop.run_until_complete(loop.run_in_executor(None, fail, ZeroDivisionError()))
    assert info.traceback[-1].name == "fail"


def test_what_cannot_be_called(loop):
    future = loop.run_in_executor(None, 42)
    with pytest.raises(TypeError):
        loop.run_until_complete(future)


def test_wrong_arguments(loop):
    with pytest.raises(TypeError):
        loop.run_in_executor()
    with pytest.raises(TypeError):
        loop.run_in_executor(None)
    with pytest.raises(TypeError):
        loop.run_in_executor(None, nothing, nonsense=1)


def test_keywords(loop):
    future = loop.run_in_executor(executor=None, func=identity)
    assert loop.run_until_complete(future) == ()


def test_jobs_run_in_other_threads(loop):
    async def main():
        names = await asyncio.gather(
            *(
                loop.run_in_executor(None, lambda: threading.current_thread().name)
                for _ in range(5)
            )
        )
        assert threading.current_thread().name not in names
        return names

    names = loop.run_until_complete(main())
    for name in names:
        assert name.startswith("asyncio_")


def test_many_jobs(loop):
    async def main():
        return await asyncio.gather(
            *(loop.run_in_executor(None, identity, n) for n in range(2000))
        )

    assert loop.run_until_complete(main()) == [(n,) for n in range(2000)]


def test_jobs_in_turn(loop):
    """One after the other: the loop sleeps and is woken each time."""

    async def main():
        for n in range(300):
            assert await loop.run_in_executor(None, identity, n) == (n,)

    loop.run_until_complete(main())


def test_jobs_run_at_the_same_time(loop):
    barrier = threading.Barrier(3)

    async def main():
        await asyncio.gather(
            *(loop.run_in_executor(None, barrier.wait, TIMEOUT) for _ in range(3))
        )

    loop.run_until_complete(main())


def test_the_loop_runs_while_a_job_does(loop):
    ticks = []
    release = threading.Event()

    def tick():
        ticks.append(1)
        if len(ticks) == 5:
            release.set()
        else:
            loop.call_later(0.001, tick)

    async def main():
        loop.call_soon(tick)
        assert await loop.run_in_executor(None, release.wait, TIMEOUT)

    loop.run_until_complete(main())
    assert len(ticks) == 5


def test_a_job_is_let_go_of(loop):
    class Thing:
        pass

    async def main():
        thing = Thing()
        ref = weakref.ref(thing)
        await loop.run_in_executor(None, nothing, thing)
        await loop.run_in_executor(None, nothing)
        del thing
        gc.collect()
        return ref

    ref = loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    gc.collect()
    assert ref() is None


def test_jobs_that_start_jobs(loop):
    """From the worker's thread through the loop to another worker."""

    async def main():
        inner = []

        def job():
            future = asyncio.run_coroutine_threadsafe(second(), loop)
            inner.append(future.result(TIMEOUT))

        async def second():
            return await loop.run_in_executor(None, identity, "inner")

        await loop.run_in_executor(None, job)
        assert inner == [("inner",)]

    loop.run_until_complete(main())


def test_jobs_between_runs(loop):
    """Results that arrive while the loop does not run are delivered by the next run."""
    done = threading.Event()
    future = loop.run_in_executor(None, done.set)
    assert done.wait(TIMEOUT)
    loop.run_until_complete(future)
    turn(loop)
    assert future.done()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_jobs_that_want_to_leave(loop, error):
    """In a worker they are exceptions like others; the future carries them."""
    future = loop.run_in_executor(None, fail, error("message"))
    while not future.done():
        turn(loop)
    assert isinstance(future.exception(), error)
    assert str(future.exception()) == "message"


def test_stop_iteration(loop):
    """A future cannot hold it."""
    future = loop.run_in_executor(None, fail, StopIteration())
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))

    async def main():
        with pytest.raises((RuntimeError, TypeError, TimeoutError)):
            await asyncio.wait_for(future, 0.2)

    loop.run_until_complete(main())


# Cancellation


def test_cancel_while_running(loop):
    started, release = threading.Event(), threading.Event()
    results = []

    def job():
        started.set()
        results.append(release.wait(TIMEOUT))

    async def main():
        future = loop.run_in_executor(None, job)
        await loop.run_in_executor(None, started.wait, TIMEOUT)
        assert future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        release.set()
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    assert results == [True], "a job that has begun runs to its end"


def test_cancel_before_it_runs(loop):
    executor = concurrent.futures.ThreadPoolExecutor(1)
    loop.set_default_executor(executor)
    release = threading.Event()
    calls = []

    async def main():
        first = loop.run_in_executor(None, release.wait, TIMEOUT)
        second = loop.run_in_executor(None, calls.append, 1)
        assert second.cancel()
        await asyncio.sleep(0)
        release.set()
        await first
        with pytest.raises(asyncio.CancelledError):
            await second

    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    assert calls == []


def test_cancel_of_queued_jobs_of_the_default_pool(loop):
    """Cancelled before a worker took them, they never run."""
    release = threading.Event()
    calls = []

    async def main():
        blockers = [
            loop.run_in_executor(None, release.wait, TIMEOUT) for _ in range(64)
        ]
        queued = [loop.run_in_executor(None, calls.append, n) for n in range(20)]
        for future in queued[::2]:
            future.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(*blockers)
        await asyncio.gather(*queued, return_exceptions=True)

    loop.run_until_complete(main())
    assert sorted(calls) == list(range(1, 20, 2))


def test_timeout_of_a_job(loop):
    release = threading.Event()

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.to_thread(release.wait, TIMEOUT)
        release.set()

    loop.run_until_complete(main())


# to_thread


def test_to_thread(loop):
    async def main():
        assert await asyncio.to_thread(identity, 1, 2) == (1, 2)
        assert await asyncio.to_thread(dict, a=1) == {"a": 1}
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(fail, ZeroDivisionError())

    loop.run_until_complete(main())


def test_to_thread_takes_the_context_along(loop):
    def job():
        before = var.get()
        var.set("job")
        return before

    async def main():
        var.set("task")
        assert await asyncio.to_thread(job) == "task"
        assert var.get() == "task"

    loop.run_until_complete(main())


def test_run_in_executor_leaves_the_context_behind(loop):
    async def main():
        var.set("task")
        return await loop.run_in_executor(None, var.get)

    assert loop.run_until_complete(main()) == "default"


def test_jobs_do_not_see_one_another(loop):
    """A worker runs many jobs; what one sets in its context stays with it."""

    def job(number):
        before = var.get()
        var.set(number)
        return before

    async def main():
        return await asyncio.gather(*(asyncio.to_thread(job, n) for n in range(50)))

    assert loop.run_until_complete(main()) == ["default"] * 50


# The default executor


def test_the_default_executor_is_made_when_needed(loop):
    assert loop._default_executor is None
    threads = set(threading.enumerate())
    loop.run_until_complete(asyncio.sleep(0))
    assert loop._default_executor is None
    assert set(threading.enumerate()) <= threads
    loop.run_until_complete(loop.run_in_executor(None, nothing))
    assert loop._default_executor is not None


def test_threads_are_made_when_needed(loop):
    async def main():
        for _ in range(20):
            await loop.run_in_executor(None, nothing)
            await asyncio.sleep(0.01)  # asyncio's worker has yet to say that it is idle

    before = set(threading.enumerate())
    loop.run_until_complete(main())
    assert len(set(threading.enumerate()) - before) <= 3


def test_set_default_executor(loop):
    executor = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="mine")
    assert loop.set_default_executor(executor) is None
    name = loop.run_until_complete(
        loop.run_in_executor(None, lambda: threading.current_thread().name)
    )
    assert name.startswith("mine")
    loop.run_until_complete(loop.shutdown_default_executor())
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(nothing)


def test_a_subclass_as_default_executor(loop):
    submitted = []

    class Own(concurrent.futures.ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            submitted.append((fn, args))
            return super().submit(fn, *args, **kwargs)

    loop.set_default_executor(Own(1))
    assert loop.run_until_complete(loop.run_in_executor(None, identity, 1)) == (1,)
    assert submitted == [(identity, (1,))]


def test_replacing_the_default_executor(loop):
    """The one in use before goes on with its jobs."""
    release = threading.Event()
    first = loop.run_in_executor(None, release.wait, TIMEOUT)
    previous = loop._default_executor
    executor = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="mine")
    loop.set_default_executor(executor)

    async def main():
        name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
        assert name.startswith("mine")
        release.set()
        assert await first

    loop.run_until_complete(main())
    previous.shutdown()


@pytest.mark.parametrize("value", [None, 42, "text", object(), nothing])
def test_what_is_no_default_executor(loop, value):
    with pytest.raises(
        TypeError, match=r"^executor must be ThreadPoolExecutor instance$"
    ):
        loop.set_default_executor(value)


def test_a_process_pool_is_no_default_executor(loop):
    # With other contexts, it starts a process that stays.
    fork = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=fork) as executor:
        with pytest.raises(TypeError, match="must be ThreadPoolExecutor"):
            loop.set_default_executor(executor)


def test_an_executor_of_ones_own(loop):
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="own") as executor:
        name = loop.run_until_complete(
            loop.run_in_executor(executor, lambda: threading.current_thread().name)
        )
    assert name.startswith("own")
    assert loop._default_executor is None


def test_an_executor_that_is_none_of_pythons(loop):
    """Anything with submit() will do."""

    class Immediate(concurrent.futures.Executor):
        def submit(self, fn, /, *args, **kwargs):
            future = concurrent.futures.Future()
            future.set_result(fn(*args, **kwargs))
            return future

    future = loop.run_in_executor(Immediate(), identity, 1)
    assert loop.run_until_complete(future) == (1,)


def test_an_executor_that_refuses(loop):
    executor = concurrent.futures.ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        loop.run_in_executor(executor, nothing)


# Shutdown


def test_shutdown_default_executor(loop):
    async def main():
        await loop.run_in_executor(None, nothing)
        assert await loop.shutdown_default_executor() is None
        with pytest.raises(RuntimeError, match=r"^Executor shutdown has been called$"):
            loop.run_in_executor(None, nothing)
        with pytest.raises(RuntimeError, match="Executor shutdown"):
            await asyncio.to_thread(nothing)
        await loop.shutdown_default_executor()

    before = set(threading.enumerate())
    loop.run_until_complete(main())
    assert set(threading.enumerate()) <= before


def test_shutdown_without_an_executor(loop):
    loop.run_until_complete(loop.shutdown_default_executor())
    with pytest.raises(RuntimeError, match="Executor shutdown"):
        loop.run_in_executor(None, nothing)


def test_shutdown_waits_for_jobs(loop):
    results = []

    def job():
        time.sleep(0.05)
        results.append("job")

    async def main():
        future = loop.run_in_executor(None, job)
        await loop.shutdown_default_executor()
        assert results == ["job"]
        await future

    loop.run_until_complete(main())


def test_shutdown_does_not_block_the_loop(loop):
    release = threading.Event()
    results = []

    async def main():
        future = loop.run_in_executor(None, release.wait, TIMEOUT)
        loop.call_later(0.01, release.set)
        await loop.shutdown_default_executor()
        results.append(await future)

    loop.run_until_complete(main())
    assert results == [True]


@pytest.mark.skipif(
    sys.version_info < (3, 13), reason="Python 3.12 applies it to the last step only"
)
def test_shutdown_with_a_timeout(loop):
    release = threading.Event()

    async def main():
        future = loop.run_in_executor(None, release.wait, TIMEOUT)
        with pytest.warns(RuntimeWarning, match="did not finishing joining"):
            await loop.shutdown_default_executor(timeout=0.05)
        release.set()
        return future

    future = loop.run_until_complete(main())
    loop.run_until_complete(future)


def test_other_executors_outlive_the_shutdown(loop):
    with concurrent.futures.ThreadPoolExecutor(1) as executor:

        async def main():
            await loop.shutdown_default_executor()
            return await loop.run_in_executor(executor, identity, 1)

        assert loop.run_until_complete(main()) == (1,)


def test_close_while_a_job_runs(loop_factory, unraisable):
    """Nobody hears of its result, and nothing breaks."""
    started, release, ended = (threading.Event() for _ in range(3))

    def job():
        started.set()
        release.wait(TIMEOUT)
        ended.set()
        return "result"

    loop = loop_factory()
    future = loop.run_in_executor(None, job)
    executor = loop._default_executor
    assert started.wait(TIMEOUT)
    loop.close()
    release.set()
    assert ended.wait(TIMEOUT)
    if hasattr(executor, "shutdown"):
        executor.shutdown(wait=True)
    assert not future.done()
    del future, loop, executor
    gc.collect()
    assert unraisable == []


def test_a_cancelled_job_ends_behind_the_loop(loop_factory, caplog):
    loop = loop_factory()
    started, release = threading.Event(), threading.Event()

    def job():
        started.set()
        release.wait(TIMEOUT)

    async def main():
        future = loop.run_in_executor(None, job)
        await asyncio.to_thread(started.wait, TIMEOUT)
        future.cancel()

    loop.run_until_complete(main())
    threads = list(loop._default_executor._threads)
    loop.close()
    release.set()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    assert not caplog.records


def test_close_does_not_wait_for_jobs(loop_factory):
    release = threading.Event()
    loop = loop_factory()
    future = loop.run_in_executor(None, release.wait, TIMEOUT)
    executor = loop._default_executor
    start = time.monotonic()
    loop.close()
    assert time.monotonic() - start < TIMEOUT / 2
    assert loop._default_executor is None
    release.set()
    executor.shutdown(wait=True)
    assert not future.done()


def test_close_with_queued_jobs(loop_factory):
    """What was queued before close() still runs, as with asyncio."""
    release = threading.Event()
    calls = []
    loop = loop_factory()
    loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(1))
    executor = loop._default_executor
    loop.run_in_executor(None, release.wait, TIMEOUT)
    for number in range(10):
        loop.run_in_executor(None, calls.append, number)
    loop.close()
    release.set()
    executor.shutdown(wait=True)
    assert calls == list(range(10))


def test_a_run_ends_its_executor(loop_factory):
    async def main():
        return await asyncio.to_thread(threading.current_thread)

    before = set(threading.enumerate())
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        thread = runner.run(main())
    assert not thread.is_alive()
    assert set(threading.enumerate()) <= before


def test_loops_do_not_share_their_executors(loop, loop_factory):
    other = loop_factory()
    for each in (loop, other):
        each.run_until_complete(each.run_in_executor(None, nothing))
    assert loop._default_executor is not other._default_executor
    other.run_until_complete(other.shutdown_default_executor())
    other.close()
    assert loop.run_until_complete(loop.run_in_executor(None, identity, 1)) == (1,)


def test_default_executor_attribute_is_writable(loop):
    """Test helpers take the executor away and shut it down themselves."""
    loop.run_until_complete(loop.run_in_executor(None, nothing))
    executor, loop._default_executor = loop._default_executor, None
    executor.shutdown(wait=True)
    assert loop.run_until_complete(loop.run_in_executor(None, identity, 2)) == (2,)


# At the end of the process


def test_jobs_at_interpreter_exit(run_script):
    """The interpreter waits for the jobs of a loop that nobody shut down."""
    result = run_script(
        """
        import threading, time
        loop = new_event_loop()
        leaving = threading.Event()
        def job():
            leaving.wait()
            time.sleep(0.1)
            print("job ended", flush=True)
        loop.run_in_executor(None, job)
        loop.close()
        print("leaving", flush=True)
        leaving.set()
        """
    )
    assert result.stdout == "leaving\njob ended\n"


def test_jobs_of_a_loop_left_open(run_script):
    result = run_script(
        """
        import time
        loop = new_event_loop()
        def job():
            time.sleep(0.1)
            print("job ended", flush=True)
        future = loop.run_in_executor(None, job)
        print("leaving", flush=True)
        """
    )
    assert result.stdout == "leaving\njob ended\n"


def test_the_first_job_after_the_end_of_the_interpreter(run_script):
    result = run_script(
        """
        import atexit
        loop = new_event_loop()

        def late():
            try:
                loop.run_in_executor(None, int)
            except RuntimeError as exc:
                print(exc)
            loop.close()

        import concurrent.futures.thread
        atexit.register(late)
        """
    )
    assert result.stdout == "cannot schedule new futures after interpreter shutdown\n"
