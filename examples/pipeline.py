"""A pipeline of producer, workers and writer: a full queue holds back who fills it.

python examples/pipeline.py
"""

import asyncio
import hashlib

import fastloop

ITEMS = 500
WORKERS = 4


async def produce(out):
    for number in range(ITEMS):
        await out.put(number.to_bytes(4) * 1000)  # waits while the queue is full
    for _ in range(WORKERS):
        await out.put(None)


async def work(source, out):
    while (item := await source.get()) is not None:
        await out.put(await asyncio.to_thread(hashlib.sha256, item))
    await out.put(None)


async def write(source):
    written, workers = 0, WORKERS
    while workers:
        if await source.get() is None:
            workers -= 1
        else:
            written += 1
    return written


async def main():
    raw, done = asyncio.Queue(maxsize=10), asyncio.Queue(maxsize=10)
    # If one of them fails, the group ends the others.
    async with asyncio.TaskGroup() as group:
        group.create_task(produce(raw))
        for _ in range(WORKERS):
            group.create_task(work(raw, done))
        writer = group.create_task(write(done))
    print("written:", writer.result())
    assert writer.result() == ITEMS


if __name__ == "__main__":
    fastloop.run(main())
