"""What connections that do nothing hold in memory, in the server's process."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable

from harness.bench import Bench
from harness.load import connect
from harness.registry import row

from .tcp import Ready, echo_server
from .tls import client_context
from .tls import echo_server as tls_echo_server

SETTLED = b"settled"

Wrap = Callable[[socket.socket], socket.socket]


def many_descriptors() -> None:
    """Allow this process as many descriptors as it may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def crowded_server(ready: Ready) -> None:
    """Serve echoes over TCP, to many."""
    many_descriptors()
    await echo_server(ready)


async def crowded_tls_server(ready: Ready) -> None:
    """Serve echoes over TLS, to many."""
    many_descriptors()
    await tls_echo_server(ready)


def hold(bench: Bench, wrap: Wrap = lambda sock: sock) -> None:
    """Open connections, have each answer once, and keep them."""
    many_descriptors()
    socks: list[socket.socket] = []
    done = 0
    with wrap(connect(bench.address)) as first:
        first.sendall(SETTLED)
        first.recv(len(SETTLED))
        for _ in bench:
            for _ in range(bench.ops):
                sock = wrap(connect(bench.address))
                sock.sendall(SETTLED)
                done += sock.recv(len(SETTLED)) == SETTLED
                socks.append(sock)
    for sock in socks:
        sock.close()
    bench.check(done)


@row(serve=crowded_server, ops=4_000, unit="connection", metric="memory", passes=1)
def tcp(bench: Bench) -> None:
    """memory of an idle TCP connection, over 4,000."""
    hold(bench)


@row(serve=crowded_tls_server, ops=500, unit="connection", metric="memory", passes=1)
def tls(bench: Bench) -> None:
    """memory of an idle TLS connection, over 500."""
    hold(bench, client_context().wrap_socket)
