"""psycopg's async side, which waits with loop.add_reader() and add_writer()."""

import asyncio

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool


def test_pool_under_load(run, postgres):
    async def main():
        async with AsyncConnectionPool(postgres, min_size=2, max_size=5) as pool:

            async def one(number):
                async with pool.connection() as connection:
                    cursor = await connection.execute("select %s::int * 2", [number])
                    return (await cursor.fetchone())[0]

            results = await asyncio.gather(*(one(n) for n in range(200)))
            assert results == [n * 2 for n in range(200)]

    run(main())


def test_copy_and_pipeline(run, postgres, unique):
    async def main():
        async with await psycopg.AsyncConnection.connect(postgres) as connection:
            await connection.execute(f"create temp table {unique} (n int, t text)")
            async with connection.cursor() as cursor:
                async with cursor.copy(f"copy {unique} from stdin") as copy:
                    for number in range(20_000):
                        await copy.write_row((number, "x" * 200))
                size = 0
                async with cursor.copy(f"copy {unique} to stdout") as copy:
                    async for block in copy:
                        size += len(block)
            assert size > 20_000 * 200
            async with connection.pipeline():
                cursors = [
                    await connection.execute("select %s::int", [n]) for n in range(200)
                ]
                assert [(await c.fetchone())[0] for c in cursors] == list(range(200))

    run(main())


def test_notifies(run, postgres, unique):
    async def main():
        listener = await psycopg.AsyncConnection.connect(postgres, autocommit=True)
        sender = await psycopg.AsyncConnection.connect(postgres, autocommit=True)
        await listener.execute(f"listen {unique}")
        got = []

        async def listen():
            async for notify in listener.notifies():
                got.append(notify.payload)
                if len(got) == 100:
                    return

        task = asyncio.create_task(listen())
        for number in range(100):
            await sender.execute("select pg_notify(%s, %s)", [unique, str(number)])
        await task
        assert got == [str(n) for n in range(100)]
        await listener.close()
        await sender.close()

    run(main())


def test_cancellation(run, postgres):
    async def main():
        connection = await psycopg.AsyncConnection.connect(postgres, autocommit=True)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                # What the server has not begun yet, it would not cancel.
                async with asyncio.timeout(0.2):
                    await connection.execute("select pg_sleep(3600)")
            cursor = await connection.execute("select 1")
            assert await cursor.fetchone() == (1,)
        await connection.close()

    run(main())


def test_connection_that_the_server_ends(run, postgres):
    async def main():
        connection = await psycopg.AsyncConnection.connect(postgres, autocommit=True)
        other = await psycopg.AsyncConnection.connect(postgres, autocommit=True)
        task = asyncio.create_task(connection.execute("select pg_sleep(3600)"))
        await asyncio.sleep(0.05)
        pid = connection.info.backend_pid
        await other.execute("select pg_terminate_backend(%s)", [pid])
        with pytest.raises(psycopg.OperationalError):
            await task
        assert connection.closed
        await other.close()

    run(main())


def test_refused(run):
    async def main():
        with pytest.raises(psycopg.OperationalError):
            await psycopg.AsyncConnection.connect("postgresql://x@127.0.0.1:1/x")

    run(main())
