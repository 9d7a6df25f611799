"""What connections that do nothing hold in memory, in the server's process."""

from __future__ import annotations

import resource
import socket

from harness.bench import Bench
from harness.load import connect
from harness.registry import row

from .tcp import echo_server

SETTLED = b"settled"


def hold(bench: Bench) -> None:
    """Open connections, have each answer once, and keep them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    socks: list[socket.socket] = []
    done = 0
    with connect(bench.address) as first:
        first.sendall(SETTLED)
        first.recv(len(SETTLED))
        for _ in bench:
            for _ in range(bench.ops):
                sock = connect(bench.address)
                sock.sendall(SETTLED)
                done += sock.recv(len(SETTLED)) == SETTLED
                socks.append(sock)
    for sock in socks:
        sock.close()
    bench.check(done)


@row(serve=echo_server, ops=800, unit="connection", metric="memory", passes=1)
def tcp(bench: Bench) -> None:
    """memory of an idle TCP connection, over 800."""
    hold(bench)
