"""aiomysql on MariaDB: pools, transactions, large results, cancellation."""

import asyncio
import urllib.parse

import aiomysql
import pytest


def options_of(url):
    parts = urllib.parse.urlsplit(url)
    return {
        "host": parts.hostname,
        "port": parts.port,
        "user": parts.username,
        "password": parts.password or "",
        "db": parts.path.strip("/"),
    }


def test_pool_under_load(run, mysql):
    async def main():
        async with aiomysql.create_pool(minsize=1, maxsize=5, **options_of(mysql)) as p:

            async def one(number):
                async with p.acquire() as connection, connection.cursor() as cursor:
                    await cursor.execute("select %s * 2", (number,))
                    return (await cursor.fetchone())[0]

            results = await asyncio.gather(*(one(n) for n in range(200)))
            assert results == [n * 2 for n in range(200)]

    run(main())


def test_transactions_and_large_results(run, mysql, unique):
    async def main():
        connection = await aiomysql.connect(**options_of(mysql))
        async with connection.cursor(aiomysql.SSCursor) as cursor:
            await cursor.execute(f"create temporary table {unique} (n int, t longtext)")
            await cursor.executemany(
                f"insert into {unique} values (%s, %s)",
                [(n, "x" * 5000) for n in range(500)],
            )
            await connection.commit()
            await cursor.execute(f"delete from {unique}")
            await connection.rollback()
            await cursor.execute(f"select n, t from {unique} order by n")
            numbers = []
            while row := await cursor.fetchone():
                numbers.append(row[0])
                assert row[1] == "x" * 5000
            assert numbers == list(range(500))
        await connection.ensure_closed()

    run(main())


def test_cancellation(run, mysql):
    async def main():
        async with aiomysql.create_pool(minsize=1, maxsize=1, **options_of(mysql)) as p:
            for _ in range(2):
                with pytest.raises(TimeoutError):
                    # Cancelled while it connects, aiomysql would leave its socket open.
                    async with (
                        asyncio.timeout(None) as limit,
                        p.acquire() as connection,
                    ):
                        async with connection.cursor() as cursor:
                            limit.reschedule(asyncio.get_running_loop().time() + 0.05)
                            await cursor.execute("select sleep(3600)")
            async with p.acquire() as connection, connection.cursor() as cursor:
                await cursor.execute("select 1")
                assert await cursor.fetchone() == (1,)

    run(main())


def test_refused(run):
    async def main():
        with pytest.raises(aiomysql.OperationalError):
            await aiomysql.connect(host="127.0.0.1", port=1, user="x")

    run(main())
