"""Subprocesses: subprocess_exec and subprocess_shell, and asyncio's Process over them."""

import asyncio
import contextlib
import logging
import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest
from iosupport import (
    SIZES,
    capture,
    children,
    digest,
    is_stock,
    open_fds,
    open_fds_at_first,
    pattern,
    settle,
    turns,
)

PIPE = asyncio.subprocess.PIPE
DEVNULL = asyncio.subprocess.DEVNULL
EXEC = asyncio.create_subprocess_exec
SHELL = asyncio.create_subprocess_shell


@pytest.fixture(autouse=True)
def no_child_is_left():
    before = children()  # servers that other tests of this session have started
    yield
    assert children() <= before


# Bytes in and out


def test_communicate(loop, run):
    async def main():
        process = await EXEC(
            "sh",
            "-c",
            "cat; echo err >&2; exit 3",
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
        )
        assert process.returncode is None
        assert await process.communicate(b"question") == (b"question", b"err\n")
        assert process.returncode == 3
        assert await process.wait() == 3

    run(main())


@pytest.mark.parametrize("size", SIZES)
def test_sizes(loop, run, size):
    data = pattern(size)

    async def main():
        process = await EXEC("cat", stdin=PIPE, stdout=PIPE)
        out, err = await process.communicate(data)
        assert digest(out) == digest(data)
        assert err is None
        assert process.returncode == 0

    run(main())


def test_conversation(loop, run):
    async def main():
        process = await EXEC("cat", stdin=PIPE, stdout=PIPE)
        for turn in range(50):
            process.stdin.write(b"line %d\n" % turn)
            await process.stdin.drain()
            assert await process.stdout.readline() == b"line %d\n" % turn
        process.stdin.close()
        await process.stdin.wait_closed()
        assert await process.stdout.read() == b""
        assert await process.wait() == 0

    run(main())


def test_drain_waits_for_the_child(loop, run):
    async def main():
        process = await EXEC(
            "sh",
            "-c",
            "read line < /dev/null; sleep 0.2; wc -c",
            stdin=PIPE,
            stdout=PIPE,
        )
        process.stdin.write(bytes(3_000_000))
        drain = asyncio.create_task(process.stdin.drain())
        await settle()
        assert not drain.done()
        await drain
        process.stdin.close()
        assert int(await process.stdout.read()) == 3_000_000
        assert await process.wait() == 0

    run(main())


def test_streams_that_are_not_piped(loop, run, tmp_path):
    async def main():
        with open(tmp_path / "out", "w+b") as out:
            process = await EXEC(
                "sh",
                "-c",
                "echo out; echo err >&2",
                stdin=DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
            assert process.stdin is process.stdout is process.stderr is None
            assert await process.communicate() == (None, None)
            out.seek(0)
            assert out.read() == b"out\nerr\n"
        process = await EXEC(
            "sh", "-c", "echo out; echo err >&2", stdout=PIPE, stderr=subprocess.STDOUT
        )
        assert await process.communicate() == (b"out\nerr\n", None)

    run(main())


def test_standard_input_can_be_opened_again(loop, run):
    # A socket in the place of the pipe could not.
    async def main():
        process = await EXEC("sh", "-c", "cat /dev/stdin", stdin=PIPE, stdout=PIPE)
        assert await process.communicate(b"through the file system") == (
            b"through the file system",
            None,
        )
        assert process.returncode == 0

    run(main())


def test_child_that_does_not_read(loop, run):
    contexts = capture(loop)

    async def main():
        process = await EXEC("true", stdin=PIPE)
        await process.communicate(bytes(5_000_000))
        assert process.returncode == 0
        process = await EXEC("sh", "-c", "exec <&-; sleep 0.05", stdin=PIPE)
        process.stdin.write(bytes(5_000_000))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await process.stdin.drain()
        assert await process.wait() == 0

    run(main())
    assert contexts == []


def test_limit_of_lines(loop, run):
    async def main():
        process = await EXEC(
            "sh", "-c", "printf '%0100d\\nshort\\n' 0", stdout=PIPE, limit=16
        )
        with pytest.raises(ValueError, match="limit"):
            await process.stdout.readline()
        assert await process.stdout.readline() == b"short\n"
        assert await process.stdout.read() == b""  # or its end may be told last
        assert await process.wait() == 0

    run(main())


# Exits


@pytest.mark.parametrize("code", [0, 1, 127, 255])
def test_exit_codes(loop, run, code):
    async def main():
        process = await SHELL(f"exit {code}")
        assert await asyncio.gather(process.wait(), process.wait()) == [code, code]
        assert process.returncode == code
        assert await process.wait() == code

    run(main())


@pytest.mark.parametrize("name", ["terminate", "kill", "send_signal"])
def test_signals(loop, run, name):
    number = {
        "terminate": signal.SIGTERM,
        "kill": signal.SIGKILL,
        "send_signal": signal.SIGUSR1,
    }[name]

    async def main():
        process = await EXEC("sleep", "60")
        assert process.returncode is None
        getattr(process, name)(*([number] if name == "send_signal" else []))
        assert await process.wait() == -number
        assert process.returncode == -number
        # Who is gone cannot be signalled.
        if sys.version_info < (3, 14):
            with pytest.raises(ProcessLookupError):
                getattr(process, name)(*([number] if name == "send_signal" else []))

    run(main())


def test_kill_races_with_the_exit(loop, run):
    async def main():
        for _ in range(20):
            process = await EXEC("true")
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            # asyncio's watcher may find that Popen.send_signal() has reaped the child.
            assert await process.wait() in (
                0,
                -signal.SIGKILL,
                255 if is_stock(loop) else 0,
            )

    run(main())


def test_wait_with_a_timeout(loop, run):
    async def main():
        process = await EXEC("sleep", "60")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.wait(), 0.02)
        assert process.returncode is None
        process.kill()
        assert await process.wait() == -signal.SIGKILL

    run(main())


