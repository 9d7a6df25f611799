"""Datagram endpoints: UDP over IPv4 and IPv6 and Unix datagram sockets."""

import asyncio
import errno
import socket

import pytest
from iosupport import (
    DatagramRecorder,
    capture,
    endpoint,
    left_to_the_collector,
    link_question,
    name_of,
    pattern,
    plain_udp,
    settle,
    turns,
)

LOCAL = {"local_addr": ("127.0.0.1", 0)}


# Sending and receiving


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_round_trip(loop, run, host):
    async def main():
        async with (
            endpoint(local_addr=(host, 0)) as server,
            endpoint(remote_addr=name_of(server)[:2]) as client,
        ):
            assert client.transport.sendto(b"question") is None
            ((data, address),) = await server.count(1)
            assert data == b"question"
            assert type(data) is bytes
            assert address == name_of(client)
            assert isinstance(address, tuple)
            server.transport.sendto(b"answer", address)
            ((data, address),) = await client.count(1)
            assert (data, address) == (b"answer", name_of(server))

    run(main())


def test_unix_datagrams(loop, run, tmp_path):
    first, second = str(tmp_path / "first"), str(tmp_path / "second")

    async def main():
        async with (
            endpoint(local_addr=first, family=socket.AF_UNIX) as a,
            endpoint(local_addr=second, remote_addr=first, family=socket.AF_UNIX) as b,
        ):
            b.transport.sendto(b"hello")
            assert await a.count(1) == [(b"hello", second)]
            a.transport.sendto(b"answer", second)
            assert await b.count(1) == [(b"answer", first)]
            assert b.transport.get_extra_info("peername") == first
            # Unix datagrams know no small maximum and no loss.
            data = pattern(100_000)
            a.transport.sendto(data, second)
            await b.count(2)
            assert b.datagrams[1][0] == data
        # A file that a former endpoint left is no hindrance.
        async with endpoint(local_addr=first, family=socket.AF_UNIX):
            pass

    run(main())


def test_unnamed_unix_peer(loop, run, tmp_path):
    path = str(tmp_path / "socket")

    async def main():
        async with endpoint(local_addr=path, family=socket.AF_UNIX) as protocol:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"from nobody", path)
                assert await protocol.count(1) == [(b"from nobody", None)]

    run(main())


def test_socketpair(loop, run):
    async def main():
        ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with peer:
            async with endpoint(sock=ours) as protocol:
                peer.send(b"x")
                await protocol.count(1)
                assert protocol.datagrams[0][0] == b"x"

    run(main())


def test_addresses_by_name(loop, run):
    async def main():
        async with endpoint(
            local_addr=("localhost", 0), family=socket.AF_INET
        ) as server:
            port = name_of(server)[1]
            async with endpoint(
                remote_addr=("localhost", port), family=socket.AF_INET
            ) as client:
                assert client.transport.get_extra_info("peername") == (
                    "127.0.0.1",
                    port,
                )
                client.transport.sendto(b"x")
                await server.count(1)

    run(main())


def test_ipv6_addresses_have_four_parts(loop, run):
    async def main():
        async with endpoint(local_addr=("::1", 0)) as server:
            with plain_udp("::1", socket.AF_INET6) as sock:
                sock.sendto(b"x", name_of(server))
                assert await server.count(1) == [(b"x", sock.getsockname())]
                assert len(server.datagrams[0][1]) == 4
                for address in (sock.getsockname(), sock.getsockname()[:2]):
                    server.transport.sendto(b"y", address)
                    await turns(2)
                    assert sock.recv(10) == b"y"

    run(main())


# Addresses and errors


def test_broadcast(loop, run):
    async def main():
        async with endpoint(
            local_addr=("127.0.0.1", 0), allow_broadcast=True
        ) as protocol:
            sock = protocol.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
        async with endpoint(local_addr=("127.0.0.1", 0)) as protocol:
            sock = protocol.transport.get_extra_info("socket")
            assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
            protocol.transport.sendto(b"x", ("255.255.255.255", 9))
            await protocol.until(lambda: protocol.errors)
            assert isinstance(protocol.errors[0], PermissionError)

    run(main())


def test_remote_address_with_broadcast_stays_unconnected(loop, run):
    async def main():
        with plain_udp() as peer, plain_udp() as other:
            async with endpoint(
                local_addr=("127.0.0.1", 0),
                remote_addr=peer.getsockname(),
                allow_broadcast=True,
            ) as protocol:
                assert protocol.transport.get_extra_info("peername") is None
                protocol.transport.sendto(b"x")
                await turns(2)
                assert peer.recv(10) == b"x"
                other.sendto(b"from another", name_of(protocol))
                assert await protocol.count(1) == [
                    (b"from another", other.getsockname())
                ]

    run(main())


