"""websockets: its client against its server, with pings, limits and hard ends."""

import asyncio
import contextlib
from itertools import repeat

import pytest
import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import broadcast, serve
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK

from .ownservers import keep_port


def port_of(server):
    return next(iter(server.sockets)).getsockname()[1]


async def echo(connection):
    with contextlib.suppress(ConnectionClosedError):
        async for message in connection:
            await connection.send(message)


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
def test_echo(run, tls, secure):
    async def one(url, options, number):
        async with connect(url, **options) as client:
            for message in ("text", b"bytes", "x" * 200_000, str(number), ""):
                await client.send(message)
                assert await client.recv() == message
            await client.send([b"in ", b"three ", b"parts"])
            assert await client.recv() == b"in three parts"
            await (await client.ping())

    async def main():
        served = {"ssl": tls.server} if secure else {}
        options = {"ssl": tls.client} if secure else {}
        async with serve(echo, "127.0.0.1", 0, **served) as server:
            url = f"ws{'s' * secure}://localhost:{port_of(server)}/"
            await asyncio.gather(*(one(url, options, n) for n in range(20)))

    run(main())


def test_broadcast(run):
    async def main():
        clients = set()

        async def join(connection):
            clients.add(connection)
            await connection.wait_closed()
            clients.discard(connection)

        async with serve(join, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{port_of(server)}/"
            listeners = [await connect(url) for _ in range(30)]
            while len(clients) < 30:
                await asyncio.sleep(0.001)
            for number in range(50):
                broadcast(clients, str(number))
            for listener in listeners:
                got = [await listener.recv() for _ in range(50)]
                assert got == [str(n) for n in range(50)]
                await listener.close()
            while clients:
                await asyncio.sleep(0.001)

    run(main())


def test_back_pressure(run):
    """A reader that rests stops the writer; nothing is lost."""

    async def main():
        sent = 0

        async def flood(connection):
            nonlocal sent
            for number in range(2000):
                await connection.send(number.to_bytes(4) * 10_000)
                sent += 1

        async with serve(flood, "127.0.0.1", 0, compression=None) as server:
            url = f"ws://127.0.0.1:{port_of(server)}/"
            async with connect(url, compression=None, max_queue=4) as client:
                await client.recv()
                while True:
                    before = sent
                    await asyncio.sleep(0.1)
                    if sent == before:
                        break
                assert sent < 2000
                for number in range(1, 2000):
                    assert (await client.recv())[:4] == number.to_bytes(4)
                with pytest.raises(ConnectionClosedOK):
                    await client.recv()

    run(main())


def test_ends(run):
    async def main():
        async with serve(echo, "127.0.0.1", 0, ping_interval=None) as server:
            url = f"ws://127.0.0.1:{port_of(server)}/"
            # The peer vanishes.
            client = await connect(url)
            (peer,) = server.connections
            peer.transport.abort()
            with pytest.raises(ConnectionClosedError):
                await client.recv()
            # A message that is too long.
            async with connect(url, max_size=1000) as client:
                await client.send("x" * 2000)
                with pytest.raises(ConnectionClosedError) as caught:
                    await client.recv()
                assert caught.value.sent.code == 1009
            # A receiver that is cancelled loses nothing.
            async with connect(url) as client:
                for _ in range(3):
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.01):
                            await client.recv()
                await client.send("still there")
                assert await client.recv() == "still there"
            # The server goes, and its clients are told.
            client = await connect(url)
        with pytest.raises(ConnectionClosedOK):
            await client.recv()
        assert client.close_code == 1001

    run(main())


def test_keepalive(run):
    async def main():
        async def mute(reader, writer):
            """Shakes hands and says nothing more."""
            request = await reader.readuntil(b"\r\n\r\n")
            (line,) = (x for x in request.split(b"\r\n") if b"Sec-WebSocket-Key" in x)
            key = line.split()[1].decode()
            accept = websockets.utils.accept_key(key)
            writer.write(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode()
            )
            with contextlib.suppress(OSError):
                await reader.read()
            writer.close()

        server = await asyncio.start_server(mute, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            async with connect(
                f"ws://127.0.0.1:{port}/",
                ping_interval=0.05,
                ping_timeout=0.05,
                close_timeout=0.05,
            ) as client:
                with pytest.raises(ConnectionClosedError, match="keepalive"):
                    await client.recv()

    run(main())


def test_clients_come_back(run):
    """The endless ``async for`` of the client, and a server that starts again."""

    async def main(port):
        got = asyncio.Queue()

        async def follow():
            async for client in connect(
                f"ws://127.0.0.1:{port}/", reconnect_delays=lambda: repeat(0.01)
            ):
                with contextlib.suppress(websockets.ConnectionClosed):
                    async for message in client:
                        got.put_nowait(message)

        async def greet(connection):
            await connection.send(word)
            await connection.wait_closed()

        followers = []
        for word in ("first", "second", "third"):
            async with serve(greet, "127.0.0.1", port):
                if not followers:
                    followers = [asyncio.create_task(follow()) for _ in range(10)]
                assert [await got.get() for _ in followers] == [word] * 10
        for task in followers:
            task.cancel()
        done = await asyncio.gather(*followers, return_exceptions=True)
        assert {type(result) for result in done} == {asyncio.CancelledError}

    with keep_port() as kept:
        run(main(kept.getsockname()[1]))
