"""A great many of one thing, and what is left of it.

    python load.py LOOP MODE NUMBER SECONDS

    short      NUMBER connections of a few bytes each, 100 at a time
    held       NUMBER connections at once, for SECONDS: echoes, resets, half-closes, slow
               readers, floods; each that ends is made anew
    processes  NUMBER processes, 8 at a time
    loops      NUMBER loops, each with a server, a connection, a timer and a job
    callbacks  NUMBER callbacks, NUMBER timers, half of them cancelled

Each byte that comes back is checked. After a tenth of it, descriptors, threads, blocks
of memory and the resident set must not grow. Prints the counts.
"""

import asyncio
import gc
import os
import random
import socket
import struct
import sys
import time

from echo import Echo
from soak import Counts, measure

counts = Counts()
RESET = struct.pack("ii", 1, 0)


def check(before, after, blocks=500):
    print(dict(counts))
    print(before, after, sep="\n")
    assert after["descriptors"] <= before["descriptors"], "descriptors"
    assert after["threads"] <= before["threads"], "threads"
    assert after["blocks"] < before["blocks"] * 1.02 + blocks, "blocks"
    assert after["resident"] < before["resident"] * 1.1 + 8_000_000, "resident set"


async def marked(number, work, wide):
    """Have wide tasks do work(how many) each; return what there is after a tenth of it,
    and after all."""

    async def part(number):
        shares = [number // wide + (i < number % wide) for i in range(wide)]
        async with asyncio.TaskGroup() as group:
            for share in shares:
                group.create_task(work(share))

    await part(number // 10)
    before = await measure()
    await part(number - number // 10)
    return before, await measure()


def end_at_once(transport):
    """A reset: no port is kept waiting for packets that are late."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    transport.abort()


async def short(number, _):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=1000)
    address = server.sockets[0].getsockname()

    async def work(share):
        for _ in range(share):
            reader, writer = await asyncio.open_connection(*address)
            counts["connections"] += 1
            data = b"%d" % counts["connections"]
            writer.write(data)
            assert await reader.readexactly(len(data)) == data
            counts["bytes"] += len(data)
            end_at_once(writer.transport)

    check(*await marked(number, work, min(100, number)))
    server.close()


async def processes(number, _):
    async def work(share):
        for _ in range(share):
            data = b"%d" % counts["processes"]
            child = await asyncio.create_subprocess_exec(
                "/bin/cat",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            assert await child.communicate(data) == (data, None)
            assert child.returncode == 0
            counts["processes"] += 1

    check(*await marked(number, work, 8))


async def callbacks(number, _):
    loop = asyncio.get_running_loop()
    size = 10_000

    async def work(share):
        for start in range(0, share, size):
            count = min(size, share - start)
            left = [count + (count + 1) // 2]
            done = loop.create_future()

            def called(left=left, done=done):
                left[0] -= 1
                if not left[0]:
                    done.set_result(None)

            timers = [loop.call_later(0.001 * (i % 7), called) for i in range(count)]
            for timer in timers[1::2]:
                timer.cancel()
            for _ in range(count):
                loop.call_soon(called)
            await done
            counts["callbacks"] += count
            counts["timers"] += count

    check(*await marked(number, work, 1))


def loops(factory, number):
    async def visit():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        assert await asyncio.to_thread(len, "four") == 4
        loop.call_later(100, print)
        end_at_once(writer.transport)
        server.close()
        await asyncio.sleep(0.001)

    marks = []
    for part in number // 10, number - number // 10:
        for _ in range(part):
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(visit())
            counts["loops"] += 1
        with asyncio.Runner(loop_factory=factory) as runner:
            marks.append(runner.run(measure()))
    check(*marks)


class Client(asyncio.Protocol):
    """Sends, and looks at each byte that comes back."""

    def __init__(self, crowd):
        self.crowd = crowd
        self.waits = bytearray()
        self.ended = False

    def connection_made(self, transport):
        self.transport = transport
        self.crowd.add(self)

    def send(self, data):
        self.waits += data
        self.transport.write(data)

    def data_received(self, data):
        assert self.waits.startswith(data), "other bytes came back"
        del self.waits[: len(data)]
        counts["bytes"] += len(data)
        if not self.waits and self.ended:
            self.transport.close()

    def connection_lost(self, exc):
        self.crowd.discard(self)
        counts["ended"] += 1


async def crowd_of(address, number, seconds):
    """The clients, in a process of their own: both ends would be too many descriptors."""
    loop = asyncio.get_running_loop()
    draw = random.Random(number)
    crowd = set()

    async def fill():
        while len(crowd) < number:
            wanted = min(100, number - len(crowd))
            await asyncio.gather(
                *(
                    loop.create_connection(lambda: Client(crowd), *address)
                    for _ in range(wanted)
                )
            )
            counts["connections"] += wanted

    await fill()
    print("full", flush=True)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for client in draw.sample(sorted(crowd, key=id), number // 20):
            mood = draw.random()
            if client.ended or client.transport.is_closing():
                continue
            if mood < 0.03:
                end_at_once(client.transport)
                counts["resets"] += 1
            elif mood < 0.06:
                client.send(b"the end")
                client.ended = True
                client.transport.write_eof()
                counts["half-closes"] += 1
            elif mood < 0.1:
                client.transport.pause_reading()
                loop.call_later(draw.random() * 2, client.transport.resume_reading)
                client.send(draw.randbytes(20_000))
                counts["slow readers"] += 1
            elif mood < 0.11:
                client.send(draw.randbytes(300_000))
                counts["floods"] += 1
            else:
                client.send(draw.randbytes(draw.randrange(1, 2000)))
            counts["messages"] += 1
        await asyncio.sleep(0.01)
        await fill()
    deadline = time.monotonic() + 60
    while any(client.waits for client in crowd):
        assert time.monotonic() < deadline, "bytes did not come back"
        await asyncio.sleep(0.05)
    print("held", len(crowd), dict(counts), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for client in list(crowd):
        end_at_once(client.transport)
    await asyncio.sleep(0.1)


async def held(number, seconds):
    loop = asyncio.get_running_loop()
    start = await measure()
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=1000)
    clients = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        sys.argv[1],
        f"crowd:{server.sockets[0].getsockname()[1]}",
        str(number),
        str(seconds),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert await clients.stdout.readline() == b"full\n"
    await asyncio.sleep(seconds / 5)
    before = await measure()
    told = (await clients.stdout.readline()).decode()
    after = await measure()
    clients.stdin.write(b"go\n")
    assert await clients.wait() == 0
    print(told, end="")
    await asyncio.sleep(0.2)
    server.close()
    end = await measure()
    print("all of them gone:", end)
    assert end["descriptors"] <= start["descriptors"] + 1, "descriptors"
    # Echoes that wait for a slow reader are memory, and as many come and go.
    before["descriptors"] += number // 20
    check(before, after, blocks=20 * number)


def main():
    loop_name, mode, number, seconds = sys.argv[1:]
    if loop_name == "asyncio":
        factory = asyncio.SelectorEventLoop
    else:
        import fastloop

        factory = fastloop.new_event_loop
    if mode == "loops":
        loops(factory, int(number))
    else:
        mode, _, port = mode.partition(":")
        if mode == "crowd":
            work = crowd_of(("127.0.0.1", int(port)), int(number), float(seconds))
        else:
            work = MODES[mode](int(number), float(seconds))
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(work)
    gc.collect()
    if mode != "crowd":
        print("flat")


MODES = {
    "short": short,
    "held": held,
    "processes": processes,
    "callbacks": callbacks,
}

if __name__ == "__main__":
    assert os.name == "posix"
    main()
