"""The watchdog: what blocks a loop, while it does."""

import asyncio
import gc
import logging
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest
from conftest import TIMEOUT, factory_of, script_command
from conftest import run_script as run_any_script

import fastloop

THRESHOLD = 0.2
LONG = 0.8  # seconds of a block; as long as it takes to be seen on a busy machine


@pytest.fixture
def loop_name():
    """asyncio's loops have nothing of this."""
    return "fastloop"


@pytest.fixture(scope="module", autouse=True)
def descriptors():
    """The first watchdog opens a file that the process keeps."""
    loop = factory_of("fastloop")()
    fastloop.watchdog(10, loop=loop)
    loop.close()


def block(seconds=LONG):
    time.sleep(seconds)


def spin(seconds=LONG):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def watched(loop, callback, threshold=THRESHOLD):
    """Return the reports about a callback of loop's."""
    reports = queue.SimpleQueue()

    async def main():
        with fastloop.watchdog(threshold, reports.put):
            await asyncio.sleep(0)
            loop.call_soon(callback)
            await asyncio.sleep(0)
            found = [await asyncio.to_thread(reports.get, timeout=TIMEOUT)]
            found.append(await asyncio.to_thread(reports.get, timeout=TIMEOUT))
        assert reports.empty()
        return found

    return loop.run_until_complete(main())


@pytest.mark.parametrize("function", [block, spin])
def test_a_callback(loop, caplog, function):
    # A fourth of the threshold is what the GIL may take to be had, before it counts as
    # held: more than a spinning thread is away for, which has it meanwhile.
    threshold, seconds = 0.8, 2.0
    with caplog.at_level(logging.WARNING, "asyncio"):
        blocked, over = watched(loop, lambda: function(seconds), threshold)
    assert not blocked.over
    assert over.over
    for report in blocked, over:
        assert report.name == "<lambda>"
        assert report.stack[-1].name == function.__name__
        assert report.source.startswith(f"{__file__}:")
        assert report.thread_id == threading.get_ident()
        assert not report.gil_was_held
    assert threshold <= blocked.seconds < over.seconds
    assert over.seconds == pytest.approx(seconds, abs=seconds / 2)
    first, second = [r.getMessage() for r in caplog.records if r.name == "asyncio"]
    assert first.startswith(f"Loop is blocked for {blocked.seconds:.3f} s by now")
    assert "Stack (most recent call last):" in first
    assert second.startswith(f"Loop was blocked for {over.seconds:.3f} s by")


def test_it_reports_while_the_block_lasts(loop):
    """The callback waits for the report about itself."""
    reports = queue.SimpleQueue()

    async def main():
        with fastloop.watchdog(THRESHOLD, reports.put):
            await asyncio.sleep(0)
            assert not reports.get(timeout=TIMEOUT).over
        return True

    assert loop.run_until_complete(main())


def test_a_task_is_named(loop):
    reports = queue.SimpleQueue()

    async def work():
        return reports.get(timeout=TIMEOUT)

    async def main():
        with fastloop.watchdog(THRESHOLD, reports.put):
            task = asyncio.create_task(work(), name="worker")
            return task, await task

    task, report = loop.run_until_complete(main())
    assert report.name.startswith("task worker (")
    assert report.task is task
    assert report.source.startswith(f"{__file__}:")


def test_a_builtin(loop):
    import functools

    blocked, _ = watched(loop, functools.partial(time.sleep, LONG))
    assert "not Python code" in blocked.name


def test_a_slow_data_received(loop):
    import socket

    class Protocol(asyncio.Protocol):
        def data_received(self, data):
            block()

    reports = queue.SimpleQueue()

    async def main():
        ours, theirs = socket.socketpair()
        with theirs, fastloop.watchdog(THRESHOLD, reports.put):
            transport, _ = await loop.create_connection(Protocol, sock=ours)
            theirs.send(b"x")
            report = await asyncio.to_thread(reports.get, timeout=TIMEOUT)
            transport.close()
        return report

    report = loop.run_until_complete(main())
    assert report.name.endswith("data_received")


def test_quiet_when_there_is_nothing_to_tell(loop, caplog):
    reports = []

    async def main():
        with fastloop.watchdog(5, reports.append):
            for _ in range(50):
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.3)

    loop.run_until_complete(main())
    assert reports == []
    assert caplog.records == []


