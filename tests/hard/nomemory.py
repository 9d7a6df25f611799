"""Fails each allocation of one operation in turn, and says what came of it.

    python nomemory.py LOOP OPERATION [STRIDE [WINDOW | WINDOW:STEP]]

With WINDOW:STEP it is that step alone.

The operation runs in forked children, a few steps each. In each pass so many allocations
fail, the first of them the one with the number of the step (see WINDOWS). After that,
memory is back and the loop has to run, serve a connection and close, and leave no
descriptor behind. A step may end with MemoryError, with a report, or well. Prints a
line of JSON: the steps and what was wrong.

Python itself spins for ever in an exception handler while there is not a byte, and its
socket module loses the descriptor of a socket object that it could not make: so memory
comes back after a while, and what is Python's own is left out of the judgement. Since
Python 3.12 a function that cannot be made costs its code a reference that was somebody
else's, and the next step that makes it ends the process: all codes get some to spare.
The first Python 3.13 counts an entry that a dict had no room for in setdefault(), and
reads past the dict's end later: that of the current tasks gets room.
"""

import _socket
import _testcapi
import asyncio
import contextlib
import faulthandler
import gc
import importlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import types

BATCH = 20
WINDOWS = 1, 4, 100
PATIENCE = 0.25
"""Seconds for what the failure may have left undone. A report must tell of that."""

GUARD = 15
"""Seconds where no report tells: a machine may be busy for as long as that."""

STANDARD_LIBRARY = os.path.dirname(os.__file__)
"""Where Python without memory loses descriptors and raises SystemError itself."""

HANG = 100
"""Seconds until a child counts as hung: faulthandler writes where."""


class Step:
    """One run of an operation in which allocations fail."""

    def __init__(self, loop_factory, number, last, tls):
        self.number = number
        self.last = last
        self.tls = tls
        self.reports = 0
        self.expected = 0
        self.raised = None
        self.stuck = False
        self.late = False
        self.problems = []
        self.files = []
        self.loop_factory = loop_factory
        self.loop = None

    def __enter__(self):
        """Allocations fail from here on."""
        self.ended = threading.Lock()
        self.ended.acquire()
        self.guard = threading.Thread(target=self.be_patient, daemon=True)
        self.guard.start()
        _testcapi.set_nomemory(self.number, self.last)

    def __exit__(self, cls, exc, tb):
        _testcapi.remove_mem_hooks()
        self.ended.release()
        self.guard.join()
        if exc is not None:
            self.raised = exc
        return exc is not None and not isinstance(exc, SystemExit)

    def be_patient(self):
        """Give memory back and stop the loop where the operation does not end."""
        deadline = time.monotonic() + 2 * GUARD
        while not self.ended.acquire(timeout=2 * PATIENCE):
            if self.reports > self.expected or time.monotonic() > deadline:
                break
        else:
            return
        _testcapi.remove_mem_hooks()
        self.late = True
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)

    def be_over(self, seconds=PATIENCE):
        """Stop the loop in a while: soon if somebody was told, else when hope is gone."""
        self.deadline = time.monotonic() + GUARD
        self.loop.call_later(seconds, self.look, seconds)

    def look(self, seconds):
        if self.reports <= self.expected and time.monotonic() < self.deadline:
            with contextlib.suppress(MemoryError):
                self.loop.call_later(seconds, self.look, seconds)
                return
        self.loop.stop()

    def note(self, *_):
        self.reports += 1

    def make_loop(self):
        self.loop = self.loop_factory()
        self.loop.set_exception_handler(self.note)
        return self.loop

    def limited(self, coro, seconds=PATIENCE):
        """Run coro on the loop, without memory, for a while."""
        loop = self.loop
        self.be_over(seconds)
        task = loop.create_task(coro)
        with self:
            loop.run_until_complete(task)
        if not task.done() and isinstance(self.raised, RuntimeError):
            self.stuck = True  # it was stopped
            self.raised = None
        return task

    def free(self, coro, seconds=GUARD):
        """Run coro on the loop, with memory."""
        loop = self.loop
        future = asyncio.ensure_future(coro, loop=loop)
        for attempt in range(4):
            # An earlier stop() may wait in the queue still.
            timer = loop.call_later(seconds if attempt == 3 else 1, loop.stop)
            try:
                return loop.run_until_complete(future)
            except RuntimeError:
                if future.done() or attempt == 3:
                    raise
            finally:
                timer.cancel()

    def keep(self, *files):
        self.files.extend(files)
        return files[0]


async def nothing():
    pass


