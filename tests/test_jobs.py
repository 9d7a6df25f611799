"""The threads of the default executor: how many, which, and what reaches them."""

import asyncio
import concurrent.futures
import gc
import os
import queue
import socket
import threading
import weakref

import pytest
from conftest import TIMEOUT, run_script, turn
from test_free_threading import FREE_THREADED

MOST = min(32, (getattr(os, "process_cpu_count", os.cpu_count)() or 1) + 4)


def nothing(*args):
    pass


def fail(error):
    raise error


def identity(value):
    return value


def reports(loop):
    """The contexts that reach the exception handler."""
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))
    return contexts


# Threads


def test_the_executor_is_one_of_pythons(loop):
    loop.run_until_complete(asyncio.to_thread(nothing))
    executor = loop._default_executor
    assert isinstance(executor, concurrent.futures.ThreadPoolExecutor)
    assert type(executor).__name__ == "ThreadPoolExecutor"
    assert executor._max_workers == MOST
    assert executor._work_queue.qsize() == 0
    assert executor._work_queue.empty()
    assert executor.submit(identity, 1).result(TIMEOUT) == 1
    assert list(executor.map(identity, range(100))) == list(range(100))
    with pytest.raises(ZeroDivisionError):
        executor.submit(fail, ZeroDivisionError()).result(TIMEOUT)
    for thread in executor._threads:
        assert thread in threading.enumerate()


def test_as_many_jobs_at_a_time_as_there_are_threads(loop):
    barrier = threading.Barrier(MOST)

    def job():
        barrier.wait(TIMEOUT)
        thread = threading.current_thread()
        assert thread in threading.enumerate()
        assert thread.ident == threading.get_ident()
        return thread.name

    async def main():
        return await asyncio.gather(*[asyncio.to_thread(job) for _ in range(MOST)])

    names = loop.run_until_complete(main())
    assert sorted(names) == sorted(f"asyncio_{number}" for number in range(MOST))
    assert len(loop._default_executor._threads) == MOST
    assert loop.run_until_complete(main())
    assert len(loop._default_executor._threads) == MOST


def test_threads_that_cannot_be_started(loop, monkeypatch):
    """Each job tries anew, however often that failed before."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(40):  # more than there may be threads
            with pytest.raises(RuntimeError, match="can't start new thread"):
                loop.run_in_executor(None, nothing)
    job = loop.run_in_executor(None, threading.current_thread)
    done = loop.run_until_complete(asyncio.wait_for(job, TIMEOUT))
    assert done.name == "asyncio_0"


def test_an_idle_thread_is_used_again(loop):
    async def main():
        for number in range(200):
            assert await asyncio.to_thread(identity, number) == number

    loop.run_until_complete(main())
    # asyncio's worker says that it is idle only after its result has left.
    assert len(loop._default_executor._threads) <= 3


def test_a_job_runs_while_the_loop_is_blocked(loop):
    """By a callback that waits for it, to begin with."""

    async def main():
        for _ in range(3):
            begun = threading.Event()
            future = loop.run_in_executor(None, begun.set)
            assert begun.wait(TIMEOUT)
            await future

    loop.run_until_complete(main())


def test_jobs_wait_for_a_free_thread(loop):
    release = threading.Event()

    async def main():
        blockers = [asyncio.to_thread(release.wait, TIMEOUT) for _ in range(MOST)]
        blockers = [asyncio.ensure_future(blocker) for blocker in blockers]
        more = [asyncio.ensure_future(asyncio.to_thread(identity, 1)) for _ in range(9)]
        await asyncio.sleep(0)  # each has its turn, and is a job
        while loop._default_executor._work_queue.qsize() > 9:
            await asyncio.sleep(0.001)
        assert not any(future.done() for future in more)
        assert loop._default_executor._work_queue.qsize() == 9
        release.set()
        assert all(await asyncio.gather(*blockers))
        assert await asyncio.gather(*more) == [1] * 9

    loop.run_until_complete(main())


def test_a_lost_executor_ends_its_threads(loop):
    loop.run_until_complete(asyncio.to_thread(nothing))
    executor = loop._default_executor
    threads = list(executor._threads)
    reference = weakref.ref(executor)
    del loop._default_executor, executor
    loop._default_executor = None
    gc.collect()
    assert reference() is None
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()


def test_loops_in_threads(loop_factory):
    results = []

    async def main(number):
        for _ in range(100):
            await asyncio.to_thread(nothing)
        wide = await asyncio.gather(
            *[asyncio.to_thread(identity, number) for _ in range(100)]
        )
        results.append(sum(wide))

    def run(number):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main(number))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert sorted(results) == [0, 100, 200]


def test_io_and_timers_beside_jobs(loop):
    """Jobs that follow one another at once leave room for the rest."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    seen = []

    async def receive():
        seen.append(await loop.sock_recv(ours, 10))

    async def main():
        receiver = asyncio.ensure_future(receive())
        await asyncio.to_thread(nothing)
        loop.call_later(0.01, seen.append, "timer")
        await asyncio.to_thread(theirs.send, b"data")
        for _ in range(1_000_000):
            await asyncio.to_thread(nothing)
            if len(seen) == 2:
                break
        assert sorted(map(str, seen)) == ["b'data'", "timer"]
        await receiver

    with ours, theirs:
        loop.run_until_complete(main())


