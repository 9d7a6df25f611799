"""Servers that go and come back, with work in flight: what clients see, and do then."""

import asyncio
import contextlib
import signal
import urllib.parse

import aio_pika
import aiohttp
import aiomqtt
import aiomysql
import asyncpg
import nats
import psycopg
import pytest
import redis.asyncio as aioredis
import sqlalchemy
from aio_pika import Message
from conftest import open_fds
from psycopg_pool import AsyncConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from sqlalchemy.ext.asyncio import create_async_engine

from .ownservers import Relay, keep_port


async def until(works, *errors):
    """Call works() until it raises none of errors; return its result."""
    while True:
        try:
            return await works()
        except errors:
            await asyncio.sleep(0.01)


async def closed(before):
    """Wait until no more descriptors are open than before."""
    while len(open_fds()) > before:
        await asyncio.sleep(0.001)


def test_asyncpg(run, own_postgres):
    async def main():
        async with asyncpg.create_pool(own_postgres.url, min_size=4, max_size=8) as p:
            asleep = "select count(*) from pg_stat_activity where query = $1"
            sleep = "select pg_sleep(3600)"
            tasks = [asyncio.create_task(p.fetchval(sleep)) for _ in range(4)]
            while await p.fetchval(asleep, sleep) < 4:
                await asyncio.sleep(0.001)
            await asyncio.to_thread(own_postgres.stop)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            lost = (asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError)
            assert all(isinstance(result, lost) for result in results), results
            with pytest.raises((OSError, *lost)):
                await p.fetchval("select 1")
            await asyncio.to_thread(own_postgres.start)
            # The pool's connections that were idle are lost, too, and replaced.
            numbers = [p.fetchval("select $1::int", n) for n in range(50)]
            results = await asyncio.gather(*numbers, return_exceptions=True)
            assert all(isinstance(x, (int, OSError, *lost)) for x in results), results
            numbers = [p.fetchval("select $1::int", n) for n in range(50)]
            assert await asyncio.gather(*numbers) == list(range(50))

    run(main())


def test_psycopg(run, own_postgres):
    async def main():
        async with AsyncConnectionPool(
            own_postgres.url,
            min_size=2,
            max_size=4,
            check=AsyncConnectionPool.check_connection,
        ) as pool:

            async def ask(query):
                async with pool.connection() as connection:
                    cursor = await connection.execute(query)
                    return (await cursor.fetchone())[0]

            task = asyncio.create_task(ask("select pg_sleep(3600)"))
            asleep = "select count(*) from pg_stat_activity where query like '%sleep(3'"
            while not await ask(asleep + " || '600)'"):
                await asyncio.sleep(0.001)
            await asyncio.to_thread(own_postgres.stop)
            with pytest.raises(psycopg.OperationalError):
                await task
            await asyncio.to_thread(own_postgres.start)
            assert (
                await asyncio.gather(*(ask("select 7") for _ in range(30))) == [7] * 30
            )

    run(main())


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg", "aiomysql"])
def test_sqlalchemy(run, own_mariadb, own_postgres, driver):
    """pool_pre_ping finds the connections that are dead."""
    server = own_mariadb if driver == "aiomysql" else own_postgres
    if driver == "aiomysql":
        url = f"mysql+aiomysql://root@127.0.0.1:{server.port}/mysql"
    else:
        url = server.url.replace("://", f"+{driver}://")

    async def main():
        before = len(open_fds())
        engine = create_async_engine(url, pool_pre_ping=True, pool_size=3)

        async def ask(number=7):
            async with engine.connect() as connection:
                return await connection.scalar(sqlalchemy.select(number))

        assert await asyncio.gather(*map(ask, range(20))) == list(range(20))
        await asyncio.to_thread(server.stop)
        with pytest.raises((sqlalchemy.exc.DBAPIError, OSError)):
            await ask()
        await asyncio.to_thread(server.start)
        assert await asyncio.gather(*map(ask, range(20))) == list(range(20))
        await engine.dispose()
        await closed(before)

    run(main())


