"""aiomqtt on Mosquitto; paho below it uses loop.add_reader() and add_writer()."""

import asyncio
import urllib.parse

import aiomqtt
import pytest


def options_of(url):
    parts = urllib.parse.urlsplit(url)
    return {"hostname": parts.hostname, "port": parts.port}


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_publish_and_subscribe(run, mosquitto, unique, qos):
    async def main():
        async with (
            aiomqtt.Client(**options_of(mosquitto)) as listener,
            aiomqtt.Client(**options_of(mosquitto)) as sender,
        ):
            await listener.subscribe(f"{unique}/#", qos=qos)
            for number in range(100):
                await sender.publish(f"{unique}/{number % 3}", number, qos=qos)
            got = []
            async for message in listener.messages:
                got.append(int(message.payload))
                if len(got) == 100:
                    break
            assert got == list(range(100))

    run(main())


def test_large_and_retained(run, mosquitto, unique):
    async def main():
        payload = bytes(range(256)) * 4000
        async with aiomqtt.Client(**options_of(mosquitto)) as client:
            await client.publish(unique, payload, qos=1, retain=True)
            await client.subscribe(unique)
            message = await anext(client.messages)
            assert message.payload == payload
            assert message.retain
            await client.publish(unique, b"", qos=1, retain=True)

    run(main())


def test_cancellation_and_errors(run, mosquitto, unique):
    async def main():
        async with aiomqtt.Client(**options_of(mosquitto)) as client:
            await client.subscribe(unique)
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await anext(client.messages)
            await client.publish(unique, b"alive")
            assert (await anext(client.messages)).payload == b"alive"
        with pytest.raises(aiomqtt.MqttError):
            async with aiomqtt.Client("127.0.0.1", 1):
                pass

    run(main())
