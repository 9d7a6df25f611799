"""Ctrl-C and other signals that end a program."""

import asyncio
import signal

import pytest

pytestmark = pytest.mark.usefixtures("signals_restored")

# Ctrl-C


def test_ctrl_c_of_an_idle_loop(run_script):
    result = run_script(
        """
        import os, signal, threading, time
        loop = new_event_loop()
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            loop.run_forever()
        except KeyboardInterrupt:
            print("interrupted", loop.is_running(), asyncio._get_running_loop())
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
        print("closed")
        """
    )
    assert result.stdout == "interrupted False None\nclosed\n"
    assert result.stderr == ""


def test_ctrl_c_of_a_busy_loop(run_script):
    result = run_script(
        """
        import os, signal, threading
        loop = new_event_loop()
        def again():
            loop.call_soon(again)
        loop.call_soon(again)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            loop.run_forever()
        except KeyboardInterrupt:
            print("interrupted", loop.is_running())
        loop.close()
        """
    )
    assert result.stdout == "interrupted False\n"
    assert result.stderr == ""


def test_ctrl_c_of_run_until_complete(run_script):
    result = run_script(
        """
        import os, signal, threading
        loop = new_event_loop()
        async def main():
            try:
                await asyncio.sleep(1000)
            finally:
                print("cleaned up")
        task = loop.create_task(main())
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            loop.run_until_complete(task)
        except KeyboardInterrupt:
            print("interrupted", task.done())
        task.cancel()
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            print("cancelled")
        loop.close()
        """
    )
    assert result.stdout == "interrupted False\ncleaned up\ncancelled\n"
    assert result.stderr == ""


