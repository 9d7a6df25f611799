"""Subprocesses: every keyword of Popen does what Popen does."""

import asyncio
import inspect
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest
from iosupport import open_fds, open_fds_at_first, turns

PIPE = asyncio.subprocess.PIPE
DEVNULL = asyncio.subprocess.DEVNULL
EXEC = asyncio.create_subprocess_exec

SHOW = """
import os, signal, sys
print(os.getuid(), os.getgid(), sorted(os.getgroups()), os.getpgrp() == os.getpid(),
      os.getsid(0) == os.getpid(), os.umask(0), os.getcwd(), os.environ.get("COLOUR"),
      signal.getsignal(signal.SIGPIPE) == signal.SIG_DFL, sys.argv[1:])
"""


def lower_umask():
    os.umask(0o051)


def shown(value):
    """Return its repr without addresses, which differ between processes."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


KEYWORDS = [
    {},
    {"close_fds": True},
    {"close_fds": False},
    {"restore_signals": True},
    {"restore_signals": False},
    {"start_new_session": True},
    {"process_group": 0},
    {"umask": 0o027},
    {"umask": -1},
    {"preexec_fn": lower_umask},
    {"cwd": "/"},
    {"cwd": b"/"},
    {"cwd": pathlib.Path("/")},
    {"env": {"COLOUR": "green"}},
    {"env": {b"COLOUR": b"green"}},
    {"executable": sys.executable},
    {"executable": os.fsencode(sys.executable)},
    {"executable": pathlib.Path(sys.executable)},
    {"pipesize": 8192},
    {"pipesize": -1},
    {"bufsize": 0},
    {"user": os.getuid()},
    {"group": os.getgid()},
    {"extra_groups": [os.getgid()]},
    {"extra_groups": []},
    {"user": 65534, "group": 65534, "extra_groups": [65534, 1]},
    {"creationflags": 0},
    {"startupinfo": None},
]


@pytest.mark.parametrize("kwargs", KEYWORDS, ids=shown)
def test_what_popen_does(loop, run, kwargs):
    privileged = any(
        kwargs.get(key) not in (None, own)
        for key, own in [("user", os.getuid()), ("group", os.getgid())]
    )
    if (privileged or "extra_groups" in kwargs) and os.getuid() != 0:
        pytest.skip("only root may")
    if kwargs.get("user") == 65534 and not os.access(sys.executable, os.X_OK):
        pytest.skip("nobody may not run this Python")
    # Nobody finds no Python whose folders are root's: a shell shows enough.
    if kwargs.get("user") == 65534:
        args = ["sh", "-c", "id -u; id -g; id -G"]
    else:
        args = [sys.executable, "-c", SHOW, "argument"]
    expected = subprocess.run(
        args, stdout=PIPE, check=True, **{"bufsize": 0, **kwargs}
    ).stdout

    async def main():
        process = await EXEC(*args, stdout=PIPE, **kwargs)
        out, _ = await process.communicate()
        assert out == expected
        assert process.returncode == 0

    run(main())


def test_every_keyword_is_tried():
    parameters = set(inspect.signature(subprocess.Popen).parameters)
    elsewhere = {
        *("args", "stdin", "stdout", "stderr", "pass_fds", "shell"),
        *("text", "universal_newlines", "encoding", "errors"),  # refused
    }
    assert parameters - elsewhere - {key for kwargs in KEYWORDS for key in kwargs} == (
        set()
    )


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"user": "no such user at all"}, KeyError),
        ({"group": "no such group at all"}, KeyError),
        ({"extra_groups": ["no such group at all"]}, KeyError),
        ({"user": -5}, ValueError),
        ({"user": 1.5}, TypeError),
        ({"preexec_fn": lambda: 1 / 0}, subprocess.SubprocessError),
        ({"creationflags": 1}, ValueError),
        ({"pass_fds": [-1]}, ValueError),
        ({"cwd": "/no/such/folder"}, FileNotFoundError),
        ({"env": {"A=B": "x"}}, ValueError),
        ({"stdin": 9999}, OSError),
        ({"process_group": 1.5}, TypeError),
    ],
    ids=shown,
)
def test_what_popen_refuses(loop, run, kwargs, error):
    with pytest.raises(error) as expected:
        subprocess.Popen(["true"], **kwargs)

    async def main():
        before = open_fds_at_first()
        with pytest.raises(error) as got:
            await EXEC("true", **{"stdin": PIPE, **kwargs}, stdout=PIPE)
        assert type(got.value) is type(expected.value)
        assert str(got.value) == str(expected.value)
        await turns()
        assert open_fds() == before

    run(main())


def test_pipesize(loop, run):
    fcntl = pytest.importorskip("fcntl")

    async def main():
        process = await EXEC("cat", stdin=PIPE, stdout=PIPE, pipesize=8192)
        popen = process._transport.get_extra_info("subprocess")
        assert fcntl.fcntl(popen.stdin, fcntl.F_GETPIPE_SZ) == 8192
        assert fcntl.fcntl(popen.stdout, fcntl.F_GETPIPE_SZ) == 8192
        await process.communicate(b"")

    run(main())


@pytest.mark.parametrize("restore", [True, False])
def test_restore_signals(loop, run, restore):
    async def main():
        process = await EXEC(
            "sh",
            "-c",
            "kill -PIPE $$; echo lived",
            stdout=PIPE,
            restore_signals=restore,
        )
        out, _ = await process.communicate()
        # Python ignores SIGPIPE; its children do so if that is not undone.
        assert process.returncode == (-signal.SIGPIPE if restore else 0)
        assert out == (b"" if restore else b"lived\n")

    run(main())


def test_close_fds(loop, run):
    async def main():
        r, w = os.pipe()
        os.set_inheritable(w, True)
        try:
            for close_fds in (True, False):
                process = await EXEC(
                    "sh",
                    "-c",
                    f"echo here > /dev/fd/{w}",
                    close_fds=close_fds,
                    stderr=DEVNULL,
                )
                assert (await process.wait() != 0) is close_fds
            assert os.read(r, 100) == b"here\n"
        finally:
            os.close(r)
            os.close(w)

    run(main())


@pytest.mark.parametrize("kind", ["file", "descriptor"])
def test_streams_of_the_program(loop, run, tmp_path, kind):
    async def main():
        with open(tmp_path / "out", "w+b") as file:
            stream = file if kind == "file" else file.fileno()
            process = await EXEC("sh", "-c", "echo out", stdout=stream, stderr=stream)
            assert await process.wait() == 0
            file.seek(0)
            assert file.read() == b"out\n"

    run(main())