class Protocol(asyncio.Protocol):
    """Counts; allocates little itself."""

    def __init__(self):
        self.got = 0
        self.lost = False
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.got += len(data)

    def datagram_received(self, data, addr):
        self.got += len(data)

    def error_received(self, exc):
        pass

    def connection_lost(self, exc):
        self.lost = True


class Echo(Protocol):
    def data_received(self, data):
        self.transport.write(data)


class BufferedEcho(Protocol, asyncio.BufferedProtocol):
    def __init__(self):
        super().__init__()
        self.buffer = bytearray(65536)

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, count):
        self.transport.write(bytes(self.buffer[:count]))


def pass_args(*args):
    pass


HOOKS = []
"""Those that audit in this process: they stay."""


# -- the operations ----------------------------------------------------------------------


def create_loop(step):
    with step:
        step.loop = step.loop_factory()
    if step.loop is None:
        step.make_loop()


def close_loop(step):
    loop = step.make_loop()
    loop.call_soon(nothing)
    loop.call_later(10, nothing)
    step.free(nothing())
    with step:
        loop.close()


def call_soon(step):
    loop = step.make_loop()
    with step:
        loop.call_soon(pass_args, 1, 2, 3, 4, 5, 6)


def call_soon_run(step):
    loop = step.make_loop()
    step.be_over()
    with step:
        for _ in range(80):
            loop.call_soon(pass_args, 1)
        loop.call_soon(loop.stop)
        loop.run_forever()


def call_later(step):
    loop = step.make_loop()
    with step:
        loop.call_later(0.001, pass_args, 1).cancel()
        for delay in range(80):
            loop.call_later(delay * 1e-6, pass_args)
        loop.call_later(1e-4, loop.stop)
        loop.run_forever()


def call_at_debug(step):
    loop = step.make_loop()
    loop.set_debug(True)
    with step:
        loop.call_at(loop.time(), pass_args)
        loop.call_soon(loop.stop)
        loop.run_forever()


def call_soon_threadsafe(step):
    loop = step.make_loop()
    with step:
        loop.call_soon_threadsafe(pass_args, 1)
        loop.call_soon_threadsafe(loop.stop)
        loop.run_forever()


def run_forever(step):
    loop = step.make_loop()
    loop.call_soon(loop.stop)
    with step:
        loop.run_forever()


def run_once(step):
    """asyncio's _run_once() does not set up a run."""
    loop = step.make_loop()
    loop.call_soon(pass_args)
    with step:
        getattr(loop, "run_once", loop._run_once)()


def run_until_complete(step):
    step.make_loop()
    step.limited(nothing())


def raising_callback(step):
    loop = step.make_loop()

    def fail():
        raise ZeroDivisionError

    step.expected = 1
    loop.call_soon(fail)
    loop.call_soon(loop.stop)
    with step:
        loop.run_forever()


def tasks(step):
    step.make_loop()

    async def program():
        async def child():
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)
            return 1

        await asyncio.gather(child(), child())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()

    step.limited(program())


def signals(step):
    loop = step.make_loop()

    def send():
        if signal.getsignal(signal.SIGUSR1) != signal.SIG_DFL:
            os.kill(os.getpid(), signal.SIGUSR1)

    step.be_over()
    with step:
        loop.add_signal_handler(signal.SIGUSR1, loop.stop)
        loop.call_soon(send)
        try:
            loop.run_forever()
        finally:
            loop.remove_signal_handler(signal.SIGUSR1)
    if signal.getsignal(signal.SIGUSR1) != signal.SIG_DFL:
        with contextlib.suppress(ValueError):
            loop.remove_signal_handler(signal.SIGUSR1)


def listener(step):
    return step.keep(socket.create_server(("127.0.0.1", 0)))


make_pair = socket.socketpair


def pair(step):
    ours, peer = make_pair()
    for sock in ours, peer:
        step.keep(sock)
        sock.setblocking(False)
    return ours, peer


def connect(step):
    loop = step.make_loop()
    address = listener(step).getsockname()

    async def program():
        transport, _ = await loop.create_connection(Protocol, *address)
        transport.close()
        await asyncio.sleep(0)

    step.limited(program())


def connect_audited(step):
    """A hook is shown a socket object, which else there is none of."""
    if not HOOKS:
        HOOKS.append(pass_args)
        sys.addaudithook(pass_args)
    connect(step)


def connect_name(step):
    loop = step.make_loop()
    address = listener(step).getsockname()
    step.free(loop.run_in_executor(None, pass_args))

    async def program():
        transport, _ = await loop.create_connection(Protocol, "localhost", address[1])
        transport.abort()

    step.limited(program(), 0.5)


