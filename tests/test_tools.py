"""Tools that look inside: profilers, tracers, task lists, call graphs, dumps."""

import asyncio
import cProfile
import io
import pstats
import subprocess
import sys

import pytest
from conftest import script_command


def callback():
    pass


async def step():
    await asyncio.sleep(0)


class Receiver(asyncio.DatagramProtocol):
    def __init__(self, done):
        self.done = done

    def datagram_received(self, data, address):
        if not self.done.done():
            self.done.set_result(data)


async def everything():
    """A plain callback, a timer's, a task's steps, a protocol's callback."""
    loop = asyncio.get_running_loop()
    received = loop.create_future()
    loop.call_soon(callback)
    loop.call_later(0.001, callback)
    await loop.create_task(step())
    transport, _ = await loop.create_datagram_endpoint(
        lambda: Receiver(received), ("127.0.0.1", 0)
    )
    address = transport.get_extra_info("sockname")
    transport.sendto(b"data", address)
    await received
    await asyncio.sleep(0.01)
    transport.close()
    await asyncio.sleep(0)


NAMES = {"callback", "step", "everything", "datagram_received"}


def test_cprofile_sees_callbacks(run):
    profile = cProfile.Profile()
    profile.enable()
    run(everything())
    profile.disable()
    stats = pstats.Stats(profile, stream=io.StringIO()).get_stats_profile()
    assert set(stats.func_profiles) >= NAMES
    assert stats.func_profiles["callback"].ncalls == "2"


def test_cprofile_enabled_from_a_callback(run):
    async def main():
        profile = cProfile.Profile()
        profile.enable()
        await everything()
        profile.disable()
        return set(pstats.Stats(profile).get_stats_profile().func_profiles)

    assert run(main()) >= NAMES


@pytest.mark.parametrize("kind", ["settrace", "setprofile"])
def test_tracers_see_callbacks(run, kind):
    seen = set()

    def trace(frame, event, arg):
        if event == "call":
            seen.add(frame.f_code.co_name)

    before = sys.gettrace() if kind == "settrace" else sys.getprofile()
    getattr(sys, kind)(trace)
    try:
        run(everything())
    finally:
        getattr(sys, kind)(before)
    assert seen >= NAMES


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring is of 3.12")
def test_monitoring_sees_callbacks(run):
    seen = set()
    monitoring = sys.monitoring
    tool = 4
    monitoring.use_tool_id(tool, "test")
    try:
        start = monitoring.events.PY_START
        monitoring.register_callback(
            tool, start, lambda code, offset: seen.add(code.co_name)
        )
        monitoring.set_events(tool, start)
        run(everything())
        monitoring.set_events(tool, 0)
        monitoring.register_callback(tool, start, None)
    finally:
        monitoring.free_tool_id(tool)
    assert seen >= NAMES


def test_a_tracer_that_raises(loop):
    """The exception is the callback's; the tracer is gone, the loop goes on."""
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))

    def trace(frame, event, arg):
        if frame.f_code is callback.__code__:
            raise ZeroDivisionError

    before = sys.gettrace()
    try:
        loop.call_soon(callback)
        sys.settrace(trace)
        loop.run_until_complete(asyncio.sleep(0.001))
    finally:
        sys.settrace(before)
    assert [type(context["exception"]) for context in contexts] == [ZeroDivisionError]
    loop.run_until_complete(asyncio.sleep(0))


def test_tasks_are_listed(loop, run):
    async def main():
        task = asyncio.current_task()
        others = {loop.create_task(asyncio.sleep(60)) for _ in range(3)}
        assert asyncio.all_tasks() == {task, *others} | ({outer} if outer else set())
        assert asyncio.current_task(loop) is task
        stack = task.get_stack()
        assert stack[-1].f_code is main.__code__
        for other in others:
            assert other.get_stack()
            other.cancel()

    outer = None
    loop.run_until_complete(main())
    assert asyncio.all_tasks(loop) == {
        task for task in asyncio.all_tasks(loop) if task.cancelling()
    }
    run(asyncio.sleep(0))
    assert asyncio.all_tasks(loop) == set()


@pytest.mark.skipif(sys.version_info < (3, 14), reason="call graphs are of 3.14")
def test_call_graphs(run):
    async def outer():
        async with asyncio.TaskGroup() as group:
            task = group.create_task(inner(), name="inner")
            await asyncio.sleep(0)
            graph = asyncio.capture_call_graph(task)
            text = asyncio.format_call_graph(task)
            event.set()
        return graph, text, asyncio.current_task()

    async def inner():
        await event.wait()

    event = asyncio.Event()
    graph, text, parent = run(outer())
    assert [entry.frame.f_code.co_name for entry in graph.call_stack] == [
        "wait",
        "inner",
    ]
    assert [waiter.future for waiter in graph.awaited_by] == [parent]
    assert "inner" in text


WAITING = """
import faulthandler, os, signal
faulthandler.register(signal.SIGUSR1, file=sys.stdout, all_threads=True)

async def leaf():
    print(os.getpid(), flush=True)
    await asyncio.sleep(60)

async def branch():
    async with asyncio.TaskGroup() as group:
        group.create_task(leaf(), name="the leaf")

def dump():
    os.kill(os.getpid(), signal.SIGUSR1)

async def main():
    asyncio.get_running_loop().call_soon(dump)
    task = asyncio.current_task()
    task.set_name("the main task")
    await branch()

try:
    run(main())
except KeyboardInterrupt:
    pass
"""


def test_faulthandler_in_a_callback(run_script):
    result = run_script(
        WAITING.replace("await asyncio.sleep(60)", "await asyncio.sleep(0.1)")
    )
    assert " in dump\n" in result.stdout
    assert " in run_forever\n" in result.stdout


@pytest.mark.skipif(sys.version_info < (3, 14), reason="asyncio ps is of 3.14")
@pytest.mark.parametrize("tool", ["ps", "pstree"])
def test_asyncio_ps(loop_name, tool):
    command, keywords = script_command(WAITING, loop_name)
    with subprocess.Popen(command, **keywords) as process:
        try:
            for line in process.stdout:
                if line.strip() == str(process.pid):
                    break
            found = subprocess.run(
                [sys.executable, "-m", "asyncio", tool, str(process.pid)],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
        finally:
            process.kill()
            process.stdout.read()
    if "ermission" in found.stderr + found.stdout:
        pytest.skip("this system does not let a process look into another")
    assert found.returncode == 0, found.stderr
    for name in ("the main task", "the leaf", "branch", "leaf"):
        assert name in found.stdout, found.stdout


def test_pdb_steps_through_a_coroutine(run_script, tmp_path):
    """Commands come from standard input: next over an await ends in the same frame."""
    script = tmp_path / "script.py"
    script.write_text(
        """
import io, pdb

async def value():
    await asyncio.sleep(0.001)
    return 42

async def main():
    debugger.set_trace()
    found = await value()
    print("found", found)

steps = 2 if sys.version_info >= (3, 13) else 1  # it stops in set_trace()'s own line
commands = io.StringIO("next\\n" * steps + "p found + 1\\ncontinue\\n")
debugger = pdb.Pdb(stdin=commands, stdout=sys.stdout, nosigint=True, readrc=False)
debugger.use_rawinput = False
run(main())
"""
    )
    result = run_script(script)
    assert "43\n" in result.stdout
    assert result.stdout.endswith("found 42\n")