def test_cancelled_communicate(loop, run):
    async def main():
        process = await EXEC("sleep", "60", stdin=PIPE, stdout=PIPE)
        task = asyncio.create_task(process.communicate(b"x"))
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        process.kill()
        await process.communicate()
        assert process.returncode == -signal.SIGKILL

    run(main())


def test_child_that_is_over_before_anyone_looks(loop, run):
    async def main():
        process = await EXEC("sh", "-c", "echo done", stdout=PIPE)
        await asyncio.sleep(0.1)
        assert await process.stdout.read() == b"done\n"
        assert await process.wait() == 0

    run(main())


def test_many_at_once(loop, run):
    async def one(number):
        process = await EXEC(
            "sh", "-c", f"cat; exit {number % 7}", stdin=PIPE, stdout=PIPE
        )
        out, _ = await process.communicate(b"%d" % number)
        return out, process.returncode

    async def main():
        results = await asyncio.gather(*(one(number) for number in range(40)))
        assert results == [(b"%d" % number, number % 7) for number in range(40)]

    run(main())


def test_descriptors_come_back(loop, run):
    async def main():
        async def one():
            process = await EXEC("cat", stdin=PIPE, stdout=PIPE, stderr=PIPE)
            await process.communicate(b"x")
            await turns()

        await one()
        before = open_fds_at_first()
        for _ in range(5):
            await one()
        assert open_fds() <= before

    run(main())


def test_child_reaped_elsewhere(loop, run, caplog):
    if is_stock(loop) and sys.version_info < (3, 12):
        pytest.skip("its watcher's thread is faster")

    async def main():
        process = await EXEC("sleep", "1000")
        os.kill(process.pid, signal.SIGKILL)  # and reaped before the loop has a turn
        os.waitpid(process.pid, 0)
        assert await process.wait() == 255

    with caplog.at_level(logging.WARNING, "asyncio"):
        run(main())
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert "255" in messages[0]


def test_handler_of_sigchld(loop, run):
    async def main():
        seen = loop.create_future()
        loop.add_signal_handler(
            signal.SIGCHLD, lambda: seen.done() or seen.set_result(True)
        )
        process = await EXEC("sh", "-c", "exit 5")
        assert await process.wait() == 5
        assert await seen
        assert loop.remove_signal_handler(signal.SIGCHLD) is True

    run(main())


def test_children_of_other_modules_are_left_alone(loop, run):
    async def main():
        with subprocess.Popen(["sh", "-c", "exit 4"]) as other:
            process = await EXEC("sh", "-c", "exit 5")
            assert await process.wait() == 5
            await turns()
            assert other.wait(30) == 4

    run(main())


# Keywords


def test_working_directory_and_environment(loop, run, tmp_path):
    async def main():
        process = await SHELL(
            "pwd; echo $COLOUR", cwd=tmp_path, env={"COLOUR": "green"}, stdout=PIPE
        )
        out, _ = await process.communicate()
        assert out.decode().split("\n") == [str(tmp_path.resolve()), "green", ""]

    run(main())


def test_forms_of_arguments(loop, run, tmp_path):
    async def main():
        for program, argument in (
            (b"echo", b"bytes"),
            (pathlib.Path("/bin/echo"), tmp_path),
            ("echo", "snow ☃"),
        ):
            process = await EXEC(program, argument, stdout=PIPE)
            out, _ = await process.communicate()
            assert out == os.fsencode(argument) + b"\n"
        process = await SHELL(b"echo bytes", stdout=PIPE)
        assert (await process.communicate())[0] == b"bytes\n"

    run(main())


