"""A server and its clients in all their moods, and what grows while they are at it.

    python soak.py LOOP SEED SECONDS

Echo connections (plain, streams, TLS) whose clients send, read slowly, half-close, reset,
are cancelled and time out, beside timers, jobs, datagrams and processes. Each byte that
comes back is checked. After a warm-up of a third, descriptors, threads, blocks of memory
and the resident set must not grow. Prints the counts.
"""

import asyncio
import contextlib
import gc
import os
import pathlib
import random
import socket
import struct
import sys
import threading
import time
import warnings

from echo import Echo
from tlssupport import Certificates

CLIENTS = 24


class Counts(dict):
    def __missing__(self, name):
        return 0


counts = Counts()


def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096


async def serve(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        counts["datagrams"] += 1


async def client(draw, address, tls):
    """One connection, from its beginning to one of its ends."""
    options = {"ssl": tls, "server_hostname": "localhost"} if tls else {}
    reader, writer = await asyncio.open_connection(*address, **options)
    end = draw.choice(["close", "eof", "abort", "reset", "close"])
    try:
        for _ in range(draw.randrange(1, 6)):
            data = draw.randbytes(draw.choice([1, 100, 5000, 70_000, 300_000]))
            writer.write(data)
            if draw.random() < 0.1:
                await asyncio.sleep(0.002)  # a slow reader
            echoed = await reader.readexactly(len(data))
            if echoed != data:
                raise AssertionError("other bytes came back")
            counts["bytes"] += len(data)
        if end == "eof" and writer.can_write_eof():
            writer.write_eof()
            if await reader.read():
                raise AssertionError("bytes behind the end")
        elif end == "reset":
            sock = writer.get_extra_info("socket")
            sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
    finally:
        counts[f"ended by {end}"] += 1
        if end in ("abort", "reset"):
            writer.transport.abort()
        else:
            writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def visitor(draw, addresses, tls, until):
    while time.monotonic() < until:
        which = draw.randrange(len(addresses))
        task = asyncio.ensure_future(
            client(draw, addresses[which], tls if which == 2 else None)
        )
        fate = draw.random()
        if fate < 0.1:
            await asyncio.sleep(draw.random() * 0.005)
            task.cancel()
            await asyncio.wait([task])
            counts["cancelled"] += task.cancelled()
        elif fate < 0.2:
            try:
                async with asyncio.timeout(draw.random() * 0.005):
                    await task
            except TimeoutError:
                counts["timed out"] += 1
        else:
            await task
        counts["connections"] += 1


async def others(draw, until):
    loop = asyncio.get_running_loop()
    receiver, _ = await loop.create_datagram_endpoint(Datagrams, ("127.0.0.1", 0))
    sender, _ = await loop.create_datagram_endpoint(
        Datagrams, remote_addr=receiver.get_extra_info("sockname")
    )
    try:
        while time.monotonic() < until:
            for _ in range(20):
                sender.sendto(draw.randbytes(100))
            handles = [loop.call_later(draw.random(), counts.clear) for _ in range(200)]
            assert await asyncio.to_thread(len, "four") == 4
            counts["jobs"] += 1
            for handle in handles:
                handle.cancel()
            if draw.random() < 0.02:
                child = await asyncio.create_subprocess_exec("/bin/true")
                assert await child.wait() == 0
                counts["processes"] += 1
            await asyncio.sleep(0.001)
    finally:
        receiver.close()
        sender.close()


def descriptors():
    return len(os.listdir("/proc/self/fd"))


async def measure(before=None):
    """What there is, once the last connections have ended; they have ten seconds."""
    await asyncio.sleep(0.3)
    deadline = time.monotonic() + 10
    while before and descriptors() > before["descriptors"]:
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.01)
    for _ in range(3):
        gc.collect()
        await asyncio.sleep(0)
    return {
        "descriptors": descriptors(),
        "threads": threading.active_count(),
        "blocks": sys.getallocatedblocks(),
        "resident": resident(),
    }


async def main(seed, seconds):
    loop = asyncio.get_running_loop()
    reported = []
    loop.set_exception_handler(lambda _, context: reported.append(repr(context)))
    certificates = Certificates()
    servers = [
        await loop.create_server(Echo, "127.0.0.1", 0),
        await asyncio.start_server(serve, "127.0.0.1", 0),
        await loop.create_server(Echo, "127.0.0.1", 0, ssl=certificates.server),
    ]
    addresses = [server.sockets[0].getsockname() for server in servers]
    marks = []
    for part in range(3):
        until = time.monotonic() + seconds / 3
        await asyncio.gather(
            *(
                visitor(
                    random.Random(f"{seed} {part} {number}"),
                    addresses,
                    certificates.client,
                    until,
                )
                for number in range(CLIENTS)
            ),
            others(random.Random(f"{seed} {part}"), until),
        )
        marks.append(await measure(*marks[-1:]))
    for server in servers:
        server.close()
    print(dict(counts))
    print(*marks, sep="\n")
    # A cancelled handshake, a reset: asyncio reports what it does with them, too.
    print(len(reported), "reports, such as", reported[:1])
    _, before, after = marks
    assert after["descriptors"] <= before["descriptors"], "descriptors"
    assert after["threads"] <= before["threads"], "threads"
    assert after["blocks"] < before["blocks"] * 1.02 + 500, "blocks"
    assert after["resident"] < before["resident"] * 1.1 + 4_000_000, "resident set"


if __name__ == "__main__":
    warnings.simplefilter("error")
    loop_name, seed, seconds = sys.argv[1:]
    if loop_name == "asyncio":
        factory = asyncio.SelectorEventLoop
    else:
        import fastloop

        factory = fastloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(int(seed), float(seconds)))
    print("flat")
