"""The load on servers: blocking sockets and no event loop, the same for all."""

from __future__ import annotations

import socket
import struct
import subprocess

from . import native
from .bench import Address, Bench, MissingError

TIMEOUT = 20  # seconds without an answer, after which the sample has failed
# By the kernel and not by settimeout(), which would add a poll() to every call.
_TIMEVAL = struct.pack("ll", TIMEOUT, 0)


def connect(address: Address, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Connect one socket; it blocks, and no longer than ``TIMEOUT``."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    sock = socket.socket(family, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL)
    if family == socket.AF_INET and kind == socket.SOCK_STREAM:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.connect(address)
    return sock


def exchange(
    bench: Bench,
    *,
    connections: int,
    request: bytes,
    reply: bytes,
    ops: int = 1,
    tls: bool = False,
) -> None:
    """Send requests over some connections and compare every answer.

    Each connection has one request under way, and the answers are fetched in turn:
    while one is waited for, the server has all the others to work on. ``ops`` is the
    number of operations that one request stands for. Done by native/load.c.
    """
    if native.build("load", "openssl") is None:
        raise MissingError("the load needs a C compiler and OpenSSL's headers")
    host, port = (bench.address, 0) if isinstance(bench.address, str) else bench.address
    rounds = bench.ops // (connections * ops)
    numbers = (port, int(tls), connections, rounds, len(request), len(reply))
    command = [str(native.program("load")), host, *map(str, numbers)]
    done = 0
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(request)
        process.stdin.write(reply)
        report = process.stdout.readline()
        for _ in bench:
            process.stdin.write(b".")
            report = process.stdout.readline()
            done += rounds * connections * ops if report else 0
        process.stdin.close()
        if process.wait() != 0:
            raise AssertionError("the load has failed")
    bench.check(done)


def payload(size: int) -> bytes:
    """Return bytes that no shift or repetition leaves the same."""
    return bytes(number * 151 + (number >> 8) & 0xFF for number in range(size))
