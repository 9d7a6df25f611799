"""Whatever ends however: no descriptor of another thread is read, written or closed.

Each number that the loop closes once too often, or still watches, is soon a pipe or a
file of the bystander, which misses a byte then.
"""

import asyncio
import os
import random
import socket
import threading
import time

import pytest
from iosupport import (
    DatagramRecorder,
    Recorder,
    capture,
    is_stock,
    left_to_the_collector,
    settle,
    turns,
)


class Bystander(threading.Thread):
    """Opens, uses and closes pipes and files without a pause."""

    def __init__(self, folder):
        super().__init__()
        self.path = folder / "file"
        self.stopping = threading.Event()
        self.failure = None
        self.rounds = 0

    def run(self):
        try:
            while not self.stopping.is_set():
                self.rounds += 1
                self.round(b"%d" % self.rounds)
        except BaseException as exc:
            self.failure = exc

    def round(self, token):
        r, w = os.pipe()
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        ours, theirs = socket.socketpair()
        os.write(w, token)
        os.write(file, token)
        ours.send(token)
        time.sleep(0)  # the loop's turn
        assert os.read(r, 100) == token
        os.close(w)
        assert os.read(r, 100) == b""
        assert os.pread(file, 100, 0) == token
        assert theirs.recv(100) == token
        ours.close()
        assert theirs.recv(100) == b""
        theirs.close()
        os.close(r)
        os.close(file)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc_info):
        self.stopping.set()
        self.join()


class Broken(Recorder):
    """Raises now and then, and ends its connection in the middle of things."""

    choose = random.Random(8)

    def maybe(self):
        number = self.choose.random()
        if number < 0.05:
            raise ZeroDivisionError
        if number < 0.1:
            self.transport.abort()
        elif number < 0.15:
            self.transport.close()

    def connection_made(self, transport):
        super().connection_made(transport)
        self.maybe()

    def data_received(self, data):
        super().data_received(data)
        self.transport.write(data)
        self.maybe()

    def eof_received(self):
        super().eof_received()
        self.maybe()

    def connection_lost(self, exc):
        super().connection_lost(exc)
        if self.choose.random() < 0.1:
            raise ZeroDivisionError


def factory():
    if Broken.choose.random() < 0.05:
        raise ZeroDivisionError
    return Broken()


async def connection(loop, choose, address):
    transport, _ = await loop.create_connection(factory, *address)
    try:
        transport.write(bytes(choose.randrange(1, 100_000)))
        await asyncio.sleep(choose.random() * 0.002)
    finally:
        getattr(transport, choose.choice(["close", "abort"]))()


async def streams(loop, choose, address):
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(b"x" * choose.randrange(1, 50_000))
        await asyncio.wait_for(reader.read(100), 0.01)
    finally:
        writer.close()


async def passed_socket(loop, choose, address):
    ours, peer = socket.socketpair()
    with peer:
        try:
            transport, _ = await loop.create_connection(factory, sock=ours)
        except BaseException:
            ours.close()  # asyncio's caller has to before Python 3.14
            raise
        try:
            peer.send(b"x")
            await turns(choose.randrange(4))
        finally:
            transport.close()


async def socket_methods(loop, choose, address):
    ours, peer = socket.socketpair()
    with ours, peer:
        ours.setblocking(False)
        peer.setblocking(False)
        jobs = [
            asyncio.ensure_future(loop.sock_recv(ours, 10)),
            asyncio.ensure_future(loop.sock_sendall(peer, bytes(300_000))),
        ]
        await turns(choose.randrange(4))
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)


async def callbacks(loop, choose, address):
    ours, peer = socket.socketpair()
    with ours, peer:
        fd = ours.fileno()
        loop.add_reader(fd, turns_taken.append, fd)
        loop.add_writer(fd, turns_taken.append, fd)
        peer.send(b"x")
        try:
            await turns(choose.randrange(4))
        finally:
            loop.remove_reader(fd)
            loop.remove_writer(fd)


async def pipes(loop, choose, address):
    r, w = os.pipe()
    try:
        source, _ = await loop.connect_read_pipe(Recorder, os.fdopen(r, "rb", 0))
    except BaseException:
        os.close(w)
        raise
    try:
        sink, _ = await loop.connect_write_pipe(Recorder, os.fdopen(w, "wb", 0))
        try:
            sink.write(b"x" * choose.randrange(1, 100_000))
            await turns(choose.randrange(4))
        finally:
            getattr(sink, choose.choice(["close", "abort"]))()
    finally:
        source.close()


async def datagrams(loop, choose, address):
    transport, _ = await loop.create_datagram_endpoint(
        DatagramRecorder, local_addr=("127.0.0.1", 0)
    )
    try:
        for _ in range(choose.randrange(5)):
            transport.sendto(b"x", transport.get_extra_info("sockname"))
        await turns(choose.randrange(4))
    finally:
        getattr(transport, choose.choice(["close", "abort"]))()


async def server(loop, choose, address):
    listening = await loop.create_server(factory, "127.0.0.1", 0, start_serving=False)
    try:
        await listening.start_serving()
        with socket.create_connection(listening.sockets[0].getsockname()):
            await turns(choose.randrange(4))
    finally:
        listening.close()


turns_taken = []

VISITS = [
    connection,
    streams,
    passed_socket,
    socket_methods,
    callbacks,
    pipes,
    datagrams,
    server,
]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("visit", VISITS, ids=lambda visit: visit.__name__)
def test_while_visits_are_cancelled(loop, run, tmp_path, visit):
    if visit is server and is_stock(loop):
        pytest.skip("connections that come after its close() fail in their finalizers")
    choose = random.Random(visit.__name__)
    capture(loop)

    async def main():
        listening = await loop.create_server(factory, "127.0.0.1", 0)
        address = listening.sockets[0].getsockname()
        number = 0
        while number < 40 or (bystander.rounds < 100 and bystander.failure is None):
            number += 1
            tasks = [
                asyncio.create_task(visit(loop, choose, address)) for _ in range(5)
            ]
            await turns(choose.randrange(8))
            for task in choose.sample(tasks, 2):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        listening.close()
        await settle()

    with Bystander(tmp_path) as bystander, left_to_the_collector(loop):
        run(main())
    turns_taken.clear()
    assert bystander.failure is None
