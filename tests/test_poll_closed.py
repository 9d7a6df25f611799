"""The set of descriptors that a loop waits on, when a program closes what is in it."""

import subprocess

import pytest
from conftest import script_command

CLOSE = """
import os

def close_all(kind):
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            if kind in os.readlink(f"/proc/self/fd/{fd}"):
                os.close(fd)
        except OSError:
            pass
"""


def test_a_set_that_was_closed_is_an_error(run_script):
    result = run_script(
        CLOSE
        + """
loop = new_event_loop()
loop.call_later(0.001, close_all, "eventpoll")
loop.call_later(30, loop.stop)
try:
    loop.run_forever()
except OSError as exc:
    print(exc.errno)
""",
        options=("-W", "ignore"),
    )
    assert result.stdout == "9\n"


@pytest.mark.parametrize("loop_name", ["fastloop"], indirect=True)
def test_a_loop_whose_set_was_closed_can_be_closed(run_script):
    """asyncio's close() raises KeyError there."""
    result = run_script(
        CLOSE
        + """
for reuse in range(2):
    loop = new_event_loop()
    close_all("eventpoll")
    for _ in range(20 * reuse):
        os.open(os.devnull, os.O_RDONLY)  # another file in its place
    loop.close()
print("closed")
"""
    )
    assert result.stdout == "closed\n"


def test_timers_go_off_when_the_timer_descriptor_was_closed(run_script):
    result = run_script(
        CLOSE
        + """
async def main():
    close_all("timerfd")
    for delay in 0.001, 0.0001, 0.01:
        await asyncio.sleep(delay)
    print("slept")

run(main())
"""
    )
    assert result.stdout == "slept\n"


CLOSE_ALL = """
import os, threading

def close_all():
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2:
            try:
                os.close(fd)
            except OSError:
                pass

def open_others(count=60):
    return [os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(count)]
"""
"""What daemons do before anything else."""


@pytest.fixture
def run_closing(run_script, tmp_path):
    """run_closing(source): run_script() after CLOSE_ALL; path is that of a file."""
    path = tmp_path / "file"
    return lambda source: run_script(
        f"{CLOSE_ALL}\npath = {str(path)!r}\n{source}", options=("-W", "ignore")
    )


@pytest.mark.parametrize("others", [False, True])
def test_a_loop_whose_descriptors_were_all_closed_does_not_run(run_closing, others):
    """OSError, also where each number is another file by now. asyncio is no better."""
    result = run_closing(
        f"""
loop = new_event_loop()
close_all()
if {others}:
    open_others()
try:
    loop.run_until_complete(asyncio.sleep(0.001))
except (OSError, RuntimeError) as exc:
    print(type(exc).__name__)
"""
    )
    assert result.stdout == "OSError\n"


@pytest.mark.parametrize("loop_name", ["fastloop"], indirect=True)
@pytest.mark.parametrize("others", [False, True])
def test_all_closed_while_the_loop_runs_is_an_error_of_the_run(run_closing, others):
    result = run_closing(
        f"""
loop = new_event_loop()
def end():
    close_all()
    if {others}:
        open_others()
    loop.call_soon_threadsafe(print, "called")
    loop.call_later(0.001, print, "later")
loop.call_soon(end)
loop.call_later(30, loop.stop)
try:
    loop.run_forever()
except OSError:
    print("OSError")
loop.close()
"""
    )
    assert result.stdout.split()[-1] == "OSError"


