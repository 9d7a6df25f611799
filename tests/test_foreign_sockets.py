"""Sockets with a recv() or send() of their own: a transport has to call these."""

import asyncio
import socket

import pytest
from conftest import TIMEOUT


class Shouting(socket.socket):
    """A socket that changes what it sends and receives."""

    def recv(self, *args):
        return super().recv(*args).upper()

    def send(self, data, *args):
        return super().send(bytes(data).replace(b"?", b"!"), *args)


class Wrapped:
    """An object with a socket's methods that is none."""

    def __init__(self, sock):
        self._sock = sock

    def __getattr__(self, name):
        return getattr(self._sock, name)

    def recv(self, *args):
        return self._sock.recv(*args).upper()

    def send(self, data, *args):
        return self._sock.send(bytes(data).replace(b"?", b"!"), *args)


def shouting(sock):
    return Shouting(sock.family, sock.type, sock.proto, fileno=sock.detach())


@pytest.mark.parametrize("make", [shouting, Wrapped])
def test_its_own_methods_are_called(loop, make):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = make(socket.create_connection(server.getsockname()))
            client.setblocking(False)
            peer, _ = server.accept()
        with peer:
            peer.settimeout(TIMEOUT)
            reader, writer = await asyncio.open_connection(sock=client)
            writer.write(b"who?")
            await writer.drain()
            assert await loop.run_in_executor(None, peer.recv, 10) == b"who!"
            peer.sendall(b"me\n")
            assert await reader.readline() == b"ME\n"
            peer.shutdown(socket.SHUT_WR)
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    loop.run_until_complete(asyncio.wait_for(main(), TIMEOUT))


def test_a_subclass_that_changes_nothing_of_that_is_native(loop_name, loop):
    class Named(socket.socket):
        name = "a socket"

    ours, theirs = socket.socketpair()
    ours = Named(ours.family, ours.type, ours.proto, fileno=ours.detach())
    ours.setblocking(False)
    with theirs:
        transport, _ = loop.run_until_complete(
            loop.create_connection(asyncio.Protocol, sock=ours)
        )
        native = type(transport).__module__.startswith("fastloop")
        assert native is (loop_name == "fastloop")
        transport.abort()
        loop.run_until_complete(asyncio.sleep(0))
