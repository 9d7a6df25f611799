"""fork() beside a loop, open or running: what the child may do, and that nobody else
notices. The end of the process itself is in test_fork_exit.py.
"""

import pytest
from authority import new_authority


@pytest.fixture
def native(loop_name):
    """Skip what asyncio's loop, which the child shares with its parent, cannot."""
    if loop_name == "asyncio":
        pytest.skip("the child would wait on the parent's epoll set")


@pytest.mark.usefixtures("native")
def test_the_parent_s_loop_is_refused(run_forking):
    """Whatever would wait on the loop of the parent, or wake it up."""
    result = run_forking(
        """
        def child(loop, sock):
            refused = 0
            for call in (
                lambda: loop.run_forever(),
                lambda: loop.run_until_complete(loop.create_future()),
                lambda: loop.run_once(0),
                lambda: loop.call_soon_threadsafe(print),
                lambda: loop.add_reader(sock, print),
                lambda: loop.add_writer(sock, print),
                lambda: loop.run_in_executor(None, print),
                lambda: asyncio.run_coroutine_threadsafe(nothing, loop),
            ):
                try:
                    call()
                except RuntimeError as exc:
                    assert "belongs to the parent process" in str(exc), exc
                    refused += 1
            print("refused", refused)
            loop.call_soon(print)  # only queued
            loop.stop()

        async def main():
            loop = asyncio.get_running_loop()
            pid = fork(lambda: child(loop, sock))
            return await ended(pid)

        async def nothing():
            pass

        nothing = nothing()
        sock = socket.socket()
        print("running", run(main()))
        loop = new_event_loop()
        pid = fork(lambda: child(loop, sock))
        print("open", loop.run_until_complete(ended(pid)))
        loop.close()
        nothing.close()
        sock.close()
        """
    )
    assert result.stdout == "refused 8\nrunning 0\nrefused 8\nopen 0\n"
    assert result.stderr == ""


@pytest.mark.usefixtures("native")
def test_a_child_that_returns_into_the_loop(run_forking):
    result = run_forking(
        """
        async def main():
            pid = os.fork()
            if pid == 0:
                return await asyncio.sleep(0, "child")
            return await ended(pid)

        parent = os.getpid()
        loop = new_event_loop()
        try:
            print("parent", loop.run_until_complete(main()))
        except RuntimeError as exc:
            print("child", exc, os.getpid() != parent)
            sys.stdout.flush()
        else:
            loop.run_until_complete(asyncio.sleep(0.01))
            loop.close()
        """
    )
    said, parent = result.stdout.splitlines()
    assert said.startswith("child This event loop belongs to the parent process")
    assert said.endswith(" True")
    assert parent == "parent 0"


