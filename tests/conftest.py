"""Fixtures of the whole suite.

Each test runs on asyncio's own loop, which proves the test, and on fastloop.
"""

import asyncio
import contextlib
import contextvars
import functools
import gc
import importlib
import importlib.util
import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap
import types
import warnings

import pytest
from iosupport import tcp_socketpair

LOOPS = os.environ.get("FASTLOOP_LOOPS", "asyncio fastloop").split()
"""The loops under test. That asyncio proves a test need not be seen on each Python."""

TIMEOUT = 60.0
"""Seconds that a coroutine or script may take on a busy machine before it hangs."""

TESTS = pathlib.Path(__file__).resolve().parent

COLLECTING = int(os.environ.get("FASTLOOP_GC") or 0)
"""A threshold for the collector here and in the scripts, or 0 for Python's own. With 1 it
runs at every other allocation of an object that it knows (make hard-gc)."""

_failed = pytest.StashKey[bool]()


@functools.cache
def factory_of(name):
    """Return the loop factory called name in LOOPS; imports fastloop when asked for."""
    if name == "asyncio":
        return asyncio.SelectorEventLoop
    factory = importlib.import_module(name).new_event_loop
    factory().close()  # libuv's first loop opens descriptors that the process keeps
    return factory


def pytest_configure(config):
    if COLLECTING:
        gc.set_threshold(COLLECTING)
    # A background job starts with SIGINT ignored, under nohup SIGHUP is: children would
    # ignore them, too, and tests of Ctrl-C hang.
    for sig in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(sig) == signal.SIG_IGN:
            default = signal.default_int_handler
            signal.signal(sig, default if sig == signal.SIGINT else signal.SIG_DFL)


def pytest_collection_finish(session):
    # The leak check collects garbage after each test, not what outlives the run.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


def open_fds():
    """Return {descriptor: what it is open on}; empty where the system cannot tell."""
    fds = {}
    with contextlib.suppress(OSError):
        for link in list(pathlib.Path("/proc/self/fd").iterdir()):
            with contextlib.suppress(OSError):  # the one that iterdir had open
                fds[int(link.name)] = str(link.readlink())
    return fds


@pytest.fixture(params=LOOPS)
def loop_name(request):
    """The name of the loop under test, "asyncio" or "fastloop"."""
    return request.param


@pytest.fixture
def loop_factory(loop_name):
    """A callable that makes a new loop; the test closes what it makes."""
    return factory_of(loop_name)


@pytest.fixture
def loop(request, loop_factory):
    """A new loop, closed at the end.

    Warnings, unraisable exceptions and descriptors that it leaves behind fail the test.
    """
    before = open_fds()
    loop = loop_factory()
    yield loop
    left = []
    hook = sys.unraisablehook
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sys.unraisablehook = lambda args: left.append(
            f"unraisable {args.exc_value!r} in {args.object!r}"
        )
        try:
            finish(loop)
            del loop
            gc.collect()
        finally:
            sys.unraisablehook = hook
    if request.node.stash.get(_failed, False):
        return  # its traceback keeps alive what it had open
    left += [f"{warning.category.__name__}: {warning.message}" for warning in caught]
    left += [
        f"descriptor {fd} on {name}"
        for fd, name in open_fds().items()
        if before.get(fd) != name
    ]
    assert left == []


def finish(loop):
    """Cancel what runs on loop and close it, as asyncio.Runner does."""

    async def end(tasks):
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
        await loop.shutdown_asyncgens()
        await loop.shutdown_default_executor()

    if not loop.is_closed():
        loop.set_task_factory(None)
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        run(end(tasks), loop=loop)
    loop.close()


@pytest.fixture(name="run")
def run_fixture(loop):
    """run(coro, timeout=TIMEOUT): run coro to its end on the loop of the test."""
    return functools.partial(run, loop=loop)


def run(coro, timeout=TIMEOUT, *, loop):
    """Run coro to its end on loop; TimeoutError after timeout seconds."""

    async def bounded():
        async with asyncio.timeout(timeout):
            return await coro

    return loop.run_until_complete(bounded())


def turn(loop):
    """Run one turn of loop: what is ready now, and not what it schedules."""
    loop.stop()
    loop.run_forever()


PRELUDE = """\
import asyncio, faulthandler, sys
faulthandler.enable()
if {collecting}:
    import gc
    gc.set_threshold({collecting})
    del gc
if {loop!r} == "asyncio":
    new_event_loop = asyncio.SelectorEventLoop
else:
    from fastloop import new_event_loop
def run(main, debug=None):
    with asyncio.Runner(loop_factory=new_event_loop, debug=debug) as runner:
        return runner.run(main)
"""


def python_command(*args, env=None):
    """Return (command, keywords for subprocess.Popen) of a Python like this one.

    It finds the same fastloop, and SIGINT is not ignored. env is added to the
    environment; a value of None takes the variable away.
    """
    environ = dict(os.environ, PYTHONUNBUFFERED="1")
    for name in ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONWARNINGS"):
        environ.pop(name, None)
    path = [str(TESTS)]
    spec = importlib.util.find_spec("fastloop")
    if spec is not None and spec.origin is not None:
        path.insert(0, str(pathlib.Path(spec.origin).parent.parent))
    environ["PYTHONPATH"] = os.pathsep.join(
        [*path, *filter(None, [environ.get("PYTHONPATH")])]
    )
    for name, value in (env or {}).items():
        if value is None:
            environ.pop(name, None)
        else:
            environ[name] = value
    keywords = {
        "env": environ,
        "text": True,
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "preexec_fn": _reset_signals,
    }
    return [sys.executable, *args], keywords


