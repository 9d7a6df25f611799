"""Subprocesses where something goes wrong: cancelled, interrupted, out of descriptors, without pidfds."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
import threading

import pytest
from iosupport import (
    capture,
    children,
    is_stock,
    open_fds,
    open_fds_at_first,
    settle,
    turns,
)
from test_free_threading import FREE_THREADED

PIPE = asyncio.subprocess.PIPE
EXEC = asyncio.create_subprocess_exec


@pytest.fixture(autouse=True)
def no_child_is_left():
    before = children()  # servers that other tests of this session have started
    yield
    assert children() <= before


# Without pidfds


@pytest.fixture(params=["missing", errno.ENOSYS, errno.EPERM, errno.EMFILE])
def no_pidfd(request, monkeypatch):
    """os.pidfd_open() as on an old kernel, in a sandbox, or without descriptors."""
    if request.param == "missing":
        monkeypatch.delattr(os, "pidfd_open", raising=False)
        return

    def pidfd_open(pid, flags=0):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(os, "pidfd_open", pidfd_open, raising=False)


@pytest.mark.usefixtures("no_pidfd")
def test_without_pidfd(loop, run):
    if is_stock(loop):
        pytest.skip("its policy chose a watcher at import")

    async def main():
        before = open_fds_at_first()
        process = await EXEC("cat", stdin=PIPE, stdout=PIPE)
        assert await process.communicate(b"x") == (b"x", None)
        assert process.returncode == 0
        process = await EXEC("sleep", "60")
        process.kill()
        assert await process.wait() == -signal.SIGKILL
        codes = await asyncio.gather(*(exit_code(code) for code in range(10)))
        assert codes == list(range(10))
        await settle()
        assert open_fds() == before

    async def exit_code(code):
        process = await EXEC("sh", "-c", f"exit {code}")
        return await process.wait()

    run(main())


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "no room"), RuntimeError("used by a transport")]
)
def test_child_that_cannot_be_watched(loop, run, monkeypatch, error):
    """The descriptor was made, and the loop cannot take it: no child is lost."""
    if is_stock(loop):
        pytest.skip("no such hook")

    def add_reader(*args):
        raise error

    monkeypatch.setattr(loop, "_add_reader", add_reader, raising=False)

    async def main():
        before = open_fds_at_first()
        process = await EXEC("sh", "-c", "exit 3")
        assert await process.wait() == 3
        assert open_fds() == before

    run(main())


def test_loop_closed_while_a_thread_waits_for_the_child(run_script, loop_name):
    if loop_name == "asyncio":
        pytest.skip("its policy chose a watcher at import")
    result = run_script(
        """
        import os, threading
        del os.pidfd_open
        loop = new_event_loop()

        async def start():
            return await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE)

        process = loop.run_until_complete(start())
        waiter, = [t for t in threading.enumerate() if "waitpid-" in t.name]
        loop.close()
        os.kill(process.pid, 9)
        waiter.join(30)
        print(waiter.is_alive())
        os._exit(0)
        """
    )
    assert result.stdout == "False\n"
    assert "that handles pid" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["exit 3", "read line; exit 3"])
def test_ignored_sigchld(run_script, loop_name, command):
    """The kernel reaps the child itself: nobody can know its status."""
    if loop_name == "asyncio" and command == "exit 3":
        pytest.skip("asyncio fails if the child is gone before it looks for it")
    result = run_script(
        """
        import signal, logging, sys
        logging.disable(logging.WARNING)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        async def main():
            for _ in range(3):
                process = await asyncio.create_subprocess_exec(
                    "sh", "-c", sys.argv[1], stdin=asyncio.subprocess.PIPE
                )
                process.stdin.close()
                print(await asyncio.wait_for(process.wait(), 30))
        run(main())
        """,
        args=[command],
    )
    assert result.stdout.split() == ["255"] * 3


# Cancellation


@pytest.mark.parametrize("steps", range(8))
def test_cancelled_communicate_at_each_step(loop, run, steps):
    async def main():
        before = open_fds_at_first()
        process = await EXEC("cat", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        task = asyncio.create_task(process.communicate(bytes(100_000)))
        await turns(steps)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with contextlib.suppress(ProcessLookupError):  # it may be done already
            process.kill()
        # In asyncio, an exit that kill() has seen counts as reaped elsewhere.
        seen_by_kill = 255 if is_stock(loop) else 0
        assert await process.wait() in (-signal.SIGKILL, 0, seen_by_kill)
        process._transport.close()
        await settle()
        assert open_fds() == before

    run(main())


@pytest.mark.parametrize("steps", range(8))
def test_cancelled_wait_at_each_step(loop, run, steps):
    async def main():
        process = await EXEC("cat", stdin=PIPE)
        waits = [asyncio.create_task(process.wait()) for _ in range(3)]
        await turns(steps)
        waits[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits[1]
        process.stdin.close()
        assert await waits[0] == await waits[2] == await process.wait() == 0

    run(main())


def test_task_group_that_fails_beside_a_child(loop, run):
    async def main():
        process = await EXEC("sleep", "60")

        async def fail():
            raise ZeroDivisionError

        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(process.wait())
                group.create_task(fail())
        assert process.returncode is None
        process.terminate()
        assert await process.wait() == -signal.SIGTERM

    run(main())


# Signals and the exit


@pytest.mark.parametrize("how", ["kill", "terminate", "send_signal"])
def test_signal_after_the_exit(loop, run, how):
    async def main():
        process = await EXEC("true")
        assert await process.wait() == 0
        with pytest.raises(ProcessLookupError):
            if how == "send_signal":
                process.send_signal(signal.SIGHUP)
            else:
                getattr(process, how)()

    if sys.version_info >= (3, 14):
        pytest.skip("silent there")
    run(main())


def test_kill_in_the_moment_of_the_exit(loop, run):
    async def main():
        for _ in range(20):
            process = await EXEC("true")
            # Popen.send_signal() polls, and so may reap before the loop does.
            while process.returncode is None:
                try:
                    process.send_signal(0)
                except ProcessLookupError:
                    break
                await asyncio.sleep(0)
            assert await process.wait() in (0, 255)

    run(main())


# Exceptions out of the protocol

METHODS = [
    "connection_made",
    "pipe_data_received",
    "pipe_connection_lost",
    "process_exited",
    "connection_lost",
]


def protocol_that_raises(method, error):
    done = asyncio.get_running_loop().create_future()

    class Protocol(asyncio.SubprocessProtocol):
        def connection_lost(self, exc):
            done.set_result(None)

    def broken(self, *args):
        if method == "connection_lost":
            done.set_result(None)
        raise error

    setattr(Protocol, method, broken)
    return Protocol, done


@pytest.mark.parametrize("method", METHODS)
def test_exception_is_reported(loop, run, method):
    contexts = capture(loop)

    async def main():
        factory, done = protocol_that_raises(method, ZeroDivisionError("out"))
        transport, _ = await loop.subprocess_exec(
            factory, "echo", "x", stdin=None, stderr=None
        )
        await done
        await settle()
        transport.close()

    run(main())
    assert [str(context["exception"]) for context in contexts] == ["out"]
    assert contexts[0]["message"].startswith("Exception in callback ")
    assert set(contexts[0]) >= {"message", "exception", "handle"}
    contexts.clear()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("method", METHODS)
def test_exit_leaves_the_loop(run_script, method, error):
    result = run_script(
        f"""
        class Protocol(asyncio.SubprocessProtocol):
            def {method}(self, *args):
                raise {error.__name__}("out")

        async def main():
            transport, _ = await asyncio.get_running_loop().subprocess_exec(
                Protocol, "echo", "x", stdin=None, stderr=None
            )
            await asyncio.sleep(60)

        loop = new_event_loop()
        main = loop.create_task(main())
        try:
            loop.run_until_complete(main)
        except {error.__name__} as exc:
            print("left", exc)
        main.cancel()
        try:
            loop.run_until_complete(main)
        except asyncio.CancelledError:
            print("goes on")
        loop.run_until_complete(asyncio.sleep(0.05))
        loop.close()
        """
    )
    assert result.stdout.split("\n")[:2] == ["left out", "goes on"]


# Descriptors


def test_out_of_descriptors(run_script):
    """Popen fails with EMFILE at each descriptor it needs; nothing leaks, no child is lost."""
    result = run_script(
        """
        import errno, os, resource
        PIPE = asyncio.subprocess.PIPE

        async def main():
            async def one():
                process = await asyncio.create_subprocess_exec(
                    "cat", stdin=PIPE, stdout=PIPE, stderr=PIPE
                )
                assert await process.communicate(b"x") == (b"x", b"")
                assert process.returncode == 0

            await one()
            await asyncio.sleep(0.01)
            before = len(os.listdir("/proc/self/fd"))
            highest = max(map(int, os.listdir("/proc/self/fd")))
            refused = served = 0
            for extra in range(1, 16):
                resource.setrlimit(resource.RLIMIT_NOFILE, (highest + extra, 4096))
                try:
                    await one()
                except OSError as exc:
                    assert exc.errno == errno.EMFILE, exc
                    refused += 1
                else:
                    served += 1
                await asyncio.sleep(0.01)
                resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
                assert len(os.listdir("/proc/self/fd")) == before, extra
            await one()
            print(refused > 2, served > 2)

        run(main())
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            print("no child left")
        """
    )
    assert result.stdout == "True True\nno child left\n"


def test_a_system_that_does_not_wait_for_pidfds(run, monkeypatch):
    """Linux 5.3 has them, and waits for numbers only."""
    real = os.waitid

    def waitid(kind, *args):
        if kind == getattr(os, "P_PIDFD", 3):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(kind, *args)

    monkeypatch.setattr(os, "waitid", waitid)

    async def main():
        process = await EXEC("sh", "-c", "exit 3")
        assert await asyncio.wait_for(process.wait(), 60) == 3

    run(main())


# Threads


def test_many_loops_in_many_threads(loop_factory, loop_name):
    """No child watcher, no signal, no lock: each loop minds its own children."""
    if loop_name == "asyncio" and FREE_THREADED:
        pytest.skip("its watchers are not made for threads that run at once")
    results = []
    barrier = threading.Barrier(8)

    async def one(code):
        process = await EXEC("sh", "-c", f"cat; exit {code}", stdin=PIPE, stdout=PIPE)
        out, _ = await process.communicate(b"%d" % code)
        return out == b"%d" % code and process.returncode == code

    async def main():
        done = []
        for _ in range(3):
            done += await asyncio.gather(*(one(code) for code in range(8)))
        results.extend(done)

    def work():
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            barrier.wait(60)
            runner.run(asyncio.wait_for(main(), 60))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 8 * 3 * 8


# What is left behind


@pytest.mark.parametrize(
    "how", ["fall off the end", "sys.exit", "os._exit", "unclosed"]
)
def test_interpreter_exit_with_a_running_child(run_script, how):
    result = run_script(
        f"""
        import os
        how = {how!r}
        loop = new_event_loop()

        async def main():
            return await asyncio.create_subprocess_exec(
                "sh", "-c", "sleep 0.2; echo child >&2", stdin=asyncio.subprocess.PIPE
            )

        process = loop.run_until_complete(main())
        print("started", flush=True)
        if how == "sys.exit":
            sys.exit()
        if how == "os._exit":
            os._exit(0)
        if how == "unclosed":
            del process
        else:
            process.kill()
            loop.run_until_complete(process.wait())
            loop.close()
        """
    )
    assert result.stdout == "started\n"
    assert "Fatal" not in result.stderr
    assert "Segmentation" not in result.stderr


def test_spawning_does_not_depend_on_the_size_of_the_parent(run_script):
    """A copied address space of this size takes ten times as long, each time."""
    result = run_script(
        """
        import time

        async def fastest():
            times = []
            for _ in range(30):
                start = time.perf_counter()
                process = await asyncio.create_subprocess_exec("true")
                times.append(time.perf_counter() - start)
                await process.wait()
            return min(times)

        async def main():
            await fastest()
            small = await fastest()
            heap = [bytearray(b"x") * (1 << 20) for _ in range(512)]
            for _ in range(10):  # what else the machine does, makes some of them slow
                if await fastest() < 4 * small:
                    print("as fast")
                    break

        run(main())
        """
    )
    assert result.stdout == "as fast\n"


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("failing", ["connect_read_pipe", "connect_write_pipe"])
def test_pipes_that_cannot_be_connected_end_the_child(loop, run, failing):
    if is_stock(loop):
        pytest.skip("waits for ever before Python 3.14")
    real = getattr(loop, failing)

    async def fail(*args):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def main():
        before = open_fds_at_first()
        setattr(loop, failing, fail)
        with pytest.raises(OSError, match=r"\[Errno 24\]"):
            await EXEC("cat", stdin=PIPE, stdout=PIPE)
        setattr(loop, failing, real)
        await settle()
        assert open_fds() == before
        process = await EXEC("cat", stdin=PIPE, stdout=PIPE)
        assert await process.communicate(b"x") == (b"x", None)

    run(main())


@pytest.mark.parametrize("failing", ["connect_read_pipe", "connect_write_pipe"])
def test_pipe_that_was_connected_and_is_lost(loop, run, failing):
    """As where memory runs out between the pipe's transport and the process's."""
    if is_stock(loop):
        pytest.skip("leaves the transport open on a descriptor that is not its own")
    real = getattr(loop, failing)

    async def fail(*args):
        await real(*args)
        raise MemoryError

    async def main():
        before = open_fds_at_first()
        setattr(loop, failing, fail)
        with pytest.raises(MemoryError):
            await EXEC("cat", stdin=PIPE, stdout=PIPE)
        setattr(loop, failing, real)
        await settle()
        assert open_fds() == before
        for _ in range(3):
            one, two = socket.socketpair()
            for sock in one, two:
                kept, _ = await loop.create_connection(asyncio.Protocol, sock=sock)
                opened.append(kept)
        for kept in opened:
            kept.close()
        await settle()

    opened = []
    run(main())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("where", ["pidfd_open", "_add_reader"])
def test_a_child_that_cannot_be_watched_is_ended(loop, run, monkeypatch, where):
    if is_stock(loop):
        pytest.skip("leaves it to the collector")

    def fail(*args):
        raise MemoryError

    async def main():
        before = open_fds_at_first()
        with monkeypatch.context() as patch:
            patch.setattr(
                *(os, where) if where == "pidfd_open" else (loop, where), fail
            )
            with pytest.raises(MemoryError):
                await EXEC("cat", stdin=PIPE, stdout=PIPE)
        await settle()
        assert open_fds() == before
        process = await EXEC("cat", stdin=PIPE, stdout=PIPE)
        assert await process.communicate(b"x") == (b"x", None)

    run(main())


def test_closing_the_loop_lets_a_running_child_go(loop_name, run_script):
    """Of what waited for its end, no descriptor is left."""
    if loop_name == "asyncio" and sys.version_info >= (3, 12):
        pytest.skip("its pidfd stays open")
    done = run_script(
        """
        import os, signal
        def count():
            return len(os.listdir("/proc/self/fd"))
        new_event_loop().close()
        before = count()
        loop = new_event_loop()
        async def main():
            return await asyncio.create_subprocess_exec("sleep", "60")
        process = loop.run_until_complete(main())
        transport = process._transport
        loop.close()
        os.kill(process.pid, signal.SIGKILL)
        try:
            assert os.waitpid(process.pid, 0)[1] == signal.SIGKILL
        except ChildProcessError:
            # A thread of asyncio's waits for it, and may be first.
            assert isinstance(loop, asyncio.SelectorEventLoop)
        print(count() - before)
        """,
        options=["-W", "ignore"],
    )
    assert done.stdout == "0\n"


@pytest.mark.parametrize("stranger", ["file", "watched", "eventfd", "child"])
@pytest.mark.parametrize("end", ["close", "exit"])
def test_a_number_that_another_file_has_by_now(loop_name, run_script, stranger, end):
    """A pidfd closed by the program, as daemons do: its number is a stranger's."""
    if loop_name == "asyncio" and (end == "exit" or sys.version_info < (3, 12)):
        pytest.skip("has no pidfd, or closes whatever has its number")
    if (stranger, end) == ("watched", "exit"):
        pytest.skip("its reader has taken the place of the loop's")
    run_script(
        """
        import os, signal, socket, subprocess, sys
        stranger, end = sys.argv[1:]
        opened = []
        pidfd_open = os.pidfd_open
        def recorded(*args):
            opened.append(pidfd_open(*args))
            return opened[-1]
        os.pidfd_open = recorded

        loop = new_event_loop()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        other = subprocess.Popen(["sleep", "60"], **quiet)
        a, b = socket.socketpair()
        open_stranger = {
            "file": lambda: os.open("/dev/null", os.O_RDWR),
            "watched": lambda: os.dup(a.fileno()),
            "eventfd": lambda: os.eventfd(0),
            "child": lambda: pidfd_open(other.pid),
        }[stranger]

        async def main():
            return await asyncio.create_subprocess_exec("sleep", "60", **quiet)

        process = loop.run_until_complete(main())
        number = opened[-1]  # asyncio has tried with its own process first
        kept = os.dup(number)  # the end of the child is still told of
        made = open_stranger()
        os.dup2(made, number)
        os.close(made)
        if stranger == "watched":
            loop.add_reader(number, print)
        if end == "exit":
            process.kill()
            status = loop.run_until_complete(process.wait())
            assert status == -signal.SIGKILL, status
        loop.close()
        os.close(number)  # it is still open
        os.close(kept)
        if end == "close":
            process._transport._proc.kill()
            process._transport._proc.wait()
        other.kill()
        other.wait()
        """,
        args=[stranger, end],
        options=["-W", "ignore"],
    )


def test_a_number_that_another_child_has_by_now(loop_name, run_script):
    """The first was reaped by Popen, and the loop has not been told of its end yet."""
    if loop_name == "asyncio":
        pytest.skip("waits for the number, whoever has it")
    result = run_script(
        """
        import os, pathlib, time
        last = pathlib.Path("/proc/sys/kernel/ns_last_pid")

        async def main():
            for _ in range(50):
                first = await asyncio.create_subprocess_exec("true")
                while first._transport._proc.poll() is None:
                    time.sleep(0.001)
                try:
                    last.write_text(str(first.pid - 1))
                except OSError:
                    return "cannot choose numbers"
                second = await asyncio.create_subprocess_exec("cat", stdin=-1)
                if second.pid == first.pid:
                    break
                await second.communicate()
            else:
                return "was given no number twice"
            status = await asyncio.wait_for(first.wait(), 30)
            await asyncio.sleep(0.05)
            running = second.returncode is None
            second.kill()
            return status, running, await asyncio.wait_for(second.wait(), 30)

        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            print(runner.run(main()))
        """
    )
    if "number" in result.stdout:
        pytest.skip(result.stdout)
    assert result.stdout == "(0, True, -9)\n"
    assert result.stderr == ""
