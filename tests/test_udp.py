"""Datagram endpoints: UDP over IPv4 and IPv6 and Unix datagram sockets."""

import contextlib
import errno
import re
import socket
import sys

import pytest
from iosupport import (
    DatagramRecorder,
    capture,
    endpoint,
    left_to_the_collector,
    name_of,
    pattern,
    plain_udp,
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


@pytest.mark.parametrize("size", [1, 100, 1500, 9000, 65507])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_sizes(loop, run, kind, size):
    data = pattern(size)

    async def main():
        async with endpoint(**LOCAL) as a, endpoint(**LOCAL) as b:
            a.transport.sendto(kind(data), name_of(b))
            assert await b.count(1) == [(data, name_of(a))]

    run(main())


def test_empty_datagram(loop, run):
    async def main():
        async with endpoint(**LOCAL) as protocol:
            with plain_udp() as sock:
                sock.sendto(b"", name_of(protocol))
                assert await protocol.count(1) == [(b"", sock.getsockname())]
                protocol.transport.sendto(b"", sock.getsockname())
                protocol.transport.sendto(b"end", sock.getsockname())
                await turns(2)
                if sys.version_info >= (3, 13):
                    assert sock.recv(10) == b""
                # Older versions send none.
                assert sock.recv(10) == b"end"

    run(main())


def test_bursts_keep_order_and_borders(loop, run):
    async def main():
        async with endpoint(**LOCAL) as a, endpoint(**LOCAL) as b:
            total = 0
            for burst in range(20):
                for index in range(64):
                    a.transport.sendto(b"%d/%d" % (burst, index), name_of(b))
                total += 64
                await b.count(total)
            assert [data for data, _ in b.datagrams] == [
                b"%d/%d" % (n, i) for n in range(20) for i in range(64)
            ]
            assert {address for _, address in b.datagrams} == {name_of(a)}

    run(main())


def test_ping_pong_from_inside_the_callback(loop, run):
    class Pong(DatagramRecorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if int(data) < 200:
                self.transport.sendto(b"%d" % (int(data) + 1), addr)

    async def main():
        async with endpoint(Pong, **LOCAL) as a, endpoint(Pong, **LOCAL) as b:
            a.transport.sendto(b"0", name_of(b))
            await b.until(lambda: b.datagrams and int(b.datagrams[-1][0]) >= 200)
            assert [int(data) for data, _ in b.datagrams] == list(range(0, 201, 2))
            assert [int(data) for data, _ in a.datagrams] == list(range(1, 200, 2))

    run(main())


def test_many_peers(loop, run):
    async def main():
        async with endpoint(**LOCAL) as server:
            with contextlib.ExitStack() as stack:
                socks = [stack.enter_context(plain_udp()) for _ in range(30)]
                for index, sock in enumerate(socks):
                    sock.sendto(b"%d" % index, name_of(server))
                await server.count(30)
                assert sorted(server.datagrams) == sorted(
                    (b"%d" % index, sock.getsockname())
                    for index, sock in enumerate(socks)
                )
                for data, address in server.datagrams:
                    server.transport.sendto(data * 2, address)
                await turns(2)
                for index, sock in enumerate(socks):
                    assert sock.recv(100) == b"%d" % index * 2

    run(main())


def test_buffer_changed_after_sendto(loop, run):
    async def main():
        async with endpoint(**LOCAL) as protocol:
            with plain_udp() as sock:
                for size in (10, 5000):
                    buffer = bytearray(b"a" * size)
                    protocol.transport.sendto(buffer, sock.getsockname())
                    buffer[:] = b"b" * size
                    buffer.clear()
                    await turns(2)
                    assert sock.recv(10000) == b"a" * size

    run(main())


def test_connected_endpoint_hears_only_its_peer(loop, run):
    async def main():
        with plain_udp() as peer, plain_udp() as stranger:
            async with endpoint(remote_addr=peer.getsockname()) as protocol:
                address = name_of(protocol)
                stranger.sendto(b"stranger", address)
                peer.sendto(b"peer", address)
                assert await protocol.count(1) == [(b"peer", peer.getsockname())]

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


def test_address_of_a_connected_endpoint(loop, run):
    async def main():
        with plain_udp() as peer:
            async with endpoint(remote_addr=peer.getsockname()) as protocol:
                protocol.transport.sendto(b"1", peer.getsockname())
                protocol.transport.sendto(b"2", None)
                await turns(2)
                assert peer.recv(10) == b"1"
                assert peer.recv(10) == b"2"
                message = re.escape(
                    f"Invalid address: must be None or {peer.getsockname()}"
                )
                with pytest.raises(ValueError, match=message):
                    protocol.transport.sendto(b"3", ("127.0.0.1", 9))

    run(main())


@pytest.mark.parametrize("data", ["text", None, 17, [b"x"]], ids=repr)
def test_wrong_data(loop, run, data):
    async def main():
        async with endpoint(**LOCAL) as protocol:
            name = type(data).__name__
            with pytest.raises(
                TypeError, match=f"data argument must be a bytes.*, not '{name}'"
            ):
                protocol.transport.sendto(data, name_of(protocol))

    run(main())


@pytest.mark.parametrize(
    "address", [None, "text", ("127.0.0.1",), ("127.0.0.1", "port"), (1, 2)], ids=repr
)
def test_wrong_address_of_an_unconnected_endpoint(loop, run, address):
    contexts = capture(loop)

    async def main():
        async with endpoint(**LOCAL) as protocol:
            try:
                protocol.transport.sendto(b"x", address)
            except TypeError:
                return
            # asyncio gives the endpoint up over it; a destination that is missing is a plain OSError.
            await protocol.until(lambda: protocol.errors or protocol.lost.done())

    run(main())
    for context in contexts:
        assert isinstance(context["exception"], TypeError)


def test_refused(loop, run):
    async def main():
        with plain_udp() as gone:
            address = gone.getsockname()
        async with endpoint(remote_addr=address) as protocol:
            protocol.transport.sendto(b"to nobody")
            await protocol.until(lambda: protocol.errors)
            assert isinstance(protocol.errors[0], ConnectionRefusedError)
            # It goes on.
            assert not protocol.transport.is_closing()
            protocol.transport.sendto(b"again")
            await protocol.until(lambda: len(protocol.errors) >= 2)

    run(main())


def test_too_large(loop, run):
    async def main():
        async with endpoint(**LOCAL) as a, endpoint(**LOCAL) as b:
            a.transport.sendto(bytes(70_000), name_of(b))
            await a.until(lambda: a.errors)
            assert a.errors[0].errno == errno.EMSGSIZE
            a.transport.sendto(b"fits", name_of(b))
            assert await b.count(1) == [(b"fits", name_of(a))]

    run(main())


def test_one_bad_datagram_of_a_batch(loop, run):
    async def main():
        async with endpoint(**LOCAL) as a, endpoint(**LOCAL) as b:
            for size in (1, 70_000, 2, 80_000, 3):
                a.transport.sendto(bytes(size), name_of(b))
            await b.count(3)
            assert [len(data) for data, _ in b.datagrams] == [1, 2, 3]
            assert [exc.errno for exc in a.errors] == [errno.EMSGSIZE] * 2

    run(main())


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