def test_reuse_port(loop, run):
    async def main():
        async with endpoint(**LOCAL, reuse_port=True) as first:
            assert first.transport.get_extra_info("socket").getsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEPORT
            )
            async with endpoint(local_addr=name_of(first), reuse_port=True) as second:
                assert name_of(second) == name_of(first)
            with pytest.raises(OSError) as info:
                await loop.create_datagram_endpoint(
                    DatagramRecorder, local_addr=name_of(first)
                )
            assert info.value.errno == errno.EADDRINUSE

    run(main())


def test_socket_of_the_program(loop, run):
    async def main():
        sock = socket.socket(type=socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        async with endpoint(sock=sock) as protocol:
            assert sock.getblocking() is False
            assert name_of(protocol) == sock.getsockname()
            protocol.transport.sendto(b"to myself", sock.getsockname())
            assert await protocol.count(1) == [(b"to myself", sock.getsockname())]
        assert sock.fileno() == -1

    run(main())


def test_connected_socket_of_the_program(loop, run):
    async def main():
        with plain_udp() as peer:
            sock = socket.socket(type=socket.SOCK_DGRAM)
            sock.connect(peer.getsockname())
            async with endpoint(sock=sock) as protocol:
                assert (
                    protocol.transport.get_extra_info("peername") == peer.getsockname()
                )
                protocol.transport.sendto(b"x")
                await turns(2)
                assert peer.recv(10) == b"x"

    run(main())


def test_wrong_arguments(loop, run):
    async def main():
        create = loop.create_datagram_endpoint
        with pytest.raises(ValueError, match="unexpected address family"):
            await create(DatagramRecorder)
        with pytest.raises(TypeError, match="2-tuple is expected"):
            await create(DatagramRecorder, local_addr="127.0.0.1")
        with pytest.raises(TypeError, match="string is expected"):
            await create(DatagramRecorder, local_addr=("a", 1), family=socket.AF_UNIX)
        with pytest.raises(ValueError, match="can not get address information"):
            await create(
                DatagramRecorder, local_addr=("127.0.0.1", 0), remote_addr=("::1", 9)
            )
        with pytest.raises(TypeError):
            await create(
                DatagramRecorder, local_addr=("127.0.0.1", 0), reuse_address=True
            )
        with (
            socket.socket() as stream,
            socket.socket(type=socket.SOCK_DGRAM) as datagram,
        ):
            with pytest.raises(
                ValueError,
                match=r"(UDP|datagram) [Ss]ocket was expected, got",
            ):
                await create(DatagramRecorder, sock=stream)
            with pytest.raises(
                ValueError, match="socket modifier keyword arguments can not be used"
            ):
                await create(
                    DatagramRecorder, sock=datagram, local_addr=("127.0.0.1", 0)
                )

    run(main())


def test_factory_that_raises(loop, run):
    async def main():
        with pytest.raises(ZeroDivisionError):
            async with endpoint(lambda: 1 / 0, **LOCAL):
                pass

    with left_to_the_collector(loop):
        run(main())


@pytest.mark.skipif(
    not hasattr(socket, "AF_NETLINK"),
    reason="a family that needs the socket's own words",
)
@pytest.mark.parametrize(
    ("received", "error"),
    [
        ((b"data", "address"), None),
        ([b"data", "address"], None),
        ((b"data",), ValueError),
        ((b"data", "address", 3), ValueError),
        (None, TypeError),
        (5, TypeError),
    ],
    ids=str,
)
def test_what_a_socket_of_another_family_receives(loop, run, received, error):
    """recvfrom() of a class of the program's own may return anything."""

    class Odd(socket.socket):
        def recvfrom(self, size):
            super().recvfrom(size)
            return received

    class Protocol(asyncio.DatagramProtocol):
        def datagram_received(self, data, address):
            ended.set_result((data, address))

        def error_received(self, exc):
            ended.set_exception(exc)

        def connection_lost(self, exc):
            if not ended.done():
                ended.set_result(exc)

    async def main():
        nonlocal ended
        ended = loop.create_future()
        try:
            sock = Odd(socket.AF_NETLINK, socket.SOCK_DGRAM)
        except OSError:
            pytest.skip("no netlink here")
        sock.bind((0, 0))
        transport, _ = await loop.create_datagram_endpoint(Protocol, sock=sock)
        transport.sendto(link_question(1), (0, 0))
        result = await ended
        if error is None:
            assert result == (b"data", "address")
            assert contexts == []
        else:
            assert type(result) is error
            assert transport.is_closing()
            (context,) = contexts
            assert context["message"] == "Fatal read error on datagram transport"
            assert context["exception"] is result
        transport.close()
        await settle()

    ended = None
    contexts = capture(loop)
    run(main())
