"""Databases on Unix sockets."""

import asyncio

import aiomysql
import asyncpg
import psycopg
import redis.asyncio as aioredis

BIG = bytes(range(256)) * 8000


def test_asyncpg(run, own_postgres):
    async def main():
        async with asyncpg.create_pool(
            host=str(own_postgres.folder), port=own_postgres.port, user="postgres"
        ) as pool:
            numbers = [pool.fetchval("select $1::int", n) for n in range(100)]
            assert await asyncio.gather(*numbers) == list(range(100))
            assert await pool.fetchval("select $1::bytea", BIG) == BIG

    run(main())


def test_psycopg(run, own_postgres):
    async def main():
        async with await psycopg.AsyncConnection.connect(
            host=str(own_postgres.folder), port=own_postgres.port, user="postgres"
        ) as connection:
            cursor = await connection.execute("select %s::bytea", [BIG])
            assert await cursor.fetchone() == (BIG,)

    run(main())


def test_aiomysql(run, own_mariadb):
    async def main():
        connection = await aiomysql.connect(
            unix_socket=str(own_mariadb.folder / "sock"), user="root"
        )
        async with connection.cursor() as cursor:
            await cursor.execute("select repeat('x', 1000000)")
            assert await cursor.fetchone() == ("x" * 1_000_000,)
        await connection.ensure_closed()

    run(main())


def test_redis(run, own_redis, unique):
    async def main():
        async with aioredis.Redis(
            unix_socket_path=str(own_redis.folder / "sock"), socket_timeout=60
        ) as client:
            await client.set(unique, BIG)
            values = await asyncio.gather(*(client.get(unique) for _ in range(20)))
            assert values == [BIG] * 20
            await client.delete(unique)

    run(main())
