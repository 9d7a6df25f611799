"""Round trips to servers that run on this machine; the client's processor time.

What only one row needs is imported there.
"""

from __future__ import annotations

import os

from harness.bench import Bench, MissingError
from harness.registry import row


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
        await client.ping()
    except Unreachable as error:
        raise MissingError("no Redis") from error
    done = 0
    for _ in bench:
        for number in range(bench.ops // 2):
            value = b"%d" % number
            done += bool(await client.set("fastloop-bench", value, ex=60))
            done += await client.get("fastloop-bench") == value
    await client.aclose()
    bench.check(done)
