"""The loop's own socket calls; the processor time of the server's process counts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from harness.bench import Address, Bench
from harness.load import exchange, payload
from harness.registry import row

MESSAGE = payload(1024)


async def echo_server(ready: Callable[[Address], None]) -> None:
    """Serve echoes with sock_accept, sock_recv and sock_sendall."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def echo(sock: socket.socket) -> None:
        with sock:
            while data := await loop.sock_recv(sock, 65536):
                await loop.sock_sendall(sock, data)

    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        listener.setblocking(False)
        ready(listener.getsockname())
        while True:
            sock, _ = await loop.sock_accept(listener)
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = loop.create_task(echo(sock))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


@row(serve=echo_server, ops=500, unit="round trip")
def echo(bench: Bench) -> None:
    """sock_recv and sock_sendall echo, 1 KiB, 10 connections."""
    exchange(bench, connections=10, request=MESSAGE, reply=MESSAGE)
