"""TLS to real servers: agreed from the start, or in the middle of a connection."""

import asyncio
import ssl

import aiomqtt
import aiomysql
import asyncpg
import nats
import psycopg
import pytest
import redis.asyncio as aioredis
import sqlalchemy
from conftest import open_fds
from sqlalchemy.ext.asyncio import create_async_engine

BIG = bytes(range(256)) * 8000

TEXT = "x" * 2_000_000


def test_asyncpg(run, tls, own_postgres):
    """start_tls() after the server's one byte of assent."""

    async def main():
        async with asyncpg.create_pool(
            own_postgres.url, ssl=tls.client, min_size=2, max_size=4
        ) as pool:
            numbers = [pool.fetchval("select $1::int", n) for n in range(100)]
            assert await asyncio.gather(*numbers) == list(range(100))
            assert await pool.fetchval("select $1::bytea", BIG) == BIG
            used = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
            assert await pool.fetchval(used)
            with pytest.raises(asyncio.TimeoutError):
                await pool.fetchval("select pg_sleep(3600)", timeout=0.05)
            assert await pool.fetchval(used)
        # A stranger's certificate.
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            await asyncpg.connect(own_postgres.url, ssl=ssl.create_default_context())

    run(main())


def test_psycopg(run, own_postgres):
    async def main():
        url = f"{own_postgres.url}?sslmode=verify-full"
        async with await psycopg.AsyncConnection.connect(
            url, sslrootcert=str(own_postgres.authority)
        ) as connection:
            cursor = await connection.execute("select %s::bytea", [BIG])
            assert await cursor.fetchone() == (BIG,)
        with pytest.raises(psycopg.OperationalError, match="certificate"):
            await psycopg.AsyncConnection.connect(url, sslrootcert="/none")

    run(main())


def test_aiomysql(run, tls, own_mariadb):
    """It closes its transport and makes another one on a copy of the socket."""

    async def main():
        before = len(open_fds())
        async with aiomysql.create_pool(
            host="127.0.0.1", port=own_mariadb.port, user="root", ssl=tls.client
        ) as pool:

            async def one(number):
                async with pool.acquire() as connection, connection.cursor() as cursor:
                    await cursor.execute("select %s, %s", (number, TEXT))
                    row = await cursor.fetchone()
                    await cursor.execute("show status like 'ssl_version'")
                    return row, (await cursor.fetchone())[1][:3]

            results = await asyncio.gather(*(one(number) for number in range(20)))
            assert results == [((number, TEXT), "TLS") for number in range(20)]
        while len(open_fds()) > before:  # nothing else tells of the end
            await asyncio.sleep(0.001)

    run(main())


@pytest.mark.parametrize("driver", ["asyncpg", "aiomysql"])
def test_sqlalchemy(run, tls, own_mariadb, own_postgres, driver):
    server = own_mariadb if driver == "aiomysql" else own_postgres
    url = f"mysql+aiomysql://root@127.0.0.1:{server.port}/mysql"
    if driver == "asyncpg":
        url = server.url.replace("://", "+asyncpg://")

    async def main():
        before = len(open_fds())
        engine = create_async_engine(url, connect_args={"ssl": tls.client})

        async def one(number):
            async with engine.connect() as connection:
                return await connection.scalar(sqlalchemy.select(number))

        numbers = await asyncio.gather(*(one(number) for number in range(30)))
        assert numbers == list(range(30))
        await engine.dispose()
        while len(open_fds()) > before:  # nothing else tells of the end
            await asyncio.sleep(0.001)

    run(main())


def test_redis(run, own_redis, unique):
    async def main():
        url = f"rediss://localhost:{own_redis.tls_port}/0"
        async with aioredis.from_url(
            url, ssl_ca_certs=own_redis.authority, socket_timeout=60
        ) as client:
            await client.set(unique, BIG)
            values = await asyncio.gather(*(client.get(unique) for _ in range(5)))
            assert values == [BIG] * 5
            async with client.pubsub(ignore_subscribe_messages=True) as pubsub:
                await pubsub.subscribe(unique)
                await pubsub.get_message(timeout=5)
                for number in range(100):
                    await client.publish(unique, number)
                got = [await pubsub.get_message(timeout=20) for _ in range(100)]
                assert [int(message["data"]) for message in got] == list(range(100))
            await client.delete(unique)
        async with aioredis.from_url(url, retry=None) as stranger:
            with pytest.raises(aioredis.ConnectionError, match="CERTIFICATE_VERIFY"):
                await stranger.ping()

    run(main())


def test_nats(run, tls, own_securenats, unique):
    """start_tls() on a stream whose reader is then thrown away."""

    async def main():
        before = len(open_fds())
        url = f"nats://localhost:{own_securenats.port}"
        async with await nats.connect(url, tls=tls.client) as client:
            subscription = await client.subscribe(unique)
            for number in range(50):
                await client.publish(unique, b"%d " % number + BIG[:100_000])
            for number in range(50):
                message = await subscription.next_msg(timeout=20)
                assert message.data == b"%d " % number + BIG[:100_000]
        while len(open_fds()) > before:  # it closes and does not wait
            await asyncio.sleep(0.001)

    run(main())


def test_aiomqtt(run, tls, own_mosquitto, unique):
    """paho reads and writes a socket of the ssl module when add_reader() calls."""

    async def main():
        async with aiomqtt.Client(
            "localhost", own_mosquitto.tls_port, tls_context=tls.client
        ) as client:
            await client.subscribe(unique, qos=1)
            for number in range(20):
                await client.publish(unique, b"%d " % number + BIG[:300_000], qos=1)
            for number in range(20):
                message = await anext(client.messages)
                assert message.payload == b"%d " % number + BIG[:300_000]

    run(main())
