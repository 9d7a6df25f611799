"""python -m fastloop top, and the socket that it looks at."""

import contextlib
import json
import os
import pty
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time

import pytest
from conftest import TIMEOUT, python_command, run_python

import fastloop
import fastloop.metrics
from fastloop._agent import _Profile
from fastloop._top import render
from fastloop.metrics import SlowCallback

APP = """
import asyncio, time
async def work(n):
    while True:
        await asyncio.sleep(0.005)
        time.sleep((0, 0.001, 0.02)[n])
async def main():
    for n in range(3):
        asyncio.create_task(work(n), name=f"worker-{n}")
    print("started", flush=True)
    await asyncio.sleep(600)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("ended by Ctrl-C", flush=True)
"""


@pytest.fixture
def app(tmp_path):
    path = tmp_path / "app.py"
    path.write_text(APP)
    return str(path)


@contextlib.contextmanager
def running(app, path, *args):
    """The program, with its socket there."""
    command, keywords = python_command(
        "-m", "fastloop", app, *args, env={"FASTLOOP_TOP": str(path)}
    )
    with subprocess.Popen(command, **keywords) as process:
        try:
            assert process.stdout.readline() == "started\n"
            yield process
        finally:
            process.kill()
            process.communicate()


def top(*args, **keywords):
    return run_python("-m", "fastloop", "top", *args, **keywords)


def test_a_program_as_json(app):
    done = top("--json", "--count", "3", "--interval", "0.3", app)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(records) == 3
    [loop] = records[-1]["loops"]
    assert loop["metrics"]["running"]
    assert loop["interval"]["utilisation"] > 0.1
    assert loop["interval"]["timers_per_second"] > 1
    names = [row["name"] for row in loop["busiest"]]
    assert names[0] == "worker-2 (work)"
    assert loop["slowest"][0]["wall_seconds"] >= 0.004
    assert "started" in done.stderr
    assert "ended by Ctrl-C" in done.stderr


def test_a_program_that_ends(tmp_path):
    path = tmp_path / "app.py"
    path.write_text(
        "import asyncio\n"
        "async def main():\n"
        "    while asyncio.get_running_loop()._sampler is None:\n"  # nobody looks yet
        "        await asyncio.sleep(0.01)\n"
        "    await asyncio.sleep(1)\n"
        "asyncio.run(main())\n"
        "raise SystemExit(3)\n"
    )
    done = top("--json", "--interval", "0.1", str(path), returncode=3)
    assert done.stdout.count("\n") >= 2


def test_a_program_without_a_loop(tmp_path):
    path = tmp_path / "app.py"
    path.write_text("raise SystemExit(4)")
    done = top("--json", str(path), returncode=4)
    assert all(not json.loads(line)["loops"] for line in done.stdout.splitlines())


