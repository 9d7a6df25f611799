"""What may come over a wire, mutated at random, and what may be sent.

    python wire.py LOOP SEED SECONDS

tls        genuine flights of OpenSSL's, with bytes flipped, cut out, doubled, moved and
           made up, to servers and clients: no byte arrives that was not sent, and
           connection_made() and connection_lost() come once each, in order
streams    pieces of any length against StreamReader's methods in any order
writes     buffers of every kind through write() and writelines(), into small sockets
datagrams  of any size, from any family, one by one and in bursts

Prints how many cases there were of each.
"""

import asyncio
import gc
import os
import random
import socket
import ssl
import sys
import tempfile
import time

from soak import Counts
from tlssupport import Certificates

REFERENCE = asyncio.SelectorEventLoop.__module__
LIMIT = 20  # seconds for one case, which takes milliseconds
EXPECTED = (OSError, ssl.SSLError, asyncio.IncompleteReadError, EOFError)


class Watch(asyncio.Protocol):
    """Notes what a protocol is told, and insists on the order."""

    def __init__(self, loop):
        self.got = bytearray()
        self.state = "new"
        self.lost = loop.create_future()

    def connection_made(self, transport):
        assert self.state == "new", self.state
        self.state = "made"
        self.transport = transport

    def data_received(self, data):
        assert self.state == "made", self.state
        self.got += data

    def eof_received(self):
        assert self.state == "made", self.state
        self.state = "eof"

    def connection_lost(self, exc):
        assert self.state in ("made", "eof"), self.state
        self.state = "lost"
        self.lost.set_result(None)


def mutated(draw, data):
    """Return data, most often with something wrong in it."""
    data = bytearray(data)
    for _ in range(draw.choice((0, 1, 1, 2, 5))):
        at = draw.randrange(len(data) + 1)
        end = min(len(data), at + draw.choice((1, 2, 5, 50, 5000)))
        match draw.randrange(7):
            case 0:
                if at < len(data):
                    data[at] ^= 1 << draw.randrange(8)
            case 1:
                del data[at:end]
            case 2:
                data[at:at] = data[at:end]
            case 3:
                data[at:at] = draw.randbytes(draw.randrange(40))
            case 4:
                del data[at:]
            case 5:  # the length of a record
                if len(data) > 5:
                    data[3:5] = draw.randbytes(2)
            case 6:
                data[at:end] = draw.randbytes(end - at)
    return bytes(data)


async def turns(count):
    for _ in range(count):
        await asyncio.sleep(0)


async def tls(loop, draw, certificates):
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    server = draw.random() < 0.6
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    if server:
        options = {"ssl": certificates.server}
        peer = certificates.client.wrap_bio(
            incoming, outgoing, server_hostname="localhost"
        )
    else:
        options = {"ssl": certificates.client, "server_hostname": "localhost"}
        peer = certificates.server.wrap_bio(incoming, outgoing, server_side=True)
    protocol = Watch(loop)
    connect = loop.connect_accepted_socket if server else loop.create_connection
    making = loop.create_task(connect(lambda: protocol, sock=ours, **options))
    genuine = draw.randrange(6)  # so many flights are left as they are
    sent = bytearray()
    for _ in range(12):
        try:
            if making.done():
                data = draw.randbytes(draw.choice((1, 100, 20_000)))
                peer.write(data)
                sent += data
                if draw.random() < 0.1:
                    peer.unwrap()
            else:
                peer.do_handshake()
        except (OSError, ValueError):  # of the peer's: it has its part of the noise
            pass
        flight = outgoing.read()
        if flight and genuine <= 0:
            flight = mutated(draw, flight)
        genuine -= 1
        cut = draw.randrange(len(flight) + 1)
        try:
            for part in (flight[:cut], flight[cut:]):
                if part:
                    await loop.sock_sendall(theirs, part)
                await turns(draw.choice((0, 1, 3)))
        except OSError:
            break
        if protocol.state == "made" and draw.random() < 0.3:
            protocol.transport.write(b"answer" * draw.choice((1, 9000)))
        await turns(3)
        try:
            incoming.write(theirs.recv(1 << 18))
        except BlockingIOError:
            pass
        except OSError:
            break
    theirs.close()
    try:
        await making
    except EXPECTED:
        assert protocol.state in ("new", "lost"), protocol.state
    else:
        protocol.transport.close()
        await protocol.lost
    assert sent.startswith(protocol.got), "bytes that were not sent"


async def streams(loop, draw, certificates):
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    limit = draw.choice((16, 1000, 1 << 16))
    reader, writer = await asyncio.open_connection(sock=ours, limit=limit)
    data = bytes(draw.choice(b"\n\n\r;ab") for _ in range(draw.choice((0, 9, 5000))))

    async def send():
        at = 0
        while at < len(data):
            end = at + draw.choice((1, 7, 300, 5000))
            await loop.sock_sendall(theirs, data[at:end])
            at = end
            await turns(draw.randrange(3))
        theirs.shutdown(socket.SHUT_WR)

    sending = loop.create_task(send())
    at = 0
    while not reader.at_eof():
        left = data[at:]
        size = draw.choice((0, 1, 5, 100, 3000))
        match draw.randrange(5):
            case 0:
                got = await reader.read(size)
                assert len(got) <= size and (got or not size or not left)
            case 1:
                try:
                    got = await reader.readexactly(size)
                    assert len(got) == size
                except asyncio.IncompleteReadError as exc:
                    got = exc.partial
                    assert got == left and len(left) < size
            case 2:
                try:
                    got = await reader.readline()
                    assert got == left[: left.find(b"\n") + 1 or len(left)]
                except ValueError:  # over the limit: what that was, is dropped
                    assert len(left.partition(b"\n")[0]) >= limit
                    break
            case 3:
                separator = draw.choice((b"\r\n", b";", b"ab;"))
                try:
                    got = await reader.readuntil(separator)
                    assert got == left[: left.index(separator) + len(separator)]
                except asyncio.IncompleteReadError as exc:
                    got = exc.partial
                    assert got == left and separator not in left
                except asyncio.LimitOverrunError as exc:
                    assert left.find(separator) > limit or separator not in left
                    got = await reader.readexactly(exc.consumed)
            case 4:
                await turns(2)
                continue
        assert left.startswith(got)
        at += len(got)
    else:
        assert at == len(data)
    writer.close()
    await asyncio.gather(sending, return_exceptions=True)
    theirs.close()


