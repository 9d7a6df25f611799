"""anyio on its asyncio backend: task groups, threads both ways, processes, streams."""

import math
import os
import subprocess
import sys
import threading

import anyio
import anyio.from_thread
import anyio.to_process
import anyio.to_thread
import pytest
from anyio.streams.tls import TLSListener, TLSStream

pytestmark = pytest.mark.usefixtures("child_watcher")


def test_task_groups(run):
    async def main():
        seen = []

        async def child(number, *, task_status=anyio.TASK_STATUS_IGNORED):
            task_status.started(number)
            try:
                await anyio.sleep(number)
                seen.append(number)
            except anyio.get_cancelled_exc_class():
                seen.append(f"cancelled {number}")
                raise

        with pytest.raises(ExceptionGroup) as caught:
            async with anyio.create_task_group() as group:
                assert await group.start(child, 3600) == 3600
                group.start_soon(child, 0)

                async def fail():
                    await anyio.sleep(0.01)
                    raise ZeroDivisionError

                group.start_soon(fail)
        assert caught.group_contains(ZeroDivisionError)
        assert seen == [0, "cancelled 3600"]

        with anyio.move_on_after(0.01) as scope:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.02)
                seen.append("shielded")
            await anyio.sleep(3600)
        assert scope.cancelled_caught
        assert seen[-1] == "shielded"
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0.01):
                await anyio.sleep(3600)

    run(main())


def test_threads(run):
    async def main():
        limiter = anyio.CapacityLimiter(3)
        running, most = 0, 0
        lock = threading.Lock()

        def work(number):
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            # Back into the loop and out again.
            anyio.from_thread.run(anyio.sleep, 0.001)
            result = anyio.from_thread.run_sync(math.sqrt, number)
            with lock:
                running -= 1
            return result

        results = {}

        async def one(number):
            results[number] = await anyio.to_thread.run_sync(
                work, number, limiter=limiter
            )

        async with anyio.create_task_group() as group:
            for number in range(60):
                group.start_soon(one, number)
        assert results == {number: math.sqrt(number) for number in range(60)}
        assert most <= 3

        # A thread that is left behind and ends after the scope.
        event = threading.Event()
        with anyio.move_on_after(0.01) as scope:
            await anyio.to_thread.run_sync(event.wait, abandon_on_cancel=True)
        assert scope.cancelled_caught
        event.set()

    run(main())


def test_portal(loop_name, loop_factory):
    """A loop in a thread of its own, called from this one."""
    options = {"loop_factory": loop_factory}
    with anyio.from_thread.start_blocking_portal("asyncio", options) as portal:
        assert portal.call(anyio.sleep, 0) is None
        futures = [portal.start_task_soon(_slow_square, n) for n in range(100)]
        assert [future.result() for future in futures] == [n**2 for n in range(100)]
        future = portal.start_task_soon(anyio.sleep, 3600)
        future.cancel()
        with pytest.raises(ZeroDivisionError):
            portal.call(lambda: 1 / 0)


async def _slow_square(number):
    await anyio.sleep(0.001)
    return number**2


def test_processes(run):
    async def main():
        pids = set()
        async with anyio.create_task_group() as group:

            async def one():
                pids.add(await anyio.to_process.run_sync(os.getpid))

            for _ in range(4):
                group.start_soon(one)
        assert os.getpid() not in pids
        with pytest.raises(ZeroDivisionError):
            await anyio.to_process.run_sync(divmod, 1, 0)
        with anyio.move_on_after(0.05) as scope:
            await anyio.to_process.run_sync(os.read, 0, 1, cancellable=True)
        assert scope.cancelled_caught or scope.cancel_called

    run(main())


def test_subprocess(run):
    async def main():
        done = await anyio.run_process(
            [sys.executable, "-c", "print(input()[::-1])"], input=b"live\n"
        )
        assert done.stdout == b"evil\n"
        with pytest.raises(subprocess.CalledProcessError):
            await anyio.run_process([sys.executable, "-c", "raise SystemExit(3)"])
        code = (
            "import sys\nfor line in sys.stdin: print(line.upper(), end='', flush=True)"
        )
        async with await anyio.open_process([sys.executable, "-c", code]) as process:
            for word in (b"one\n", b"two\n"):
                await process.stdin.send(word)
                assert await process.stdout.receive() == word.upper()
            await process.stdin.aclose()
            assert await process.wait() == 0

    run(main())


def test_streams(run, tls, tmp_path):
    async def echo(stream):
        async with stream:
            async for data in stream:
                await stream.send(data)

    async def exchange(stream):
        async with stream:
            for size in (1, 1000, 300_000):
                data = os.urandom(size)
                got = b""
                async with anyio.create_task_group() as group:
                    group.start_soon(stream.send, data)
                    while len(got) < size:
                        got += await stream.receive()
                assert got == data

    async def main():
        async def listen():
            multi = await anyio.create_tcp_listener(local_host="127.0.0.1")
            (listener,) = multi.listeners
            return listener

        tcp = await listen()
        port = tcp.extra(anyio.abc.SocketAttribute.local_port)
        plain = await anyio.create_unix_listener(tmp_path / "sock")
        secure = TLSListener(await listen(), tls.server)
        secure_port = secure.listener.extra(anyio.abc.SocketAttribute.local_port)
        async with tcp, plain, secure, anyio.create_task_group() as group:
            for listener in (tcp, plain, secure):
                group.start_soon(listener.serve, echo)
            async with anyio.create_task_group() as clients:
                for _ in range(5):
                    stream = await anyio.connect_tcp("127.0.0.1", port)
                    clients.start_soon(exchange, stream)
                    stream = await anyio.connect_unix(tmp_path / "sock")
                    clients.start_soon(exchange, stream)
                    stream = await TLSStream.wrap(
                        await anyio.connect_tcp("127.0.0.1", secure_port),
                        hostname="localhost",
                        ssl_context=tls.client,
                    )
                    clients.start_soon(exchange, stream)
            group.cancel_scope.cancel()

    run(main())


def test_udp_and_signals(run):
    async def main():
        async with await anyio.create_udp_socket(local_host="127.0.0.1") as receiver:
            port = receiver.extra(anyio.abc.SocketAttribute.local_port)
            async with await anyio.create_connected_udp_socket(
                "127.0.0.1", port
            ) as sender:
                for number in range(100):
                    await sender.send(str(number).encode())
                    packet, _ = await receiver.receive()
                    assert packet == str(number).encode()
        with anyio.open_signal_receiver(10) as signals:
            os.kill(os.getpid(), 10)
            async for number in signals:
                assert number == 10
                break

    run(main())


def test_files_and_memory_streams(run, tmp_path):
    async def main():
        async with await anyio.open_file(tmp_path / "file", "w") as file:
            await file.write("line\n" * 1000)
        text = await anyio.Path(tmp_path / "file").read_text()
        assert text == "line\n" * 1000
        send, receive = anyio.create_memory_object_stream[int](2)
        async with anyio.create_task_group() as group:

            async def produce():
                async with send:
                    for number in range(1000):
                        await send.send(number)

            group.start_soon(produce)
            async with receive:
                assert [n async for n in receive] == list(range(1000))

    run(main())