def test_an_idle_loop_is_not_blocked(loop):
    reports = []

    async def main():
        with fastloop.watchdog(0.02, reports.append):
            await asyncio.sleep(0.5)

    loop.run_until_complete(main())
    assert [r for r in reports if r.seconds > 0.3] == []


def test_between_two_runs_nothing_is_blocked(loop):
    reports = []
    loop.run_until_complete(asyncio.sleep(0))
    with fastloop.watchdog(0.02, reports.append, loop=loop):
        loop.run_until_complete(asyncio.sleep(0))
        time.sleep(0.2)
    assert [r for r in reports if r.seconds > 0.1] == []


def test_two_incidents_are_two_reports(loop):
    for _ in range(2):
        assert [r.over for r in watched(loop, block)] == [False, True]


def test_what_the_hook_raises_is_logged(loop, caplog):
    raised = threading.Event()

    def hook(report):
        raised.set()
        raise ZeroDivisionError

    async def main():
        with fastloop.watchdog(THRESHOLD, hook):
            assert raised.wait(TIMEOUT)
            async with asyncio.timeout(TIMEOUT):
                while "Exception in on_block" not in logged():
                    await asyncio.sleep(0.001)

    def logged():
        return [record.getMessage() for record in list(caplog.records)]

    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.run_until_complete(main())


def test_arguments(loop):
    with pytest.raises(ValueError, match="threshold"):
        fastloop.watchdog(0)
    with pytest.raises(ValueError, match="threshold"):
        fastloop.watchdog(float("nan"))
    with pytest.raises(TypeError, match="on_block"):
        fastloop.watchdog(1, 1)
    other = asyncio.SelectorEventLoop()
    with pytest.raises(TypeError, match="fastloop"):
        fastloop.watchdog(loop=other)
    other.close()
    assert fastloop.watchdog(2, loop=loop).threshold == 2


def watching_threads():
    return [t for t in threading.enumerate() if t.name == "fastloop-watchdog"]


def wait_until(condition):
    until = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_closing_the_loop_ends_the_thread():
    loop = factory_of("fastloop")()
    fastloop.watchdog(10, loop=loop)
    assert watching_threads()
    loop.close()
    wait_until(lambda: not watching_threads())


def test_stop_ends_the_thread(loop):
    for _ in range(20):
        fastloop.watchdog(10, loop=loop).stop()
    wait_until(lambda: not watching_threads())


@pytest.mark.filterwarnings("ignore:unclosed event loop")
def test_a_watched_loop_is_collected():
    loop = factory_of("fastloop")()
    fastloop.watchdog(10, loop=loop)
    reference = weakref.ref(loop)
    del loop
    gc.collect()
    assert reference() is None
    wait_until(lambda: not watching_threads())


def test_every_loop(loop):
    """Without a loop that runs, those that run later."""
    reports = queue.SimpleQueue()
    found = fastloop.watchdog(THRESHOLD, reports.put)
    try:
        loop.call_soon(block)
        loop.run_until_complete(asyncio.sleep(0))
        assert reports.get(timeout=TIMEOUT).name == "block"
        loop.run_until_complete(asyncio.sleep(0))
        assert len(watching_threads()) == 1
    finally:
        found.stop()
    wait_until(lambda: not watching_threads())
    loop.run_until_complete(asyncio.sleep(0))
    assert not watching_threads()


def test_the_last_one_for_every_loop_counts(loop):
    reports = queue.SimpleQueue()
    first = fastloop.watchdog(THRESHOLD, lambda block: reports.put("first"))
    second = fastloop.watchdog(THRESHOLD, lambda block: reports.put("second"))
    try:
        loop.call_soon(block)
        loop.run_until_complete(asyncio.sleep(0))
        assert reports.get(timeout=TIMEOUT) == "second"
    finally:
        second.stop()
        first.stop()
    wait_until(lambda: not watching_threads())


