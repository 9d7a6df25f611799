"""Children, and what a loop costs that does nothing."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable

from harness.bench import Address, Bench
from harness.load import connect
from harness.registry import row

from .tcp import MIB, forever

CHUNK = 64 * 1024
SETTLE = 1.0  # seconds in which a program that has started may still be busy
IDLE = 10.0


@row(ops=20, unit="child", metric="wall")
async def spawn(bench: Bench) -> None:
    """subprocess, start and wait."""
    program = shutil.which("true")
    assert program is not None
    done = 0
    for _ in bench:
        for _ in range(bench.ops):
            child = await asyncio.create_subprocess_exec(program)
            done += await child.wait() == 0
    bench.check(done)


@row(ops=16, unit="MiB", metric="wall")
async def pipe(bench: Bench) -> None:
    """subprocess, through the pipes of a child and back."""
    chunk = bytes(CHUNK)
    done = 0
    child = await asyncio.create_subprocess_exec(
        "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    source, sink = child.stdout, child.stdin
    assert source is not None
    assert sink is not None

    async def send() -> None:
        for _ in range(bench.ops * MIB // CHUNK):
            sink.write(chunk)
            await sink.drain()

    for _ in bench:
        sending = asyncio.create_task(send())
        missing = bench.ops * MIB
        while missing:
            missing -= len(await source.read(CHUNK))
        await sending
        done += bench.ops
    sink.close()
    await child.wait()
    bench.check(done)


@row(ops=100_000, unit="line", metric="wall")
async def lines(bench: Bench) -> None:
    """subprocess, its output line by line."""
    done = 0
    for _ in bench:
        child = await asyncio.create_subprocess_exec(
            *("seq", str(bench.ops)), stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout is not None
        async for _line in child.stdout:
            done += 1
        await child.wait()
    bench.check(done)


@row(ops=100, unit="loop")
def create_close(bench: Bench) -> None:
    """loop, create and close."""
    done = 0
    for _ in bench:
        for _ in range(bench.ops):
            loop = bench.new_event_loop()
            loop.close()
            done += loop.is_closed()
    bench.check(done)


async def idle_server(ready: Callable[[Address], None]) -> None:
    """Have a server without visitors and a timer far away."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    loop.call_later(3600, loop.stop)
    ready(server.sockets[0].getsockname())
    await forever(server)


@row(serve=idle_server, ops=1, unit="10 s", metric="switches", passes=1, parallel=True)
def idle(bench: Bench) -> None:
    """wake-ups of an idle program."""
    time.sleep(SETTLE)
    done = 0
    for _ in bench:
        time.sleep(IDLE)
        done += 1
    connect(bench.address).close()  # it is idle, not dead
    bench.check(done)
