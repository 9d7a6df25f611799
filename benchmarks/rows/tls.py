"""Servers on TLS transports; the processor time of the server's process counts."""

from __future__ import annotations

import asyncio
import ssl

import trustme
from harness.bench import Bench
from harness.load import connect, exchange, payload
from harness.registry import row

from .tcp import BULK, CHUNK, KIB, MIB, Echo, Ready, Sink, Source, forever


def server_context() -> ssl.SSLContext:
    """Return a context with a certificate for localhost."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    return context


def client_context() -> ssl.SSLContext:
    """Return a context that trusts everybody: who checks is not measured."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def serve(protocol: type[Echo], ready: Ready) -> None:
    """Serve TLS with a protocol."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        protocol, "127.0.0.1", 0, backlog=1024, ssl=server_context()
    )
    ready(server.sockets[0].getsockname())
    await forever(server)


async def echo_server(ready: Ready) -> None:
    """Serve echoes over TLS."""
    await serve(Echo, ready)


async def sink_server(ready: Ready) -> None:
    """Serve one who receives in bulk."""
    await serve(Sink, ready)


async def source_server(ready: Ready) -> None:
    """Serve one who sends in bulk."""
    await serve(Source, ready)


async def streams_server(ready: Ready) -> None:
    """Serve echoes with streams."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(64 * KIB):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(
        echo, "127.0.0.1", 0, backlog=1024, ssl=server_context()
    )
    ready(server.sockets[0].getsockname())
    await forever(server)


def echo(bench: Bench, *, connections: int, size: int) -> None:
    """Load an echo server with messages of one size."""
    message = payload(size)
    exchange(bench, connections=connections, request=message, reply=message, tls=True)


@row(serve=echo_server, ops=500, unit="round trip")
def echo_1k_10(bench: Bench) -> None:
    """TLS echo, 1 KiB, 10 connections."""
    echo(bench, connections=10, size=KIB)


@row(serve=echo_server, ops=100, unit="round trip")
def echo_100k(bench: Bench) -> None:
    """TLS echo, 100 KiB, 10 connections."""
    echo(bench, connections=10, size=100 * KIB)


@row(serve=streams_server, ops=500, unit="round trip")
def streams_echo(bench: Bench) -> None:
    """asyncio streams echo over TLS, 1 KiB, 10 connections."""
    echo(bench, connections=10, size=KIB)


def shake_hands(bench: Bench, *, resume: bool) -> None:
    """Connect, exchange a byte and close, again and again."""
    context = client_context()
    session = None
    done = 0
    for _ in bench:
        for _ in range(bench.ops):
            with context.wrap_socket(connect(bench.address), session=session) as sock:
                sock.sendall(b".")
                if sock.recv(1) != b".":
                    raise AssertionError("wrong answer")
                if session is not None and not sock.session_reused:
                    raise AssertionError("not resumed")
                if resume:
                    session = sock.session
                done += 1
    bench.check(done)


@row(serve=echo_server, ops=50, unit="handshake")
def handshake(bench: Bench) -> None:
    """TLS handshakes, in full."""
    shake_hands(bench, resume=False)


@row(serve=echo_server, ops=50, unit="handshake")
def handshake_resumed(bench: Bench) -> None:
    """TLS handshakes, resumed."""
    shake_hands(bench, resume=True)


@row(serve=sink_server, ops=BULK, unit="MiB")
def bulk_in(bench: Bench) -> None:
    """TLS bulk, received by the loop."""
    chunk = bytes(CHUNK)
    done = 0
    with client_context().wrap_socket(connect(bench.address)) as sock:
        for _ in bench:
            for _ in range(bench.ops * MIB // CHUNK):
                sock.sendall(chunk)
            if sock.recv(2) != b".":
                raise AssertionError("wrong answer")
            done += BULK
    bench.check(done)


@row(serve=source_server, ops=BULK, unit="MiB")
def bulk_out(bench: Bench) -> None:
    """TLS bulk, sent by the loop."""
    got = bytearray(CHUNK)
    total = 0
    with client_context().wrap_socket(connect(bench.address)) as sock:
        for _ in bench:
            sock.sendall(b".")
            missing = bench.ops * MIB
            while missing and (count := sock.recv_into(got, min(CHUNK, missing))):
                missing -= count
                total += count
    bench.check(total // MIB)
