"""A chat server on asyncio's streams, and a crowd of clients that talk in rooms.

A client joins a room of 20 and sends its messages; the server passes each one to the
whole room; every client counts what it hears until all of its room's messages came.
"""

import asyncio
import zlib

from .checks import check

ROOM = 20
MESSAGES = 10


class Server:
    """Rooms and the writers of those who are in them."""

    def __init__(self):
        self.rooms = {}

    async def serve(self, reader, writer):
        name = await reader.readline()
        room = self.rooms.setdefault(name, set())
        room.add(writer)
        writer.write(b"welcome to " + name)
        try:
            while line := await reader.readline():
                for member in room:
                    member.write(line)
                for member in list(room):
                    await member.drain()
        finally:
            room.discard(writer)
            writer.close()


async def listen(reader, count):
    """Return how many messages came and a checksum that does not depend on order."""
    heard = checksum = 0
    while heard < count:
        line = await reader.readline()
        if not line:
            break
        heard += 1
        checksum += zlib.crc32(line)
    return heard, checksum


def prepare(clients):
    members = [min(ROOM, clients - start) for start in range(0, clients, ROOM)]
    lines = [
        [
            f"client {n} says number {k}: {'hello ' * 8}\n".encode()
            for k in range(MESSAGES)
        ]
        for n in range(clients)
    ]
    expected_checksum = sum(
        zlib.crc32(line) * members[n // ROOM]
        for n, said in enumerate(lines)
        for line in said
    )
    expected_heard = sum(size * size * MESSAGES for size in members)

    async def run(progress):
        server = await asyncio.start_server(
            Server().serve, "127.0.0.1", 0, backlog=clients
        )
        port = server.sockets[0].getsockname()[1]
        door = asyncio.Semaphore(100)
        everyone_is_here = asyncio.Barrier(clients)

        async def client(number):
            room, size = number // ROOM, members[number // ROOM]
            async with door:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"room %d\n" % room)
                await reader.readline()  # the welcome: the server knows us now
            await everyone_is_here.wait()
            listener = asyncio.create_task(listen(reader, size * MESSAGES))
            for line in lines[number]:
                writer.write(line)
                await writer.drain()
                await asyncio.sleep(0)
            result = await listener
            progress()
            writer.close()
            await writer.wait_closed()
            return result

        async with server:
            results = await asyncio.gather(*map(client, range(clients)))
        facts = {
            "clients": len(results),
            "heard": sum(heard for heard, _ in results),
            "checksum": sum(checksum for _, checksum in results),
        }
        check(facts, heard=expected_heard, checksum=expected_checksum)
        return facts

    return run
