"""A pipeline for measurements: TCP, parse, aggregate, TCP again, with queues between.

Four producers send lines such as "cpu,host=web7 value=31 1700000123"; a parser takes
them apart, an aggregator adds them up by host and minute, and a sender passes the sums
on to a sink behind a socket of its own, which adds up what it got.
"""

import asyncio
import random
from collections import Counter

from .checks import check

PRODUCERS = 4
HOSTS = 40
BATCH = 20  # lines that a producer sends at once
START = 1_700_000_000


def make_lines(count):
    rng = random.Random(2)
    for number in range(count):
        value = rng.randrange(1_000)
        host = rng.randrange(HOSTS)
        yield f"cpu,host=web{host} value={value} {START + number // 50}\n".encode()


def parse(line):
    """Return the host, the value and the time in seconds of a line."""
    tags, fields, when = line.split()
    return tags.partition(b"host=")[2], int(fields.partition(b"=")[2]), int(when)


def prepare(count):
    lines = list(make_lines(count))
    expected = sum(parse(line)[1] for line in lines)
    batches = [b"".join(lines[n : n + BATCH]) for n in range(0, count, BATCH)]

    async def run(progress):
        raw = asyncio.Queue(100)
        points = asyncio.Queue(100)
        sums = asyncio.Queue(10)
        stored = Counter()

        async def receive(reader, writer):
            async for line in reader:
                await raw.put(line)
            writer.close()
            await raw.put(None)

        async def parse_all():
            open_producers = PRODUCERS
            while open_producers:
                line = await raw.get()
                if line is None:
                    open_producers -= 1
                else:
                    await points.put(parse(line))
            await points.put(None)

        async def aggregate():
            window = Counter()
            done = 0
            while (point := await points.get()) is not None:
                host, value, when = point
                window[host, when // 60] += value
                done += 1
                if done % 500 == 0:
                    await sums.put(window)
                    window = Counter()
                    progress(500)
            await sums.put(window)
            await sums.put(None)
            progress(done % 500)
            return done

        async def send(port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            while (window := await sums.get()) is not None:
                for (host, minute), total in window.items():
                    writer.write(b"%s %d %d\n" % (host, minute, total))
                await writer.drain()
            writer.close()
            await writer.wait_closed()

        async def store(reader, writer):
            async for line in reader:
                host, minute, total = line.split()
                stored[host, minute] += int(total)
            writer.close()
            everything_is_stored.set()

        async def produce(number, port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            for batch in batches[number::PRODUCERS]:
                writer.write(batch)
                await writer.drain()
            writer.close()
            await writer.wait_closed()

        everything_is_stored = asyncio.Event()
        source = await asyncio.start_server(receive, "127.0.0.1", 0)
        sink = await asyncio.start_server(store, "127.0.0.1", 0)
        async with source, sink, asyncio.TaskGroup() as group:
            group.create_task(parse_all())
            aggregator = group.create_task(aggregate())
            group.create_task(send(sink.sockets[0].getsockname()[1]))
            for number in range(PRODUCERS):
                group.create_task(produce(number, source.sockets[0].getsockname()[1]))
            await everything_is_stored.wait()

        facts = {
            "lines": aggregator.result(),
            "series": len(stored),
            "sum": stored.total(),
        }
        check(facts, lines=count, sum=expected)
        return facts

    return run