# Results


def test_what_a_job_calls_comes_before_its_result(loop):
    """Callbacks that a job has sent find its future pending."""

    async def main():
        for _ in range(50):
            states = []
            futures = []

            def look(states=states, futures=futures):
                states.append(futures[0].done())

            def job(look=look):
                for _ in range(3):
                    loop.call_soon_threadsafe(look)

            futures.append(loop.run_in_executor(None, job))
            if futures[0].done():
                continue  # asyncio was told so by the worker at once
            await futures[0]
            assert states == [False] * 3

    loop.run_until_complete(main())


@pytest.mark.parametrize(
    "error", [concurrent.futures.CancelledError, asyncio.CancelledError]
)
def test_a_job_that_says_it_was_cancelled(loop, error):
    async def main():
        with pytest.raises(asyncio.CancelledError):
            await loop.run_in_executor(None, fail, error())

    loop.run_until_complete(main())


def test_invalid_state(loop):
    async def main():
        with pytest.raises(asyncio.InvalidStateError, match="message"):
            await loop.run_in_executor(
                None, fail, concurrent.futures.InvalidStateError("message")
            )

    loop.run_until_complete(main())


def test_an_exception_keeps_its_traceback_and_its_cause(loop):
    def job():
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner

    future = loop.run_in_executor(None, job)
    with pytest.raises(ValueError, match="outer") as caught:
        loop.run_until_complete(future)
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.traceback[-1].name == "job"


def test_a_future_that_was_set_by_others(loop):
    """What the job returns is one result too many, which is reported."""
    contexts = reports(loop)
    release = threading.Event()

    async def main():
        future = loop.run_in_executor(None, release.wait, TIMEOUT)
        future.set_result("early")
        release.set()
        assert await future == "early"
        await loop.shutdown_default_executor()
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    (context,) = contexts
    assert "Exception in callback" in context["message"]


def test_a_future_of_ones_own_making(loop_factory):
    made = []

    class Own(asyncio.Future):
        pass

    model = loop_factory()
    model.close()

    class OwnLoop(type(model)):
        def create_future(self):
            made.append(Own(loop=self))
            return made[-1]

    loop = OwnLoop()
    try:
        future = loop.run_in_executor(None, identity, 1)
        assert future is made[0]
        assert loop.run_until_complete(future) == 1
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


@pytest.mark.parametrize("exc", [ValueError, SystemExit])
def test_a_future_that_fails_to_say_whether_it_was_cancelled(
    loop_factory, loop_name, exc
):
    """The job is done, and the worker is there for the next."""
    if loop_name == "asyncio":
        pytest.skip("its worker asks behind the job, logs it and forgets the result")
    if FREE_THREADED:
        pytest.skip("asyncio's own executor is used without a GIL")
    main_thread = threading.current_thread()

    class Own(asyncio.Future):
        def cancelled(self):
            if threading.current_thread() is not main_thread:
                raise exc
            return super().cancelled()

    model = loop_factory()
    model.close()

    class OwnLoop(type(model)):
        def create_future(self):
            return Own(loop=self)

    async def main():
        async with asyncio.timeout(TIMEOUT):
            results = [await loop.run_in_executor(None, identity, 1) for _ in range(3)]
            assert results == [1, 1, 1]
            (thread,) = loop._default_executor._threads
            assert thread.is_alive()

    loop = OwnLoop()
    try:
        loop.run_until_complete(loop.create_task(main()))
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


