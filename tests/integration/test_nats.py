"""nats-py: publish and subscribe, requests, queues, drains, JetStream where it is on."""

import asyncio
import urllib.parse

import nats
import pytest


def test_publish_and_subscribe(run, nats_url, unique):
    async def main():
        client = await nats.connect(nats_url)
        got = []
        done = asyncio.Event()

        async def handle(message):
            got.append(int(message.data))
            if len(got) == 1000:
                done.set()

        await client.subscribe(unique, cb=handle)
        await client.flush()
        for number in range(1000):
            await client.publish(unique, b"%d" % number)
        await done.wait()
        assert got == list(range(1000))
        await client.drain()

    run(main())


def test_requests(run, nats_url, unique):
    async def main():
        server, client = await nats.connect(nats_url), await nats.connect(nats_url)

        async def answer(message):
            await message.respond(message.data[::-1])

        for _ in range(3):  # a queue group: one of them answers
            await server.subscribe(unique, "group", cb=answer)
        await server.flush()
        answers = await asyncio.gather(
            *(client.request(unique, b"%d" % n, timeout=20) for n in range(10, 200))
        )
        assert [answer.data for answer in answers] == [
            str(n)[::-1].encode() for n in range(10, 200)
        ]
        with pytest.raises(nats.errors.NoRespondersError):
            await client.request(unique + ".nobody", b"", timeout=5)
        with pytest.raises(nats.errors.TimeoutError):
            quiet = await client.subscribe(unique + ".quiet")
            await client.flush()
            await client.request(unique + ".quiet", b"", timeout=0.05)
        await quiet.unsubscribe()
        await client.close()
        await server.close()

    run(main())


def test_iteration_and_large_messages(run, nats_url, unique):
    async def main():
        async with await nats.connect(nats_url) as client:
            subscription = await client.subscribe(unique)
            data = b"n" * 500_000
            for _ in range(20):
                await client.publish(unique, data)
            await client.flush()
            count = 0
            async for message in subscription.messages:
                assert message.data == data
                count += 1
                if count == 20:
                    break
            with pytest.raises(nats.errors.TimeoutError):
                await subscription.next_msg(timeout=0.02)

    run(main())


def test_reconnects(run, nats_url, unique):
    """Through a proxy that drops the connection in the middle."""
    parts = urllib.parse.urlsplit(nats_url)

    async def main():
        pairs = []

        async def forward(reader, writer):
            try:
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
            except OSError:
                pass
            writer.close()

        async def accept(reader, writer):
            back, out = await asyncio.open_connection(parts.hostname, parts.port)
            pairs.append((writer, out))
            await asyncio.gather(forward(reader, out), forward(back, writer))

        proxy = await asyncio.start_server(accept, "127.0.0.1", 0)
        port = proxy.sockets[0].getsockname()[1]
        reconnected = asyncio.Event()

        async def back():
            reconnected.set()

        async def ignore(exc):
            pass

        client = await nats.connect(
            f"nats://127.0.0.1:{port}",
            reconnected_cb=back,
            error_cb=ignore,
            reconnect_time_wait=0.01,
        )
        subscription = await client.subscribe(unique)
        await client.flush()
        for writer in pairs[0]:
            writer.transport.abort()
        await reconnected.wait()
        await client.publish(unique, b"after all")
        assert (await subscription.next_msg(timeout=20)).data == b"after all"
        await client.close()
        proxy.close()
        for pair in pairs:
            for writer in pair:
                writer.close()
        await proxy.wait_closed()
        await asyncio.sleep(0.05)

    run(main())