def test_aiomysql(run, own_mariadb):
    async def main():
        before = len(open_fds())
        async with aiomysql.create_pool(
            host="127.0.0.1", port=own_mariadb.port, user="root", minsize=2
        ) as pool:

            async def ask(query):
                async with pool.acquire() as connection, connection.cursor() as cursor:
                    await cursor.execute(query)
                    return (await cursor.fetchone())[0]

            task = asyncio.create_task(ask("select sleep(3600)"))
            asleep = (
                "select count(*) from information_schema.processlist"
                " where state = 'User sleep'"
            )
            while not await ask(asleep):
                await asyncio.sleep(0.001)
            await asyncio.to_thread(own_mariadb.kill)
            with pytest.raises(aiomysql.OperationalError):
                await task
            await asyncio.to_thread(own_mariadb.start)
            assert await until(lambda: ask("select 7"), aiomysql.OperationalError) == 7
        await closed(before)

    run(main())


def test_redis(run, own_redis, unique):
    """Commands fail, subscriptions come back by themselves."""

    async def main():
        url = f"redis://127.0.0.1:{own_redis.port}/0"
        retry = Retry(ConstantBackoff(0.02), 1000)
        async with (
            aioredis.from_url(url, retry=None) as client,
            aioredis.from_url(url, retry=retry) as patient,
            patient.pubsub(ignore_subscribe_messages=True) as pubsub,
        ):
            await pubsub.subscribe(unique)
            got = asyncio.Queue()

            async def listen():
                async for message in pubsub.listen():
                    got.put_nowait(message["data"])

            listener = asyncio.create_task(listen())
            while not await client.publish(unique, "before"):
                await asyncio.sleep(0.001)
            assert await got.get() == b"before"
            task = asyncio.create_task(client.blpop([unique], timeout=3600))
            while not (await client.info("clients"))["blocked_clients"]:
                await asyncio.sleep(0.001)
            await asyncio.to_thread(own_redis.kill)
            with pytest.raises(aioredis.ConnectionError):
                await task
            with pytest.raises(aioredis.ConnectionError):
                await client.ping()
            waiting = asyncio.create_task(patient.incr(unique))
            await asyncio.to_thread(own_redis.start)
            assert await waiting == 1
            while not await client.publish(unique, "after"):
                await asyncio.sleep(0.001)
            assert await got.get() == b"after"
            listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listener

    run(main())


def test_nats(run, own_nats, unique):
    """What is published meanwhile arrives; a stream of JetStream lives on."""

    async def main():
        gone, back = asyncio.Event(), asyncio.Event()

        async def disconnected():
            gone.set()

        async def reconnected():
            back.set()

        async def ignore(exc):
            pass

        client = await nats.connect(
            f"nats://127.0.0.1:{own_nats.port}",
            disconnected_cb=disconnected,
            reconnected_cb=reconnected,
            error_cb=ignore,
            reconnect_time_wait=0.02,
            max_reconnect_attempts=-1,
        )
        stream = client.jetstream()
        await stream.add_stream(name=unique, subjects=[f"{unique}.kept.*"])
        for number in range(20):
            await stream.publish(f"{unique}.kept.{number}", b"%d" % number)
        subscription = await client.subscribe(unique)
        await client.flush()
        await asyncio.to_thread(own_nats.stop)
        await gone.wait()
        assert not client.is_connected
        for number in range(20):
            await client.publish(unique, b"%d" % number)
        await asyncio.to_thread(own_nats.start)
        await back.wait()
        got = [await subscription.next_msg(timeout=20) for _ in range(20)]
        assert [int(message.data) for message in got] == list(range(20))
        pull = await stream.pull_subscribe(f"{unique}.kept.*", "consumer")
        messages = await pull.fetch(20, timeout=20)
        assert [int(message.data) for message in messages] == list(range(20))
        await asyncio.gather(*(message.ack_sync() for message in messages))
        await stream.delete_stream(unique)
        await client.drain()

    run(main())


