"""Datagrams as they are sent."""

import errno
import re

import pytest
from iosupport import (
    capture,
    endpoint,
    name_of,
    plain_udp,
    turns,
)

LOCAL = {"local_addr": ("127.0.0.1", 0)}


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