def test_close_with_a_result_under_way(loop_factory, unraisable):
    """The result has come, but the loop never runs again."""
    loop = loop_factory()
    future = loop.run_in_executor(None, identity, 1)
    executor = loop._default_executor
    executor.shutdown(wait=True)
    loop.close()
    assert not future.done()
    reference = weakref.ref(loop)
    del loop, future, executor
    gc.collect()
    assert reference() is None
    assert unraisable == []


def test_shutdown_cancels_what_is_queued(loop):
    release = threading.Event()

    async def main():
        blockers = [
            loop.run_in_executor(None, release.wait, TIMEOUT) for _ in range(MOST)
        ]
        queued = [loop.run_in_executor(None, fail, SystemError()) for _ in range(5)]
        executor = loop._default_executor
        while executor._work_queue.qsize() > len(queued):
            await asyncio.sleep(0.001)
        executor.shutdown(wait=False, cancel_futures=True)
        results = await asyncio.gather(*queued, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 5
        with pytest.raises(RuntimeError, match="after shutdown"):
            loop.run_in_executor(None, nothing)
        release.set()
        assert await asyncio.gather(*blockers) == [True] * MOST

    loop.run_until_complete(main())


def test_the_queue_is_empty(loop):
    loop.run_until_complete(asyncio.to_thread(nothing))
    with pytest.raises(queue.Empty):
        loop._default_executor._work_queue.get_nowait()


# Replacements


def test_a_submit_of_ones_own(loop, monkeypatch):
    """Tracers replace it on the class, before or after the executor was made."""
    calls = []
    original = concurrent.futures.ThreadPoolExecutor.submit

    def submit(self, fn, /, *args, **kwargs):
        calls.append(fn)
        return original(self, fn, *args, **kwargs)

    async def main():
        assert await loop.run_in_executor(None, identity, 1) == 1
        assert calls == []
        with monkeypatch.context() as patch:
            patch.setattr(concurrent.futures.ThreadPoolExecutor, "submit", submit)
            assert await loop.run_in_executor(None, identity, 2) == 2
        assert calls == [identity]
        assert await loop.run_in_executor(None, identity, 3) == 3
        loop._default_executor.submit = submit.__get__(loop._default_executor)
        assert await loop.run_in_executor(None, nothing) is None
        assert calls == [identity, nothing]

    loop.run_until_complete(main())


def test_a_submit_that_was_there_before(loop, monkeypatch):
    calls = []
    original = concurrent.futures.ThreadPoolExecutor.submit

    def submit(self, fn, /, *args, **kwargs):
        calls.append(fn)
        return original(self, fn, *args, **kwargs)

    monkeypatch.setattr(concurrent.futures.ThreadPoolExecutor, "submit", submit)
    assert loop.run_until_complete(loop.run_in_executor(None, identity, 1)) == 1
    assert calls == [identity]


def test_an_executor_class_of_ones_own(loop, monkeypatch):
    class Own(concurrent.futures.ThreadPoolExecutor):
        pass

    monkeypatch.setattr(concurrent.futures, "ThreadPoolExecutor", Own)
    assert loop.run_until_complete(asyncio.to_thread(identity, 1)) == 1
    assert type(loop._default_executor) is Own


def test_debug_may_come_and_go(loop):
    async def main():
        for debug in (False, True, False, True):
            loop.set_debug(debug)
            assert await asyncio.to_thread(identity, debug) is debug
            with pytest.raises(TypeError, match="coroutines cannot be used"):
                loop.set_debug(True)
                loop.run_in_executor(None, main)

    loop.run_until_complete(main())


# The end


def test_closed(loop_factory):
    loop = loop_factory()
    loop.run_until_complete(loop.run_in_executor(None, nothing))
    executor = loop._default_executor
    loop.close()
    executor.shutdown()
    with pytest.raises(RuntimeError, match=r"^Event loop is closed$"):
        loop.run_in_executor(None, nothing)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
def test_a_forked_child_comes_to_its_end(run_script, loop_name):
    """It has the executor, but none of its threads."""
    if loop_name == "asyncio":
        pytest.skip("its worker may be holding a lock")
    result = run_script(
        """
        import asyncio, os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        def nothing():
            pass
        loop = new_event_loop()
        for _ in range(50):  # the worker is on its way to sleep, or sleeps
            loop.run_until_complete(loop.run_in_executor(None, nothing))
            pid = os.fork()
            if pid == 0:
                sys.exit(7)
            _, status = os.waitpid(pid, 0)
            assert os.waitstatus_to_exitcode(status) == 7
        loop.run_until_complete(loop.run_in_executor(None, print, "again"))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        """
    )
    assert result.stdout == "again\n"


def test_exit_in_the_midst_of_many_jobs(run_script):
    result = run_script(
        """
        import threading
        loop = new_event_loop()
        done = []
        for number in range(500):
            loop.run_in_executor(None, done.append, number)
        import atexit, threading
        threading._register_atexit(lambda: None)
        atexit.register(lambda: print(len(done)))
        """
    )
    assert result.stdout == "500\n"


def test_a_job_that_waits_for_the_next(loop):
    """Two threads at least, however short the jobs before were."""

    async def main():
        for _ in range(20):
            await asyncio.to_thread(nothing)
        event = threading.Event()
        first = loop.run_in_executor(None, event.wait, TIMEOUT)
        second = loop.run_in_executor(None, event.set)
        assert await first
        await second

    loop.run_until_complete(main())


def test_turns_without_a_run(loop):
    """A result that comes between two runs waits for the second."""
    for number in range(20):
        future = loop.run_in_executor(None, identity, number)
        while not future.done():
            turn(loop)
        assert future.result() == number


def test_the_callback_of_a_job_called_by_hand(loop_name):
    """A job's result is given once, however often its handle runs."""
    result = run_script(
        """
        import threading
        loop = new_event_loop()
        contexts = []
        loop.set_exception_handler(lambda loop, context: contexts.append(context))

        async def main():
            release = threading.Event()
            future = loop.run_in_executor(None, release.wait)
            future.set_result(3)
            release.set()
            while not contexts:
                await asyncio.sleep(0.001)
            for _ in range(3):
                contexts[0]["handle"]._run()
            print(await future)

        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        """,
        loop_name,
    )
    assert result.stdout == "3\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_callback_that_ends_its_worker(loop, caplog, error):
    """Of concurrent.futures' own futures; another worker takes the jobs that come."""
    loop.run_until_complete(asyncio.to_thread(nothing))
    held = threading.Event()
    future = loop._default_executor.submit(held.wait, TIMEOUT)
    ended = []

    def leave(future):
        ended.append(threading.current_thread())
        raise error

    future.add_done_callback(leave)
    held.set()
    assert future.result(TIMEOUT)
    while not ended:
        turn(loop)
    ended[0].join(TIMEOUT)
    [record] = [each for each in caplog.records if each.name == "concurrent.futures"]
    assert record.getMessage() == "Exception in worker"
    assert record.exc_info[0] is error
    assert loop.run_until_complete(asyncio.to_thread(identity, 5)) == 5
    assert not ended[0].is_alive()


def test_queued_jobs_that_are_cancelled_after_the_loop_is_closed(loop_factory):
    loop = loop_factory()
    release = threading.Event()
    started = threading.Barrier(MOST + 1)
    ran = []

    def hold():
        started.wait(TIMEOUT)
        release.wait(TIMEOUT)

    for _ in range(MOST):
        loop.run_in_executor(None, hold)
    started.wait(TIMEOUT)
    for number in range(3):
        loop.run_in_executor(None, ran.append, number)
    executor = loop._default_executor
    loop.close()
    executor.shutdown(wait=False, cancel_futures=True)
    release.set()
    executor.shutdown()
    assert ran == []


@pytest.mark.skipif(
    FREE_THREADED, reason="asyncio's own executor is used without a GIL"
)
def test_a_job_that_is_queued_twice():
    """Its second turn comes to nothing."""
    result = run_script(
        """
        import threading
        loop = new_event_loop()

        async def main():
            event = threading.Event()
            await loop.run_in_executor(None, int)
            executor = loop._default_executor
            queue = executor._work_queue
            held = [
                loop.run_in_executor(None, event.wait)
                for _ in range(executor._max_workers)
            ]
            while queue.qsize():
                await asyncio.sleep(0.001)
            future = loop.run_in_executor(None, int, "5")
            item = queue.get_nowait()
            item()
            assert not future.done()
            for _ in range(3):
                queue.put(item)
            event.set()
            await asyncio.gather(*held)
            print(await future)
            item()

        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        """,
        "fastloop",
    )
    assert result.stdout == "5\n"
