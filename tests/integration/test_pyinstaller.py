"""A program and its loop as one file."""

import pathlib
import subprocess
import sys

import PyInstaller  # noqa: F401 - absent, the file skips or fails
from conftest import TIMEOUT

import fastloop

PROGRAM = """
import asyncio, time
import fastloop

async def echo(reader, writer):
    writer.write(await reader.readline())
    writer.close()

async def main():
    loop = asyncio.get_running_loop()
    assert isinstance(loop, fastloop.Loop)
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"line\\n")
        print(await reader.readline())
        writer.close()
    print(await asyncio.to_thread(sum, [1, 2]))
    child = await asyncio.create_subprocess_exec("echo", "child", stdout=-1)
    print((await child.communicate())[0])
    slow = []
    loop.slow_callback_duration = 0.01
    loop.slow_callback_hook = slow.append
    with fastloop.watchdog(60):
        loop.call_soon(time.sleep, 0.05)
        await asyncio.sleep(0.1)
    print(len(slow), fastloop.metrics.prometheus(loop)[:6])

fastloop.run(main())
"""
SAID = "b'line\\n'\n3\nb'child\\n'\n1 # HELP\n"


def test_one_file(tmp_path):
    source = tmp_path / "program.py"
    source.write_text(PROGRAM)
    made = subprocess.run(
        [
            *(sys.executable, "-m", "PyInstaller", "--onefile", "--log-level=ERROR"),
            *("--paths", pathlib.Path(fastloop.__file__).parent.parent),
            source,
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert made.returncode == 0, made.stderr
    done = subprocess.run(
        [tmp_path / "dist" / "program"],
        cwd=tmp_path,
        env={},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert (done.stdout, done.returncode) == (SAID, 0), done.stderr