@pytest.mark.usefixtures("native")
def test_a_child_that_takes_no_event_of_the_parent(run_forking):
    """Nor sends what waited for the end of the turn that it was forked in."""
    result = run_forking(
        """
        async def main():
            loop = asyncio.get_running_loop()
            a, b = socket.socketpair()
            one, two = socket.socketpair(type=socket.SOCK_DGRAM)
            reading, writing = os.pipe()
            for sock in (b, two):
                sock.settimeout(10)
            stream, _ = await loop.create_connection(asyncio.Protocol, sock=a)
            datagram, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, sock=one
            )
            pipe, _ = await loop.connect_write_pipe(
                asyncio.BaseProtocol, os.fdopen(writing, "wb", 0)
            )
            for transport in (stream, pipe):
                transport.write(b"once")
            for _ in range(3):
                datagram.sendto(b"once")
            timer = loop.call_later(0.02, print, "timer")
            pid = os.fork()
            if pid == 0:
                loop.call_later(0, print)
                if closes:
                    for transport in (stream, pipe, datagram):
                        transport.close()
                # A task's step complains that it ends where no loop runs, from Python
                # 3.14 on.
                loop.set_exception_handler(complaint)
                # It leaves open what it has not made; a debug build would say so.
                warnings.simplefilter("ignore", ResourceWarning)
                return
            # The child ends before this process comes to its own flush and wait.
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
            await asyncio.sleep(0.03)
            for transport in (stream, pipe, datagram):
                transport.close()
            await asyncio.sleep(0.01)
            found = [b"", os.read(reading, 100)]
            while data := b.recv(100):
                found[0] += data
            two.setblocking(False)
            count = 0
            try:
                while two.recv(100):
                    count += 1
            except BlockingIOError:
                pass
            print(found, count)
            for sock in (b, two):
                sock.close()
            os.close(reading)

        def complaint(loop, context):
            if "is not the running loop" not in str(context["exception"]):
                loop.default_exception_handler(context)

        for closes in (False, True):
            parent = os.getpid()
            loop = new_event_loop()
            try:
                loop.run_until_complete(main())
                loop.close()
            except RuntimeError:
                assert os.getpid() != parent
                loop.close()
                os._exit(7)
        """
    )
    assert result.stdout == "timer\n[b'once', b'once'] 3\n" * 2
    assert result.stderr == ""


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_child_s_large_writes_stay_with_it(run_forking, kind):
    """Also of a buffer that would be sent without being copied first."""
    result = run_forking(
        f"""
        async def main():
            loop = asyncio.get_running_loop()
            a, b = socket.socketpair()
            reading, writing = os.pipe()
            stream, _ = await loop.create_connection(asyncio.Protocol, sock=a)
            pipe, _ = await loop.connect_write_pipe(
                asyncio.BaseProtocol, os.fdopen(writing, "wb", 0)
            )

            def child():
                for transport in (stream, pipe):
                    transport.write({kind.__name__}(bytes(20_000)))
                    assert transport.get_write_buffer_size() == 20_000

            print("status", await ended(fork(child)))
            for transport in (stream, pipe):
                transport.write(b"parent's")
                transport.close()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            print(b.recv(100_000), os.read(reading, 100_000))
            b.close()
            os.close(reading)

        run(main())
        """
    )
    assert result.stdout == 'status 0\nb"parent\'s" b"parent\'s"\n'
    assert result.stderr == ""


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("where", ["callback", "protocol"])
def test_a_child_tells_of_no_event_that_its_parent_had_found(run_forking, where):
    result = run_forking(
        f"""
        where = {where!r}
        parent = os.getpid()
        seen = []

        class Protocol(asyncio.Protocol):
            def data_received(self, data):
                seen.append(data.decode())
                if where == "protocol" and len(seen) == 1:
                    fork()

        def fork():
            # The child ends before this process reads.
            pid = os.fork()
            if pid:
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7

        loop = new_event_loop()
        theirs = []
        for _ in range(2):
            a, b = socket.socketpair()
            loop.run_until_complete(loop.create_connection(Protocol, sock=a))
            theirs.append(b)
        for b in theirs:
            b.send(b"data")
        if where == "callback":
            loop.call_soon(fork)
        loop.call_soon(loop.stop)
        warnings.simplefilter("ignore", ResourceWarning)  # of what stays open
        try:
            loop.run_forever()
        except RuntimeError:
            assert os.getpid() != parent
        if os.getpid() != parent:
            os._exit(7 if len(seen) == (where == "protocol") else 8)
        print(*seen)
        """
    )
    assert result.stdout == "data data\n"


@pytest.mark.usefixtures("native")
def test_a_child_that_takes_everything_down(run_forking):
    """Its copies of the transports are its own; the parent's connections live on."""
    result = run_forking(
        """
        async def main():
            loop = asyncio.get_running_loop()
            server = await asyncio.start_server(echo, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname()
            )
            datagram, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, ("127.0.0.1", 0)
            )
            a, b = socket.socketpair()
            received = loop.create_future()
            loop.add_reader(a, lambda: received.done() or received.set_result(a.recv(9)))
            await asyncio.to_thread(len, "")

            def child():
                loop.remove_reader(a)
                writer.transport.pause_reading()
                writer.transport.resume_reading()
                writer.close()
                datagram.abort()
                server.close()
                for sock in (a, b):
                    sock.close()

            assert await ended(fork(child)) == 0
            b.send(b"data")
            writer.write(b"hello")
            print(await received, await reader.readexactly(5))
            other, more = await asyncio.open_connection(
                *server.sockets[0].getsockname()
            )
            more.write(b"more")
            print(await other.readexactly(4), await asyncio.to_thread(len, "abc"))
            loop.remove_reader(a)
            for each in (writer, more):
                each.close()
                await each.wait_closed()
            datagram.close()
            server.close()
            await server.wait_closed()
            await asyncio.sleep(0.01)
            a.close()
            b.close()

        run(main())
        """
    )
    assert result.stdout == "b'data' b'hello'\nb'more' 3\n"
    assert result.stderr == ""


