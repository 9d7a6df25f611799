"""Find what holds the loop up: debug mode, then cProfile; py-spy for one that runs.

python examples/find_slow_code.py
py-spy dump --pid PID            # of any process, as it is
py-spy record -o flame.svg --pid PID
"""

import asyncio
import cProfile
import io
import logging
import pstats
import time

import fastloop


def compute():
    time.sleep(0.15)  # in the loop's thread: everybody waits


async def guilty():
    await asyncio.sleep(0)
    compute()


async def main():
    await asyncio.gather(guilty(), *(asyncio.sleep(0.001) for _ in range(100)))


def session():
    # Debug mode logs each callback that takes longer than slow_callback_duration.
    log = io.StringIO()
    logging.basicConfig(stream=log, level=logging.WARNING)
    fastloop.run(main(), debug=True)
    slow = [line for line in log.getvalue().splitlines() if "took" in line]
    print("debug mode:", slow[0])

    profile = cProfile.Profile()
    profile.runcall(fastloop.run, main())
    out = io.StringIO()
    pstats.Stats(profile, stream=out).sort_stats("tottime").print_stats(3)
    print(
        "profile:",
        next(line for line in out.getvalue().splitlines() if "sleep" in line),
    )


if __name__ == "__main__":
    session()