@pytest.mark.parametrize(
    "wait",
    [
        "await asyncio.sleep(1000)",
        "await asyncio.get_running_loop().create_future()",
        "while True: await asyncio.sleep(0)",
    ],
    ids=["timer", "idle", "busy"],
)
def test_ctrl_c_cancels_the_main_task(run_script, wait):
    result = run_script(
        f"""
        import os, signal, threading
        async def main():
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                {wait}
            except asyncio.CancelledError:
                print("cancelled")
                await asyncio.sleep(0.01)
                print("cleaned up")
                raise
        try:
            run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert result.stdout == "cancelled\ncleaned up\ninterrupted\n"
    assert result.stderr == ""


def test_ctrl_c_twice(run_script):
    """The second does not wait for a task that ignores the first."""
    result = run_script(
        """
        import os, signal, threading
        def interrupt():
            os.kill(os.getpid(), signal.SIGINT)
        async def main():
            threading.Timer(0.1, interrupt).start()
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                print("ignored", flush=True)
                threading.Timer(0.1, interrupt).start()
                await asyncio.sleep(1000)
        try:
            run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert result.stdout == "ignored\ninterrupted\n"
    assert result.stderr == ""


def test_ctrl_c_ahead_of_an_event(run_script):
    """No line of Python runs between the signal and what the event leads to."""
    result = run_script(
        """
        import ctypes, os, signal, socket
        class Protocol(asyncio.Protocol):
            def pause_writing(self):
                print("paused", flush=True)
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = socket.socketpair()
            peer.setblocking(False)
            transport, _ = await loop.create_connection(Protocol, sock=ours)
            transport.set_write_buffer_limits(0)
            transport.write(bytes(1_000_000))
            transport.write(bytes(100_000))
            while transport.get_write_buffer_size() > 100_000:
                peer.recv(1 << 20)
                await asyncio.sleep(0.01)
            assert transport.get_write_buffer_size() > 0
            peer.recv(1 << 20)
            loop.call_soon(ctypes.CDLL(None).kill, os.getpid(), int(signal.SIGINT))
            await asyncio.sleep(1)
        loop = new_event_loop()
        try:
            loop.run_until_complete(main())
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert result.stdout == "paused\ninterrupted\n"


def test_ctrl_c_between_callbacks(run_script):
    """It comes out of the loop, not out of a callback that is next: that one runs later."""
    result = run_script(
        """
        import ctypes, functools, os, signal, socket
        kill = functools.partial(ctypes.CDLL(None).kill, os.getpid(), int(signal.SIGINT))
        class Protocol(asyncio.Protocol):
            "Has a dictionary."
        async def main():
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            future.add_done_callback(lambda _: print("called"))
            for function in future.set_result, kill:
                ours, peer = socket.socketpair()
                protocol = Protocol()
                protocol.data_received = function
                await loop.create_connection(lambda: protocol, sock=ours)
                peers.append(peer)
            for peer in peers:
                peer.send(b"data")
            await asyncio.sleep(1)
        peers = []
        loop = new_event_loop()
        try:
            loop.run_until_complete(main())
        except KeyboardInterrupt:
            print("interrupted")
        loop.run_until_complete(asyncio.sleep(0.01))
        """
    )
    assert sorted(result.stdout.split()) == ["called", "interrupted"]


def test_ctrl_c_with_a_handler_of_the_loop(run_script):
    result = run_script(
        """
        import os, signal, threading
        async def main():
            loop = asyncio.get_running_loop()
            stopped = asyncio.Event()
            loop.add_signal_handler(signal.SIGINT, stopped.set)
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            await stopped.wait()
            print("stopped")
        run(main())
        print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
        """
    )
    assert result.stdout == "stopped\nTrue\n"
    assert result.stderr == ""


def test_ctrl_c_without_a_handler_kills_as_any_program(run_script):
    """The exit status tells the shell of the signal."""
    result = run_script(
        """
        import os, signal, threading
        async def main():
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            await asyncio.sleep(1000)
        run(main())
        """,
        returncode=-signal.SIGINT,
    )
    assert "KeyboardInterrupt" in result.stderr


def test_ctrl_c_while_ignored(run_script):
    result = run_script(
        """
        import os, signal, threading
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        async def main():
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.05)
            print("alive")
        run(main())
        """
    )
    assert result.stdout == "alive\n"


def test_sigterm_ends_an_idle_program(run_script):
    """Without a handler the default applies at once."""
    result = run_script(
        """
        import os, signal, threading
        loop = new_event_loop()
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        loop.run_forever()
        """,
        returncode=-signal.SIGTERM,
    )
    assert result.stderr == ""


def test_signals_reach_the_handler_while_a_thread_holds_on(run_script):
    """A loop whose executor is busy with pure Python still answers."""
    result = run_script(
        """
        import os, signal, threading
        done = False
        def spin():
            while not done:
                pass
        async def main():
            global done
            loop = asyncio.get_running_loop()
            job = loop.run_in_executor(None, spin)
            called = asyncio.Event()
            loop.add_signal_handler(signal.SIGUSR1, called.set)
            os.kill(os.getpid(), signal.SIGUSR1)
            await called.wait()
            done = True
            await job
            print("done")
        run(main())
        """
    )
    assert result.stdout == "done\n"


def test_a_loop_that_was_not_closed_at_exit_with_handlers(run_script):
    result = run_script(
        """
        import signal
        loop = new_event_loop()
        loop.add_signal_handler(signal.SIGUSR1, print)
        loop.stop()
        loop.run_forever()
        print("leaving")
        """
    )
    assert result.stdout == "leaving\n"


def test_sigchld_handler_beside_subprocesses(loop, run):
    """A program's own SIGCHLD handler and a subprocess do not get in each other's way."""
    calls = []
    loop.add_signal_handler(signal.SIGCHLD, calls.append, 1)

    async def main():
        process = await asyncio.create_subprocess_exec("true")
        assert await process.wait() == 0
        while not calls:
            await asyncio.sleep(0.001)

    run(main())
    loop.remove_signal_handler(signal.SIGCHLD)