@pytest.mark.parametrize("which", ["daemons", "all"])
def test_no_thread_can_be_started(which):
    """As in a subinterpreter without daemons, or at a limit of the system."""
    done = run_script(
        f"""
        import threading, fastloop
        start = threading.Thread.start
        def refuse(self):
            if self.daemon or {which!r} == "all":
                raise RuntimeError("can't start new thread")
            start(self)
        threading.Thread.start = refuse
        fastloop.watchdog(0.1)
        async def main():
            names = [thread.name for thread in threading.enumerate()]
            print("fastloop-watchdog" in names)
        run(main())
        """
    )
    assert done.stdout == f"{which == 'daemons'}\n"
    told = "No watchdog for" in done.stderr
    assert told is (which == "all")


def run_script(source, **keywords):
    return run_any_script(source, "fastloop", **keywords)


def test_the_environment():
    done = run_script(
        """
        import logging, threading, time
        logging.basicConfig(format="%(name)s %(message)s")
        told = threading.Event()
        logger = logging.getLogger("asyncio")
        logger.addFilter(lambda record: "was blocked" in record.getMessage() and told.set() or True)
        async def main():
            time.sleep(0.6)
            while not told.is_set():
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.1)
        run(main())
        """,
        env={"FASTLOOP_WATCHDOG": "0.1"},
    )
    assert "asyncio Loop is blocked for " in done.stderr
    assert "in main\n" in done.stderr
    assert "asyncio Loop was blocked for " in done.stderr


def test_an_environment_that_is_wrong():
    done = run_script("run(asyncio.sleep(0))", env={"FASTLOOP_WATCHDOG": "soon"})
    assert "RuntimeWarning: FASTLOOP_WATCHDOG must be a number" in done.stderr


C_CODE = """
import ctypes, queue, time
import fastloop
reports = queue.SimpleQueue()
async def main():
    with fastloop.watchdog(0.1, reports.put):
        await asyncio.sleep(0)
        ctypes.{library}(None).usleep(900_000)
        for _ in range(2):
            block = await asyncio.to_thread(reports.get)
            print(block.over, block.gil_was_held, block.stack[-1].name,
                  0.1 <= block.seconds < 2, block.over <= (block.seconds > 0.5))
run(main())
"""


def test_c_code_without_the_gil():
    done = run_script(C_CODE.format(library="CDLL"))
    assert done.stdout.splitlines() == [
        "False False main True True",
        "True False main True True",
    ]


def has_gil():
    return getattr(sys, "_is_gil_enabled", lambda: True)()


@pytest.mark.skipif(not has_gil(), reason="there is no GIL to hold")
def test_c_code_with_the_gil():
    done = run_script(C_CODE.format(library="PyDLL"))
    assert done.stdout.splitlines() == [
        "False True main True True",
        "True True main True True",
    ]
    assert done.stderr.startswith("fastloop: the loop in thread 0x")
    told = re.search(r"has been blocked for (\d\.\d+) seconds", done.stderr)
    assert 0.1 <= float(told[1]) < 0.9, "before the block was over"
    assert "most recent call first" in done.stderr
    assert " in main\n" in done.stderr


@pytest.mark.skipif(not has_gil(), reason="there is no GIL to hold")
def test_the_gil_is_held_and_stderr_tells_in_time():
    """What is on stderr is there before the C code has returned."""
    source = """
    import ctypes, fastloop
    async def main():
        fastloop.watchdog(0.1)
        await asyncio.sleep(0)
        ctypes.PyDLL(None).sleep(600)
    run(main())
    """
    command, keywords = script_command(source, "fastloop")
    with subprocess.Popen(command, **keywords) as process:
        try:
            for line in process.stderr:
                if " in main\n" in line:
                    break
            else:
                pytest.fail("no stack")
            assert process.poll() is None
        finally:
            process.kill()
            process.communicate()


@pytest.mark.skipif(not has_gil(), reason="there is no GIL to hold")
def test_c_code_with_the_gil_below_many_frames():
    """faulthandler shows a hundred of them: the loop's own are not among those."""
    done = run_script(
        """
        import ctypes, queue, fastloop
        reports = queue.SimpleQueue()
        def deep(n):
            ctypes.PyDLL(None).usleep(900_000) if n == 0 else deep(n - 1)
        async def main():
            with fastloop.watchdog(0.1, reports.put):
                await asyncio.sleep(0)
                deep(200)
                block = await asyncio.to_thread(reports.get)
                print(block.name, len(block.stack), block.gil_was_held)
        run(main())
        """
    )
    assert done.stdout == "deep 100 True\n"


