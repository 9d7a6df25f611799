"""The end of the process, and fork: loops left open, daemon threads, children."""

import sys

import pytest

UNCLOSED = "unclosed event loop"


def test_an_open_loop(run_script):
    result = run_script(
        """
        loop = new_event_loop()
        loop.run_until_complete(asyncio.sleep(0.01))
        print("leaving")
        """
    )
    assert result.stdout == "leaving\n"
    assert result.stderr == ""


def test_an_open_loop_warns_in_dev_mode(run_script, loop_name):
    result = run_script(
        """
        loop = new_event_loop()
        loop.run_until_complete(asyncio.sleep(0))
        print("leaving")
        """,
        options=("-X", "dev"),
    )
    assert result.stdout == "leaving\n"
    assert UNCLOSED in result.stderr
    if loop_name == "fastloop" or sys.version_info[:2] != (3, 13):
        # 3.13 tries to read source lines for the repr of a handle, too late for that.
        assert "Traceback" not in result.stderr


def test_a_closed_loop_is_silent_in_dev_mode(run_script):
    result = run_script(
        """
        async def main():
            await asyncio.sleep(0.01)
            await asyncio.to_thread(print, "thread")
        run(main())
        """,
        options=("-X", "dev"),
    )
    assert result.stdout == "thread\n"
    assert result.stderr == ""


@pytest.mark.parametrize("dev", [False, True])
def test_open_loops_with_everything_pending(run_script, dev):
    """Callbacks, timers, tasks, readers, a server, signals, jobs: all left behind."""
    result = run_script(
        """
        import signal, socket, threading
        loops = []

        async def wait():
            try:
                await asyncio.sleep(1000)
            finally:
                pass

        async def start(loop):
            loop.keep = [asyncio.create_task(wait()), loop.create_future()]
            loop.keep.append(await asyncio.start_server(print, "127.0.0.1", 0))
            address = loop.keep[-1].sockets[0].getsockname()
            loop.keep.append(await asyncio.open_connection(*address))
            loop.call_soon(print, "never", loop)
            loop.call_later(1000, print, loop)
            loop.call_soon_threadsafe(print, loop)
            loop.pair = socket.socketpair()
            loop.add_reader(loop.pair[0], print, loop)
            loop.add_writer(loop.pair[1], print, loop)
            await loop.run_in_executor(None, len, ())
            loop.set_exception_handler(lambda loop, context: None)

        for n in range(3):
            loop = new_event_loop()
            loops.append(loop)
            loop.run_until_complete(start(loop))
        loops[0].add_signal_handler(signal.SIGUSR1, print, loops)
        print("leaving")
        """,
        options=("-X", "dev") if dev else (),
    )
    lines = result.stdout.splitlines()
    assert lines[-1] == "leaving"


def test_a_loop_in_a_module_global_and_a_cycle(run_script):
    result = run_script(
        """
        class Thing:
            def __del__(self):
                try:
                    self.loop.call_soon(print)
                    self.loop.call_later(0, print)
                    self.loop.call_soon_threadsafe(print)
                    self.loop.stop()
                    self.loop.close()
                except Exception:
                    pass
        thing = Thing()
        thing.loop = loop = new_event_loop()
        loop.thing = thing
        loop.call_soon(print, thing)
        loop.call_later(1000, print, thing)
        asyncio.set_event_loop(loop)
        print("leaving")
        """
    )
    assert result.stdout == "leaving\n"


def test_exit_from_within_a_callback(run_script):
    result = run_script(
        """
        loop = new_event_loop()
        def leave():
            print("leaving")
            sys.exit(5)
        loop.call_later(0.01, leave)
        loop.call_later(1000, print)
        loop.run_forever()
        """,
        returncode=5,
    )
    assert result.stdout == "leaving\n"
    assert result.stderr == ""


def test_exit_with_a_hard_stop_from_a_callback(run_script):
    run_script(
        """
        import os
        loop = new_event_loop()
        loop.call_soon(os._exit, 6)
        loop.run_forever()
        """,
        returncode=6,
    )


def test_a_daemon_thread_runs_a_loop_at_exit(run_script):
    """Idle, it sleeps in its poll while the interpreter goes down around it."""
    result = run_script(
        """
        import threading
        loop = new_event_loop()
        ready = threading.Event()
        loop.call_soon(ready.set)
        threading.Thread(target=loop.run_forever, daemon=True).start()
        ready.wait()
        print("leaving")
        """
    )
    assert result.stdout == "leaving\n"


