"""Connections that come, exchange 64 bytes and go."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from harness.bench import Bench
from harness.load import connect, payload
from harness.peer import echo_peer
from harness.registry import row

from .tcp import Ready, echo_server, serve_streams

MESSAGE = payload(64)
TOGETHER = 20  # connections that are open at the same time


def visit(bench: Bench) -> None:
    """Visit a server, a few at a time."""
    done = 0
    for _ in bench:
        for _ in range(bench.ops // TOGETHER):
            socks = [connect(bench.address) for _ in range(TOGETHER)]
            for sock in socks:
                sock.sendall(MESSAGE)
            for sock in socks:
                done += sock.recv(len(MESSAGE)) == MESSAGE
                sock.close()
    bench.check(done)


@row(serve=echo_server, ops=500, unit="connection")
def server(bench: Bench) -> None:
    """connect, exchange, close: the server's side."""
    visit(bench)


class Client(asyncio.Protocol):
    """Sends one message and closes when it is back."""

    def __init__(self) -> None:
        self.gone = asyncio.get_running_loop().create_future()
        self.got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(MESSAGE)

    def data_received(self, data: bytes) -> None:
        self.got += data
        if len(self.got) == len(MESSAGE):
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set_result(self.got == MESSAGE)


async def streams_server(ready: Ready) -> None:
    """Answer one message of each visitor, with asyncio's streams."""

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(await reader.readexactly(len(MESSAGE)))
        writer.close()

    await serve_streams(answer, ready)


@row(serve=streams_server, ops=500, unit="connection")
def streams(bench: Bench) -> None:
    """connect, exchange, close: the server's side with asyncio streams."""
    visit(bench)


@row(ops=200, unit="connection")
async def streams_client(bench: Bench) -> None:
    """connect, exchange, close: the client's side with open_connection."""

    async def visit(host: str, port: int, times: int) -> int:
        good = 0
        for _ in range(times):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(MESSAGE)
            good += await reader.readexactly(len(MESSAGE)) == MESSAGE
            writer.close()
            await writer.wait_closed()
        return good

    done = 0
    with echo_peer() as (host, port):
        for _ in bench:
            visits = [visit(host, port, bench.ops // TOGETHER) for _ in range(TOGETHER)]
            done += sum(await asyncio.gather(*visits))
    bench.check(done)


@row(ops=1_000, unit="call")
async def getaddrinfo(bench: Bench) -> None:
    """getaddrinfo of a literal address."""
    loop = asyncio.get_running_loop()
    done = 0
    for _ in bench:
        for _ in range(bench.ops):
            infos = await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
            done += infos[0][4] == ("127.0.0.1", 80)
    bench.check(done)


@row(ops=200, unit="connection")
async def client(bench: Bench) -> None:
    """connect, exchange, close: the client's side."""
    loop = asyncio.get_running_loop()

    async def visit(host: str, port: int, times: int) -> int:
        good = 0
        for _ in range(times):
            _, protocol = await loop.create_connection(Client, host, port)
            good += await protocol.gone
        return good

    done = 0
    with echo_peer() as (host, port):
        for _ in bench:
            visits = [visit(host, port, bench.ops // TOGETHER) for _ in range(TOGETHER)]
            done += sum(await asyncio.gather(*visits))
    bench.check(done)
