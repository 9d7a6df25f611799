"""Denial of service: what each attack costs a server, and whether it still serves others.

    python denial.py LOOP MODE NUMBER SECONDS

    slowloris   NUMBER connections, plain and TLS, that never bring a whole request or
                handshake, for SECONDS
    deaf        NUMBER peers that never read what the server writes under flow control
    handshakes  NUMBER handshakes begun and dropped, or garbage in their place
    udp         NUMBER datagrams at once; and a socket that takes no more
    timers      NUMBER pending timers: half are cancelled, a tenth comes due
    small       NUMBER writes of a byte, to one that reads and to 20 that do not
    flood       NUMBER peers that send at full speed: to one that takes it, one that
                pauses, one that echoes
    accept      NUMBER connections that come and go; then no descriptors for SECONDS

The server is alone in its process with its loop. Those who attack and the client that
behaves are in processes of their own, on blocking sockets. The client makes round trips
all the time and looks at each byte. Each attack is made twice: the second must not leave
more than the first. Prints one JSON object, and "bounded" at the end.
"""

import asyncio
import collections
import contextlib
import ctypes
import functools
import gc
import itertools
import json
import os
import pathlib
import random
import resource
import select
import socket
import ssl
import statistics
import struct
import sys
import threading
import time

from echo import Echo

KIB = 1024
MIB = 1024 * KIB
PACE = 0.001  # between two round trips: the client is no load
PATIENCE = 60  # seconds for what has to happen
RESET = struct.pack("ii", 1, 0)
CHUNK = b"0123456789abcdef" * 1024

# What a connection may cost the server beside what flow control lets wait, ours and
# OpenSSL's together. A TLS connection of asyncio has a read buffer of 256 KiB.
PLAIN = 32 * KIB
TLS = {"asyncio": 448 * KIB, "fastloop": 96 * KIB}
WATER = 64 * KIB
TLS_WATER = 512 * KIB  # asyncio.constants.FLOW_CONTROL_HIGH_WATER_SSL_WRITE
ROOM = 24 * MIB  # of one process, whatever the number: pools, the allocator's arenas


# -- the client that behaves, and those who attack: blocking sockets, no loop ------------


def say(**words):
    print(json.dumps(words), flush=True)


def hear():
    return json.loads(sys.stdin.readline() or "null")


def unverified():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def connect(port, size=None):
    sock = socket.socket()
    if size is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    sock.settimeout(PATIENCE)
    sock.connect(("127.0.0.1", port))
    return sock


def connect_tls(port, context):
    return context.wrap_socket(connect(port))