def _reset_signals():
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def script_command(source, loop, *, options=(), args=(), env=None):
    """As python_command(), for a script that is to use loop.

    source is its text or the pathlib.Path of its file; it finds as globals asyncio,
    sys, new_event_loop() and run(coro, debug=None). options go to Python itself (such
    as "-X", "dev"), args to the script.
    """
    prelude = PRELUDE.format(loop=loop, collecting=COLLECTING)
    if isinstance(source, pathlib.Path):
        body = f"import runpy\nrunpy.run_path({str(source)!r}, globals(), '__main__')\n"
    else:
        body = textwrap.dedent(source)
    return python_command(*options, "-c", prelude + body, *args, env=env)


def run_script(
    source, loop, *, options=(), args=(), env=None, timeout=TIMEOUT, returncode=0
):
    """Run source (see script_command) and return its subprocess.CompletedProcess.

    AssertionError, with what it wrote, if it does not end within timeout seconds or not
    with returncode (negative for a signal that killed it, None for anything).
    """
    command, keywords = script_command(
        source, loop, options=options, args=args, env=env
    )
    return _wait(subprocess.Popen(command, **keywords), timeout, returncode)


def run_python(*args, env=None, timeout=TIMEOUT, returncode=0):
    """As run_script(), for a Python command line of the test's own."""
    command, keywords = python_command(*args, env=env)
    return _wait(subprocess.Popen(command, **keywords), timeout, returncode)


def _wait(process, timeout, returncode):
    with process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # faulthandler tells where it hung
            stdout, stderr = process.communicate()
            pytest.fail(f"hung for {timeout} s\nstdout:\n{stdout}\nstderr:\n{stderr}")
        except BaseException:
            process.kill()
            raise
    if returncode is not None:
        assert process.returncode == returncode, f"stdout:\n{stdout}\nstderr:\n{stderr}"
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


@pytest.fixture(name="run_script")
def run_script_fixture(loop_name):
    """run_script(source, …) on the loop under test."""
    return functools.partial(run_script, loop=loop_name)


@pytest.fixture
def unraisable(monkeypatch):
    """A list of what reaches sys.unraisablehook; object is there as its repr."""
    seen = []
    monkeypatch.setattr(
        sys,
        "unraisablehook",
        lambda args: seen.append(
            types.SimpleNamespace(
                exc_type=args.exc_type,
                exc_value=args.exc_value,
                object=repr(args.object),
            )
        ),
    )
    return seen


FORK = """
import os, signal, socket, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of fork() beside threads

def fork(child):
    '''Run child() in a forked child, which says "status 0" if it raises nothing.'''
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        if sys.version_info < (3, 12):
            asyncio._set_running_loop(None)
        child()
        status = 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)

async def ended(pid):
    while not (done := os.waitpid(pid, os.WNOHANG))[0]:
        await asyncio.sleep(0.001)
    return os.waitstatus_to_exitcode(done[1])

async def echo(reader, writer):
    while data := await reader.read(100):
        writer.write(data)
    writer.close()
"""


@pytest.fixture
def run_forking(run_script):
    """run_forking(source): run_script() after FORK."""
    return lambda source: run_script(FORK + textwrap.dedent(source))


@pytest.fixture
def pipe():
    """(the end to read from, the end to write to) of a pipe, which the test may close."""
    r, w = os.pipe()
    yield r, w
    for fd in (r, w):
        with contextlib.suppress(OSError):
            os.close(fd)


@pytest.fixture(params=["unix", "tcp"])
def pair(request):
    """Two connected sockets that do not block."""
    a, b = socket.socketpair() if request.param == "unix" else tcp_socketpair()
    a.setblocking(False)
    b.setblocking(False)
    with a, b:
        yield a, b


@pytest.fixture
def udp_pair():
    """Two bound datagram sockets that do not block."""
    a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with a, b:
        for sock in (a, b):
            sock.setblocking(False)
            sock.bind(("127.0.0.1", 0))
        yield a, b


SIGNALS = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGTERM]


@pytest.fixture
def signals_restored():
    """A test leaves handlers and the wake-up descriptor as it found them."""
    before = {signum: signal.getsignal(signum) for signum in [*SIGNALS, signal.SIGINT]}
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd)
    yield
    after = {signum: signal.getsignal(signum) for signum in before}
    for signum, handler in before.items():
        signal.signal(signum, handler)
    fd_after = signal.set_wakeup_fd(fd)
    assert after == before
    assert fd_after == fd


def in_context(test):
    """Run a test in a context of its own, which it may change."""

    @functools.wraps(test)
    def wrapper(*args, **kwargs):
        return contextvars.copy_context().run(test, *args, **kwargs)

    return wrapper


@pytest.fixture
def context_untouched():
    """A test leaks no value into the context of the tests."""
    before = dict(contextvars.copy_context())
    yield
    assert dict(contextvars.copy_context()) == before


KINDS = ["soon", "threadsafe", "later", "at"]


def schedule(loop, kind, callback, *args, **kwargs):
    """Schedule callback for the next turn with the method that kind names."""
    if kind == "soon":
        return loop.call_soon(callback, *args, **kwargs)
    if kind == "threadsafe":
        return loop.call_soon_threadsafe(callback, *args, **kwargs)
    if kind == "later":
        return loop.call_later(-1, callback, *args, **kwargs)
    return loop.call_at(loop.time() - 1, callback, *args, **kwargs)