def test_aiomqtt(run, own_mosquitto, unique):
    """The loop around the client that its documentation has."""

    async def main():
        got = asyncio.Queue()
        subscribed = asyncio.Queue()

        async def listen():
            while True:
                try:
                    async with aiomqtt.Client(
                        "127.0.0.1", own_mosquitto.port
                    ) as client:
                        await client.subscribe(unique)
                        subscribed.put_nowait(None)
                        async for message in client.messages:
                            got.put_nowait(message.payload)
                except aiomqtt.MqttError:
                    await asyncio.sleep(0.02)

        listener = asyncio.create_task(listen())
        for word in (b"before", b"after", b"at last"):
            await subscribed.get()
            async with aiomqtt.Client("127.0.0.1", own_mosquitto.port) as sender:
                await sender.publish(unique, word, qos=1)
            assert await got.get() == word
            await asyncio.to_thread(own_mosquitto.kill)
            await asyncio.to_thread(own_mosquitto.start)
        await subscribed.get()
        listener.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listener

    run(main())


@pytest.mark.filterwarnings("ignore:.*:ResourceWarning")
def test_aio_pika(run, rabbitmq, unique):
    """A robust connection declares its queues and consumers anew, behind a relay."""
    parts = urllib.parse.urlsplit(rabbitmq)

    async def main(relay):
        netloc = f"{parts.username}:{parts.password}@127.0.0.1:{relay.port}"
        url = parts._replace(netloc=netloc).geturl()
        connection = await aio_pika.connect_robust(url, reconnect_interval=0.05)
        back = asyncio.Event()
        connection.reconnect_callbacks.add(lambda *args: back.set())
        async with connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(unique, auto_delete=False)
            got = asyncio.Queue()

            async def consume(message):
                async with message.process():
                    got.put_nowait(message.body)

            await queue.consume(consume)
            await channel.default_exchange.publish(Message(b"before"), unique)
            assert await got.get() == b"before"
            await asyncio.to_thread(relay.stop)
            await asyncio.to_thread(relay.start)
            await back.wait()
            await connection.ready()
            await channel.default_exchange.publish(Message(b"after"), unique)
            while await got.get() != b"after":  # the first, whose receipt may be lost
                pass
            await queue.delete(if_unused=False, if_empty=False)

    with Relay((parts.hostname, parts.port)) as relay:
        run(main(relay))


def test_web_server(run, program, loop_name):
    """A client with connections kept alive, and the program that it talks to."""
    kept = keep_port()
    port = kept.getsockname()[1]

    def start():
        server = program(
            *("-m", "uvicorn", "integration.asgiapp:app", "--port", str(port)),
            *("--log-level", "info"),
        )
        server.until("startup complete")
        server.port()
        return server

    async def main():
        # c-ares, the default where it is installed, outlives the session.
        connector = aiohttp.TCPConnector(resolver=aiohttp.ThreadedResolver())
        async with aiohttp.ClientSession(
            f"http://127.0.0.1:{port}", connector=connector
        ) as session:

            async def ask(path="/hello"):
                async with session.get(path) as answer:
                    return await answer.text()

            server = await asyncio.to_thread(start)
            assert set(await asyncio.gather(*(ask() for _ in range(20)))) == {"hello"}
            tasks = [asyncio.create_task(ask("/slow/3600")) for _ in range(5)]
            await asyncio.to_thread(server.until, "slow begins", 5)
            server.signal(signal.SIGKILL)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            lost = (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)
            assert all(isinstance(result, lost) for result in results), results
            await asyncio.to_thread(server.wait, -signal.SIGKILL)
            with pytest.raises(aiohttp.ClientConnectorError):
                await ask()
            server = await asyncio.to_thread(start)
            assert set(await asyncio.gather(*(ask() for _ in range(20)))) == {"hello"}

    with kept:
        run(main())