def test_a_daemon_thread_is_busy_in_a_loop_at_exit(run_script):
    for work in (
        "loop.call_soon(work)",
        "loop.call_later(0, work)",
        "loop.call_later(0.0001, work)",
        "loop.call_soon_threadsafe(work)",
    ):
        result = run_script(
            f"""
            import threading, time
            loop = new_event_loop()
            ready = threading.Event()
            def work():
                {work}
            loop.call_soon(ready.set)
            loop.call_soon(work)
            threading.Thread(target=loop.run_forever, daemon=True).start()
            ready.wait()
            time.sleep(0.02)
            print("leaving", flush=True)
            """
        )
        assert result.stdout == "leaving\n"


def test_a_daemon_thread_calls_soon_threadsafe_at_exit(run_script):
    """Of a loop that the main thread has run and left open."""
    result = run_script(
        """
        import threading, time
        loop = new_event_loop()
        ready = threading.Event()
        def work():
            while True:
                for _ in range(50):
                    loop.call_soon_threadsafe(ready.set)
                time.sleep(0.0001)
        threading.Thread(target=work, daemon=True).start()
        loop.run_until_complete(asyncio.sleep(0.02))
        ready.wait()
        print("leaving", flush=True)
        """
    )
    assert result.stdout == "leaving\n"


def test_a_daemon_thread_serves_connections_at_exit(run_script):
    result = run_script(
        """
        import socket, threading

        async def echo(reader, writer):
            while data := await reader.read(100):
                writer.write(data)
                await writer.drain()

        async def serve():
            server = await asyncio.start_server(echo, "127.0.0.1", 0)
            box.append(server.sockets[0].getsockname())
            ready.set()
            await server.serve_forever()

        box, ready = [], threading.Event()
        loop = new_event_loop()
        threading.Thread(
            target=loop.run_until_complete, args=(serve(),), daemon=True
        ).start()
        ready.wait()
        client = socket.create_connection(box[0])
        for n in range(20):
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"
        client.sendall(b"x" * 5)
        print("leaving", flush=True)
        """
    )
    assert result.stdout == "leaving\n"


def test_daemon_threads_with_jobs_at_exit(run_script):
    """Loops in several daemon threads, each with a busy executor."""
    result = run_script(
        """
        import threading, time
        def work(ready):
            loop = new_event_loop()
            async def main():
                while True:
                    await asyncio.gather(
                        *(loop.run_in_executor(None, time.sleep, 0.001) for _ in "abc")
                    )
                    ready.set()
            loop.run_until_complete(main())
        events = [threading.Event() for _ in range(3)]
        for event in events:
            threading.Thread(target=work, args=(event,), daemon=True).start()
        for event in events:
            event.wait()
        print("leaving", flush=True)
        """
    )
    assert result.stdout == "leaving\n"


def test_daemon_threads_at_exit_where_no_descriptor_is_left(loop_name, run_script):
    """pthread_exit(), by which they end, needs a library, or the process is aborted."""
    if loop_name == "asyncio" and sys.version_info < (3, 14):
        pytest.skip("glibc aborts the process")
    result = run_script(
        """
        import resource, threading, time
        def work():
            while True:
                time.sleep(0.0001)
        new_event_loop().close()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        for _ in range(8):
            threading.Thread(target=work, daemon=True).start()
        print("leaving", flush=True)
        """
    )
    assert result.stdout == "leaving\n"


def test_a_thread_that_is_no_daemon_is_waited_for(run_script):
    result = run_script(
        """
        import threading
        def work():
            loop = new_event_loop()
            loop.run_until_complete(asyncio.sleep(0.1))
            loop.close()
            print("thread ended", flush=True)
        threading.Thread(target=work).start()
        print("leaving", flush=True)
        """
    )
    assert result.stdout == "leaving\nthread ended\n"


def test_a_loop_run_by_atexit(run_script):
    result = run_script(
        """
        import atexit
        loop = new_event_loop()
        async def main():
            await asyncio.sleep(0.01)
            print("at exit", flush=True)
        def last():
            loop.run_until_complete(main())
            loop.close()
        atexit.register(last)
        print("leaving", flush=True)
        """
    )
    assert result.stdout == "leaving\nat exit\n"
    assert result.stderr == ""


def test_a_loop_closed_by_a_finalizer_at_exit(run_script):
    result = run_script(
        """
        class Last:
            def __init__(self, loop):
                self.loop = loop
            def __del__(self):
                self.loop.close()
                print("closed", flush=True)
        loop = new_event_loop()
        loop.call_soon(print)
        loop.stop()
        loop.run_forever()
        last = Last(loop)
        print("leaving", flush=True)
        """
    )
    assert result.stdout.splitlines()[-2:] == ["leaving", "closed"]


def test_signal_handlers_at_exit(run_script):
    """A loop left open with handlers; nothing breaks."""
    result = run_script(
        """
        import signal
        loop = new_event_loop()
        for signum in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, print, loop)
        loop.run_until_complete(asyncio.sleep(0))
        print("leaving", flush=True)
        """,
        options=("-X", "dev"),
    )
    assert result.stdout == "leaving\n"


