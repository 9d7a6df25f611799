"""redis-py's asyncio side, to which users of aioredis moved."""

import asyncio
import contextlib

import pytest
import redis.asyncio as aioredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError


@contextlib.asynccontextmanager
async def client_of(url, **kwargs):
    client = aioredis.from_url(url, **kwargs)
    try:
        yield client
    finally:
        await client.aclose()


def test_commands_at_once(run, redis, unique):
    async def main():
        async with client_of(redis, max_connections=10) as client:
            pool = aioredis.BlockingConnectionPool.from_url(redis, max_connections=5)
            async with aioredis.Redis(connection_pool=pool) as bounded:
                await asyncio.gather(
                    *(bounded.incrby(unique, 2) for _ in range(500)),
                )
            await pool.aclose()
            assert int(await client.get(unique)) == 1000
            await client.delete(unique)

    run(main())


def test_pipelines(run, redis, unique):
    async def main():
        async with client_of(redis) as client:
            async with client.pipeline(transaction=True) as pipe:
                for number in range(2000):
                    pipe.rpush(unique, number)
                assert await pipe.execute() == list(range(1, 2001))
            items = await client.lrange(unique, 0, -1)
            assert [int(item) for item in items] == list(range(2000))

            # The optimistic lock fails when the key changes.
            async with client.pipeline() as pipe:
                await pipe.watch(unique)
                await client.rpush(unique, "other")
                pipe.multi()
                pipe.rpush(unique, "mine")
                with pytest.raises(aioredis.WatchError):
                    await pipe.execute()
            await client.delete(unique)

    run(main())


def test_large_values(run, redis, unique):
    value = bytes(range(256)) * 40_000

    async def main():
        async with client_of(redis) as client:
            await client.set(unique, value)
            assert await client.get(unique) == value
            await client.delete(unique)

    run(main())


def test_pubsub(run, redis, unique):
    async def main():
        async with client_of(redis, decode_responses=True) as client:
            async with client.pubsub(ignore_subscribe_messages=True) as pubsub:
                await pubsub.subscribe(unique)
                await pubsub.psubscribe(unique + ":*")
                # The answers to the subscriptions.
                for _ in range(2):
                    await pubsub.get_message(timeout=5)
                got = []

                async def listen():
                    async for message in pubsub.listen():
                        got.append(message["data"])
                        if len(got) == 500:
                            return

                task = asyncio.create_task(listen())
                for number in range(500):
                    channel = unique if number % 2 else f"{unique}:{number}"
                    assert await client.publish(channel, number) == 1
                await task
                assert got == [str(n) for n in range(500)]
                assert await pubsub.get_message(timeout=0.01) is None

    run(main())


def test_blocking_commands_and_streams(run, redis, unique):
    async def main():
        async with client_of(redis, decode_responses=True) as client:
            task = asyncio.create_task(client.blpop([unique], timeout=30))
            await asyncio.sleep(0.01)
            await client.rpush(unique, "value")
            assert list(await task) == [unique, "value"]

            task = asyncio.create_task(client.blpop([unique], timeout=30))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await client.ping()

            async with client.lock(unique + ":lock", timeout=10):
                other = client.lock(unique + ":lock", blocking_timeout=0.05)
                assert not await other.acquire()

            await client.xadd(unique + ":s", {"a": 1})
            found = await client.xread({unique + ":s": 0}, block=1000)
            assert found
            await client.delete(unique + ":s")

    run(main())


def test_timeouts_and_lost_connections(run, redis):
    async def main():
        async def silent(reader, writer):
            with contextlib.suppress(OSError):
                await reader.read()
            writer.close()

        async def rude(reader, writer):
            await reader.read(1)
            writer.transport.abort()

        for behave, timeout, error in (
            (silent, 0.05, RedisTimeoutError),
            (rude, 30, RedisConnectionError),
        ):
            server = await asyncio.start_server(behave, "127.0.0.1", 0)
            async with server:
                port = server.sockets[0].getsockname()[1]
                async with client_of(
                    f"redis://127.0.0.1:{port}", socket_timeout=timeout, retry=None
                ) as client:
                    with pytest.raises(error):
                        await client.get("x")
        with pytest.raises(RedisConnectionError):
            async with client_of("redis://127.0.0.1:1", retry=None) as client:
                await client.get("x")

    run(main())
