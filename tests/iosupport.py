"""What the tests of the I/O rooms share: bounded runs, protocols that keep notes, connected pairs."""

import asyncio
import contextlib
import gc
import hashlib
import os
import pathlib
import random
import shutil
import socket
import struct
import subprocess
import warnings

import pytest

TIMEOUT = 30.0
"""Seconds that one wait outside the loop may take on a busy machine before it counts as hung."""

SIZES = [0, 1, 4096, 64 * 1024, 10 * 1024 * 1024]


def is_stock(loop):
    """Whether loop is asyncio's own, for the promises that only fastloop makes."""
    return type(loop).__module__.partition(".")[0] == "asyncio"


def pattern(size, seed=1):
    """Return size bytes in which no block repeats, so that a lost or swapped block shows."""
    return random.Random(seed).randbytes(size)


def digest(data):
    return hashlib.sha256(data).hexdigest()


def capture(loop):
    """Collect in a list what reaches the exception handler of loop."""
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    return contexts


@contextlib.contextmanager
def left_to_the_collector(loop):
    """asyncio leaves the socket of a factory that raised to the garbage collector, which warns."""
    if is_stock(loop):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            yield
            gc.collect()
    else:
        yield


def tcp_socketpair(family=socket.AF_INET):
    """Two connected blocking TCP sockets: (the one that connected, the one that was accepted)."""
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind((host, 0))
        listener.listen(1)
        client = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
    return client, accepted


def reset(sock):
    """Close a TCP socket so that its peer sees a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def shrink(*socks, size=8192):
    """Give sockets small kernel buffers, so that few bytes fill them."""
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def fill(sock):
    """Send until the kernel takes no more; returns how many bytes it took."""
    sent = 0
    try:
        while True:
            sent += sock.send(b"x" * 65536)
    except BlockingIOError:
        return sent


def read_exactly(sock, count):
    """Read count bytes from a blocking socket, fewer if it ends."""
    data = bytearray()
    while len(data) < count:
        chunk = sock.recv(min(count - len(data), 1 << 18))
        if not chunk:
            break
        data += chunk
    return bytes(data)


def in_thread(func, *args):
    """Start a blocking peer's part beside the loop; returns a future."""
    return asyncio.get_running_loop().run_in_executor(None, func, *args)


async def turns(count=5):
    """Let the loop make some turns."""
    for _ in range(count):
        await asyncio.sleep(0)


async def settle():
    """Let the loop do all that it can without help from outside, polls included."""
    for _ in range(3):
        await asyncio.sleep(0.002)


def open_fds():
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def open_fds_at_first():
    """As open_fds(), without those of garbage, which may be closed at any moment."""
    gc.collect()
    return open_fds()


def children():
    """The numbers of this process's children, also of those that nobody has waited for."""
    found = set()
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has gone
            # Behind the name, which may be anything: the state, and whose child it is.
            words = (folder / "stat").read_text(errors="replace").rpartition(")")[2]
            if int(words.split()[1]) == os.getpid():
                found.add(int(folder.name))
    return found


async def finish(protocol):
    """End the transport of protocol if it has not ended yet."""
    if not protocol.lost.done():
        protocol.transport.abort()
        await protocol.lost
    # The descriptor is closed after connection_lost().
    await asyncio.sleep(0)


