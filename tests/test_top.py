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
import time

import pytest
from conftest import TIMEOUT, python_command, run_python

from fastloop._top import render

APP = """
import asyncio, time
async def work(n):
    while True:
        await asyncio.sleep(0.005)
        time.sleep(0.002 * n)
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
def running(app, path):
    """The program, with its socket there."""
    command, keywords = python_command(
        "-m", "fastloop", app, env={"FASTLOOP_TOP": str(path)}
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
        "import asyncio\nasyncio.run(asyncio.sleep(0.5))\nraise SystemExit(3)"
    )
    done = top("--json", "--interval", "0.1", str(path), returncode=3)
    assert done.stdout.count("\n") >= 2


def test_a_program_without_a_loop(tmp_path):
    path = tmp_path / "app.py"
    path.write_text("raise SystemExit(4)")
    done = top("--json", str(path), returncode=4)
    assert all(not json.loads(line)["loops"] for line in done.stdout.splitlines())


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


@pytest.mark.parametrize("said", [b"", b"\n", b"[]\n", b"{}\n", b'{"interval": "x"}\n'])
def test_a_client_that_is_none(app, tmp_path, said):
    path = tmp_path / "socket"
    with running(app, path):
        with connected(path) as sock:
            sock.sendall(said)
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(10) == b""
        with connected(path) as sock, sock.makefile("r") as file:
            sock.sendall(b'{"interval": 1}\n')
            assert json.loads(file.readline())["loops"]


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
        "    print('done', flush=True)\n"
        "asyncio.run(main())\n"
    )
    path = tmp_path / "socket"
    with running(str(app), path) as process:
        with connected(path) as sock, sock.makefile("r") as file:
            sock.sendall(b'{"interval": 0.02}\n')
            file.readline()
            time.sleep(0.1)
        assert process.communicate(timeout=TIMEOUT)[0] == "done\n"


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


@pytest.mark.parametrize("how", ["q", "Ctrl-C", "SIGTERM", "count"])
def test_the_screen(app, how):
    """It is drawn, and the terminal is as before at the end."""
    import termios

    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    more = ["--count", "2"] if how == "count" else []
    command, keywords = python_command(
        "-m", "fastloop", "top", "--interval", "0.2", *more, app
    )
    keywords |= {"stdin": theirs, "stdout": theirs, "stderr": subprocess.PIPE}
    keywords |= {"start_new_session": True}
    with subprocess.Popen(command, **keywords) as process:
        try:
            text = read_until(ours, b"BUSIEST")
            assert text.startswith(b"\x1b[?1049h")
            if how != "count":
                text += read_until(ours, b"worker-2 (work)")
            if how == "q":
                os.write(ours, b"q")
            elif how == "Ctrl-C":
                process.send_signal(signal.SIGINT)
            elif how == "SIGTERM":
                process.send_signal(signal.SIGTERM)
            end = read_until(ours, b"\x1b[?1049l")
            assert end.endswith(b"\x1b[?1049l") or b"\x1b[?1049l" in end
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


if sys.platform != "linux":
    pytestmark = pytest.mark.skip("the peer's user is asked for as Linux has it")
