"""Loops in subinterpreters, each with a GIL of its own where Python has that.

From Python 3.12 on, interpreters have a GIL each and run in threads at once. Python 3.11
has one GIL for all of them, and its own executors do not survive the end of an
interpreter; there they take turns, without threads.
"""

import sys
import textwrap

import pytest

PRELUDE = """
import os, textwrap, threading

if sys.version_info >= (3, 13):
    import _interpreters as native
else:
    import _xxsubinterpreters as native

OWN_GIL = sys.version_info >= (3, 12)

def create(own_gil=OWN_GIL):
    if sys.version_info >= (3, 13):
        return native.create("isolated" if own_gil else "legacy")
    return native.create(isolated=own_gil)

def execute(interpreter, code):
    failed = None
    if sys.version_info >= (3, 13):
        failed = native.exec(interpreter, code)
    else:
        native.run_string(interpreter, code)
    if failed is not None:
        raise RuntimeError(failed.formatted)

if sys.version_info >= (3, 14):
    from concurrent import interpreters

    def create_public():
        return interpreters.create()

    def execute_public(interpreter, code):
        interpreter.exec(code)

    def destroy_public(interpreter):
        interpreter.close()
else:
    create_public, execute_public, destroy_public = create, execute, native.destroy

def program(code):
    return START + textwrap.dedent(code)

def alone(code, own_gil=OWN_GIL):
    interpreter = create(own_gil)
    try:
        execute(interpreter, program(code))
    finally:
        native.destroy(interpreter)

def leave():
    # Python 3.12 frees memory twice at the end of a process that had interpreters.
    sys.stdout.flush()
    os._exit(0)

START = f'''
import sys, warnings
sys.path[:] = {sys.path!r}
import asyncio, os, socket, threading
if {LOOP!r} == "asyncio":
    new_event_loop = asyncio.SelectorEventLoop
else:
    from fastloop import new_event_loop

def run(main):
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)

async def connections():
    async def echo(reader, writer):
        while data := await reader.read(100):
            writer.write(data)
            await writer.drain()
        writer.close()
        ended.set()

    ended = asyncio.Event()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for n in range(5):
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
    writer.close()
    await writer.wait_closed()
    await ended.wait()
    await asyncio.sleep(0)
    server.close()
    await server.wait_closed()

async def datagrams():
    loop = asyncio.get_running_loop()
    received = loop.create_future()
    class Protocol(asyncio.DatagramProtocol):
        def datagram_received(self, data, address):
            received.set_result(data)
    one, _ = await loop.create_datagram_endpoint(
        Protocol, local_addr=("127.0.0.1", 0)
    )
    two, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=one.get_extra_info("sockname")
    )
    two.sendto(b"packet")
    assert await received == b"packet"
    one.close()
    two.close()

async def pipes():
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    stream = asyncio.StreamReader()
    source, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), open(reading, "rb", 0)
    )
    target, _ = await loop.connect_write_pipe(
        asyncio.BaseProtocol, open(writing, "wb", 0)
    )
    target.write(b"through")
    assert await stream.readexactly(7) == b"through"
    target.close()
    assert await stream.read() == b""
    source.close()

async def jobs():
    loop = asyncio.get_running_loop()
    found = await asyncio.gather(
        *(loop.run_in_executor(None, pow, n, 2) for n in range(5)),
        asyncio.to_thread(threading.current_thread),
    )
    assert found[:5] == [0, 1, 4, 9, 16]
    assert found[5].name.startswith("asyncio_")
    event = asyncio.Event()
    thread = threading.Thread(
        target=lambda: loop.call_soon_threadsafe(event.set), daemon=False
    )
    thread.start()
    await event.wait()
    thread.join()

async def everything(rounds=1):
    for n in range(rounds):
        await asyncio.sleep(0.001)
        await connections()
        await datagrams()
        await pipes()
        if sys.version_info >= (3, 12):
            await jobs()
'''
"""


@pytest.fixture
def run_interpreters(run_script, loop_name):
    """run_interpreters(source, …): run_script() with what the prelude defines."""

    def run(source, **options):
        source = textwrap.dedent(source)
        return run_script(
            f"LOOP = {loop_name!r}\n{PRELUDE}\n{source}\nleave()\n", **options
        )

    return run


def test_a_loop_in_one(run_interpreters):
    result = run_interpreters(
        """
        for own_gil in {False, OWN_GIL}:
            alone("run(everything())", own_gil)
        print("done")
        """
    )
    assert result.stdout == "done\n"
    assert result.stderr == ""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="interpreters share the GIL")
def test_loops_in_several_at_once(run_interpreters):
    """They run in threads, while the main interpreter's loop runs, too."""
    result = run_interpreters(
        """
        code = program("run(everything(10))")
        ended = []

        def work():
            interpreter = create_public()
            execute_public(interpreter, code)
            destroy_public(interpreter)
            ended.append(interpreter)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        namespace = {}
        exec(code, namespace)
        for thread in threads:
            thread.join()
        print(len(ended))
        """
    )
    assert result.stdout == "4\n"
    assert result.stderr == ""