def serve(step):
    loop = step.make_loop()

    async def program():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        server.close()
        await server.wait_closed()

    step.limited(program())


def accept(step, factory=Echo):
    loop = step.make_loop()
    server = step.free(loop.create_server(factory, "127.0.0.1", 0))
    client = step.keep(socket.create_connection(server.sockets[0].getsockname()))
    client.sendall(b"x" * 100)
    client.setblocking(False)

    async def program():
        await loop.sock_recv(client, 100)

    step.limited(program())
    server.close()


def accept_buffered(step):
    accept(step, BufferedEcho)


def read(step, factory=Protocol, size=1000):
    loop = step.make_loop()
    ours, peer = pair(step)
    _, protocol = step.free(loop.create_connection(factory, sock=ours))
    peer.send(b"x" * size)
    step.be_over()

    def look():
        if protocol.got < size and not protocol.lost:
            loop.call_later(0.001, look)
        else:
            loop.stop()

    look()
    with step:
        loop.run_forever()
    if protocol.got < size and step.raised is None and not step.reports:
        step.problems.append(f"got {protocol.got} of {size} bytes")
    if not protocol.lost:
        # What comes behind may only follow what came before.
        peer.send(b"tail")
        step.free(asyncio.sleep(0.01))
        if not protocol.lost and protocol.got != size + 4:
            step.problems.append(f"got {protocol.got} of {size + 4} bytes, and goes on")


def read_large(step):
    read(step, size=150_000)


def peer_closes(step):
    loop = step.make_loop()
    ours, peer = pair(step)
    _, protocol = step.free(loop.create_connection(Protocol, sock=ours))
    peer.close()
    step.be_over()

    def look():
        if not protocol.lost:
            loop.call_later(0.001, look)
        else:
            loop.stop()

    look()
    with step:
        loop.run_forever()
    if not protocol.lost:
        step.free(asyncio.sleep(0.05))
        if not protocol.lost:
            step.problems.append("connection_lost() was never called")


def close_transport(step, how="close", waits=0):
    loop = step.make_loop()
    ours, _ = pair(step)
    transport, protocol = step.free(loop.create_connection(Protocol, sock=ours))
    if waits:
        transport.write(bytes(waits))
    with step:
        getattr(transport, how)()
    step.free(asyncio.sleep(0.02))
    if not protocol.lost and not waits:
        # The caller was told: the next try has to do it.
        transport.abort()
        step.free(asyncio.sleep(0.02))
        if not protocol.lost:
            step.problems.append("connection_lost() was never called")


def abort_transport(step):
    close_transport(step, "abort")


def abort_full_transport(step):
    close_transport(step, "abort", 1 << 20)


def read_file(sock):
    data = bytearray()
    with contextlib.suppress(BlockingIOError):
        while chunk := sock.recv(1 << 20):
            data += chunk
    return bytes(data)