# fork


def test_a_child_makes_a_loop_of_its_own(run_script):
    result = run_script(
        """
        import os, signal, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        loop = new_event_loop()
        loop.run_until_complete(asyncio.sleep(0.001))
        pid = os.fork()
        if pid == 0:
            child = new_event_loop()
            async def main():
                await asyncio.sleep(0.01)
                await asyncio.to_thread(print, "child", flush=True)
            child.run_until_complete(main())
            child.run_until_complete(child.shutdown_default_executor())
            child.close()
            os._exit(7)
        _, status = os.waitpid(pid, 0)
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
        print("parent", os.waitstatus_to_exitcode(status))
        """
    )
    assert result.stdout == "child\nparent 7\n"


def test_a_child_of_a_running_loop(run_script):
    """From 3.12 on the child has no running loop; before, it must set that itself."""
    result = run_script(
        """
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)

        async def work():
            await asyncio.sleep(0.01)
            print("child", flush=True)

        async def main():
            pid = os.fork()
            if pid == 0:
                if sys.version_info < (3, 12):
                    asyncio._set_running_loop(None)
                try:
                    assert asyncio._get_running_loop() is None
                    run(work())
                    os._exit(8)
                finally:
                    os._exit(1)
            while True:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    return os.waitstatus_to_exitcode(status)
                await asyncio.sleep(0.001)

        print("parent", run(main()))
        """
    )
    assert result.stdout == "child\nparent 8\n"


def test_a_child_that_does_not_touch_the_loop(run_script):
    """It shares the parent's descriptors; ending it must not disturb the parent."""
    result = run_script(
        """
        import os, socket, warnings
        warnings.simplefilter("ignore", DeprecationWarning)

        async def main():
            loop = asyncio.get_running_loop()
            a, b = socket.socketpair()
            a.setblocking(False)
            received = loop.create_future()
            loop.add_reader(a, lambda: received.set_result(a.recv(10)))
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
            b.send(b"data")
            data = await asyncio.wait_for(received, 30)
            loop.remove_reader(a)
            a.close()
            b.close()
            return data

        print(run(main()))
        """
    )
    assert result.stdout == "b'data'\n"


@pytest.fixture
def epoll_of_its_own(loop_name):
    """Skip where a child that closes its copy of a loop breaks the parent's."""
    if loop_name == "asyncio":
        pytest.skip("the child takes descriptors out of the epoll set that both share")


@pytest.mark.usefixtures("epoll_of_its_own")
def test_a_child_closes_the_loop_of_its_parent(run_script):
    """The parent's loop goes on, whatever the child does with its copy."""
    result = run_script(
        """
        import os, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        loop = new_event_loop()
        loop.run_until_complete(asyncio.sleep(0.001))
        pid = os.fork()
        if pid == 0:
            try:
                loop.close()
                print("child", loop.is_closed(), flush=True)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        threading.Timer(0.05, loop.call_soon_threadsafe, (loop.stop,)).start()
        loop.run_forever()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
        print("parent")
        """
    )
    assert result.stdout == "child True\nparent\n"


@pytest.mark.usefixtures("epoll_of_its_own")
def test_a_child_that_exits_as_python_does(run_script):
    """Finalizing the copied loop in the child leaves the parent's alone."""
    result = run_script(
        """
        import os, threading, warnings
        warnings.simplefilter("ignore")
        loop = new_event_loop()
        loop.run_until_complete(asyncio.sleep(0.001))
        pid = os.fork()
        if pid == 0:
            sys.exit(3)
        _, status = os.waitpid(pid, 0)
        threading.Timer(0.05, loop.call_soon_threadsafe, (loop.stop,)).start()
        loop.run_forever()
        loop.close()
        print("parent", os.waitstatus_to_exitcode(status))
        """
    )
    assert result.stdout == "parent 3\n"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(run_script, tmp_path, loop_name, method):
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import asyncio
import multiprocessing
import warnings

warnings.simplefilter("ignore", DeprecationWarning)
if {loop_name!r} == "asyncio":
    new_event_loop = asyncio.SelectorEventLoop
else:
    from fastloop import new_event_loop


async def work(number):
    await asyncio.sleep(0.001)
    return await asyncio.to_thread(pow, number, 2)


def child(number):
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work(number))


def main():
    child(1)
    context = multiprocessing.get_context({method!r})
    with context.Pool(2) as pool:
        print(pool.map(child, range(6)), flush=True)


if __name__ == "__main__":
    main()
"""
    )
    result = run_script(script)
    assert result.stdout == "[0, 1, 4, 9, 16, 25]\n"
