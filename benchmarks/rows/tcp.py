"""Servers on stream transports; the processor time of the server's process counts."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from typing import Any, cast

from harness.bench import Address, Bench
from harness.load import connect, exchange, payload
from harness.registry import row

Ready = Callable[[Address], None]
Handler = Callable[
    [asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]
]

KIB = 1024
MIB = 1024 * KIB
BULK = 32  # MiB that go one way before the other side answers
CHUNK = 256 * KIB
LINES = 100  # lines in one request
LINE = b"a short line of text\n"
QUARTER = payload(256)


class Echo(asyncio.Protocol):
    """Sends back what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class FourWrites(Echo):
    """Answers each request with four writes."""

    def data_received(self, data: bytes) -> None:
        for _ in range(4):
            self.transport.write(QUARTER)


class Sink(Echo):
    """Confirms every ``BULK`` MiB received."""

    missing = BULK * MIB

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        while self.missing <= 0:
            self.missing += BULK * MIB
            self.transport.write(b".")


class Source(Echo):
    """Sends ``BULK`` MiB for each byte received, as fast as the buffer is emptied."""

    chunk = bytes(CHUNK)
    missing = 0
    paused = False

    def data_received(self, data: bytes) -> None:
        self.missing += len(data) * BULK * MIB
        self.send()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.send()

    def send(self) -> None:
        while self.missing and not self.paused:
            self.missing -= CHUNK
            self.transport.write(self.chunk)


async def forever(server: asyncio.AbstractServer) -> None:
    """Keep a server that is serving already.

    Not with serve_forever(): that starts it a second time, which not every loop bears.
    """
    await asyncio.get_running_loop().create_future()
    server.close()


async def serve(protocol: type[Echo], ready: Ready) -> None:
    """Serve TCP with a protocol."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0, backlog=1024)
    ready(server.sockets[0].getsockname())
    await forever(server)


async def echo_server(ready: Ready) -> None:
    """Serve echoes over TCP."""
    await serve(Echo, ready)


async def four_writes_server(ready: Ready) -> None:
    """Serve answers of four writes."""
    await serve(FourWrites, ready)


async def sink_server(ready: Ready) -> None:
    """Serve one who receives in bulk."""
    await serve(Sink, ready)


async def source_server(ready: Ready) -> None:
    """Serve one who sends in bulk."""
    await serve(Source, ready)


async def unix_server(ready: Ready) -> None:
    """Serve echoes over a Unix socket in a folder of its own."""
    path = os.path.join(tempfile.mkdtemp(), "echo")
    server = await asyncio.get_running_loop().create_unix_server(Echo, path)
    ready(path)
    await forever(server)


async def serve_streams(handler: Handler, ready: Ready) -> None:
    """Serve TCP with asyncio's streams."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0, backlog=1024)
    ready(server.sockets[0].getsockname())
    await forever(server)


async def streams_server(ready: Ready) -> None:
    """Serve echoes with streams."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(64 * KIB):
            writer.write(data)
            await writer.drain()
        writer.close()

    await serve_streams(echo, ready)


async def lines_server(ready: Ready) -> None:
    """Serve one who sends lines: a line in capitals for every ``LINES``."""

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        count = 0
        while line := await reader.readline():
            count += 1
            if count % LINES == 0:
                writer.write(line.upper())
        writer.close()

    await serve_streams(read, ready)


def echo(bench: Bench, *, connections: int, size: int) -> None:
    """Load an echo server with messages of one size."""
    message = payload(size)
    exchange(bench, connections=connections, request=message, reply=message)


@row(serve=echo_server, ops=500, unit="round trip", ceiling="tcp")
def echo_1k_1(bench: Bench) -> None:
    """TCP echo, 1 KiB, 1 connection."""
    echo(bench, connections=1, size=KIB)


@row(serve=echo_server, ops=500, unit="round trip", ceiling="tcp")
def echo_1k_10(bench: Bench) -> None:
    """TCP echo, 1 KiB, 10 connections."""
    echo(bench, connections=10, size=KIB)


@row(serve=echo_server, ops=1_000, unit="round trip", ceiling="tcp")
def echo_1k_100(bench: Bench) -> None:
    """TCP echo, 1 KiB, 100 connections."""
    echo(bench, connections=100, size=KIB)


@row(serve=echo_server, ops=500, unit="round trip", ceiling="tcp")
def echo_10k(bench: Bench) -> None:
    """TCP echo, 10 KiB, 10 connections."""
    echo(bench, connections=10, size=10 * KIB)


@row(serve=echo_server, ops=100, unit="round trip", ceiling="tcp")
def echo_100k(bench: Bench) -> None:
    """TCP echo, 100 KiB, 10 connections."""
    echo(bench, connections=10, size=100 * KIB)


@row(serve=unix_server, ops=500, unit="round trip", ceiling="unix")
def echo_unix(bench: Bench) -> None:
    """Unix socket echo, 1 KiB, 10 connections."""
    assert isinstance(bench.address, str)
    try:
        echo(bench, connections=10, size=KIB)
    finally:
        shutil.rmtree(os.path.dirname(bench.address))


@row(serve=streams_server, ops=500, unit="round trip")
def streams_echo(bench: Bench) -> None:
    """asyncio streams echo, 1 KiB, 10 connections."""
    echo(bench, connections=10, size=KIB)


@row(serve=lines_server, ops=10 * LINES * 10, unit="line")
def streams_readline(bench: Bench) -> None:
    """asyncio streams readline, 21 B lines, 10 connections."""
    exchange(bench, connections=10, request=LINE * LINES, reply=LINE.upper(), ops=LINES)


@row(serve=four_writes_server, ops=500, unit="round trip")
def four_writes(bench: Bench) -> None:
    """TCP, four 256 B writes a request, 10 connections."""
    exchange(bench, connections=10, request=payload(64), reply=QUARTER * 4)


@row(serve=sink_server, ops=BULK, unit="MiB")
def bulk_in(bench: Bench) -> None:
    """TCP bulk, received by the loop."""
    chunk = bytes(CHUNK)
    done = 0
    with connect(bench.address) as sock:
        for _ in bench:
            for _ in range(bench.ops * MIB // CHUNK):
                sock.sendall(chunk)
            if sock.recv(2) != b".":
                raise AssertionError("wrong answer")
            done += BULK
    bench.check(done)


@row(serve=source_server, ops=BULK, unit="MiB")
def bulk_out(bench: Bench) -> None:
    """TCP bulk, sent by the loop."""
    got = bytearray(CHUNK)
    total = 0
    with connect(bench.address) as sock:
        for _ in bench:
            sock.sendall(b".")
            missing = bench.ops * MIB
            while missing and (count := sock.recv_into(got, min(CHUNK, missing))):
                missing -= count
                total += count
    bench.check(total // MIB)