def write(step, how="write", size=100):
    loop = step.make_loop()
    ours, peer = pair(step)
    transport, protocol = step.free(loop.create_connection(Protocol, sock=ours))
    data = b"abcdefghij" * (size // 10)
    step.be_over()
    loop.call_later(0.001, loop.call_later, 0.001, loop.stop)
    with step:
        if how == "write":
            for start in range(0, size, 10):
                transport.write(data[start : start + 10])
        elif how == "writelines":
            transport.writelines([data[:50], data[50:]])
        else:
            transport.write(bytearray(data))
        loop.run_forever()
    arrived = read_file(peer)
    for _ in range(20):
        if len(arrived) < size and not protocol.lost:
            step.free(asyncio.sleep(0.001))
            arrived += read_file(peer)
    if not data.startswith(arrived):
        step.problems.append("what arrived is not what was written")
    if arrived != data and step.raised is None and not step.reports:
        step.problems.append(f"{len(arrived)} of {size} bytes arrived")


def writelines(step):
    write(step, "writelines")


ROW = [bytes([number]) * 40_000 for number in range(1, 9)]


class End(Protocol):
    """Keeps what came, and whether flow control alternates."""

    def __init__(self):
        super().__init__()
        self.data = bytearray()
        self.paused = False
        self.wrong = None

    def data_received(self, data):
        self.data += data

    def pause_writing(self):
        self.wrong = "pause_writing() twice" if self.paused else self.wrong
        self.paused = True

    def resume_writing(self):
        self.wrong = self.wrong if self.paused else "resume_writing() twice"
        self.paused = False


def row(step, kind=bytes, size=None):
    """Large writes in a row, and close() behind them."""
    loop = step.make_loop()
    pair(step)
    for sock in step.files:
        if size is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
    client, server = ({}, {}) if step.tls is None else ({"ssl": c} for c in step.tls)
    if client:
        client["server_hostname"] = "localhost"
    one, two = step.files

    async def program():
        return await asyncio.gather(
            loop.create_connection(End, sock=one, **client),
            loop.connect_accepted_socket(End, two, **server),
        )

    ((transport, sender), (_, receiver)) = step.free(program())
    ends = sender, receiver

    def write():
        try:
            for part in ROW:
                transport.write(kind(part))
        finally:
            transport.close()

    def look():
        if not (sender.lost and receiver.lost):
            loop.call_later(0.001, look)
        else:
            loop.stop()

    step.be_over()
    loop.call_soon(write)
    look()
    with step:
        loop.run_forever()
    arrived = bytes(receiver.data)
    whole = b"".join(ROW)
    if not whole.startswith(arrived):
        step.problems.append("what arrived is not what was written")
    if arrived != whole and step.raised is None and not step.reports:
        step.problems.append(f"{len(arrived)} of {len(whole)} bytes arrived")
    for end in ends:
        end.transport.abort()
    step.free(asyncio.sleep(0.02))
    for end in ends:
        if not end.lost:
            step.problems.append("connection_lost() was never called")
        if end.wrong:
            step.problems.append(end.wrong)


def row_stalls(step):
    row(step, size=8192)


def row_bytearray(step):
    row(step, bytearray, 8192)


def tls_row(step):
    row(step)


def tls_row_stalls(step):
    row(step, size=8192)


def tls_row_bytearray(step):
    row(step, bytearray, 8192)


def write_large_bytearray(step):
    write(step, "bytearray", 2_000_000)


def streams(step):
    loop = step.make_loop()

    async def echo(reader, writer):
        try:
            writer.write(await reader.readline())
            await writer.drain()
        finally:
            writer.close()

    async def program():
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        try:
            address = server.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(*address)
            try:
                writer.write(b"hello\n")
                await writer.drain()
                await reader.read()
            finally:
                writer.close()
                await writer.wait_closed()
        finally:
            server.close()

    step.limited(program())
    assert loop


def tls(step):
    loop = step.make_loop()
    client_context, server_context = step.tls

    async def program():
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_context)
        try:
            transport, protocol = await loop.create_connection(
                Protocol,
                *server.sockets[0].getsockname(),
                ssl=client_context,
                server_hostname="localhost",
            )
            try:
                transport.write(b"x" * 1000)
                while protocol.got < 1000 and not protocol.lost:
                    await asyncio.sleep(0.001)
            finally:
                transport.close()
            while not protocol.lost:
                await asyncio.sleep(0.001)
        finally:
            server.close()

    step.limited(program(), 0.6)


def start_tls(step):
    loop = step.make_loop()
    client_context, server_context = step.tls
    one, two = pair(step)

    async def program():
        left, _ = await loop.create_connection(Echo, sock=one)
        right, protocol = await loop.create_connection(Protocol, sock=two)
        left_tls, right_tls = await asyncio.gather(
            loop.start_tls(left, left.get_protocol(), server_context, server_side=True),
            loop.start_tls(
                right, protocol, client_context, server_hostname="localhost"
            ),
        )
        left_tls.get_protocol().transport = left_tls
        right_tls.write(b"x")
        while not protocol.got:
            await asyncio.sleep(0.001)
        right_tls.close()
        left_tls.close()

    step.limited(program(), 0.6)


def udp(step):
    loop = step.make_loop()

    async def program():
        server, protocol = await loop.create_datagram_endpoint(
            Protocol, ("127.0.0.1", 0)
        )
        client = None
        try:
            client, _ = await loop.create_datagram_endpoint(
                Protocol, remote_addr=server.get_extra_info("sockname")
            )
            client.sendto(b"1")
            client.sendto(b"2")
            while protocol.got < 2:
                await asyncio.sleep(0.001)
        finally:
            server.close()
            if client is not None:
                client.close()

    step.limited(program())


def unix(step):
    loop = step.make_loop()
    path = f"\0fastloop-hard-{os.getpid()}"

    async def program():
        server = await loop.create_unix_server(Echo, path)
        transport = None
        try:
            transport, protocol = await loop.create_unix_connection(Protocol, path)
            transport.write(b"x")
            while not protocol.got:
                await asyncio.sleep(0.001)
        finally:
            if transport is not None:
                transport.close()
            server.close()

    step.limited(program())