def test_loops_in_several_that_take_turns(run_interpreters):
    """Each keeps its loop open while the others run theirs."""
    result = run_interpreters(
        """
        several = [create() for _ in range(3)]
        for interpreter in several:
            execute(interpreter, program("loop = new_event_loop()"))
        for _ in range(5):
            for interpreter in several:
                execute(interpreter, "loop.run_until_complete(connections())")
        for interpreter in several:
            execute(interpreter, "loop.close()")
            native.destroy(interpreter)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(asyncio.sleep(0.001))
        print("done")
        """
    )
    assert result.stdout == "done\n"
    assert result.stderr == ""


GROWTH = """
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024

def growth(code, count, own_gil):
    for _ in range(3):
        alone(code, own_gil)
    descriptors = len(os.listdir("/proc/self/fd"))
    before = resident()
    for _ in range(count):
        alone(code, own_gil)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    return (resident() - before) // count

PLAIN = "import fastloop; asyncio.SelectorEventLoop().close()"
"""


@pytest.mark.timeout(360)
@pytest.mark.parametrize(("own_gil", "count"), [(False, 100), (True, 20)])
def test_nothing_is_left_of_them(run_interpreters, loop_name, own_gil, count):
    """Neither descriptors nor memory, but for what Python itself does not give back.

    That is up to a megabyte an interpreter, and seven where it has its own GIL. Each
    imports asyncio, for a quarter of a second and on a busy machine for more.
    """
    if own_gil and sys.version_info < (3, 12):
        pytest.skip("interpreters share the GIL")
    if loop_name == "asyncio":
        count = 20  # enough to prove the test
    result = run_interpreters(
        GROWTH
        + f"""
plain = growth(PLAIN, 20, {own_gil})
used = growth("run(connections())", {count}, {own_gil})
print(used - plain)
""",
        timeout=300,
    )
    assert int(result.stdout) < 200, "KiB an interpreter"


def test_everything_left_open_at_the_end_of_one(run_interpreters):
    result = run_interpreters(
        """
        for _ in range(3):
            alone('''
        warnings.simplefilter("ignore")
        async def main():
            loop = asyncio.get_running_loop()
            server = await asyncio.start_server(keep.append, "127.0.0.1", 0)
            keep.extend(await asyncio.open_connection(
                *server.sockets[0].getsockname()
            ))
            keep.append(server)
            pair = socket.socketpair()
            loop.add_reader(pair[0], print, loop)
            loop.call_later(1000, print, loop)
            loop.call_soon(print, "never", loop)
            loop.call_soon_threadsafe(print, "never", loop)
            keep.extend([pair, loop, asyncio.create_task(asyncio.sleep(1000))])
            await asyncio.sleep(0)
        keep = []
        loop = new_event_loop()
        loop.call_soon(keep.append, loop)
        loop.run_until_complete(main())
        loop.keep = keep
        ''')
        print("done")
        """
    )
    assert result.stdout.splitlines()[-1] == "done"
    assert "Fatal" not in result.stderr


def test_signals_are_the_main_interpreter_s(run_interpreters):
    result = run_interpreters(
        """
        import signal
        alone('''
        import signal
        async def main():
            loop = asyncio.get_running_loop()
            try:
                loop.add_signal_handler(signal.SIGUSR1, print)
            except RuntimeError as exc:
                print(exc)
            print(loop.remove_signal_handler(signal.SIGUSR1))
            await asyncio.sleep(0)
        run(main())
        run(main())
        ''')
        print(signal.set_wakeup_fd(-1), signal.getsignal(signal.SIGUSR1) == 0)
        """
    )
    refused = "set_wakeup_fd only works in main thread of the main interpreter"
    assert result.stdout == f"{refused}\nFalse\n" * 2 + "-1 True\n"
    assert result.stderr == ""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="interpreters share the GIL")
def test_signals_reach_the_main_loop_while_others_run(run_interpreters):
    result = run_interpreters(
        """
        import signal

        def work():
            alone("run(everything(20))")

        async def main():
            loop = asyncio.get_running_loop()
            seen = asyncio.Event()
            loop.add_signal_handler(signal.SIGUSR1, seen.set)
            for _ in range(5):
                os.kill(os.getpid(), signal.SIGUSR1)
                await seen.wait()
                seen.clear()
            return "seen"

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            print(runner.run(main()))
        for thread in threads:
            thread.join()
        """
    )
    assert result.stdout == "seen\n"
    assert result.stderr == ""


CHILD = """
import sys
async def child():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "print(input() * 2)",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate(b"ab")
    assert (out, process.returncode) == (b"abab" + os.linesep.encode(), 0), out
"""


def test_the_main_loop_starts_children_while_they_exist(run_interpreters):
    result = run_interpreters(
        f"""
CHILD = {CHILD!r}
several = [create() for _ in range(3)]
for interpreter in several:
    execute(interpreter, program("loop = new_event_loop()"))
    execute(interpreter, "loop.run_until_complete(connections())")
exec(program(CHILD + "run(child())"), {{}})
for interpreter in several:
    execute(interpreter, "loop.run_until_complete(connections())")
    execute(interpreter, "loop.close()")
    native.destroy(interpreter)
print("done")
"""
    )
    assert result.stdout == "done\n"
    assert result.stderr == ""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio's watchers are threads")
def test_children_of_a_loop_in_one(run_interpreters):
    result = run_interpreters(
        f"""
CHILD = {CHILD!r}
alone(CHILD + "run(child())")
threads = [
    threading.Thread(target=alone, args=(CHILD + "run(child())",)) for _ in range(3)
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("done")
"""
    )
    assert result.stdout == "done\n"
    assert result.stderr == ""