def test_a_loop_of_its_own_beside_all_of_the_parent_s(run_forking):
    """Executor threads, a child process and signal handlers stay with the parent."""
    result = run_forking(
        """
        async def work(text):
            loop = asyncio.get_running_loop()
            server = await asyncio.start_server(echo, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname()
            )
            writer.write(text)
            assert await reader.readexactly(len(text)) == text
            writer.close()
            await writer.wait_closed()
            server.close()
            await server.wait_closed()
            seen = asyncio.Event()
            loop.add_signal_handler(signal.SIGUSR1, seen.set)
            os.kill(os.getpid(), signal.SIGUSR1)
            await seen.wait()
            loop.remove_signal_handler(signal.SIGUSR1)
            found = await asyncio.gather(*(asyncio.to_thread(pow, n, 2) for n in range(5)))
            assert found == [0, 1, 4, 9, 16]
            await asyncio.sleep(0.01)

        def child():
            run(work(b"child"))
            print("child")

        async def main():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGUSR2, print, "parent's signal")
            await asyncio.gather(*(asyncio.to_thread(len, "") for _ in range(3)))
            process = None
            if sys.version_info >= (3, 12):
                process = await asyncio.create_subprocess_exec(
                    "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
                )
            busy = asyncio.ensure_future(asyncio.to_thread(event.wait))
            await asyncio.sleep(0)
            print("ended", await ended(fork(child)))
            event.set()
            assert await busy
            if process is not None:
                out, _ = await process.communicate(b"through")
                assert (out, process.returncode) == (b"through", 0)
            loop.remove_signal_handler(signal.SIGUSR2)
            await work(b"parent")

        event = threading.Event()
        run(main())
        """
    )
    assert result.stdout == "child\nended 0\n"
    assert result.stderr == ""


def test_from_a_thread_while_the_loop_sleeps(run_forking):
    result = run_forking(
        """
        def child():
            run(asyncio.sleep(0.01))
            print("child")

        def work():
            pids.append(fork(child))
            loop.call_soon_threadsafe(loop.stop)

        pids = []
        loop = new_event_loop()
        threading.Timer(0.05, work).start()
        loop.run_forever()
        print("ended", loop.run_until_complete(ended(pids[0])))
        loop.close()
        """
    )
    assert result.stdout == "child\nended 0\n"


def test_from_every_kind_of_callback(run_forking):
    result = run_forking(
        """
        pids = []

        def forks(*args):
            pids.append(fork(lambda: run(asyncio.sleep(0.001))))

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                forks()
            def data_received(self, data):
                forks()
            def connection_lost(self, exc):
                forks()
                lost.set_result(None)

        async def main():
            global lost
            loop = asyncio.get_running_loop()
            lost = loop.create_future()
            loop.call_soon(forks)
            loop.call_later(0.001, forks)
            loop.call_soon_threadsafe(forks)
            a, b = socket.socketpair()
            transport, _ = await loop.create_connection(Protocol, sock=a)
            b.send(b"data")
            loop.add_signal_handler(signal.SIGUSR1, forks)
            os.kill(os.getpid(), signal.SIGUSR1)
            while len(pids) < 6:
                await asyncio.sleep(0.001)
            transport.close()
            await lost
            b.close()
            loop.remove_signal_handler(signal.SIGUSR1)
            print([await ended(pid) for pid in pids])

        run(main())
        """
    )
    assert result.stdout == f"{[0] * 7}\n"
    assert result.stderr == ""