def as_some_buffer(draw, data):
    match draw.randrange(4):
        case 0:
            return bytearray(data)
        case 1:
            return memoryview(data)
        case 2:
            return memoryview(b"x" + data + b"y")[1:-1]
        case _:
            return data


async def writes(loop, draw, certificates):
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    ours.setsockopt(
        socket.SOL_SOCKET, socket.SO_SNDBUF, draw.choice((1, 5000, 1 << 20))
    )
    protocol = Watch(loop)
    transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
    transport.set_write_buffer_limits(draw.choice((0, 1000, 1 << 16)))
    sent, got = bytearray(), bytearray()
    reference = type(loop).__module__ == REFERENCE
    least = 1 if reference else 0  # newer asyncio may wait for ever to send nothing

    async def receive():
        while data := await loop.sock_recv(theirs, draw.choice((1, 100, 1 << 16))):
            got.extend(data)
            await turns(draw.randrange(2))

    receiving = loop.create_task(receive())
    for _ in range(draw.randrange(12)):
        pieces = [
            draw.randbytes(draw.choice((least, 1, 4, 100, 16384, 50_000)))
            for _ in range(draw.choice((1, 1, 3, 70)))
        ]
        sent += b"".join(pieces)
        buffers = [as_some_buffer(draw, piece) for piece in pieces]
        if len(buffers) > 1:
            transport.writelines(buffers)
        else:
            transport.write(buffers[0])
        for buffer in buffers:  # has been sent, or copied: newer asyncio keeps a view
            if isinstance(buffer, bytearray) and not reference:
                buffer[:] = bytes(len(buffer))
        await turns(draw.randrange(3))
    if draw.random() < 0.5 and transport.can_write_eof():
        transport.write_eof()
    else:
        transport.close()
    await receiving
    assert got == sent, "what was written is not what came"
    transport.close()
    theirs.close()
    await protocol.lost


class Inbox(asyncio.DatagramProtocol):
    def __init__(self):
        self.got = []
        self.errors = 0

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.got.append((bytes(data), addr))

    def error_received(self, exc):
        self.errors += 1


async def datagrams(loop, draw, certificates):
    family = draw.choice((socket.AF_INET, socket.AF_INET6, socket.AF_UNIX))
    with tempfile.TemporaryDirectory() as folder:
        if family == socket.AF_UNIX:
            address = os.path.join(folder, "socket")
        else:
            address = ("127.0.0.1" if family == socket.AF_INET else "::1", 0)
        transport, inbox = await loop.create_datagram_endpoint(
            Inbox, local_addr=address, family=family
        )
        target = transport.get_extra_info("sockname")
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            if family != socket.AF_UNIX:
                sender.bind(address)
            sender.setblocking(False)
            name = sender.getsockname() or None
            for _ in range(draw.randrange(1, 5)):
                inbox.got.clear()
                size = draw.choice((0, 1, 500, 1400, 9000, 60_000))
                burst = [
                    draw.randbytes(draw.choice((size, size, size // 2)))
                    for _ in range(1 if size > 9000 else draw.randrange(1, 8))
                ]
                for data in burst:
                    await loop.sock_sendto(sender, data, target)
                while len(inbox.got) < len(burst):
                    await asyncio.sleep(0)
                assert [data for data, _ in inbox.got] == burst
                assert all((addr or None) == name for _, addr in inbox.got)
                burst = [data or b"x" for data in burst]  # older asyncio sends no b""
                if name is not None:
                    for data in burst:
                        transport.sendto(as_some_buffer(draw, data), name)
                    back = [await loop.sock_recv(sender, 65536) for _ in burst]
                    assert back == burst
        transport.close()
        await turns(2)
        assert inbox.errors == 0


def main():
    name, seed, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    if name == "asyncio":
        loop = asyncio.SelectorEventLoop()
    else:
        import fastloop

        loop = fastloop.new_event_loop()
    complaints = []
    loop.set_exception_handler(lambda loop, context: complaints.append(context))
    certificates = Certificates()
    counts = Counts()
    until = time.monotonic() + seconds
    number = 0
    while time.monotonic() < until:
        case = (tls, streams, writes, datagrams)[number % 4]
        draw = random.Random(f"{seed}.{number}")
        try:
            loop.run_until_complete(
                asyncio.wait_for(case(loop, draw, certificates), LIMIT)
            )
        except BaseException:
            print(f"case {number} of seed {seed}: {case.__name__}")
            raise
        loop.run_until_complete(turns(3))
        for context in complaints:
            exc = context.get("exception")
            assert isinstance(exc, EXPECTED), (number, context)
        complaints.clear()
        counts[case.__name__] += 1
        number += 1
        if number % 200 == 0:
            gc.collect()
    loop.close()
    print(dict(counts))
    print("whole")


main()