def pipes(step):
    loop = step.make_loop()
    r, w = os.pipe()
    read_end, write_end = os.fdopen(r, "rb", 0), os.fdopen(w, "wb", 0)
    step.keep(read_end, write_end)

    async def program():
        reader, protocol = await loop.connect_read_pipe(Protocol, read_end)
        writer, _ = await loop.connect_write_pipe(Protocol, write_end)
        writer.write(b"x" * 100)
        writer.close()
        while not protocol.lost:
            await asyncio.sleep(0.001)
        reader.close()

    step.limited(program())


def pipe_read(step):
    loop = step.make_loop()
    r, w = os.pipe()
    read_end = step.keep(os.fdopen(r, "rb", 0))
    write_end = step.keep(os.fdopen(w, "wb", 0))
    _, protocol = step.free(loop.connect_read_pipe(Protocol, read_end))
    write_end.write(b"x" * 100)
    loop.call_later(0.002, loop.stop)
    with step:
        loop.run_forever()
    with contextlib.suppress(BrokenPipeError):  # it ended, and its other end knows
        write_end.write(b"tail")
    step.free(asyncio.sleep(0.01))
    if not protocol.lost and protocol.got != 104:
        step.problems.append(f"got {protocol.got} of 104 bytes, and goes on")


def process(step):
    step.make_loop()

    async def program():
        child = await asyncio.create_subprocess_exec(
            "/bin/cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        # Not communicate(): up to Python 3.12 a function whose cells cannot be made
        # loses references to its arguments, and gather() is one: the coroutines that
        # communicate() gives it keep the transport alive, on asyncio's own loop, too.
        child.stdin.write(b"hello")
        child.stdin.close()
        out = await child.stdout.read()
        assert out == b"hello"
        await child.wait()

    step.limited(program(), 0.5)


def child_exits(step):
    """What the kernel tells only once is not lost: later, if not now."""
    loop = step.make_loop()
    r, w = os.pipe()
    transport, _ = step.free(
        loop.subprocess_exec(
            asyncio.SubprocessProtocol,
            *("/bin/sh", "-c", "read line; exit 7"),
            stdin=r,
            stdout=None,
            stderr=None,
        )
    )
    os.close(r)
    os.close(w)
    os.waitid(os.P_PID, transport.get_pid(), os.WEXITED | os.WNOWAIT)
    loop.call_later(0.002, loop.stop)
    with step:
        loop.run_forever()
    step.free(asyncio.sleep(0.01))
    if transport.get_returncode() != 7:
        step.problems.append(f"the status is {transport.get_returncode()}, not 7")
    transport.close()


async def two_jobs(loop):
    waits = threading.Barrier(2)
    await asyncio.gather(
        loop.run_in_executor(None, waits.wait), loop.run_in_executor(None, waits.wait)
    )


def executor(step):
    loop = step.make_loop()
    # Python waits for ever for a thread that could not start.
    for _ in range(2):
        step.free(two_jobs(loop))

    async def program():
        await asyncio.gather(
            loop.run_in_executor(None, pass_args, 1),
            asyncio.to_thread(pass_args, 2),
        )

    step.limited(program())


def resolve(step):
    loop = step.make_loop()
    # Python waits for ever for a thread that could not start.
    for _ in range(2):
        step.free(two_jobs(loop))

    async def program():
        await loop.getaddrinfo("127.0.0.1", 80)
        await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST)

    step.limited(program())


def sock(step):
    loop = step.make_loop()
    server = listener(step)
    server.setblocking(False)
    client = step.keep(socket.socket())
    client.setblocking(False)

    async def program():
        await loop.sock_connect(client, server.getsockname())
        peer, _ = await loop.sock_accept(server)
        with peer:
            waits = asyncio.ensure_future(loop.sock_recv(peer, 10))
            await asyncio.sleep(0)
            await loop.sock_sendall(client, b"0123456789")
            await waits
            waits = asyncio.ensure_future(loop.sock_recv_into(client, bytearray(10)))
            await asyncio.sleep(0)
            waits.cancel()
            await asyncio.sleep(0)

    step.limited(program())


def sock_recv(step, size=1000):
    """What was taken from the kernel is not lost: the next call gets it, if not this."""
    loop = step.make_loop()
    ours, peer = pair(step)
    got = [b""]

    async def program():
        got[0] = await loop.sock_recv(ours, size)

    async def rest():
        while not got[0].endswith(b"tail"):
            got[0] += await loop.sock_recv(ours, size)

    peer.send(b"x" * 300)
    step.limited(program())
    peer.send(b"tail")
    with contextlib.suppress(TimeoutError):
        step.free(asyncio.wait_for(rest(), GUARD))
    if got[0] != b"x" * 300 + b"tail":
        step.problems.append(f"got {len(got[0])} of 304 bytes")


