"""Datagrams as they are sent."""

import asyncio
import contextlib
import errno
import re
import socket
import struct
import sys

import pytest
from iosupport import (
    capture,
    endpoint,
    is_stock,
    link_question,
    name_of,
    plain_udp,
    refusing_udp,
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


def test_options_between_two_datagrams(loop, run):
    # As traceroute does, or who sends to each interface in turn.
    recvttl = 12  # not in Python's socket module

    async def main():
        async with endpoint(**LOCAL) as protocol:
            with plain_udp() as sock:
                sock.setsockopt(socket.IPPROTO_IP, recvttl, 1)
                shown = protocol.transport.get_extra_info("socket")
                for ttl in range(1, 6):
                    shown.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
                    protocol.transport.sendto(b"probe", sock.getsockname())
                await turns(2)
                ttls = []
                for _ in range(5):
                    [(_, _, value)] = sock.recvmsg(10, 100)[1]
                    ttls.append(int.from_bytes(value, sys.byteorder))
                assert ttls == [1, 2, 3, 4, 5]

    run(main())


@pytest.mark.parametrize("first", [True, False])
def test_view_with_gaps(loop, run, first):
    # Whether it goes at once or waits for the end of the turn.
    if is_stock(loop):
        pytest.skip("asyncio ends the endpoint with BufferError, unless it waits")
    errors = capture(loop)

    async def main():
        async with endpoint(**LOCAL) as protocol:
            with plain_udp() as sock:
                if not first:
                    protocol.transport.sendto(b"first", sock.getsockname())
                view = memoryview(bytearray(b"abcdef"))[::2]
                protocol.transport.sendto(view, sock.getsockname())
                await turns(2)
                if not first:
                    assert sock.recv(10) == b"first"
                assert sock.recv(10) == b"ace"

    run(main())
    assert not errors


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
        with refusing_udp() as address:
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


def test_arguments_by_name(loop, run):
    async def main():
        async with endpoint(**LOCAL) as protocol:
            with plain_udp() as sock:
                sendto = protocol.transport.sendto
                sendto(addr=sock.getsockname(), data=b"1")
                sendto(b"2", addr=sock.getsockname())
                await turns(2)
                assert sock.recv(10) == b"1"
                assert sock.recv(10) == b"2"
                with pytest.raises(TypeError, match=r"missing .* argument: 'data'"):
                    sendto(addr=None)
                with pytest.raises(TypeError, match=r"unexpected keyword .* 'other'"):
                    sendto(b"3", other=None)
                with pytest.raises(TypeError, match=r"multiple values .* 'data'"):
                    sendto(b"3", None, data=b"3")
                with pytest.raises(TypeError, match=r"takes .* \(?[34] (were )?given"):
                    sendto(b"3", None, 4)

    run(main())


def sequence_of(answer):
    return struct.unpack_from("=IHHII", answer)[3]


@pytest.mark.parametrize("connected", [False, True])
def test_netlink(loop, run, connected):
    """Addresses of a family of which only the socket module knows the form."""
    kernel = (0, 0)

    async def main():
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind((0, 0))
        if connected:
            sock.connect(kernel)
        async with endpoint(sock=sock) as protocol:
            transport = protocol.transport
            assert transport.get_extra_info("sockname") == sock.getsockname()
            for sequence in range(1, 6):
                transport.sendto(link_question(sequence), None if connected else kernel)
            await protocol.count(5)
            answers = [sequence_of(data) for data, _ in protocol.datagrams]
            assert answers == [1, 2, 3, 4, 5]
            assert {address for _, address in protocol.datagrams} == {kernel}

    run(main())


def test_refused_by_an_audit_hook(run_script):
    """As an error of the socket's: the endpoint stays open."""
    result = run_script(
        """
        def hook(event, args):
            if event == "socket.sendto" and refusing:
                raise PermissionError("not there")

        class Protocol(asyncio.DatagramProtocol):
            def error_received(self, exc):
                print("error", repr(exc))

            def connection_lost(self, exc):
                print("lost", repr(exc))

        async def main():
            global refusing
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(
                Protocol, ("127.0.0.1", 0)
            )
            refusing = True
            for _ in range(2):
                transport.sendto(b"data", ("127.0.0.1", 9))
            refusing = False
            print(transport.is_closing(), transport.get_write_buffer_size())
            transport.close()
            await asyncio.sleep(0.01)

        import asyncio, sys
        refusing = False
        sys.addaudithook(hook)
        run(main())
        """
    )
    error = "error PermissionError('not there')\n"
    assert result.stdout == error * 2 + "False 0\nlost None\n"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no __buffer__() in Python")
def test_data_whose_buffer_sends_others(loop, run, tmp_path):
    """The one that fills the queue to its room is queued while another is about to be."""
    path = str(tmp_path / "slow")

    class Sending(bytearray):
        def __buffer__(self, flags):
            if sends:
                transport.sendto(sends.pop())
            return super().__buffer__(flags)

    async def main():
        nonlocal transport
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(path)
            sock.setblocking(False)
            async with endpoint(remote_addr=path, family=socket.AF_UNIX) as protocol:
                transport = protocol.transport
                while transport.get_write_buffer_size() == 0:
                    transport.sendto(b"first")
                for number in range(62):
                    transport.sendto(b"%d" % number)
                sends.append(b"within")
                transport.sendto(Sending(b"last"))
                seen = []
                while b"last" not in seen:
                    with contextlib.suppress(BlockingIOError):
                        while True:
                            seen.append(sock.recv(100))
                    await asyncio.sleep(0.001)
                numbers = [b"%d" % number for number in range(62)]
                assert seen[-64:] == [*numbers, b"within", b"last"]
                assert set(seen[:-64]) == {b"first"}

    transport = None
    sends = []
    run(main())


def test_audit_hook_that_says_it_would_block(run_script):
    """As the socket's own word: the datagram waits, and is tried again."""
    result = run_script(
        """
        def hook(event, args):
            global refusals
            if event == "socket.sendto" and refusals > 0:
                refusals -= 1
                raise refusing("not now")

        class Protocol(asyncio.DatagramProtocol):
            def datagram_received(self, data, address):
                print(data.decode())
                done.set_result(None)

            def error_received(self, exc):
                print("error", repr(exc))

        async def main():
            global refusals, refusing, done
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(
                Protocol, ("127.0.0.1", 0)
            )
            address = transport.get_extra_info("sockname")
            for refusing in (BlockingIOError, InterruptedError):
                refusals, done = 3, loop.create_future()
                transport.sendto(refusing.__name__.encode(), address)
                print(transport.get_write_buffer_size() > 0)
                await done
                print(refusals)
            transport.close()
            await asyncio.sleep(0.01)

        import asyncio, sys
        refusals = 0
        sys.addaudithook(hook)
        run(main())
        """
    )
    assert result.stdout == "True\nBlockingIOError\n0\nTrue\nInterruptedError\n0\n"


@pytest.mark.parametrize("by_hook", [True, False])
def test_an_error_behind_the_end(run_script, loop_name, by_hook):
    """What refuses the datagram has closed the endpoint and taken turns before."""
    if loop_name != "fastloop":
        pytest.skip("asyncio's loop takes no turns within a callback")
    result = run_script(
        f"""
        import asyncio, socket, sys
        by_hook = {by_hook}

        def refuse():
            transport.abort()
            while not lost:
                loop.run_once(0)
            raise OSError("too late")

        def hook(event, args):
            if by_hook and event == "socket.sendto" and not lost:
                refuse()

        class Own(socket.socket):
            def sendto(self, *args):
                refuse()

        class Protocol(asyncio.DatagramProtocol):
            def error_received(self, exc):
                print("error", repr(exc))

            def connection_lost(self, exc):
                lost.append(exc)

        async def main():
            global loop, transport
            loop = asyncio.get_running_loop()
            sock = (socket.socket if by_hook else Own)(type=socket.SOCK_DGRAM)
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
            transport, _ = await loop.create_datagram_endpoint(Protocol, sock=sock)
            transport.sendto(b"data", ("127.0.0.1", 9))
            print(lost, transport)

        lost = []
        sys.addaudithook(hook)
        run(main())
        """
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("[None] <DatagramTransport closed fd=")
