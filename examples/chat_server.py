"""A chat server on asyncio's streams; a member that does not read holds up nobody.

python examples/chat_server.py serve [PORT]   # then: nc 127.0.0.1 PORT
python examples/chat_server.py                # serves three members of its own
"""

import asyncio
import sys

import fastloop

PATIENCE = 256 * 1024
"""Bytes that may wait for a member before it is shown the door."""


class Chat:
    def __init__(self):
        self.members = {}

    def say(self, text):
        line = f"{text}\n".encode()
        for name, writer in list(self.members.items()):
            writer.write(line)
            if writer.transport.get_write_buffer_size() > PATIENCE:
                del self.members[name]
                writer.transport.abort()

    async def member(self, reader, writer):
        name = None
        try:
            writer.write(b"your name?\n")
            name = (await reader.readline()).decode(errors="replace").strip()
            if not name or name in self.members:
                return
            self.members[name] = writer
            self.say(f"* {name} came")
            while line := await reader.readline():
                self.say(f"{name}: {line.decode(errors='replace').strip()}")
        except (ConnectionError, ValueError):  # gone, or a line without end
            pass
        finally:
            if self.members.get(name) is writer:
                del self.members[name]
                self.say(f"* {name} left")
            writer.close()


async def talk(host, port, name, heard):
    reader, writer = await asyncio.open_connection(host, port)
    await reader.readline()
    writer.write(f"{name}\n".encode())
    while True:  # until all are there
        line = (await reader.readline()).decode().strip()
        heard.append(line)
        if len([line for line in heard if "came" in line]) == 1 and name == "carol":
            writer.write(b"hello, all\n")
        if line == "carol: hello, all":
            break
    writer.close()
    await writer.wait_closed()


async def main():
    serving = "serve" in sys.argv
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 8888 if serving else 0
    server = await asyncio.start_server(Chat().member, "127.0.0.1", port)
    async with server:
        address = server.sockets[0].getsockname()
        if serving:
            print("serving on", *address)
            await server.serve_forever()
        heard = {name: [] for name in ("alice", "bob", "carol")}
        tasks = []
        for name, lines in heard.items():
            tasks.append(asyncio.create_task(talk(*address, name, lines)))
            while not lines:
                await asyncio.sleep(0.001)
        await asyncio.gather(*tasks)
        print(*heard["alice"], sep="\n")


if __name__ == "__main__":
    fastloop.run(main())