class Notes:
    """Notes of the calls a protocol got, and a way to wait for one."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.events = []
        self.data = bytearray()
        self.transport = None
        self.exc = None
        self.made = self.loop.create_future()
        self.lost = self.loop.create_future()
        self._watchers = []

    def note(self, event):
        self.events.append(event)
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)

    async def until(self, predicate):
        """Wait until predicate() holds; it is tested again after each noted call."""
        while not predicate():
            watcher = self.loop.create_future()
            self._watchers.append(watcher)
            await watcher

    async def received(self, count):
        await self.until(lambda: len(self.data) >= count)
        return bytes(self.data)

    def connection_made(self, transport):
        self.transport = transport
        self.note("made")
        if not self.made.done():
            self.made.set_result(transport)

    def connection_lost(self, exc):
        self.exc = exc
        self.note("lost")
        if not self.lost.done():
            self.lost.set_result(exc)

    def pause_writing(self):
        self.note("pause")

    def resume_writing(self):
        self.note("resume")


class Recorder(Notes, asyncio.Protocol):
    keep_open = False

    def data_received(self, data):
        self.data += data
        self.note("data")

    def eof_received(self):
        self.note("eof")
        return self.keep_open


class Broken(Recorder):
    """Raises when it hears of one event."""

    error = ZeroDivisionError("broken")
    when = "data"

    def note(self, event):
        super().note(event)
        if event == self.when:
            raise self.error


class KeepOpen(Recorder):
    keep_open = True


class BufferedRecorder(Notes, asyncio.BufferedProtocol):
    keep_open = False
    size = 32 * 1024

    def __init__(self):
        super().__init__()
        self.buffer = bytearray(self.size)

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, nbytes):
        self.data += memoryview(self.buffer)[:nbytes]
        self.note("data")

    def eof_received(self):
        self.note("eof")
        return self.keep_open


class DatagramRecorder(Notes, asyncio.DatagramProtocol):
    def __init__(self):
        super().__init__()
        self.datagrams = []
        self.errors = []

    def datagram_received(self, data, addr):
        self.datagrams.append((data, addr))
        self.note("datagram")

    def error_received(self, exc):
        self.errors.append(exc)
        self.note("error")

    async def count(self, number):
        await self.until(lambda: len(self.datagrams) >= number)
        return self.datagrams


@contextlib.asynccontextmanager
async def tcp_pair(client_factory=Recorder, server_factory=Recorder):
    """A TCP connection between two transports of the running loop: (client protocol, server protocol)."""
    loop = asyncio.get_running_loop()
    accepted = loop.create_future()

    def factory():
        protocol = server_factory()
        accepted.set_result(protocol)
        return protocol

    server = await loop.create_server(factory, "127.0.0.1", 0)
    async with server:
        client = (
            await loop.create_connection(
                client_factory, *server.sockets[0].getsockname()
            )
        )[1]
        peer = await accepted
        await peer.made
        try:
            yield client, peer
        finally:
            await finish(client)
            await finish(peer)


@contextlib.asynccontextmanager
async def raw_pair(factory=Recorder, *, tcp=False, size=None):
    """A transport joined to a plain blocking socket: (protocol, socket)."""
    loop = asyncio.get_running_loop()
    ours, peer = tcp_socketpair() if tcp else socket.socketpair()
    peer.settimeout(TIMEOUT)
    if size is not None:
        shrink(ours, peer, size=size)
    protocol = (await loop.create_connection(factory, sock=ours))[1]
    try:
        yield protocol, peer
    finally:
        peer.close()
        await finish(protocol)


class Echo(Recorder):
    def data_received(self, data):
        self.transport.write(data)


class Clients:
    """A protocol factory for servers that keeps what it made."""

    def __init__(self, cls=Recorder):
        self.cls = cls
        self.protocols = []

    def __call__(self):
        self.protocols.append(self.cls())
        return self.protocols[-1]

    async def number(self, count):
        """Wait until count connections are made."""
        while len(self.protocols) < count or any(
            not protocol.made.done() for protocol in self.protocols
        ):
            await asyncio.sleep(0.001)
        return self.protocols

    async def gone(self):
        """Wait until the connections are lost."""
        for protocol in self.protocols:
            await asyncio.shield(protocol.lost)
        await turns()


async def visit(loop, address, data=b"x"):
    """Connect to an echo server, have data echoed, and leave."""
    transport, protocol = await loop.create_connection(Recorder, *address[:2])
    transport.write(data)
    assert await protocol.received(len(data)) == data
    transport.close()
    await protocol.lost


# Datagrams


@contextlib.asynccontextmanager
async def endpoint(factory=DatagramRecorder, **kwargs):
    """A datagram endpoint of the running loop: its protocol."""
    protocol = (
        await asyncio.get_running_loop().create_datagram_endpoint(factory, **kwargs)
    )[1]
    try:
        yield protocol
    finally:
        await finish(protocol)


@contextlib.contextmanager
def plain_udp(host="127.0.0.1", family=socket.AF_INET):
    """A plain bound UDP socket."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT)
        sock.bind((host, 0))
        yield sock


@contextlib.contextmanager
def refusing_udp():
    """The address of a UDP port that refuses what comes, and is nobody else's meanwhile.

    A port that is free might be given to who sends there, which then hears itself.
    """
    with plain_udp() as sock:
        sock.connect(("127.0.0.1", 9))  # others have no one to talk to
        yield sock.getsockname()