def sock_recv_large(step):
    sock_recv(step, 1_000_000)


def sock_datagrams(step):
    loop = step.make_loop()
    one, two = (step.keep(socket.socket(type=socket.SOCK_DGRAM)) for _ in "12")
    for each in one, two:
        each.setblocking(False)
        each.bind(("127.0.0.1", 0))

    async def program():
        waits = asyncio.ensure_future(loop.sock_recvfrom(two, 10))
        await asyncio.sleep(0)
        await loop.sock_sendto(one, b"x", two.getsockname())
        await waits

    step.limited(program())


def add_reader(step):
    loop = step.make_loop()
    ours, peer = pair(step)
    peer.send(b"x")
    step.be_over()
    with step:
        loop.add_writer(ours, pass_args)
        loop.add_reader(ours, loop.stop)
        loop.run_forever()
    loop.remove_reader(ours)
    loop.remove_writer(ours)


def sendfile(step):
    loop = step.make_loop()
    ours, peer = pair(step)
    transport, _ = step.free(loop.create_connection(Protocol, sock=ours))
    file = step.keep(os.fdopen(os.open(__file__, os.O_RDONLY), "rb"))

    async def program():
        await loop.sendfile(transport, file, 0, 100)

    step.limited(program())
    assert peer


def extra_info(step):
    loop = step.make_loop()
    server = step.free(loop.create_server(Echo, "127.0.0.1", 0))
    transport, _ = step.free(
        loop.create_connection(Protocol, *server.sockets[0].getsockname())
    )
    with step:
        for name in "peername", "sockname", "socket", "none":
            transport.get_extra_info(name)
        repr(transport)
        repr(loop)
        repr(server)
    server.close()


def asyncgens(step):
    loop = step.make_loop()

    async def numbers():
        yield 1
        yield 2

    async def program():
        async for _ in numbers():
            break
        await loop.shutdown_asyncgens()

    step.limited(program())


def runner(step):
    def factory():
        step.make_loop()
        return step.loop

    async def program():
        await asyncio.sleep(0.0001)

    with step:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(program())
    if step.loop is None:
        step.make_loop()


OPERATIONS = {
    function.__name__: function
    for function in (
        create_loop,
        close_loop,
        call_soon,
        call_soon_run,
        call_later,
        call_at_debug,
        call_soon_threadsafe,
        run_forever,
        run_once,
        run_until_complete,
        raising_callback,
        tasks,
        signals,
        connect,
        connect_audited,
        connect_name,
        serve,
        accept,
        accept_buffered,
        read,
        read_large,
        peer_closes,
        close_transport,
        abort_transport,
        abort_full_transport,
        write,
        writelines,
        row,
        row_stalls,
        row_bytearray,
        tls_row,
        tls_row_stalls,
        tls_row_bytearray,
        write_large_bytearray,
        streams,
        tls,
        start_tls,
        udp,
        unix,
        pipes,
        pipe_read,
        process,
        child_exits,
        executor,
        resolve,
        sock,
        sock_recv,
        sock_recv_large,
        sock_datagrams,
        add_reader,
        sendfile,
        extra_info,
        asyncgens,
        runner,
    )
}


# -- the judge ---------------------------------------------------------------------------


def open_fds():
    return len(os.listdir("/proc/self/fd"))


NO_MEMORY = "can't allocate lock", "can't start new thread"
"""What Python says instead of MemoryError, in a RuntimeError."""


def is_memory(exc):
    """Whether exc tells of a lack of memory, itself or by what led to it."""
    seen = set()
    todo = [exc]
    while todo:
        exc = todo.pop()
        if exc is None or id(exc) in seen:
            continue
        seen.add(id(exc))
        if isinstance(exc, MemoryError):
            return True
        if isinstance(exc, OSError) and exc.errno == 12:
            return True
        if isinstance(exc, RuntimeError) and str(exc) in NO_MEMORY:
            return True
        todo += [exc.__cause__, exc.__context__]
        todo += getattr(exc, "exceptions", ())
    return False


async def works(loop):
    """Whatever came before, a loop does all this."""
    await asyncio.sleep(0.0001)
    woken = loop.create_future()
    thread = threading.Thread(
        target=loop.call_soon_threadsafe, args=(woken.set_result, None)
    )
    thread.start()
    await woken
    thread.join()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    transport, protocol = await loop.create_connection(
        Protocol, *server.sockets[0].getsockname()
    )
    transport.write(b"x" * 10)
    while protocol.got < 10:
        await asyncio.sleep(0.0001)
    transport.close()
    server.close()
    while not protocol.lost:
        await asyncio.sleep(0.0001)