@pytest.mark.parametrize("loop_name", ["fastloop"], indirect=True)
@pytest.mark.parametrize("others", [False, True])
def test_who_cannot_wake_a_loop_is_told(run_closing, others):
    """The wait itself goes on, for the kernel holds on to what is waited for."""
    result = run_closing(
        f"""
import time

loop = new_event_loop()
done = threading.Event()

def sleeps(thread):
    with open(f"/proc/self/task/{{thread.native_id}}/syscall") as file:
        return file.read().split()[0] in ("232", "281", "22")  # epoll_wait()

def other():
    deadline = time.monotonic() + 10
    while not sleeps(runner) and time.monotonic() < deadline:
        time.sleep(0.001)
    close_all()
    if {others}:
        open_others()
    try:
        loop.call_soon_threadsafe(print, "called")
    except RuntimeError as exc:
        print(exc, "|", type(exc.__cause__).__name__)
    loop._write_to_self()
    done.set()

runner = threading.Thread(target=loop.run_forever, daemon=True)
runner.start()
threading.Thread(target=other).start()
done.wait(30)
if {others}:
    print(os.stat(path).st_size)
sys.stdout.flush()
os._exit(0)
"""
    )
    told, *size = result.stdout.splitlines()
    cause = "PermissionError" if others else "OSError"  # of epoll_ctl()
    assert told == f"Event loop cannot be woken: its descriptors were closed | {cause}"
    assert size in ([], ["0"])  # nothing was written to a file that is not the loop's


@pytest.mark.parametrize("loop_name", ["fastloop"], indirect=True)
@pytest.mark.parametrize("how", ["loop.close()", "del loop"])
def test_a_closed_loop_leaves_the_files_that_have_its_numbers(run_closing, how):
    """asyncio closes whatever is there."""
    result = run_closing(
        f"""
loop = new_event_loop()
loop.run_until_complete(asyncio.sleep(0))
close_all()
files = open_others()
{how}
for fd in files:
    os.fstat(fd)
asyncio.Runner(loop_factory=new_event_loop).run(asyncio.sleep(0.001))
print("well")
"""
    )
    assert result.stdout == "well\n"


def test_a_child_that_closes_all_runs_a_loop_of_its_own(run_closing):
    result = run_closing(
        """
async def main():
    woken = asyncio.get_running_loop().create_future()
    loop = woken.get_loop()
    threading.Thread(
        target=loop.call_soon_threadsafe, args=(woken.set_result, "woken")
    ).start()
    return await woken

loop = new_event_loop()
loop.run_until_complete(asyncio.sleep(0))
pid = os.fork()
if pid == 0:
    close_all()
    files = open_others()
    del loop
    print(run(main()))
    for fd in files:
        os.fstat(fd)
    sys.stdout.flush()
    os._exit(0)
print(loop.run_until_complete(main()), os.waitpid(pid, 0)[1])
"""
    )
    assert sorted(result.stdout.splitlines()) == ["woken", "woken 0"]


@pytest.mark.parametrize("closed", ["0", "2", "0, 1, 2"])
def test_a_process_without_standard_descriptors_has_a_loop(tmp_path, closed, loop_name):
    """None of the loop's takes the place of one of them: daemons put others there."""
    path = tmp_path / "told"
    command, keywords = script_command(
        f"""
import os
for fd in {closed},:
    os.close(fd)
loop = new_event_loop()
async def main():
    await loop.run_in_executor(None, int)
loop.run_until_complete(main())
open_ones = set(range(3)) & set(map(int, os.listdir("/proc/self/fd")))
loop.run_until_complete(loop.shutdown_default_executor())
loop.close()
with open({str(path)!r}, "w") as file:
    file.write("closed")
os._exit(0)
""",
        loop_name,
    )
    with subprocess.Popen(command, **keywords) as process:
        process.communicate(timeout=60)
    assert (process.returncode, path.read_text()) == (0, "closed")


@pytest.mark.parametrize("loop_name", ["fastloop"], indirect=True)
def test_a_bell_that_was_closed_alone_is_an_error_or_mended(run_script):
    result = run_script(
        CLOSE
        + """
import threading
loop = new_event_loop()
def other():
    close_all("eventfd")
    try:
        loop.call_soon_threadsafe(print, "called")
    except RuntimeError as exc:
        print("told")
loop.call_later(0.3, loop.stop)
loop.call_soon(threading.Thread(target=other).start)
loop.run_forever()
loop.close()
"""
    )
    assert result.stdout in ("told\n", "called\n")
