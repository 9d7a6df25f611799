"""Round trips to servers that run on this machine; the client's processor time.

What only one row needs is imported there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from harness.bench import Bench, MissingError
from harness.registry import row


@contextlib.contextmanager
def apart_from(pid: int) -> Iterator[None]:
    """Keep the server's process on another processor, if the system lets us.

    Where the kernel puts the two on one, a round trip costs less processor time, and
    it does so for one sample and not for the next.
    """
    cpus = sorted(os.sched_getaffinity(0))
    try:
        before = os.sched_getaffinity(pid)
        os.sched_setaffinity(pid, cpus[-1:])
    except OSError:  # another's, or on another machine
        yield
        return
    os.sched_setaffinity(0, cpus[:-1] or cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(pid, before)


@row(ops=200, unit="round trip")
async def asyncpg(bench: Bench) -> None:
    """asyncpg, a SELECT of one row."""
    import asyncpg

    url = os.environ.get("FASTLOOP_POSTGRESQL", "postgresql://postgres@127.0.0.1:5432")
    try:
        connection = await asyncpg.connect(url, ssl=False)
    except OSError as error:
        raise MissingError("no PostgreSQL") from error
    done = 0
    with apart_from(await connection.fetchval("SELECT pg_backend_pid()")):
        for _ in bench:
            for number in range(bench.ops):
                done += await connection.fetchval("SELECT $1::int", number) == number
    await connection.close()
    bench.check(done)


@row(ops=200, unit="round trip")
async def redis(bench: Bench) -> None:
    """redis-py, SET and GET."""
    from redis import asyncio as aioredis
    from redis.exceptions import ConnectionError as Unreachable

    url = os.environ.get("FASTLOOP_REDIS", "redis://127.0.0.1:6379")
    client = aioredis.Redis.from_url(url)
    try:
        server = await client.info("server")
    except Unreachable as error:
        raise MissingError("no Redis") from error
    done = 0
    with apart_from(server["process_id"]):
        for _ in bench:
            for number in range(bench.ops // 2):
                value = b"%d" % number
                done += bool(await client.set("fastloop-bench", value, ex=60))
                done += await client.get("fastloop-bench") == value
    await client.aclose()
    bench.check(done)