async def end(loop, tasks):
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=0.05)
    # What a lost wake-up left in its wake is the task's alone, and was reported.
    await asyncio.wait_for(loop.shutdown_asyncgens(), GUARD)
    await asyncio.wait_for(loop.shutdown_default_executor(), GUARD)


def recover(step, stock):
    loop = step.loop
    if stock or step.last - step.number > 4:
        # Before Python 3.14 it takes memory to say that no loop runs.
        asyncio._set_running_loop(None)
    elif asyncio._get_running_loop() is not None:
        step.problems.append("the thread has a running loop still")
    if loop.is_running():
        step.problems.append("the loop runs for ever")
        loop._thread_id = None
    if loop.is_closed():
        return
    if loop._stopping:
        step.problems.append("the loop is stopping still")
        loop._stopping = False
    try:
        loop.call_soon(loop.stop)  # another may wait in the queue still
        loop.run_forever()
        loop.run_until_complete(asyncio.sleep(0.001))
    except RuntimeError as exc:
        if "before Future completed" not in str(exc):
            step.problems.append(f"the loop does not run: {exc!r}")
    try:
        step.free(works(loop))
    except BaseException as exc:
        step.problems.append(f"the loop does not work: {exc!r}")
    try:
        tasks = asyncio.all_tasks(loop)
        step.free(end(loop, tasks))
        for task in tasks:
            task._log_destroy_pending = False
    except BaseException as exc:
        step.problems.append(f"the loop does not end: {exc!r}")
    try:
        loop.close()
    except BaseException as exc:
        step.problems.append(f"the loop does not close: {exc!r}")


def judge(step):
    exc = step.raised
    if isinstance(exc, SystemError) and not is_pythons_own(exc):
        where = traceback.extract_tb(exc.__traceback__)[-1]
        step.problems.append(f"raised {exc!r} in {where.filename}:{where.lineno}")
    elif (
        exc is not None
        and not isinstance(exc, SystemError)
        and not is_memory(exc)
        and not step.reports
    ):
        step.problems.append(
            f"raised {exc!r}: " + "".join(traceback.format_exception(exc))[-600:]
        )
    if (step.stuck or step.late) and not step.reports and exc is None:
        step.problems.append("stuck, and nobody was told")


def runs_tasks(traceback):
    """Whether an exception was first seen in the program of "tasks"."""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_code.co_qualname == "tasks.<locals>.program"


def is_pythons_own(exc):
    """Whether exc comes out of Python's own code and is not of our functions' making."""
    while exc is not None:
        frames = traceback.extract_tb(exc.__traceback__)
        if "_ssl.MemoryBIO" in str(exc):
            return True  # its constructor returns an object and an exception
        if exc.__traceback__ is not None and runs_tasks(exc.__traceback__):
            return True  # an await of what is asyncio's, in Python 3.13
        if frames and frames[-1].name == "_make_subprocess_transport":
            return True  # the constructor, which leaves the child to __del__()
        if frames and frames[-1].filename.startswith((STANDARD_LIBRARY, "<frozen")):
            return not any(
                name in str(exc) for name in ("fastloop", "Loop", "Transport")
            )
        exc = exc.__context__
    return False


def lost_by_python():
    """Count the descriptors of what Python's own functions lost.

    Up to Python 3.12 a function whose cells cannot be made loses references to its
    arguments, and a coroutine that nobody awaited is lost where the warning of that
    cannot be made: on asyncio's own loop, and without any. So connection_made() of
    StreamReaderProtocol and _connect_pipes() of a subprocess leave a transport open for
    ever if they do not come to their end. That the native code under them loses none
    itself is for "accept" to tell, and for what these two do in all other steps.
    """
    if sys.version_info >= (3, 13):
        return 0
    count = 0
    for transport in gc.get_objects():
        if isinstance(transport, asyncio.SubprocessTransport):
            pipes = transport._pipes.values()
            count += len(pipes) if not any(pipes) else 0
        elif isinstance(transport, asyncio.Transport):
            protocol = transport.get_protocol()
            count += (
                isinstance(protocol, asyncio.StreamReaderProtocol)
                and protocol._client_connected_cb is not None
                and protocol._task is None
                and not transport.is_closing()
            )
    return count


