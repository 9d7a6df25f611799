"""A loop of one's own by subclass: here one that counts tasks and names the slow ones.

python examples/custom_loop.py
"""

import asyncio
import collections

import fastloop


class CountingLoop(fastloop.Loop):
    """Knows how many tasks each coroutine function was made into."""

    def __init__(self):
        super().__init__()
        self.made = collections.Counter()

    def create_task(self, coro, **kwargs):
        self.made[coro.__qualname__] += 1
        return super().create_task(coro, **kwargs)

    async def getaddrinfo(self, host, port, **kwargs):
        if host == "my-service":  # names of our own, for every connection
            host = "127.0.0.1"
        return await super().getaddrinfo(host, port, **kwargs)


async def child(number):
    await asyncio.sleep(0)
    return number


async def main():
    async with asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(child(number))
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("my-service", port)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    return asyncio.get_running_loop().made


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        print(runner.run(main())["child"], "children")