def drop(sock):
    """A reset: no port is kept waiting for packets that are late."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def receive(sock, size):
    data = bytearray()
    while len(data) < size:
        part = sock.recv(size - len(data))
        assert part, f"the end after {len(data)} of {size} bytes"
        data += part
    return bytes(data)


def trip(sock, data):
    start = time.perf_counter()
    sock.sendall(data)
    assert receive(sock, len(data)) == data, "other bytes came back"
    return time.perf_counter() - start


def behave(port, tls):
    """Round trips until the input ends; each line asks for those since the last."""
    draw = random.Random(port)
    sock = connect_tls(port, unverified()) if tls else connect(port)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    trip(sock, b"here")
    say(ready=True)
    times = []
    while True:
        times.append(trip(sock, draw.randbytes(draw.randrange(1, 2000))))
        if select.select([sys.stdin], [], [], PACE)[0]:
            if not hear():
                return
            say(trips=len(times), median=statistics.median(times), longest=max(times))
            times.clear()


def client_hello(context):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def attack_slowloris(number, seconds, plain, tls):
    context = unverified()
    hello = client_hello(context)
    draw = random.Random(number)
    silent, talkers, greeters = [], [], []
    for i in range(number):
        match i % 6:
            case 0:
                silent.append(connect(plain))
            case 1 | 2:
                talkers.append(connect(plain))
            case 3:
                silent.append(connect(tls))
            case 4:
                greeters.append(connect(tls))
            case 5:
                talkers.append(connect_tls(tls, context))
    until = time.monotonic() + seconds
    at = 0
    while time.monotonic() < until:
        for sock in draw.sample(talkers, len(talkers) // 10):
            sock.send(b"x")
        if at < len(hello) - 1:  # the handshake never gets to its first answer
            for sock in greeters:
                with contextlib.suppress(ConnectionError):  # timed out by the server
                    sock.send(hello[at : at + 1])
            at += 1
        time.sleep(0.05)
    say(done=True)
    hear()
    # Handshakes that did not come to their end in time were ended by the server.
    late = [sock for i, sock in enumerate(silent) if i % 2] + greeters
    for sock in late:
        with contextlib.suppress(ConnectionError):
            assert sock.recv(100) == b"", "an answer to half a handshake"
    say(ended=len(late))
    hear()
    for sock in [*silent, *talkers, *greeters]:
        drop(sock)


def attack_deaf(number, _, plain, protocol, tls):
    context = unverified()
    socks = []
    for i in range(number):
        if i % 4 == 3:
            socks.append(connect_tls(tls, context))
        else:
            socks.append(connect(protocol if i % 2 else plain, 4096))
    say(done=True)
    hear()
    for sock in socks:
        drop(sock)


def attack_handshakes(number, _, port):
    context = unverified()
    hello = client_hello(context)
    draw = random.Random(number)
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def one(i):
        sock = connect(port)
        with contextlib.suppress(ConnectionError):
            match i % 6:
                case 1:
                    sock.send(hello)
                case 2:
                    sock.send(hello)
                    assert sock.recv(1)
                case 3:
                    # Not what may be the beginning of a long record.
                    sock.send(bytes(5) + draw.randbytes(2000))
                    sock.recv(100)
                case 4:
                    sock.send(request)
                    sock.recv(100)
                case 5:
                    sock.send(hello[: len(hello) // 2] + draw.randbytes(3000))
                    sock.recv(100)
        drop(sock)

    in_threads(one, number)
    say(done=True)
    hear()


def in_threads(call, number, wide=8):
    failed = []

    def work(first):
        try:
            for i in range(first, number, wide):
                call(i)
        except BaseException as exc:
            failed.append(exc)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(wide)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def attack_udp(number, _, port):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(("127.0.0.1", port))
    for i in range(number):
        sock.send(b"%d " % i + CHUNK[: i % 1000])
    say(done=True)
    hear()
    sock.close()


def attack_small(number, _, port, tls):
    context = unverified()
    reader = connect(port)
    reader.send(b"go")
    data = receive(reader, number)
    assert data == ones(number), "other bytes came"
    deaf = [connect(port, 4096) for _ in range(15)]
    deaf += [connect_tls(tls, context) for _ in range(5)]
    for sock in deaf:
        sock.send(b"deaf")
    say(done=True)
    hear()
    for sock in deaf:
        assert receive(sock, number) == data, "other bytes came late"
    for sock in [reader, *deaf]:
        drop(sock)


@functools.cache
def ones(number):
    """What is written, a byte at a time."""
    return (bytes(range(256)) * (number // 256 + 1))[:number]


def attack_flood(number, seconds, *ports):
    sent = [0] * len(ports)
    socks = [[connect(port) for _ in range(number)] for port in ports]

    def pour(which, sock):
        sock.settimeout(0.2)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(TimeoutError):
                sent[which] += sock.send(CHUNK)

    threads = [
        threading.Thread(target=pour, args=(which, sock))
        for which, group in enumerate(socks)
        for sock in group
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say(done=True, sent=sent)
    hear()
    for group in socks:
        for sock in group:
            drop(sock)


def attack_accept(number, _, port, spare):
    def one(i):
        sock = connect(port)
        if i % 3 == 1:
            sock.send(b"x")
        if i % 3 == 2:
            sock.close()
        else:
            drop(sock)

    in_threads(one, number)
    say(done=True)
    if not hear():
        return
    # More than the server has descriptors for; those behind wait in its backlog.
    socks = [connect(port) for _ in range(spare * 2)]
    say(done=True)
    hear()
    for i, sock in enumerate(socks):
        trip(sock, b"%d, late" % i)
    say(done=True)
    hear()
    for sock in socks:
        drop(sock)


# -- the server --------------------------------------------------------------------------


def status(name):
    text = pathlib.Path("/proc/self/status").read_text()
    return int(text.partition(name + ":")[2].split(maxsplit=1)[0]) * KIB


def descriptors():
    return len(os.listdir("/proc/self/fd"))


async def measure():
    for _ in range(3):
        gc.collect()
        await asyncio.sleep(0)
    resident = status("VmRSS")
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return {
        "resident": resident,
        "held": status("VmRSS"),  # without what the C library keeps for the next time
        "blocks": sys.getallocatedblocks(),
        "descriptors": descriptors(),
    }


def server_context():
    from authority import new_authority  # its imports are memory that others spare

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    new_authority().issue_cert("localhost").configure_cert(context)
    return context


async def until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


class Child:
    """A process of ours that attacks or behaves; it is told and answers in lines."""

    def __init__(self, process):
        self.process = process

    @classmethod
    async def start(cls, *words):
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                __file__,
                *map(str, words),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        )

    async def answer(self):
        line = await self.process.stdout.readline()
        assert line, "a process of ours failed"
        return json.loads(line)

    def tell(self):
        self.process.stdin.write(b"1\n")

    async def ask(self):
        self.tell()
        return await self.answer()

    async def end(self):
        self.process.stdin.close()
        assert await self.process.wait() == 0


def count_sends(loop_name):
    """Return a function that tells how often the system was called to send by TCP."""
    if loop_name == "fastloop":
        return lambda: asyncio.get_running_loop().metrics().traffic["tcp"].writes
    calls = [0]

    def counting(method):
        def call(sock, *args):
            calls[0] += 1
            return method(sock, *args)

        return call

    for name in "send", "sendmsg":
        setattr(socket.socket, name, counting(getattr(socket.socket, name)))
    return lambda: calls[0]


class Stage:
    """The server in one attack, its bounds and figures."""

    def __init__(self, loop_name, mode, number, seconds):
        self.loop = asyncio.get_running_loop()
        self.loop_name = loop_name
        self.mode = mode
        self.number = number
        self.seconds = seconds
        self.servers = []
        self.figures = {}
        self.reports = collections.Counter()
        self.failures = []
        self.context = None
        self.loop.set_exception_handler(self.note)

    def note(self, loop, context):
        self.reports[context["message"]] += 1
        if isinstance(context.get("exception"), AssertionError):
            self.failures.append(context)

    async def serve(self, factory, *, tls=False, **options):
        """Listen; return the port."""
        if tls:
            self.context = self.context or server_context()
            options["ssl"] = self.context
        options.setdefault("backlog", 1000)
        server = await self.loop.create_server(factory, "127.0.0.1", 0, **options)
        self.servers.append(server)
        return server.sockets[0].getsockname()[1]

    def streams(self, handler):
        """A protocol's factory for asyncio's streams; handlers may lose their peer."""

        async def handle(reader, writer):
            try:
                await handler(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        return lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader(), handle)

    async def settle(self):
        """Until the server has heard of the end of all connections but the good one."""
        await until(
            lambda: descriptors() <= self.start["descriptors"], "descriptors are left"
        )

    async def attack(self, *words):
        return await Child.start(
            "-", f"attack:{self.mode}", self.number, self.seconds, *words
        )


async def slowloris(stage):
    async def lines(reader, writer):
        while line := await reader.readuntil():
            writer.write(line)
            await writer.drain()

    factory = stage.streams(lines)
    port = await stage.serve(factory)
    tls = await stage.serve(factory, tls=True, ssl_handshake_timeout=stage.seconds)

    async def act():
        child = await stage.attack(port, tls)
        await child.answer()
        stage.figures["ended"] = (await child.ask())["ended"]
        await child.end()

    bound = stage.number * (PLAIN + TLS[stage.loop_name]) // 2
    return act, bound


class Writer(asyncio.Protocol):
    """Writes while it may."""

    def connection_made(self, transport):
        self.transport = transport
        transport.set_write_buffer_limits(high=WATER)
        self.may = True
        while self.may and not transport.is_closing():
            transport.write(bytes(bytearray(CHUNK)))  # bytes of its own

    def pause_writing(self):
        self.may = False

    def resume_writing(self):
        self.connection_made(self.transport)


async def deaf(stage):
    waiting = {}

    async def pour(reader, writer):
        tls = writer.get_extra_info("sslcontext") is not None
        water = TLS_WATER if tls else WATER
        try:
            while True:
                writer.write(bytes(bytearray(CHUNK)))
                # How far above its high water each is.
                size = writer.transport.get_write_buffer_size()
                waiting[writer] = size - water
                await writer.drain()
        finally:
            del waiting[writer]

    factory = stage.streams(pour)
    ports = [
        await stage.serve(factory),
        await stage.serve(Writer),
        await stage.serve(factory, tls=True),
    ]
    streams = sum(i % 4 != 1 for i in range(stage.number))

    async def act():
        child = await stage.attack(*ports)
        await child.answer()
        await until(
            lambda: sum(size >= 0 for size in waiting.values()) == streams,
            "not all of them wait",
        )
        assert max(waiting.values()) <= len(CHUNK), "far above the high water"
        await child.end()
        await until(lambda: not waiting, "still waiting")

    plain, tls = stage.number * 3 // 4, stage.number // 4 + 1
    bound = plain * (WATER + 2 * len(CHUNK) + PLAIN)
    bound += tls * (TLS_WATER + WATER + 2 * len(CHUNK) + TLS[stage.loop_name])
    return act, bound


async def handshakes(stage):
    made = []

    class Never(asyncio.Protocol):
        def connection_made(self, transport):
            made.append(transport)

    port = await stage.serve(Never, tls=True, backlog=100)

    async def act():
        child = await stage.attack(port)
        await child.answer()
        await child.end()
        assert not made, "a connection without a handshake"

    # A backlog of them is accepted at once, and as many come until they are told of.
    return act, 200 * TLS[stage.loop_name]


async def udp(stage):
    class Sink(asyncio.DatagramProtocol):
        last = -1
        count = 0

        def datagram_received(self, data, addr):
            head, _, tail = data.partition(b" ")
            number = int(head)
            assert number > self.last, "out of order, or twice"
            assert tail == CHUNK[: number % 1000], "other bytes"
            self.last = number
            self.count += 1

    class Source(asyncio.DatagramProtocol):
        may = True
        errors = 0

        def pause_writing(self):
            self.may = False

        def resume_writing(self):
            self.may = True

        def error_received(self, exc):
            self.errors += 1

    async def burst():
        transport, sink = await stage.loop.create_datagram_endpoint(
            Sink, ("127.0.0.1", 0)
        )
        child = await stage.attack(transport.get_extra_info("sockname")[1])
        await child.answer()
        assert sink.count > 0
        stage.figures["datagrams received"] = sink.count
        await child.end()
        transport.close()

    async def full():
        # Not UDP: the loopback interface drops what finds no room.
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        theirs = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with theirs:
            theirs.bind("")
            ours.connect(theirs.getsockname())
            transport, source = await stage.loop.create_datagram_endpoint(
                Source, sock=ours
            )
            sent = 0
            while source.may:
                transport.sendto(b"%d" % sent + CHUNK[: sent % 1000])
                sent += 1
                await asyncio.sleep(0)
            waits = transport.get_write_buffer_size()
            stage.figures["waiting, at most"] = waits
            assert WATER < waits <= WATER + 2048, "not at the high water"

            def fetch():
                theirs.settimeout(PATIENCE)
                for i in range(sent):
                    assert theirs.recv(2000) == b"%d" % i + CHUNK[: i % 1000]

            await asyncio.to_thread(fetch)
            assert transport.get_write_buffer_size() == 0
            assert source.may
            assert source.errors == 0
            transport.close()

    async def act():
        await burst()
        await full()

    # What waits is the kernel's, which drops what it has no room for.
    return act, 0


async def timers(stage):
    loop, number = stage.loop, stage.number
    fired = []

    async def act():
        del fired[:]
        start = status("VmRSS")
        handles = []
        due = 0
        for i in range(number):
            if i % 10 == 1:
                due += 1
                handles.append(loop.call_later(0.2 + i / number, fired.append, None))
            else:
                handles.append(loop.call_later(3600 + i % 977, fired.append, None))
            if i % 1000 == 0:
                await asyncio.sleep(0)
        each = (status("VmRSS") - start) // number
        stage.figures.setdefault("bytes a timer", each)
        for i in range(0, number, 2):
            handles[i].cancel()
            handles[i] = None
            if i % 1000 == 0:
                await asyncio.sleep(0)
        stage.figures["half of them cancelled"] = status("VmRSS") - start
        await until(lambda: len(fired) == due, "timers that did not come due")
        for i, handle in enumerate(handles):
            if handle is not None:
                handle.cancel()
            if i % 1000 == 0:
                await asyncio.sleep(0)
        handles.clear()

    return act, number * 400


async def small(stage):
    number = stage.number
    data = ones(number)
    pieces = [data[i : i + 1] for i in range(number)]
    waiting = []
    counted = count_sends(stage.loop_name)

    class Drop(asyncio.Protocol):
        """Writes as asked, whatever waits: this is what one message may look like."""

        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            before = counted()
            if data == b"deaf":
                sock = self.transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            for piece in pieces:
                self.transport.write(piece)
            stage.loop.call_soon(self.written, before)

        def written(self, before):
            waiting.append(self.transport.get_write_buffer_size())
            stage.figures.setdefault("send calls", counted() - before)

    port = await stage.serve(Drop)
    tls = await stage.serve(Drop, tls=True)

    async def act():
        waiting.clear()
        child = await stage.attack(port, tls)
        await child.answer()
        await until(lambda: len(waiting) == 21, "not written")
        stage.figures["waiting"] = sum(waiting)
        await child.end()

    # Newer asyncio keeps a memoryview for each write.
    each = {"asyncio": 300, "fastloop": 4}[stage.loop_name]
    return act, 20 * each * number + 5 * TLS[stage.loop_name]


async def flood(stage):
    taken = [0]
    paused = []

    class Sink(asyncio.Protocol):
        def data_received(self, data):
            taken[0] += len(data)

    class Pauser(asyncio.Protocol):
        """Takes one piece and no more."""

        def connection_made(self, transport):
            self.transport = transport
            self.paused = False
            paused.append(transport)

        def data_received(self, data):
            assert not self.paused, "data while paused"
            self.paused = True
            self.transport.pause_reading()

    async def unread(reader, writer):
        paused.append(writer.transport)
        await writer.wait_closed()

    ports = [
        await stage.serve(Sink),
        await stage.serve(Pauser),
        await stage.serve(Echo),
        await stage.serve(stage.streams(unread)),
    ]

    async def act():
        taken[0] = 0
        child = await stage.attack(*ports)
        answer = await child.answer()
        await until(lambda: taken[0] >= answer["sent"][0], "bytes were lost")
        stage.figures["taken"] = taken[0]
        stage.figures["sent to the deaf"] = answer["sent"][1:]
        child.tell()
        await child.end()
        for transport in paused:  # which do not hear of the end of their peers
            transport.abort()
        paused.clear()

    # An echo has its high water and one read; the streams twice their limit and one.
    return act, stage.number * 4 * (256 * KIB * 3 + PLAIN)


async def accept(stage):
    spare = 20
    backlog = 64
    clients = await stage.serve(Echo)
    limited = await stage.serve(Echo, backlog=backlog)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    out = "socket.accept() out of system resource"

    async def act():
        child = await stage.attack(clients, spare)
        await child.answer()
        await child.end()
        await starve()

    async def starve():
        await stage.settle()
        child = await Child.start("-", "attack:accept", 0, 0, limited, spare)
        await child.answer()
        stage.reports.clear()
        used = set(map(int, os.listdir("/proc/self/fd")))
        free = (number for number in itertools.count() if number not in used)
        most = next(itertools.islice(free, spare, None))
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        try:
            await child.ask()
            await until(lambda: stage.reports[out], "descriptors were not used up")
            start = time.process_time(), time.monotonic()
            await asyncio.sleep(stage.seconds)
            passed = time.monotonic() - start[1]
            share = (time.process_time() - start[0]) / passed
            stage.figures["processor while out of descriptors"] = round(share, 2)
            assert share < 0.7, "the loop spins"
            # Once a second; by asyncio as often as its backlog is deep, and more.
            reports = stage.reports[out]
            stage.figures["reports while out of descriptors"] = reports
            often = {"asyncio": 4 * backlog, "fastloop": 1}[stage.loop_name]
            assert reports < often * (passed + 3), "too many reports"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await child.ask()
        await child.end()

    # A backlog of them is accepted at once.
    return act, 2000 * PLAIN


MODES = {
    "slowloris": slowloris,
    "deaf": deaf,
    "handshakes": handshakes,
    "udp": udp,
    "timers": timers,
    "small": small,
    "flood": flood,
    "accept": accept,
}
ROUNDS = 2


async def main(loop_name, mode, number, seconds):
    stage = Stage(loop_name, mode, number, seconds)
    tls = mode in ("slowloris", "handshakes")
    good = await Child.start("-", "behave", await stage.serve(Echo, tls=tls), int(tls))
    await good.answer()
    act, bound = await MODES[mode](stage)
    await asyncio.sleep(0.2)
    quiet = await good.ask()
    stage.start = await measure()
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    ends = []
    for _ in range(ROUNDS):
        await act()
        await stage.settle()
        ends.append(await measure())
    peak = status("VmHWM")
    served = await good.ask()
    await good.end()
    for server in stage.servers:
        server.close()
    print(
        json.dumps(
            {
                "mode": mode,
                "before": stage.start["resident"],
                "peak": peak,
                "after": ends[-1]["resident"],
                "held": ends[-1]["held"],
                "bound": bound,
                "quiet": quiet,
                "served": served,
                "figures": stage.figures,
                "reports": stage.reports,
                "ends": ends,
            }
        )
    )
    assert not stage.failures, stage.failures
    assert served["trips"] >= 10, "the other client was not served"
    assert peak - stage.start["resident"] < bound + ROOM, "memory"
    first, last = ends
    assert last["descriptors"] <= stage.start["descriptors"], "descriptors"
    assert last["blocks"] < first["blocks"] * 1.02 + 500, "blocks"
    assert last["held"] < first["held"] * 1.1 + 8 * MIB, "resident set"
    grown = last["held"] - stage.start["held"]
    assert grown < (peak - stage.start["held"]) / 2 + 8 * MIB, "kept memory"
    print("bounded")


def begin():
    loop_name, mode, *numbers = sys.argv[1:]
    mode, _, which = mode.partition(":")
    if mode == "behave":
        return behave(*map(int, numbers))
    number, seconds, ports = int(numbers[0]), float(numbers[1]), numbers[2:]
    if mode == "attack":
        return globals()[f"attack_{which}"](number, seconds, *map(int, ports))
    if loop_name == "asyncio":
        factory = asyncio.SelectorEventLoop
    else:
        import fastloop

        factory = fastloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main(loop_name, mode, number, seconds))


if __name__ == "__main__":
    begin()