def test_pass_fds(loop, run):
    async def main():
        r, w = os.pipe()
        try:
            process = await SHELL(f"echo through > /dev/fd/{w}", pass_fds=[w])
            assert await process.wait() == 0
            assert os.read(r, 100) == b"through\n"
            # Others are closed in the child.
            process = await SHELL(f"echo no > /dev/fd/{w}", stderr=DEVNULL)
            assert await process.wait() != 0
        finally:
            os.close(r)
            os.close(w)

    run(main())


def test_sessions_and_groups(loop, run):
    async def main():
        process = await EXEC("sleep", "60", start_new_session=True)
        assert os.getsid(process.pid) == process.pid
        process.kill()
        await process.wait()
        process = await EXEC("sleep", "60", process_group=0)
        assert os.getpgid(process.pid) == process.pid
        assert os.getsid(process.pid) == os.getsid(0)
        process.kill()
        await process.wait()

    run(main())


def test_preexec_fn(loop, run, tmp_path):
    async def main():
        process = await EXEC("pwd", preexec_fn=lambda: os.chdir(tmp_path), stdout=PIPE)
        assert (await process.communicate())[0].decode().strip() == str(
            tmp_path.resolve()
        )
        with pytest.raises(
            subprocess.SubprocessError, match="Exception occurred in preexec_fn"
        ):
            await EXEC("true", preexec_fn=lambda: 1 / 0, stdin=PIPE, stdout=PIPE)

    run(main())


def test_umask_and_pipesize(loop, run):
    async def main():
        process = await EXEC(
            "sh", "-c", "umask", umask=0o027, pipesize=8192, stdout=PIPE
        )
        assert int((await process.communicate())[0], 8) == 0o027

    run(main())


def test_executable(loop, run):
    async def main():
        process = await EXEC(
            "another name", "-c", "echo $0", executable="/bin/sh", stdout=PIPE
        )
        assert (await process.communicate())[0] == b"another name\n"
        process = await SHELL("echo $0", executable="/bin/sh", stdout=PIPE)
        assert (await process.communicate())[0] == b"/bin/sh\n"

    run(main())


# Errors


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"universal_newlines": True}, "universal_newlines must be False"),
        ({"bufsize": 4096}, "bufsize must be 0"),
        ({"text": True}, "text must be False"),
        ({"encoding": "utf-8"}, "encoding must be None"),
        ({"errors": "strict"}, "errors must be None"),
    ],
)
def test_refused_keywords(loop, run, kwargs, message):
    async def main():
        with pytest.raises(ValueError, match=message):
            await loop.subprocess_exec(asyncio.SubprocessProtocol, "true", **kwargs)
        with pytest.raises(ValueError, match=message):
            await loop.subprocess_shell(asyncio.SubprocessProtocol, "true", **kwargs)

    run(main())


def test_wrong_arguments(loop, run):
    async def main():
        with pytest.raises(ValueError, match="shell must be False"):
            await loop.subprocess_exec(asyncio.SubprocessProtocol, "true", shell=True)
        with pytest.raises(ValueError, match="shell must be True"):
            await loop.subprocess_shell(asyncio.SubprocessProtocol, "true", shell=False)
        with pytest.raises(ValueError, match="cmd must be a string"):
            await loop.subprocess_shell(asyncio.SubprocessProtocol, ["true"])
        for arguments in ((None,), (["echo"],), ("echo", 17), ("echo", None)):
            with pytest.raises(TypeError):
                await EXEC(*arguments)
        with pytest.raises(TypeError):
            await EXEC("true", nonsense=True)
        with pytest.raises(ValueError, match="embedded null byte"):
            await EXEC("echo", "a\0b")

    run(main())


def test_programs_that_cannot_be_run(loop, run, tmp_path):
    (tmp_path / "plain").write_text("no program")

    async def main():
        before = open_fds_at_first()
        for kwargs in ({}, {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}):
            with pytest.raises(FileNotFoundError):
                await EXEC("/no/such/program", **kwargs)
            with pytest.raises(PermissionError):
                await EXEC(tmp_path / "plain", **kwargs)
            with pytest.raises(NotADirectoryError):
                await EXEC("true", cwd=tmp_path / "plain", **kwargs)
        await turns()
        assert open_fds() == before

    run(main())


# Transport and protocol


class Watcher(asyncio.SubprocessProtocol):
    def __init__(self):
        self.events = []
        self.data = {1: b"", 2: b""}
        self.exited = asyncio.get_running_loop().create_future()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.events.append("made")

    def pipe_data_received(self, fd, data):
        self.events.append(("data", fd))
        self.data[fd] += data

    def pipe_connection_lost(self, fd, exc):
        self.events.append(("pipe lost", fd, exc))

    def process_exited(self):
        self.events.append("exited")
        self.exited.set_result(self.transport.get_returncode())

    def connection_lost(self, exc):
        self.events.append("lost")
        self.lost.set_result(exc)


