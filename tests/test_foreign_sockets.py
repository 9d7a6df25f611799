"""Sockets with a recv() or send() of their own: a transport has to call these."""

import asyncio
import socket
import textwrap

import pytest
from conftest import TIMEOUT, run_python


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


@pytest.mark.parametrize("make", [shouting, Wrapped])
def test_the_repr_of_its_transport(loop, make):
    async def main():
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            transport, _ = await loop.create_connection(
                asyncio.Protocol, sock=make(ours)
            )
            fd = transport.get_extra_info("socket").fileno()
            polling = f"fd={fd} read=polling write=<idle, bufsize=0>>"
            assert repr(transport).endswith(polling)
            transport.pause_reading()
            assert repr(transport).endswith(polling.replace("polling", "idle", 1))
            transport.write(bytes(1 << 22))
            assert " write=<polling, bufsize=" in repr(transport)
            transport.abort()
            assert f" closing fd={fd} read=idle " in repr(transport)
            await asyncio.sleep(0)
            assert f" closed fd={fd}" in repr(transport)

    loop.run_until_complete(asyncio.wait_for(main(), TIMEOUT))


REPLACED = """
    import socket
    native = socket.socket

    class Green:  # of no socket's type, as gevent's
        def __init__(self, family=-1, type=-1, proto=-1, fileno=None):
            self._sock = native(family, type, proto, fileno)

        def __getattr__(self, name):
            return getattr(self._sock, name)

        def accept(self):
            sock, address = self._sock.accept()
            return Green(fileno=sock.detach()), address

    class Derived(native):  # as that of PySocks
        def recv(self, *args):
            return super().recv(*args).upper()

        def recv_into(self, buffer, *args):
            count = super().recv_into(buffer, *args)
            buffer[:count] = bytes(buffer[:count]).upper()
            return count

    socket.socket = {name}
    import asyncio
    if {loop!r} == "asyncio":
        new_event_loop = asyncio.SelectorEventLoop
    else:
        from fastloop import new_event_loop

    async def main():
        loop = asyncio.get_running_loop()
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        client = socket.socket()
        client.setblocking(False)
        accepting = asyncio.ensure_future(loop.sock_accept(listener))
        await loop.sock_connect(client, listener.getsockname())
        peer, _ = await accepting
        await loop.sock_sendall(peer, b"hello")
        buffer = bytearray(5)
        print((await loop.sock_recv(client, 2)).decode(), end="")
        print(await loop.sock_recv_into(client, memoryview(buffer)), bytes(buffer[:3]))
        client.close()
        peer.close()

        reader, writer = await asyncio.open_connection(*listener.getsockname())
        peer, _ = await loop.sock_accept(listener)
        await loop.sock_sendall(peer, b"stream")
        print(await reader.readexactly(6), repr(writer.transport)[:25])
        writer.close()
        peer.close()
        listener.close()

        class Receiver(asyncio.DatagramProtocol):
            def datagram_received(self, data, addr):
                received.set_result(data)

        received = loop.create_future()
        transport, _ = await loop.create_datagram_endpoint(
            Receiver, local_addr=("127.0.0.1", 0)
        )
        address = transport.get_extra_info("sockname")
        sender, _ = await loop.create_datagram_endpoint(Receiver, remote_addr=address)
        sender.sendto(b"datagram")
        print(await received)
        sender.close()
        transport.close()

    loop = new_event_loop()
    loop.run_until_complete(asyncio.wait_for(main(), {timeout}))
    loop.close()
"""


@pytest.mark.parametrize(
    "name, expected",
    [
        ("Green", "he3 b'llo'\nb'stream' <_SelectorSocketTransport\nb'datagram'\n"),
        ("Derived", "HE3 b'LLO'\nb'STREAM' <_SelectorSocketTransport\nb'datagram'\n"),
    ],
)
def test_a_class_in_the_place_of_sockets_before_the_import(loop_name, name, expected):
    source = REPLACED.format(name=name, loop=loop_name, timeout=TIMEOUT)
    done = run_python("-c", textwrap.dedent(source))
    assert done.stdout == expected, done.stderr


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


class Marking(socket.socket):
    """A socket that changes its datagrams, as PySocks' sends them through a proxy."""

    def send(self, data, *args):
        return super().send(bytes(data) + b"!", *args)

    def sendto(self, data, *args):
        return super().sendto(bytes(data) + b"?", *args)

    def recvfrom(self, *args):
        data, address = super().recvfrom(*args)
        return data.upper(), address


class WrappedMarking(Wrapped):
    """An object with a datagram socket's methods that is none."""

    def send(self, data, *args):
        return self._sock.send(bytes(data) + b"!", *args)

    def sendto(self, data, *args):
        return self._sock.sendto(bytes(data) + b"?", *args)

    def recvfrom(self, *args):
        data, address = self._sock.recvfrom(*args)
        return data.upper(), address


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_its_own_methods_are_called_for_datagrams(loop, wrapped, connected):
    class Protocol(asyncio.DatagramProtocol):
        def datagram_received(self, data, address):
            received.append((data, address))
            if len(received) == 3:
                done.set_result(None)

    async def main():
        nonlocal done
        done = loop.create_future()
        sock = (socket.socket if wrapped else Marking)(type=socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        with socket.socket(type=socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            peer.settimeout(TIMEOUT)
            name = peer.getsockname()
            if connected:
                sock.connect(name)
            transport, _ = await loop.create_datagram_endpoint(
                Protocol, sock=WrappedMarking(sock) if wrapped else sock
            )
            for data in (b"one", b"two", bytearray(b"three")):
                transport.sendto(data, None if connected else name)
            mark = b"!" if connected else b"?"
            for data in (b"one", b"two", b"three"):
                assert peer.recv(10) == data + mark
                peer.sendto(data, sock.getsockname())
            await asyncio.wait_for(done, TIMEOUT)
            assert received == [(b"ONE", name), (b"TWO", name), (b"THREE", name)]
            transport.close()
            await asyncio.sleep(0)

    done = None
    received = []
    loop.run_until_complete(main())