def name_of(protocol):
    return protocol.transport.get_extra_info("sockname")


# Pipes


async def finish_pipe(protocol):
    """End a pipe's transport if it has not ended yet."""
    if not protocol.lost.done():
        # A read pipe has no abort().
        getattr(protocol.transport, "abort", protocol.transport.close)()
        await protocol.lost
    await turns(2)


@contextlib.asynccontextmanager
async def read_pipe(factory=Recorder):
    """A reading transport and the file of its other end: (protocol, writing file)."""
    loop = asyncio.get_running_loop()
    r, w = os.pipe()
    with os.fdopen(w, "wb", 0) as other:
        protocol = (await loop.connect_read_pipe(factory, os.fdopen(r, "rb", 0)))[1]
        try:
            yield protocol, other
        finally:
            other.close()
            await finish_pipe(protocol)


@contextlib.asynccontextmanager
async def write_pipe(factory=Recorder):
    """A writing transport and the file of its other end: (protocol, reading file)."""
    loop = asyncio.get_running_loop()
    r, w = os.pipe()
    with os.fdopen(r, "rb", 0) as other:
        protocol = (await loop.connect_write_pipe(factory, os.fdopen(w, "wb", 0)))[1]
        try:
            yield protocol, other
        finally:
            other.close()
            await finish_pipe(protocol)


def read_all(file, count):
    """Read count bytes from a blocking file, fewer if it ends."""
    data = bytearray()
    while len(data) < count:
        chunk = os.read(file.fileno(), min(count - len(data), 1 << 18))
        if not chunk:
            break
        data += chunk
    return bytes(data)


def acting(base, when, action, times=1):
    """A protocol class that calls action(protocol) inside its callback `when`."""

    class Acting(base):
        left = times

        def note(self, event):
            super().note(event)
            if event == when and self.left:
                self.left -= 1
                action(self)

        def get_buffer(self, sizehint):
            buffer = super().get_buffer(sizehint)
            if when == "get_buffer" and self.left:
                self.left -= 1
                action(self)
            return buffer

    return Acting


def raising(base, when, exc):
    """A protocol class that raises exc inside its callback `when`."""

    def action(protocol):
        raise exc

    return acting(base, when, action)


TURNS = 1000
"""So many turns by run_once() are more than any test needs."""


def turns_until(loop, done):
    """Take turns by run_once() until done() is true."""
    for _ in range(TURNS):
        if done():
            return
        loop.run_once(10)
    pytest.fail("not done")


def finish_within(loop, coro):
    """Run a coroutine to its end, within a callback or a task of the loop."""
    task = loop.create_task(coro)
    turns_until(loop, task.done)
    return task.result()


def preloaded(source, folder):
    """An environment in which the functions of C code go before the C library's."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    library = folder / "shim.so"
    (folder / "shim.c").write_text(source)
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", library, folder / "shim.c", "-ldl"],
        check=False,
    )
    if done.returncode != 0:
        pytest.skip("the compiler makes no shared library")
    # A sanitizer's library has to come first.
    names = filter(None, [os.environ.get("LD_PRELOAD"), str(library)])
    return {"LD_PRELOAD": " ".join(names)}


def link_question(sequence):
    """Ask the kernel by netlink for the loopback device, which has the number 1."""
    kind, flags = 18, 1  # RTM_GETLINK, NLM_F_REQUEST
    header = struct.pack("=IHHII", 32, kind, flags, sequence, 0)
    return header + struct.pack("=BxHiII", 0, 0, 1, 0, 0)


@contextlib.asynccontextmanager
async def fed(*, reader_class=asyncio.StreamReader, protocol_class=None, limit=2**16):
    """A reader and its protocol, with a plain socket at the other end."""
    loop = asyncio.get_running_loop()
    protocol_class = protocol_class or asyncio.StreamReaderProtocol
    reader = reader_class(limit=limit, loop=loop)
    protocol = protocol_class(reader, loop=loop)
    ours, peer = socket.socketpair()
    with peer:
        peer.setblocking(False)
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        try:
            yield reader, protocol, transport, peer
        finally:
            transport.abort()
            await turns()


async def turned_until(condition):
    """Turn until the condition holds."""
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0)
