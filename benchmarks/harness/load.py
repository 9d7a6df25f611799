"""The load on servers: blocking sockets and no event loop, the same for all."""

from __future__ import annotations

import socket
import struct

from .bench import Address, Bench

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
    bench: Bench, *, connections: int, request: bytes, reply: bytes, ops: int = 1
) -> None:
    """Send requests over some connections and compare every answer.

    Each connection has one request under way, and the answers are fetched in turn:
    while one is waited for, the server has all the others to work on. ``ops`` is the
    number of operations that one request stands for.
    """
    size = len(reply)
    got = bytearray(size)
    socks = [connect(bench.address) for _ in range(connections)]
    turns = bench.ops // (connections * ops)
    done = 0
    for sock in socks:
        sock.sendall(request)
    for _ in bench:
        for _ in range(turns):
            for sock in socks:
                count = sock.recv_into(got, size, socket.MSG_WAITALL)
                if count != size or got != reply:
                    raise AssertionError("wrong answer")
                done += ops
                sock.sendall(request)
    for sock in socks:
        sock.recv_into(got, size, socket.MSG_WAITALL)
        sock.close()
    bench.check(done)


def payload(size: int) -> bytes:
    """Return bytes that no shift or repetition leaves the same."""
    return bytes(number * 151 + (number >> 8) & 0xFF for number in range(size))
