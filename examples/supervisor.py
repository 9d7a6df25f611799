"""Keep programs alive: pass on what they say, start again what ends, end them in peace.

python examples/supervisor.py
"""

import asyncio
import contextlib
import signal
import sys

import fastloop

CHILD = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("up", flush=True)
time.sleep(float(sys.argv[1]))
sys.exit(1)
"""


async def supervise(name, *command, patience=5.0):
    """Run command again and again until cancelled; then it gets SIGTERM."""
    rest = 0.01
    while True:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE
        )
        try:
            async for line in process.stdout:
                print(f"{name}[{process.pid}]: {line.decode().rstrip()}")
            status = await process.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(patience):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
            print(f"{name} ended with {process.returncode}")
            raise
        print(f"{name} ended with {status}, again after {rest} s")
        await asyncio.sleep(rest)
        rest = min(rest * 2, 10)


async def main():
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sig, stop.set)
    python = (sys.executable, "-c", CHILD)
    tasks = [
        asyncio.create_task(supervise("steady", *python, "3600")),
        asyncio.create_task(supervise("shaky", *python, "0.05")),
    ]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(float((*sys.argv, "2")[1])):
            await stop.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    fastloop.run(main())
