"""Datagrams; the processor time of the server's process counts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

from harness.bench import Address, Bench
from harness.load import connect, payload
from harness.registry import row

MESSAGE = payload(64)


class Echo(asyncio.DatagramProtocol):
    """Sends back what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self.transport.sendto(data, addr)


async def echo_server(ready: Callable[[Address], None]) -> None:
    """Serve echoes over UDP."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        Echo, local_addr=("127.0.0.1", 0)
    )
    ready(transport.get_extra_info("sockname"))
    await loop.create_future()


def burst(bench: Bench, count: int) -> None:
    """Send some datagrams, then wait for all of their answers."""
    done = 0
    with connect(bench.address, socket.SOCK_DGRAM) as sock:
        for _ in bench:
            for _ in range(bench.ops // count):
                for _ in range(count):
                    sock.send(MESSAGE)
                for _ in range(count):
                    done += sock.recv(2 * len(MESSAGE)) == MESSAGE
    bench.check(done)


@row(serve=echo_server, ops=500, unit="round trip")
def ping_pong(bench: Bench) -> None:
    """UDP ping-pong, 64 B."""
    burst(bench, 1)


@row(serve=echo_server, ops=640, unit="round trip")
def bursts(bench: Bench) -> None:
    """UDP, bursts of 32."""
    burst(bench, 32)
