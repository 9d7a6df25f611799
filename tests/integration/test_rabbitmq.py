"""aio-pika on RabbitMQ: confirms, acknowledgements, prefetch, RPC, robust channels."""

import asyncio

import aio_pika
import pytest
from aio_pika import Message
from aio_pika.patterns import RPC


def test_publish_and_consume(run, rabbitmq, unique):
    async def main():
        async with await aio_pika.connect_robust(rabbitmq) as connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=10)
            queue = await channel.declare_queue(unique, exclusive=True)
            await asyncio.gather(
                *(
                    channel.default_exchange.publish(Message(b"%d" % n), unique)
                    for n in range(300)
                )
            )
            got = set()
            async with queue.iterator(timeout=30) as messages:
                async for message in messages:
                    async with message.process():
                        got.add(int(message.body))
                    if len(got) == 300:
                        break
            assert got == set(range(300))

    run(main())


def test_rejected_messages_come_again(run, rabbitmq, unique):
    async def main():
        async with await aio_pika.connect(rabbitmq) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(unique, auto_delete=True)
            await channel.default_exchange.publish(Message(b"once"), unique)
            done = asyncio.get_running_loop().create_future()

            async def consume(message):
                if message.redelivered:
                    await message.ack()
                    done.set_result(message.body)
                else:
                    await message.nack(requeue=True)

            tag = await queue.consume(consume)
            assert await done == b"once"
            await queue.cancel(tag)
            await queue.delete()

    run(main())


def test_rpc_and_large_messages(run, rabbitmq, unique):
    async def main():
        async with await aio_pika.connect(rabbitmq) as connection:
            channel = await connection.channel()
            rpc = await RPC.create(channel)

            async def reverse(*, data):
                return data[::-1]

            await rpc.register(unique, reverse, auto_delete=True)
            data = bytes(range(256)) * 4000
            answers = await asyncio.gather(
                *(rpc.call(unique, {"data": data}) for _ in range(5))
            )
            assert answers == [data[::-1]] * 5
            await rpc.close()

    run(main())


def test_timeouts_and_errors(run, rabbitmq, unique):
    async def main():
        async with await aio_pika.connect(rabbitmq) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(unique, exclusive=True)
            with pytest.raises(aio_pika.exceptions.QueueEmpty):
                await queue.get()
            with pytest.raises(asyncio.TimeoutError):
                async with queue.iterator() as messages, asyncio.timeout(0.02):
                    await anext(messages)
            with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
                await channel.get_queue(unique + "-none", ensure=True)
        with pytest.raises((OSError, aio_pika.exceptions.AMQPConnectionError)):
            await aio_pika.connect("amqp://guest:guest@127.0.0.1:1/")

    run(main())