def test_tls_beside_a_fork(run_forking):
    """The child drops its copy of the connection without a word to the peer."""
    new_authority()
    result = run_forking(
        """
        import gc
        import tlssupport
        certificates = tlssupport.Certificates()

        async def main():
            server = await asyncio.start_server(
                echo, "127.0.0.1", 0, ssl=certificates.server
            )
            reader, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname(),
                ssl=certificates.client, server_hostname="localhost",
            )
            writer.write(b"before")
            assert await reader.readexactly(6) == b"before"
            print(await ended(fork(lambda: run(asyncio.sleep(0.001)))))
            writer.write(b"after")
            print(await reader.readexactly(5))
            writer.close()
            await writer.wait_closed()
            server.close()
            await server.wait_closed()

        run(main())
        """
    )
    assert result.stdout == "0\nb'after'\n"


POOLS = """
import asyncio
import concurrent.futures
import multiprocessing
import os
import warnings

warnings.simplefilter("ignore", DeprecationWarning)
if {loop!r} == "fastloop":
    import fastloop
    fastloop.install()


async def work(number):
    await asyncio.sleep(0.001)
    return await asyncio.to_thread(pow, number, 2)


def child(number):
    return asyncio.run(work(number))


async def main():
    loop = asyncio.get_running_loop()
    assert type(loop).__module__.startswith({loop!r}), type(loop)
    await asyncio.to_thread(len, "")
    context = multiprocessing.get_context({method!r})
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        print(await asyncio.gather(
            *(loop.run_in_executor(pool, child, number) for number in range(6))
        ))
    queue = context.Queue()
    process = context.Process(target=put, args=(queue,))
    process.start()
    print(await asyncio.to_thread(queue.get))
    await asyncio.to_thread(process.join)
    print(process.exitcode)
    queue.close()


def put(queue):
    queue.put(asyncio.run(work(7)))


if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing_with_a_running_loop(run_script, tmp_path, loop_name, method):
    """Processes are started while the loop runs, and run loops of their own."""
    script = tmp_path / "script.py"
    script.write_text(POOLS.format(loop=loop_name, method=method))
    result = run_script(script)
    assert result.stdout == "[0, 1, 4, 9, 16, 25]\n49\n0\n"
    assert result.stderr == ""


@pytest.mark.usefixtures("native")
def test_beside_a_callback_of_another_thread(run_forking):
    """The child cancels what ran at the fork, and will never come to its end."""
    result = run_forking(
        """
        def child():
            signal.alarm(60)
            handle.cancel()
            print(handle.cancelled())

        def work():
            inside.set()
            leave.wait()

        loop = new_event_loop()
        inside, leave = threading.Event(), threading.Event()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        handle = loop.call_soon_threadsafe(work)
        inside.wait()
        print(os.waitpid(fork(child), 0)[1])
        leave.set()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        """
    )
    assert result.stdout == "True\n0\n"
    assert result.stderr == ""


@pytest.mark.usefixtures("native")
def test_beside_a_call_of_another_thread(run_forking):
    """Who was inside a transport at the fork keeps nobody out of it in the child."""
    result = run_forking(
        """
        class Pausing(asyncio.Protocol):
            def pause_writing(self):
                inside.set()
                leave.wait()

        def child():
            transport.pause_reading()
            print(transport.is_reading())
            run(asyncio.sleep(0))

        a, b = socket.socketpair()
        inside, leave = threading.Event(), threading.Event()
        loop = new_event_loop()
        transport, _ = loop.run_until_complete(
            loop.create_connection(Pausing, sock=a)
        )
        transport.set_write_buffer_limits(0)
        thread = threading.Thread(target=transport.write, args=(b"x" * 10_000_000,))
        thread.start()
        inside.wait()
        print(os.waitpid(fork(child), 0)[1])
        leave.set()
        thread.join()
        transport.abort()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        b.close()
        """
    )
    assert result.stdout == "False\n0\n"
    assert result.stderr == ""