@pytest.mark.skipif(not has_gil(), reason="there is no GIL to hold")
def test_c_code_with_the_gil_among_many_threads():
    """And a hundred threads, the youngest."""
    done = run_script(
        """
        import ctypes, queue, threading, fastloop
        reports = queue.SimpleQueue()
        leave = threading.Event()
        threads = [threading.Thread(target=leave.wait) for _ in range(120)]
        async def main():
            for thread in threads:
                thread.start()
            with fastloop.watchdog(0.1, reports.put):
                await asyncio.sleep(0)
                ctypes.PyDLL(None).usleep(900_000)
                block = await asyncio.to_thread(reports.get)
                print(block.name, block.source, block.stack, block.gil_was_held)
            leave.set()
        run(main())
        """
    )
    assert done.stdout == "something that cannot be told  () True\n"


def test_a_task_that_was_told_of_is_let_go():
    """Once its block is over, the watchdog does not keep it."""
    done = run_script(
        """
        import gc, queue, time, weakref, fastloop
        told = queue.SimpleQueue()
        async def blocks():
            time.sleep(0.4)
        async def main():
            with fastloop.watchdog(0.1, lambda block: told.put(block.over)):
                task = weakref.ref(asyncio.create_task(blocks()))
                while not await asyncio.to_thread(told.get):
                    pass
                while task() is not None:
                    gc.collect()
                    await asyncio.sleep(0.001)
                print("gone")
        run(main())
        """
    )
    assert done.stdout == "gone\n"


def test_a_block_of_which_nothing_is_known():
    block = fastloop.Block(False, 1.5, "something", "", (), False, 1, None)
    assert str(block) == "Loop is blocked for 1.500 s by now, by something"


def test_no_descriptor_is_left():
    """The program runs on, and is watched."""
    done = run_script(
        """
        import os, queue, resource, time
        import fastloop
        reports = queue.SimpleQueue()
        fastloop.watchdog(0.1, reports.put)
        loop = new_event_loop()
        async def main():
            await asyncio.sleep(0)
            time.sleep(0.3)
            await asyncio.sleep(0)
            print(reports.get(timeout=30).over, reports.get(timeout=30).over)
        free = [os.open("/dev/null", os.O_RDONLY) for _ in range(2)]
        limit = free[-1] + 1  # two for the pair that signals wake the loop with
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        for fd in free:
            os.close(fd)
        loop.run_until_complete(main())
        loop.close()
        """
    )
    assert done.stdout == "False True\n"


def test_no_signal_is_free():
    """The program has them all: the watchdog takes none, and tells of blocks still."""
    done = run_script(
        """
        import queue, signal, time
        import fastloop
        taken = range(signal.SIGRTMIN, signal.SIGRTMAX + 1)
        def handler(*args):
            pass
        for signum in taken:
            signal.signal(signum, handler)
        reports = queue.SimpleQueue()
        async def main():
            with fastloop.watchdog(0.1, reports.put):
                await asyncio.sleep(0)
                time.sleep(0.3)
                await asyncio.sleep(0)
                print(reports.get(timeout=30).over, reports.get(timeout=30).over)
        run(main())
        print(all(signal.getsignal(signum) is handler for signum in taken))
        """
    )
    assert done.stdout == "False True\nTrue\n"


def test_no_signal_is_left_with_a_handler():
    done = run_script(
        """
        import signal, fastloop
        before = {s: signal.getsignal(s) for s in signal.valid_signals()}
        async def main():
            fastloop.watchdog(0.1)
            await asyncio.sleep(0)
        run(main())
        assert before == {s: signal.getsignal(s) for s in signal.valid_signals()}
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("SigCgt"):
                    print(int(line.split()[1], 16) >> 33)
        """
    )
    assert done.stdout == "0\n"


STOPPED = """
import fastloop, os, sys
reports = []
async def main():
    with fastloop.watchdog(0.2, reports.append):
        print("ready", flush=True)
        waits = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        while not waits.done():
            await asyncio.sleep(0)
    print([r.seconds for r in reports if r.seconds > 1.0])
run(main())
"""