def test_a_program_that_cannot_be_looked_at(tmp_path):
    """The name of its socket is too long: it runs, and its status is passed on."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    path = tmp_path / "app.py"
    path.write_text("print('ran')\nraise SystemExit(4)")
    done = top("--json", str(path), returncode=4, env={"TMPDIR": str(folder)})
    assert done.stdout == ""
    assert "ran\n" in done.stderr


def test_attach(app, tmp_path):
    path = tmp_path / "socket"
    with running(app, path) as process:
        mode = os.stat(path)
        assert stat.S_ISSOCK(mode.st_mode)
        assert stat.S_IMODE(mode.st_mode) == 0o600
        for _ in range(2):  # one after the other
            done = top("--json", "--count", "2", "--interval", "0.1", "--attach", path)
            record = json.loads(done.stdout.splitlines()[-1])
            assert record["pid"] == process.pid
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=TIMEOUT)[0] == "ended by Ctrl-C\n"
    assert not path.exists()


def connected(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(TIMEOUT)
    sock.connect(str(path))
    return sock


def test_it_answers_while_the_loop_is_blocked(tmp_path):
    app = tmp_path / "app.py"
    app.write_text(
        "import asyncio, time\n"
        "async def main():\n"
        "    print('started', flush=True)\n"
        "    time.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    path = tmp_path / "socket"
    with running(str(app), path):
        with connected(path) as sock, sock.makefile("r") as file:
            sock.sendall(b'{"interval": 0.05}\n')
            records = [json.loads(file.readline()) for _ in range(3)]
    assert records[-1]["loops"][0]["interval"]["utilisation"] == 1.0


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\n",
        b"[]\n",
        b"{}\n",
        b"[" * 999 + b"\n",
        b'{"interval": "x"}\n',
        b'{"interval": null}\n',
    ],
)
def test_a_client_that_is_none(app, tmp_path, said):
    path = tmp_path / "socket"
    with running(app, path) as process:
        with connected(path) as sock:
            sock.sendall(said)
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(10) == b""
        with connected(path) as sock, sock.makefile("r") as file:
            sock.sendall(b'{"interval": 1}\n')
            assert json.loads(file.readline())["loops"]
        process.terminate()
        assert process.stderr.read() == ""


def test_callbacks_are_timed_only_while_somebody_looks(tmp_path):
    app = tmp_path / "app.py"
    app.write_text(
        "import asyncio\n"
        "async def main():\n"
        "    print('started', flush=True)\n"
        "    loop = asyncio.get_running_loop()\n"
        "    for wanted in (True, False):\n"
        "        while (loop._sampler is not None) is not wanted:\n"
        "            await asyncio.sleep(0.01)\n"
        "        print(wanted, flush=True)\n"
        "asyncio.run(main())\n"
    )
    path = tmp_path / "socket"
    with running(str(app), path) as process:
        with connected(path) as sock, sock.makefile("r") as file:
            sock.sendall(b'{"interval": 0.02}\n')
            file.readline()
            assert process.stdout.readline() == "True\n"
        assert process.communicate(timeout=TIMEOUT)[0] == "False\n"


def test_what_a_killed_process_left_is_taken_over(app, tmp_path):
    path = tmp_path / "socket"
    with running(app, path):
        pass  # killed
    assert path.exists()
    with running(app, path):
        connected(path).close()


def test_a_file_is_left_alone(tmp_path):
    path = tmp_path / "socket"
    path.write_text("mine")
    run_python("-c", "import fastloop; fastloop.Loop", env={"FASTLOOP_TOP": str(path)})
    assert path.read_text() == "mine"


def test_a_folder_that_is_not_there(tmp_path):
    done = run_python(
        "-c",
        "import fastloop; fastloop.Loop",
        env={"FASTLOOP_TOP": str(tmp_path / "no" / "{pid}")},
    )
    assert "RuntimeWarning: FASTLOOP_TOP=" in done.stderr


def test_each_process_may_have_its_own(app, tmp_path):
    with running(app, tmp_path / "socket-{pid}") as process:
        connected(tmp_path / f"socket-{process.pid}").close()


def read_until(fd, wanted):
    text = b""
    until = time.monotonic() + TIMEOUT
    while wanted not in text:
        assert select.select([fd], [], [], until - time.monotonic())[0], text
        try:
            data = os.read(fd, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        text += data
    return text


@pytest.mark.parametrize("how", ["q", "Ctrl-C", "SIGTERM", "count", "no keys"])
def test_the_screen(app, how):
    """It is drawn, and the terminal is as before at the end."""
    import termios

    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    counts = how in ("count", "no keys")
    more = ["--count", "2"] if counts else []
    command, keywords = python_command(
        "-m", "fastloop", "top", "--interval", "0.2", *more, app
    )
    keywords |= {"stdin": theirs, "stdout": theirs, "stderr": subprocess.PIPE}
    keywords |= {"start_new_session": True}
    if how == "no keys":
        keywords["stdin"] = subprocess.DEVNULL
    with subprocess.Popen(command, **keywords) as process:
        try:
            text = read_until(ours, b"BUSIEST")
            assert text.startswith(b"\x1b[?1049h")
            if not counts:
                text += read_until(ours, b"worker-2 (work)")
            if how == "q":
                os.write(ours, b"xq")  # x is nothing
            elif how == "Ctrl-C":
                process.send_signal(signal.SIGINT)
            elif how == "SIGTERM":
                process.send_signal(signal.SIGTERM)
            if b"\x1b[?1049l" not in text:  # it may have come with what was waited for
                text += read_until(ours, b"\x1b[?1049l")
            assert b"\x1b[?1049l" in text
            assert process.wait(TIMEOUT) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()
            process.communicate()
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--attach", "path", "app.py"],
        ["--json", "--interval", "0", "app.py"],
        ["--json", "--count", "0", "app.py"],
        ["--json", "--count", "-1", "app.py"],
        ["app.py"],  # no terminal
    ],
)
def test_a_wrong_command_line(args):
    done = top(*args, returncode=2)
    assert "usage: python -m fastloop top" in done.stderr


def test_nobody_there(tmp_path):
    done = top("--json", "--attach", str(tmp_path / "none"), returncode=1)
    assert "No such file" in done.stderr


def test_json_into_a_pipe_that_closes(app):
    command, keywords = python_command(
        "-m", "fastloop", "top", "--json", "--interval", "0.1", app
    )
    with subprocess.Popen(command, **keywords) as process:
        assert json.loads(process.stdout.readline())
        process.stdout.close()
        assert process.wait(TIMEOUT) == 0


RECORD = {
    "pid": 1,
    "fastloop": "0",
    "loops": [],
}


def test_what_a_program_prints_does_not_steer_the_terminal():
    text = render(RECORD, 80, 24, ["\x1b[2Jhello"])
    assert "no loop runs" in text
    assert "?[2Jhello" in text
    assert "\x1b" not in text


def test_a_small_terminal():
    assert len(render(RECORD, 10, 5, ["a" * 100]).splitlines()[-1]) == 10


ENDS = "import asyncio, sys\nasyncio.run(asyncio.sleep(0))\nprint('ended')"


def test_a_socket_that_nobody_serves_is_taken_over(tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        left.listen()
    done = run_python("-m", "fastloop", "-c", ENDS, env={"FASTLOOP_TOP": str(path)})
    assert done.stdout == "ended\n"
    assert not path.exists()  # it was ours in between


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_that_somebody_serves_is_left_alone(tmp_path, kind):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, kind) as served:
        served.bind(str(path))
        if kind == socket.SOCK_STREAM:
            served.listen()
        inode = path.stat().st_ino
        done = run_python("-m", "fastloop", "-c", ENDS, env={"FASTLOOP_TOP": str(path)})
        assert done.stdout == "ended\n"
        assert path.stat().st_ino == inode


def test_a_forked_child_leaves_the_socket_to_its_parent(tmp_path):
    path = tmp_path / "socket"
    source = """