def test_protocol(loop, run):
    async def main():
        transport, protocol = await loop.subprocess_exec(
            Watcher, "sh", "-c", "cat; echo err >&2; exit 6"
        )
        assert isinstance(transport, asyncio.SubprocessTransport)
        assert transport.get_pid() == transport.get_extra_info("subprocess").pid
        assert transport.get_returncode() is None
        assert transport.get_protocol() is protocol
        assert transport.is_closing() is False
        assert isinstance(transport.get_extra_info("subprocess"), subprocess.Popen)
        assert f"pid={transport.get_pid()} running" in repr(transport)
        stdin = transport.get_pipe_transport(0)
        assert isinstance(stdin, asyncio.WriteTransport)
        assert isinstance(transport.get_pipe_transport(1), asyncio.ReadTransport)
        assert transport.get_pipe_transport(3) is None
        stdin.write(b"hello")
        stdin.write_eof()
        assert await protocol.exited == 6
        assert await protocol.lost is None
        assert protocol.data == {1: b"hello", 2: b"err\n"}
        assert protocol.events[0] == "made"
        assert protocol.events[-1] == "lost"
        assert set(protocol.events) == {
            "made",
            ("data", 1),
            ("data", 2),
            ("pipe lost", 0, None),
            ("pipe lost", 1, None),
            ("pipe lost", 2, None),
            "exited",
            "lost",
        }
        assert transport.get_returncode() == 6
        assert "returncode=6" in repr(transport)
        transport.close()
        transport.close()
        assert transport.is_closing() is True

    run(main())


def test_close_kills_the_child(loop, run):
    async def main():
        transport, protocol = await loop.subprocess_exec(Watcher, "sleep", "60")
        transport.close()
        assert transport.is_closing()
        assert await protocol.exited == -signal.SIGKILL
        assert await protocol.lost is None
        transport.close()

    run(main())


def test_signals_of_the_transport(loop, run):
    async def main():
        for name, args, number in (
            ("terminate", (), signal.SIGTERM),
            ("kill", (), signal.SIGKILL),
            ("send_signal", (signal.SIGHUP,), signal.SIGHUP),
        ):
            transport, protocol = await loop.subprocess_exec(Watcher, "sleep", "60")
            getattr(transport, name)(*args)
            assert await protocol.exited == -number
            await protocol.lost
            transport.close()
            if sys.version_info < (3, 14):
                with pytest.raises(ProcessLookupError):
                    transport.kill()

    run(main())


def test_reading_of_a_pipe_can_be_paused(loop, run):
    async def main():
        transport, protocol = await loop.subprocess_shell(Watcher, "cat")
        out = transport.get_pipe_transport(1)
        out.pause_reading()
        transport.get_pipe_transport(0).write(b"held")
        await asyncio.sleep(0.05)
        assert protocol.data[1] == b""
        out.resume_reading()
        transport.get_pipe_transport(0).close()
        await protocol.lost
        assert protocol.data[1] == b"held"
        transport.close()

    run(main())


def test_protocol_factory_that_raises(loop, run):
    async def main():
        with pytest.raises(ZeroDivisionError):
            await loop.subprocess_exec(lambda: 1 / 0, "sleep", "60")

    run(main())


def test_cancelled_while_starting(loop, run):
    async def main():
        for steps in range(1, 6):
            task = asyncio.create_task(EXEC("sleep", "60", stdin=PIPE, stdout=PIPE))
            await turns(steps)
            if task.done():
                process = await task
                process.kill()
                await process.wait()
                continue
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await asyncio.sleep(0.05)

    run(main())


# Threads


def test_loop_of_another_thread(loop_factory):
    results = []

    async def main():
        process = await EXEC("cat", stdin=PIPE, stdout=PIPE)
        out, _ = await process.communicate(b"in a thread")
        results.append((out, process.returncode))

    def work():
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(asyncio.wait_for(main(), 30))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [(b"in a thread", 0)] * 4


def test_fork_hooks_are_those_of_subprocess(run_script):
    result = run_script(
        """
        import os
        os.register_at_fork(before=lambda: print("hook"))
        async def main():
            process = await asyncio.create_subprocess_exec("true")
            assert await process.wait() == 0
            process = await asyncio.create_subprocess_exec("true", preexec_fn=lambda: None)
            assert await process.wait() == 0
        run(main())
        """
    )
    # Only preexec_fn makes subprocess run them.
    assert result.stdout.split() == ["hook"]