def test_a_stopped_process():
    """Time in which nobody ran is no block of the loop's."""
    command, keywords = script_command(STOPPED, "fastloop")
    keywords["stdin"] = subprocess.PIPE
    with subprocess.Popen(command, **keywords) as process:
        assert process.stdout.readline() == "ready\n"
        for _ in range(3):
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            time.sleep(1.2)  # longer than the threshold, and what is counted of it
            process.send_signal(signal.SIGCONT)
            time.sleep(0.05)
        stdout, stderr = process.communicate("\n", timeout=TIMEOUT)
    assert stdout == "[]\n", stderr


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fork():
    done = run_script(
        """
        import os, time, warnings, queue
        import fastloop
        warnings.simplefilter("ignore")
        reports = queue.SimpleQueue()
        guard = fastloop.watchdog(0.1, reports.put)
        async def block():
            time.sleep(0.5)
            return await asyncio.to_thread(reports.get)
        loop = new_event_loop()
        loop.run_until_complete(asyncio.sleep(0))
        child = os.fork()
        if child == 0:
            loop.close()
            print(run(block()).name, flush=True)
            guard.stop()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print(loop.run_until_complete(block()).name)
        loop.close()
        """
    )
    assert done.stdout.splitlines()[0].startswith("task ")
    assert done.stdout.splitlines()[1].startswith("task ")


@pytest.mark.parametrize("how", ["pass", "sys.exit(0)", "raise KeyboardInterrupt"])
def test_the_interpreter_ends(how):
    """With a loop that is watched and was not closed, or is blocked just now."""
    done = run_script(
        f"""
        import threading, time, fastloop
        fastloop.watchdog(0.01)
        loop = new_event_loop()
        def forever():
            asyncio.set_event_loop(loop)
            loop.call_soon(time.sleep, 3600)
            loop.run_forever()
        threading.Thread(target=forever, daemon=True).start()
        time.sleep(0.1)
        {how}
        """,
        returncode=None,
    )
    assert "Fatal Python error" not in done.stderr


def test_the_interpreter_ends_while_the_hook_blocks():
    run_script(
        """
        import threading, time, fastloop
        called = threading.Event()
        def hook(block):
            called.set()
            time.sleep(3600)
        async def main():
            fastloop.watchdog(0.01, hook)
            called.wait()
        run(main())
        """
    )


SUBINTERPRETER = """
import _interpreters
interpreter = _interpreters.create({config!r})
error = _interpreters.{run}(interpreter, '''if True:
    import asyncio, time, queue, fastloop
    reports = queue.SimpleQueue()
    async def main():
        with fastloop.watchdog(0.05, reports.put):
            time.sleep(0.4)
            block = await asyncio.to_thread(reports.get)
            assert block.name.startswith("task "), block
        fastloop.watchdog(5)
    fastloop.run(main())
    loop = fastloop.new_event_loop()
    fastloop.watchdog(5, loop=loop)
''')
assert error is None, error
_interpreters.destroy(interpreter)
print("ended")
"""


@pytest.mark.skipif(sys.version_info < (3, 13), reason="_interpreters is of 3.13")
@pytest.mark.parametrize("config", ["isolated", "legacy"])
def test_subinterpreter(config):
    done = run_script(SUBINTERPRETER.format(config=config, run="run_string"))
    assert "ended" in done.stdout


def test_a_python_built_with_an_old_c_library():
    """As many are that run everywhere: it lacks what came with a newer one."""
    done = run_script(
        """
        import os, signal
        for name in "memfd_create", "MFD_CLOEXEC", "pidfd_open", "P_PIDFD":
            if hasattr(os, name):
                delattr(os, name)
        import asyncio, queue, time, fastloop
        reports = queue.SimpleQueue()
        async def main():
            with fastloop.watchdog(0.05, reports.put):
                time.sleep(0.4)
                block = await asyncio.to_thread(reports.get)
                assert block.stack[-1].name == "main"
            child = await asyncio.create_subprocess_exec("sh", "-c", "exit 3")
            print(await child.wait())
        run(main())
        """
    )
    assert done.stdout == "3\n"