import asyncio, os, sys
asyncio.run(asyncio.sleep(0))
pid = os.fork()
asyncio.run(asyncio.sleep(0))
if pid == 0:
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
print(os.path.exists(os.environ["FASTLOOP_TOP"]))
"""
    done = run_python("-m", "fastloop", "-c", source, env={"FASTLOOP_TOP": str(path)})
    assert done.stdout == "True\n"
    assert not path.exists()


def test_two_who_look(app, tmp_path):
    path = tmp_path / "socket"
    with running(app, path) as process:
        with connected(path) as one, one.makefile("r") as first:
            one.sendall(b'{"interval": 0.02}\n')
            first.readline()
            with connected(path) as two, two.makefile("r") as second:
                two.sendall(b'{"interval": 0.02}\n')
                second.readline()
            # The other one still hears of callbacks when this one has gone.
            until = time.monotonic() + 0.2
            while time.monotonic() < until:
                record = json.loads(first.readline())
            assert record["loops"][0]["slowest"]
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=TIMEOUT)[0] == "ended by Ctrl-C\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to be somebody else")
def test_another_user_is_told_nothing():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = os.path.join(folder, "socket")
        app = os.path.join(folder, "app.py")
        with open(app, "w") as file:
            file.write(APP)
        with running(app, path) as process:
            os.chmod(path, 0o666)
            client = (
                "import os, socket, sys\n"
                "os.seteuid(65534)\n"
                "sock = socket.socket(socket.AF_UNIX)\n"
                "sock.connect(sys.argv[1])\n"
                "try:\n"
                "    print(sock.recv(1))\n"
                "except ConnectionResetError:\n"
                "    print(b'')\n"
            )
            assert run_python("-c", client, path).stdout == "b''\n"
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=TIMEOUT)


def test_many_names():
    """The table of the busiest has an end."""
    profile = _Profile()
    for n in range(3000):
        profile.add(SlowCallback("callback", f"f{n}", "", 0.1, 0.1, None, print))
    assert len(profile.busiest) == 2000
    profile.add(SlowCallback("callback", "f7", "", 0.1, 0.1, None, print))
    assert profile.take()["busiest"][0]["name"] == "f7"


def test_many_loops_on_a_small_screen():
    loop = fastloop.new_event_loop()
    try:
        metrics = fastloop.metrics.snapshot(loop).as_dict()
    finally:
        loop.close()
    row = {"thread_id": None, "metrics": metrics, "interval": {}}
    row |= {"busiest": [], "slowest": []}
    slow = {"kind": "timer", "name": "nap", "source": "", "cpu_seconds": 0.0}
    slow |= {"wall_seconds": 2.5, "ago_seconds": 1.0}
    full = row | {"slowest": [slow], "metrics": metrics | {"bytes_in": 5 << 30}}
    full["interval"] = {"bytes_in_per_second": 5.0 * (1 << 30), "utilisation": 0.5}
    text = render(RECORD | {"loops": [row, full, row]}, 100, 24, [])
    assert "more loops" in text
    assert "2.50 s" in text
    assert "5.0 GiB" in text


def test_no_thread_can_be_started(tmp_path):
    path = tmp_path / "socket"
    source = """
