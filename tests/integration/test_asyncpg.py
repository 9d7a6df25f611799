"""asyncpg: pools, transactions, COPY, LISTEN, cancellation, lost connections."""

import asyncio
import io

import asyncpg
import pytest

pytestmark = pytest.mark.usefixtures("postgres")


def test_pool_under_load(run, postgres):
    async def main():
        async with asyncpg.create_pool(postgres, min_size=2, max_size=5) as pool:

            async def one(number):
                async with pool.acquire() as connection:
                    return await connection.fetchval("select $1::int * 2", number)

            results = await asyncio.gather(*(one(n) for n in range(300)))
            assert results == [n * 2 for n in range(300)]
            assert 2 <= pool.get_size() <= 5

    run(main())


def test_transactions_and_cursors(run, postgres, unique):
    async def main():
        connection = await asyncpg.connect(postgres)
        await connection.execute(f"create temp table {unique} (n int, t text)")
        await connection.executemany(
            f"insert into {unique} values ($1, $2)",
            [(n, str(n) * 100) for n in range(2000)],
        )
        with pytest.raises(ZeroDivisionError):
            async with connection.transaction():
                await connection.execute(f"delete from {unique}")
                raise ZeroDivisionError
        async with connection.transaction():
            rows = [
                row["n"]
                async for row in connection.cursor(
                    f"select n from {unique} order by n", prefetch=50
                )
            ]
        assert rows == list(range(2000))
        await connection.close()

    run(main())


def test_copy_in_and_out(run, postgres, unique):
    records = [(n, "x" * (n % 97)) for n in range(50_000)]

    async def main():
        connection = await asyncpg.connect(postgres)
        await connection.execute(f"create temp table {unique} (n int, t text)")
        await connection.copy_records_to_table(unique, records=records)
        out = io.BytesIO()
        await connection.copy_from_table(unique, output=out)
        lines = out.getvalue().decode().splitlines()
        assert sorted(lines) == sorted(f"{n}\t{text}" for n, text in records)
        parts = []

        async def slow_sink(data):
            await asyncio.sleep(0)
            parts.append(data)

        await connection.copy_from_query("select 1", output=slow_sink)
        assert b"".join(parts) == b"1\n"

        # COPY from a source that raises leaves a usable connection.
        async def source():
            yield b"1\tone\n"
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await connection.copy_to_table(unique, source=source())
        assert await connection.fetchval(f"select count(*) from {unique}") == 50_000
        await connection.close()

    run(main())


def test_listen(run, postgres, unique):
    async def main():
        listener = await asyncpg.connect(postgres)
        sender = await asyncpg.connect(postgres)
        got = asyncio.Queue()
        await listener.add_listener(unique, lambda *args: got.put_nowait(args[3]))
        for number in range(500):
            await sender.execute("select pg_notify($1, $2)", unique, str(number))
        assert [await got.get() for _ in range(500)] == [str(n) for n in range(500)]
        await listener.close()
        await sender.close()

    run(main())


def test_timeouts_and_cancellation(run, postgres):
    async def main():
        async with asyncpg.create_pool(postgres, min_size=1, max_size=1) as pool:
            with pytest.raises(asyncio.TimeoutError):
                await pool.fetchval("select pg_sleep(3600)", timeout=0.05)
            task = asyncio.create_task(pool.fetchval("select pg_sleep(3600)"))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # A waiter for the only connection that gives up.
            async with pool.acquire():
                with pytest.raises(asyncio.TimeoutError):
                    await pool.acquire(timeout=0.02)
            assert await pool.fetchval("select 1") == 1

    run(main())


def test_connection_that_the_server_ends(run, postgres):
    async def main():
        async with asyncpg.create_pool(postgres, min_size=1, max_size=1) as pool:
            other = await asyncpg.connect(postgres)
            async with pool.acquire() as connection:
                lost = asyncio.Event()
                connection.add_termination_listener(lambda _: lost.set())
                pid = connection.get_server_pid()
                task = asyncio.create_task(connection.fetchval("select pg_sleep(3600)"))
                await asyncio.sleep(0.02)
                await other.execute("select pg_terminate_backend($1)", pid)
                with pytest.raises(
                    (asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError)
                ):
                    await task
                await lost.wait()
            assert await pool.fetchval("select 1") == 1
            await other.close()

    run(main())


def test_refused(run):
    async def main():
        with pytest.raises(OSError):
            await asyncpg.connect("postgresql://postgres@127.0.0.1:1/x", timeout=5)

    run(main())