def run_step(name, loop_factory, number, window, contexts, stock):
    """Return (problems, whether an allocation failed)."""
    step = Step(loop_factory, number, number + window, contexts)
    sys.unraisablehook = step.note
    handler = logging.Handler()
    handler.handle = step.note
    logger = logging.getLogger("asyncio")
    logger.handlers[:] = [handler]
    before = open_fds() - lost_by_python()
    try:
        OPERATIONS[name](step)
    except BaseException as exc:
        _testcapi.remove_mem_hooks()
        step.problems.append(f"afterwards: {exc!r} {traceback.format_exc()[-500:]}")
    failed = step.raised is not None or step.reports != step.expected or step.stuck
    judge(step)
    if step.loop is not None:
        recover(step, stock)
    problems = step.problems
    if step.raised is not None:
        traceback.clear_frames(step.raised.__traceback__)
    for file in step.files:
        file.close()
    own = is_pythons_own(step.raised)
    step.raised = step.loop = step.tls = None
    step.files = []
    del step
    gc.collect()
    deadline = time.monotonic() + (1 if own else GUARD)
    while open_fds() - lost_by_python() > before and time.monotonic() < deadline:
        time.sleep(0.01)
        gc.collect()
    left = open_fds() - lost_by_python() - before
    if left > 0 and not own:
        names = []
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                names.append(os.readlink(f"/proc/self/fd/{fd}"))
        problems.append(f"descriptors are left: {left}, of {names}")
    return problems, failed


SPARE = []
"""References to each code there is: see above."""


ROOM = 22_000
"""Entries that a dict just had to grow for: twice as many fit in."""


def make_room():
    current = getattr(asyncio.tasks, "_current_tasks", None)
    if current is not None:
        current.update(dict.fromkeys(range(ROOM)))
        for number in range(ROOM):
            del current[number]


def make_spare(number):
    todo = [
        function.__code__
        for function in gc.get_objects()
        if isinstance(function, types.FunctionType)
    ]
    codes = {}
    while todo:
        code = todo.pop()
        if id(code) not in codes:
            codes[id(code)] = code
            todo += (
                each for each in code.co_consts if isinstance(each, types.CodeType)
            )
    SPARE.extend([*codes.values()] * number)


def main():
    loop_name, name, *rest = sys.argv[1:]
    stride = int(rest[0]) if rest else 1
    only = rest[1] if len(rest) > 1 else None
    stock = loop_name == "asyncio"
    if stock:
        loop_factory = asyncio.SelectorEventLoop
    else:
        import fastloop

        loop_factory = fastloop.new_event_loop
    contexts = None
    if "tls" in name:
        from tlssupport import Certificates

        certificates = Certificates()
        contexts = certificates.client, certificates.server
    logging.getLogger("asyncio").propagate = False
    logging.raiseExceptions = False
    # Python's own loses a descriptor where it cannot make the second object.
    socket.socketpair = _socket.socketpair
    for module in "encodings.idna", "fastloop._executor":
        with contextlib.suppress(ImportError):
            importlib.import_module(module)  # the compiler does not stand it
    warm = loop_factory()
    warm.run_until_complete(nothing())
    warm.close()
    del warm
    make_spare(10 * BATCH)
    make_room()
    gc.collect()
    gc.freeze()
    gc.disable()
    if only is not None and ":" in only:
        window, number = map(int, only.split(":"))
        print(run_step(name, loop_factory, number, window, contexts, stock))
        return

    problems = {}
    steps = failures = 0
    for window in WINDOWS if only is None else (int(only),):
        start, ends, quiet = 0, False, 0
        while not ends:
            r, w = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(r)
                out = os.fdopen(w, "w")
                faulthandler.enable()
                faulthandler.dump_traceback_later(HANG, exit=True)
                for number in range(start, start + BATCH * stride, stride):
                    out.write(json.dumps([number]) + "\n")
                    out.flush()
                    found, failed = run_step(
                        name, loop_factory, number, window, contexts, stock
                    )
                    out.write(json.dumps([number, found, failed]) + "\n")
                    out.flush()
                os._exit(0)
            os.close(w)
            with os.fdopen(r) as lines:
                answers = [json.loads(line) for line in lines]
            _, status = os.waitpid(pid, 0)
            for answer in answers:
                if len(answer) == 1:
                    last = answer[0]
                    continue
                steps += 1
                failures += answer[2]
                quiet = 0 if answer[2] else quiet + 1
                if answer[1]:
                    problems[f"{window}:{answer[0]}"] = answer[1]
            if status != 0:
                problems[f"{window}:{last}"] = [f"the process ended with {status}"]
                start = last + stride
                quiet = 0
            else:
                start += BATCH * stride
            # Many steps in a row without a failure: there are no more allocations.
            ends = quiet >= (40 if stride == 1 else 20) or start > 60000
            if len(problems) > 200:
                break
    print(json.dumps({"steps": steps, "failures": failures, "problems": problems}))


if __name__ == "__main__":
    main()