import threading
def refuse(self):
    raise RuntimeError("can't start new thread")
threading.Thread.start = refuse
import asyncio, fastloop
fastloop.run(asyncio.sleep(0))
print("ran")
"""
    done = run_python("-c", source, env={"FASTLOOP_TOP": str(path)})
    assert done.stdout == "ran\n"
    assert f"FASTLOOP_TOP={path}: can't start new thread" in done.stderr


FULL = """
import asyncio, resource, sys, threading, time
met = threading.Event()
sleep, start = time.sleep, threading.Thread.start
def note(seconds):
    met.set()
    sleep(seconds)
def refuse(thread):
    threading.Thread.start = start
    met.set()
    raise RuntimeError("can't start new thread")
async def main():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if sys.argv[1] == "descriptors":
        time.sleep = note
        import fastloop._slow  # no file is to be had later
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    else:
        threading.Thread.start = refuse
    print("started", flush=True)
    while not met.is_set():
        await asyncio.sleep(0.01)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    await asyncio.sleep(600)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    pass
"""


@pytest.mark.parametrize("what", ["descriptors", "threads"])
def test_a_program_that_has_no_more_for_a_while(tmp_path, what):
    """Who asks behind that is answered; of threads, one client is turned away."""
    app = tmp_path / "full.py"
    app.write_text(FULL)
    path = tmp_path / "socket"
    with running(str(app), path, what) as process:
        # It has taken the descriptor of its next client already.
        with connected(path) as first:
            if what == "threads":
                assert first.recv(10) == b""
            else:
                first.sendall(b'{"interval": 1}\n')
                assert first.makefile("r").readline()
        with connected(path) as sock, sock.makefile("r") as file:
            sock.sendall(b'{"interval": 1}\n')
            assert json.loads(file.readline())["loops"]
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == ""


def test_a_program_that_dies_of_the_interrupt(tmp_path):
    path = tmp_path / "app.py"
    path.write_text("import asyncio\nasyncio.run(asyncio.sleep(600))\n")
    done = top("--json", "--count", "20", "--interval", "0.1", str(path))
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert any(record["loops"] for record in records)  # the first may come before it


if sys.platform != "linux":
    pytestmark = pytest.mark.skip("the peer's user is asked for as Linux has it")
